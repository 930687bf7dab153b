"""What an update does in each layer: norms taken on the device, so seldom that they cost next to nothing."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from trainer.messages.events import LayerStatsReported

LEAST_INTERVAL_S = 1.0
COST_SHARE = 0.005
"""Share of the time that may go into the norms. A GPU's own time is measured in part only, so this is half of 1 %."""

_NUM_DIGITS = 4


class LayerNorms:
    """Takes the norms of an update now and then: of each layer's gradient, of its weights, and of their change.

    Only what the update moves is taken: a frozen layer has no gradient. To know the change, the weights are copied
    before the update; that and the norms are why only some updates are taken.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._due_at = -math.inf
        self._cost_s = 0.0
        self._layers: list[str] = []
        self._parameters: list[Tensor] = []
        self._before: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._report: LayerStatsReported | None = None

    def begin(self) -> None:
        """Copy the weights, if it is time again. Call it when the gradient is whole, before it is clipped."""
        self._before = []
        started = time.perf_counter()
        if started >= self._due_at:
            self._copy(started)

    @torch.no_grad()
    def _copy(self, started: float) -> None:
        moved = [
            (group["name"], parameter)
            for group in self._optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        self._layers = [name for name, _ in moved]
        self._parameters = [parameter for _, parameter in moved]
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        self._norms = [*torch._foreach_norm(gradients), *torch._foreach_norm(self._parameters)]
        self._before = [parameter.clone() for parameter in self._parameters]
        self._cost_s = time.perf_counter() - started

    def forget(self) -> None:
        """Drop the copy: the update was not made."""
        self._before = []

    def finish(self, step: int, segment: int) -> None:
        """Take the norms of the update that was made, if its beginning was taken.

        Args:
            step: Completed optimizer updates, this one included.
            segment: The piece of the curve that it belongs to.

        """
        if self._before:
            self._take_norms(step, segment)

    @torch.no_grad()
    def _take_norms(self, step: int, segment: int) -> None:
        started = time.perf_counter()
        torch._foreach_sub_(self._before, self._parameters)
        norms = [*self._norms, *torch._foreach_norm(self._before)]
        values = torch.stack([norm.float() for norm in norms]).reshape(3, -1).tolist()
        gradient_norms, weight_norms, update_norms = (self._by_layer(row) for row in values)
        self._report = LayerStatsReported(
            step=step,
            segment=segment,
            layers=list(dict.fromkeys(self._layers)),
            gradient_norms=gradient_norms,
            update_norms=update_norms,
            weight_norms=weight_norms,
        )
        self._before, self._norms, self._parameters = [], [], []
        ended = time.perf_counter()
        self._due_at = ended + max(LEAST_INTERVAL_S, (self._cost_s + ended - started) / COST_SHARE)

    def take(self) -> LayerStatsReported | None:
        """Return what was taken since the last call, if anything was."""
        report, self._report = self._report, None
        return report

    def _by_layer(self, norms: list[float]) -> list[float]:
        squares: dict[str, float] = {}
        for layer, norm in zip(self._layers, norms, strict=True):
            squares[layer] = squares.get(layer, 0.0) + norm**2
        # Rounded: a large model has hundreds of layers, and this goes to every client.
        return [float(f"{math.sqrt(square):.{_NUM_DIGITS}g}") for square in squares.values()]
