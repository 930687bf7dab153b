"""Pictures read in threads: only what is wanted, within limits of memory, and nothing that is no picture."""

from __future__ import annotations

import os
import struct
import sys
import threading
import zlib

import pytest
from PIL import Image

from app.backlog import Backlog
from app.thumbnail_loader import PictureRequest, ThumbnailLoader, load_picture
from tests.app.data_reports import make_jpeg

# -- work in threads ----------------------------------------------------------------------------------------------


def test_what_is_not_wanted_any_more_is_never_done(qtbot) -> None:
    may_go_on, done = threading.Event(), []

    def work(key: int) -> int:
        may_go_on.wait(10)
        done.append(key)
        return key * 10

    backlog, answers = Backlog(work), []
    backlog.answered.connect(lambda key, answer: answers.append((key, answer)))
    backlog.want([1, 2, 3])
    backlog.want([3, 1, 4])
    may_go_on.set()
    qtbot.waitUntil(lambda: len(answers) == 3)
    assert answers == [(1, 10), (3, 30), (4, 40)]
    assert done == [1, 3, 4]


@pytest.mark.qt_no_exception_capture
def test_a_defect_in_a_thread_is_raised_in_the_window(qtbot) -> None:
    def work(key: int) -> int:
        return 1 // key

    backlog, answers = Backlog(work), []
    backlog.answered.connect(lambda key, _: answers.append(key))
    with qtbot.captureExceptions() as raised:
        backlog.want([0, 1])
        qtbot.waitUntil(lambda: answers == [1])
    assert [kind for kind, _, _ in raised] == [ZeroDivisionError]


# -- pictures -----------------------------------------------------------------------------------------------------


def test_a_picture_is_read_upright_and_as_small_as_it_is_shown(qapp, tmp_path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (400, 200), "red").save(tmp_path / "turned.jpg", exif=turned)
    image = load_picture(PictureRequest(str(tmp_path / "turned.jpg"), 96))
    assert (image.width(), image.height()) == (48, 96)
    assert load_picture(PictureRequest(str(make_jpeg(tmp_path / "small.jpg", (9, 5))), 96)).size().toTuple() == (9, 5)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [("a.png", "RGBA", {}), ("a.png", "P", {}), ("a.bmp", "RGB", {}), ("a.gif", "P", {}), ("a.jpg", "CMYK", {}),
     ("a.png", "I;16", {}), ("a.webp", "RGB", {}), ("a.tif", "RGB", {"compression": "tiff_lzw"}),
     ("png_named.jpg", "RGB", {"format": "PNG"})],
)  # fmt: skip
def test_every_kind_of_image_is_read(qapp, tmp_path, name, mode, options) -> None:
    Image.new(mode, (300, 150)).save(tmp_path / name, **options)
    assert load_picture(PictureRequest(str(tmp_path / name), 64)).size().toTuple() == (64, 32)


def test_what_is_no_picture_is_none(qapp, tmp_path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "drawing.jpg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    (tmp_path / "folder.jpg").mkdir()
    for name in ("text.jpg", "empty.jpg", "drawing.jpg", "folder.jpg", "gone.jpg", "\0.jpg"):
        assert load_picture(PictureRequest(f"{tmp_path}/{name}", 64)).isNull(), name


@pytest.mark.qt_log_ignore("QImageIOHandler: Rejecting image")
def test_a_picture_too_large_for_the_memory_is_none(qapp, tmp_path) -> None:
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    )
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    assert load_picture(PictureRequest(str(tmp_path / "bomb.png"), 64)).isNull()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO on this system")
def test_a_fifo_is_not_opened(qapp, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert load_picture(PictureRequest(str(tmp_path / "pipe.jpg"), 64)).isNull()


@pytest.mark.skipif(sys.platform != "linux", reason="names are text on this system")
def test_a_name_that_is_no_text_is_read(qapp, tmp_path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    make_jpeg(tmp_path / "plain.jpg", (30, 20)).rename(path)
    assert load_picture(PictureRequest(path, 64)).size().toTuple() == (30, 20)


def test_thumbnails_stay_within_their_budget_and_the_last_seen_are_kept(qtbot, tmp_path) -> None:
    paths = [str(make_jpeg(tmp_path / f"{number}.jpg", (32, 32))) for number in range(6)]
    loader = ThumbnailLoader(budget_bytes=3 * 32 * 32 * 4)
    for path in paths[:3]:
        with qtbot.waitSignal(loader.loaded):
            loader.want([path], 32)
    assert loader.pixmap(paths[0]) is not None
    with qtbot.waitSignal(loader.loaded):
        loader.want([paths[3]], 32)
    assert loader.num_bytes == 3 * 32 * 32 * 4
    assert [loader.pixmap(path) is not None for path in paths[:4]] == [True, False, True, True]
    # Another size is another picture.
    loader.want([], 64)
    assert (loader.num_bytes, loader.pixmap(paths[0])) == (0, None)


def test_a_file_that_cannot_be_shown_is_asked_for_once(qtbot, tmp_path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    loader = ThumbnailLoader()
    with qtbot.waitSignal(loader.loaded):
        loader.want([str(tmp_path / "text.jpg")], 32)
    pixmap = loader.pixmap(str(tmp_path / "text.jpg"))
    assert pixmap is not None
    assert pixmap.isNull()
