"""OtherRuns: whose checkpoints the table has beside those of the run on display, read from their folders."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.folder_reader import FolderReader
from app.session import TrainingSession
from app.viewmodels.checkpoint_table import CheckpointItemModel
from trainer.run_record import RunCheckpoints


class OtherRuns(QObject):
    """Reads them when they are chosen, and whenever that is asked again."""

    told = Signal(str)
    """The sentence that says of a run why it cannot be read, once for each."""

    def __init__(
        self,
        session: TrainingSession,
        reader: FolderReader,
        checkpoints: CheckpointItemModel,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._reader, self._checkpoints = session, reader, checkpoints
        self._told: set[str] = set()
        checkpoints.scope_chosen.connect(self.read)
        reader.checkpoints_read.connect(self._show)

    def read(self) -> None:
        """Read the checkpoints of other runs, if these are to be listed."""
        if not self._are_wanted():
            self._checkpoints.show_others([])
            return
        run_dir, runs_dir = self._session.run_dir, self._session.runs_dir.absolute()
        is_lineage = self._checkpoints.scope == "lineage"
        self._reader.read_checkpoints(runs_dir, run_dir if is_lineage else None, besides=run_dir)

    def _are_wanted(self) -> bool:
        scope = self._checkpoints.scope
        return scope == "all" or (scope == "lineage" and self._session.run_dir is not None)

    def _show(self, readings: list[RunCheckpoints]) -> None:
        if not self._are_wanted():
            # It was chosen otherwise while they were read.
            return
        self._checkpoints.show_others(readings)
        damages = {reading.damage for reading in readings if reading.damage}
        for damage in sorted(damages - self._told):
            self.told.emit(damage)
        self._told |= damages
