"""TensorBoardServer: a real TensorBoard for one run, on this machine only, for as long as the window is open."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from PySide6.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, Signal

_START_TIMEOUT_MS = 60_000
# A killed process is gone within a millisecond or two; the window must not be seen to hang.
_END_TIMEOUT_MS = 40
_URL = re.compile(r"http://127\.0\.0\.1:\d+\S*")


class TensorBoardServer(QObject):
    """Starts ``tensorboard`` for a run's folder and tells where it listens. One run at a time."""

    ready = Signal(str)
    """The URL to open."""
    failed = Signal(str)
    """The sentence that says why there is no TensorBoard."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._process: QProcess | None = None
        self._logdir: Path | None = None
        self._output = ""
        self._url = ""
        self._deadline = QTimer(self)
        self._deadline.setSingleShot(True)
        self._deadline.setInterval(_START_TIMEOUT_MS)
        self._deadline.timeout.connect(self._give_up)

    @property
    def is_running(self) -> bool:
        """Return whether a TensorBoard process runs."""
        return self._process is not None

    def open(self, logdir: Path) -> None:
        """Serve a folder of event files, and say where; a server that already serves it is used again."""
        if self._process is not None and self._logdir == logdir:
            if self._url:
                self.ready.emit(self._url)
            return
        self.stop()
        self._logdir, self._output, self._url = logdir, "", ""
        process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONUNBUFFERED", "1")
        process.setProcessEnvironment(environment)
        process.setProcessChannelMode(QProcess.ProcessChannelMode.MergedChannels)
        process.setProgram(sys.executable)
        # TensorBoard has no login: this machine only, and only this run's folder. Port 0 takes a free one.
        # -P: no file of the current folder may stand in for one of Python's modules.
        process.setArguments(
            ["-P", "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0",
             "--load_fast", "false", "--reload_interval", "5"]
        )  # fmt: skip
        process.readyReadStandardOutput.connect(self._read)
        process.errorOccurred.connect(self._on_error)
        process.finished.connect(self._on_finished)
        self._process = process
        self._deadline.start()
        process.start()

    def stop(self) -> None:
        """End TensorBoard, if it runs."""
        process, self._process = self._process, None
        self._deadline.stop()
        if process is None:
            return
        process.readyReadStandardOutput.disconnect(self._read)
        process.errorOccurred.disconnect(self._on_error)
        process.finished.disconnect(self._on_finished)
        if process.state() == QProcess.ProcessState.NotRunning:
            process.deleteLater()
            return
        process.finished.connect(process.deleteLater)
        # It holds nothing that could be lost, and the window does not wait for it.
        process.kill()

    def close(self) -> None:
        """End TensorBoard for good, before the program goes, and wait a moment for its end."""
        self.stop()
        for process in self.findChildren(QProcess):
            process.kill()
            process.waitForFinished(_END_TIMEOUT_MS)

    def _read(self) -> None:
        assert self._process is not None
        self._output += bytes(self._process.readAllStandardOutput().data()).decode(errors="replace")
        found = _URL.search(self._output)
        if found is not None and not self._url:
            self._deadline.stop()
            self._url = found[0]
            self.ready.emit(self._url)

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error is QProcess.ProcessError.FailedToStart:
            assert self._process is not None
            self._fail(self._process.errorString())

    def _on_finished(self) -> None:
        last_line = self._output.strip().rpartition("\n")[2]
        self._fail(last_line or self.tr("it said nothing"))

    def _give_up(self) -> None:
        self._fail(self.tr("it did not answer within a minute"))

    def _fail(self, reason: str) -> None:
        was_ready = bool(self._url)
        self.stop()
        if was_ready:
            self.failed.emit(self.tr("TensorBoard has ended: {}. Press TensorBoard to start it again.").format(reason))
        else:
            self.failed.emit(
                self.tr("TensorBoard did not start: {}. Check that it is installed beside Thaw.").format(reason)
            )
