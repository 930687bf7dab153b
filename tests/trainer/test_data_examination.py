"""Examining files: what is wrong with each, in threads and in processes, remembered, and ended at any moment."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from trainer.data import decoding, examination
from trainer.data.decoding import CRASHED
from trainer.data.examination import FileFacts, examine
from trainer.data.file_facts import picture_hash, read_facts
from trainer.data.images import load_rgb, try_load

needs_fifos = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe stands for a file that is never read to end")


class CancelledError(Exception):
    pass


def write_image(path: Path, size: tuple[int, int] = (48, 40), seed: int = 0) -> Path:
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (8, 9, 3), dtype=np.uint8))
    small.resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def write_images(folder: Path, num: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [write_image(folder / f"{idx:03d}.jpg", seed=idx) for idx in range(num)]


def examined(
    paths: list[Path], cache_path: Path, check_cancelled: Callable[[], None] = lambda: None
) -> list[FileFacts]:
    return examine(paths, cache_path, lambda *_: None, check_cancelled)


@pytest.fixture
def cache_path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "facts.db"


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start processes however few files there are, and see that none is left."""
    monkeypatch.setattr(decoding, "MIN_FILES_FOR_PROCESSES", 0)
    monkeypatch.setattr(decoding, "num_usable_cores", lambda: 2)
    yield
    assert not children()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the names of the files that are decoded, in this process."""
    names: list[str] = []

    def noting(path: Path) -> FileFacts:
        names.append(path.name)
        return read_facts(path)

    monkeypatch.setattr(decoding, "read_facts", noting)
    return names


# -- what is found --------------------------------------------------------------------------------------------


def test_a_readable_image_is_described_as_a_person_sees_it(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    with Image.open(path) as image:
        image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    facts = read_facts(tmp_path / "turned.jpg")
    content = (tmp_path / "turned.jpg").read_bytes()
    assert (facts.reason, facts.width, facts.height, facts.size_bytes) == ("", 40, 48, len(content))
    assert facts.content_hash == hashlib.sha256(content).hexdigest()
    seen = picture_hash(load_rgb(tmp_path / "turned.jpg"))
    assert facts.picture_hash is not None
    assert seen is not None
    assert (facts.picture_hash ^ seen).bit_count() <= 2
    assert facts.picture_hash != read_facts(path).picture_hash


def truncated(path: Path) -> None:
    write_image(path)
    path.write_bytes(path.read_bytes()[:-300])


def huge_png(path: Path) -> None:
    """Write a picture of a few bytes whose header promises 600 million pixels."""
    Image.new("L", (1, 1)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 30_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("empty.jpg", lambda path: path.write_bytes(b""), "it is empty (0 bytes)"),
        ("text.jpg", lambda path: path.write_text("no image"), "it is not an image that can be read here"),
        ("cut.jpg", truncated, "it is damaged or incomplete (image file is truncated"),
        ("bomb.png", huge_png, "it has too many pixels, over the limit of 89 million"),
        ("gone.jpg", lambda path: None, "it is not there any more"),
        # Pillow would run Ghostscript on it.
        (
            "drawing.eps",
            lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
            "it is not an image that can be read here",
        ),
    ],
)
@pytest.mark.parametrize("is_in_processes", [False, True])
def test_an_unreadable_file_has_a_reason(
    tmp_path: Path,
    cache_path: Path,
    request: pytest.FixtureRequest,
    name: str,
    write: Callable[[Path], object],
    reason: str,
    is_in_processes: bool,
) -> None:
    if is_in_processes:
        request.getfixturevalue("in_processes")
    write(tmp_path / name)
    before = (tmp_path / name).read_bytes() if (tmp_path / name).exists() else None
    facts, good = examined([tmp_path / name, write_image(tmp_path / "good.png")], cache_path)
    assert facts.reason.startswith(reason)
    assert (facts.width, facts.height, facts.picture_hash) == (0, 0, None)
    assert good.reason == ""
    assert before is None or (tmp_path / name).read_bytes() == before


def test_what_is_accepted_is_what_a_run_can_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    buffer = io.BytesIO()
    write_image(tmp_path / "whole.jpg", (160, 120))
    with Image.open(tmp_path / "whole.jpg") as image:
        image.save(buffer, "JPEG", progressive=True)
    generator = np.random.default_rng(0)
    num_refused = 0
    for whole in (buffer.getvalue(), (tmp_path / "whole.jpg").read_bytes()):
        for _ in range(60):
            damaged = bytearray(whole[: int(generator.integers(20, len(whole) + 300))])
            for place in generator.integers(0, len(damaged), 2):
                damaged[place] ^= 1 << int(generator.integers(0, 8))
            path.write_bytes(damaged)
            reason = try_load(path)[1]
            assert read_facts(path).reason == reason
            num_refused += bool(reason)
    assert 20 < num_refused < 115


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpegs_of_every_kind_of_color_are_read(tmp_path: Path, mode: str) -> None:
    path = write_image(tmp_path / "a.png", (160, 120))
    with Image.open(path) as image:
        # RGB: stored as such, and not as brightness and color like nearly every JPEG.
        image.convert(mode).save(tmp_path / "a.jpg", quality=95, **({"keep_rgb": True} if mode == "RGB" else {}))
    facts, original = read_facts(tmp_path / "a.jpg"), read_facts(path)
    assert facts.reason == ""
    assert facts.picture_hash is not None
    assert original.picture_hash is not None
    assert (facts.picture_hash ^ original.picture_hash).bit_count() <= 3


def test_a_file_too_large_for_memory_is_hashed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path / "a.png")
    at_once = read_facts(path)
    monkeypatch.setattr("trainer.data.file_facts._MAX_BYTES_AT_ONCE", 10)
    assert read_facts(path) == at_once
    assert at_once.picture_hash is not None


def test_processes_find_what_threads_find(tmp_path: Path, cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_images(tmp_path / "images", 40)
    name = os.fsdecode(b"\xff\xfe.png") if sys.platform == "linux" else "ÿ.png"
    paths.append(write_image(tmp_path / "images" / name))
    in_threads = examined(paths, cache_path)
    monkeypatch.setattr(decoding, "MIN_FILES_FOR_PROCESSES", 0)
    progress: list[tuple[str, int, int, str]] = []
    in_processes = examine(paths, tmp_path / "other.db", lambda *told: progress.append(told), lambda: None)
    assert in_processes == in_threads
    assert len({facts.content_hash for facts in in_threads}) == 41
    assert not any(facts.reason for facts in in_threads)
    assert progress[0] == ("Checking images", 0, 41, "images")
    assert progress[-1] == ("Checking images", 41, 41, "images")
    assert [done for _, done, _, _ in progress] == sorted(done for _, done, _, _ in progress)


def test_no_files_are_examined_in_no_time(cache_path: Path, in_processes: None) -> None:
    assert examined([], cache_path) == []


# -- processes that die, hang, or are left alone --------------------------------------------------------------


@contextlib.contextmanager
def held_by(fifo: Path) -> Iterator[bool]:
    """Keep whoever reads a pipe in a folder waiting, as a decoder that never ends does, and tell if there is one."""
    try:
        held = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        yield False
        return
    yield True
    os.close(held)


def children() -> list[multiprocessing.process.BaseProcess]:
    return [child for child in multiprocessing.active_children() if child.name == "image-check"]


def test_what_a_decoder_had_answered_when_it_died_is_kept(tmp_path: Path, in_processes: None) -> None:
    paths = write_images(tmp_path / "images", 2)
    decoder = decoding._Decoder()
    assert decoder.connection.poll(30)
    assert decoder.take() == []
    for idx, path in enumerate(paths):
        decoder.slices.append([decoding.File(idx, path, 1)])
        decoder.connection.send([str(path)])
    answers = decoder.take()
    assert decoder.connection.poll(30)
    decoder.process.kill()
    decoder.process.join()
    answers += decoder.take_rest()
    assert [idx for idx, _ in answers] == [0, 1]
    assert not any(facts.reason for _, facts in answers)
    assert not decoder.slices, "none of them is to blame"
    decoder.end()


@needs_fifos
def test_a_decoder_that_crashes_loses_only_its_file(
    tmp_path: Path, cache_path: Path, in_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "num_usable_cores", lambda: 1)
    paths = write_images(tmp_path / "images", 30)
    os.mkfifo(paths[10].with_name("crash.jpg"))
    paths.insert(10, paths[10].with_name("crash.jpg"))
    num_killed = 0

    def kill_whoever_reads_it() -> None:
        nonlocal num_killed
        with held_by(paths[10]) as is_held:
            if is_held:
                for child in children():
                    child.kill()
                    num_killed += 1
                    child.join()

    facts = examined(paths, cache_path, kill_whoever_reads_it)
    assert num_killed == 2, "once among others, and once alone"
    assert facts[10] == FileFacts(CRASHED)
    assert not any(fact.reason for idx, fact in enumerate(facts) if idx != 10)
    assert facts[11].content_hash == hashlib.sha256(paths[11].read_bytes()).hexdigest()
    # It may have been memory: the next examination tries again.
    paths[10].unlink()
    write_image(paths[10])
    assert examined(paths, cache_path)[10].reason == ""


@needs_fifos
def test_a_cancelled_examination_ends_at_once_and_goes_on_where_it_was(
    tmp_path: Path, cache_path: Path, in_processes: None, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    paths = write_images(tmp_path / "images", 64)
    fifo = tmp_path / "images" / "zz.jpg"
    os.mkfifo(fifo)
    pids: set[int] = set()

    def cancel_when_all_else_is_done() -> None:
        pids.update(child.pid for child in children())
        if done[-1] == 64:
            raise CancelledError

    done = [0]
    with pytest.raises(CancelledError):
        # One process waits for the pipe, for ever; with eight files in a slice, it waits for nothing else.
        examine(
            [*paths, fifo], cache_path, lambda _, num_done, *__: done.append(num_done), cancel_when_all_else_is_done
        )
    assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)
    monkeypatch.setattr(decoding, "MIN_FILES_FOR_PROCESSES", 1000)
    extra = write_image(tmp_path / "images" / "extra.png")
    assert len(examined([*paths, extra], cache_path)) == 65
    assert decoded == ["extra.png"]


@needs_fifos
@pytest.mark.skipif(sys.platform != "linux", reason="what a process has loaded is read from /proc")
def test_a_decoding_process_loads_no_torch_and_ignores_an_interrupt(
    tmp_path: Path, cache_path: Path, in_processes: None
) -> None:
    import torch

    assert torch.__file__
    fifo = tmp_path / "waiting.jpg"
    os.mkfifo(fifo)
    loaded: list[str] = []

    def interrupt() -> None:
        with held_by(fifo) as is_held:
            if is_held:
                for child in children():
                    loaded.extend(mapped.path for mapped in psutil.Process(child.pid).memory_maps())
                    os.kill(child.pid, signal.SIGINT)

    facts = examined([fifo, *write_images(tmp_path / "images", 3)], cache_path, interrupt)
    assert [fact.reason for fact in facts] == ["it is empty (0 bytes)", "", "", ""]
    assert any("_imaging" in path for path in loaded)
    assert not any("torch" in path for path in loaded)


@needs_fifos
def test_decoding_processes_end_with_a_killed_worker(tmp_path: Path) -> None:
    fifos = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for fifo in fifos:
        os.mkfifo(fifo)
    script = tmp_path / "worker.py"
    script.write_text(
        f"""
from pathlib import Path
from trainer.data import decoding, examination

if __name__ == "__main__":
    decoding.MIN_FILES_FOR_PROCESSES = 0
    decoding.FILES_PER_SLICE = decoding.SLICES_PER_PROCESS = 1
    decoding.num_usable_cores = lambda: 2
    paths = [Path(path) for path in {[str(fifo) for fifo in fifos]}]
    examination.examine(paths, Path({str(tmp_path / "facts.db")!r}), lambda *_: None, lambda: None)
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, script], env=environment) as worker, contextlib.ExitStack() as stack:
        try:
            for fifo in fifos:
                while not stack.enter_context(held_by(fifo)):
                    assert worker.poll() is None
                    time.sleep(0.01)
            decoders = psutil.Process(worker.pid).children(recursive=True)
        finally:
            worker.kill()
        _, alive = psutil.wait_procs(decoders, timeout=30)
        assert len(decoders) >= 2
        assert not alive


def test_processes_that_cannot_start_are_told(
    tmp_path: Path, cache_path: Path, in_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_serve", os.abort)
    with pytest.raises(decoding.DataError, match=r"^Cannot check the images: a process .* Free some memory"):
        examined(write_images(tmp_path / "images", 3), cache_path)


# -- remembering ----------------------------------------------------------------------------------------------


def test_unchanged_files_are_not_decoded_again(tmp_path: Path, cache_path: Path, decoded: list[str]) -> None:
    paths = write_images(tmp_path / "images", 5)
    paths.append(tmp_path / "images" / "text.jpg")
    paths[-1].write_text("no image")
    first = examined(paths, cache_path)
    assert len(decoded) == 6
    assert examined(paths, cache_path) == first
    assert len(decoded) == 6
    os.utime(paths[0], ns=(1, 1))
    time_ns = paths[1].stat().st_mtime_ns
    write_image(paths[1], (64, 64))
    os.utime(paths[1], ns=(time_ns, time_ns))
    assert examined(paths, cache_path)[1].width == 64
    assert decoded[6:] == [paths[0].name, paths[1].name]


def test_a_file_that_is_named_twice_is_recalled_for_both(tmp_path: Path, cache_path: Path, decoded: list[str]) -> None:
    paths = [*write_images(tmp_path / "images", 3), tmp_path / "images" / "000.jpg"]
    first = examined(paths, cache_path)
    decoded.clear()
    assert examined(paths, cache_path) == first
    assert decoded == []


def test_what_could_not_be_read_is_tried_again(
    tmp_path: Path, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Permissions do not show in size and time.
    path = write_image(tmp_path / "a.png")
    refused = FileFacts("there is no permission to read it")
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "read_facts", lambda _: refused)
        assert examined([path], cache_path) == [refused]
    assert examined([path], cache_path)[0].reason == ""


def test_another_version_examines_anew(
    tmp_path: Path, cache_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_images(tmp_path / "images", 3)
    examined(paths, cache_path)
    monkeypatch.setattr(examination, "_VERSION", 7)
    examined(paths, cache_path)
    examined(paths, cache_path)
    assert len(decoded) == 6


@pytest.mark.parametrize("damage", ["garbage", "cut", "no table"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, cache_path: Path, decoded: list[str], damage: str) -> None:
    paths = write_images(tmp_path / "images", 40)
    facts = examined(paths, cache_path)
    match damage:
        case "garbage":
            cache_path.write_bytes(b"no database at all" * 100)
        case "cut":
            cache_path.write_bytes(cache_path.read_bytes()[:-4096] + b"\xff" * 4000)
        case _:
            with contextlib.closing(sqlite3.connect(cache_path)) as connection:
                connection.execute("DROP TABLE facts")
    decoded.clear()
    for _ in range(2):
        # Damage to what is only needed in writing shows after the files were found.
        assert examined(paths, cache_path) == facts
    assert len(decoded) == 40
    assert examined(paths, cache_path) == facts
    assert len(decoded) == 40


def test_a_cache_that_cannot_be_used_costs_only_time(
    tmp_path: Path, decoded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_images(tmp_path / "images", 3)
    cache_path = tmp_path / "facts.db"
    cache_path.mkdir()
    (tmp_path / "file").write_text("mine")
    for place in (cache_path, tmp_path / "file" / "facts.db"):
        assert not any(fact.reason for fact in examined(paths, place))
        assert str(place) in capsys.readouterr().out
    assert len(decoded) == 6
    assert cache_path.is_dir()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_cache_that_another_process_writes_to_loses_nothing_found(
    tmp_path: Path, cache_path: Path, decoded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_images(tmp_path / "images", 3)
    examined(paths[:1], cache_path)
    with contextlib.closing(sqlite3.connect(cache_path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not any(fact.reason for fact in examined(paths, cache_path))
        assert len(decoded) == 3
        assert "busy" in capsys.readouterr().out
    examined(paths, cache_path)
    examined(paths, cache_path)
    assert len(decoded) == 5


def test_a_cache_that_another_process_is_making_is_left_alone(
    tmp_path: Path, cache_path: Path, decoded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_images(tmp_path / "images", 3)
    cache_path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(cache_path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert not any(fact.reason for fact in examined(paths, cache_path))
        assert "locked" in capsys.readouterr().out
        other.execute("CREATE TABLE theirs (x)")
        other.commit()
    assert cache_path.exists()


def test_files_that_nobody_asks_for_are_forgotten_in_time(
    tmp_path: Path, cache_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = write_images(tmp_path / "images", 2)
    now_s = 1_800_000_000.0
    monkeypatch.setattr("time.time", lambda: now_s)
    examined([old, new], cache_path)
    now_s += 60 * 86_400
    examined([new], cache_path)
    now_s += 60 * 86_400
    examined([new], cache_path)
    assert len(decoded) == 2
    examined([old, new], cache_path)
    assert decoded[2:] == [old.name]
