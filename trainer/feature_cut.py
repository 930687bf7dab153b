"""Cut a model behind its frozen part, so that what comes before the cut needs to be computed only once an image."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from trainer.cut_place import DEVICE, NoPlaceError, PerImage, Place, PlaceFinder, find_twins
from trainer.dry_run import DryRun
from trainer.freezing import FreezeSet
from trainer.model_graph import TraceError, constants_of, forget_constants, trace

MAX_DIFFERENCE = 1e-4
"""By which a model in two parts may differ from the model, relative to its largest output."""

_BATCH_SIZES = (2, 3)
"""Of the dry runs: they tell a number of the model's from one that grows with the batch."""


class CutError(ValueError):
    """A model in two parts that does not do what the model does, with the sentence for the user."""


@dataclass(frozen=True)
class StoredTensor:
    """One of the tensors that cross the cut: its shape for one image, and its type where nothing is autocast."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def num_bytes(self, dtype: torch.dtype) -> int:
        """Return its size if its floating point numbers are kept as ``dtype``; others stay as they are."""
        kept = dtype if self.dtype.is_floating_point else self.dtype
        return torch.Size(self.shape).numel() * kept.itemsize


@dataclass(frozen=True)
class Cut:
    """A model in two parts. They are its own live layers, parameters and buffers, and follow all that is done to these.

    Attributes:
        prefix: From the images to a tuple of tensors with a row for each image: the same in every epoch.
        suffix: From these tensors, ``suffix(*prefix(images))``, to what the model returns. It leaves them as they are.
        stored: What crosses, in the order of the tuple.
        saved_share: Share of the multiply-adds of a forward pass that are in the prefix, 0 to 1.
        layers: The units, as a freeze set names them, that only the prefix uses, in the model's order.
        used: All units that the prefix uses.
        place: Where in the model's graph it is.

    """

    prefix: fx.GraphModule
    suffix: nn.Module
    stored: tuple[StoredTensor, ...]
    saved_share: float
    layers: list[str]
    used: list[str]
    place: Place

    def bytes_per_image(self, dtype: torch.dtype) -> int:
        """Return the size of what is stored for an image, its floating point numbers kept as ``dtype``."""
        return sum(tensor.num_bytes(dtype) for tensor in self.stored)


@dataclass(frozen=True)
class NoCut:
    """Why a model cannot be cut, in a sentence."""

    reason: str


class CutFinder:
    """Cuts a model behind the largest part of it that gives the same for an image in every epoch, where it is cheapest.

    That part depends on the image alone; all in it is frozen and in eval mode, and nothing in it is random or adapts to
    the data. It holds until something in it is unfrozen, adapts, or gets other weights. A freeze behind it changes
    nothing of it, but might allow a later cut.

    Args:
        module: The model, on any device, "meta" included.
        freeze_set: What is frozen in it. Its modes are those of training for the while.
        example: A batch of its input, of which only the shape and the type count.

    """

    def __init__(self, module: nn.Module, freeze_set: FreezeSet, example: Tensor) -> None:
        self._module, self._freeze_set, self._example = module, freeze_set, example
        # What does not depend on what is frozen is found out once.
        self._known: tuple[list[DryRun], dict[fx.Node, fx.Node], tuple[fx.Graph, fx.Graph]] | None = None
        self._constants: dict[str, Tensor] = {}

    def find(self) -> Cut | NoCut:
        """Return the cut for what is frozen at this moment."""
        if not self._freeze_set.frozen_atoms:
            return NoCut("No features can be cached: nothing is frozen.")
        was_training = self._module.training
        try:
            self._freeze_set.set_mode(training=True)
            if self._known is None:
                self._known = self._looked_through()
            runs, twins, graphs = self._known
            vars(self._module).update(self._constants)
            return _make_cut(self._module, self._freeze_set, PlaceFinder(runs, twins, self._freeze_set), twins, graphs)
        except NoPlaceError as error:
            return NoCut(f"No features can be cached: {error}. Only what is frozen from the beginning on can be.")
        except TraceError as error:
            return NoCut(f"No features can be cached, as {type(self._module).__name__} cannot be cut in two: {error}.")
        finally:
            self._freeze_set.set_mode(training=was_training)
            forget_constants(self._module)

    def between(self, earlier: Cut, later: Cut) -> nn.Module | None:
        """Return what gives the tensors of a later cut from those of an earlier one of this model, a tuple of both.

        None where there is no way from the one to the other.
        """
        if self._known is None or not earlier.place.kept <= later.place.kept:
            return None
        graph = self._known[2][0]
        vars(self._module).update(self._constants)
        try:
            return _rest(self._module, graph, earlier.place, lambda _place, _node: True, until=later.place)
        finally:
            forget_constants(self._module)

    def _looked_through(self) -> tuple[list[DryRun], dict[fx.Node, fx.Node], tuple[fx.Graph, fx.Graph]]:
        module, example = self._module, self._example
        graph, has_modes = trace(module)
        self._freeze_set.set_mode(training=False)
        graph_in_eval = trace(module)[0] if has_modes else graph
        self._freeze_set.set_mode(training=True)
        shape = example.shape[1:]
        small, large = (example.new_empty((size, *shape), device="meta") for size in _BATCH_SIZES)
        runs = [DryRun(module, graph, small), DryRun(module, graph, large, is_counted=False)]
        self._constants = constants_of(module)
        return runs, find_twins(graph, graph_in_eval), (graph, graph_in_eval)


def find_cut(module: nn.Module, freeze_set: FreezeSet, example: Tensor) -> Cut | NoCut:
    """Return the cut of a model that is cut only once; the arguments are those of CutFinder."""
    return CutFinder(module, freeze_set, example).find()


def agrees(cut: Cut, module: nn.Module, probe: Tensor) -> float:
    """Prove on a batch that a model in two parts does what the model does, in its mode of this moment.

    Neither the model's statistics nor the random generators are others afterwards.

    Args:
        cut: The model in two parts.
        module: The model.
        probe: At least two images, prepared for the model.

    Returns:
        The largest difference of an output, relative to the largest output where that is above 1.

    Raises:
        CutError: They differ, or what would be stored of an image depends on the others of its batch.

    """
    assert len(probe) > 1, "whether an image depends on the others of its batch shows only where there are some"
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    devices = [probe.device] if probe.device.type == "cuda" else []
    try:
        with torch.no_grad():
            features, alone = cut.prefix(probe), cut.prefix(probe[:1])
        # With gradients, as in training: attention is computed in another way without.
        with torch.enable_grad():
            with torch.random.fork_rng(devices):
                # Not through torch.compile, which would take as long as a run's first step.
                expected = _tensors(module.forward(probe))
            with torch.random.fork_rng(devices):
                outputs = _tensors(cut.suffix(*features))
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)
    # Another batch size has other kernels, so other roundings: half of the digits are enough to tell.
    if any(_difference(feature[:1], one) > _half_of_digits(one) for feature, one in zip(features, alone, strict=True)):
        raise CutError(
            "What the frozen layers give for an image depends on the other images of its batch, so it cannot be "
            "cached. Train without the feature cache."
        )
    difference = max(_difference(output, other) for output, other in zip(outputs, expected, strict=True))
    # So, and not "greater than": a NaN is no agreement.
    if not difference <= MAX_DIFFERENCE:
        raise CutError(
            f"With cached features the model gives other outputs than without, by {difference:.2g} of the largest. "
            "Train without the feature cache."
        )
    return difference


def _tensors(outputs: Any) -> list[Tensor]:
    # Auxiliary outputs come in a tuple, or are None.
    return [leaf.detach() for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _difference(tensor: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest number where that is above 1."""
    if torch.equal(tensor, other):
        return 0.0
    tensor, other = tensor.double(), other.double()
    return float((tensor - other).abs().max() / other.abs().max().clamp(min=1))


def _half_of_digits(tensor: Tensor) -> float:
    return float(torch.finfo(tensor.dtype).eps ** 0.5) if tensor.is_floating_point() else 0.0


class _Part(fx.GraphModule):
    """A part of a model, made of its live layers: it must not set their modes."""

    def train(self, mode: bool = True) -> _Part:
        raise AssertionError("the freeze set alone sets the mode of the model's layers")


class _SuffixByMode(nn.Module):
    """The rest of a model that is another in eval mode than in train mode."""

    def __init__(self, model: nn.Module, in_training: nn.Module, in_eval: nn.Module) -> None:
        super().__init__()
        # No child of this one: only its mode is asked.
        self._models = (model,)
        self.in_training, self.in_eval = in_training, in_eval

    def forward(self, *stored: Tensor) -> Any:
        return (self.in_training if self._models[0].training else self.in_eval)(*stored)

    def train(self, mode: bool = True) -> _SuffixByMode:
        raise AssertionError("the freeze set alone sets the mode of the model's layers")


def _make_cut(
    module: nn.Module,
    freeze_set: FreezeSet,
    finder: PlaceFinder,
    twins: dict[fx.Node, fx.Node],
    graphs: tuple[fx.Graph, fx.Graph],
) -> Cut:
    place = finder.find()
    crossing = [finder.tensor(node) for node in place.crossing]
    in_training, in_eval = graphs
    suffix: nn.Module = _rest(module, in_training, place, finder.is_written_behind)
    if in_eval is not in_training:
        there = Place(
            frozenset(twins[node] for node in place.kept),
            tuple(twins[node] for node in place.crossing),
            {twins[node]: number for node, number in place.numbers.items()},
            place.saved_share,
        )
        # Which tensors are written over there is not known.
        suffix = _SuffixByMode(module, suffix, _rest(module, in_eval, there, lambda _place, _node: True))
    above = _used_by(module, place.kept)
    behind = _used_by(module, _needed(in_training, place))
    return Cut(
        prefix=_prefix(module, in_training, place),
        suffix=suffix,
        stored=tuple(StoredTensor(tuple(tensor.shape[1:]), tensor.dtype) for tensor in crossing),
        saved_share=place.saved_share,
        layers=[unit for unit in freeze_set.units if unit in above - behind],
        used=[unit for unit in freeze_set.units if unit in above],
        place=place,
    )


def _prefix(module: nn.Module, graph: fx.Graph, place: Place) -> fx.GraphModule:
    prefix = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in place.kept:
            copies[node] = prefix.node_copy(node, copies.__getitem__)
    prefix.output(tuple(copies[node] for node in place.crossing))
    return _Part(module, prefix, "Prefix")


def _rest(
    module: nn.Module,
    graph: fx.Graph,
    place: Place,
    is_written: Callable[[Place, fx.Node], bool],
    until: Place | None = None,
) -> fx.GraphModule:
    """Return what comes behind a place: all of it, or what leads to another place."""
    rest = fx.Graph()
    stored = [rest.placeholder(node.name) for node in place.crossing]
    copies: dict[fx.Node, Any] = {node: _number(number, stored[0]) for node, number in place.numbers.items()}
    for node, placeholder in zip(place.crossing, stored, strict=True):
        # An in-place layer would write into the store.
        copies[node] = rest.call_method("clone", (placeholder,)) if is_written(place, node) else placeholder
    needed = _needed(graph, place, until)
    for node in graph.nodes:
        if node in needed:
            copies[node] = rest.node_copy(node, copies.__getitem__)
    if until is not None:
        rest.output(tuple(copies[node] for node in until.crossing))
    return _Part(module, rest, "Rest")


def _needed(graph: fx.Graph, place: Place, until: Place | None = None) -> set[fx.Node]:
    """Return the nodes that are computed behind a place, and what these need that is no image's."""
    given = {*place.crossing, *place.numbers}
    wanted = graph.nodes if until is None else until.kept
    needed = {node for node in wanted if node not in place.kept}
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(each for each in node.all_input_nodes if each not in given)
    return needed


def _number(stands_for: Any, stored: fx.Node) -> Any:
    if isinstance(stands_for, tuple):
        return tuple(_number(each, stored) for each in stands_for)
    if stands_for is DEVICE:
        return stored.graph.call_function(getattr, (stored, "device"))
    if isinstance(stands_for, PerImage):
        num_images = stored.graph.call_method("size", (stored, 0))
        return stored.graph.call_function(operator.mul, (num_images, stands_for.times))
    return stands_for


def _used_by(module: nn.Module, nodes: Collection[fx.Node]) -> set[str]:
    """Name the modules that some calls use."""
    names = {layer: fqn for fqn, layer in module.named_modules()}
    used: set[str] = set()
    for node in nodes:
        target = str(node.target)
        if node.op == "call_module":
            used.update(names[layer] for layer in module.get_submodule(target).modules())
        elif node.op == "get_attr":
            used.add(names[module.get_submodule(target.rpartition(".")[0])])
    return used
