"""LiveChanges: what a run trains with now, what was typed to change that, and what was asked for and not answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.viewmodels.field_values import typed_values
from app.viewmodels.run_fields import LIVE_FIELDS
from trainer.config import ConfigError, config_from_dict
from trainer.messages.run_info import InForce


class LiveChanges:
    """Compares what the form's fields hold, by their names, with what is in force. Without a run nothing is."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self._in_force: InForce | None = None
        self._pending: dict[str, str] = {}
        """The id of the command that asked for a field's value, by the field."""
        self._refused: set[str] = set()
        """The fields that hold what was refused, and nothing has been typed into since."""

    # -- what is shown ----------------------------------------------------------------------------------------

    @property
    def in_force(self) -> InForce | None:
        """Return what the run trains with now, None without one."""
        return self._in_force

    @property
    def can_apply(self) -> bool:
        """Whether something was typed for the live run that is right, and has not been asked for."""
        is_typed = not self._pending and any(map(self._is_typed, LIVE_FIELDS))
        return is_typed and self._typed() is not None

    @property
    def is_applying(self) -> bool:
        """Whether something was asked for that the worker has not answered."""
        return bool(self._pending)

    def wanted(self) -> dict[str, Any]:
        """Return what is to change, by its name in ``InForce``; nothing while a field of it is wrong."""
        typed = self._typed()
        if typed is None or not self.can_apply:
            return {}
        return {name: getattr(typed, name) for name in LIVE_FIELDS if self._is_typed(name)}

    # -- what comes in ----------------------------------------------------------------------------------------

    def take(self, present: InForce, command_id: str = "", *told: str) -> dict[str, Any]:
        """Take what the run trains with now; ``command_id`` is what asked for it, ``told`` what is said anew of it.

        Returns the values that the fields are to show: those of all that nobody is typing into.
        """
        values: dict[str, Any] = {}
        for name, field in LIVE_FIELDS.items():
            is_answer = bool(command_id) and self._pending.get(field) == command_id
            if is_answer:
                del self._pending[field]
            is_given_up = field in self._refused and name in told
            self._refused -= {field} if is_given_up else set()
            if is_answer or is_given_up or not self._is_typed(name):
                values[field] = getattr(present, name)
        self._in_force = present
        return values

    def mark_pending(self, command_id: str, *names: str) -> None:
        """Remember that a command asked for these, by their names in ``InForce``."""
        self._pending.update({LIVE_FIELDS[name]: command_id for name in names})

    def refuse(self, command_id: str) -> list[str]:
        """Forget what a refused command asked for. Returns its fields."""
        asked = [field for field, pending_id in self._pending.items() if pending_id == command_id]
        for field in asked:
            del self._pending[field]
        self._refused.update(asked)
        return asked

    def note_typing(self, field: str) -> None:
        """Take note that something else was typed: what is told of the run leaves it as it is."""
        self._refused.discard(field)

    def put_back(self, field: str) -> dict[str, Any]:
        """Return what a field is to show in the place of what was typed; {} while that is asked for, or no run is."""
        if self._in_force is None or field in self._pending:
            return {}
        self._refused.discard(field)
        return {LIVE_FIELDS[name]: getattr(self._in_force, name) for name in LIVE_FIELDS if LIVE_FIELDS[name] == field}

    def drop(self) -> dict[str, Any]:
        """Forget what was asked for. Returns what the fields are to show in place of what was typed; {} for nothing."""
        if self._in_force is None or not (self._pending or any(map(self._is_typed, LIVE_FIELDS))):
            return {}
        self._pending = {}
        self._refused.clear()
        return {field: getattr(self._in_force, name) for name, field in LIVE_FIELDS.items()}

    def leave_run(self) -> None:
        """Forget the run."""
        self._in_force, self._pending = None, {}
        self._refused.clear()

    # -- inside -----------------------------------------------------------------------------------------------

    def _is_typed(self, name: str) -> bool:
        """Tell whether a field holds another value than what is in force."""
        if self._in_force is None:
            return False
        typed = self._typed(name)
        return typed is None or getattr(typed, name) != getattr(self._in_force, name)

    def _typed(self, *names: str) -> InForce | None:
        values = typed_values(self._texts, [LIVE_FIELDS[name] for name in names or LIVE_FIELDS])
        try:
            config = config_from_dict(values)
        except ConfigError:
            return None
        training = config.training
        rate, plan = config.optimizer.rate, config.plan
        return InForce(rate=rate, epochs=training.epochs, patience=training.patience, plan=plan)
