"""What was chosen of the layers of one model, and what of it holds in another one."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication

from app.viewmodels.layer_rows import LayerRows
from trainer.config import ModelConfig

_NUM_NAMED = 3


@dataclass(frozen=True)
class LayerChoice:
    """What is frozen, at which rates layers learn, and whose statistics adapt, by the names of a configuration."""

    frozen: list[str]
    multipliers: dict[str, float]
    adapting: list[str]

    def within(self, rows: LayerRows) -> LayerChoice:
        """Return what of it there is in a model. Where nothing is left of what was frozen, its backbone is."""
        frozen = [name for name in self.frozen if rows.atoms_of([name])]
        return LayerChoice(
            frozen if frozen or not self.frozen else list(NO_LAYER_CHOSEN.frozen),
            {name: number for name, number in self.multipliers.items() if rows.units_of([name])},
            [name for name in self.adapting if not rows.with_statistics.isdisjoint(rows.units_of([name]))],
        )

    def left_out_text(self, kept: LayerChoice, model: str) -> str:
        """Say in a line what of this is not ``kept`` in a model; "" for nothing."""
        gone = [name for name in self.frozen if name not in kept.frozen]
        gone += [name for name in self.multipliers if name not in kept.multipliers]
        # A layer may be there without any.
        statistics = QCoreApplication.translate("LayerTree", "statistics of {}")
        gone += [statistics.format(name) for name in self.adapting if name not in {*kept.adapting, *gone}]
        if not gone:
            return ""
        names = list(dict.fromkeys(gone))
        shown = ", ".join(names) if len(names) <= _NUM_NAMED else f"{', '.join(names[:2])} … {names[-1]}"
        if self.frozen and set(self.frozen).isdisjoint(kept.frozen):
            text = QCoreApplication.translate("LayerTree", "Not in {}, so left out: {}. Its backbone is frozen.")
        else:
            text = QCoreApplication.translate("LayerTree", "Not in {}, so left out: {}.")
        return text.format(model, shown)


NO_LAYER_CHOSEN = LayerChoice(ModelConfig().frozen, {}, [])
"""What a draft begins with: its names hold in every model."""
