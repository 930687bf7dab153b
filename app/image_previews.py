"""ImagePreviews: asks a worker what the model sees of the image that is looked at, or says why none can tell."""

from __future__ import annotations

from PySide6.QtCore import QObject

from app.session import TrainingSession
from app.viewmodels.data import DataViewModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.run_config import RunConfigViewModel
from trainer.data_report import is_text
from trainer.messages.events import CommandRejected, ImagePreviewed


class ImagePreviews(QObject):
    """Asks for one image at a time, so that pictures never pile up before a worker that trains."""

    def __init__(
        self,
        session: TrainingSession,
        run_config: RunConfigViewModel,
        data: DataViewModel,
        layer_tree: LayerTreeViewModel,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._run_config, self._data, self._layer_tree = session, run_config, data, layer_tree
        self._wanted_path = self._asked_path = self._asked_id = ""
        session.image_previewed.connect(self._on_image_previewed)
        session.state_changed.connect(self._ask)
        session.run_left.connect(self._on_run_left)
        for signal in (session.worker_attached, session.worker_lost):
            signal.connect(self._on_worker_changed)

    def want(self, path: str) -> None:
        """Show what the model of the run on display, or of the form's, sees of an image of the Data tab."""
        self._wanted_path = path
        self._ask()

    def refuse(self, event: CommandRejected) -> None:
        """Tell why the worker refused it, and ask for what is wanted by now."""
        if event.command_id == self._asked_id:
            self._data.refuse_views(self._asked_path, event.reason)
            self._forget_asked()
            self._ask()

    def _ask(self) -> None:
        path = self._wanted_path
        if not path or self._asked_id:
            return
        if not self._session.can_ask("PreviewImage"):
            # It stays wanted: another state may allow it.
            self._data.refuse_views(path, self._no_worker_text())
            return
        self._wanted_path = ""
        run = self._session.run
        config = self._run_config.valid_config() if run is None else run.config
        if config is None:
            sentence = self.tr("What the model sees depends on the form. Mend the field that is marked there first.")
            self._data.refuse_views(path, sentence)
        elif not is_text(path):
            sentence = self.tr("What the model sees of it cannot be shown: its name is no text. Rename the file.")
            self._data.refuse_views(path, sentence)
        else:
            self._asked_path = path
            self._asked_id = self._session.preview_image(
                config, self._data.report_path, path, self._layer_tree.cached.views(config)
            )

    def _no_worker_text(self) -> str:
        if self._session.has_worker:
            return self.tr("What the model sees is shown here as soon as the worker is free.")
        return self.tr("No worker is running that could show what the model sees. New run starts one.")

    def _on_image_previewed(self, event: ImagePreviewed) -> None:
        if not self._session.has_sent(event.command_id):
            # Another window looks at a picture of the same run.
            return
        self._data.show_views(event.path, event.views)
        if event.command_id == self._asked_id:
            self._forget_asked()
            self._ask()

    def _forget_asked(self) -> None:
        self._asked_id = ""

    def _on_worker_changed(self) -> None:
        if not self._asked_id or self._session.is_waiting(self._asked_id):
            return
        # Not asked again by itself: it may be what ended the worker.
        sentence = self.tr("The worker is gone that was to show what the model sees. Choose the image again.")
        self._data.refuse_views(self._asked_path, sentence)
        self._forget_asked()

    def _on_run_left(self) -> None:
        self._forget_asked()
        self._wanted_path = ""
