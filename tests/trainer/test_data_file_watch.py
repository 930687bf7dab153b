"""Files that are deleted or changed while kept copies serve for them are told, once."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trainer.test_data_loader import digests, loaded, make_scanned
from tests.trainer.test_data_store import unlink_images
from trainer.data.file_watch import FILES_PER_SLICE, FileWatch
from trainer.data.loader import ImageData
from trainer.data.scan import ScannedData

PATIENCE_S = 30.0
GONE = "cannot be found any more (No such file or directory)"
CHANGED = "changed since the run was prepared"

Warned = Callable[[int], list[str]]


@pytest.fixture
def scanned(tmp_path: Path) -> ScannedData:
    return make_scanned(tmp_path / "data")


@pytest.fixture
def kept(scanned: ScannedData, tmp_path: Path) -> Iterator[ImageData]:
    """Return data of which every image was decoded and is kept."""
    data = loaded(scanned, store_dir=tmp_path / "store")
    for _ in (*data.train_batches(0), *data.train_batches(1), *data.validation_batches()):
        pass
    yield data
    data.close()


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Warned:
    """Wait for a number of warnings, and return all there are."""

    def wait(number: int) -> list[str]:
        deadline = time.monotonic() + PATIENCE_S
        while len(caplog.messages) < number and time.monotonic() < deadline:
            time.sleep(0.01)
        return list(caplog.messages)

    return wait


def compare(watch: FileWatch) -> None:
    watch.compare(threading.Event())


def watched(paths: list[Path]) -> FileWatch:
    return FileWatch([str(path) for path in paths], [path.stat() for path in paths])


def test_images_that_go_while_kept_copies_serve_for_them_are_told_and_the_stream_stays(
    scanned: ScannedData, kept: ImageData, warned: Warned
) -> None:
    expected = digests(kept.train_batches(1))
    unlink_images(scanned)
    kept.look_for_changes()
    (text,) = warned(1)
    assert text.startswith(f"{scanned.samples[0][0]} and 26 more images {GONE}")
    assert digests(kept.train_batches(1)) == expected


def test_each_file_is_told_once_the_first_by_name_and_the_others_by_their_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(FILES_PER_SLICE + 5)]
    for path in paths:
        path.write_bytes(b"image")
    watch = watched(paths)
    compare(watch)
    assert caplog.messages == []
    paths[-1].unlink()
    paths[3].unlink()
    os.utime(paths[1], ns=(0, 0))
    paths[FILES_PER_SLICE].write_bytes(b"another image")
    compare(watch)
    gone, changed = caplog.messages
    assert gone.startswith(f"{paths[3]} and 1 more image {GONE}")
    assert changed.startswith(f"{paths[1]} and 1 more image {CHANGED}")
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    compare(watch)
    assert len(caplog.messages) == 2
    paths[4].unlink()
    compare(watch)
    assert caplog.messages[2].startswith(f"{paths[4]} {GONE}")
    assert len(caplog.messages) == 3


def test_a_look_that_is_ended_tells_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"image")
    watch = watched([path])
    path.unlink()
    is_ended = threading.Event()
    is_ended.set()
    watch.compare(is_ended)
    assert caplog.messages == []
    compare(watch)
    assert len(caplog.messages) == 1
