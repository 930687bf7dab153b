"""CheckpointDetails: all that is known of the selected checkpoint, and what of the run is otherwise now."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

from PySide6.QtCore import QModelIndex, QObject, Signal

from app.viewmodels.checkpoint_table import SAVED, CheckpointItemModel
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.metric_history import MetricHistory
from app.viewmodels.quantities import count_text, rate_text
from trainer.messages.run_info import CheckpointInfo


@dataclass(frozen=True)
class Details:
    """What there is to read of one checkpoint: ``metrics`` are names with their values, ``kept`` says why it is."""

    title: str
    metrics: list[tuple[str, str]]
    kept: str
    frozen: list[str]
    differences: list[str]
    note: str
    name: str
    sha256: str


class CheckpointDetails(QObject):
    """Follows the one selected checkpoint."""

    changed = Signal()
    """Another checkpoint is selected, or what is known of it has changed."""

    def __init__(
        self,
        checkpoints: CheckpointItemModel,
        layer_tree: LayerTreeViewModel,
        history: MetricHistory,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._checkpoints, self._layer_tree, self._history = checkpoints, layer_tree, history
        for signal in (checkpoints.selected, layer_tree.states_changed, layer_tree.rows_reset):
            signal.connect(self.changed)
        checkpoints.dataChanged.connect(self._on_changed)

    @property
    def details(self) -> Details | None:
        """Return what there is to read, None unless just one checkpoint is selected."""
        names = self._checkpoints.selected_names
        info = self._checkpoints.checkpoint(names[0]) if len(names) == 1 else None
        if info is None:
            return None
        title = self.tr("Epoch {epoch} · step {step}")
        return Details(
            title=title.format(epoch=count_text(info.epoch), step=count_text(info.step)),
            metrics=self._metrics(info),
            kept=self._kept(info),
            frozen=self._frozen(info),
            differences=self._differences(info),
            note=info.note,
            name=info.name,
            sha256=info.sha256,
        )

    def _on_changed(self, top_left: QModelIndex, bottom_right: QModelIndex) -> None:
        # Ages change every second, and are not told here.
        if not top_left.column() == bottom_right.column() == SAVED:
            self.changed.emit()

    def _metrics(self, info: CheckpointInfo) -> list[tuple[str, str]]:
        # Of an earlier Thaw, these two and no others.
        values: dict[str, float | None] = {"Loss": info.loss, "Accuracy": info.accuracy}
        values.update(info.metrics)
        shown = {self._checkpoints.metric_heading(tag): (tag, value) for tag, value in values.items()}
        return [(heading, self._checkpoints.value_text(tag, value)) for heading, (tag, value) in shown.items()]

    def _kept(self, info: CheckpointInfo) -> str:
        tags = self._checkpoints.tags_of(info)
        return ", ".join([*tags, self.tr("saved after the epoch")] if info.reason == "epoch" else tags)

    def _frozen(self, info: CheckpointInfo) -> list[str]:
        """Return what is frozen, a layer a line, indented below the one that holds it."""
        rows = self._layer_tree.rows
        atoms = rows.atoms_of_set(info.frozen)
        names = rows.names_of(atoms) if atoms else info.frozen
        lines: list[str] = []
        for top, below in groupby(names, key=lambda name: name.partition(".")[0]):
            lines.append(top)
            lines += [f"    {name.partition('.')[2]}" for name in below if name != top]
        return lines or [self.tr("nothing")]

    def _differences(self, info: CheckpointInfo) -> list[str]:
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
        return lines or [self.tr("the same rate and freeze set")]
