"""LayerRates: what the rate is multiplied by in each layer of a model, and what was asked for and not yet applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from PySide6.QtCore import QCoreApplication

from app.viewmodels.layer_rows import ROOT_ID, LayerRows
from app.viewmodels.quantities import rate_text, read_number

MAX_MULTIPLIER = 1000


class LayerRates:
    """The rate multipliers of a model's rows. A unit that is not named learns at the run's own rate, 1."""

    def __init__(self, rows: LayerRows) -> None:
        self._rows = rows
        self._multipliers: dict[str, float] = {}
        self._asked: dict[str, set[str]] = {}
        self._of_rows: dict[int, float | None] = {}

    # -- what comes in ----------------------------------------------------------------------------------------

    def take(self, multipliers: Mapping[str, float]) -> None:
        """Take all multipliers, by unit."""
        self._multipliers = {unit: multiplier for unit, multiplier in multipliers.items() if multiplier != 1}
        self._of_rows = {}

    def multiply(self, units: Iterable[str], multiplier: float) -> None:
        """Take another multiplier of some units."""
        self.take(self._multipliers | dict.fromkeys(units, multiplier))

    def mark_asked(self, command_id: str, layers: Sequence[str]) -> None:
        """Note that another rate of these layers was asked for."""
        self._asked[command_id] = self._rows.units_of(layers)

    def take_answer(self, command_id: str) -> bool:
        """Forget what was asked for with a command that was answered. Returns whether it was one of these."""
        return self._asked.pop(command_id, None) is not None

    def forget_asked(self) -> None:
        """Forget what was asked for: nobody is left to answer."""
        self._asked = {}

    # -- what is shown ----------------------------------------------------------------------------------------

    def by_name(self) -> dict[str, float]:
        """Return the multipliers by the fewest names, as ``config.optimizer.multipliers`` takes them."""
        units_by_number: dict[float, set[str]] = {}
        for unit, multiplier in self._multipliers.items():
            units_by_number.setdefault(multiplier, set()).add(unit)
        return {name: multiplier for multiplier, units in units_by_number.items() for name in self.names_of(units)}

    def differing(self, others: Mapping[str, float]) -> dict[tuple[float, float], set[str]]:
        """Return the units whose multiplier is another one in ``others``, by the two: the other one first."""
        found: dict[tuple[float, float], set[str]] = {}
        for unit in sorted({*others, *self._multipliers}):
            other, own = others.get(unit, 1.0), self._multipliers.get(unit, 1.0)
            if other != own:
                found.setdefault((other, own), set()).add(unit)
        return found

    def names_of(self, units: set[str]) -> list[str]:
        """Name units by the fewest names that a command takes."""
        # Units without parameters have no rate.
        return self._rows.names_of_units(units, set(self._rows[ROOT_ID].rated_units))

    def units_of(self, row_id: int) -> list[str]:
        """Return the units below a row that have parameters."""
        return self._rows[row_id].rated_units

    def has_rate(self, row_id: int) -> bool:
        """Whether a row has parameters, so that it learns at some rate when it is not frozen."""
        return bool(self.units_of(row_id))

    def are_all(self, units: Iterable[str], multiplier: float) -> bool:
        """Whether units have this multiplier already, and no other one was asked for."""
        asked: set[str] = set().union(*self._asked.values())
        return all(self._multipliers.get(unit, 1.0) == multiplier and unit not in asked for unit in units)

    def of(self, row_id: int) -> float | None:
        """Return what the rate of a row is multiplied by; None where its layers differ, or have no parameters."""
        if row_id not in self._of_rows:
            found = {self._multipliers.get(unit, 1.0) for unit in self.units_of(row_id)}
            self._of_rows[row_id] = found.pop() if len(found) == 1 else None
        return self._of_rows[row_id]

    def is_pending(self, row_id: int) -> bool:
        """Whether another rate of the whole row was asked for and has not been answered."""
        asked: set[str] = set().union(*self._asked.values())
        return bool(asked) and self.has_rate(row_id) and asked.issuperset(self.units_of(row_id))

    def text(self, row_id: int) -> str:
        """Write a row's multiplier: "×0.1"."""
        multiplier = self.of(row_id)
        if multiplier is not None:
            return f"×{rate_text(multiplier)}"
        return QCoreApplication.translate("LayerTree", "mixed") if self.has_rate(row_id) else ""

    def explain(self, row_id: int) -> str:
        """Say what a row's multiplier does, for the tooltip and for a screen reader."""
        multiplier = self.of(row_id)
        if self.is_pending(row_id):
            return QCoreApplication.translate("LayerTree", "another rate is waiting for the next step boundary")
        if not self.has_rate(row_id):
            return QCoreApplication.translate("LayerTree", "no rate: no parameters")
        if multiplier is None:
            return QCoreApplication.translate("LayerTree", "the layers below learn at different rates")
        if multiplier == 1:
            return QCoreApplication.translate("LayerTree", "learns at the run's rate")
        text = QCoreApplication.translate("LayerTree", "learns at {} times the run's rate")
        return text.format(rate_text(multiplier))


def read_multiplier(text: str) -> float | None:
    """Read what was typed ("0.1", "×0,1"); None if it is no multiplier."""
    number = read_number(text.strip().lstrip("×xX* "))
    return number if number is not None and 0 < number <= MAX_MULTIPLIER else None
