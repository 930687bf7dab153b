"""The run folder keeps what it is given, and says what is wrong with what it is not."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import psutil
import pytest

from trainer.config import METRICS, RunConfig
from trainer.messages.changes import TrainingChanged
from trainer.messages.events import LogWritten, RunPrepared, StateChanged
from trainer.messages.model_info import ModelSummary
from trainer.messages.run_info import CheckpointInfo, ConfusionMatrix, RunInfo, Series
from trainer.messages.states import RunState
from trainer.run_list import check_writable, find_run, list_runs
from trainer.run_record import RunFolderError, WorkerAddress, best_checkpoint
from trainer.runs import RunFolder


def make_info(name: str, step: int, loss: float | None = 0.5, accuracy: float | None = 0.9) -> CheckpointInfo:
    return CheckpointInfo(
        name=name, epoch=step // 4, step=step, loss=loss, accuracy=accuracy, frozen=[], frozen_summary="nothing",
        size_bytes=3, sha256="", saved_at=float(step), reason="epoch", segment=0,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, small_config: RunConfig) -> RunFolder:
    made = RunFolder.create(tmp_path / "runs", small_config)
    yield made
    made.close()


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path, small_config: RunConfig) -> None:
    paths = set()
    for _ in range(3):
        with RunFolder.create(tmp_path / "runs", small_config) as made:
            paths.add(made.path)
            assert made.config() == small_config
    assert len(paths) == 3


def test_a_nan_is_read_back_as_nan(folder: RunFolder) -> None:
    segment = folder.begin_segment(0, None, 0.0)
    folder.add_metrics(segment, {"Loss/train": Series(steps=[1, 2], values=[math.nan, 0.5])})
    curve = folder.curves()["Loss/train"]
    assert math.isnan(curve.values[0])
    assert curve.values[1] == 0.5


def test_a_restore_cuts_the_curve_and_loses_nothing(folder: RunFolder) -> None:
    folder.begin_segment(0, None, 0.0)
    folder.add_metrics(0, {"Loss/train": Series(steps=[1, 2, 3, 4], values=[4, 3, 2, 1])})
    folder.begin_segment(2, "a.pt", 1.0)
    assert list(folder.curves()["Loss/train"].steps) == [1, 2]
    folder.add_metrics(1, {"Loss/train": Series(steps=[3], values=[9])})
    curve = folder.curves()["Loss/train"]
    assert (list(curve.steps), list(curve.values)) == ([1, 2, 3], [4, 3, 9])
    assert [(list(steps), list(values)) for steps, values in curve.abandoned.values()] == [([3, 4], [2, 1])]


def test_a_run_whose_worker_is_gone_counts_as_interrupted(folder: RunFolder) -> None:
    folder.add_event(StateChanged(state=RunState.RUNNING, time=1.0))
    me = psutil.Process()
    alive = WorkerAddress("nowhere", b"key", me.pid, me.create_time())
    # A later process may carry the same id.
    folder.claim(WorkerAddress("nowhere", b"key", me.pid, me.create_time() - 100))
    assert folder.read().was_interrupted
    assert folder.read().state is RunState.STOPPED
    folder.claim(alive)
    assert not folder.read().was_interrupted
    assert folder.read().state is RunState.RUNNING
    folder.remove_worker(alive)
    assert folder.read().was_interrupted
    folder.add_event(StateChanged(state=RunState.FINISHED, time=2.0))
    assert not folder.read().was_interrupted


def test_a_run_has_one_worker_and_another_one_cannot_end_its_claim(folder: RunFolder) -> None:
    me, parent = psutil.Process(), psutil.Process().parent()
    ours = WorkerAddress("nowhere", b"key", me.pid, me.create_time())
    theirs = WorkerAddress("elsewhere", b"key", parent.pid, parent.create_time())
    folder.claim(ours)
    with pytest.raises(RunFolderError, match="has a worker already"):
        folder.claim(theirs)
    folder.remove_worker(theirs)
    assert folder.worker() == ours


@pytest.mark.parametrize("content", ["null", "[]", "{}", "no JSON", '{"address": 1}'])
def test_a_damaged_address_counts_as_no_worker(folder: RunFolder, content: str) -> None:
    (folder.path / "worker.json").write_text(content)
    assert folder.worker() is None


def test_a_locked_database_is_one_sentence(folder: RunFolder) -> None:
    other = sqlite3.connect(folder.path / "run.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    folder._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(RunFolderError, match="database is locked"):
        folder.add_event(LogWritten(level="info", text="x"))
    other.execute("ROLLBACK")
    other.close()
    assert folder.add_event(LogWritten(level="info", text="x")) == 1


@pytest.mark.parametrize("name", ["손글씨" * 26, "x" * 80, "a/b?#%c"])
def test_any_name_makes_a_folder_that_opens(tmp_path: Path, small_config: RunConfig, name: str) -> None:
    with RunFolder.create(tmp_path / "runs", small_config.model_copy(update={"name": name[:80]})) as made:
        assert made.config().name == name[:80]


def test_the_position_after_a_restore_is_that_of_the_restored_checkpoint(folder: RunFolder) -> None:
    folder.begin_segment(0, None, 0.0)
    folder.add_metrics(0, {"Loss/train": Series(steps=[1, 2, 3], values=[3, 2, 1])})
    assert folder.read().step == 3
    folder.begin_segment(1, "a.pt", 1.0)
    assert folder.read().step == 1


def test_events_are_numbered_in_order(folder: RunFolder) -> None:
    ids = [folder.add_event(LogWritten(level="info", text=str(n), time=float(n))) for n in range(3)]
    assert ids == [1, 2, 3]
    record = folder.read()
    assert record.last_event_id == 3
    assert [event.text for event in record.log] == ["0", "1", "2"]


def test_a_checkpoint_is_found_by_a_piece_of_its_name_and_by_rank(folder: RunFolder) -> None:
    with pytest.raises(RunFolderError, match="no checkpoints yet"):
        folder.checkpoint("last")
    for info in (
        make_info("a_001.pt", 4, 0.3, 0.9),
        make_info("a_002.pt", 8, 0.2, 0.9),
        make_info("b_003.pt", 12, None, None),
    ):
        folder.add_checkpoint(info)
    assert folder.checkpoint("last").name == "b_003.pt"
    assert folder.checkpoint("best").name == "a_002.pt"
    assert folder.checkpoint("001").name == "a_001.pt"
    with pytest.raises(RunFolderError, match="2 checkpoints named 'a_'"):
        folder.checkpoint("a_")
    assert folder.checkpoint("2").name == "a_002.pt"
    with pytest.raises(RunFolderError, match="no checkpoint named 'zz'"):
        folder.checkpoint("zz")


def test_a_resume_goes_on_from_the_last_checkpoint_saved_or_restored(folder: RunFolder) -> None:
    folder.begin_segment(0, None, 0.0)
    assert folder.resume_point() is None
    first, second = make_info("a_001.pt", 4), make_info("a_002.pt", 8)
    folder.add_checkpoint(first)
    folder.add_checkpoint(second)
    assert folder.resume_point() == second
    folder.begin_segment(4, "a_001.pt", 1.0)
    assert folder.resume_point() == first
    third = make_info("a_003.pt", 6).model_copy(update={"segment": 1})
    folder.add_checkpoint(third)
    assert folder.resume_point() == third


def test_a_checkpoint_with_a_nan_loss_is_never_the_best() -> None:
    for metric in METRICS:
        assert best_checkpoint([make_info("a", 1, math.nan, 0.99), make_info("b", 2, 0.5, 0.2)], metric).name == "b"
        assert best_checkpoint([make_info("a", 1, 0.1, math.nan), make_info("b", 2, 0.5, 0.2)], metric).name == "b"
        assert best_checkpoint([make_info("a", 1, math.nan, 0.99)], metric) is None
        assert best_checkpoint([make_info("a", 1, None, None)], metric) is None


def test_the_best_has_the_lowest_loss_or_the_highest_accuracy_and_among_equals_the_other_decides() -> None:
    listed = [
        make_info("low loss", 1, 0.2, 0.7),
        make_info("low loss, right", 2, 0.2, 0.8),
        make_info("right", 3, 0.4, 0.9),
        make_info("right, low loss", 4, 0.3, 0.9),
        make_info("the same again", 5, 0.3, 0.9),
    ]
    assert best_checkpoint(listed, "loss").name == "low loss, right"
    assert best_checkpoint(listed, "accuracy").name == "right, low loss"


def test_the_best_is_told_by_what_the_patience_watches_that_the_run_has_now(
    folder: RunFolder, small_config: RunConfig
) -> None:
    by_loss, by_accuracy = make_info("loss", 4, 0.2, 0.7), make_info("accuracy", 8, 0.4, 0.9)
    for info in (by_loss, by_accuracy):
        counts = [[info.step, 0], [0, 1]]
        matrix = ConfusionMatrix(
            split="validation", checkpoint=info.name, step=info.step, class_names=["a", "b"], counts=counts
        )
        folder.add_checkpoint(info, matrix)
    summary = ModelSummary(model="tiny", layers=[], frozen=[], num_params=1, num_trainable=1)
    run = RunInfo(
        run_dir=str(folder.path), config=small_config, summary=summary, class_names=["a", "b"], num_train=8,
        num_validation=4, num_skipped=0, steps_per_epoch=4, total_steps=20, device="cpu", precision="fp32",
        num_threads=1, image_size=32,
    )  # fmt: skip
    folder.add_event(RunPrepared(run=run, step=0, epoch=0))
    assert folder.checkpoint("best") == by_accuracy, "no patience"
    training = {"epochs": 5, "before_epochs": 5, "total_steps": 20, "requested_step": 8, "applied_step": 8}
    for patience, before, best in ((3, None, by_loss), (None, 3, by_accuracy)):
        event = TrainingChanged(patience=patience, before_patience=before, segment=0, **training)
        folder.add_event(event)
        assert folder.checkpoint("best") == best
        assert folder.confusion("best").checkpoint == best.name
        assert folder.listing().best_accuracy == best.accuracy
        assert folder.read().best_metric == ("accuracy" if patience is None else "loss")


def test_a_missing_or_altered_checkpoint_file_is_told(folder: RunFolder) -> None:
    info = make_info("a.pt", 1)
    assert folder.problem_of(info) == "file is missing"
    (folder.checkpoints_dir / "a.pt").write_bytes(b"12345")
    assert folder.problem_of(info) == "file was altered"
    (folder.checkpoints_dir / "a.pt").write_bytes(b"123")
    assert folder.problem_of(info) == ""


def test_runs_are_listed_newest_first_and_a_damaged_one_is_not_hidden(tmp_path: Path, folder: RunFolder) -> None:
    bad = folder.path.parent / "2001-01-01_000000_bad"
    bad.mkdir()
    (bad / "run.db").write_bytes(b"no database at all, but long enough to look at" * 100)
    listings = list_runs(folder.path.parent)
    assert [listing.path for listing in listings] == [folder.path, bad]
    assert "run.db" in listings[1].problem
    assert list_runs(tmp_path / "none") == []


def test_a_run_is_found_by_path_name_or_last(folder: RunFolder, tmp_path: Path) -> None:
    runs_dir = folder.path.parent
    assert find_run(str(folder.path), tmp_path) == folder.path
    assert find_run("small", runs_dir) == folder.path
    assert find_run("last", runs_dir) == folder.path
    with pytest.raises(RunFolderError, match="No run named 'other'"):
        find_run("other", runs_dir)
    with pytest.raises(RunFolderError, match="There are no runs in"):
        find_run("last", tmp_path)


def test_a_folder_of_another_format_is_refused_by_version(folder: RunFolder) -> None:
    with sqlite3.connect(folder.path / "run.db") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(RunFolderError, match="format 99"):
        RunFolder(folder.path)
    with pytest.raises(RunFolderError, match="not a run of Thaw"):
        RunFolder(folder.path.parent)


def test_a_place_that_cannot_be_written_is_told_before_anything_starts(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RunFolderError, match="Cannot write to"):
        check_writable(blocked / "runs")
    assert blocked.read_text() == ""


def test_the_confusion_matrices_of_the_best_and_the_latest_validation_are_kept(folder: RunFolder) -> None:
    def add(name: str, step: int, accuracy: float, split: str = "validation") -> ConfusionMatrix:
        counts = [[step, 0], [1, step]]
        confusion = ConfusionMatrix(split=split, checkpoint=name, step=step, class_names=["a", "b"], counts=counts)
        folder.add_checkpoint(make_info(name, step, accuracy=accuracy), confusion)
        return confusion

    with pytest.raises(RunFolderError, match="it comes with the validation at the end of an epoch"):
        folder.confusion("best")
    add("first", 4, 0.5)
    best = add("second", 8, 0.9)
    latest = add("third", 12, 0.7)
    folder.add_checkpoint(make_info("by hand", 14, loss=None, accuracy=None))
    assert (folder.confusion("best"), folder.confusion("latest")) == (best, latest)
    with pytest.raises(RunFolderError, match="test split"):
        folder.confusion("test")
    of_test = ConfusionMatrix(split="test", checkpoint="second", step=8, class_names=["a", "b"], counts=[[1, 0]] * 2)
    folder.keep_test_confusion(of_test)
    assert folder.confusion("test") == of_test


def test_a_cell_of_a_table_stays_one_class_in_a_run_that_knew_no_separators(folder: RunFolder) -> None:
    assert folder.config().data.label_separator == "auto"
    toml = folder.path / "run.toml"
    lines = toml.read_text(encoding="utf-8").splitlines()
    toml.write_text("\n".join(line for line in lines if "label_separator" not in line), encoding="utf-8")
    assert folder.config().data.label_separator == "none"
