"""RunConfigViewModel: the values of the run form, checked field by field against RunConfig."""

from __future__ import annotations

import functools
from typing import Any

from PySide6.QtCore import QLocale, QObject, Signal

from app.plan_syntax import parse_plan, plan_text
from app.viewmodels.compute_words import chosen_text
from app.viewmodels.field_values import field_of, shown_value, typed_error, typed_values, value_at
from app.viewmodels.field_words import choice_text, field_label
from app.viewmodels.found_data import FoundData, summary_text
from app.viewmodels.layer_choice import NO_LAYER_CHOSEN, LayerChoice
from app.viewmodels.layer_rows import BACKBONE, HEAD, LayerRows
from app.viewmodels.live_changes import LiveChanges
from app.viewmodels.model_offer import ModelOffer
from app.viewmodels.plan_text import plan_sentence
from app.viewmodels.quantities import count_text
from app.viewmodels.run_fields import (
    CHECKED_FIELDS,
    COLUMN_FIELDS,
    FIELDS,
    FIELDS_WITHOUT_EDITOR,
    LIVE_FIELDS,
    MODEL_FIELDS,
    MODEL_FIELDS_THAT_NAME_LAYERS,
    ONLY_WITH,
    OWN_OF_WEIGHTS,
    TABLE_FIELDS,
    TASK_FIELDS,
    WITH_PATIENCE,
)
from app.viewmodels.run_need import RunNeed
from trainer.config import VIEWS, BranchConfig, ConfigError, DataConfig, ModelConfig, RunConfig, config_from_dict
from trainer.messages.data_info import DataSummary
from trainer.messages.events import CommandRejected, DataChecked, ModelInspected
from trainer.messages.model_info import ModelEntry, ModelSummary
from trainer.messages.run_info import InForce, RunInfo
from trainer.plans import stages

DEFAULT_NUM_CLASSES = 10


class RunConfigViewModel(QObject):
    """Holds what was typed, as text, and what is wrong with it. Nothing here waits for the worker."""

    changed = Signal()
    """Values, notes or errors have changed."""
    live_changed = Signal()
    """It is another question whether what was typed for the live run is to be sent."""
    batchnorm_chosen = Signal()
    """It was chosen what the statistics of all layers do while they are frozen."""
    refused = Signal(str)
    """The field for whose error a start came to nothing."""

    def __init__(self, values: dict[str, Any] | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.devices: list[str] = []
        self.recent_data: list[str] = []
        """Data sets that were used before, the latest first."""
        self.run: RunInfo | None = None
        self.frozen: list[str] = ["backbone"]
        self.multipliers: dict[str, float] = {}
        """What the rate is multiplied by in single layers; like ``frozen``, from the model's tree."""
        self.adapting: list[str] = []
        """Whose running statistics go on while frozen, where ``model.batchnorm`` does not say so of all."""
        self.branch: BranchConfig | None = None
        """The checkpoint of another run from which this one begins."""
        self.left_out = ""
        """What of these was left out as another model was chosen, in a sentence; "" for nothing."""
        self._is_other_model = False
        self._summary: ModelSummary | None = None
        """Of the model that was looked at last: a plan names its layers."""
        self._texts: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self._is_task_chosen = False
        # Have no field of their own, but a loaded configuration keeps them.
        self._hidden: dict[str, Any] = {}
        self.offer = ModelOffer(self._texts)
        self.found = FoundData()
        self.live = LiveChanges(self._texts)
        self.need = RunNeed(self)
        try:
            config = config_from_dict(values or {})
        except ConfigError:
            # Values kept by another version: begin anew with the defaults.
            config = RunConfig()
        self.show_config(config)

    # -- values -----------------------------------------------------------------------------------------------

    def text(self, field: str) -> str:
        """Return what a field shows."""
        if field == "model.weights" and self.branch is not None and self.run is not None:
            # What its configuration names beside the checkpoint was never read.
            return self.tr("the checkpoint's")
        return self._texts[field]

    def note(self, field: str) -> str:
        """Return what is known about a field beside its value: the classes found, the precision applied."""
        if field == "data.task":
            return self.found.task_text(self._texts["data.task"])
        if field == "data.label_separator":
            return self.found.separator_text() if self._texts[field] == "auto" else ""
        if field == "data.views":
            return self._views_note()
        if field == "training.batch_size" and self.live.in_force is not None and self.live.in_force.batch_parts > 1:
            return self.tr("in {} parts, one after another").format(count_text(self.live.in_force.batch_parts))
        if field == "model.weights" and self.branch is not None:
            # Whatever is found of a file that is named there, too, which a plain run would take.
            return self.tr("The checkpoint's are taken.") if self.run is None else ""
        return self._notes.get(field) or self._resting_note(field)

    def _views_note(self) -> str:
        """Say what the views are without effect for, or what none of them means."""
        if self._texts["training.feature_cache"] == "off":
            return self.tr("The feature cache is off.")
        if self._texts["data.mixing"] != "none":
            return self.tr("Not for mixed images.")
        return self.tr("New views in each epoch.") if self._texts["data.views"].strip() == "0" else ""

    def _resting_note(self, field: str) -> str:
        """Say what an empty field means, where the note about its value would stand, and which weights are chosen."""
        if field == "model.weights":
            # A run that has begun has its weights.
            return self.offer.weights_note() if self.run is None else ""
        if self._texts[field].strip():
            return ""
        if field == "plan" and self.live.in_force is not None and self.live.in_force.begun:
            begun = plan_text([phase.model_dump() for phase in self.live.in_force.begun])
            return self.tr("All of it has begun: {}").format(begun)
        return {
            "data.path": self.tr("A folder, an archive or a table of images."),
            "plan": self.tr("What is frozen stays frozen."),
        }.get(field, "")

    def placeholder(self, field: str) -> str:
        """Return what holds where a field is left empty, or an example of what to write."""
        if field in OWN_OF_WEIGHTS:
            return self.offer.own_text(field)
        if field in COLUMN_FIELDS:
            return self.found.column_text(field)
        if field == "data.views":
            return count_text(VIEWS[self._texts["data.augmentation"]])
        if field == "plan":
            # Beside a run it would read as the run's plan.
            return "" if self.run is not None else self._plan_example
        return self._placeholders.get(field, "")

    @functools.cached_property
    def _placeholders(self) -> dict[str, str]:
        # Once: the form asks for every field at each change, and the texts are translated.
        return {
            "name": self.tr("the data's name"),
            "data.path": self.tr("choose or drop"),
            "data.cache_gb": self.tr("what the disk can spare"),
            "training.feature_memory_gb": self.tr("25 % of what is free"),
            "training.feature_disk_gb": self.tr("what the disk can spare"),
            "model.head_hidden": self.tr("none"),
            "optimizer.clip_norm": self.tr("not clipped"),
            "training.patience": self.tr("trains all epochs"),
            "checkpoints.keep_last": self.tr("all, without other rules"),
            "checkpoints.keep_best": self.tr("the best one"),
            "checkpoints.every_epochs": self.tr("none for good"),
            "checkpoints.every_minutes": self.tr("at the end of epochs only"),
            "checkpoints.disk_gb": self.tr("as much as there is"),
        }

    @functools.cached_property
    def _plan_example(self) -> str:
        last = [BACKBONE] if self._summary is None else stages(self._summary.layers)[-1]
        return self.tr("3: {}").format(", ".join(f"+{layer}" for layer in last))

    def error(self, field: str) -> str:
        """Return what is wrong with a field, "" if nothing is known to be."""
        return self._errors.get(field, "")

    @property
    def num_outputs(self) -> int:
        """Return how many outputs the model needs, as far as the classes are known."""
        num_classes = len(self.found.class_names) or DEFAULT_NUM_CLASSES
        task = self._texts["data.task"]
        return config_from_dict({"data": {"task": task}}).data.num_outputs(num_classes)

    def has_field(self, field: str) -> bool:
        """Return whether a field matters by what the others say: not all have momentum, only a table has columns."""
        if field in TABLE_FIELDS:
            return self.is_table
        if field in WITH_PATIENCE:
            return bool(self._texts["training.patience"].strip())
        other, values = ONLY_WITH.get(field, ("", set()))
        return not other or self._texts[other] in values

    def set_text(self, field: str, text: str) -> None:
        """Take what was typed and check it at once."""
        if self._texts[field] == text:
            return
        self._texts[field] = text
        self.live.note_typing(field)
        if field == "data.path":
            self._forget_data()
        if field in TABLE_FIELDS:
            self.found.forget_taken()
        if field == "data.task":
            self._is_task_chosen = True
        elif field in CHECKED_FIELDS:
            # Of other data, or of these as they are read otherwise: the task follows what is found.
            self._is_task_chosen = False
        if field in MODEL_FIELDS_THAT_NAME_LAYERS:
            # It has other layers. Which of those that were chosen are among them is told with its tree.
            self._is_other_model = True
        if field == "model.name":
            self.left_out = ""
        if field == "model.batchnorm":
            self.batchnorm_chosen.emit()
        if field == "model.name" and self.offer.has_foreign_weights:
            self._texts["model.weights"] = "published"
        if field in MODEL_FIELDS:
            self._forget_model()
        for hidden in (*ONLY_WITH, *WITH_PATIENCE):
            if self.error(hidden) and not self.has_field(hidden):
                # Nobody could mend out of sight what would keep the run from starting.
                self._texts[hidden] = shown_value(value_at(RunConfig().model_dump(), hidden))
                self._errors[hidden] = ""
        # Of other data, nothing is known that a task would not go with.
        for known in (field, *(TASK_FIELDS if field in {*TASK_FIELDS, "data.path"} else ())):
            self._errors[known] = self._check(known)
        if field == "plan":
            self._notes[field] = "" if self.error(field) else plan_sentence(parse_plan(text))
        self.changed.emit()
        self.live_changed.emit()

    def show_config(self, config: RunConfig, frozen: list[str] | None = None) -> None:
        """Show a configuration, as a file or an earlier run holds it."""
        self._take(config, frozen)
        self.changed.emit()

    def _take(self, config: RunConfig, frozen: list[str] | None = None) -> None:
        values = config.model_dump()
        for field in FIELDS:
            self._texts[field] = plan_text(values["plan"]) if field == "plan" else shown_value(value_at(values, field))
        self.frozen = list(config.model.frozen if frozen is None else frozen)
        self.multipliers = dict(config.optimizer.multipliers)
        self.adapting = list(config.model.adapting)
        self.branch = config.branch
        self._is_other_model, self.left_out = False, ""
        self._hidden = {field: value_at(values, field) for field in FIELDS_WITHOUT_EDITOR}
        self._notes = {"plan": plan_sentence(values["plan"])}
        self._errors = {}
        self._is_task_chosen = True
        self._forget_data()

    @property
    def branch_text(self) -> str:
        """Say from which checkpoint the run begins, "" if from none."""
        return "" if self.branch is None else self.tr("From {}").format(self.branch.source)

    def leave_branch(self) -> None:
        """Begin with the model's own weights."""
        self.branch = None
        self.changed.emit()

    def values(self) -> dict[str, Any]:
        """Return the form as RunConfig's nested plain values; what cannot be read stays text, for the check to name."""
        values = typed_values(self._texts, FIELDS)
        chosen = self._known_choice
        values["model"] |= {"frozen": list(chosen.frozen), "adapting": list(chosen.adapting)}
        values["optimizer"]["multipliers"] = dict(chosen.multipliers)
        if self.branch is not None:
            values["branch"] = self.branch.model_dump()
        for section, key in (field.split(".") for field in FIELDS_WITHOUT_EDITOR):
            if (value := self._hidden.get(f"{section}.{key}")) is not None:
                values[section][key] = value
        return values

    def config(self) -> RunConfig | None:
        """Check every field. Returns the configuration, or None with the errors set beside the fields."""
        config, errors = self._read()
        # What an earlier answer found wrong stands beside what is wrong here. Where nothing else is, it goes: it may
        # have been mended on the disk, and the worker looks again.
        self._errors = {**self._errors, **errors} if errors else {}
        self.changed.emit()
        if config is None:
            self.refused.emit(next((field for field in FIELDS if self.error(field)), ""))
        return config

    def valid_config(self) -> RunConfig | None:
        """Return the configuration if every field is right, and say nothing if not."""
        return self._read()[0]

    def _read(self) -> tuple[RunConfig | None, dict[str, str]]:
        errors = {field: error for field in FIELDS if (error := self._check(field))}
        if not self._texts["data.path"].strip():
            errors["data.path"] = self.tr("Choose a folder, an archive or a table of images.")
        if errors:
            return None, errors
        try:
            return config_from_dict(self.values()), {}
        except ConfigError as error:
            return None, {field_of(field): sentence for field, sentence in error.sentences.items()}

    def chosen_data(self) -> tuple[DataConfig, int] | None:
        """Return the data and the seed of their split; None while none are chosen, or a field of them is wrong."""
        if not self._texts["data.path"].strip() or any(self._check(field) for field in CHECKED_FIELDS):
            return None
        config = config_from_dict(typed_values(self._texts, CHECKED_FIELDS))
        return config.data, config.training.seed

    def chosen_model(self) -> tuple[ModelConfig, int | None] | None:
        """Return the model and its images' side in pixels; None while none is chosen, or a field of it is wrong."""
        if any(self._check(field) for field in MODEL_FIELDS):
            return None
        values = typed_values(self._texts, (*MODEL_FIELDS, "model.batchnorm"))
        chosen = self._known_choice
        values["model"] |= {"frozen": list(chosen.frozen), "adapting": list(chosen.adapting)}
        config = config_from_dict(values)
        model = config.model
        if self.branch is not None and model.weights_file:
            # The checkpoint's weights are taken: the file need not even be there any more.
            model = model.model_copy(update={"weights": "random"})
        return model, config.data.image_size

    @property
    def adapting_layers(self) -> list[str]:
        """Return whose statistics go on while they are frozen, for the model's tree."""
        return [BACKBONE, HEAD] if self._texts["model.batchnorm"] == "adapting" else self.adapting

    def choose_adapting(self, layers: list[str]) -> None:
        """Take from the model's tree whose statistics are to go on: of these, and not of all."""
        self.adapting, self.left_out = list(layers), ""
        self.set_text("model.batchnorm", "frozen")

    @property
    def is_table(self) -> bool:
        """Whether the columns of a table matter: the data are one, or something was said of its columns."""
        said = any(self._texts[field] for field in COLUMN_FIELDS) or any(map(self.error, TABLE_FIELDS))
        return said or "table" in {self._texts["data.layout"], self.found.layout}

    # -- what the worker says ---------------------------------------------------------------------------------

    def offer_models(self, models: list[ModelEntry]) -> None:
        """Offer these models for choice."""
        self.offer.models = models
        self.changed.emit()

    def offer_devices(self, devices: list[str]) -> None:
        """Offer these devices for choice."""
        self.devices = devices
        self.changed.emit()

    def show_data(self, event: DataChecked) -> None:
        """Note the classes and images that a scan found."""
        if event.path != self._texts["data.path"].strip():
            return
        self._show_found(event.summary)
        self._notes["data.path"] = summary_text(event.summary)
        if not self._is_task_chosen:
            self._texts["data.task"] = self.found.fitting_task(self._texts["data.task"])
        for field in (*CHECKED_FIELDS, *TASK_FIELDS):
            self._errors[field] = self._check(field)
        self.changed.emit()

    def _show_found(self, summary: DataSummary) -> None:
        self.found.take(summary)
        if self._texts["data.layout"] == "auto":
            self._notes["data.layout"] = self.tr("found: {}").format(choice_text(summary.layout))

    def show_model(self, event: ModelInspected) -> None:
        """Note how the file of weights fits the model; what was wrong with the model is mended."""
        self._look_at(event.summary)
        if self._is_other_model:
            self._keep_layers_of(event.summary)
        for field in MODEL_FIELDS:
            self._errors[field] = self._check(field)
        if event.weights is not None and event.weights.is_usable:
            self._notes["model.weights"] = event.weights.sentence
        elif event.weights is not None:
            self._errors["model.weights"] = event.weights.sentence
        self.changed.emit()

    def _keep_layers_of(self, summary: ModelSummary) -> None:
        """Keep what was chosen of layers that another model has, too."""
        chosen = self._layer_choice
        kept = chosen.within(LayerRows.of(summary))
        self.left_out = chosen.left_out_text(kept, summary.model) or self.left_out
        self.frozen, self.multipliers, self.adapting = kept.frozen, kept.multipliers, kept.adapting
        self._is_other_model = False

    @property
    def _known_choice(self) -> LayerChoice:
        """Return what was chosen of layers, as far as the model is known to have them."""
        return NO_LAYER_CHOSEN if self._is_other_model else self._layer_choice

    @property
    def _layer_choice(self) -> LayerChoice:
        return LayerChoice(self.frozen, self.multipliers, self.adapting)

    def _look_at(self, summary: ModelSummary) -> None:
        self._summary = summary
        # Made when it is asked for: a large model's stages take milliseconds, and a run on display shows no example.
        self.__dict__.pop("_plan_example", None)

    def show_checking(self) -> None:
        """Note that the data are being scanned."""
        self._notes["data.path"] = self.tr("Looking through the images …")
        for field in CHECKED_FIELDS:
            self._errors[field] = ""
        self.changed.emit()

    def show_unchecked(self) -> None:
        """Note that the user ended the check: nothing is known of the data, and nothing is wrong with them."""
        self._notes["data.path"] = self.tr("Not checked. Check again from the folder's menu.")
        self.changed.emit()

    def stop_checking(self) -> None:
        """Take back that the data are being scanned."""
        self._notes.pop("data.path", None)
        self.changed.emit()

    @property
    def num_epochs(self) -> int | None:
        """Return the epochs that the run is to have, None while what was typed is no such number."""
        field = "training.epochs"
        return None if self._check(field) else config_from_dict(typed_values(self._texts, [field])).training.epochs

    def say_wrong(self, field: str, error: str) -> None:
        """Say beside a field what is wrong with what was chosen for it."""
        self._errors[field] = error
        self.changed.emit()

    def reject(self, event: CommandRejected) -> bool:
        """Put a refusal beside the fields at fault. Returns whether all of it has one here."""
        asked = self.live.refuse(event.command_id)
        self.live_changed.emit()
        fields = {name: field_of(name) for name in event.by_field}
        if not any(fields.values()):
            about = {"CheckData": "data.path", "InspectModel": "model.name"}.get(event.command, "")
            fields = dict.fromkeys(fields, next(iter(asked), about))
        wrong = {field: event.by_field[name] for name, field in fields.items() if field}
        if not wrong:
            return False
        if not wrong.keys().isdisjoint(CHECKED_FIELDS):
            self._notes.pop("data.path", None)
        if not wrong.keys().isdisjoint(COLUMN_FIELDS) and event.choices:
            self.found.columns = event.choices
        self._errors.update(wrong)
        self.changed.emit()
        if event.command in {"PrepareRun", "OpenRun"}:
            # A look-up is answered while the user types elsewhere, and must not take the cursor away.
            self.refused.emit(next(field for field in FIELDS if field in wrong))
        return all(fields.values())

    def named_refusal(self, event: CommandRejected) -> str:
        """Return the reason of a refusal for a place that is not beside the field at fault: there it is named."""
        return "\n".join(self._with_label(sentence, field_of(name)) for name, sentence in event.by_field.items())

    def _with_label(self, sentence: str, field: str) -> str:
        if field in {"", "data.path"}:
            return sentence
        return self.tr('{} The field of the form is "{}".').format(sentence, field_label(field))

    def show_run(self, run: RunInfo) -> None:
        """Show the values of a run, and beside them what was chosen for it."""
        self.run = run
        self._look_at(run.summary)
        self._take(run.config)
        locale = QLocale()
        self._notes["data.path"] = self.tr("{} classes · {} train · {} validation").format(
            locale.toString(len(run.class_names)), locale.toString(run.num_train), locale.toString(run.num_validation)
        )
        if run.data_summary is not None:
            self._show_found(run.data_summary)
        self.found.class_names = run.class_names
        self._notes["data.image_size"] = self.tr("applied: {} px").format(locale.toString(run.image_size))
        self._notes["training.precision"] = self.tr("applied: {}").format(chosen_text(run))
        self._notes["training.device"] = self.tr("applied: {}").format(run.device)
        self.live.leave_run()
        self.show_in_force(run.present)

    def leave_run(self) -> None:
        """Make the form a new run's: the values stay as they were asked for, what became of them goes."""
        if self.run is not None:
            values = {**self.run.config.model_dump(), "plan": self.run.config.plan}
            self._show_values({field: value_at(values, field) for field in LIVE_FIELDS.values()})
        self.run = None
        self.live.leave_run()
        self.live_changed.emit()
        for field in ("data.image_size", "training.precision", "training.device"):
            self._notes.pop(field, None)
        self.changed.emit()

    # -- what may change as the run goes on -------------------------------------------------------------------

    def show_in_force(self, present: InForce, command_id: str = "", *told: str) -> None:
        """Show what the run trains with now; ``command_id`` is what asked for it. What is being typed stays.

        Of what is ``told`` anew, also in the place of what was refused.
        """
        self._show_values(self.live.take(present, command_id, *told))
        self.changed.emit()
        self.live_changed.emit()

    def change_in_force(self, command_id: str, **values: Any) -> None:
        """Show that some of what the run trains with is another now."""
        if self.live.in_force is not None:
            self.show_in_force(self.live.in_force.model_copy(update=values), command_id, *values)

    def put_back(self, field: str) -> None:
        """Show in a field what is in force, in the place of what was typed for the live run."""
        self._show_values(self.live.put_back(field))
        self.changed.emit()
        self.live_changed.emit()

    def mark_pending(self, command_id: str, *names: str) -> None:
        """Remember that a command asked for these, by their names in ``InForce``."""
        self.live.mark_pending(command_id, *names)
        self.live_changed.emit()

    def drop_changes(self) -> None:
        """Forget what was typed or asked for: nobody is left to answer."""
        values = self.live.drop()
        if values:
            self._show_values(values)
            self.changed.emit()
            self.live_changed.emit()

    def _show_values(self, values: dict[str, Any]) -> None:
        for field, value in values.items():
            if field == "plan":
                phases = [phase.model_dump() for phase in value]
                self._texts[field], self._notes[field] = plan_text(phases), plan_sentence(phases)
            else:
                self._texts[field] = shown_value(value)
            self._errors[field] = ""

    # -- checks -----------------------------------------------------------------------------------------------

    def _forget_data(self) -> None:
        self.found = FoundData()
        for field in ("data.path", "data.layout"):
            self._notes.pop(field, None)

    def _forget_model(self) -> None:
        self._notes.pop("model.weights", None)
        for field in MODEL_FIELDS:
            # What the worker said of it was of another model.
            self._errors[field] = self._check(field)

    def _check(self, field: str) -> str:
        error = typed_error(field, self._texts[field]) or self.offer.error(field)
        if field == "data.task":
            return error or self.found.task_error(self._texts[field])
        if field == "plan":
            return error or self._unknown_layer(self._texts[field])
        if field == "data.balance" and (self._texts["data.task"], self._texts[field]) == ("multi_label", "sampler"):
            return self.tr("Images have several classes: choose class weights.")
        if field == "checkpoints.best_metric":
            return error or self.found.metric_error(self._texts[field], self._texts["data.task"])
        return error

    def _unknown_layer(self, plan: str) -> str:
        """Say which layer of a plan the model has not; "" for none, or as long as the model's layers are not known."""
        summary = self._summary
        if not plan or summary is None or self._is_other_model or summary.model != self._texts["model.name"]:
            return ""
        rows = LayerRows.of(summary)
        for phase in parse_plan(plan) or []:
            for name in (*phase["unfreeze"], *phase["freeze"], *phase.get("rates", {})):
                if not rows.atoms_of([name]):
                    return self.tr("The model has no layer {}. Its tree lists the names.").format(name)
        return ""
