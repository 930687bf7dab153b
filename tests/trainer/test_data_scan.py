"""Scanning: what is read, what is skipped, and the sentence for every bad input, with real files."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.data.scan import DataError, ScannedData, scan


class CancelledError(Exception):
    pass


def scanned(path: Path, cache_dir: Path | None = None) -> ScannedData:
    return scan(path, cache_dir or path.parent / "cache", lambda *_: None, lambda: None)


def sentence(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        scanned(path)
    assert caught.value.field == "data.path"
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def save_image(path: Path, value: int = 128, size: tuple[int, int] = (12, 9)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 255 - value, 0)).save(path)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for name in ("cat", "dog"):
        for number in (1, 2, 10):
            save_image(root / name / f"{number}.png", number)
    return root


def zip_of(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return target


def tree(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_classes_and_files_come_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "9", "B", "a", "1"):
        for number in (10, 2):
            save_image(tmp_path / "data" / name / f"{number}.png")
    found = scanned(tmp_path / "data")
    assert found.class_names == ["1", "9", "10", "a", "B"]
    assert [Path(path).name for path, label in found.samples if label == 0] == ["2.png", "10.png"]
    assert [label for _, label in found.samples] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert all(Path(path).is_absolute() for path, _ in found.samples)


def test_subfolders_of_a_class_are_read(pets: Path) -> None:
    save_image(pets / "cat" / "young" / "kitten.png")
    assert len(scanned(pets).samples) == 7


def test_a_wrapping_folder_is_looked_through(pets: Path) -> None:
    (pets.parent / "wrapped").mkdir()
    pets.rename(pets.parent / "wrapped" / "pets")
    found = scanned(pets.parent / "wrapped")
    assert found.class_names == ["cat", "dog"]
    assert found.root == pets.parent / "wrapped" / "pets"


def test_unreadable_files_are_skipped_with_a_reason_and_stay_unchanged(pets: Path) -> None:
    good = save_image(pets / "cat" / "large.jpg", size=(300, 200)).read_bytes()
    (pets / "cat" / "large.jpg").write_bytes(good[: len(good) // 2])
    (pets / "cat" / "empty.png").write_bytes(b"")
    (pets / "dog" / "notes.txt").write_text("not an image")
    (pets / "dog" / "wrong.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 100)
    (pets / "labels.csv").write_text("a,b")
    before = tree(pets)
    found = scanned(pets)
    reasons = {Path(path).name: reason for path, reason in found.skipped}
    assert reasons.keys() == {"large.jpg", "empty.png", "notes.txt", "wrong.png", "labels.csv"}
    assert "truncated" in reasons["large.jpg"]
    assert reasons["empty.png"] == "it is empty (0 bytes)"
    assert reasons["notes.txt"] == "it is not an image that can be read here"
    assert reasons["labels.csv"] == "it is in no class subfolder"
    assert len(found.samples) == 6
    assert tree(pets) == before


def test_hidden_files_and_those_of_operating_systems_are_passed_over_in_silence(pets: Path) -> None:
    (pets / ".DS_Store").write_bytes(b"x")
    (pets / "cat" / "._1.png").write_bytes(b"x")
    (pets / "cat" / "Thumbs.db").write_bytes(b"x")
    save_image(pets / "__MACOSX" / "1.png")
    save_image(pets / ".cache" / "1.png")
    found = scanned(pets)
    assert found.class_names == ["cat", "dog"]
    assert found.skipped == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and FIFOs")
def test_links_out_of_the_folder_and_special_files_are_never_opened(pets: Path) -> None:
    outside = save_image(pets.parent / "outside.png")
    (pets / "cat" / "outside.png").symlink_to(outside)
    (pets / "cat" / "inside.png").symlink_to(pets / "dog" / "1.png")
    (pets / "cat" / "loop").symlink_to(pets)
    (pets / "cat" / "gone.png").symlink_to(pets / "nothing.png")
    os.mkfifo(pets / "dog" / "pipe.png")
    found = scanned(pets)
    reasons = {Path(path).name: reason for path, reason in found.skipped}
    assert reasons == {
        "outside.png": "it is a link that leaves the folder",
        "loop": "it is a link to something that is no file",
        "gone.png": "it is a link that leads nowhere",
        "pipe.png": "it is a device, pipe or socket, not a file",
    }
    assert len(found.samples) == 7


def test_an_image_over_the_pixel_limit_is_skipped_without_a_warning(pets: Path) -> None:
    for name, side in (("over.png", 9_500), ("bomb.png", 60_000)):
        header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
        data = zlib.compress(bytes(1000))
        parts = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
        content = b"\x89PNG\r\n\x1a\n" + b"".join(
            len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
            for kind, body in parts
        )
        (pets / "cat" / name).write_bytes(content)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = scanned(pets)
    assert [reason for _, reason in found.skipped] == ["it has too many pixels, over the limit of 89 million"] * 2
    assert seen == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are no UTF-8")
def test_file_names_that_are_no_text_are_still_shown_as_text(pets: Path) -> None:
    (pets / "cat" / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    (pets / "dog").rename(pets / os.fsdecode(b"d\xf6g"))
    found = scanned(pets)
    assert found.class_names == ["cat", "d\ufffdg"]
    assert Path(found.skipped[0][0]).name == "caf\ufffd.txt"
    assert len(found.samples) == 6


def test_progress_ends_at_the_total_and_cancel_ends_the_scan(pets: Path) -> None:
    calls: list[tuple[str, int, int, str]] = []
    scan(pets, pets.parent, lambda *call: calls.append(call), lambda: None)
    assert calls[-1] == ("Checking images", 6, 6, "images")

    def cancel() -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        scan(pets, pets.parent, lambda *_: None, cancel)


# -- bad input ------------------------------------------------------------------------------------------------


def test_no_such_path(tmp_path: Path) -> None:
    assert sentence(tmp_path / "nowhere") == f"There is no file or folder {tmp_path / 'nowhere'}. Check the path."
    assert "Check the path" in sentence(Path("~nosuchuser/data"))
    assert "Check the path" in sentence(tmp_path / "a\0b")


def test_a_file_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert sentence(tmp_path / "notes.txt").startswith(
        f"{tmp_path / 'notes.txt'} is neither a folder nor a zip. Choose"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs FIFOs")
def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is neither a folder nor a zip" in sentence(tmp_path / "pipe")


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert sentence(tmp_path / "empty").startswith(f"{tmp_path / 'empty'} is empty. Put one subfolder")


def test_images_without_class_subfolders(tmp_path: Path) -> None:
    save_image(tmp_path / "flat" / "a.png")
    save_image(tmp_path / "flat" / "b.png")
    assert "has 2 files directly in it, but no class subfolders. Sort" in sentence(tmp_path / "flat")


def test_a_single_class(tmp_path: Path) -> None:
    save_image(tmp_path / "one" / "cat" / "a.png")
    assert 'has only one class, "cat". Add' in sentence(tmp_path / "one")


def test_a_class_with_too_few_readable_images(pets: Path) -> None:
    save_image(pets / "fox" / "1.png")
    (pets / "fox" / "2.png").write_text("no")
    text = sentence(pets)
    assert str(pets / "fox") in text
    assert "has 1 readable image (1 file skipped: 2.png, it is not an image that can be read here)" in text
    (pets / "fox" / "1.png").unlink()
    (pets / "fox" / "2.png").unlink()
    assert "has no readable images, but" in sentence(pets)


def test_a_folder_that_is_already_split(pets: Path) -> None:
    (pets.parent / "split").mkdir()
    pets.rename(pets.parent / "split" / "train")
    save_image(pets.parent / "split" / "val" / "cat" / "1.png")
    text = sentence(pets.parent / "split")
    assert "is split into train and val" in text
    assert f"Choose {pets.parent / 'split' / 'train'} instead" in text


def test_a_folder_that_cannot_be_read(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not hold for root, as tests in a container often are: the refusal is made here.
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert sentence(pets) == f"Cannot read the folder {pets / 'dog'}: Permission denied. Check its permissions."


# -- zips -----------------------------------------------------------------------------------------------------


def test_a_zip_is_unpacked_once_and_files_are_named_inside_the_zip(pets: Path, tmp_path: Path) -> None:
    (pets / "cat" / "bad.png").write_text("x")
    archive = zip_of(pets, tmp_path / "pets.zip", prefix="pets/")
    found = scanned(archive)
    assert found.class_names == ["cat", "dog"]
    assert found.skipped == [
        (str(archive / "pets" / "cat" / "bad.png"), "it is not an image that can be read here"),
    ]
    folder = tmp_path / "cache" / hashlib.sha256(archive.read_bytes()).hexdigest()
    assert found.root == folder / "pets"
    before = {path: stat.st_mtime_ns for path in folder.rglob("*") for stat in [path.stat()]}
    assert scanned(archive).samples == found.samples
    assert {path: stat.st_mtime_ns for path in folder.rglob("*") for stat in [path.stat()]} == before


def test_backslashes_and_the_mac_folder_in_a_zip_are_understood(pets: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for file in pets.rglob("*.png"):
            archive.write(file, "\\".join(file.relative_to(pets).parts))
            archive.writestr(f"__MACOSX/{file.parent.name}/._{file.name}", "x")
    assert scanned(tmp_path / "windows.zip").class_names == ["cat", "dog"]


def test_the_demo_data_is_scanned(tmp_path: Path) -> None:
    demo = Path(__file__).parents[2] / "assets" / "digits.zip"
    found = scanned(demo, tmp_path)
    assert found.class_names == list("0123456789")
    assert len(found.samples) == 1797
    assert found.skipped == []


def damaged_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + b"x" * 100)


def cut_member(path: Path) -> None:
    content = np.random.default_rng(0).bytes(5000)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/1.png", content)
    whole = bytearray(path.read_bytes())
    whole[1000] ^= 0xFF
    path.write_bytes(bytes(whole))


def leaving(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/../../evil.png", "x")


def absolute(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("/evil.png", "x")


def drive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("C:\\evil.png", "x")


def linked(path: Path) -> None:
    info = zipfile.ZipInfo("cat/1.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "../outside.png")


def encrypted(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cat/1.png", "x")
    # The flag's first bit stands 6 bytes into the local header and 8 into the central one.
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(content))


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/1.png", bytes(50_000_000))


def doubled(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("cat/1.png", "x")
            archive.writestr("cat/1.png", "y")


def deep(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/" * 1000 + "1.png", "x")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (damaged_zip, "is not a readable zip: it is damaged or incomplete. Copy"),
        (cut_member, "damaged or incomplete (Bad CRC-32"),
        (leaving, "would leave its folder"),
        (absolute, "would leave its folder"),
        (drive, "would leave its folder"),
        (linked, "has a link or device in it"),
        (encrypted, "is encrypted. Unpack it"),
        (bomb, "times its size, as no images do (limit 100)"),
        (doubled, "has two entries named 'cat/1.png'"),
        (deep, "has folders more than 32 deep"),
    ],
)
def test_a_bad_zip_is_refused_and_leaves_nothing_behind(make: object, words: str, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "bad.zip")
    text = sentence(tmp_path / "bad.zip")
    assert words in text
    assert str(tmp_path / "bad.zip") in text
    assert list((tmp_path / "cache").glob("*")) == []
    assert not (tmp_path / "evil.png").exists()


@pytest.mark.parametrize(
    ("limit", "words"), [("MAX_FILES", "over the limit of 3"), ("MAX_BYTES", "GB, over the limit")]
)
def test_a_zip_over_the_limits_is_refused(
    limit: str, words: str, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"trainer.data.archive.{limit}", 3)
    assert words in sentence(zip_of(pets, tmp_path / "pets.zip"))


def test_cancelling_an_unpacking_leaves_nothing_behind(pets: Path, tmp_path: Path) -> None:
    archive = zip_of(pets, tmp_path / "pets.zip")
    done: list[str] = []

    def cancel_while_unpacking() -> None:
        if any(what.startswith("Unpacking") for what in done):
            raise CancelledError

    with pytest.raises(CancelledError):
        scan(archive, tmp_path / "cache", lambda what, *_: done.append(what), cancel_while_unpacking)
    assert list((tmp_path / "cache").iterdir()) == []
    assert scanned(archive).class_names == ["cat", "dog"]


def test_a_cache_folder_that_cannot_be_written(pets: Path, tmp_path: Path) -> None:
    archive = zip_of(pets, tmp_path / "pets.zip")
    (tmp_path / "cache").write_text("a file is in the way")
    assert f"Cannot unpack {archive} into {tmp_path / 'cache'}" in sentence(archive)


def test_an_image_in_memory_is_never_left_open(pets: Path) -> None:
    # A forgotten file handle raises ResourceWarning, which fails the test.
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "GIF")
    (pets / "cat" / "a.gif").write_bytes(buffer.getvalue())
    assert len(scanned(pets).samples) == 7
