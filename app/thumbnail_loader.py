"""Pictures for the screen, read in threads: thumbnails within a budget of memory, and one picture to look at."""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from PySide6.QtCore import QFile, QFileDevice, QIODevice, QObject, QSize, Qt, Signal
from PySide6.QtGui import QImage, QImageReader, QPixmap

from app.backlog import Backlog
from trainer.data_report import is_text

BUDGET_BYTES = 64 * 2**20
_MAX_DECODED_MB = 192
"""What one picture may take while it is decoded: 50 million pixels. A JPEG is decoded small and needs far less."""
# A cached "cannot be shown" costs about this much.
_LEAST_BYTES = 512
# Half of a laptop's smallest processor stays for training.
_NUM_THREADS = 2
# As Qt finds them in the file. No SVG, which Qt would read too: it may refer to other files.
_FORMATS = frozenset({"jpeg", "jpg", "png", "bmp", "gif", "tiff", "tif", "webp"})


class PictureRequest(NamedTuple):
    """A file to be read, to fit into a square of ``side`` device pixels."""

    path: str
    side: int


class ThumbnailLoader(QObject):
    """Keeps the thumbnails that were looked at last; reads those that are in sight."""

    loaded = Signal(str)
    """The path of a file that was read, or could not be."""

    def __init__(self, parent: QObject | None = None, budget_bytes: int = BUDGET_BYTES) -> None:
        super().__init__(parent)
        self._budget_bytes = budget_bytes
        self._side = 0
        self._num_bytes = 0
        self._pixmaps: OrderedDict[str, QPixmap] = OrderedDict()
        self._backlog = Backlog(load_picture, _NUM_THREADS, self)
        self._backlog.answered.connect(self._keep)

    @property
    def num_bytes(self) -> int:
        """Return the memory that the kept thumbnails take."""
        return self._num_bytes

    def want(self, paths: Iterable[str], side: int) -> None:
        """Read these files, in this order, and no other ones.

        Args:
            paths: The files in sight, and those that will be next.
            side: The square that a thumbnail must fit into, in device pixels.

        """
        if side != self._side:
            self.clear()
            self._side = side
        self._backlog.want([PictureRequest(path, side) for path in paths if path not in self._pixmaps])

    def pixmap(self, path: str) -> QPixmap | None:
        """Return a file's thumbnail: null if it cannot be shown, None if it was not read yet."""
        pixmap = self._pixmaps.get(path)
        if pixmap is not None:
            self._pixmaps.move_to_end(path)
        return pixmap

    def clear(self) -> None:
        """Forget every thumbnail, and read none."""
        self._backlog.want([])
        self._pixmaps.clear()
        self._num_bytes = 0
        self._side = 0

    def _keep(self, request: PictureRequest, image: QImage) -> None:
        if request.side != self._side or request.path in self._pixmaps:
            return
        self._pixmaps[request.path] = QPixmap.fromImage(image)
        self._num_bytes += _size_of(self._pixmaps[request.path])
        while self._num_bytes > self._budget_bytes and len(self._pixmaps) > 1:
            _, oldest = self._pixmaps.popitem(last=False)
            self._num_bytes -= _size_of(oldest)
        self.loaded.emit(request.path)


def load_picture(request: PictureRequest) -> QImage:
    """Read a picture upright, no larger than asked for. Null if it is none that Qt can read. For any thread."""
    file = _opened(request.path)
    # In a function of its own: the reader must end before its file, of which a TIFF's reads on to the last.
    return QImage() if file is None else _decoded(file, request.side)


def _decoded(file: QFile, side: int) -> QImage:
    QImageReader.setAllocationLimit(_MAX_DECODED_MB)
    reader = QImageReader(file)
    reader.setAutoTransform(True)
    if reader.format().toStdString() not in _FORMATS:
        return QImage()
    size, box = reader.size(), QSize(side, side)
    if size.width() > box.width() or size.height() > box.height():
        # From the header's size, so that a JPEG is decoded small. The box is a square: turning fits as well.
        reader.setScaledSize(size.scaled(box, Qt.AspectRatioMode.KeepAspectRatio).expandedTo(QSize(1, 1)))
    image = reader.read()
    if image.isNull():
        return image
    form = QImage.Format.Format_ARGB32_Premultiplied if image.hasAlphaChannel() else QImage.Format.Format_RGB32
    return image.convertToFormat(form)


def _opened(path: str) -> QFile | None:
    try:
        # Opening a FIFO would hang.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (a path of any bytes, in one call)
            return None
        file = QFile(path)
        if is_text(path):
            return file if file.open(QIODevice.OpenModeFlag.ReadOnly) else None
        # A name on Linux is bytes that need be no text, which Qt's names are.
        handle = os.open(path, os.O_RDONLY)
        is_open = file.open(handle, QIODevice.OpenModeFlag.ReadOnly, QFileDevice.FileHandleFlag.AutoCloseHandle)
        return file if is_open else None
    except (OSError, ValueError):
        return None


def _size_of(pixmap: QPixmap) -> int:
    return max(_LEAST_BYTES, pixmap.width() * pixmap.height() * pixmap.depth() // 8)
