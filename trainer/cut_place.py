"""Find the cheapest place to cut a model behind its constant part: few bytes to store, little computed twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from trainer.dry_run import DryRun, storage_of
from trainer.freezing import FreezeSet
from trainer.model_graph import ConstantCalls

MAX_SLOWER = 0.01
"""Share of the multiply-adds of a step behind the cut that may come on top of it, for fewer bytes to be stored."""

FORWARD_AND_BACKWARD = 3
"""Multiply-adds of a step for one of its forward pass: the gradients of the inputs and of the weights cost as much."""

DEVICE = object()
"""Stands for the device of the tensors that cross a place."""


@dataclass(frozen=True)
class PerImage:
    """Stands for a number that is so many times the number of images."""

    times: int


class NoPlaceError(ValueError):
    """There is nothing to cut off, with the reason."""


@dataclass(frozen=True)
class Place:
    """Where a model can be cut.

    Attributes:
        kept: The nodes before it.
        crossing: Those whose tensors are needed behind it, in the graph's order.
        numbers: What stands for the numbers that are needed behind it, sizes mostly, by their nodes: such a number, or
            a tuple of them.
        saved_share: Share of a forward pass's multiply-adds that are before it.

    """

    kept: frozenset[fx.Node]
    crossing: tuple[fx.Node, ...]
    numbers: dict[fx.Node, Any]
    saved_share: float


class PlaceFinder:
    """Looks for the best place in one model.

    A place is a number of nodes: the constant ones among the first so many of the graph. That leaves out places
    between branches that lie side by side, where none of the known models is narrower.

    Args:
        runs: Dry runs of the model's graph in train mode, with batches of different sizes; the first is counted.
        twins: The first nodes of that graph, as far as it is the same in eval mode, and the nodes there.
        freeze_set: What is frozen.

    """

    def __init__(self, runs: list[DryRun], twins: dict[fx.Node, fx.Node], freeze_set: FreezeSet) -> None:
        self._runs, self._twins, self._run = runs, twins, runs[0]
        self._nodes = list(self._run.graph.nodes)
        self._constant: set[fx.Node] = set()
        self._of_input: set[fx.Node] = set()
        self._obstacle = "nothing is computed"
        self._find_constant(ConstantCalls(freeze_set))

    def find(self) -> Place:
        """Return the place with the fewest bytes an image.

        Raises:
            NoPlaceError: Nothing that costs anything is constant, or what would cross cannot be stored by the image.

        """
        total, saved = sum(self._run.mult_adds.values()), [0]
        for node in self._nodes:
            saved.append(saved[-1] + self._run.mult_adds[node] * (node in self._constant))
        if not saved[-1]:
            raise NoPlaceError(self._obstacle)
        # From the last on: of two places that are as cheap, the later saves more.
        places: list[Place] = []
        least_saved = 1.0
        for end in range(len(self._nodes), 0, -1):
            if self._nodes[end - 1] not in self._constant or saved[end] < least_saved:
                continue
            place = self._place(end, saved[end] / total)
            if place is not None and not places:
                least_saved = max(1.0, saved[end] - MAX_SLOWER * FORWARD_AND_BACKWARD * (total - saved[end]))
            places += [place] if place is not None else []
        if not places:
            raise NoPlaceError("what is known of an image at the end of the frozen part is not a tensor of its own")
        return min(places, key=lambda place: sum(self.tensor(node).nbytes for node in place.crossing))

    def is_written_behind(self, place: Place, node: fx.Node) -> bool:
        """Tell whether an in-place layer behind the place writes over a tensor that crosses it."""
        written = self._run.written.get(storage_of(self.tensor(node)), [])
        return any(self._nodes[idx] not in place.kept for idx in written)

    def tensor(self, node: fx.Node) -> Tensor:
        """Return the tensor that a node gave in the first dry run."""
        tensor: Tensor = self._run.env[node]
        return tensor

    def _find_constant(self, calls: ConstantCalls) -> None:
        obstacles = []
        # The nodes that depend on the mode would be right for training or for validation, not for both.
        for node in self._twins:
            if node.op == "output" or not self._constant.issuperset(node.all_input_nodes):
                continue
            obstacle = calls.obstacle(node, self._run.module) or self._written_over(node)
            if obstacle:
                obstacles.append(obstacle)
                continue
            self._constant.add(node)
            if node.op == "placeholder" or self._of_input.intersection(node.all_input_nodes):
                self._of_input.add(node)
        self._obstacle = next(iter(obstacles), self._obstacle)

    def _written_over(self, node: fx.Node) -> str:
        value = self._run.env[node]
        is_written = isinstance(value, Tensor) and storage_of(value) in self._run.written
        return f"{node.target!r} is written over" if node.op == "get_attr" and is_written else ""

    def _place(self, end: int, saved_share: float) -> Place | None:
        kept = frozenset(self._constant.intersection(self._nodes[:end]))
        kept_in_eval = {self._twins[node] for node in kept}
        crossing = [
            node
            for node in self._nodes[:end]
            if node in kept
            and node in self._of_input
            and not (kept.issuperset(node.users) and kept_in_eval.issuperset(self._twins[node].users))
        ]
        tensors = tuple(node for node in crossing if isinstance(self._run.env[node], Tensor))
        if not tensors or not all(map(self._is_row_by_row, tensors)) or not self._is_in_order(kept, tensors):
            return None
        try:
            numbers = {node: self._template(node) for node in crossing if node not in tensors}
        except _NotANumberError:
            return None
        return Place(kept, tensors, numbers, saved_share)

    def _template(self, node: fx.Node) -> Any:
        return _template(tuple(run.env[node] for run in self._runs), [len(run.inputs) for run in self._runs])

    def _is_row_by_row(self, node: fx.Node) -> bool:
        """Tell whether a tensor has a row for each image, of the same shape whatever the batch."""
        shapes = [(len(run.inputs), *run.env[node].shape[1:]) for run in self._runs]
        are_rows = all(tuple(run.env[node].shape) == shape for run, shape in zip(self._runs, shapes, strict=True))
        return are_rows and len({shape[1:] for shape in shapes}) == 1

    def _is_in_order(self, kept: frozenset[fx.Node], crossing: tuple[fx.Node, ...]) -> bool:
        """Tell whether in-place layers find what they write over as in the model, now that the prefix is run first."""
        for storage, written in self._run.written.items():
            is_kept = {idx: self._nodes[idx] in kept for idx in self._run.touched[storage]}
            before, behind = [i for i in written if is_kept[i]], [i for i in written if not is_kept[i]]
            if before and any(not is_kept[i] and i < max(before) for i in is_kept):
                return False
            if behind and any(is_kept[i] and i > min(behind) for i in is_kept):
                return False
            if behind and sum(storage_of(self.tensor(node)) == storage for node in crossing) > 1:
                return False
        return True


class _NotANumberError(ValueError):
    """A value that is no tensor, and no number that could stand in the graph."""


def find_twins(graph: fx.Graph, other: fx.Graph) -> dict[fx.Node, fx.Node]:
    """Return the first nodes of a graph, as far as another one begins the same, with those there."""
    twins: dict[fx.Node, fx.Node] = {}
    for node, twin in zip(graph.nodes, other.nodes, strict=False):
        arguments = map_arg((node.args, node.kwargs), twins.__getitem__)
        if (node.op, node.target, arguments) != (twin.op, twin.target, (twin.args, twin.kwargs)):
            break
        twins[node] = twin
    return twins


def _template(values: tuple[Any, ...], batch_sizes: list[int]) -> Any:
    """Return what stands for a number, or a tuple of them, of which one is given for each batch size."""
    first = values[0]
    if isinstance(first, tuple | list):
        return tuple(_template(each, batch_sizes) for each in zip(*values, strict=True))
    if isinstance(first, torch.device):
        return DEVICE
    if not isinstance(first, int | float | str | torch.dtype | None):
        raise _NotANumberError
    if len(set(values)) == 1:
        return first
    if not isinstance(first, int):
        raise _NotANumberError
    times = first // batch_sizes[0]
    if any(value != times * size for value, size in zip(values, batch_sizes, strict=True)):
        raise _NotANumberError
    return PerImage(times)
