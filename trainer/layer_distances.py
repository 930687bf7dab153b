"""How far the weights of one checkpoint are from those of another, layer by layer and summed up the tree."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer.messages.comparison import ComparedLayer, LayerDistance
from trainer.messages.model_info import LayerInfo
from trainer.tensor_bytes import is_same

_VALUES_AT_ONCE = 1 << 22
"""In float64, of each of two tensors: a whole embedding would take several times its own memory."""


@dataclass
class _Sums:
    """Of weights that both have: the sums of the squares and of the products. They add up, up the tree."""

    num_values: int = 0
    first: float = 0.0
    other: float = 0.0
    difference: float = 0.0
    product: float = 0.0

    def add(self, more: _Sums) -> None:
        self.num_values += more.num_values
        self.first += more.first
        self.other += more.other
        self.difference += more.difference
        self.product += more.product


@dataclass
class _Row:
    """What is gathered of a layer and all below it."""

    sums: _Sums = field(default_factory=_Sums)
    num_units: int = 0
    is_equal: bool = True


@dataclass(frozen=True)
class LayerWeights:
    """The weights of a checkpoint, and what is known of its model's layers.

    Attributes:
        layers: The model's layers, the whole model first.
        frozen: The freeze set as it was saved, by units and parameters.
        state: The model's state_dict, on the CPU.

    """

    layers: list[LayerInfo]
    frozen: list[str]
    state: dict[str, Tensor]

    def types(self) -> dict[str, str]:
        """Return the type of each layer that holds weights or statistics, by its name."""
        holding = {above for layer in self.layers if layer.is_unit for above in _with_ancestors(layer.fqn)}
        return {layer.fqn: layer.type for layer in self.layers if layer.fqn in holding}

    def tensors_of(self) -> dict[str, list[str]]:
        """Return the names of the tensors that each layer owns itself."""
        owned: dict[str, list[str]] = defaultdict(list)
        for name in self.state:
            owned[name.rpartition(".")[0]].append(name)
        return owned

    def weights_of(self) -> dict[str, list[str]]:
        """Return the names of the parameters that each unit owns; one that is tied counts where it is met first."""
        return {
            layer.fqn: [name for name, count in zip(layer.own_names, layer.own_params.values(), strict=True) if count]
            for layer in self.layers
            if layer.is_unit
        }

    def frozen_layers(self) -> set[str]:
        """Return the layers of which all units are frozen."""
        frozen, units, of_frozen = set(self.frozen), dict[str, int](), dict[str, int]()
        for layer in self.layers:
            if layer.is_unit:
                is_frozen = layer.fqn in frozen or frozen.issuperset(layer.own_names or [layer.fqn])
                for fqn in _with_ancestors(layer.fqn):
                    units[fqn] = units.get(fqn, 0) + 1
                    of_frozen[fqn] = of_frozen.get(fqn, 0) + is_frozen
        return {fqn for fqn, count in units.items() if of_frozen[fqn] == count}

    def not_finite(self) -> list[str]:
        """Name the tensors with a value that is NaN or infinite."""
        return [
            name
            for name, tensor in self.state.items()
            if tensor.is_floating_point() and not all(bool(part.isfinite().all()) for part in _parts(tensor))
        ]


class LayerDistances:
    """The distances of checkpoints to a first one, whose weights it holds. The others are taken one after another."""

    def __init__(self, first: LayerWeights) -> None:
        self._first = first
        self._tensors = first.tensors_of()
        self._weights = first.weights_of()
        self._frozen = first.frozen_layers()
        self._squares = {name: _square(first.state[name]) for names in self._weights.values() for name in names}
        self._columns: list[dict[str, LayerDistance]] = []

    def add(self, other: LayerWeights) -> list[str]:
        """Take the next checkpoint, tensor by tensor. Returns a sentence for each layer that has no counterpart."""
        weights, tensors, frozen = other.weights_of(), other.tensors_of(), other.frozen_layers()
        rows: dict[str, _Row] = defaultdict(_Row)
        types, own_types = other.types(), self._first.types()
        said: list[str] = []
        for fqn, names in self._weights.items():
            if fqn not in weights:
                if fqn in types:
                    said.append(f"{fqn}: {types[fqn]}, in the first {own_types[fqn]}")
                continue
            if problem := self._misfit(names, weights[fqn], other):
                said.append(f"{fqn}: {problem}")
                continue
            sums, own = _Sums(), tensors[fqn]
            for name in names:
                sums.add(self._compare(name, other.state[name]))
            is_equal = set(own) == set(self._tensors[fqn]) and all(
                _is_one(self._first.state[name], other.state[name]) for name in own
            )
            for above in _with_ancestors(fqn):
                row = rows[above]
                row.sums.add(sums)
                row.num_units += 1
                row.is_equal = row.is_equal and is_equal
        self._columns.append({fqn: _distance(row, is_frozen=fqn in frozen) for fqn, row in rows.items()})
        said += [f"{fqn}: only in the first" for fqn in _topmost(own_types, types)]
        return said + [f"{fqn}: not in the first" for fqn in _topmost(types, own_types)]

    def rows(self) -> list[ComparedLayer]:
        """Return what was found, in the order of the first one's model."""
        totals: dict[str, _Sums] = defaultdict(_Sums)
        for fqn, names in self._weights.items():
            own = _Sums(sum(self._first.state[name].numel() for name in names), sum(self._squares[n] for n in names))
            for above in _with_ancestors(fqn):
                totals[above].add(own)
        return [
            ComparedLayer(
                fqn=layer.fqn,
                type=layer.type,
                num_values=totals[layer.fqn].num_values,
                norm=math.sqrt(totals[layer.fqn].first),
                is_frozen=layer.fqn in self._frozen,
                distances=[column.get(layer.fqn) for column in self._columns],
            )
            for layer in self._first.layers
            if layer.fqn in totals
        ]

    def _misfit(self, names: list[str], theirs: list[str], other: LayerWeights) -> str:
        """Say why the weights of a layer cannot be compared, or ""."""
        if names != theirs:
            return "has other weights in the first"
        for name in names:
            here, there = self._first.state[name].shape, other.state[name].shape
            if here != there:
                return f"{_shape(there)}, in the first {_shape(here)}"
        return ""

    def _compare(self, name: str, other: Tensor) -> _Sums:
        first, square = self._first.state[name], self._squares[name]
        if _is_one(first, other):
            return _Sums(first.numel(), square, square, 0.0 if math.isfinite(square) else math.nan, square)
        sums = _Sums(first.numel(), square)
        for parts in zip(_parts(first), _parts(other), strict=True):
            a, b = (part.double() for part in parts)
            sums.other += float(b.dot(b))
            sums.product += float(a.dot(b))
            difference = a - b
            sums.difference += float(difference.dot(difference))
        return sums


def _distance(row: _Row, *, is_frozen: bool) -> LayerDistance:
    sums = row.sums
    distance, norm = math.sqrt(sums.difference), math.sqrt(sums.first)
    norms = norm * math.sqrt(sums.other)
    if math.isnan(sums.difference) or math.isinf(sums.difference):
        distance, relative, cosine = math.nan, math.nan, None
    elif not sums.difference:
        relative, cosine = 0.0, 1.0
    else:
        relative = distance / norm if norm else math.inf
        cosine = min(1.0, max(-1.0, sums.product / norms)) if norms else None
    return LayerDistance(
        distance=distance,
        relative=relative,
        cosine=cosine,
        num_compared=sums.num_values,
        is_equal=row.is_equal,
        is_frozen=is_frozen,
    )


def _is_one(a: Tensor, b: Tensor) -> bool:
    # Two checkpoints of a run have one tensor, where it is the base's.
    return a is b or is_same(a, b)


def _square(tensor: Tensor) -> float:
    return sum(float(part.double().square().sum()) for part in _parts(tensor))


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    return iter(torch.split(tensor.reshape(-1), _VALUES_AT_ONCE))


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(str(side) for side in shape) or "one value"


def _with_ancestors(fqn: str) -> Iterator[str]:
    while fqn:
        yield fqn
        fqn = fqn.rpartition(".")[0]
    yield ""


def _topmost(names: Iterable[str], known: Container[str]) -> list[str]:
    """Return the layers that are not known, without those below them. Both have the whole model, ""."""
    return [fqn for fqn in names if fqn not in known and fqn.rpartition(".")[0] in known]
