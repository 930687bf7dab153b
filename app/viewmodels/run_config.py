"""RunConfigViewModel: the values of the run form, checked field by field against RunConfig."""

from __future__ import annotations

import re
from typing import Any

from PySide6.QtCore import QCoreApplication, QLocale, QObject, Signal

from trainer.config import ConfigError, OptimizerConfig, RunConfig, config_from_dict
from trainer.messages import CommandRejected, DataChecked, ModelEntry, RunInfo

FIELDS = (
    "data.path",
    "model.name",
    "model.weights",
    "plan",
    "optimizer.name",
    "optimizer.rate",
    "optimizer.schedule",
    "optimizer.weight_decay",
    "optimizer.momentum",
    "training.epochs",
    "training.batch_size",
    "training.precision",
    "training.device",
    "training.seed",
    "data.image_size",
    "data.augmentation",
    "data.validation_fraction",
    "name",
)
"""The fields of the form by their dotted names in RunConfig; ``model.frozen`` comes from the model's tree."""

_FRACTIONS = frozenset({"optimizer.rate", "optimizer.weight_decay", "optimizer.momentum", "data.validation_fraction"})
_PHASE = re.compile(r"\s*(\d+)\s*:\s*(.+)")

DEFAULT_NUM_CLASSES = 10


class RunConfigViewModel(QObject):
    """Holds what was typed, as text, and what is wrong with it. Nothing here waits for the worker."""

    changed = Signal()
    """Values, notes or errors have changed."""
    refused = Signal(str)
    """The field for whose error a start came to nothing."""

    def __init__(self, values: dict[str, Any] | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.models: list[ModelEntry] = []
        self.devices: list[str] = []
        self.run: RunInfo | None = None
        self.frozen: list[str] = ["backbone"]
        self.num_classes = DEFAULT_NUM_CLASSES
        """Classes of the data that was last looked through."""
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
        return self._notes.get(field, "")

    def error(self, field: str) -> str:
        """Return what is wrong with a field, "" if nothing is known to be."""
        return self._errors.get(field, "")

    def set_text(self, field: str, text: str) -> None:
        """Take what was typed and check it at once."""
        if self._texts[field] == text:
            return
        self._texts[field] = text
        if field == "data.path":
            self._notes.pop(field, None)
        if field == "model.name":
            # Another model has other layers; only these two names hold in every one.
            self.frozen = ["backbone"]
        if field == "optimizer.name" and text != "SGD" and self.error("optimizer.momentum"):
            # The field goes out of sight with SGD, and nobody could mend there what would keep the run from starting.
            self._texts["optimizer.momentum"] = _shown(OptimizerConfig().momentum)
            self._errors["optimizer.momentum"] = ""
        self._errors[field] = self._check(field)
        if field == "plan":
            self._notes[field] = "" if self.error(field) else plan_sentence(parse_plan(text))
        self.changed.emit()

    def show_config(self, config: RunConfig, frozen: list[str] | None = None) -> None:
        """Show a configuration, as a file or an earlier run holds it."""
        self._take(config, frozen)
        self.changed.emit()

    def _take(self, config: RunConfig, frozen: list[str] | None = None) -> None:
        values = config.model_dump()
        for field in FIELDS:
            self._texts[field] = plan_text(values["plan"]) if field == "plan" else _shown(_value_at(values, field))
        self.frozen = list(config.model.frozen if frozen is None else frozen)
        self._hidden = {
            "num_loader_workers": config.training.num_loader_workers,
            "num_threads": config.training.num_threads,
        }
        self._notes = {"plan": plan_sentence(values["plan"])}
        self._errors = {}

    def values(self) -> dict[str, Any]:
        """Return the form as RunConfig's nested plain values; what cannot be read stays text, for the check to name."""
        values: dict[str, Any] = {
            "data": {},
            "model": {"frozen": list(self.frozen)},
            "optimizer": {},
            "training": {key: value for key, value in self._hidden.items() if value is not None},
        }
        for field in FIELDS:
            _put(values, field, self._typed(field))
        return values

    def config(self) -> RunConfig | None:
        """Check every field. Returns the configuration, or None with the errors set beside the fields."""
        errors = {field: error for field in FIELDS if (error := self._check(field))}
        if not self._texts["data.path"].strip():
            errors["data.path"] = self.tr("Choose a folder of class folders, or a zip of one.")
        if not errors:
            try:
                config = config_from_dict(self.values())
            except ConfigError as error:
                errors[self._field_of(error.field)] = str(error)
        # What an earlier answer found wrong goes, too: it may have been mended on the disk.
        self._errors = errors
        self.changed.emit()
        if not errors:
            return config
        self.refused.emit(next((field for field in FIELDS if field in errors), ""))
        return None

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
        self.num_classes = len(event.class_counts)
        locale = QLocale()
        classes = self.tr("{} classes").format(locale.toString(len(event.class_counts)))
        images = self.tr("{} images").format(locale.toString(sum(event.class_counts.values())))
        parts = [classes, images]
        if event.num_skipped:
            skipped = self.tr("1 file skipped") if event.num_skipped == 1 else self.tr("{} files skipped")
            parts.append(skipped.format(locale.toString(event.num_skipped)))
        self._notes["data.path"] = " · ".join(parts)
        self._errors["data.path"] = ""
        self.changed.emit()

    def show_checking(self) -> None:
        """Note that the data are being scanned."""
        self._notes["data.path"] = self.tr("Looking through the images …")
        self._errors["data.path"] = ""
        self.changed.emit()

    def stop_checking(self) -> None:
        """Take back that the data are being scanned."""
        self._notes.pop("data.path", None)
        self.changed.emit()

    def reject(self, event: CommandRejected) -> bool:
        """Put a refusal beside the field at fault. Returns whether it has one here."""
        field = self._field_of(event.field)
        if not field and event.command == "CheckData":
            field = "data.path"
        if not field and event.command == "InspectModel":
            field = "model.name"
        if not field:
            return False
        if field == "data.path":
            self._notes.pop(field, None)
        self._errors[field] = event.reason
        self.changed.emit()
        if event.command in {"PrepareRun", "OpenRun"}:
            # A look-up is answered while the user types elsewhere, and must not take the cursor away.
            self.refused.emit(field)
        return True

    def show_run(self, run: RunInfo) -> None:
        """Show the values of a run, and beside them what was chosen for it."""
        self.run = run
        self._take(run.config)
        locale = QLocale()
        self._notes["data.path"] = self.tr("{} classes · {} train · {} validation").format(
            locale.toString(len(run.class_names)), locale.toString(run.num_train), locale.toString(run.num_validation)
        )
        self._notes["data.image_size"] = self.tr("applied: {} px").format(locale.toString(run.image_size))
        self._notes["training.precision"] = self.tr("applied: {}").format(run.precision)
        self._notes["training.device"] = self.tr("applied: {}").format(run.device)
        self.changed.emit()

    def leave_run(self) -> None:
        """Make the form a new run's: the values stay, what was applied goes."""
        self.run = None
        for field in ("data.image_size", "training.precision", "training.device"):
            self._notes.pop(field, None)
        self.changed.emit()

    # -- checks -----------------------------------------------------------------------------------------------

    def _check(self, field: str) -> str:
        values: dict[str, Any] = {}
        _put(values, field, self._typed(field))
        if field == "plan" and isinstance(values["plan"], str):
            return self.tr('Write the plan as "3: +stage4, +conv5", phases apart by a semicolon.')
        try:
            config_from_dict(values)
        except ConfigError as error:
            label = field_label(field)
            return str(error).replace(error.field, label, 1) if error.field else str(error)
        names = [entry.name for entry in self.models]
        if field == "model.name" and names and values["model"]["name"] not in names:
            return self.tr("No model is named {}. Choose one from the list.").format(values["model"]["name"] or '""')
        return ""

    def _typed(self, field: str) -> Any:
        text = self._texts[field].strip()
        if field == "plan":
            plan = parse_plan(text)
            return text if plan is None else plan
        if field == "data.image_size":
            return text or None
        if field in _FRACTIONS:
            return _number(text)
        return text

    def _field_of(self, field: str) -> str:
        if field in FIELDS:
            return field
        whole = field.split(".", 1)[0]
        if whole == "plan":
            return "plan"
        return next((known for known in FIELDS if field and known.endswith(f".{field}")), "")


def field_label(field: str) -> str:
    """Return the label of a field."""
    labels = {
        "name": QCoreApplication.translate("RunForm", "Name"),
        "data.path": QCoreApplication.translate("RunForm", "Data"),
        "model.name": QCoreApplication.translate("RunForm", "Model"),
        "model.weights": QCoreApplication.translate("RunForm", "Weights"),
        "plan": QCoreApplication.translate("RunForm", "Plan"),
        "optimizer.name": QCoreApplication.translate("RunForm", "Optimizer"),
        "optimizer.rate": QCoreApplication.translate("RunForm", "Rate"),
        "optimizer.schedule": QCoreApplication.translate("RunForm", "Schedule"),
        "optimizer.weight_decay": QCoreApplication.translate("RunForm", "Decay"),
        "optimizer.momentum": QCoreApplication.translate("RunForm", "Momentum"),
        "training.epochs": QCoreApplication.translate("RunForm", "Epochs"),
        "training.batch_size": QCoreApplication.translate("RunForm", "Batch"),
        "training.precision": QCoreApplication.translate("RunForm", "Precision"),
        "training.device": QCoreApplication.translate("RunForm", "Device"),
        "training.seed": QCoreApplication.translate("RunForm", "Seed"),
        "data.image_size": QCoreApplication.translate("RunForm", "Image size"),
        "data.augmentation": QCoreApplication.translate("RunForm", "Augment"),
        "data.validation_fraction": QCoreApplication.translate("RunForm", "Validation"),
    }
    return labels[field]


def parse_plan(text: str) -> list[dict[str, Any]] | None:
    """Read "3: +stage4, +conv5; 5: -conv1" as phases: + unfreezes at that epoch, - freezes. None if it is no plan."""
    phases: list[dict[str, Any]] = []
    for part in filter(None, (piece.strip() for piece in re.split(r"[;\n]", text))):
        matched = _PHASE.fullmatch(part)
        if matched is None:
            return None
        phase: dict[str, Any] = {"epoch": int(matched[1]), "freeze": [], "unfreeze": []}
        for layer in filter(None, (piece.strip() for piece in matched[2].split(","))):
            key = "freeze" if layer[0] in "-−" else "unfreeze"
            phase[key].append(layer.lstrip("+-−").strip())
        if not all(phase["freeze"] + phase["unfreeze"]):
            return None
        phases.append(phase)
    return phases


def plan_text(plan: list[dict[str, Any]]) -> str:
    """Write phases as ``parse_plan`` reads them."""
    return "; ".join(
        f"{phase['epoch']}: "
        + ", ".join([f"+{layer}" for layer in phase["unfreeze"]] + [f"-{layer}" for layer in phase["freeze"]])
        for phase in plan
    )


def plan_sentence(plan: list[dict[str, Any]] | None) -> str:
    """Say a plan in words: "After epoch 3: unfreeze stage4, conv5."."""
    sentences = []
    for phase in plan or []:
        changes = []
        if phase["unfreeze"]:
            changes.append(QCoreApplication.translate("RunForm", "unfreeze {}").format(", ".join(phase["unfreeze"])))
        if phase["freeze"]:
            changes.append(QCoreApplication.translate("RunForm", "freeze {}").format(", ".join(phase["freeze"])))
        sentences.append(
            QCoreApplication.translate("RunForm", "After epoch {}: {}.").format(phase["epoch"], "; ".join(changes))
        )
    return " ".join(sentences)


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
