"""Unpacking: what comes out of zips and tars, and that no bad one gets past or leaves anything behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import struct
import sys
import tarfile
import time
import unicodedata
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from trainer.data import archive
from trainer.data.archive import unpack
from trainer.data.images import DataError
from trainer.data_path import is_archive


class CancelledError(Exception):
    pass


def unpacked(path: Path) -> Path:
    return unpack(path, path.parent / "cache", lambda *_: None, lambda: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def sentence(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        unpacked(path)
    assert caught.value.field == "data.path"
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert str(path) in text
    return text


def is_clean(tmp_path: Path) -> bool:
    """Tell that neither the cache nor the folders around it have got anything from an archive."""
    return not any((tmp_path / "cache").glob("*")) and not (tmp_path / "evil.png").exists()


FILES = {"cat/1.png": b"c" * 3000, "cat/young/2.png": b"", "dog/고양이.png": b"d" * 512}


def zip_of(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w", **kinds: bytes) -> Path:
    """Write a tar; ``kinds`` are entries that are no files: name=type."""
    with tarfile.open(path, mode) as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "../evil.png"
            packed.addfile(info)
    return path


# -- good archives --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_zip_is_unpacked(tmp_path: Path, method: int) -> None:
    assert contents(unpacked(zip_of(tmp_path / "a.zip", FILES, method))) == FILES


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_is_unpacked_whatever_its_name(tmp_path: Path, compression: str, kind: int) -> None:
    names = [] if sys.platform == "win32" else [f"cat/{'long' * 20}.png", f"cat/{'longer' * 40}.png"]
    if kind == tarfile.USTAR_FORMAT:
        names = names[:1]
    files = {**FILES, **dict.fromkeys(names, b"x")}
    with tarfile.open(tmp_path / "data", f"w:{compression}", format=kind) as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    assert is_archive(tmp_path / "data")
    assert contents(unpacked(tmp_path / "data")) == files


def test_empty_folders_of_an_archive_are_kept(tmp_path: Path) -> None:
    assert [folder.name for folder in unpacked(tar_of(tmp_path / "a.tar", {}, cat=tarfile.DIRTYPE)).iterdir()] == [
        "cat"
    ]
    assert [folder.name for folder in unpacked(zip_of(tmp_path / "a.zip", {"dog/": b""})).iterdir()] == ["dog"]


def test_an_archive_is_unpacked_once_by_its_content(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar.gz", FILES, "w:gz")
    folder = unpacked(path)
    assert folder == tmp_path / "cache" / hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "cat" / "1.png").write_bytes(b"not unpacked anew")
    path.rename(tmp_path / "other.tar.gz")
    calls: list[str] = []
    again = unpack(tmp_path / "other.tar.gz", tmp_path / "cache", lambda what, *_: calls.append(what), lambda: None)
    assert again == folder
    assert set(calls) == {"Reading other.tar.gz"}
    assert contents(folder)["cat/1.png"] == b"not unpacked anew"


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_hidden_entries_and_those_of_a_mac_are_left_out_and_backslashes_understood(
    tmp_path: Path, make: Callable[..., Path]
) -> None:
    files = {"cat\\1.png": b"x", "__MACOSX/cat/._1.png": b"x", ".git/config": b"x", "cat/.DS_Store": b"x"}
    assert contents(unpacked(make(tmp_path / "a", files))) == {"cat/1.png": b"x"}


def test_archives_within_archives_stay_packed(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "inner.zip", FILES).read_bytes()
    # A zip is known by its end: stored last in a tar, it must not be taken for the whole.
    assert contents(unpacked(tar_of(tmp_path / "a.tar", {"cat/1.png": b"x", "zzz.zip": inner}))) == {
        "cat/1.png": b"x",
        "zzz.zip": inner,
    }
    outer = (tmp_path / "a.tar").read_bytes()
    assert contents(unpacked(zip_of(tmp_path / "a.zip", {"a.tar": outer}, zipfile.ZIP_STORED))) == {"a.tar": outer}


def test_a_zip_that_the_disk_has_no_room_for_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "needs 0.0 GB to unpack, but" in sentence(zip_of(tmp_path / "a.zip", FILES))
    assert is_clean(tmp_path)


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_progress_grows_to_the_total(tmp_path: Path, make: Callable[..., Path]) -> None:
    path = make(tmp_path / "a", {f"cat/{number}.png": b"x" * 50_000 for number in range(9)})
    calls: list[tuple[str, int, int, str]] = []
    unpack(path, tmp_path / "cache", lambda *call: calls.append(call), lambda: None)
    for what in ("Reading a", "Unpacking a"):
        done = [call[1] for call in calls if call[0] == what]
        (total,) = {call[2] for call in calls if call[0] == what}
        assert done == sorted(done)
        assert 0 < total * 0.9 < done[-1] <= total
    assert {call[3] for call in calls} == {"bytes"}


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_cancelling_an_unpacking_leaves_nothing_behind(tmp_path: Path, make: Callable[..., Path]) -> None:
    path = make(tmp_path / "a", FILES)
    done: list[str] = []

    def cancel_while_unpacking() -> None:
        if any(what.startswith("Unpacking") for what in done):
            raise CancelledError

    with pytest.raises(CancelledError):
        unpack(path, tmp_path / "cache", lambda what, *_: done.append(what), cancel_while_unpacking)
    assert is_clean(tmp_path)
    assert contents(unpacked(path)) == FILES


def test_what_a_killed_process_left_is_removed_a_day_later(tmp_path: Path) -> None:
    old, new = (tmp_path / "cache" / f".unpacking-{name}" for name in ("old", "new"))
    for folder in (old, new):
        (folder / "cat").mkdir(parents=True)
    os.utime(old, (time.time() - 2 * 86_400,) * 2)
    unpacked(zip_of(tmp_path / "a.zip", FILES))
    assert not old.exists()
    assert new.exists()


def test_a_cache_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    for path in (zip_of(tmp_path / "a.zip", FILES), tar_of(tmp_path / "a.tar", FILES)):
        assert f"Cannot unpack {path} into {tmp_path / 'cache'}: " in sentence(path)


# -- bad zips -------------------------------------------------------------------------------------------------


def damaged_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + b"x" * 100)


def flipped_zip(path: Path) -> None:
    zip_of(path, {"cat/1.png": np.random.default_rng(0).bytes(5000)}, zipfile.ZIP_STORED)
    flip(path, 1000)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


def link_zip(path: Path) -> None:
    info = zipfile.ZipInfo("cat/1.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(info, "../evil.png")


def encrypted_zip(path: Path) -> None:
    zip_of(path, {"cat/1.png": b"x"})
    # The flag's first bit stands 6 bytes into the local header and 8 into the central one.
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def lying_zip(path: Path) -> None:
    """Declare 1,000 bytes for an entry of 50 MB."""
    zip_of(path, {"cat/1.png": bytes(50_000_000)})
    content = bytearray(path.read_bytes())
    # The unpacked size stands 22 bytes into the local header, and 24 into the central one.
    for position in (22, content.index(b"PK\x01\x02") + 24):
        struct.pack_into("<L", content, position, 1000)
    path.write_bytes(content)


def doubled_zip(path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as packed:
        warnings.simplefilter("ignore")
        packed.writestr("cat/1.png", "x")
        packed.writestr("cat/1.png", "y")


def cut_zip(path: Path) -> None:
    zip_of(path, {"cat/1.png": np.random.default_rng(0).bytes(5000)})
    path.write_bytes(path.read_bytes()[:3000])


LONG_WAY = "/".join("a" * 33) + "/1.png"
COLLISION = "has two entries that Windows and macOS cannot tell apart, "


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (damaged_zip, "is not a readable zip: it is damaged or incomplete (File is not a zip file). Copy"),
        (cut_zip, "is not a readable zip: it is damaged or incomplete (File is not a zip file). Copy"),
        (flipped_zip, "damaged or incomplete (Bad CRC-32"),
        (link_zip, "has a link or device in it, 'cat/1.png'"),
        (encrypted_zip, "is encrypted. Unpack it with its password and choose the folder"),
        (lying_zip, "damaged or incomplete (Bad CRC-32"),
        (doubled_zip, "has two entries named 'cat/1.png'. Pack"),
        (
            lambda path: zip_of(path, {"cat/1.png": bytes(50_000_000)}),
            "times its size or more, as no images do (limit 100)",
        ),
    ],
)
def test_a_bad_zip_is_refused_and_leaves_nothing_behind(
    make: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    make(tmp_path / "bad.zip")
    assert words in sentence(tmp_path / "bad.zip")
    assert is_clean(tmp_path)


def test_bytes_of_a_zip_are_counted_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Were Python to believe a header less than it does, the limits would still hold.
    monkeypatch.setattr(archive, "MAX_BYTES", 100_000)
    with monkeypatch.context() as patch:
        patch.setattr(archive._Intake, "check_declared", lambda *_: None)
        assert "GB or more, over the limit" in sentence(zip_of(tmp_path / "a.zip", {"cat/1.png": bytes(200_000)}))
    assert is_clean(tmp_path)


# -- names that no archive may have, in both kinds ------------------------------------------------------------


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["cat/../../evil.png"], "would leave its folder, 'cat/../../evil.png'. Pack"),
        (["cat\\..\\..\\evil.png"], "would leave its folder"),
        (["/evil.png"], "would leave its folder"),
        (["\\evil.png"], "would leave its folder"),
        (["C:\\evil.png"], "would leave its folder"),
        ([LONG_WAY], "has folders more than 32 deep. Pack"),
        (["cat/a.png", "cat/A.PNG"], f"{COLLISION}'cat/a.png' and 'cat/A.PNG'. Rename"),
        (["cat/a.png", "Cat/b.png"], f"{COLLISION}'cat/' and 'Cat/'. Rename"),
        (["cat/é.png", unicodedata.normalize("NFD", "cat/é.png")], COLLISION),
        (["cat", "cat/1.png"], f"{COLLISION}'cat' and 'cat/'. Rename"),
        (["a", "b", "a"], "has two entries named 'a'. Pack"),
    ],
)
def test_a_bad_name_is_refused(tmp_path: Path, make: Callable[..., Path], names: list[str], words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if make is zip_of:
            with zipfile.ZipFile(tmp_path / "bad", "w") as packed:
                for name in names:
                    packed.writestr(name, "x")
        else:
            with tarfile.open(tmp_path / "bad", "w") as tar:
                for name in names:
                    tar.addfile(tarfile.TarInfo(name))
    assert words in sentence(tmp_path / "bad")
    assert is_clean(tmp_path)


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize(
    ("limit", "words"), [("MAX_FILES", "has more than 2 entries, over"), ("MAX_BYTES", "GB or more, over the limit")]
)
def test_an_archive_over_the_limits_is_refused(
    limit: str, words: str, make: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, limit, 2)
    assert words in sentence(make(tmp_path / "a", FILES))
    assert is_clean(tmp_path)


# -- bad tars -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_a_tar_with_something_else_than_files_and_folders_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = tar_of(tmp_path / "a.tar", FILES, odd=kind)
    assert "has a link or device in it, 'odd'" in sentence(path)
    assert is_clean(tmp_path)


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_a_compressed_bomb_is_stopped_while_it_is_read(tmp_path: Path, compression: str) -> None:
    path = tar_of(tmp_path / f"a.tar.{compression}", {"cat/1.png": bytes(60_000_000)}, f"w:{compression}")
    most = 0

    def watch() -> None:
        nonlocal most
        most = max(most, *(file.stat().st_size for file in (tmp_path / "cache").rglob("*.png")), 0)

    with pytest.raises(DataError, match=r"times its size or more, as no images do \(limit 100\)"):
        unpack(path, tmp_path / "cache", lambda *_: None, watch)
    assert 0 < most <= archive.RATIO_FLOOR_BYTES + 2**20
    assert is_clean(tmp_path)


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_an_archive_of_hidden_files_alone_says_so(tmp_path: Path, make: Callable[..., Path]) -> None:
    path = make(tmp_path / "a", {"__MACOSX/cat/._1.png": b"x", "cat/.DS_Store": b"x"})
    assert sentence(path).startswith(f"{path} holds only hidden files, like __MACOSX, which are passed over. Put one")
    assert is_clean(tmp_path)


def test_a_hidden_entry_is_counted_too(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar.gz", {".hidden": bytes(60_000_000), "cat/1.png": b"x"}, "w:gz")
    assert "times its size or more" in sentence(path)


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type = tarfile.XHDTYPE
    info.size = 2**33 - 1
    with gzip.open(tmp_path / "a.tar.gz", "wb") as packed:
        packed.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(100_000))
    assert "(a header of 8,589,934,592 bytes)" in sentence(tmp_path / "a.tar.gz")
    assert is_clean(tmp_path)


def test_a_header_that_points_backwards_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("cat/1.png")
    info.size = -1024
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    assert "is not a readable tar" in sentence(tmp_path / "a.tar")
    assert is_clean(tmp_path)


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_tar_that_ends_too_early_is_refused(tmp_path: Path, compression: str, share: float) -> None:
    generator = np.random.default_rng(0)
    files = {f"cat/{number}.png": generator.bytes(20_000) for number in range(8)}
    path = tar_of(tmp_path / f"a.tar.{compression}".rstrip("."), files, f"w:{compression}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "is not a readable tar: it is damaged or incomplete (" in sentence(path)
    assert is_clean(tmp_path)


def test_a_tar_that_ends_between_two_entries_is_refused(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"cat/1.png": b"x" * 512, "dog/1.png": b"x"})
    path.write_bytes(path.read_bytes()[:1024])
    assert "(it ends without an end mark)" in sentence(path)


def test_a_tar_with_a_damaged_header_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {"cat/1.png": b"x" * 512, "dog/1.png": b"x"})
    flip(path, 1024 + 3)
    assert "is not a readable tar" in sentence(path)
    assert is_clean(tmp_path)


def test_the_checksum_of_a_compressed_tar_is_looked_at(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar.gz", FILES, "w:gz")
    flip(path, path.stat().st_size - 6)
    assert "CRC check failed" in sentence(path)
    assert is_clean(tmp_path)


def test_a_text_with_the_name_of_an_archive_is_a_damaged_one(tmp_path: Path) -> None:
    for name, kind in (("a.zip", "zip"), ("a.tar", "tar"), ("a.TGZ", "tar")):
        (tmp_path / name).write_text("hello")
        assert f"is not a readable {kind}: it is damaged or incomplete" in sentence(tmp_path / name)
