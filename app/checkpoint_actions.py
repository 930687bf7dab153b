"""CheckpointActions: what is asked of checkpoints in their table, from the click to the dialog or the notice."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from app.deletions import Deletion
from app.run_display import RunDisplay
from app.session import TrainingSession
from app.viewmodels.checkpoint_run import CheckpointKey
from app.viewmodels.comparison import ComparisonViewModel
from app.viewmodels.export import ExportTarget
from app.viewmodels.quantities import count_text, size_text
from app.views.checkpoint_dialogs import DeleteDialog
from app.views.checkpoints import CheckpointsView
from app.views.comparison import ComparisonDialog
from app.views.export_dialog import ExportDialog
from app.views.notice import Notice
from trainer.run_list import branch_config


class CheckpointActions(QObject):
    """Hands to the session or the display what the table's buttons and menu ask for, and opens what they need."""

    branch_wanted = Signal(object)
    """A new run with this configuration (RunConfig) is to be put into the form."""
    folder_wanted = Signal(object)
    """A folder (a Path) to be shown in the desktop's file manager."""

    def __init__(
        self, view: CheckpointsView, session: TrainingSession, display: RunDisplay, notice: Notice, window: QWidget
    ) -> None:
        super().__init__(window)
        self._display, self._notice, self._window = display, notice, window
        self._deletion = ""
        edits = display.edits
        view.pin_requested.connect(lambda names, is_on: edits.edit(names, is_pinned=is_on))
        view.mark_requested.connect(lambda name, label, note: edits.edit([name], label=label, note=note))
        view.delete_requested.connect(edits.delete)
        edits.confirmation_needed.connect(self._confirm_deletion)
        edits.deleted.connect(self._tell_deletion)
        edits.refused.connect(notice.tell)
        edits.undo_changed.connect(lambda: view.allow_put_back(edits.can_undo))
        view.put_back_requested.connect(self.put_back)
        view.restore_requested.connect(session.restore)
        view.weights_requested.connect(session.restore_weights)
        view.resume_requested.connect(session.resume)
        view.verify_requested.connect(display.verify_resume)
        view.branch_requested.connect(self._branch)
        view.what_if_requested.connect(self._ask_what_if)
        view.compare_requested.connect(self._compare)
        view.export_requested.connect(self._ask_export)
        view.folder_wanted.connect(self.folder_wanted)
        view.others_wanted.connect(display.others.read)
        display.export.told.connect(self._tell_export)

    # -- deletions --------------------------------------------------------------------------------------------

    def put_back(self) -> None:
        """Put back what was deleted last."""
        self._notice.take_back(self._deletion)
        self._display.edits.undo()

    def _confirm_deletion(self, names: list[str]) -> None:
        infos = [info for name in names if (info := self._display.checkpoints.present.info(name)) is not None]
        dialog = DeleteDialog([info for info in infos if not info.is_pinned], self._window)
        dialog.confirmed.connect(partial(self._display.edits.delete_for_good, names))
        dialog.open()

    def _tell_deletion(self, deletion: Deletion) -> None:
        what, freed = self._checkpoints_text(len(deletion.names)), size_text(deletion.freed_bytes)
        if deletion.has_best:
            what = self.tr("{} with the best one").format(what) if len(deletion.names) > 1 else self.tr("the best one")
        if not deletion.trashed:
            sentence = self.tr("Deleted for good: {}, {} freed.").format(what, freed)
            self._notice.tell(f"{sentence} {deletion.kept}".strip(), is_trouble=False)
            return
        sentence = self.tr("Moved to the trash: {}, {}.").format(what, freed)
        self._deletion = f"{sentence} {deletion.kept}".strip()
        self._notice.tell(self._deletion, actions=[(self.tr("Undo"), self.put_back)], is_trouble=False)

    def _checkpoints_text(self, num: int) -> str:
        return self.tr("one checkpoint") if num == 1 else self.tr("{} checkpoints").format(count_text(num))

    # -- new runs from it, and what it is compared with -------------------------------------------------------

    def _branch(self, key: CheckpointKey) -> None:
        """Ask for a branch from a checkpoint of the run on display, or of another one."""
        info = self._display.checkpoints.checkpoint(key)
        config = None if info is None else self._display.checkpoints.run_of(key).config
        if info is not None and config is not None:
            self.branch_wanted.emit(branch_config(config, key.run_dir, info))

    def _ask_what_if(self, name: str) -> None:
        if not self._display.ask_what_if(name):
            return
        # With pyqtgraph, for which the window does not wait as it starts.
        from app.views.what_if import WhatIfWindow

        shown = next(iter(self._window.findChildren(WhatIfWindow)), None)
        if shown is None:
            shown = WhatIfWindow(self._display.what_if, self._window)
            shown.branch_requested.connect(self.branch_wanted)
            shown.show()
        else:
            shown.show_checkpoint()
            shown.activateWindow()

    def _compare(self, keys: list[CheckpointKey]) -> None:
        comparison = ComparisonViewModel()
        comparison.begin(keys)
        ComparisonDialog(comparison, self._window).show()

    # -- sharing ----------------------------------------------------------------------------------------------

    def _ask_export(self, key: CheckpointKey) -> None:
        """Ask how a checkpoint is to be written for others; while one is, show how far that is."""
        export, info = self._display.export, self._display.checkpoints.checkpoint(key)
        config = None if info is None else self._display.checkpoints.run_of(key).config
        if info is None or config is None:
            return
        export.choose(ExportTarget(key.run_dir, config.title, info))
        dialog = ExportDialog(export, self._window)
        dialog.folder_wanted.connect(self.folder_wanted)
        dialog.left.connect(self._tell_export_goes_on)
        dialog.open()

    def _tell_export_goes_on(self) -> None:
        sentence = self.tr("The export goes on, and it is told here when it is done. Closing Thaw ends it.")
        self._notice.tell(sentence, is_trouble=False)

    def _tell_export(self, sentence: str, path: Path | None) -> None:
        if path is None:
            self._notice.tell(sentence)
        else:
            show = partial(self.folder_wanted.emit, path.parent)
            self._notice.tell(sentence, actions=[(self.tr("Show in folder"), show)], is_trouble=False)
