"""Plans that have a name: what is frozen at the start, and what changes when. Plain values only, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from trainer.config import ConfigError, PlanPhase
from trainer.messages.model_info import LayerInfo

RATE_DECAY = 2.6
"""What the rate falls by from each stage to the one before it (Howard and Ruder 2018, ULMFiT, arXiv 1801.06146)."""


CONTAINER_SHARE = 0.9
"""Of the layers with parameters: a part that holds so many is no stage but the container of the stages."""


class PlanName(StrEnum):
    """The plans on offer."""

    LINEAR_PROBE = "linear_probe"
    """The head alone learns."""
    LAST_STAGE = "last_stage"
    """The last stage and the head learn."""
    GRADUAL = "gradual"
    """Stage by stage from the output, each at a lower rate (ULMFiT, arXiv 1801.06146)."""
    LP_FT = "lp_ft"
    """The head first, then everything (Kumar et al. 2022, arXiv 2202.10054)."""
    CHAIN_THAW = "chain_thaw"
    """The head, then each stage by itself from the input, then everything (Felbo et al. 2017, arXiv 1708.00524)."""
    CYCLIC = "cyclic"
    """The head and one stage at a time, from the output to the input and again."""
    LAYER_DECAY = "layer_decay"
    """Everything learns, each stage at a lower rate than the next one."""


@dataclass(frozen=True)
class NamedPlan:
    """What a plan puts into a run's configuration.

    Attributes:
        frozen: ``model.frozen``.
        multipliers: ``optimizer.multipliers``.
        phases: ``plan``.

    """

    frozen: list[str]
    multipliers: dict[str, float] = field(default_factory=dict)
    phases: list[PlanPhase] = field(default_factory=list)


def make_plan(name: PlanName, layers: Sequence[LayerInfo], num_epochs: int, every: int | None = None) -> NamedPlan:
    """Write a plan out for a model.

    Args:
        name: Which one.
        layers: The model's tree.
        num_epochs: Epochs of the run.
        every: Epochs that a phase lasts; None: as many as share the run out evenly.

    Raises:
        ConfigError: The run has too few epochs for the plan.

    """
    of_model = stages(layers)
    last_first = of_model[::-1]
    if name is PlanName.LINEAR_PROBE:
        return NamedPlan(["backbone"])
    if name is PlanName.LAST_STAGE:
        return NamedPlan([layer for stage in of_model[:-1] for layer in stage])
    if name is PlanName.LAYER_DECAY:
        return NamedPlan([], _falling(last_first))
    if name is PlanName.LP_FT:
        changes: list[dict[str, list[str]]] = [{"unfreeze": ["backbone"]}]
    elif name is PlanName.GRADUAL:
        changes = [{"unfreeze": stage} for stage in last_first[:-1]] + [{"unfreeze": ["backbone"]}]
    elif name is PlanName.CHAIN_THAW:
        head = [info.fqn for info in layers if info.is_head]
        alone = [head, *of_model]
        changes = [{"unfreeze": new, "freeze": old} for old, new in zip(alone, of_model, strict=False)]
        changes.append({"unfreeze": ["backbone", *head]})
    else:
        changes = [{"unfreeze": last_first[0]}]
        changes += [{"unfreeze": new, "freeze": old} for old, new in pairwise(last_first)]
    starts = _starts(name, len(changes), num_epochs, every)
    if name is PlanName.CYCLIC:
        changes += _next_rounds(last_first, len(starts) - len(changes))
    multipliers = _falling(last_first) if name is PlanName.GRADUAL else {}
    return NamedPlan(
        ["backbone"],
        multipliers,
        [PlanPhase(epoch=epoch, **change) for epoch, change in zip(starts, changes, strict=False)],
    )


def stages(layers: Sequence[LayerInfo]) -> list[list[str]]:
    """Divide a backbone into stages, from the input to the output, each named by the fewest layers.

    A stage is a part built of blocks ("layer3", "features.5", "encoder.layers.encoder_layer_7") with the plain layers
    that follow it; what comes before the first is a stage as well, and has what the containers of the stages own
    themselves ("class_token", "encoder.pos_embedding").
    """
    tree = _Tree(layers)
    level = ""
    before: list[str] = []
    after: list[str] = []
    while True:
        below = tree.children[level]
        blocks = [layer for layer in below if tree.depth(layer) >= 2]
        # One container holds all of them, or nearly ("features", "encoder", "blocks" beside a stem).
        least = CONTAINER_SHARE * tree.num_units(level) if len(blocks) > 1 else 0
        container = next((layer for layer in blocks if tree.num_units(layer) >= least), None)
        if container is None:
            break
        position = below.index(container)
        before, after = before + below[:position], below[position + 1 :] + after
        level = container
    blocks = blocks or [layer for layer in below if tree.names(layer)]
    parts: list[list[str]] = [before]
    for layer in below:
        if layer in blocks:
            parts.append([])
        parts[-1].append(layer)
    parts[-1] += after
    named = [[name for layer in part for name in tree.names(layer)] for part in parts]
    return [part for part in named if part]


class _Tree:
    """The backbone's modules by the name of what they are in, with the parameters that one with children owns."""

    def __init__(self, layers: Sequence[LayerInfo]) -> None:
        self._heads = [info.fqn for info in layers if info.is_head]
        self._infos = {info.fqn: info for info in layers}
        self.children: dict[str, list[str]] = {info.fqn: [] for info in layers}
        for info in layers:
            if info.fqn and not self._is_head(info.fqn):
                self.children[info.fqn.rpartition(".")[0]].append(info.fqn)
        for info in layers:
            if self.children[info.fqn]:
                self.children[info.fqn][:0] = info.own_names
                self.children |= {name: [] for name in info.own_names}

    def depth(self, layer: str) -> int:
        return max((self.depth(child) + 1 for child in self.children[layer]), default=0)

    def names(self, layer: str) -> list[str]:
        """Name what can be frozen at and below a layer; its own name would reach a head below it, too."""
        if any(head.startswith(f"{layer}.") for head in self._heads):
            return [name for child in self.children[layer] for name in self.names(child)]
        return [layer] if self.num_units(layer) else []

    def num_units(self, layer: str) -> int:
        is_leaf = not self.children[layer]
        is_unit = layer not in self._infos or (is_leaf and self._infos[layer].is_unit)
        return is_unit + sum(map(self.num_units, self.children[layer]))

    def _is_head(self, layer: str) -> bool:
        return any(layer == head or layer.startswith(f"{head}.") for head in self._heads)


def _falling(last_first: list[list[str]]) -> dict[str, float]:
    # Two digits, as a person would write them.
    rates = [float(f"{RATE_DECAY**-distance:.2g}") for distance in range(1, len(last_first) + 1)]
    return {layer: rate for rate, stage in zip(rates, last_first, strict=True) for layer in stage}


def _starts(name: PlanName, num_changes: int, num_epochs: int, every: int | None) -> list[int]:
    """Return the epochs at which the changes come."""
    if every is None:
        every = max(num_epochs // (num_changes + 1), 1)
    is_open_ended = name in {PlanName.GRADUAL, PlanName.CYCLIC}
    least = (1 if is_open_ended else num_changes) * every + 1
    if num_epochs < least:
        raise ConfigError(
            f'The plan "{name}" needs at least {least} epochs for this model at {every} a phase, and the run has '
            f"{num_epochs}. Give it more epochs, or choose another plan.",
            "plan",
        )
    num_fitting = (num_epochs - 1) // every
    num_phases = num_fitting if name is PlanName.CYCLIC else min(num_changes, num_fitting)
    return [every * (position + 1) for position in range(num_phases)]


def _next_rounds(last_first: list[list[str]], num_changes: int) -> list[dict[str, list[str]]]:
    order = [last_first[position % len(last_first)] for position in range(-1, max(num_changes, 0))]
    return [{"unfreeze": new, "freeze": old} for old, new in pairwise(order)]
