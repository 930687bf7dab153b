"""TensorBoard's own reader finds the curves, the rate and every intervention."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.logs import MAX_POINTS_PER_FLUSH, TensorBoardLog
from trainer.messages.changes import CheckpointRestored, LayersUnfrozen
from trainer.messages.events import MetricsLogged
from trainer.messages.run_info import Series

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")


def metrics(tag: str, steps: list[int]) -> MetricsLogged:
    return MetricsLogged(segment=0, time=1.0, series={tag: Series(steps=steps, values=[float(s) for s in steps])})


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), {"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_scalars_and_interventions_are_in_the_event_file(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, 0)
    for tag in ("Loss/train", "Loss/validation", "Accuracy/train", "Accuracy/validation", "Learning rate"):
        log.write(metrics(tag, [1, 2]))
    log.write(
        LayersUnfrozen(
            layers=["fc"],
            sentence="head unfrozen",
            frozen=[],
            num_trainable=1,
            requested_step=1,
            applied_step=2,
            source="user",
            segment=0,
            time=1.0,
        )
    )
    log.close()
    found = read(tmp_path)
    assert set(found.Tags()["scalars"]) == {
        "Loss/train",
        "Loss/validation",
        "Accuracy/train",
        "Accuracy/validation",
        "Learning rate",
    }
    assert [(point.step, point.value) for point in found.Scalars("Loss/train")] == [(1, 1.0), (2, 2.0)]
    (note,) = found.Tensors("Interventions/text_summary")
    assert b"head unfrozen by user: asked at step 1, applied at step 2" in note.tensor_proto.string_val[0]
    assert note.step == 2


def test_a_flush_of_thousands_of_steps_is_thinned_and_keeps_its_last(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, 0)
    log.write(metrics("Loss/train", list(range(1, 1001))))
    log.close()
    steps = [point.step for point in read(tmp_path).Scalars("Loss/train")]
    assert len(steps) <= MAX_POINTS_PER_FLUSH
    assert steps[-1] == 1000


def test_what_a_restore_left_behind_is_hidden(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path, 0)
    log.write(metrics("Loss/train", [1, 2, 3, 4]))
    log.write(CheckpointRestored(name="a.pt", step=2, epoch=1, frozen=[], num_trainable=1, segment=1, time=2.0))
    log.write(metrics("Loss/train", [3]))
    log.close()
    assert [point.step for point in read(tmp_path).Scalars("Loss/train")] == [1, 2, 3]
