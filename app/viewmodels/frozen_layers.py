"""FrozenLayers: which layers of a model are frozen, since when, what of them goes on, and whether that was proven."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from PySide6.QtCore import QCoreApplication

from app.viewmodels.layer_rows import LayerRow, LayerRows, RowCounts
from app.viewmodels.quantities import count_text
from trainer.messages.changes import FreezeChanged
from trainer.messages.events import FreezeVerified


class LayerState(StrEnum):
    """What a row shows. A row without anything to freeze under a row that is partly frozen shows nothing."""

    FROZEN = "frozen"
    TRAINABLE = "trainable"
    PARTLY = "partly"
    NOTHING = ""


@dataclass(frozen=True)
class _Applied:
    """When an atom's present state took hold."""

    applied_step: int
    requested_step: int


class FrozenLayers:
    """The freeze set that is in force, or that a draft has, and what it makes of each row."""

    def __init__(self, rows: LayerRows) -> None:
        self._rows = rows
        self._counts = RowCounts(rows)
        self._first_learning = 0
        """Place of the first atom that learns, in the model's order: gradients flow back to it and no further."""
        self._adapting: set[str] = set()
        self._applied: dict[str, _Applied] = {}
        self.num_verified: int | None = None
        self.num_adapting = 0
        """Of how many of the verified layers only the weights were, as their statistics go on."""
        self.drifted: list[str] = []

    # -- what comes in ----------------------------------------------------------------------------------------

    def take(self, atoms: set[str]) -> None:
        """Take a freeze set of which nothing more is known."""
        self._set_atoms(atoms)
        self._applied = {}

    def settle(self, event: FreezeChanged) -> None:
        """Take the freeze set that the worker says is in force, and since when its layers are."""
        self._set_atoms(self._rows.atoms_of_set(event.frozen))
        for atom in self._rows.atoms_of_set(event.layers):
            self._applied[atom] = _Applied(event.applied_step, event.requested_step)

    def set_adapting(self, units: Iterable[str]) -> None:
        """Take the units whose statistics go on while they are frozen."""
        self._adapting = set(units)

    def verify(self, event: FreezeVerified) -> None:
        """Take the worker's proof that frozen layers did not change (or which did)."""
        self.num_verified, self.drifted = event.num_verified, list(event.drifted)
        self.num_adapting = event.num_adapting

    def forget_proof(self) -> None:
        """Forget what was proven: it was of another freeze set."""
        self.num_verified, self.drifted = None, []

    # -- what is shown ----------------------------------------------------------------------------------------

    @property
    def atoms(self) -> set[str]:
        """Return the atoms that are frozen."""
        return self._counts.atoms

    @property
    def units(self) -> set[str]:
        """Return the units that are wholly frozen."""
        return self._rows.whole_units(self.atoms)

    @property
    def num_behind_trainable(self) -> int:
        """Count the frozen layers through which gradients still flow, to a layer before them that learns."""
        behind = self.atoms.intersection(self._rows.atoms[self._first_learning :])
        return len(self._rows.whole_units(behind))

    def state_of(self, row_id: int) -> LayerState:
        """Return a row's state, from the atoms at and below it, or from the row above it if it has none."""
        row = self._rows[row_id]
        if not row.atoms:
            above = self.state_of(row.parent) if row.parent > 0 else LayerState.NOTHING
            return LayerState.NOTHING if above is LayerState.PARTLY else above
        num_frozen = self._counts.of(row_id)
        if num_frozen == 0:
            return LayerState.TRAINABLE
        return LayerState.FROZEN if num_frozen == len(row.atoms) else LayerState.PARTLY

    @property
    def adapting(self) -> set[str]:
        """Return the units whose statistics go on while they are frozen."""
        return self._adapting

    def statistics_of(self, row_id: int) -> set[str]:
        """Return the units at and below a row that keep running statistics."""
        return self._rows.with_statistics.intersection(self._rows[row_id].units)

    def has_statistics(self, row_id: int) -> bool:
        """Whether there are running statistics at or below a row."""
        return bool(self.statistics_of(row_id))

    def is_adapting(self, row_id: int) -> bool:
        """Whether all the statistics below a row go on when it is frozen."""
        units = self.statistics_of(row_id)
        return bool(units) and self._adapting.issuperset(units)

    def has_drifted(self, row_id: int) -> bool:
        """Whether something below a row changed while it was frozen."""
        return bool(self.drifted) and not set(self.drifted).isdisjoint(self._rows[row_id].units)

    def drift_text(self, row_id: int) -> str:
        """Say whether a frozen row is as it was when it was frozen, as far as that was proven; "" if it was not."""
        if self.has_drifted(row_id):
            return QCoreApplication.translate("LayerTree", "drifted")
        if self._is_adapting_now(row_id):
            return QCoreApplication.translate("LayerTree", "adapting")
        return QCoreApplication.translate("LayerTree", "0 drift") if self._is_proven(row_id) else ""

    def explain_drift(self, row_id: int) -> str:
        """Say the same in a sentence."""
        if self.has_drifted(row_id):
            return QCoreApplication.translate(
                "LayerTree", "changed while it was frozen: please report this defect of Thaw"
            )
        if self._is_adapting_now(row_id):
            return QCoreApplication.translate("LayerTree", "weights frozen, statistics adapting")
        proven = QCoreApplication.translate("LayerTree", "0 drift: every bit is as it was when it was frozen")
        return proven if self._is_proven(row_id) else ""

    def explain(self, row_id: int) -> str:
        """Say a row's state, and since which step."""
        row, state = self._rows[row_id], self.state_of(row_id)
        if not row.atoms:
            return QCoreApplication.translate("LayerTree", "nothing to freeze: no parameters or buffers")
        if state is LayerState.PARTLY:
            return self._explain_parts(row)
        told = self._since_text(row_id, self._state_word(row_id, state))
        if state is LayerState.FROZEN and self._rows.first_position(row_id) > self._first_learning:
            text = QCoreApplication.translate(
                "LayerTree", "{}; a layer before it learns, so only its weights' gradient is saved"
            )
            return text.format(told)
        return told

    # -- inside -----------------------------------------------------------------------------------------------

    def _set_atoms(self, atoms: set[str]) -> None:
        self._counts.take(atoms)
        self.forget_proof()
        learning = (
            position
            for position, atom in enumerate(self._rows.atoms)
            if atom not in atoms and self._rows.num_params_of[atom]
        )
        self._first_learning = next(learning, len(self._rows.atoms))

    def _explain_parts(self, row: LayerRow) -> str:
        """Say what of a row is frozen: of a layer by itself its parameters, else how many of the layers below it."""
        if not row.children:
            names = {atom: atom.rpartition(".")[2] for atom in row.atoms}
            text = QCoreApplication.translate("LayerTree", "{frozen} frozen, {learning} trainable")
            told = text.format(
                frozen=", ".join(name for atom, name in names.items() if atom in self.atoms),
                learning=", ".join(name for atom, name in names.items() if atom not in self.atoms),
            )
            if not self.has_statistics(row.id):
                return told
            still = QCoreApplication.translate("LayerTree", "{}; its statistics go on until all of it is frozen")
            return still.format(told)
        whole = self.units.intersection(row.units)
        num_partly = len({self._rows.unit_of[atom] for atom in self.atoms.intersection(row.atoms)} - whole)
        text = QCoreApplication.translate("LayerTree", "{frozen} of {all} layers with parameters are frozen")
        told = text.format(frozen=count_text(len(whole)), all=count_text(len(row.units)))
        if not num_partly:
            return told
        partly = QCoreApplication.translate("LayerTree", "{}, {} more in part")
        return partly.format(told, count_text(num_partly))

    def _is_adapting_now(self, row_id: int) -> bool:
        is_frozen = self.state_of(row_id) is LayerState.FROZEN
        return is_frozen and not self._adapting.isdisjoint(self._rows[row_id].units)

    def _is_proven(self, row_id: int) -> bool:
        is_verified = self.num_verified is not None and self.state_of(row_id) is LayerState.FROZEN
        return is_verified and bool(self._rows[row_id].atoms)

    def _since_text(self, row_id: int, word: str) -> str:
        applied = {self._applied.get(atom) for atom in self._rows[row_id].atoms}
        since = applied.pop() if len(applied) == 1 else None
        if since is None:
            return word
        text = QCoreApplication.translate("LayerTree", "{state} since step {applied}, asked at {requested}")
        return text.format(
            state=word, applied=count_text(since.applied_step), requested=count_text(since.requested_step)
        )

    def _state_word(self, row_id: int, state: LayerState) -> str:
        if state is LayerState.TRAINABLE:
            return QCoreApplication.translate("LayerTree", "trainable")
        if self._is_adapting_now(row_id):
            return QCoreApplication.translate("LayerTree", "weights frozen, statistics adapting")
        return QCoreApplication.translate("LayerTree", "frozen")
