"""The run folder keeps what it is given, and says what is wrong with what it is not."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sqlite3
from pathlib import Path

import psutil
import pytest

from trainer.checkpoints import CheckpointStore
from trainer.config import CheckpointsConfig, RunConfig
from trainer.messages.changes import TrainingChanged
from trainer.messages.events import CheckpointSaved, LogWritten, RunPrepared, StateChanged
from trainer.messages.model_info import ModelSummary
from trainer.messages.run_info import CheckpointInfo, ConfusionMatrix, RunInfo, Series
from trainer.messages.states import RunState
from trainer.run_list import check_writable, find_run, list_runs
from trainer.run_record import Curve, RunFolderError, WorkerAddress, best_checkpoint
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


def test_a_checkpoint_of_a_piece_that_was_left_is_gone_on_from_there(folder: RunFolder) -> None:
    """Steps 0 to 100, then on from 40 to 80, then on from a checkpoint of the first piece, at 90."""
    loss = "Loss/train"
    folder.begin_segment(0, None, 0.0)
    folder.add_metrics(0, {loss: points(1, 100, 0.0)})
    folder.begin_segment(40, "a.pt", 1.0, parent=0)
    folder.add_metrics(1, {loss: points(41, 80, 1.0)})
    assert line_of(folder.curves()[loss]) == [(1, 40, 0.0), (41, 80, 1.0)]
    folder.begin_segment(90, "b.pt", 2.0, parent=0)
    folder.add_metrics(2, {loss: points(91, 95, 2.0)})
    curve = folder.curves()[loss]
    assert line_of(curve) == [(1, 90, 0.0), (91, 95, 2.0)]
    assert {by: list(steps) for by, (steps, _) in curve.abandoned.items()} == {
        0: list(range(91, 101)),
        1: list(range(41, 81)),
    }
    # A checkpoint of the second piece is shared with what led to it.
    assert line_of(folder.curves(1)[loss]) == [(1, 40, 0.0), (41, 80, 1.0)]


def test_a_run_of_an_earlier_thaw_goes_on_by_its_steps(folder: RunFolder) -> None:
    loss = "Loss/train"
    folder.begin_segment(0, None, 0.0)
    folder.add_metrics(0, {loss: points(1, 100, 0.0)})
    folder.begin_segment(40, "a.pt", 1.0)
    folder.add_metrics(1, {loss: points(41, 80, 1.0)})
    folder.begin_segment(90, "b.pt", 2.0)
    folder.add_metrics(2, {loss: points(91, 95, 2.0)})
    assert line_of(folder.curves()[loss]) == [(1, 40, 0.0), (41, 80, 1.0), (91, 95, 2.0)]
    # Before the second piece had begun, and then that is undone.
    folder.begin_segment(20, "a.pt", 3.0)
    folder.begin_segment(95, None, 4.0)
    with folder.database.writing() as db:
        db.execute("INSERT INTO meta VALUES ('undoes 4', '3')")
    folder.add_metrics(4, {loss: points(96, 99, 4.0)})
    assert line_of(folder.curves(3)[loss]) == [(1, 20, 0.0)]
    assert line_of(folder.curves()[loss]) == [(1, 40, 0.0), (41, 80, 1.0), (91, 95, 2.0), (96, 99, 4.0)]


def test_a_step_that_is_validated_again_after_a_restore_counts_once(folder: RunFolder) -> None:
    loss = "Loss/validation"
    folder.begin_segment(0, None, 0.0)
    folder.add_metrics(0, {loss: Series(steps=[4], values=[0.0])})
    folder.begin_segment(4, "a.pt", 1.0, parent=0)
    folder.add_metrics(1, {loss: Series(steps=[4, 8], values=[1.0, 1.0])})
    curve = folder.curves()[loss]
    assert (list(curve.steps), list(curve.values), curve.abandoned) == ([4, 8], [0.0, 1.0], {})


def points(first: int, last: int, value: float) -> Series:
    return Series(steps=list(range(first, last + 1)), values=[value] * (last + 1 - first))


def line_of(curve: Curve) -> list[tuple[int, int, float]]:
    """Return the line as stretches of one value: the first step, the last, and the value."""
    stretches: list[tuple[int, int, float]] = []
    for value, group in itertools.groupby(zip(curve.steps, curve.values, strict=True), lambda point: point[1]):
        steps = [step for step, _ in group]
        assert steps == list(range(steps[0], steps[-1] + 1))
        stretches.append((steps[0], steps[-1], value))
    return stretches


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


def test_a_copy_of_a_live_runs_folder_has_no_worker_and_one_that_was_moved_has_it_still(
    folder: RunFolder, tmp_path: Path
) -> None:
    me = psutil.Process()
    ours = WorkerAddress("nowhere", b"key", me.pid, me.create_time())
    folder.claim(ours)
    shutil.copytree(folder.path, tmp_path / "copy")
    with RunFolder(tmp_path / "copy") as copy:
        assert copy.worker() is None
        copy.claim(ours)
        assert copy.worker() == ours
    assert folder.worker() == ours
    (tmp_path / "link").symlink_to(folder.path)
    assert WorkerAddress.read(tmp_path / "link") == ours
    moved = folder.path.rename(tmp_path / "moved")
    folder.path.mkdir()
    assert WorkerAddress.read(moved) == ours, "whatever has its place by now"
    # As an earlier Thaw wrote it.
    values = json.loads((moved / "worker.json").read_text())
    del values["inode"], values["run_dir"]
    (moved / "worker.json").write_text(json.dumps(values))
    assert WorkerAddress.read(moved) == ours


@pytest.mark.parametrize("content", ["null", "[]", "{}", "no JSON", '{"address": 1}'])
def test_a_damaged_address_counts_as_no_worker(folder: RunFolder, content: str) -> None:
    (folder.path / "worker.json").write_text(content)
    assert folder.worker() is None


def test_a_locked_database_is_one_sentence(folder: RunFolder) -> None:
    other = sqlite3.connect(folder.path / "run.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    folder.database._db.execute("PRAGMA busy_timeout = 10")
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
        folder.checkpoints.find("last")
    for info in (
        make_info("a_001.pt", 4, 0.3, 0.9),
        make_info("a_002.pt", 8, 0.2, 0.9),
        make_info("b_003.pt", 12, None, None),
    ):
        folder.checkpoints.add(info)
    assert folder.checkpoints.find("last").name == "b_003.pt"
    assert folder.checkpoints.find("best").name == "a_002.pt"
    assert folder.checkpoints.find("001").name == "a_001.pt"
    with pytest.raises(RunFolderError, match="2 checkpoints named 'a_'"):
        folder.checkpoints.find("a_")
    assert folder.checkpoints.find("2").name == "a_002.pt"
    with pytest.raises(RunFolderError, match="no checkpoint named 'zz'"):
        folder.checkpoints.find("zz")


def test_a_number_is_an_epoch_and_never_a_piece_of_a_score_in_a_name(folder: RunFolder) -> None:
    folder.checkpoints.add(make_info("a_002_000008_0.0421_0.9903.pt", 8, 0.0421, 0.9903))
    for number in ("99", "0421", "8"):
        with pytest.raises(RunFolderError, match=f"no checkpoint of the end of epoch {int(number)}"):
            folder.checkpoints.find(number)
    assert folder.checkpoints.find("002").epoch == folder.checkpoints.find("0.0421").epoch == 2


def test_a_resume_goes_on_from_the_last_checkpoint_saved_or_restored(folder: RunFolder) -> None:
    folder.begin_segment(0, None, 0.0)
    assert folder.checkpoints.resume_point() is None
    first, second = make_info("a_001.pt", 4), make_info("a_002.pt", 8)
    folder.checkpoints.add(first)
    folder.checkpoints.add(second)
    assert folder.checkpoints.resume_point() == second
    folder.begin_segment(4, "a_001.pt", 1.0)
    assert folder.checkpoints.resume_point() == first
    third = make_info("a_003.pt", 6).model_copy(update={"segment": 1})
    folder.checkpoints.add(third)
    assert folder.checkpoints.resume_point() == third


def test_a_resume_keeps_to_the_line_of_a_deleted_checkpoint_that_was_restored(folder: RunFolder) -> None:
    def save(name: str, step: int, segment: int) -> CheckpointInfo:
        info = make_info(name, step).model_copy(update={"segment": segment})
        folder.checkpoints.add(info)
        folder.add_event(CheckpointSaved(checkpoint=info))
        return info

    folder.begin_segment(0, None, 0.0)
    first = save("a.pt", 4, 0)
    save("b.pt", 8, 0)
    folder.begin_segment(4, "a.pt", 1.0)
    save("other.pt", 6, 1)
    folder.begin_segment(8, "b.pt", 2.0)
    folder.checkpoints.begin_deleting(["b.pt"])
    assert folder.checkpoints.resume_point() == first


def test_checkpoints_that_the_run_has_gone_back_behind_are_left_behind_until_one_of_them_is_restored(
    folder: RunFolder,
) -> None:
    times = itertools.count()

    def save(name: str, step: int, segment: int) -> None:
        info = make_info(name, step).model_copy(update={"segment": segment, "saved_at": float(next(times))})
        folder.checkpoints.add(info)
        folder.add_event(CheckpointSaved(checkpoint=info))

    def left_behind() -> set[str]:
        return folder.checkpoints.left_behind(folder.checkpoints.listed())

    assert left_behind() == set()
    folder.begin_segment(0, None, 0.0)
    for name, step in (("a.pt", 4), ("b.pt", 8), ("c.pt", 8), ("d.pt", 12)):
        save(name, step, 0)
    assert left_behind() == set()
    folder.begin_segment(8, "b.pt", 1.0)
    assert left_behind() == {"c.pt", "d.pt"}
    save("again.pt", 12, 1)
    # Rewound to step 10, before a change that came before that save: there the run would go on from b.
    folder.begin_segment(10, "b.pt", 2.0)
    assert left_behind() == {"c.pt", "d.pt", "again.pt"}
    folder.begin_segment(12, "again.pt", 3.0, parent=1)
    assert left_behind() == {"c.pt", "d.pt"}
    folder.checkpoints.begin_deleting(["again.pt", "b.pt"])
    assert left_behind() == {"c.pt", "d.pt"}
    folder.begin_segment(12, "d.pt", 4.0)
    assert left_behind() == set()
    folder.begin_segment(0, None, 5.0)
    assert left_behind() == {"a.pt", "c.pt", "d.pt"}


def test_a_save_reads_no_more_rows_the_more_there_are(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.begin_segment(0, None, 0.0)
    for step in range(1, 50):
        info = make_info(f"c{step}.pt", step, accuracy=step / 100)
        folder.checkpoints.add(info, matrix_of(info))
    parsed: list[str] = []
    parse = CheckpointInfo.model_validate_json

    def note(body: str) -> CheckpointInfo:
        parsed.append(body)
        return parse(body)

    monkeypatch.setattr(CheckpointInfo, "model_validate_json", note)
    name = CheckpointStore(folder).hold_name("c7.pt")
    assert name == "c7_2.pt"
    info = make_info(name, 50, accuracy=0.99)
    folder.checkpoints.add(info, matrix_of(info))
    assert len(parsed) <= len(CheckpointsConfig().best_metrics)
    assert folder.checkpoints.find("best") == info
    parsed.clear()
    folder.checkpoints.listed()
    folder.checkpoints.resume_point()
    assert parsed == []


def matrix_of(info: CheckpointInfo) -> ConfusionMatrix:
    return ConfusionMatrix(
        split="validation",
        checkpoint=info.name,
        step=info.step,
        class_names=["a", "b"],
        counts=[[info.step, 0], [0, 1]],
    )


def test_the_best_confusion_matrix_is_never_that_of_a_deleted_checkpoint(folder: RunFolder) -> None:
    infos = [
        make_info(f"{name}.pt", step, accuracy=accuracy)
        for name, step, accuracy in (("best", 4, 0.9), ("second", 8, 0.8), ("worst", 12, 0.5))
    ]
    for info in infos:
        folder.checkpoints.add(info, matrix_of(info))
    best, second, worst = infos
    assert folder.checkpoints.confusion("best") == matrix_of(best)
    folder.checkpoints.begin_deleting([best.name])
    with pytest.raises(RunFolderError, match=r"no confusion matrix of its best checkpoint.*Look at the latest one's"):
        folder.checkpoints.confusion("best")
    folder.checkpoints.begin_deleting([second.name])
    assert folder.checkpoints.confusion("best") == matrix_of(worst)
    folder.checkpoints.add(best)
    assert folder.checkpoints.confusion("best") == matrix_of(best)


def test_a_checkpoint_with_a_nan_loss_is_never_the_best() -> None:
    for metric in CheckpointsConfig().best_metrics:
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


def test_the_best_may_be_told_by_any_metric_and_what_lacks_it_is_none_of_the_best() -> None:
    scores = {"low": 0.3, "high": 0.9, "high, low loss": 0.9, "no number": math.nan}
    losses = {"high, low loss": 0.4}
    listed = [
        make_info(name, step, losses.get(name, 0.5)).model_copy(update={"metrics": {"Mean AP/validation": score}})
        for step, (name, score) in enumerate(scores.items())
    ]
    listed.append(make_info("undefined", 9, 0.01, 1.0))
    assert best_checkpoint(listed, "mean_ap").name == "high, low loss"
    assert best_checkpoint(listed, "auroc") is None


def test_a_run_whose_configuration_has_no_word_of_it_tells_the_best_as_before(folder: RunFolder) -> None:
    path = folder.path / "run.toml"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("best_metric")), encoding="utf-8")
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(lines) - 1
    assert folder.best_metric() == "accuracy"
    path.write_text(
        path.read_text(encoding="utf-8").replace("[training]", "[training]\npatience = 3"), encoding="utf-8"
    )
    assert folder.best_metric() == "loss"


def test_the_best_is_told_by_what_the_patience_watches_that_the_run_has_now(
    folder: RunFolder, small_config: RunConfig
) -> None:
    by_loss, by_accuracy = make_info("loss", 4, 0.2, 0.7), make_info("accuracy", 8, 0.4, 0.9)
    for info in (by_loss, by_accuracy):
        counts = [[info.step, 0], [0, 1]]
        matrix = ConfusionMatrix(
            split="validation", checkpoint=info.name, step=info.step, class_names=["a", "b"], counts=counts
        )
        folder.checkpoints.add(info, matrix)
    summary = ModelSummary(model="tiny", layers=[], frozen=[], num_params=1, num_trainable=1)
    run = RunInfo(
        run_dir=str(folder.path), config=small_config, summary=summary, class_names=["a", "b"], num_train=8,
        num_validation=4, num_skipped=0, steps_per_epoch=4, total_steps=20, device="cpu", precision="fp32",
        num_threads=1, image_size=32,
    )  # fmt: skip
    folder.add_event(RunPrepared(run=run, step=0, epoch=0))
    assert folder.checkpoints.find("best") == by_accuracy, "no patience"
    training = {"epochs": 5, "before_epochs": 5, "total_steps": 20, "requested_step": 8, "applied_step": 8}
    for patience, before, best in ((3, None, by_loss), (None, 3, by_accuracy)):
        event = TrainingChanged(patience=patience, before_patience=before, segment=0, **training)
        folder.add_event(event)
        assert folder.checkpoints.find("best") == best
        assert folder.checkpoints.confusion("best").checkpoint == best.name
        assert folder.listing().best_accuracy == best.accuracy
        assert folder.read().best_metric == ("accuracy" if patience is None else "loss")


def test_a_missing_or_altered_checkpoint_file_is_told(folder: RunFolder) -> None:
    info = make_info("a.pt", 1)
    assert folder.checkpoints.problem_of(info) == "file is missing"
    (folder.checkpoints_dir / "a.pt").write_bytes(b"12345")
    assert folder.checkpoints.problem_of(info) == "file was altered"
    (folder.checkpoints_dir / "a.pt").write_bytes(b"123")
    assert folder.checkpoints.problem_of(info) == ""


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


def test_a_folder_that_is_no_run_and_one_that_is_not_there_are_told_apart(folder: RunFolder, tmp_path: Path) -> None:
    for runs_dir in (tmp_path / "none", folder.path.parent):
        (runs_dir / "empty").mkdir(parents=True)
        for given in (str(runs_dir / "empty"), "empty"):
            with pytest.raises(RunFolderError) as refused:
                find_run(given, runs_dir)
            assert str(refused.value).startswith(
                f"{runs_dir / 'empty'} is no run's folder, for there is no run.db in it. `thaw runs` lists"
            )
        with pytest.raises(RunFolderError) as refused:
            find_run(str(tmp_path / "gone"), runs_dir)
        assert str(refused.value).startswith(f"There is no folder {tmp_path / 'gone'}. `thaw runs` lists")


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
        folder.checkpoints.add(make_info(name, step, accuracy=accuracy), confusion)
        return confusion

    with pytest.raises(RunFolderError, match="it comes with the validation at the end of an epoch"):
        folder.checkpoints.confusion("best")
    add("first", 4, 0.5)
    best = add("second", 8, 0.9)
    latest = add("third", 12, 0.7)
    folder.checkpoints.add(make_info("by hand", 14, loss=None, accuracy=None))
    assert (folder.checkpoints.confusion("best"), folder.checkpoints.confusion("latest")) == (best, latest)
    with pytest.raises(RunFolderError, match="test split"):
        folder.checkpoints.confusion("test")
    of_test = ConfusionMatrix(split="test", checkpoint="second", step=8, class_names=["a", "b"], counts=[[1, 0]] * 2)
    folder.checkpoints.keep_test_confusion(of_test)
    assert folder.checkpoints.confusion("test") == of_test


def test_a_cell_of_a_table_stays_one_class_in_a_run_that_knew_no_separators(folder: RunFolder) -> None:
    assert folder.config().data.label_separator == "auto"
    toml = folder.path / "run.toml"
    lines = toml.read_text(encoding="utf-8").splitlines()
    toml.write_text("\n".join(line for line in lines if "label_separator" not in line), encoding="utf-8")
    assert folder.config().data.label_separator == "none"
