"""The rows of the model's tree: backbone and head, and what a row stands for in a command."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

from trainer.messages.model_info import LayerInfo, ModelSummary, is_bias

BACKBONE = "backbone"
HEAD = "head"
ROOT_ID, BACKBONE_ID, HEAD_ID = 0, 1, 2

PARAMETER = "Parameter"
"""The type of a row that is a parameter."""

_NORM = re.compile(r"Norm(\dd)?$")


@dataclass
class LayerRow:
    """One row: a module, or a parameter that a module with children owns itself.

    ``atoms`` are what a freeze can name apart at and below it (LayerInfo.atoms), ``units`` the modules that own these,
    ``rated_units`` those of them that have parameters, all in the model's order. A parameter's row has its module as a
    unit if that owns no other. ``depth`` counts the rows above it, ``height`` those below it on the longest way.
    """

    id: int
    parent: int
    fqn: str
    name: str
    type: str
    num_params: int
    own_unit: str | None
    output_shape: list[int] = field(default_factory=list)
    depth: int = 0
    height: int = 0
    position: int = 0
    children: list[int] = field(default_factory=list)
    own_atoms: list[str] = field(default_factory=list)
    atoms: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    rated_units: list[str] = field(default_factory=list)
    command_names: list[str] = field(default_factory=list)


class LayerRows:
    """All rows by id. Row 0 is the invisible root, row 1 the backbone, row 2 the head. They do not change."""

    _latest: ClassVar[tuple[list[LayerInfo], LayerRows] | None] = None

    @classmethod
    def of(cls, summary: ModelSummary) -> LayerRows:
        """Return the rows of a model; for the same one again, those made last: what tells of it goes to several."""
        if cls._latest is None or cls._latest[0] != summary.layers:
            cls._latest = summary.layers, cls(summary)
        return cls._latest[1]

    def __init__(self, summary: ModelSummary | None) -> None:
        self._rows = [
            LayerRow(ROOT_ID, -1, "", "", "", 0, None),
            LayerRow(BACKBONE_ID, ROOT_ID, BACKBONE, BACKBONE, "", 0, None),
            LayerRow(HEAD_ID, ROOT_ID, HEAD, HEAD, "", 0, None),
        ]
        self.num_params_of: dict[str, int] = {}
        """How many values an atom holds that learn unless it is frozen."""
        self.atoms_of_unit: dict[str, list[str]] = {}
        self.unit_of: dict[str, str] = {}
        """The module that an atom belongs to."""
        self.biases: set[str] = set()
        self.ids_of: dict[str, list[int]] = {}
        """The rows at and above each atom."""
        self.with_statistics: set[str] = set()
        """The units that keep running statistics."""
        self._atoms_by_name: dict[str, list[str]] = {}
        self._position: dict[str, int] = {}
        self._is_head_a_layer = False
        if summary is not None:
            self._build(summary)

    def __getitem__(self, row_id: int) -> LayerRow:
        return self._rows[row_id]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def atoms(self) -> list[str]:
        """Return every atom in the model's order, the backbone's before the head's."""
        return self._rows[ROOT_ID].atoms

    @property
    def units(self) -> list[str]:
        """Return every unit, in the same order."""
        return self._rows[ROOT_ID].units

    def atoms_of(self, names: Iterable[str]) -> set[str]:
        """Return the atoms that the names and patterns of a command stand for; unknown names stand for none."""
        found: set[str] = set()
        for name in names:
            known = self._atoms_by_name.get(name)
            found.update([atom for atom in self.atoms if _is_meant(atom, name)] if known is None else known)
        return found

    def atoms_of_set(self, names: Iterable[str]) -> set[str]:
        """Return the atoms of a worker's freeze set. A unit there does not stand for those below it."""
        exact = list(names)
        if not all(name in self.atoms_of_unit or name in self.unit_of for name in exact):
            return self.atoms_of(exact)
        return {atom for name in exact for atom in self.atoms_of_unit.get(name, [name])}

    def units_of(self, names: Iterable[str]) -> set[str]:
        """Return the units of what the names of a command stand for."""
        return {self.unit_of[atom] for atom in self.atoms_of(names)}

    def whole_units(self, atoms: set[str]) -> set[str]:
        """Return the units all of whose atoms are among some."""
        touched = {self.unit_of[atom] for atom in atoms}
        return {unit for unit in touched if atoms.issuperset(self.atoms_of_unit[unit])}

    def names_of(self, atoms: set[str]) -> list[str]:
        """Name a set of atoms by the fewest names that a command takes."""
        return [name for top in self._rows[ROOT_ID].children for name in self._names_below(top, atoms)]

    def names_of_units(self, units: set[str], of_all: set[str]) -> list[str]:
        """Name units by the fewest names that a command takes, where it is about those ``of_all`` and no others."""
        # Units that it is not about are taken along, so that a whole row goes by its one name.
        taken = units.union(unit for unit in self.units if unit not in of_all)
        names = self.names_of({atom for unit in taken for atom in self.atoms_of_unit[unit]})
        return [name for name in names if not units.isdisjoint(self.units_of([name]))]

    def atoms_up_to(self, row_id: int) -> set[str]:
        """Return the atoms from the input to the end of a row."""
        below = self[row_id].atoms
        return set(self.atoms[: self._position[below[-1]] + 1]) if below else set()

    def atoms_from(self, row_id: int) -> set[str]:
        """Return the atoms from the start of a row to the output."""
        below = self[row_id].atoms
        return set(self.atoms[self._position[below[0]] :]) if below else set()

    def first_position(self, row_id: int) -> int:
        """Return the place of a row's first atom in the model's order; the row has one."""
        return self._position[self[row_id].atoms[0]]

    def atoms_of_type(self, type_name: str) -> set[str]:
        """Return the atoms at and below every row of a type."""
        return {atom for row in self.in_order() if row.type == type_name for atom in row.atoms}

    def norm_atoms(self) -> set[str]:
        """Return the atoms of what normalizes: BatchNorm, LayerNorm, GroupNorm and their like."""
        norms = [row for row in self.in_order() if _NORM.search(row.type)]
        return {atom for row in norms for atom in self.atoms_of_unit.get(row.fqn, ())}

    def last_stage(self) -> set[str]:
        """Return the atoms from the backbone's last stage on: its last child built of blocks, and what follows."""
        parent = self[BACKBONE_ID]
        while True:
            nested = [child for child in parent.children if self[child].height >= 2]
            if len(nested) != 1:
                break
            # One container holds all the stages ("features", "encoder").
            parent = self[nested[0]]
        if not nested:
            nested = [child for child in parent.children if self[child].atoms]
        return self.atoms_from(nested[-1]) if nested else set()

    def in_order(self, row_id: int = ROOT_ID) -> Iterator[LayerRow]:
        """Yield a row and all rows below it, parents first."""
        waiting = [row_id]
        while waiting:
            row = self[waiting.pop()]
            yield row
            waiting += reversed(row.children)

    # -- inside -----------------------------------------------------------------------------------------------

    def _build(self, summary: ModelSummary) -> None:
        heads = [info.fqn for info in summary.layers if info.is_head]
        heads = [fqn for fqn in heads if not any(fqn != head and _is_at_or_below(fqn, head) for head in heads)]
        infos = {info.fqn: info for info in summary.layers}
        num_taken_out = _count_above({fqn: infos[fqn].num_params for fqn in heads})
        ids: dict[str, int] = {"": BACKBONE_ID}
        if len(heads) == 1:
            ids[heads[0]] = HEAD_ID
        for info in summary.layers:
            self._take(info, heads, num_taken_out.get(info.fqn, 0), ids)
        for info in summary.layers:
            self._give_parameters_rows(self._rows[ids[info.fqn]], info)
        self._rows[HEAD_ID].name = f"{HEAD} · {heads[0]}" if len(heads) == 1 else HEAD
        if len(heads) > 1:
            self._rows[HEAD_ID].num_params = sum(infos[fqn].num_params for fqn in heads)
        self._rows[ROOT_ID].children = [BACKBONE_ID, HEAD_ID] if heads else [BACKBONE_ID]
        self._gather(ROOT_ID, num_taken_out.keys())
        # swin's own last layer is named "head": beside an appended one, the word is that layer's.
        self._is_head_a_layer = HEAD in infos and HEAD not in heads
        if self._is_head_a_layer:
            self._rows[HEAD_ID].command_names = heads
        self._position = {atom: position for position, atom in enumerate(self.atoms)}
        self.atoms_of_unit = {unit: infos[unit].atoms for unit in self.units}
        self.unit_of = {atom: unit for unit, atoms in self.atoms_of_unit.items() for atom in atoms}
        self.biases = {name for info in summary.layers for name in info.own_names if is_bias(name)}
        self._count_own(infos)
        # Such a unit learns at some rate unless it is frozen.
        rated = {unit for unit, atoms in self.atoms_of_unit.items() if any(map(self.num_params_of.get, atoms))}
        for row in self._rows:
            row.rated_units = [unit for unit in row.units if unit in rated]
        self.with_statistics = {fqn for fqn, info in infos.items() if info.has_statistics}
        self.ids_of = {atom: [] for atom in self.atoms}
        for row in self.in_order():
            for atom in row.atoms:
                self.ids_of[atom].append(row.id)
        self._atoms_by_name = {atom: [atom] for atom in self.atoms}
        self._atoms_by_name |= {row.fqn: row.atoms for row in self.in_order() if row.command_names == [row.fqn]}
        self._atoms_by_name |= {BACKBONE: self[BACKBONE_ID].atoms, "": self.atoms_of_unit.get("", [])}
        if not self._is_head_a_layer:
            self._atoms_by_name[HEAD] = self[HEAD_ID].atoms

    def _take(self, info: LayerInfo, heads: list[str], num_taken_out: int, ids: dict[str, int]) -> None:
        own_unit = info.fqn if info.is_unit else None
        num_params = info.num_params - num_taken_out
        if info.fqn in ids:
            row = self._rows[ids[info.fqn]]
            row.type, row.num_params, row.own_unit = info.type, num_params, own_unit
            row.output_shape, row.own_atoms = info.output_shape, info.atoms
            return
        parent = HEAD_ID if info.fqn in heads else ids[_nearest(info.fqn, ids.keys())]
        name = info.fqn if info.fqn in heads else info.fqn.rpartition(".")[2]
        row = LayerRow(len(self._rows), parent, info.fqn, name, info.type, num_params, own_unit)
        row.output_shape, row.own_atoms = info.output_shape, info.atoms
        ids[info.fqn] = row.id
        self._rows.append(row)
        self._rows[parent].children.append(row.id)

    def _give_parameters_rows(self, row: LayerRow, info: LayerInfo) -> None:
        """Give what a module owns itself rows beside its children, so that it can be frozen without these."""
        if not row.children or not info.own_params:
            return
        rows = [
            LayerRow(len(self._rows) + position, row.id, fqn, name, PARAMETER, number, None, own_atoms=[fqn])
            for position, (fqn, (name, number)) in enumerate(zip(info.own_names, info.own_params.items(), strict=True))
        ]
        if len(rows) == 1:
            rows[0].own_unit, row.own_unit = row.own_unit, None
        self._rows += rows
        row.children[:0] = [each.id for each in rows]
        row.own_atoms = []

    def _gather(self, row_id: int, above_heads: Set[str]) -> None:
        """Fill in atoms, units and command names from below; a row that held nothing but the head goes."""
        row = self._rows[row_id]
        for child_id in row.children:
            self._rows[child_id].depth = row.depth + 1
            self._gather(child_id, above_heads)
        below = [self._rows[child_id] for child_id in row.children]
        below = [child for child in below if not self._only_held_the_head(child, above_heads)]
        row.children = [child.id for child in below]
        for position, child in enumerate(below):
            child.position = position
        row.height = max((child.height + 1 for child in below), default=0)
        row.units = [row.own_unit] if row.own_unit is not None else []
        row.units += [unit for child in below for unit in child.units]
        row.atoms = row.own_atoms + [atom for child in below for atom in child.atoms]
        if row_id > HEAD_ID and row.fqn in above_heads:
            # The row's own name would reach the head below it, too.
            row.command_names = [name for child in below for name in child.command_names]
        else:
            row.command_names = [row.fqn] if row.atoms else []

    def _only_held_the_head(self, row: LayerRow, above_heads: Set[str]) -> bool:
        return not row.children and not row.own_atoms and row.id > HEAD_ID and row.fqn in above_heads

    def _count_own(self, infos: dict[str, LayerInfo]) -> None:
        # Of a unit that does not name its parameters: all its values are one atom's.
        own = {fqn: info.num_params for fqn, info in infos.items()}
        for fqn, info in infos.items():
            if fqn:
                own[_nearest(fqn, infos.keys())] -= info.num_params
        # Tied weights are counted below both names but once above them.
        for unit in self.units:
            numbers = list(infos[unit].own_params.values()) or [max(own[unit], 0)]
            self.num_params_of.update(zip(self.atoms_of_unit[unit], numbers, strict=True))

    def _names_below(self, row_id: int, atoms: set[str]) -> list[str]:
        row = self[row_id]
        if row.atoms and atoms.issuperset(row.atoms):
            return row.command_names
        # A module's name would reach all that is below it, too.
        names = [atom for atom in row.own_atoms if atom in atoms and atom != row.fqn]
        return names + [name for child in row.children for name in self._names_below(child, atoms)]


class RowCounts:
    """How many of some atoms are at and below each row: kept up to date, as a sum over all rows takes long."""

    def __init__(self, rows: LayerRows) -> None:
        self._rows = rows
        self._counts = [0] * len(rows)
        self.atoms: set[str] = set()

    def of(self, row_id: int) -> int:
        """Return how many are at and below a row."""
        return self._counts[row_id]

    def take(self, atoms: set[str]) -> None:
        """Count these atoms in place of those before."""
        self._add(atoms - self.atoms, 1)
        self._add(self.atoms - atoms, -1)
        self.atoms = atoms

    def _add(self, atoms: Iterable[str], change: int) -> None:
        for atom in atoms:
            for row_id in self._rows.ids_of[atom]:
                self._counts[row_id] += change


def _nearest(fqn: str, known: Container[str]) -> str:
    """Return the nearest ancestor's name that is known, or the root's."""
    while fqn:
        fqn = fqn.rpartition(".")[0]
        if fqn in known:
            return fqn
    return ""


def _count_above(numbers: dict[str, int]) -> dict[str, int]:
    """Return for every module that holds some of these, the root's "" among them, the sum of their numbers."""
    sums: dict[str, int] = {}
    for fqn, number in numbers.items():
        above = fqn
        while above:
            above = above.rpartition(".")[0]
            sums[above] = sums.get(above, 0) + number
    return sums


def _is_meant(atom: str, name: str) -> bool:
    """Tell whether a name, or a pattern of names, is that of an atom or of a module that it is in."""
    parts = atom.split(".")
    return any(fnmatchcase(".".join(parts[:depth]), name) for depth in range(1, len(parts) + 1))


def _is_at_or_below(fqn: str, ancestor: str) -> bool:
    return ancestor in {"", fqn} or fqn.startswith(f"{ancestor}.")
