"""Errands: what a process of its own does beside whatever trains, for the one who waits for it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from trainer.messages.comparison import CheckpointsCompared, CompareCheckpoints
from trainer.messages.events import CommandRejected, PreparationProgressed
from trainer.messages.export import CheckpointExported, ExportCheckpoint
from trainer.messages.replay import ResumeVerified, VerifyResume
from trainer.messages.what_if import ChangeTried, TryChange

AnyErrand = Annotated[ExportCheckpoint | VerifyResume | TryChange | CompareCheckpoints, Field(discriminator="kind")]
"""What may be asked of it: one command, and it ends."""

AnyErrandEvent = Annotated[
    PreparationProgressed | CommandRejected | CheckpointExported | ResumeVerified | ChangeTried | CheckpointsCompared,
    Field(discriminator="kind"),
]
"""What it says: how far it is, then how it ended."""

_ERRAND: TypeAdapter[AnyErrand] = TypeAdapter(AnyErrand)
_EVENT: TypeAdapter[AnyErrandEvent] = TypeAdapter(AnyErrandEvent)


def errand_from_json(line: str) -> AnyErrand:
    """Read what is asked. Raises pydantic's ValidationError, a ValueError, where it is no errand."""
    return _ERRAND.validate_json(line)


def errand_event_from_json(line: str | bytes) -> AnyErrandEvent:
    """Read a line of an errand's process. Raises pydantic's ValidationError, a ValueError, where it is none."""
    return _EVENT.validate_json(line)
