"""TensorBoard's own reader finds the curves, the rate and every intervention."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from trainer.config import RunConfig
from trainer.logs import MAX_POINTS_PER_FLUSH, TensorBoardLog
from trainer.messages.changes import CheckpointRestored, LayersUnfrozen, RewindUndone, RunRewound
from trainer.messages.events import MetricsLogged
from trainer.messages.run_info import Series
from trainer.runs import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")


WHERE = {"epoch": 0, "frozen": [], "num_trainable": 1}


@pytest.fixture(autouse=True)
def files_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    # TensorBoard reads files in the order of their names: of the tenth and the ninth that this process began in a
    # second, the tenth would come first.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


@pytest.fixture
def folder(tmp_path: Path, small_config: RunConfig) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path, small_config) as made:
        made.begin_segment(0, None, 0.0)
        yield made


def metrics(tag: str, steps: list[int], segment: int = 0) -> MetricsLogged:
    # The value names the piece that measured it.
    return MetricsLogged(
        segment=segment, time=1.0, series={tag: Series(steps=steps, values=[100.0 * segment + s for s in steps])}
    )


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), {"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def test_scalars_and_interventions_are_in_the_event_file(folder: RunFolder) -> None:
    log = TensorBoardLog(folder)
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
    found = read(folder.tensorboard_dir)
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


def test_a_flush_of_thousands_of_steps_is_thinned_and_keeps_its_last(folder: RunFolder) -> None:
    log = TensorBoardLog(folder)
    log.write(metrics("Loss/train", list(range(1, 1001))))
    log.close()
    steps = [point.step for point in read(folder.tensorboard_dir).Scalars("Loss/train")]
    assert len(steps) <= MAX_POINTS_PER_FLUSH
    assert steps[-1] == 1000


class Recorder:
    """Keeps and tells what happens to a run in that order, as a worker does."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.log = TensorBoardLog(folder)

    def train(self, segment: int, steps: list[int]) -> None:
        for step in steps:
            # Each in a flush of its own: of more at once, some are left out.
            event = metrics("Loss/train", [step], segment)
            self.folder.add_metrics(segment, event.series)
            self.log.write(event)

    def restore(self, step: int, parent: int) -> None:
        segment = self.folder.begin_segment(step, "a.pt", 1.0, parent)
        self.log.write(CheckpointRestored(name="a.pt", step=step, segment=segment, parent=parent, **WHERE))

    @property
    def shown(self) -> list[tuple[int, float]]:
        self.log.close()
        return [(point.step, point.value) for point in read(self.folder.tensorboard_dir).Scalars("Loss/train")]


def line(*pieces: tuple[int, int, int]) -> list[tuple[int, float]]:
    """Return the points of pieces, of each from a first step to a last one."""
    return [(step, 100.0 * segment + step) for segment, first, last in pieces for step in range(first, last + 1)]


def test_what_a_restore_left_behind_is_hidden(folder: RunFolder) -> None:
    recorder = Recorder(folder)
    recorder.train(0, [1, 2, 3, 4])
    recorder.restore(2, 0)
    recorder.train(1, [3])
    assert recorder.shown == line((0, 1, 2), (1, 3, 3))


def test_a_restore_from_a_piece_that_was_left_shows_that_one_again(folder: RunFolder) -> None:
    recorder = Recorder(folder)
    for first in range(1, 11, 5):
        recorder.train(0, list(range(first, first + 5)))
    recorder.restore(4, 0)
    recorder.train(1, [5, 6, 7, 8])
    recorder.restore(9, 0)
    recorder.train(2, [10, 11])
    assert recorder.shown == line((0, 1, 9), (2, 10, 11))


def test_a_worker_that_goes_on_in_a_piece_that_was_left_shows_that_one_again(folder: RunFolder) -> None:
    first = Recorder(folder)
    for start in range(1, 11, 5):
        first.train(0, list(range(start, start + 5)))
    first.restore(4, 0)
    first.train(1, [5, 6, 7, 8])
    first.log.close()
    segment = folder.begin_segment(9, "b.pt", 2.0, 0)
    second = Recorder(folder)
    # The worker tells of it once its files are begun.
    second.log.write(CheckpointRestored(name="b.pt", step=9, segment=segment, parent=0, **WHERE))
    second.train(2, [10])
    assert second.shown == line((0, 1, 9), (2, 10, 10))


def test_the_curve_is_whole_after_an_undone_rewind(folder: RunFolder) -> None:
    recorder = Recorder(folder)
    recorder.train(0, [1, 2, 3])
    recorder.train(0, [4, 5, 6])
    folder.begin_segment(2, None, 1.0, 0)
    recorder.log.write(RunRewound(change=1, sentence="rate 0.1", source="user", step=2, segment=1, parent=0, **WHERE))
    recorder.train(1, [3, 4, 5, 6, 7])
    folder.begin_segment(6, None, 2.0, 0)
    recorder.log.write(RewindUndone(undone_segment=1, undone_step=2, step=6, segment=2, parent=0, **WHERE))
    recorder.train(2, [7, 8])
    assert recorder.shown == line((0, 1, 6), (2, 7, 8))
