"""Freeze and unfreeze layers so that frozen means frozen: no drift of weights or of buffers, shown by hash."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

BACKBONE = "backbone"
HEAD = "head"


class FreezeError(ValueError):
    """A freeze set that cannot be applied, with the sentence for the user."""


class FreezeSet:
    """Which layers of a model are frozen, and the only code that changes it or sets the model's mode.

    A *unit* is a module that owns parameters or buffers itself; a layer's name stands for all units at and below it.
    A frozen unit has ``requires_grad`` off and no gradient, and is in eval mode, as is every module below which
    everything is frozen, so that neither the optimizer, nor running statistics, nor dropout change what it computes.

    Units with running statistics (BatchNorm) may be *adapting*: when such a unit is frozen its weights are, but it
    stays in train mode, so that its statistics follow the data. Its proof is of the weights alone.

    Attributes:
        units: Names of the units, in the model's order.
        frozen: Names of those that are frozen.
        adapting: Names of the units whose statistics go on when they are frozen.
        adapting_buffers: Buffers that a forward pass in train mode changes.

    """

    def __init__(self, module: nn.Module, head: list[str]) -> None:
        self._module = module
        self._head = head
        self._modules = dict(module.named_modules())
        # swin's own last layer is named "head": beside an appended one, the word is that layer's.
        self._head_word = head[0] if HEAD in self._modules and HEAD not in head else HEAD
        self.units = [fqn for fqn, child in self._modules.items() if _owned_tensors(child)]
        self.frozen: set[str] = set()
        self.adapting: set[str] = set()
        self.adapting_buffers = list(module.buffers())
        self._hashes: dict[str, _Hashes] = {}
        self._eval_modules: list[nn.Module] = []
        self._is_training = True
        self._tied = self._find_tied()
        self._units_below: dict[str, list[str]] = {fqn: [] for fqn in self._modules}
        for unit in self.units:
            for ancestor in _self_and_ancestors(unit):
                self._units_below[ancestor].append(unit)
        parameters = dict.fromkeys(module.parameters())
        self.num_params = sum(parameter.numel() for parameter in parameters)

    @property
    def num_trainable(self) -> int:
        """Count the parameters that the optimizer moves."""
        return sum(p.numel() for p in dict.fromkeys(self._module.parameters()) if p.requires_grad)

    def resolve(self, layers: Iterable[str], *, is_exact: bool = False) -> list[str]:
        """Return the units that the names stand for, in the model's order.

        Args:
            layers: Qualified names of modules, or patterns of them ("layer?.*.bn1"); "backbone" is every unit outside
                the head, "head" the task's head, unless that is the name of a layer of the backbone.
            is_exact: The names are units' own, and stand for nothing below these.

        Raises:
            FreezeError: A name is no layer of this model, or a pattern matches none.

        """
        named: set[str] = set()
        for layer in layers:
            named.update([layer] if is_exact and layer in self.units else self._units_of(layer))
        for unit in list(named):
            named.update(self._tied.get(unit, ()))
        return [unit for unit in self.units if unit in named]

    def freeze(self, layers: Iterable[str], *, but: Iterable[str] = (), is_exact: bool = False) -> list[str]:
        """Freeze layers, ``but`` some; all of them or, where that is refused, none. Returns the units that changed.

        Raises:
            FreezeError: A name is no layer, or nothing would be left to train.

        """
        changed = self.learning(layers, but=but, is_exact=is_exact)
        self.set_frozen(self.frozen.union(changed))
        return changed

    def unfreeze(self, layers: Iterable[str], *, is_exact: bool = False) -> list[str]:
        """Make layers trainable again, named as for ``resolve``. Returns the units that changed.

        Raises:
            FreezeError: A name is no layer.

        """
        changed = self.frozen_among(layers, is_exact=is_exact)
        self.set_frozen(self.frozen.difference(changed))
        return changed

    def learning(self, layers: Iterable[str], *, but: Iterable[str] = (), is_exact: bool = False) -> list[str]:
        """Return the units of layers, ``but`` some, that a freeze would change. Raises FreezeError as ``resolve``."""
        spared = self.frozen.union(self.resolve(but))
        return [unit for unit in self.resolve(layers, is_exact=is_exact) if unit not in spared]

    def frozen_among(self, layers: Iterable[str], *, is_exact: bool = False) -> list[str]:
        """Return the units of layers that an unfreeze would change. Raises FreezeError as ``resolve``."""
        return [unit for unit in self.resolve(layers, is_exact=is_exact) if unit in self.frozen]

    def set_frozen(self, units: Iterable[str]) -> None:
        """Make exactly these units frozen.

        Raises:
            FreezeError: Nothing would be left to train, or a unit is none of this model's.

        """
        wanted = set(units)
        self.check(wanted)
        for unit in self.units:
            is_frozen = unit in wanted
            for parameter in _parameters(self._modules[unit]):
                parameter.requires_grad_(not is_frozen)
                if is_frozen:
                    # A stale or zeroed gradient would still let momentum and weight decay move the weights.
                    parameter.grad = None
            if is_frozen and unit not in self.frozen:
                self._hashes[unit] = _Hashes.of(self._modules[unit])
        self.frozen = wanted
        self._hashes = {unit: digest for unit, digest in self._hashes.items() if unit in wanted}
        self._follow()

    def set_adapting(self, layers: Iterable[str], *, is_adapting: bool) -> list[str]:
        """Let the statistics of layers go on when they are frozen, or not. Returns the units that changed.

        Raises:
            FreezeError: A name is no layer, or there are no running statistics at or below any of them.

        """
        names = list(layers)
        units = [unit for unit in self.resolve(names) if has_statistics(self._modules[unit])]
        if not units:
            raise FreezeError(
                f"There are no running statistics in {', '.join(map(repr, names))}. Name a BatchNorm, or a layer "
                "above one."
            )
        changed = [unit for unit in units if (unit in self.adapting) != is_adapting]
        self.adapting = self.adapting.union(changed) if is_adapting else self.adapting.difference(changed)
        for unit in self.frozen.intersection(changed):
            # The weights' hash stays that of the freeze: only of the statistics does the proof begin anew.
            self._hashes[unit] = _Hashes(self._hashes[unit].parameters, _Hashes.of(self._modules[unit]).buffers)
        self._follow()
        return changed

    def check(self, wanted: set[str]) -> None:
        """Check that these units could be what is frozen.

        Raises:
            FreezeError: Nothing would be left to train, or a unit is none of this model's.

        """
        unknown = wanted.difference(self.units)
        if unknown:
            raise FreezeError(f"The model has no layer {min(unknown)!r}. Its tree lists the names.")
        if not any(_parameters(self._modules[unit]) for unit in self.units if unit not in wanted):
            raise FreezeError("Cannot freeze every layer: nothing would be left to train. Leave the head unfrozen.")

    def parameters(self, units: Iterable[str]) -> list[nn.Parameter]:
        """Return the parameters that units own."""
        return [parameter for unit in units for parameter in _parameters(self._modules[unit])]

    def set_mode(self, *, training: bool) -> None:
        """Put the model in train or eval mode. Everything frozen stays in eval mode, whatever ``train()`` would do."""
        self._is_training = training
        self._module.train(training)
        for child in self._eval_modules:
            child.training = False

    def take_hashes(self) -> None:
        """Take the hashes of what is frozen anew, after its weights were put there on purpose (a restore)."""
        self._hashes = {unit: _Hashes.of(self._modules[unit]) for unit in self.frozen}

    def find_drifted(self) -> list[str]:
        """Hash every frozen unit again and return those whose bytes changed since it was frozen: none, or a defect."""
        return [unit for unit in self.units if unit in self.frozen and self._has_drifted(unit)]

    def describe(self, units: Iterable[str]) -> str:
        """Name a set of units by the fewest layers ("stage4, conv5"; "backbone"; "conv1 … stage3")."""
        head_units = set(self._units_of(self._head_word))
        wanted = set(units)
        backbone_wanted = wanted - head_units
        if not wanted:
            return "nothing"
        names: list[str] = []
        if backbone_wanted and backbone_wanted == set(self.units) - head_units:
            names = [BACKBONE]
        else:
            for fqn, units_below in self._units_below.items():
                below = set(units_below) - head_units
                if fqn and below and below <= backbone_wanted and not any(_is_below(fqn, name) for name in names):
                    names.append(fqn)
            covered = {unit for name in names for unit in self._units_below[name]}
            names += [unit or "the model's own parameters" for unit in self.units if unit in backbone_wanted - covered]
        if wanted & head_units:
            names.append(self._head_word)
        return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]}"

    def _units_of(self, layer: str) -> list[str]:
        if layer == self._head_word:
            return [unit for unit in self.units if any(_is_below(unit, head) for head in self._head)]
        if layer == BACKBONE:
            return [unit for unit in self.units if not any(_is_below(unit, head) for head in self._head)]
        if layer in self._modules and layer:
            if self._units_below[layer]:
                return self._units_below[layer]
            raise FreezeError(f"Layer {layer!r} has no parameters or buffers to freeze. Name the layers around it.")
        if layer in self.units:
            return [layer]
        if is_pattern(layer):
            matched = [fqn for fqn in self._modules if fnmatchcase(fqn, layer)]
            if not any(self._units_below[fqn] for fqn in matched):
                raise FreezeError(f"The pattern {layer!r} matches no layer of the model. Its tree lists the names.")
            return [unit for fqn in matched for unit in self._units_below[fqn]]
        names = [BACKBONE, self._head_word, *filter(None, self._modules)]
        close = difflib.get_close_matches(layer, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else " The model's tree lists the names."
        raise FreezeError(f"The model has no layer {layer!r}.{hint}")

    def _follow(self) -> None:
        """Bring the modes up to date with what is frozen and what adapts."""
        self._eval_modules = [
            self._modules[fqn] for fqn in self._modules if fqn not in self.adapting and self._is_module_frozen(fqn)
        ]
        self.adapting_buffers = [
            buffer
            for unit in self.units
            if unit not in self.frozen or unit in self.adapting
            for buffer in self._modules[unit].buffers(recurse=False)
        ]
        self.set_mode(training=self._is_training)

    def _has_drifted(self, unit: str) -> bool:
        now, then = _Hashes.of(self._modules[unit]), self._hashes[unit]
        return now.parameters != then.parameters or (unit not in self.adapting and now.buffers != then.buffers)

    def _is_module_frozen(self, fqn: str) -> bool:
        # A module without parameters (dropout, say) follows the nearest module above it that has some.
        while not self._units_below[fqn] and fqn:
            fqn = fqn.rpartition(".")[0]
        below = self._units_below[fqn]
        return bool(below) and self.frozen.issuperset(below)

    def _find_tied(self) -> dict[str, set[str]]:
        owners: dict[int, set[str]] = {}
        for unit in self.units:
            for parameter in _parameters(self._modules[unit]):
                owners.setdefault(id(parameter), set()).add(unit)
        tied: dict[str, set[str]] = {}
        for group in owners.values():
            for unit in group:
                if len(group) > 1:
                    tied.setdefault(unit, set()).update(group)
        return tied


@dataclass(frozen=True)
class _Hashes:
    """The SHA-256 of a module's own parameters, and that of its own buffers."""

    parameters: str
    buffers: str

    @classmethod
    def of(cls, module: nn.Module) -> _Hashes:
        parameters, buffers = module.named_parameters(recurse=False), module.named_buffers(recurse=False)
        return cls(_hash_tensors(dict(parameters)), _hash_tensors(dict(buffers)))


def has_statistics(module: nn.Module) -> bool:
    """Tell whether a module keeps running statistics of its own, as BatchNorm does."""
    return getattr(module, "running_mean", None) is not None


def hash_layer(module: nn.Module) -> str:
    """Return the SHA-256 of a module's own parameters and buffers, to the bit (children not included)."""
    return _hash_tensors(_owned_tensors(module))


def _hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_pattern(layer: str) -> bool:
    """Tell a pattern of layers' names from a name: no name has such signs in it."""
    return any(sign in layer for sign in "*?[")


def _parameters(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _owned_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def _self_and_ancestors(fqn: str) -> list[str]:
    parts = fqn.split(".") if fqn else []
    return [".".join(parts[:depth]) for depth in range(len(parts), -1, -1)]


def _is_below(fqn: str, ancestor: str) -> bool:
    return ancestor in {"", fqn} or fqn.startswith(f"{ancestor}.")
