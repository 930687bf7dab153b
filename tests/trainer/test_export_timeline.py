"""The changes that a bundle's script makes are those on the way to its checkpoint, whatever was restored since."""

from __future__ import annotations

from trainer.export.timeline import changes_until
from trainer.messages.changes import CheckpointRestored, RateChanged, RewindUndone, RunRewound
from trainer.messages.run_info import CheckpointInfo

STATE = {"epoch": 0, "frozen": [], "num_trainable": 1}


def saved(name: str, step: int, segment: int) -> CheckpointInfo:
    return CheckpointInfo(
        name=name, epoch=0, step=step, loss=None, accuracy=None, frozen=[], frozen_summary="", size_bytes=1, sha256="",
        saved_at=float(step), reason="user", segment=segment,
    )  # fmt: skip


def slower(step: int, segment: int, change: int) -> RateChanged:
    return RateChanged(
        rate=1 / step, before=1.0, requested_step=step, applied_step=step, segment=segment, change=change
    )


def test_a_checkpoint_of_a_piece_that_was_left_brings_the_changes_of_that_piece() -> None:
    first, late = saved("a.pt", 40, 0), saved("late.pt", 90, 0)
    log = [
        slower(20, 0, 1),
        slower(60, 0, 2),
        CheckpointRestored(name="a.pt", step=40, segment=1, parent=0, **STATE),
        slower(70, 1, 3),
        CheckpointRestored(name="late.pt", step=90, segment=2, parent=0, **STATE),
        slower(95, 2, 4),
    ]
    infos = [first, late, saved("end.pt", 100, 2)]
    assert [event.applied_step for event in changes_until(infos[-1], log, infos)] == [20, 60, 95]
    assert [event.applied_step for event in changes_until(saved("b.pt", 80, 1), log, infos)] == [20, 70]


def test_weights_that_were_restored_leave_the_piece_before_as_it_was() -> None:
    log = [
        slower(20, 0, 1),
        CheckpointRestored(name="a.pt", step=30, segment=1, parent=0, weights_only=True, **STATE),
        slower(40, 1, 3),
        RunRewound(change=3, sentence="rate", step=40, segment=2, parent=1, **STATE),
        RewindUndone(undone_segment=2, undone_step=40, step=50, segment=3, parent=1, **STATE),
        CheckpointRestored(name="b.pt", step=25, segment=4, parent=0, **STATE),
    ]
    infos = [saved("b.pt", 25, 0)]
    assert [event.applied_step for event in changes_until(saved("c.pt", 60, 4), log, infos)] == [20]
    assert [event.applied_step for event in changes_until(saved("c.pt", 60, 3), log, infos)] == [20, 40]
    assert [event.applied_step for event in changes_until(saved("c.pt", 60, 2), log, infos)] == [20]
