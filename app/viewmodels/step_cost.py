"""StepCost: what a training step costs with any freeze set, in multiply-adds, to tell what a freeze would save."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from app.viewmodels.layer_rows import LayerRows
from trainer.messages.model_info import ModelSummary


class StepCost:
    """Counts the three passes of a step: forward, gradients back to the first layer that learns, weight gradients.

    Each costs a layer as many multiply-adds as its forward pass does: exactly, for convolutions and linear layers. The
    gradient of a bias is next to nothing, so that only a weight that learns makes the third.
    """

    def __init__(self, rows: LayerRows, summary: ModelSummary | None) -> None:
        own = {info.fqn: info.mult_adds for info in summary.layers} if summary else {}
        for info in summary.layers if summary else ():
            parent = info.fqn.rpartition(".")[0]
            if info.fqn and parent in own:
                own[parent] -= info.mult_adds
        self._costs = [
            (own.get(unit, 0), [atom for atom in rows.atoms_of_unit[unit] if rows.num_params_of[atom]])
            for unit in rows.units
        ]
        self._biases = rows.biases

    def of(self, frozen: AbstractSet[str]) -> int:
        """Return the multiply-adds of one image's step; 0 where those of the model are not known."""
        total = 0
        is_flowing = False
        for cost, parameters in self._costs:
            # Forward, and back through it to a layer before it that learns.
            total += cost + (cost if is_flowing else 0)
            learning = [atom for atom in parameters if atom not in frozen]
            is_flowing = is_flowing or bool(learning)
            if not self._biases.issuperset(learning):
                total += cost
        return total
