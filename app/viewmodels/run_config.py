"""RunConfigViewModel: the values of the run form, checked field by field against RunConfig."""

from __future__ import annotations

import re
from typing import Any

from PySide6.QtCore import QLocale, QObject, Signal

from app.plan_syntax import parse_plan, plan_text
from app.viewmodels.field_words import choice_text, field_label, split_text
from app.viewmodels.plan_text import plan_sentence
from app.viewmodels.quantities import duration_text, part_text, percent_text, size_text
from trainer.config import ConfigError, DataConfig, ModelConfig, RunConfig, config_from_dict
from trainer.messages.data_info import DataSummary
from trainer.messages.events import CommandRejected, DataChecked, ModelInspected
from trainer.messages.model_info import ImagePreset, ModelEntry, WeightSet
from trainer.messages.run_info import InForce, RunEstimate, RunInfo

COLUMN_FIELDS = ("data.path_column", "data.label_column", "data.split_column", "data.group_column")
"""The fields that only a table of images has."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "data": ("data.path", "data.layout", "data.validation_fraction"),
    "model": ("model.name", "model.weights", "plan"),
    "training": (
        "training.epochs",
        "training.batch_size",
        "optimizer.name",
        "optimizer.rate",
        "optimizer.schedule",
    ),
    "columns": COLUMN_FIELDS,
    "images": (
        "data.task",
        "training.label_smoothing",
        "model.head",
        "model.head_dropout",
        "model.head_hidden",
        "data.augmentation",
        "data.mixing",
        "data.balance",
        "data.image_size",
        "data.resize_size",
        "data.mean",
        "data.std",
    ),
    "optimizer": (
        "optimizer.weight_decay",
        "optimizer.momentum",
        "optimizer.nesterov",
        "optimizer.warmup_epochs",
        "optimizer.decay_factor",
        "optimizer.decay_epochs",
        "optimizer.clip_norm",
        "training.accumulate_batches",
        "optimizer.ramp_steps",
        "optimizer.state_on_unfreeze",
        "model.batchnorm",
    ),
    "more": (
        "training.patience",
        "training.stop_metric",
        "training.min_change",
        "training.restore_best",
        "training.advisor",
        "training.precision",
        "training.device",
        "training.seed",
        "data.cache_gb",
        "training.rewind_gb",
        "name",
    ),
}
"""The sections of the form with their fields: what every run needs first, then what is rarely changed."""

FIELDS = tuple(field for fields in SECTIONS.values() for field in fields)
"""The fields of the form by their dotted names in RunConfig; ``model.frozen`` comes from the model's tree."""

CHECKED_FIELDS = ("data.path", "data.layout", *COLUMN_FIELDS, "data.validation_fraction", "training.seed")
"""The fields that decide which images a run has and how they are split."""

MODEL_FIELDS = (
    "model.name",
    "model.weights",
    "model.head",
    "model.head_dropout",
    "model.head_hidden",
    "data.image_size",
    "data.task",
)
"""The fields that decide what the model's tree shows."""

_MODEL_FIELDS_THAT_NAME_LAYERS = frozenset(MODEL_FIELDS) - {"model.weights", "data.image_size", "data.task"}


LIVE_FIELDS = {
    "rate": "optimizer.rate",
    "epochs": "training.epochs",
    "patience": "training.patience",
    "plan": "plan",
}
"""The fields that may change as a run goes on, by their names in ``InForce``."""

_NUMBERS = frozenset(
    {
        "model.head_dropout",
        "optimizer.rate",
        "optimizer.weight_decay",
        "optimizer.momentum",
        "optimizer.warmup_epochs",
        "optimizer.decay_factor",
        "optimizer.clip_norm",
        "training.min_change",
        "training.rewind_gb",
        "data.validation_fraction",
        "data.cache_gb",
        "training.label_smoothing",
    }
)
_ONLY_WITH = {
    "optimizer.momentum": ("optimizer.name", {"SGD", "RMSprop"}),
    "optimizer.nesterov": ("optimizer.name", {"SGD"}),
    "optimizer.warmup_epochs": ("optimizer.schedule", {"constant", "step", "cosine", "plateau"}),
    "optimizer.decay_factor": ("optimizer.schedule", {"step", "plateau"}),
    "optimizer.decay_epochs": ("optimizer.schedule", {"step", "plateau"}),
}
"""The fields that matter with some values of another one only, and are out of sight with others."""

_WITH_PATIENCE = ("training.stop_metric", "training.min_change", "training.restore_best")
"""The fields that matter where there is a patience only."""

_CHANNELS = frozenset({"data.mean", "data.std"})
_OWN_OF_WEIGHTS = frozenset({"data.image_size", "data.resize_size"}) | _CHANNELS
_MAY_BE_EMPTY = _OWN_OF_WEIGHTS | {
    "data.cache_gb",
    "optimizer.clip_norm",
    "model.head_hidden",
    "training.patience",
}

DEFAULT_NUM_CLASSES = 10
_NUM_BINARY_CLASSES = 2


class RunConfigViewModel(QObject):
    """Holds what was typed, as text, and what is wrong with it. Nothing here waits for the worker."""

    changed = Signal()
    """Values, notes or errors have changed."""
    need_changed = Signal()
    """It is known anew what the run would need."""
    live_changed = Signal()
    """It is another question whether what was typed for the live run is to be sent."""
    refused = Signal(str)
    """The field for whose error a start came to nothing."""

    def __init__(self, values: dict[str, Any] | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.models: list[ModelEntry] = []
        self.devices: list[str] = []
        self.recent_data: list[str] = []
        """Data sets that were used before, the latest first."""
        self.run: RunInfo | None = None
        self.frozen: list[str] = ["backbone"]
        self.class_names: list[str] = []
        """Classes of the data that was last looked through; none before there was any."""
        self.multipliers: dict[str, float] = {}
        """What the rate is multiplied by in single layers; like ``frozen``, from the model's tree."""
        self.columns: list[str] = []
        """Columns of the table that was last looked through, to choose from."""
        self.need = ""
        """What the run would need of time, memory and disk, "" while that is not known."""
        self.lacks_room = False
        self._in_force: InForce | None = None
        self._pending: dict[str, str] = {}
        self._found_layout = ""
        self._taken: dict[str, str] | None = None
        self._notes: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        # num_loader_workers and num_threads have no field of their own, but a loaded configuration keeps them.
        self._hidden: dict[str, Any] = {}
        try:
            config = config_from_dict(values or {})
        except ConfigError:
            # Values kept by another version: begin anew with the defaults.
            config = RunConfig()
        self.show_config(config)

    # -- values -----------------------------------------------------------------------------------------------

    def text(self, field: str) -> str:
        """Return what a field shows."""
        return self._texts[field]

    def note(self, field: str) -> str:
        """Return what is known about a field beside its value: the classes found, the precision applied."""
        if field == "data.task":
            return self._task_note()
        return self._notes.get(field) or self._resting_note(field)

    def _task_note(self) -> str:
        if self._texts["data.task"] != "binary":
            return ""
        if len(self.class_names) != _NUM_BINARY_CLASSES:
            return self.tr("The second of two classes is the positive one.")
        return self.tr("Positive: {}.").format(self.class_names[1])

    def _resting_note(self, field: str) -> str:
        """Say what an empty field means, where the note about its value would stand, and which weights are chosen."""
        if field == "model.weights":
            chosen = self._weight_set()
            # A run that has begun has its weights.
            return "" if chosen is None or self.run is not None else self._weights_note(chosen)
        if self._texts[field].strip():
            return ""
        return {
            "data.path": self.tr("A folder, an archive or a table of images."),
            "plan": self.tr("What is frozen stays frozen."),
        }.get(field, "")

    def placeholder(self, field: str) -> str:
        """Return what holds where a field is left empty, or an example of what to write."""
        if field in _OWN_OF_WEIGHTS:
            return self._own_of_weights(field)
        if field in COLUMN_FIELDS:
            return self._found_column(field)
        return {
            "name": self.tr("the data's name"),
            "data.path": self.tr("choose or drop"),
            "data.cache_gb": self.tr("what the disk can spare"),
            "model.head_hidden": self.tr("none"),
            "optimizer.clip_norm": self.tr("not clipped"),
            "training.patience": self.tr("trains all epochs"),
            "plan": self.tr("3: +stage4, +conv5"),
        }.get(field, "")

    def _found_column(self, field: str) -> str:
        if self._taken is None:
            return self.tr("none") if field == "data.group_column" else self.tr("found by its name")
        name = self._taken.get(field)
        return self.tr("found: {}").format(name) if name else self.tr("none")

    def _own_of_weights(self, field: str) -> str:
        images = self._images_of_weights()
        if images is None:
            return self.tr("the weights' own")
        image_size = self._typed("data.image_size")
        if field == "data.resize_size" and image_size is not None and not self._check("data.image_size"):
            images = images.resized_to(DataConfig(image_size=image_size).image_size or images.image_size)
        return _shown(getattr(images, field.removeprefix("data.")))

    def _images_of_weights(self) -> ImagePreset | None:
        entry, chosen = self.chosen_entry, self._weight_set()
        if chosen is not None:
            return chosen.images
        return None if entry is None else entry.images

    def _weight_set(self) -> WeightSet | None:
        entry = self.chosen_entry
        return None if entry is None else entry.weight_set(self._texts["model.weights"].strip())

    @property
    def chosen_entry(self) -> ModelEntry | None:
        """Return what is known of the model that is chosen, None while its name is none of those on offer."""
        return next((entry for entry in self.models if entry.name == self._texts["model.name"].strip()), None)

    def _weights_note(self, weights: WeightSet) -> str:
        """Say of the chosen weights what matters most first: the note has one line."""
        size = size_text(weights.size_bytes)
        place = self.tr("On this disk") if weights.is_cached else self.tr("{} to be downloaded").format(size)
        return f"{place} · {percent_text(weights.accuracy)} · {weights.name}"

    def weights_text(self, weights: WeightSet) -> str:
        """Return the published accuracy and the size of weights, and whether they are here already."""
        place = self.tr("on this disk") if weights.is_cached else self.tr("to be downloaded")
        return f"{percent_text(weights.accuracy)} · {size_text(weights.size_bytes)} · {place}"

    def error(self, field: str) -> str:
        """Return what is wrong with a field, "" if nothing is known to be."""
        return self._errors.get(field, "")

    @property
    def num_outputs(self) -> int:
        """Return how many outputs the model needs, as far as the classes are known."""
        num_classes = len(self.class_names) or DEFAULT_NUM_CLASSES
        task = self._texts["data.task"]
        return config_from_dict({"data": {"task": task}}).data.num_outputs(num_classes)

    def has_field(self, field: str) -> bool:
        """Return whether a field matters by what the others say: not all have momentum, only a table has columns."""
        if field in COLUMN_FIELDS:
            return self.is_table
        if field in _WITH_PATIENCE:
            return bool(self._texts["training.patience"].strip())
        other, values = _ONLY_WITH.get(field, ("", set()))
        return not other or self._texts[other] in values

    def set_text(self, field: str, text: str) -> None:
        """Take what was typed and check it at once."""
        if self._texts[field] == text:
            return
        self._texts[field] = text
        if field == "data.path":
            self._forget_data()
        if field in COLUMN_FIELDS:
            # What the next check takes is another question.
            self._taken = None
        if field in _MODEL_FIELDS_THAT_NAME_LAYERS:
            # Another model, or another head, has other layers; only two names hold in every one.
            self.frozen = ["backbone"]
            self.multipliers = {}
        if field == "model.name" and self._has_foreign_weights():
            self._texts["model.weights"] = "published"
        if field in MODEL_FIELDS:
            self._forget_model()
        for hidden in (*_ONLY_WITH, *_WITH_PATIENCE):
            if self.error(hidden) and not self.has_field(hidden):
                # Nobody could mend out of sight what would keep the run from starting.
                self._texts[hidden] = _shown(_value_at(RunConfig().model_dump(), hidden))
                self._errors[hidden] = ""
        self._errors[field] = self._check(field)
        if field == "plan":
            self._notes[field] = "" if self.error(field) else plan_sentence(parse_plan(text))
        self.changed.emit()
        self.live_changed.emit()

    def _has_foreign_weights(self) -> bool:
        """Tell whether the weights are published ones of another model."""
        name = ModelConfig(weights=self._texts["model.weights"]).weight_set
        return bool(name) and self.chosen_entry is not None and self._weight_set() is None

    def show_config(self, config: RunConfig, frozen: list[str] | None = None) -> None:
        """Show a configuration, as a file or an earlier run holds it."""
        self._take(config, frozen)
        self.changed.emit()

    def _take(self, config: RunConfig, frozen: list[str] | None = None) -> None:
        values = config.model_dump()
        for field in FIELDS:
            self._texts[field] = plan_text(values["plan"]) if field == "plan" else _shown(_value_at(values, field))
        self.frozen = list(config.model.frozen if frozen is None else frozen)
        self.multipliers = dict(config.optimizer.multipliers)
        self._hidden = {
            "num_loader_workers": config.training.num_loader_workers,
            "num_threads": config.training.num_threads,
        }
        self._notes = {"plan": plan_sentence(values["plan"])}
        self._errors = {}
        self._forget_data()

    def values(self) -> dict[str, Any]:
        """Return the form as RunConfig's nested plain values; what cannot be read stays text, for the check to name."""
        values: dict[str, Any] = {
            "data": {},
            "model": {"frozen": list(self.frozen)},
            "optimizer": {"multipliers": dict(self.multipliers)},
            "training": {key: value for key, value in self._hidden.items() if value is not None},
        }
        for field in FIELDS:
            _put(values, field, self._typed(field))
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
            return None, {self._field_of(field): sentence for field, sentence in error.sentences.items()}

    def chosen_data(self) -> tuple[DataConfig, int] | None:
        """Return the data and the seed of their split; None while none are chosen, or a field of them is wrong."""
        if not self._texts["data.path"].strip() or any(self._check(field) for field in CHECKED_FIELDS):
            return None
        values: dict[str, Any] = {}
        for field in CHECKED_FIELDS:
            _put(values, field, self._typed(field))
        config = config_from_dict(values)
        return config.data, config.training.seed

    def chosen_model(self) -> tuple[ModelConfig, int | None] | None:
        """Return the model and its images' side in pixels; None while none is chosen, or a field of it is wrong."""
        if any(self._check(field) for field in MODEL_FIELDS):
            return None
        values: dict[str, Any] = {"model": {"frozen": list(self.frozen)}}
        for field in MODEL_FIELDS:
            _put(values, field, self._typed(field))
        config = config_from_dict(values)
        return config.model, config.data.image_size

    @property
    def is_table(self) -> bool:
        """Whether the columns of a table matter: the data are one, or something was said of its columns."""
        said = any(self._texts[field] or self.error(field) for field in COLUMN_FIELDS)
        return said or "table" in {self._texts["data.layout"], self._found_layout}

    # -- what the worker says ---------------------------------------------------------------------------------

    def offer_models(self, models: list[ModelEntry]) -> None:
        """Offer these models for choice."""
        self.models = models
        self.changed.emit()

    def offer_devices(self, devices: list[str]) -> None:
        """Offer these devices for choice."""
        self.devices = devices
        self.changed.emit()

    def show_data(self, event: DataChecked) -> None:
        """Note the classes and images that a scan found."""
        if event.path != self._texts["data.path"].strip():
            return
        summary, locale = event.summary, QLocale()
        self.class_names = summary.class_names
        self._show_found(summary)
        parts = [self.tr("{} classes").format(locale.toString(len(self.class_names)))]
        parts += [f"{locale.toString(sum(counts))} {split_text(split)}" for split, counts in summary.counts.items()]
        if summary.num_skipped:
            skipped = self.tr("1 file skipped") if summary.num_skipped == 1 else self.tr("{} files skipped")
            parts.append(skipped.format(locale.toString(summary.num_skipped)))
        num_leaks = summary.issue_counts.get("leak", 0)
        if num_leaks:
            leaks = self.tr("1 leak") if num_leaks == 1 else self.tr("{} leaks")
            parts.append(leaks.format(locale.toString(num_leaks)))
        self._notes["data.path"] = " · ".join(parts)
        for field in (*CHECKED_FIELDS, "data.task"):
            self._errors[field] = self._check(field)
        self.changed.emit()

    def _show_found(self, summary: DataSummary) -> None:
        self._found_layout = summary.layout
        if self._texts["data.layout"] == "auto":
            self._notes["data.layout"] = self.tr("found: {}").format(choice_text(summary.layout))
        if summary.columns is not None:
            self.columns = summary.columns.names
            self._taken = {f"data.{field}": name for field, name in summary.columns.taken.items()}

    def show_model(self, event: ModelInspected) -> None:
        """Note how the file of weights fits the model; what was wrong with the model is mended."""
        for field in MODEL_FIELDS:
            self._errors[field] = self._check(field)
        if event.weights is not None and event.weights.is_usable:
            self._notes["model.weights"] = event.weights.sentence
        elif event.weights is not None:
            self._errors["model.weights"] = event.weights.sentence
        self.changed.emit()

    def show_estimating(self) -> None:
        """Say that a few steps are being tried."""
        self.show_need(self.tr("Trying a few steps …"))

    def show_estimate(self, estimate: RunEstimate | None) -> None:
        """Say what the run will need; None takes it back."""
        if estimate is None:
            self.show_need("")
            return
        seconds = max(estimate.seconds_per_epoch, 1.0)
        text = self.tr("About {epoch} an epoch, {all} in all · {memory} of memory · {disk} on disk, {free} free")
        text = text.format(
            epoch=duration_text(seconds),
            all=duration_text(max(estimate.seconds_per_epoch * estimate.num_epochs, 1.0)),
            memory=size_text(estimate.memory_bytes),
            disk=size_text(estimate.disk_bytes),
            free=size_text(estimate.free_bytes),
        )
        kept = size_text(estimate.kept_bytes)
        if estimate.kept_bytes < estimate.decoded_bytes:
            kept = part_text(estimate.kept_bytes, estimate.decoded_bytes)
        budget = size_text(estimate.budget_bytes)
        text = self.tr("{} · {} of images kept decoded, budget {}").format(text, kept, budget)
        self.show_need(text, lacks_room=estimate.disk_bytes > estimate.free_bytes)

    def show_need(self, text: str, *, lacks_room: bool = False) -> None:
        """Say in words what the run would need, or why that is not known."""
        if (text, lacks_room) != (self.need, self.lacks_room):
            self.need, self.lacks_room = text, lacks_room
            self.need_changed.emit()

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
        values: dict[str, Any] = {}
        _put(values, field, self._typed(field))
        return None if self._check(field) else config_from_dict(values).training.epochs

    def say_wrong(self, field: str, error: str) -> None:
        """Say beside a field what is wrong with what was chosen for it."""
        self._errors[field] = error
        self.changed.emit()

    def reject(self, event: CommandRejected) -> bool:
        """Put a refusal beside the field at fault. Returns whether it has one here."""
        asked = [field for field, command_id in self._pending.items() if command_id == event.command_id]
        for field in asked:
            del self._pending[field]
        self.live_changed.emit()
        field = self._field_of(event.field) or next(iter(asked), "")
        if not field and event.command == "CheckData":
            field = "data.path"
        if not field and event.command == "InspectModel":
            field = "model.name"
        if not field:
            return False
        if field in CHECKED_FIELDS:
            self._notes.pop("data.path", None)
        if field in COLUMN_FIELDS and event.choices:
            self.columns = event.choices
        self._errors[field] = event.reason
        self.changed.emit()
        if event.command in {"PrepareRun", "OpenRun"}:
            # A look-up is answered while the user types elsewhere, and must not take the cursor away.
            self.refused.emit(field)
        return True

    def named_refusal(self, event: CommandRejected) -> str:
        """Return the reason of a refusal for a place that is not beside the field at fault: there it is named."""
        field = self._field_of(event.field)
        if field in {"", "data.path"}:
            return event.reason
        return self.tr('{} The field of the form is "{}".').format(event.reason, field_label(field))

    def show_run(self, run: RunInfo) -> None:
        """Show the values of a run, and beside them what was chosen for it."""
        self.run = run
        self._take(run.config)
        self.class_names = run.class_names
        locale = QLocale()
        self._notes["data.path"] = self.tr("{} classes · {} train · {} validation").format(
            locale.toString(len(run.class_names)), locale.toString(run.num_train), locale.toString(run.num_validation)
        )
        if run.data_summary is not None:
            self._show_found(run.data_summary)
        self._notes["data.image_size"] = self.tr("applied: {} px").format(locale.toString(run.image_size))
        self._notes["training.precision"] = self.tr("applied: {}").format(run.precision)
        self._notes["training.device"] = self.tr("applied: {}").format(run.device)
        self._in_force, self._pending = None, {}
        self.show_in_force(run.present)

    def leave_run(self) -> None:
        """Make the form a new run's: the values stay as they were asked for, what became of them goes."""
        if self.run is not None:
            values = {**self.run.config.model_dump(), "plan": self.run.config.plan}
            for field in LIVE_FIELDS.values():
                self._show_live(field, _value_at(values, field))
        self.run = None
        self._in_force, self._pending = None, {}
        self.live_changed.emit()
        for field in ("data.image_size", "training.precision", "training.device"):
            self._notes.pop(field, None)
        self.changed.emit()

    # -- what may change as the run goes on -------------------------------------------------------------------

    def show_in_force(self, present: InForce, command_id: str = "") -> None:
        """Show what the run trains with now; ``command_id`` is what asked for it. What is being typed stays."""
        for name, field in LIVE_FIELDS.items():
            value = getattr(present, name)
            is_answer = bool(command_id) and self._pending.get(field) == command_id
            if is_answer:
                del self._pending[field]
            if is_answer or not self._is_typed(name):
                self._show_live(field, value)
        self._in_force = present
        self.changed.emit()
        self.live_changed.emit()

    def _show_live(self, field: str, value: Any) -> None:
        if field == "plan":
            phases = [phase.model_dump() for phase in value]
            self._texts[field], self._notes[field] = plan_text(phases), plan_sentence(phases)
        else:
            self._texts[field] = _shown(value)
        self._errors[field] = ""

    def change_in_force(self, command_id: str, **values: Any) -> None:
        """Show that some of what the run trains with is another now."""
        if self._in_force is not None:
            self.show_in_force(self._in_force.model_copy(update=values), command_id)

    @property
    def can_apply(self) -> bool:
        """Whether something was typed for the live run that is right, and has not been asked for."""
        is_typed = not self._pending and any(map(self._is_typed, LIVE_FIELDS))
        return is_typed and self._typed_live() is not None

    @property
    def is_applying(self) -> bool:
        """Whether something was asked for that the worker has not answered."""
        return bool(self._pending)

    def live_changes(self) -> dict[str, Any]:
        """Return what is to change, by its name in ``InForce``; nothing while a field of it is wrong."""
        typed = self._typed_live()
        if typed is None or not self.can_apply:
            return {}
        return {name: getattr(typed, name) for name in LIVE_FIELDS if self._is_typed(name)}

    def mark_pending(self, command_id: str, *names: str) -> None:
        """Remember that a command asked for these, by their names in ``InForce``."""
        self._pending.update({LIVE_FIELDS[name]: command_id for name in names})
        self.live_changed.emit()

    def drop_changes(self) -> None:
        """Forget what was typed or asked for: nobody is left to answer."""
        if self._in_force is None or not (self._pending or any(map(self._is_typed, LIVE_FIELDS))):
            return
        self._pending = {}
        for name, field in LIVE_FIELDS.items():
            self._show_live(field, getattr(self._in_force, name))
        self.changed.emit()
        self.live_changed.emit()

    def _is_typed(self, name: str) -> bool:
        """Tell whether a field holds another value than what is in force."""
        if self._in_force is None:
            return False
        typed = self._typed_live(name)
        return typed is None or getattr(typed, name) != getattr(self._in_force, name)

    def _typed_live(self, *names: str) -> InForce | None:
        values: dict[str, Any] = {}
        for name in names or LIVE_FIELDS:
            _put(values, LIVE_FIELDS[name], self._typed(LIVE_FIELDS[name]))
        try:
            config = config_from_dict(values)
        except ConfigError:
            return None
        training = config.training
        rate, plan = config.optimizer.rate, config.plan
        return InForce(rate=rate, epochs=training.epochs, patience=training.patience, plan=plan)

    # -- checks -----------------------------------------------------------------------------------------------

    def _forget_data(self) -> None:
        self._found_layout, self._taken, self.columns, self.class_names = "", None, [], []
        for field in ("data.path", "data.layout"):
            self._notes.pop(field, None)

    def _forget_model(self) -> None:
        self._notes.pop("model.weights", None)
        for field in MODEL_FIELDS:
            # What the worker said of it was of another model.
            self._errors[field] = self._check(field)

    def _check(self, field: str) -> str:
        values: dict[str, Any] = {}
        _put(values, field, self._typed(field))
        if field == "plan" and isinstance(values["plan"], str):
            return self.tr('Write the plan as "3: +stage4, +conv5", phases apart by a semicolon.')
        try:
            config_from_dict(values)
        except ConfigError as error:
            sentence = error.sentences[error.field]
            return sentence.replace(error.field, field_label(field), 1) if error.field else sentence
        names = [entry.name for entry in self.models]
        if field == "model.name" and names and values["model"]["name"] not in names:
            return self.tr("No model is named {}. Choose one from the list.").format(values["model"]["name"] or '""')
        if field == "model.weights" and self._has_foreign_weights():
            text = self.tr("{} has no published weights {}. Choose others from the list.")
            return text.format(self._texts["model.name"].strip(), values["model"]["weights"])
        return ""

    def _typed(self, field: str) -> Any:
        text = self._texts[field].strip()
        if field == "plan":
            plan = parse_plan(text)
            return text if plan is None else plan
        if field in _MAY_BE_EMPTY and not text:
            return None
        if field in _CHANNELS:
            # A list of three is written with points: a comma stands between them.
            return re.split(r"[,;\s]+", text.strip("[] "))
        return _number(text) if field in _NUMBERS else text

    def _field_of(self, field: str) -> str:
        if field in FIELDS:
            return field
        owner = next((known for known in FIELDS if field.startswith(f"{known}.")), "")
        return owner or next((known for known in FIELDS if field and known.endswith(f".{field}")), "")


def _number(text: str) -> float | str:
    # A point is a decimal point first: German would read "0.001" as 1.
    try:
        return float(text)
    except ValueError:
        number, is_number = QLocale().toDouble(text)
        return number if is_number else text


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(str(number) for number in value)
    if isinstance(value, float):
        return QLocale().toString(value, "g", QLocale.FloatingPointPrecisionOption.FloatingPointShortest.value)
    return str(value)


def _value_at(values: dict[str, Any], field: str) -> Any:
    for part in field.split("."):
        values = values[part]
    return values


def _put(values: dict[str, Any], field: str, value: Any) -> None:
    *sections, key = field.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[key] = value
