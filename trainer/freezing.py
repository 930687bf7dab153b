"""Freeze and unfreeze layers so that frozen means frozen: no drift of weights or of buffers, shown by hash."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn

from trainer.config import ModelConfig
from trainer.messages.model_info import is_bias
from trainer.tensor_bytes import add_to

BACKBONE = "backbone"
HEAD = "head"
NUM_NAMED = 3
LONGEST_NAMED = 40
"""Layers are all named where they are this many at most, or take this many characters."""


class FreezeError(ValueError):
    """A freeze set that cannot be applied, with the sentence for the user."""


class FreezeSet:
    """Which parts of a model are frozen, and the only code that changes it or sets the model's mode.

    What is frozen is a set of *atoms*: each parameter by its qualified name ("bn1.bias"), and each module that owns
    buffers but no parameters by its own. It is told by *units*, the modules that own any of these: a unit all of whose
    atoms are frozen stands there by its name, and of another one the frozen parameters by theirs. A layer's name in a
    command stands for all atoms at and below it.

    A frozen parameter has ``requires_grad`` off and no gradient. A module at and below which everything is frozen is
    in eval mode, so that neither the optimizer, nor running statistics, nor dropout change what it computes. A layer
    whose weight is frozen and whose bias learns is in train mode: its statistics and its buffers go on.

    Units with running statistics (BatchNorm) may be *adapting*: when such a unit is frozen its weights are, but it
    stays in train mode, so that its statistics follow the data. Its proof is of the weights alone.

    Attributes:
        units: Names of the units, in the model's order.
        atoms: Names of the atoms, in the model's order.
        frozen: What is frozen, by units where these are wholly frozen.
        frozen_atoms: The atoms that are frozen.
        adapting: Names of the units whose statistics go on when they are frozen.
        adapting_buffers: Buffers that a forward pass in train mode changes.
        num_changes: Counts what was frozen, unfrozen, let adapt, or put back.
        before_frozen_changes: Called before anything that is frozen may change.

    """

    def __init__(self, module: nn.Module, head: list[str]) -> None:
        self._module = module
        self._head = head
        self._modules = dict(module.named_modules())
        # swin's own last layer is named "head": beside an appended one, the word is that layer's.
        self._head_word = head[0] if HEAD in self._modules and HEAD not in head else HEAD
        self._parameters: dict[str, nn.Parameter] = {}
        self._atoms_of_unit: dict[str, list[str]] = {}
        for fqn, child in self._modules.items():
            own = {_join(fqn, name): parameter for name, parameter in child.named_parameters(recurse=False)}
            if own or any(True for _ in child.buffers(recurse=False)):
                self._atoms_of_unit[fqn] = list(own) or [fqn]
                self._parameters |= own
        self.units = list(self._atoms_of_unit)
        self._unit_of_atom = {atom: unit for unit, atoms in self._atoms_of_unit.items() for atom in atoms}
        self.atoms = list(self._unit_of_atom)
        self._atoms_below: dict[str, list[str]] = {fqn: [] for fqn in self._modules}
        for atom, unit in self._unit_of_atom.items():
            for ancestor in self_and_ancestors(unit):
                self._atoms_below[ancestor].append(atom)
        self._tied = self._find_tied()
        self.frozen: set[str] = set()
        self.frozen_atoms: set[str] = set()
        self.adapting: set[str] = set()
        self.num_changes = 0
        self.before_frozen_changes: Callable[[], None] = lambda: None
        self.adapting_buffers = list(module.buffers())
        self._parameter_hashes: dict[str, str] = {}
        self._buffer_hashes: dict[str, str] = {}
        self._eval_modules: list[nn.Module] = []
        self._is_training = True
        self.num_params = sum(parameter.numel() for parameter in set(self._parameters.values()))

    @property
    def num_trainable(self) -> int:
        """Count the parameters that the optimizer moves."""
        return sum(p.numel() for p in set(self._parameters.values()) if p.requires_grad)

    @property
    def has_statistics(self) -> bool:
        """Tell whether any layer keeps running statistics."""
        return bool(self.units_with_statistics)

    @property
    def units_with_statistics(self) -> list[str]:
        """Return the units that keep running statistics, in the model's order."""
        return [unit for unit in self.units if has_statistics(self._modules[unit])]

    @property
    def eval_modules(self) -> list[nn.Module]:
        """The modules that stay in eval mode while the others train."""
        return list(self._eval_modules)

    def resolve(self, layers: Iterable[str], *, is_exact: bool = False) -> list[str]:
        """Return the atoms that the names stand for, in the model's order.

        Args:
            layers: Qualified names of modules or of parameters, or patterns of either ("layer?.*.bn1", "*.bias");
                "backbone" is everything outside the head, "head" the task's head, unless that is the name of a layer
                of the backbone.
            is_exact: The names of modules stand for what these own themselves, and for nothing below them.

        Raises:
            FreezeError: A name is none of this model's, or a pattern matches nothing.

        """
        return self._with_tied(self._named(layers, is_exact))

    def resolve_units(self, layers: Iterable[str], *, is_exact: bool = False) -> list[str]:
        """Return the units that the names stand for, in the model's order. For what is of a whole layer.

        Raises:
            FreezeError: As ``resolve``, or a name stands for a part of a layer.

        """
        named = self._named(layers, is_exact)
        for name in self.names_of(named):
            if name not in self._atoms_of_unit:
                unit = self._unit_of_atom[name]
                raise FreezeError(f"{name!r} is only a part of the layer {unit!r}. Name the whole layer.")
        return self.units_of(self._with_tied(named))

    def names_of(self, atoms: Iterable[str]) -> list[str]:
        """Name atoms as ``frozen`` does: by units where all that a unit owns is among them."""
        among = set(atoms)
        names: list[str] = []
        for unit, own in self._atoms_of_unit.items():
            names += [unit] if among.issuperset(own) else [atom for atom in own if atom in among]
        return names

    def names_for_config(self) -> list[str]:
        """Name what is frozen as a configuration does, where a unit's name stands for what is below it, too."""
        names: list[str] = []
        for unit, own in self._atoms_of_unit.items():
            is_whole = self.frozen_atoms.issuperset(self._atoms_below[unit])
            names += [unit] if is_whole else [atom for atom in own if atom in self.frozen_atoms]
        return names

    def fewest_names(self, names: Iterable[str], among: Iterable[str] | None = None) -> list[str]:
        """Name a set of atoms or units by the fewest names that a configuration takes, each for all that is below it.

        ``among`` are the only ones that the configuration's list is about, None for all.
        """
        wanted, kind = self._exactly(names), set(self.atoms if among is None else self._exactly(among))
        by_name = {word: self._atoms_of(word) for word in (BACKBONE, self._head_word)}
        for fqn, below in self._atoms_below.items():
            # Nothing names the whole model.
            if fqn:
                by_name.setdefault(fqn, below)
            for atom in self._atoms_of_unit.get(fqn, ()):
                by_name.setdefault(atom, [atom])
        found: list[str] = []
        told: set[str] = set()
        for name, atoms in by_name.items():
            meant = kind.intersection(atoms)
            if meant <= wanted and not meant <= told:
                found.append(name)
                told |= meant
        return found

    def units_of(self, atoms: Iterable[str]) -> list[str]:
        """Return the units that own any of some atoms, in the model's order."""
        owners = {self._unit_of_atom[atom] for atom in atoms}
        return [unit for unit in self.units if unit in owners]

    def freeze(self, layers: Iterable[str], *, but: Iterable[str] = (), is_exact: bool = False) -> list[str]:
        """Freeze layers, ``but`` some; all of them or, where that is refused, none. Returns what changed, by units.

        Raises:
            FreezeError: A name is none of this model's, or nothing would be left to train.

        """
        changed = self.learning(layers, but=but, is_exact=is_exact)
        self.set_frozen(self.frozen_atoms.union(changed))
        return self.names_of(changed)

    def unfreeze(self, layers: Iterable[str], *, is_exact: bool = False) -> list[str]:
        """Make layers trainable again, named as for ``resolve``. Returns what changed, by units.

        Raises:
            FreezeError: A name is none of this model's.

        """
        changed = self.frozen_among(layers, is_exact=is_exact)
        self.set_frozen(self.frozen_atoms.difference(changed))
        return self.names_of(changed)

    def learning(self, layers: Iterable[str], *, but: Iterable[str] = (), is_exact: bool = False) -> list[str]:
        """Return the atoms of layers, ``but`` some, that a freeze would change. Raises FreezeError as ``resolve``."""
        spared = self.frozen_atoms.union(self.resolve(but))
        return [atom for atom in self.resolve(layers, is_exact=is_exact) if atom not in spared]

    def frozen_among(self, layers: Iterable[str], *, is_exact: bool = False) -> list[str]:
        """Return the atoms of layers that an unfreeze would change. Raises FreezeError as ``resolve``."""
        return [atom for atom in self.resolve(layers, is_exact=is_exact) if atom in self.frozen_atoms]

    def set_frozen(self, names: Iterable[str]) -> None:
        """Make exactly these frozen: atoms, or units for all that they own themselves.

        Raises:
            FreezeError: Nothing would be left to train, or a name is none of this model's.

        """
        wanted = self.check(names)
        if not self.frozen_atoms <= wanted:
            self.before_frozen_changes()
        for atom, parameter in self._parameters.items():
            parameter.requires_grad_(atom not in wanted)
            if atom in wanted:
                # A stale or zeroed gradient would still let momentum and weight decay move the weights.
                parameter.grad = None
        known, known_buffers = self._parameter_hashes, self._buffer_hashes
        self.frozen_atoms, self.frozen = wanted, set(self.names_of(wanted))
        self._parameter_hashes = {atom: known.get(atom) or self._hash_of(atom) for atom in self._frozen_parameters()}
        self._buffer_hashes = {unit: known_buffers.get(unit) or self._hash_buffers(unit) for unit in self._still()}
        self._follow()

    def set_adapting(self, layers: Iterable[str], *, is_adapting: bool) -> list[str]:
        """Let the statistics of layers go on when they are frozen, or not. Returns the units that changed.

        Raises:
            FreezeError: A name is no layer, or there are no running statistics at or below any of them.

        """
        units = self.with_statistics(layers)
        changed = [unit for unit in units if (unit in self.adapting) != is_adapting]
        if is_adapting and self._buffer_hashes.keys() & set(changed):
            self.before_frozen_changes()
        self.adapting = self.adapting.union(changed) if is_adapting else self.adapting.difference(changed)
        # The weights' hashes stay those of the freeze: only of the statistics does the proof begin anew.
        self._buffer_hashes |= {unit: self._hash_buffers(unit) for unit in self._still() if unit in changed}
        self._follow()
        return changed

    def with_statistics(self, layers: Iterable[str]) -> list[str]:
        """Return the units with running statistics among what the names stand for, in the model's order.

        Raises:
            FreezeError: As ``resolve_units``, or there are none.

        """
        names = list(layers)
        units = [unit for unit in self.resolve_units(names) if has_statistics(self._modules[unit])]
        if not units:
            raise FreezeError(
                f"There are no running statistics in {', '.join(map(repr, names))}. Name a BatchNorm, or a layer "
                "above one."
            )
        return units

    def check(self, names: Iterable[str]) -> set[str]:
        """Check that these, named as for ``set_frozen``, could be what is frozen. Returns the atoms.

        Raises:
            FreezeError: Nothing would be left to train, or a name is none of this model's.

        """
        wanted = self._exactly(names)
        if wanted.issuperset(self._parameters):
            raise FreezeError("Cannot freeze every layer: nothing would be left to train. Leave the head unfrozen.")
        return wanted

    def parameters(self, atoms: Iterable[str]) -> list[nn.Parameter]:
        """Return the parameters among atoms."""
        return [self._parameters[atom] for atom in atoms if atom in self._parameters]

    def buffers(self, units: Iterable[str]) -> list[torch.Tensor]:
        """Return the buffers that units own."""
        return [buffer for unit in units for buffer in self._modules[unit].buffers(recurse=False)]

    def set_mode(self, *, training: bool) -> None:
        """Put the model in train or eval mode. Everything frozen stays in eval mode, whatever ``train()`` would do."""
        self._is_training = training
        self._module.train(training)
        for child in self._eval_modules:
            child.training = False

    def take_hashes(self) -> None:
        """Take the hashes of what is frozen anew, after its weights were put there on purpose (a restore)."""
        self._parameter_hashes = {atom: self._hash_of(atom) for atom in self._frozen_parameters()}
        self._buffer_hashes = {unit: self._hash_buffers(unit) for unit in self._still()}
        self.num_changes += 1

    def fingerprint(self, units: Iterable[str]) -> str:
        """Return the SHA-256 of what frozen units hold, from the hashes that were taken as they froze."""
        digest = hashlib.sha256()
        for unit in units:
            owned = [self._parameter_hashes.get(atom) for atom in self._atoms_of_unit[unit]]
            digest.update(f"{unit} {owned} {self._buffer_hashes.get(unit)}\n".encode())
        return digest.hexdigest()

    def still_keys(self) -> set[str]:
        """Return the keys of a state_dict whose tensors nothing changes until ``before_frozen_changes`` was called."""
        units = self._buffer_hashes.keys() - self.adapting
        buffers = {_join(unit, name) for unit in units for name, _ in self._own_buffers(unit)}
        return self._parameter_hashes.keys() | buffers

    def find_drifted(self) -> list[str]:
        """Hash all that is frozen again and return the units whose bytes changed since: none, or a defect."""
        return self.drift_check()()

    def drift_check(self, copied: Mapping[str, torch.Tensor] | None = None) -> Callable[[], list[str]]:
        """Return what ``find_drifted`` does, for another thread to call later.

        ``copied`` is a copy of the module's state_dict, of which it is then; None for the live tensors.
        """

        def now(key: str, live: torch.Tensor) -> torch.Tensor:
            if copied is None:
                return live
            # Some buffers are left out of a state_dict.
            return copied[key] if key in copied else live.detach().to("cpu", copy=True)

        parameters = [
            (self._unit_of_atom[atom], then, {atom: now(atom, self._parameters[atom])})
            for atom, then in self._parameter_hashes.items()
        ]
        buffers = [
            (unit, then, {name: now(f"{unit}.{name}".lstrip("."), live) for name, live in self._own_buffers(unit)})
            for unit, then in self._buffer_hashes.items()
            if unit not in self.adapting
        ]

        def find() -> list[str]:
            drifted = {unit for unit, then, tensors in (*parameters, *buffers) if _hash_tensors(tensors) != then}
            return [unit for unit in self.units if unit in drifted]

        return find

    def describe(self, names: Iterable[str]) -> str:
        """Name a set of atoms or units by the fewest layers ("stage4, conv5"; "backbone"; "biases of layer4")."""
        wanted = self._exactly(names)
        biases = {atom for atom in self._parameters if is_bias(atom)}
        if not wanted:
            return "nothing"
        is_by_kind = len(wanted) > 1 and not self._atoms_of_unit.keys() >= set(self.names_of(wanted))
        if is_by_kind and wanted == biases:
            return "all biases"
        if is_by_kind and wanted < biases:
            return f"biases of {_told(self._fewest_names(wanted, biases))}"
        if is_by_kind and wanted.isdisjoint(biases):
            return f"weights of {_told(self._fewest_names(wanted, set(self.atoms) - biases))}"
        return _told(self._fewest_names(wanted, set(self.atoms)))

    def describe_range(self, names: Iterable[str]) -> str:
        """Name a set that begins with the model's first layer and has all up to a last one: "conv1 … layer2"."""
        fewest = self._fewest_names(self._exactly(names), set(self.atoms))
        return fewest[0] if len(fewest) == 1 else f"{fewest[0]} … {fewest[-1]}"

    def describe_statistics(self, units: Iterable[str]) -> str:
        """Name units with running statistics by the fewest layers, as if there were no other units."""
        return _told(self._fewest_names(self._exactly(units), self._exactly(self.units_with_statistics)))

    def _fewest_names(self, wanted: set[str], kind: set[str]) -> list[str]:
        """Name atoms that are all of one kind, as if there were no others."""
        head = kind.intersection(self._atoms_of(self._head_word))
        names: list[str] = []
        for word, part in ((BACKBONE, kind - head), (self._head_word, head)):
            if part and part <= wanted:
                names.append(word)
                continue
            told: set[str] = set()
            for fqn in self._modules:
                below = part.intersection(self._atoms_below[fqn])
                if below and below <= wanted and not below <= told:
                    names.append(fqn)
                    told |= below
                rest = wanted.intersection(part, self._atoms_of_unit.get(fqn, ())) - told
                names += [atom for atom in self._atoms_of_unit.get(fqn, ()) if atom in rest]
        return names

    def _named(self, layers: Iterable[str], is_exact: bool) -> set[str]:
        named: set[str] = set()
        for layer in layers:
            own = self._own_atoms(layer) if is_exact else None
            named.update(self._atoms_of(layer) if own is None else own)
        return named

    def _with_tied(self, atoms: set[str]) -> list[str]:
        among = atoms.union(*(self._tied.get(atom, ()) for atom in atoms))
        return [atom for atom in self.atoms if atom in among]

    def _exactly(self, names: Iterable[str]) -> set[str]:
        atoms: set[str] = set()
        for name in names:
            own = self._own_atoms(name)
            if own is None:
                raise FreezeError(f"The model has no layer {name!r}. Its tree lists the names.")
            atoms.update(own)
        return atoms

    def _own_atoms(self, name: str) -> list[str] | None:
        return self._atoms_of_unit.get(name) or ([name] if name in self._unit_of_atom else None)

    def _atoms_of(self, layer: str) -> list[str]:
        if layer == self._head_word:
            return [atom for atom in self.atoms if any(_is_below(atom, head) for head in self._head)]
        if layer == BACKBONE:
            return [atom for atom in self.atoms if not any(_is_below(atom, head) for head in self._head)]
        if layer in self._modules and layer:
            if self._atoms_below[layer]:
                return self._atoms_below[layer]
            raise FreezeError(f"Layer {layer!r} has no parameters or buffers to freeze. Name the layers around it.")
        own = self._own_atoms(layer)
        if own is not None:
            return own
        if is_pattern(layer):
            matched = [atom for fqn in self._modules if fnmatchcase(fqn, layer) for atom in self._atoms_below[fqn]]
            matched += [atom for atom in self._parameters if fnmatchcase(atom, layer)]
            if not matched:
                raise FreezeError(
                    f"The pattern {layer!r} matches no layer and no parameter of the model. Its tree lists the names."
                )
            return matched
        names = [BACKBONE, self._head_word, *filter(None, self._modules), *self._parameters]
        close = difflib.get_close_matches(layer, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else " The model's tree, or thaw summary, lists the names."
        raise FreezeError(f"The model has no layer {layer!r}.{hint}")

    def _follow(self) -> None:
        """Bring the modes up to date with what is frozen and what adapts."""
        self._eval_modules = [
            self._modules[fqn] for fqn in self._modules if fqn not in self.adapting and self._is_module_frozen(fqn)
        ]
        self.num_changes += 1
        still = set(self._still()) - self.adapting
        self.adapting_buffers = self.buffers(unit for unit in self.units if unit not in still)
        self.set_mode(training=self._is_training)

    def _frozen_parameters(self) -> list[str]:
        return [atom for atom in self._parameters if atom in self.frozen_atoms]

    def _still(self) -> list[str]:
        """Return the units whose buffers are frozen with them, unless they adapt: those in eval mode."""
        return [unit for unit in self.units if self._is_module_frozen(unit)]

    def _hash_of(self, atom: str) -> str:
        return _hash_tensors({atom: self._parameters[atom]})

    def _hash_buffers(self, unit: str) -> str:
        return _hash_tensors(dict(self._own_buffers(unit)))

    def _own_buffers(self, unit: str) -> list[tuple[str, torch.Tensor]]:
        return list(self._modules[unit].named_buffers(recurse=False))

    def _is_module_frozen(self, fqn: str) -> bool:
        # A module without parameters (dropout, say) follows the nearest module above it that has some.
        while not self._atoms_below[fqn] and fqn:
            fqn = fqn.rpartition(".")[0]
        below = self._atoms_below[fqn]
        return bool(below) and self.frozen_atoms.issuperset(below)

    def _find_tied(self) -> dict[str, set[str]]:
        names: dict[int, set[str]] = {}
        for atom, parameter in self._parameters.items():
            names.setdefault(id(parameter), set()).add(atom)
        return {atom: tied for tied in names.values() if len(tied) > 1 for atom in tied}


def freeze_at_start(freeze_set: FreezeSet, config: ModelConfig) -> None:
    """Freeze what a configuration says, and let those statistics go on that it names.

    Raises:
        FreezeError: A name is none of this model's, or nothing would be left to train.

    """
    freeze_set.freeze(config.frozen)
    if config.batchnorm == "adapting" and freeze_set.has_statistics:
        freeze_set.set_adapting([BACKBONE, HEAD], is_adapting=True)
    for layer in config.adapting:
        freeze_set.set_adapting([layer], is_adapting=True)


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
        if tensor.is_meta:
            # A model without memory, made for its summary, has no bytes that could drift.
            continue
        add_to(digest, tensor)
    return digest.hexdigest()


def is_pattern(layer: str) -> bool:
    """Tell a pattern of layers' names from a name: no name has such signs in it."""
    return any(sign in layer for sign in "*?[")


def _join(fqn: str, name: str) -> str:
    return f"{fqn}.{name}" if fqn else name


def _owned_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def self_and_ancestors(fqn: str) -> list[str]:
    """Name a module and those around it, up to the whole model."""
    parts = fqn.split(".") if fqn else []
    return [".".join(parts[:depth]) for depth in range(len(parts), -1, -1)]


def _is_below(fqn: str, ancestor: str) -> bool:
    return ancestor in {"", fqn} or fqn.startswith(f"{ancestor}.")


def _told(names: list[str]) -> str:
    text = ", ".join(names)
    if len(names) <= NUM_NAMED or len(text) <= LONGEST_NAMED:
        return text
    return f"{names[0]}, {names[1]} and {len(names) - 2} more"
