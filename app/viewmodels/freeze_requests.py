"""FreezeRequests: the changes of a freeze set that were asked for and that no event has answered yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.viewmodels.layer_rows import LayerRows, RowCounts


@dataclass
class _Request:
    """What was asked for; None where that is not known."""

    atoms: set[str]
    is_freeze: bool | None


class FreezeRequests:
    """A request is asked for first, and sent when it has the id of a command."""

    def __init__(self, rows: LayerRows) -> None:
        self._rows = rows
        self._asked: list[_Request] = []
        self._sent: dict[str, _Request] = {}
        self._counts = RowCounts(rows)

    # -- what comes in ----------------------------------------------------------------------------------------

    def ask(self, names: Sequence[str], *, is_freeze: bool) -> None:
        """Note that layers are to be frozen or unfrozen, by the names of a command."""
        self._asked.append(_Request(self._rows.atoms_of(names), is_freeze))
        self._count()

    def mark_sent(self, command_id: str, names: Sequence[str]) -> None:
        """Note that a command about these layers is on its way."""
        atoms = self._rows.atoms_of(names)
        asked = next((request for request in self._asked if request.atoms == atoms), None)
        if asked is not None:
            self._asked.remove(asked)
        self._sent[command_id] = asked or _Request(atoms, None)
        self._count()

    def take_answer(self, command_id: str) -> bool:
        """Forget what was asked for with a command that was answered. Returns whether it was one of these."""
        is_ours = self._sent.pop(command_id, None) is not None
        self._count()
        return is_ours

    def settle(self, command_id: str, frozen: set[str]) -> None:
        """Forget what the freeze set that is in force now answers, whoever changed it."""
        self._sent.pop(command_id, None)
        self._sent = {key: request for key, request in self._sent.items() if not _is_so(request, frozen)}
        self.forget_unsent()

    def forget_unsent(self) -> None:
        """Forget what was asked for and not sent."""
        self._asked = []
        self._count()

    def forget(self) -> None:
        """Forget all: nobody is left to answer."""
        self._sent = {}
        self.forget_unsent()

    # -- what is shown ----------------------------------------------------------------------------------------

    def is_pending(self, row_id: int) -> bool:
        """Whether a change of the whole row was asked for and has not been answered."""
        return 0 < len(self._rows[row_id].atoms) == self._counts.of(row_id)

    def wanted(self, frozen: set[str]) -> set[str]:
        """Return the freeze set as it will be when all that was asked for is applied to the present one."""
        wanted = set(frozen)
        for request in self._requests():
            if request.is_freeze is not None:
                wanted = wanted | request.atoms if request.is_freeze else wanted - request.atoms
        return wanted

    def _count(self) -> None:
        self._counts.take({atom for request in self._requests() for atom in request.atoms})

    def _requests(self) -> list[_Request]:
        return [*self._sent.values(), *self._asked]


def _is_so(request: _Request, frozen: set[str]) -> bool:
    """Tell whether a request has nothing left to change."""
    if request.is_freeze is None:
        return False
    return request.atoms <= frozen if request.is_freeze else request.atoms.isdisjoint(frozen)
