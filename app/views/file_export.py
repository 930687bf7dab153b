"""What is shown as files: a picture, or a table as CSV. A file that cannot be written gives a sentence."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PySide6.QtCore import QBuffer, QByteArray, QCoreApplication, QIODevice, QObject, QRunnable, QThreadPool, Signal
from PySide6.QtGui import QPixmap


class FileExport(QObject):
    """Writes one file away from the GUI thread: a million points take a second."""

    finished = Signal(str, bool)
    """The sentence for the user, and whether the file was written."""

    def write_csv(self, path: Path, rows: Iterable[Sequence[object]]) -> None:
        """Write the lines of a table, which are asked for away from the GUI thread. Emits ``finished``."""
        self._start(path, _CsvText(rows))

    def write_png(self, path: Path, picture: QPixmap) -> None:
        """Write a picture. Emits ``finished``."""
        encoded = QByteArray()
        buffer = QBuffer(encoded)
        buffer.open(QIODevice.OpenModeFlag.WriteOnly)
        picture.save(buffer, "PNG")
        self._start(path, bytes(encoded.data()))

    def _start(self, path: Path, content: _CsvText | bytes) -> None:
        QThreadPool.globalInstance().start(QRunnable.create(lambda: self.finished.emit(*_written(path, content))))


class _CsvText:
    """Lines that become CSV when they are written."""

    def __init__(self, rows: Iterable[Sequence[object]]) -> None:
        self._rows = rows

    def encoded(self) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(self._rows)
        return text.getvalue().encode()


def _written(path: Path, content: _CsvText | bytes) -> tuple[str, bool]:
    """Write beside the file and rename, so that a full disk leaves no half of one."""
    partial = path.with_name(f"{path.name}.part")
    try:
        partial.write_bytes(content if isinstance(content, bytes) else content.encoded())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        text = QCoreApplication.translate("FileExport", "Cannot write {path}: {reason}. Choose another folder.")
        return text.format(path=path, reason=error.strerror or error), False
    return QCoreApplication.translate("FileExport", "Exported to {path}.").format(path=path), True
