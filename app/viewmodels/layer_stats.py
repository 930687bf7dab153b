"""LayerStats: what the last measured update did in each layer of a model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication

from app.viewmodels.layer_rows import LayerRows
from app.viewmodels.quantities import count_text, measure_text
from trainer.messages.events import LayerStatsReported


@dataclass(frozen=True)
class RowStats:
    """What one update did below a row: L2 norm of the gradient, and ‖Δw‖/‖w‖ of what it moved."""

    gradient_norm: float
    update_ratio: float


class LayerStats:
    """The norms of each unit that learned, and of the rows above them."""

    def __init__(self, rows: LayerRows) -> None:
        self._rows = rows
        self.step = 0
        self._norms: dict[str, tuple[float, float, float]] = {}
        """Of each unit: of its gradient, of its change, of its weights."""
        self._of_rows: dict[int, RowStats | None] = {}

    def take(self, event: LayerStatsReported) -> None:
        """Take what an update did."""
        norms = zip(event.gradient_norms, event.update_norms, event.weight_norms, strict=True)
        self._norms = dict(zip(event.layers, norms, strict=True))
        self._of_rows, self.step = {}, event.step

    def forget(self, units: Iterable[str]) -> None:
        """Forget units that have been frozen since: no update moves them any more."""
        for unit in units:
            self._norms.pop(unit, None)
        self._of_rows = {}

    def of(self, row_id: int) -> RowStats | None:
        """Return what the update did below a row; None where nothing learned."""
        if row_id not in self._of_rows:
            norms = [self._norms[unit] for unit in self._rows[row_id].units if unit in self._norms]
            self._of_rows[row_id] = _summed(norms) if norms else None
        return self._of_rows[row_id]

    def explain(self, row_id: int) -> str:
        """Say what the update did below a row, for the tooltip and for a screen reader."""
        stats = self.of(row_id)
        if stats is None:
            return QCoreApplication.translate("LayerTree", "nothing measured: no update has moved it")
        text = QCoreApplication.translate(
            "LayerTree", "gradient norm {gradient}, weights changed by {ratio} of their norm, in update {step}"
        )
        return text.format(
            gradient=measure_text(stats.gradient_norm),
            ratio=measure_text(stats.update_ratio),
            step=count_text(self.step),
        )


def _summed(norms: list[tuple[float, float, float]]) -> RowStats:
    gradient, change, weights = (math.hypot(*column) for column in zip(*norms, strict=True))
    if weights:
        return RowStats(gradient, change / weights)
    return RowStats(gradient, math.inf if change else 0.0)
