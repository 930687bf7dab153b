"""The states of a worker, and which of them leads to which."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """Where a worker stands with its one run."""

    STARTING = "starting"
    IDLE = "idle"
    PREPARING = "preparing"
    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_live(self) -> bool:
        """Whether a run is in the worker's hands and can still change."""
        return self in {S.PREPARING, S.READY, S.RUNNING, S.PAUSED, S.STOPPING}


S = RunState

TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    S.STARTING: frozenset({S.IDLE}),
    S.IDLE: frozenset({S.PREPARING}),
    S.PREPARING: frozenset({S.READY, S.IDLE}),
    S.READY: frozenset({S.RUNNING, S.STOPPED}),
    S.RUNNING: frozenset({S.PAUSED, S.STOPPING, S.FINISHED, S.FAILED}),
    S.PAUSED: frozenset({S.RUNNING, S.STOPPING, S.FAILED}),
    S.STOPPING: frozenset({S.STOPPED, S.PAUSED, S.FAILED}),
    S.FINISHED: frozenset({S.READY}),
    S.STOPPED: frozenset({S.READY, S.RUNNING}),
    S.FAILED: frozenset(),
}
"""The allowed transitions.

A refused preparation goes back to IDLE. A stop whose save fails goes to PAUSED: nothing is lost. STOPPED goes on where
it was by a start, and goes to READY by a restore or a new length, as FINISHED does.
"""
