"""The rows of the model's tree: backbone and head, and what a row stands for in a command."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from trainer.messages.model_info import LayerInfo, ModelSummary

BACKBONE = "backbone"
HEAD = "head"
ROOT_ID, BACKBONE_ID, HEAD_ID = 0, 1, 2

_NORM = re.compile(r"Norm(\dd)?$")


@dataclass
class LayerRow:
    """One row. ``units`` are the modules at and below it that own parameters or buffers, in the model's order."""

    id: int
    parent: int
    fqn: str
    name: str
    type: str
    num_params: int
    own_unit: str | None
    output_shape: list[int] = field(default_factory=list)
    position: int = 0
    children: list[int] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    command_names: list[str] = field(default_factory=list)


class LayerRows:
    """All rows by id. Row 0 is the invisible root, row 1 the backbone, row 2 the head."""

    def __init__(self, summary: ModelSummary | None) -> None:
        self._rows = [
            LayerRow(ROOT_ID, -1, "", "", "", 0, None),
            LayerRow(BACKBONE_ID, ROOT_ID, BACKBONE, BACKBONE, "", 0, None),
            LayerRow(HEAD_ID, ROOT_ID, HEAD, HEAD, "", 0, None),
        ]
        self.num_params_of: dict[str, int] = {}
        """Parameters that a unit owns itself."""
        self.ids_of: dict[str, list[int]] = {}
        """The rows at and above each unit."""
        self.with_statistics: set[str] = set()
        """The units that keep running statistics."""
        self._units_by_name: dict[str, list[str]] = {}
        self._position: dict[str, int] = {}
        self._is_head_a_layer = False
        if summary is not None:
            self._build(summary)

    def __getitem__(self, row_id: int) -> LayerRow:
        return self._rows[row_id]

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def units(self) -> list[str]:
        """Return every unit in the model's order, the backbone's before the head's."""
        return self._rows[ROOT_ID].units

    def units_of(self, names: Iterable[str]) -> set[str]:
        """Return the units that the names of a command or of a freeze set stand for; unknown names stand for none."""
        found: set[str] = set()
        for name in names:
            below = self._units_by_name.get(name)
            found.update([u for u in self.units if _is_at_or_below(u, name)] if below is None else below)
        return found.intersection(self.units)

    def units_of_set(self, frozen: Iterable[str]) -> set[str]:
        """Return a worker's freeze set. It names units exactly: a unit there does not stand for those below it."""
        names = set(frozen)
        return names if names.issubset(self._position) else self.units_of(names)

    def names_of(self, units: set[str]) -> list[str]:
        """Name a set of units by the fewest names that a command takes."""
        return [name for top in self._rows[ROOT_ID].children for name in self._names_below(top, units)]

    def units_up_to(self, row_id: int) -> set[str]:
        """Return the units from the input to the end of a row."""
        below = self[row_id].units
        return set(self.units[: self._position[below[-1]] + 1]) if below else set()

    def units_from(self, row_id: int) -> set[str]:
        """Return the units from the start of a row to the output."""
        below = [unit for unit in self[row_id].units if unit]
        return set(self.units[self._position[below[0]] :]) if below else set()

    def first_position(self, row_id: int) -> int:
        """Return the place of a row's first unit in the model's order; the row has one."""
        return self._position[self[row_id].units[0]]

    def units_of_type(self, type_name: str) -> set[str]:
        """Return the units at and below every row of a type."""
        return {unit for row in self.in_order() if row.type == type_name for unit in row.units}

    def norm_units(self) -> set[str]:
        """Return the units that normalize: BatchNorm, LayerNorm, GroupNorm and their like."""
        return {row.own_unit for row in self.in_order() if row.own_unit is not None and _NORM.search(row.type)}

    def last_stage(self) -> set[str]:
        """Return the units from the backbone's last stage on: its last child built of blocks, and what follows."""
        parent = self[BACKBONE_ID]
        while True:
            nested = [child for child in parent.children if self._depth(child) >= 2]
            if len(nested) != 1:
                break
            # One container holds all the stages ("features", "encoder").
            parent = self[nested[0]]
        if not nested:
            nested = [child for child in parent.children if self[child].units]
        return self.units_from(nested[-1]) if nested else set()

    def in_order(self, row_id: int = ROOT_ID) -> Iterator[LayerRow]:
        """Yield a row and all rows below it, parents first."""
        yield self[row_id]
        for child in self[row_id].children:
            yield from self.in_order(child)

    # -- inside -----------------------------------------------------------------------------------------------

    def _build(self, summary: ModelSummary) -> None:
        heads = [info.fqn for info in summary.layers if info.is_head]
        heads = [fqn for fqn in heads if not any(fqn != head and _is_at_or_below(fqn, head) for head in heads)]
        infos = {info.fqn: info for info in summary.layers}
        head_params = {fqn: infos[fqn].num_params for fqn in heads}
        ids: dict[str, int] = {"": BACKBONE_ID}
        if len(heads) == 1:
            ids[heads[0]] = HEAD_ID
        for info in summary.layers:
            self._take(info, heads, head_params, ids)
        self._rows[HEAD_ID].name = f"{HEAD} · {heads[0]}" if len(heads) == 1 else HEAD
        if len(heads) > 1:
            self._rows[HEAD_ID].num_params = sum(head_params.values())
        self._rows[ROOT_ID].children = [BACKBONE_ID, HEAD_ID] if heads else [BACKBONE_ID]
        self._gather(ROOT_ID, heads)
        # swin's own last layer is named "head": beside an appended one, the word is that layer's.
        self._is_head_a_layer = HEAD in infos and HEAD not in heads
        if self._is_head_a_layer:
            self._rows[HEAD_ID].command_names = heads
        self._position = {unit: position for position, unit in enumerate(self.units)}
        self._count_own(infos)
        self.with_statistics = {fqn for fqn, info in infos.items() if info.has_statistics}
        self.ids_of = {unit: [] for unit in self.units}
        for row in self.in_order():
            for unit in row.units:
                self.ids_of[unit].append(row.id)
        self._units_by_name = {row.fqn: row.units for row in self.in_order() if row.command_names == [row.fqn]}
        self._units_by_name |= {BACKBONE: self[BACKBONE_ID].units, "": [""]}
        if not self._is_head_a_layer:
            self._units_by_name[HEAD] = self[HEAD_ID].units

    def _take(self, info: LayerInfo, heads: list[str], head_params: dict[str, int], ids: dict[str, int]) -> None:
        taken_out = sum(
            count for head, count in head_params.items() if head != info.fqn and _is_at_or_below(head, info.fqn)
        )
        own_unit = info.fqn if info.is_unit else None
        if info.fqn in ids:
            row = self._rows[ids[info.fqn]]
            row.type, row.num_params, row.own_unit = info.type, info.num_params - taken_out, own_unit
            row.output_shape = _shape_of(info)
            return
        parent = HEAD_ID if info.fqn in heads else ids[_nearest(info.fqn, ids.keys())]
        name = info.fqn if info.fqn in heads else info.fqn.rpartition(".")[2]
        row = LayerRow(len(self._rows), parent, info.fqn, name, info.type, info.num_params - taken_out, own_unit)
        row.output_shape = _shape_of(info)
        ids[info.fqn] = row.id
        self._rows.append(row)
        self._rows[parent].children.append(row.id)

    def _gather(self, row_id: int, heads: list[str]) -> None:
        """Fill in units and command names from below; a row that held nothing but the head goes."""
        row = self._rows[row_id]
        for child in row.children:
            self._gather(child, heads)
        row.children = [child for child in row.children if not self._only_held_the_head(child, heads)]
        for position, child in enumerate(row.children):
            self._rows[child].position = position
        row.units = [row.own_unit] if row.own_unit is not None else []
        row.units += [unit for child in row.children for unit in self._rows[child].units]
        if any(_is_at_or_below(head, row.fqn) for head in heads) and row_id > HEAD_ID and row.fqn not in heads:
            # The row's own name would reach the head below it, too.
            row.command_names = [name for child in row.children for name in self._rows[child].command_names]
        else:
            row.command_names = [row.fqn] if row.units else []

    def _only_held_the_head(self, row_id: int, heads: list[str]) -> bool:
        row = self._rows[row_id]
        holds_head = any(head != row.fqn and _is_at_or_below(head, row.fqn) for head in heads)
        return row_id > HEAD_ID and holds_head and not row.children and row.own_unit is None

    def _count_own(self, infos: dict[str, LayerInfo]) -> None:
        own = {fqn: info.num_params for fqn, info in infos.items()}
        for fqn, info in infos.items():
            if fqn:
                own[_nearest(fqn, infos.keys())] -= info.num_params
        # Tied weights are counted below both names but once above them.
        self.num_params_of = {unit: max(own[unit], 0) for unit in self.units}

    def _names_below(self, row_id: int, units: set[str]) -> list[str]:
        row = self[row_id]
        if row.units and units.issuperset(row.units):
            return row.command_names
        names = [""] if row.own_unit == "" and "" in units else []
        return names + [name for child in row.children for name in self._names_below(child, units)]

    def _depth(self, row_id: int) -> int:
        return max((self._depth(child) + 1 for child in self[row_id].children), default=0)


class RowCounts:
    """How many of some units are at and below each row: kept up to date, as a sum over all rows takes long."""

    def __init__(self, rows: LayerRows) -> None:
        self._rows = rows
        self._counts = [0] * len(rows)
        self.units: set[str] = set()

    def of(self, row_id: int) -> int:
        """Return how many are at and below a row."""
        return self._counts[row_id]

    def take(self, units: set[str]) -> None:
        """Count these units in place of those before."""
        self._add(units - self.units, 1)
        self._add(self.units - units, -1)
        self.units = units

    def _add(self, units: Iterable[str], change: int) -> None:
        for unit in units:
            for row_id in self._rows.ids_of[unit]:
                self._counts[row_id] += change


def _nearest(fqn: str, known: Container[str]) -> str:
    """Return the nearest ancestor's name that is known, or the root's."""
    while fqn:
        fqn = fqn.rpartition(".")[0]
        if fqn in known:
            return fqn
    return ""


def _shape_of(info: LayerInfo) -> list[int]:
    return list(getattr(info, "output_shape", ()))


def _is_at_or_below(fqn: str, ancestor: str) -> bool:
    return ancestor in {"", fqn} or fqn.startswith(f"{ancestor}.")
