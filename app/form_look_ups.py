"""FormLookUps: asks a worker what is to be known of the form's run before it begins, and takes the last answers."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, QTimer, Signal

from app.session import TrainingSession
from app.settings import Settings
from app.viewmodels.data import DataViewModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.run_config import RunConfigViewModel
from trainer.config import ModelConfig, RunConfig
from trainer.messages.events import CommandRejected, DataChecked, ModelInspected, RunEstimated
from trainer.messages.model_info import FrozenFeatures

LOOK_UPS_OF_FORM = frozenset({"ListModels", "InspectModel", "CheckData", "EstimateRun"})
"""The commands that are sent here."""

# What a run needs is tried out when the form has rested.
_ESTIMATE_AFTER_MS = 1000
_FEATURES_AFTER_MS = 400


class FormLookUps(QObject):
    """The models on offer, the model's tree, the data, and what the run would need: of each, the last question counts.

    Nothing is looked up for a form whose run has begun.
    """

    refused = Signal(object)
    """A look-up was refused that nothing has overtaken (CommandRejected)."""
    told = Signal(str)
    """A sentence that the user should read, and for which the form has no place."""

    def __init__(
        self,
        session: TrainingSession,
        settings: Settings,
        run_config: RunConfigViewModel,
        data: DataViewModel,
        layer_tree: LayerTreeViewModel,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._settings = session, settings
        self._run_config, self._data, self._layer_tree = run_config, data, layer_tree
        self._check_id = self._inspect_id = self._features_id = self._estimate_id = ""
        self._features: FrozenFeatures | None = None
        self._features_of: tuple[ModelConfig, int | None] | None = None
        self._estimated: RunConfig | None = None
        self._are_data_known = False
        self._estimate_timer = self._pause_timer(_ESTIMATE_AFTER_MS, self._estimate_run)
        self._features_timer = self._pause_timer(_FEATURES_AFTER_MS, self._ask_features)
        run_config.changed.connect(self.estimate_soon)
        run_config.changed.connect(self._offer_features)
        session.models_listed.connect(lambda event: run_config.offer_models(event.models))
        session.model_inspected.connect(self._on_model_inspected)
        session.data_checked.connect(self._on_data_checked)
        session.run_estimated.connect(self._on_run_estimated)

    def _pause_timer(self, interval_ms: int, slot: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(interval_ms)
        timer.timeout.connect(slot)
        return timer

    @property
    def is_form_open(self) -> bool:
        """Whether the form is a new run's that was not started yet: only then is anything looked up for it."""
        return self._session.run_dir is None and not self._session.is_beginning

    # -- questions --------------------------------------------------------------------------------------------

    def ask_all(self) -> None:
        """Ask a worker that was just attached for all that the form needs."""
        self._session.list_models()
        self.inspect_model()
        self.check_data()

    def ask_again(self) -> None:
        """Ask for what a run that came to nothing was to bring along, or had overtaken, or has downloaded by now."""
        self._session.list_models()
        if self._layer_tree.is_empty:
            self.inspect_model()
        if not self._are_data_known:
            self.check_data()
        else:
            self._estimated = None
            self.estimate_soon()

    def ask_for_missing(self) -> None:
        """Ask a worker that is kept for the next run for what the form has not."""
        if self._session.allows("ListModels"):
            if not self._run_config.offer.models:
                self._session.list_models()
            if self._layer_tree.is_empty:
                self.inspect_model()

    def inspect_model(self) -> None:
        """Have the form's model built, for the tree."""
        chosen = self._run_config.chosen_model()
        if chosen is not None and self.is_form_open:
            model, image_size = self._features_of = chosen
            self._inspect_id = self._session.inspect_model(model, self._run_config.num_outputs, image_size)

    def forget_model(self) -> None:
        """Take no answer for an earlier draft: it must not change the one that is shown now."""
        self._inspect_id = self._features_id = ""
        self._features = self._features_of = None

    def ask_features_soon(self) -> None:
        """Ask what of the form's model could be cached, when the choice of what is frozen rests."""
        self._features_timer.start()

    def _ask_features(self) -> None:
        chosen = self._run_config.chosen_model()
        if chosen is None or chosen == self._features_of or not self.is_form_open or self._layer_tree.is_empty:
            return
        if not self._session.can_ask("InspectModel"):
            return
        self._features_of = chosen
        model, image_size = chosen
        if model.weights_file:
            # It need not be read again.
            model = model.model_copy(update={"weights": "random"})
        self._features_id = self._session.inspect_model(model, self._run_config.num_outputs, image_size)

    def check_data(self) -> None:
        """Have the form's data set looked through, for the form and the Data tab."""
        chosen = self._run_config.chosen_data()
        if chosen is not None and self.is_form_open:
            data, seed = chosen
            self._forget_estimate()
            self._run_config.show_checking()
            self._data.show_checking()
            self._check_id = self._session.check_data(data, seed)

    def estimate_soon(self) -> None:
        """Try again when the typing rests, and no longer show what another configuration would need."""
        self._estimate_timer.start()
        if not (self._are_data_known and self.is_form_open):
            return
        config = self._run_config.valid_config()
        if config is None or config != self._estimated:
            self._estimate_id, self._estimated = "", None
            if config is None:
                self._wait_for_fields()
            else:
                self._run_config.need.show_text(self.tr("What the run will need is tried out in a moment."))

    def _estimate_run(self) -> None:
        config = self._run_config.valid_config()
        is_wanted = self._are_data_known and self.is_form_open and self._session.allows("EstimateRun")
        if config is None or config == self._estimated or not is_wanted:
            return
        self._estimated = config
        self._run_config.need.show_estimating()
        self._estimate_id = self._session.estimate_run(config)

    def _wait_for_fields(self) -> None:
        self._run_config.need.show_text(self.tr("What the run will need stands here once every field is right."))

    def _forget_estimate(self) -> None:
        self._estimate_id, self._estimated, self._are_data_known = "", None, False
        self._run_config.need.show_estimate(None)

    # -- answers ----------------------------------------------------------------------------------------------

    def _on_model_inspected(self, event: ModelInspected) -> None:
        if self._session.run_dir is None and event.command_id == self._inspect_id:
            form = self._run_config
            form.show_model(event)
            # Shown as it is ticked now, not as it was when it was asked for.
            self._layer_tree.show_draft(event.summary, form.frozen, form.multipliers, form.adapting_layers)
            self._layer_tree.tell(form.left_out)
            self._take_features(event)
            # What is ticked may not be what was asked about: another model was chosen, and has some of its layers.
            self.ask_features_soon()
        elif self.is_form_open and event.command_id == self._features_id:
            self._take_features(event)

    def _take_features(self, event: ModelInspected) -> None:
        self._features = event.summary.features
        self._offer_features()

    def _offer_features(self) -> None:
        """Show in the tree what could be cached, unless nothing is to be."""
        if self.is_form_open:
            is_wanted = self._run_config.text("training.feature_cache") != "off"
            self._layer_tree.offer_features(self._features if is_wanted else None)

    def _on_data_checked(self, event: DataChecked) -> None:
        if event.command_id != self._check_id or not self.is_form_open:
            # Of other data, or a run is on display by now.
            return
        num_outputs = self._run_config.num_outputs
        self._settings.add_recent_data(event.path)
        self._run_config.recent_data = self._settings.recent_data
        self._are_data_known = True
        self._data.show(event)
        self._run_config.show_data(event)
        if self._run_config.num_outputs != num_outputs:
            self.inspect_model()

    def _on_run_estimated(self, event: RunEstimated) -> None:
        if event.command_id == self._estimate_id and self.is_form_open:
            self._run_config.need.show_estimate(event.estimate, self._estimated)

    def refuse(self, event: CommandRejected) -> None:
        """Tell why the worker refused a look-up, where that matters."""
        if self._is_overtaken(event):
            return
        self.refused.emit(event)
        if event.command == "CheckData" and event.is_cancelled:
            self._data.show_unchecked()
            self._run_config.show_unchecked()
            return
        if event.command == "CheckData":
            self._data.refuse(self._run_config.named_refusal(event))
        is_beside_field = self._run_config.reject(event)
        if event.command == "EstimateRun":
            self._refuse_estimate(event, is_beside_field=is_beside_field)
        elif not is_beside_field:
            self.told.emit(event.reason)

    def _refuse_estimate(self, event: CommandRejected, *, is_beside_field: bool) -> None:
        if event.is_cancelled:
            again = self.tr("You stopped the trial of a few steps. Check again, in the folder's menu, repeats it.")
            self._run_config.need.show_text(again)
        elif is_beside_field:
            self._wait_for_fields()
        else:
            self._run_config.need.show_text(event.reason)

    def _is_overtaken(self, event: CommandRejected) -> bool:
        is_last_check = event.command_id == self._check_id
        if not self.is_form_open:
            # By a run. What matters of the answer, the run's own preparation says.
            if is_last_check:
                self._run_config.stop_checking()
            return True
        # By the check of another path, or the trial of another configuration.
        is_old_check = event.command == "CheckData" and not is_last_check
        return is_old_check or (event.command == "EstimateRun" and event.command_id != self._estimate_id)
