"""Verifying a resume: what is asked of the process that makes a run's steps again, and what it says."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.messages.base import Command, Event, Record


class VerifyResume(Command):
    """Make the first steps after a checkpoint of a run again, without touching the run, and compare them to the bit.

    An errand (``trainer.errand``), not for a worker.
    ``checkpoint`` is as in RunFolder.checkpoint; None takes the newest one after which steps were made, and is
    refused where the one that a resume would begin with is missing or damaged.
    """

    kind: Literal["VerifyResume"] = "VerifyResume"
    run_dir: str
    checkpoint: str | None = None
    num_steps: int = Field(20, ge=1, le=1_000_000)


class StepDifference(Record):
    """What of a step is not as it was: a measurement by its tag, with both values, or a tensor of the model.

    ``difference`` is between the two values, or the largest between two weights.
    """

    step: int
    what: str
    recorded: float | None
    replayed: float | None
    difference: float


class Replay(Record):
    """What came of making ``num_steps`` steps after a checkpoint again: the first difference, None where there is none.

    ``first_step`` is the checkpoint's. ``later`` is the next checkpoint, whose weights were compared, "" if none was
    within reach. ``causes`` say what is likely to be the reason for a difference; they may be there without one.
    """

    checkpoint: str
    first_step: int
    num_steps: int
    later: str
    difference: StepDifference | None
    causes: list[str]


class ResumeVerified(Event):
    """The first steps after a checkpoint of the run in ``run_dir`` were made again."""

    kind: Literal["ResumeVerified"] = "ResumeVerified"
    run_dir: str
    replay: Replay
