"""CheckpointDetails: all that is known of the selected checkpoint, and what of the run is otherwise now."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from PySide6.QtCore import QModelIndex, QObject, Signal

from app.backlog import Backlog
from app.viewmodels.checkpoint_columns import SAVED, metric_heading, value_text
from app.viewmodels.checkpoint_run import CheckpointKey, CheckpointRun
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.metric_history import MetricHistory
from app.viewmodels.quantities import count_text, percent_text, rate_text
from app.viewmodels.run_config import RunConfigViewModel
from app.viewmodels.setting_words import setting_name, setting_text
from trainer.config import RunConfig
from trainer.messages.run_info import CheckpointInfo, InForce
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder
from trainer.settings import differing, flat_settings

_MAX_SETTINGS = 6
_MAX_CLASSES = 3


@dataclass(frozen=True)
class Details:
    """What there is to read of one checkpoint.

    ``metrics`` are names with their values, ``kept`` says why it is, and ``classes`` of which classes the smallest
    share of images was recognized, with that share.
    """

    title: str
    metrics: list[tuple[str, str]]
    kept: str
    frozen: list[str]
    differences: list[str]
    classes: str
    note: str
    name: str
    sha256: str


class _Reading(NamedTuple):
    """What a run's folder says of a checkpoint.

    The share of each class's images that it recognized, None where that is not kept, and what the run trained with.
    """

    recalls: dict[str, float] | None
    in_force: InForce | None


class CheckpointDetails(QObject):
    """Follows the one selected checkpoint."""

    changed = Signal()
    """Another checkpoint is selected, or what is known of it has changed."""

    def __init__(
        self,
        checkpoints: CheckpointItemModel,
        layer_tree: LayerTreeViewModel,
        history: MetricHistory,
        run_config: RunConfigViewModel,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._checkpoints, self._layer_tree, self._history = checkpoints, layer_tree, history
        self._run_config = run_config
        run_config.live_changed.connect(self.changed)
        for signal in (checkpoints.selected, layer_tree.states_changed, layer_tree.rows_reset):
            signal.connect(self.changed)
        checkpoints.dataChanged.connect(self._on_changed)
        self._read: tuple[CheckpointKey, _Reading | None] | None = None
        self._readings = Backlog(_read_folder, parent=self)
        self._readings.answered.connect(self._show_reading)

    @property
    def details(self) -> Details | None:
        """Return what there is to read, None unless just one checkpoint is selected."""
        keys = self._checkpoints.selected_keys
        info = self._checkpoints.checkpoint(keys[0]) if len(keys) == 1 else None
        if info is None:
            return None
        run, reading = self._checkpoints.run_of(keys[0]), self._reading_of(keys[0])
        title = self.tr("Epoch {epoch} · step {step}")
        return Details(
            title=title.format(epoch=count_text(info.epoch), step=count_text(info.step)),
            metrics=self._metrics(info),
            kept=self._kept(run, info),
            frozen=self._frozen(run, info),
            differences=self._differences(run, info, None if reading is None else reading.in_force),
            classes="…" if reading is None else self._classes(reading.recalls),
            note=info.note,
            name=info.name,
            sha256=info.sha256,
        )

    @property
    def hint(self) -> str:
        """Return what to do for details where there are none, "" where there is nothing to select."""
        num_selected = len(self._checkpoints.selected_keys)
        if num_selected > 1:
            text = self.tr("{} checkpoints are selected. Compare tells how they differ.")
            return text.format(count_text(num_selected))
        return self.tr("Select a checkpoint to read about it.") if self._checkpoints.rowCount() else ""

    def _reading_of(self, key: CheckpointKey) -> _Reading | None:
        """Return what its folder says of it; None as long as that is being read."""
        if self._read is None or self._read[0] != key:
            self._read = (key, None)
            self._readings.want([key])
        return self._read[1]

    def _show_reading(self, key: CheckpointKey, reading: _Reading) -> None:
        if self._read is not None and self._read[0] == key:
            self._read = (key, reading)
            self.changed.emit()

    def _classes(self, recalls: dict[str, float] | None) -> str:
        if recalls is None:
            return self.tr("not kept; Compare works them out")
        worst = sorted(recalls, key=lambda name: recalls[name])[:_MAX_CLASSES]
        text = self.tr("{name} at {share}")
        return ", ".join(text.format(name=name, share=percent_text(recalls[name])) for name in worst)

    def _on_changed(self, top_left: QModelIndex, bottom_right: QModelIndex) -> None:
        # Ages change every second, and are not told here.
        if not top_left.column() == bottom_right.column() == SAVED:
            self.changed.emit()

    def _metrics(self, info: CheckpointInfo) -> list[tuple[str, str]]:
        # Of an earlier Thaw, these two and no others.
        values: dict[str, float | None] = {"Loss": info.loss, "Accuracy": info.accuracy}
        values.update(info.metrics)
        shown = {metric_heading(tag): (tag, value) for tag, value in values.items()}
        return [(heading, value_text(tag, value)) for heading, (tag, value) in shown.items()]

    def _kept(self, run: CheckpointRun, info: CheckpointInfo) -> str:
        tags = run.tags_of(info)
        return ", ".join([*tags, self.tr("saved after the epoch")] if info.reason == "epoch" else tags)

    def _frozen(self, run: CheckpointRun, info: CheckpointInfo) -> list[str]:
        """Return what is frozen, a layer a line, indented below the one that holds it."""
        rows = self._layer_tree.rows
        # Another run's model may have other layers of the same names.
        atoms = rows.atoms_of_set(info.frozen) if run is self._checkpoints.present else set()
        names = rows.names_of(atoms) if atoms else info.frozen
        lines: list[str] = []
        for top, below in groupby(names, key=lambda name: name.partition(".")[0]):
            lines.append(top)
            lines += [f"    {name.partition('.')[2]}" for name in below if name != top]
        return lines or [self.tr("nothing")]

    def _differences(self, run: CheckpointRun, info: CheckpointInfo, then_in_force: InForce | None) -> list[str]:
        if run is not self._checkpoints.present:
            return [self.tr("of another run: {}").format(run.title), *self._settings(run)]
        rows, now = self._layer_tree.rows, self._layer_tree.frozen.atoms
        then = rows.atoms_of_set(info.frozen)
        lines = []
        if (names := rows.names_of(then - now)) and then:
            lines.append(self.tr("{}: frozen then, trainable now").format(", ".join(names)))
        if names := rows.names_of(now - then):
            lines.append(self.tr("{}: trainable then, frozen now").format(", ".join(names)))
        point = self._history.at("Learning rate", math.inf)
        if info.rate is not None and point is not None and not math.isclose(point[1], info.rate):
            text = self.tr("Rate {then} then, {now} now")
            lines.append(text.format(then=rate_text(info.rate), now=rate_text(point[1])))
        lines += self._layer_differences(info)
        if then_in_force is not None and (in_force := self._run_config.live.in_force) is not None:
            now_set = _settings_in_force(in_force)
            for field, before in _settings_in_force(then_in_force).items():
                if (after := now_set[field]) != before:
                    text = self.tr("{name} {then} then, {now} now")
                    if field == "plan":
                        # A plan has commas and semicolons of its own.
                        text = self.tr("{name} ({then}) then, ({now}) now")
                    before_text, after_text = setting_text(field, before), setting_text(field, after)
                    lines.append(text.format(name=setting_name(field), then=before_text, now=after_text))
        return lines or [self.tr("the same rate and freeze set")]

    def _layer_differences(self, info: CheckpointInfo) -> list[str]:
        """Return whose multiplier was another one, and whose statistics did something else."""
        tree, lines = self._layer_tree, []
        # An earlier Thaw kept none of them.
        if info.multipliers is not None:
            for (then, now), units in tree.rates.differing(info.multipliers).items():
                text = self.tr("{layers}: rate × {then} then, × {now} now")
                layers = ", ".join(tree.rates.names_of(units))
                lines.append(text.format(layers=layers, then=rate_text(then), now=rate_text(now)))
        if info.adapting is not None:
            adapted, adapting = set(info.adapting), tree.frozen.adapting
            if names := tree.rows.names_of_units(adapted - adapting, tree.rows.with_statistics):
                lines.append(self.tr("{}: statistics adapted then, freeze now").format(", ".join(names)))
            if names := tree.rows.names_of_units(adapting - adapted, tree.rows.with_statistics):
                lines.append(self.tr("{}: statistics froze then, adapt now").format(", ".join(names)))
        return lines

    def _settings(self, run: CheckpointRun) -> list[str]:
        """Return in which settings another run differs from the one on display."""
        present = self._checkpoints.present.config
        if present is None or run.config is None:
            return []
        found = differing(
            [flat_settings(self._named(each, present).model_dump(mode="json")) for each in (run.config, present)]
        )
        text = self.tr("{name}: {there} there, {here} here")
        lines = [
            text.format(name=setting_name(name), there=setting_text(name, there), here=setting_text(name, here))
            for name, (there, here) in found.items()
            # Where it comes from stands in a column, and its name above.
            if name != "name" and not name.startswith("branch")
        ]
        if len(lines) <= _MAX_SETTINGS:
            return lines
        left = self.tr("and {} more settings, which Compare lists").format(count_text(len(lines) - _MAX_SETTINGS))
        return [*lines[:_MAX_SETTINGS], left]

    def _named(self, config: RunConfig, present: RunConfig) -> RunConfig:
        """Return a configuration with what it freezes by the tree's names, where its model is the one on display."""
        if config.model.name != present.model.name:
            return config
        rows = self._layer_tree.rows
        frozen = rows.names_of(rows.atoms_of(config.model.frozen))
        return config.model_copy(update={"model": config.model.model_copy(update={"frozen": frozen})})


def _settings_in_force(in_force: InForce) -> dict[str, Any]:
    # With the phases that have begun: that one began since then makes no other plan of it.
    plan = [phase.model_dump() for phase in (*in_force.begun, *in_force.plan)]
    return {"training.epochs": in_force.epochs, "training.patience": in_force.patience, "plan": plan}


def _read_folder(key: CheckpointKey) -> _Reading:
    try:
        with RunFolder(key.run_dir, read_only=True) as folder:
            matrix = folder.checkpoints.confusion_of(folder.checkpoints.find(key.name))
            run = folder.run_info(key.name)
    except RunFolderError:
        # The folder or the checkpoint went away: that is told elsewhere.
        return _Reading(None, None)
    rows = () if matrix is None else zip(matrix.class_names, matrix.counts, strict=True)
    recalls = {name: row[idx] / sum(row) for idx, (name, row) in enumerate(rows) if sum(row)}
    return _Reading(None if matrix is None else recalls, None if run is None else run.present)
