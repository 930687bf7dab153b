"""What commands, events and the records in them have in common: plain values only, so that no torch crosses."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Plain values that go from process to process, and into run.db."""

    # NaN and infinity are losses that a user must see: pydantic's default would turn them into null.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Command(Record):
    """A request to the worker. ``command_id`` comes back in the event that answers it."""

    command_id: str = ""


class Event(Record):
    """A fact from the worker.

    ``command_id`` names the command that it answers, "" if none; ``time`` is Unix time in seconds; ``event_id`` is its
    row in run.db, 0 if it is not kept there.
    """

    command_id: str = ""
    time: float = 0.0
    event_id: int = 0
