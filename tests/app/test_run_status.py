"""The run's state, the log and the list of runs, in words."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QAbstractItemModelTester

from app.viewmodels import log, run_list
from app.viewmodels.compute_words import chosen_text, measured_text
from app.viewmodels.log import LogItemModel
from app.viewmodels.quantities import ago_text, duration_text, number_text, percent_text, size_text
from app.viewmodels.run_list import RunListItemModel
from app.viewmodels.run_status import FolderSize, RunStatusViewModel
from tests.app.conftest import checkpoint
from trainer.client import WorkerLost
from trainer.messages.changes import LayersUnfrozen, RateChanged
from trainer.messages.commands import ALLOWED_COMMANDS
from trainer.messages.compute import ComputeChoice, Form, MeasuredForm
from trainer.messages.events import (
    CheckpointEdited,
    CheckpointSaved,
    CheckpointsDeleted,
    CheckpointsPutBack,
    CommandRejected,
    FreezeVerified,
    LogWritten,
    PreparationProgressed,
    ProgressReported,
    RewindsKept,
    RunPrepared,
    StateChanged,
)
from trainer.messages.run_info import RunInfo
from trainer.messages.states import RunState
from trainer.run_record import RunListing

PROGRESS = ProgressReported(
    epoch=3, num_epochs=6, step=184, total_steps=270, samples_per_s=812, seconds_left=42.0, step_ms=14,
    worker_bytes=900_000_000,
)  # fmt: skip
UNFROZEN = LayersUnfrozen(
    layers=["stage2.0"], sentence="stage2 unfrozen", frozen=["conv1"], num_trainable=110, requested_step=127,
    applied_step=128, source="plan", segment=0, time=5.0,
)  # fmt: skip


@pytest.fixture
def status(qapp, run_info) -> RunStatusViewModel:
    made = RunStatusViewModel()
    made.prepare(RunPrepared(run=run_info, step=0, epoch=0))
    made.change_state(StateChanged(state=RunState.RUNNING))
    return made


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (40_000, "40.0 kB"), (1_700_000, "1.7 MB"), (142e6, "142 MB"), (80e9, "80 GB")],
)
def test_sizes_read_as_a_person_says_them(qapp, num_bytes: float, text: str) -> None:
    assert size_text(num_bytes) == text


def test_durations_shares_and_ages(qapp) -> None:
    assert [duration_text(s) for s in (42, 725, 3725)] == ["0:42", "12:05", "1:02:05"]
    assert [percent_text(s) for s in (0.9721, None, float("nan"))] == ["97.2 %", "–", "–"]
    assert [number_text(v, 3) for v in (0.1555, None, float("nan"))] == ["0.155", "–", "NaN"]
    assert [ago_text(s) for s in (1, 12, 600, 9000, 300_000)] == [
        "just now", "12 s ago", "10 min ago", "2 h ago", "3 d ago",
    ]  # fmt: skip


def test_a_running_run_says_where_it_is(status: RunStatusViewModel) -> None:
    status.progress(PROGRESS)
    assert status.title == "digits · tiny"
    assert status.state_text == "Running"
    assert status.progress_text == "Epoch 4 of 6 · step 184 of 270 · 0:42 left"
    assert status.progress_fraction == pytest.approx(184 / 270)
    assert status.machine_text == "cpu · 2 threads · fp32"
    assert status.speed_text == "812 images/s"
    assert status.memory_text == "worker 900 MB"


MEASURED = [
    MeasuredForm(form=Form(num_threads=2), step_ms=412.0),
    MeasuredForm(form=Form(precision="bf16", num_threads=2), step_ms=260.0),
    MeasuredForm(form=Form(precision="bf16", channels_last=True, num_threads=2), step_ms=196.4),
]


def test_the_form_in_which_a_run_is_computed_is_named_with_the_figures_it_was_chosen_by(
    status: RunStatusViewModel, run_info: RunInfo
) -> None:
    assert status.machine_tip == ""
    choice = ComputeChoice(form=MEASURED[-1].form, measured=MEASURED, num_images=run_info.config.training.batch_size)
    run = run_info.model_copy(update={"compute": choice})
    status.prepare(RunPrepared(run=run, step=0, epoch=0))
    assert status.machine_text == "cpu · 2 threads · bf16, channels last"
    assert status.machine_tip == (
        "Measured before the first step, a step:\n412 ms  fp32\n260 ms  bf16\n196 ms  bf16, channels last"
    )
    assert chosen_text(run) == "bf16, channels last — 2.1\u00a0× fp32 (412 → 196 ms a step)"
    plain = choice.model_copy(update={"form": MEASURED[0].form, "num_images": 8})
    assert chosen_text(run_info.model_copy(update={"compute": plain})) == "fp32 — the fastest of 3"
    fewer = MeasuredForm(form=MEASURED[0].form.model_copy(update={"num_threads": 1}), step_ms=9.5)
    of_threads = plain.model_copy(update={"form": fewer.form, "measured": [MEASURED[0], fewer]})
    run = run_info.model_copy(update={"compute": of_threads, "num_threads": 1})
    assert chosen_text(run) == "fp32, 1 of 2 threads — 43.4\u00a0× fp32 (412 → 9.5 ms for 8 images)"
    assert measured_text(run).endswith("9.5 ms  fp32, 1 of 2 threads")


def test_compiled_graphs_are_counted_and_their_end_is_told(status: RunStatusViewModel, run_info: RunInfo) -> None:
    choice = ComputeChoice(form=Form(num_threads=2), is_compiled=True)
    status.prepare(RunPrepared(run=run_info.model_copy(update={"compute": choice}), step=0, epoch=0))
    assert status.machine_text == "cpu · 2 threads · fp32, compiled"
    status.progress(PROGRESS.model_copy(update={"num_compiled": 4}))
    assert status.machine_tip == "Compiled graphs: 4"
    status.progress(PROGRESS.model_copy(update={"num_compiled": 64, "is_compile_limit_reached": True}))
    assert status.machine_tip.splitlines()[1] == "No more are compiled: what is new is computed without"


def test_a_paused_run_has_no_speed_and_no_time_left(status: RunStatusViewModel) -> None:
    status.progress(PROGRESS)
    status.change_state(StateChanged(state=RunState.PAUSED))
    assert status.progress_text == "Epoch 4 of 6 · step 184 of 270"
    assert status.speed_text == ""
    assert status.state_tone == "warm"


@pytest.mark.parametrize("state", [RunState.FINISHED, RunState.STOPPED, RunState.FAILED])
def test_of_a_run_that_has_ended_the_epochs_are_counted_that_it_has_behind_it(
    status: RunStatusViewModel, state: RunState
) -> None:
    status.progress(PROGRESS)
    status.change_state(StateChanged(state=state))
    assert status.progress_text == "3 of 6 epochs · step 184 of 270"


def test_preparation_tells_what_it_is_at(status: RunStatusViewModel) -> None:
    status.change_state(StateChanged(state=RunState.PREPARING))
    status.prepare_progress(
        PreparationProgressed(what="Downloading resnet18", done=10_000_000, total=46_000_000, unit="bytes")
    )
    assert status.progress_text == "Downloading resnet18 · 10.0 MB of 46.0 MB"
    status.change_state(StateChanged(state=RunState.RUNNING))
    assert "Downloading" not in status.progress_text


def test_a_lost_worker_is_an_interruption(status: RunStatusViewModel) -> None:
    status.lose_worker(WorkerLost(False, "The worker was killed."))
    assert status.state_text == "Interrupted"
    # A resume that is refused leaves it as it was.
    for state, words in ((RunState.PREPARING, "Preparing"), (RunState.STOPPED, "Interrupted")):
        status.change_state(StateChanged(state=state))
        assert status.state_text == words
    assert status.state_tone == "danger"


def test_the_last_save_and_the_disk_are_told(status: RunStatusViewModel) -> None:
    assert status.saved_text() == ""
    status.save_checkpoint(CheckpointSaved(checkpoint=checkpoint(1, 0.5, 0.9, saved_at=time.time() - 12.5)))
    assert status.saved_text() == "saved 12 s ago"
    status.measure(FolderSize(4_100_000, 80_000_000_000), 142_000_000)
    assert status.disk_text == "run folder 4.1 MB of 80 GB free"
    assert status.memory_text == "window 142 MB"


def test_leaving_a_run_forgets_it(status: RunStatusViewModel) -> None:
    status.progress(PROGRESS)
    status.leave_run()
    assert not status.has_run
    assert status.progress_text == ""


@pytest.fixture
def rows(qapp) -> LogItemModel:
    made = LogItemModel()
    made.tester = QAbstractItemModelTester(made, QAbstractItemModelTester.FailureReportingMode.Fatal)
    return made


def texts(rows: LogItemModel, column: int) -> list[str]:
    return [rows.index(row, column).data() for row in range(rows.rowCount())]


def test_an_intervention_has_the_step_asked_and_the_step_applied(rows: LogItemModel) -> None:
    rows.add(UNFROZEN)
    assert texts(rows, log.WHAT) == ["stage2 unfrozen"]
    assert texts(rows, log.ASKED) == ["127"]
    assert texts(rows, log.APPLIED) == ["128"]
    assert texts(rows, log.RESULT) == ["by the plan"]


def test_a_change_of_the_rate_says_what_it_was_before(rows: LogItemModel) -> None:
    rows.add(RateChanged(rate=5e-4, before=1e-3, requested_step=127, applied_step=128, segment=0, time=1.0))
    assert [texts(rows, column)[0] for column in (log.WHAT, log.ASKED, log.APPLIED, log.RESULT)] == [
        "Rate 0.0005", "127", "128", "0.001 before",
    ]  # fmt: skip


def test_what_the_rules_delete_has_a_row_and_what_could_not_be_deleted_stands_out(rows: LogItemModel) -> None:
    rows.add(CheckpointsDeleted(names=["a.pt", "b.pt"], freed_bytes=2_000_000, time=1.0))
    rows.add(CheckpointsDeleted(names=["c.pt"], freed_bytes=0, problem="Cannot delete c.pt.", time=2.0))
    assert texts(rows, log.WHAT) == ["Checkpoints deleted", "Checkpoints deleted"]
    assert texts(rows, log.RESULT) == ["2.0 MB freed: a.pt, b.pt", "Cannot delete c.pt."]
    assert [rows.index(row, 0).data(log.LevelRole) for row in range(2)] == ["info", "warning"]


def test_refusals_errors_and_drift_stand_out(rows: LogItemModel) -> None:
    rows.add(CommandRejected(command="FreezeLayers", reason="Nothing would be left to train.", time=1.0))
    rows.add(LogWritten(level="error", text="Out of memory.", time=2.0))
    rows.add(FreezeVerified(step=9, num_verified=2, drifted=["conv1"], time=3.0))
    rows.add(FreezeVerified(step=9, num_verified=2, drifted=[], time=3.0))
    levels = [rows.index(row, 0).data(log.LevelRole) for row in range(4)]
    assert levels == ["warning", "error", "error", "info"]
    assert texts(rows, log.WHAT)[1] == "Error"
    assert texts(rows, log.RESULT)[1:] == [
        "Out of memory.", "Drifted: conv1", "frozen layers unchanged to the bit: 2",
    ]  # fmt: skip


@pytest.mark.parametrize("command", sorted(ALLOWED_COMMANDS))
def test_a_refusal_is_told_in_words(rows: LogItemModel, command: str) -> None:
    rows.add(CommandRejected(command=command, reason="Not now.", time=1.0))
    (what,) = texts(rows, log.WHAT)
    assert what.endswith("efused")
    assert command not in what


def test_what_was_deleted_is_named_as_far_as_it_can_be_read(rows: LogItemModel) -> None:
    names = [f"c{number}.pt" for number in range(7)]
    rows.add(CheckpointsDeleted(names=names, freed_bytes=7_000_000, time=1.0))
    rows.add(CheckpointsPutBack(checkpoints=[checkpoint(1, 0.5, 0.9)], time=2.0))
    rows.add(CheckpointsDeleted(names=[], freed_bytes=0, problem="Cannot delete c7.pt.", time=3.0))
    rows.add(CheckpointEdited(checkpoint=checkpoint(2, 0.5, 0.9, is_pinned=True, note="before\nit"), time=4.0))
    assert texts(rows, log.RESULT) == [
        "7.0 MB freed: c0.pt, c1.pt, c2.pt, c3.pt, c4.pt and 2 more",
        "checkpoint_tiny_001.pt",
        "Cannot delete c7.pt.",
        "checkpoint_tiny_002.pt · pinned · before it",
    ]
    assert rows.index(2, 0).data(log.LevelRole) == "warning"


def test_a_freeze_that_changed_nothing_is_no_row(rows: LogItemModel) -> None:
    rows.add(UNFROZEN.model_copy(update={"layers": [], "sentence": "nothing unfrozen"}))
    assert rows.rowCount() == 0


def test_a_state_that_the_window_tells_itself_is_no_row(rows: LogItemModel) -> None:
    rows.add(StateChanged(state=RunState.STOPPED))
    rows.add(WorkerLost(True, ""))
    assert rows.rowCount() == 0


def test_the_log_keeps_a_bounded_number_of_rows(rows: LogItemModel, monkeypatch) -> None:
    monkeypatch.setattr(log, "MAX_ROWS", 3)
    for number in range(5):
        rows.add(LogWritten(level="info", text=str(number), time=1.0))
    assert texts(rows, log.RESULT) == ["2", "3", "4"]
    assert rows.rows_text([0]).split("\t")[1:] == ["Note", "", "", "2"]


def test_the_list_of_runs_says_what_became_of_each(qapp) -> None:
    runs = RunListItemModel()
    tester = QAbstractItemModelTester(runs, QAbstractItemModelTester.FailureReportingMode.Fatal)
    live = RunListing(Path("a"), "digits", "tiny", RunState.RUNNING, True, False, 2, 6, 90, 0.9, 1000.0)
    cut = RunListing(Path("b"), "letters", "tiny", RunState.RUNNING, False, True, 1, 6, 45, None, 900.0)
    bad = RunListing(Path("c"), "c", "", RunState.FAILED, False, False, 0, 0, 0, None, 800.0, "no run.db")
    runs.show_runs([live, cut, bad])
    assert [runs.index(row, run_list.STATE).data() for row in range(3)] == ["running", "interrupted", "damaged"]
    assert [runs.index(row, run_list.ACCURACY).data() for row in range(3)] == ["90.0 %", "–", "–"]
    assert runs.index(0, run_list.EPOCH).data() == "2 of 6"
    assert runs.index(2, run_list.RUN).data(Qt.ItemDataRole.ToolTipRole) == "no run.db"
    assert runs.row_of(Path("b")) == 1
    del tester


def test_branches_stand_below_their_runs_and_the_tree_of_the_newest_run_comes_first(qapp) -> None:
    def listed(name: str, parent: str = "") -> RunListing:
        run = RunListing(Path(name), name, "tiny", RunState.FINISHED, False, False, 6, 6, 270, 0.9, 1000.0)
        return replace(run, parent=Path("elsewhere") / parent, branched_from=f"{parent}, epoch 2") if parent else run

    runs = RunListItemModel()
    # Newest first, as they are read: d is a branch of the oldest one.
    newer, older = [listed("e", "d"), listed("d", "a"), listed("c")], [listed("b", "a"), listed("a")]
    runs.show_runs([*newer, *older, listed("x", "gone")])
    rows = [(runs.index(row, run_list.RUN).data(), runs.index(row, 0).data(run_list.RailsRole)) for row in range(6)]
    assert rows == [
        ("a", ()), ("d", (True,)), ("e", (True, False)), ("b", (False,)), ("c", ()), ("x", ()),
    ]  # fmt: skip
    keys = [runs.index(row, run_list.STARTED).data(run_list.SortRole) for row in range(6)]
    assert keys == sorted(keys, reverse=True)
    assert runs.index(1, run_list.RUN).data(Qt.ItemDataRole.ToolTipRole) == "Branched from a, epoch 2\nd"


def test_long_work_before_a_run_says_how_long_it_will_take(status) -> None:
    def progress(done: int, time: float) -> PreparationProgressed:
        return PreparationProgressed(what="Checking images", done=done, total=1000, unit="images", time=time)

    assert not status.can_cancel
    status.prepare_progress(progress(0, 100.0))
    assert status.can_cancel
    status.prepare_progress(progress(50, 101.0))
    assert status.progress_text == "Checking images · 50 of 1,000 images"
    status.prepare_progress(progress(200, 104.0))
    assert status.progress_text == "Checking images · 200 of 1,000 images · 0:16 left"
    status.finish_look_up()
    assert not status.can_cancel


def test_the_patience_is_told_while_the_run_lives(status: RunStatusViewModel) -> None:
    status.progress(PROGRESS)
    assert status.patience_text == ""
    status.progress(PROGRESS.model_copy(update={"patience": 5, "num_epochs_no_better": 3}))
    assert status.patience_text == "early stop 3 / 5"
    status.change_state(StateChanged(state=RunState.FINISHED))
    assert status.patience_text == ""


def test_what_the_kept_states_take_of_memory_and_disk_is_told_and_their_budgets_in_the_tip(
    status: RunStatusViewModel,
) -> None:
    status.progress(PROGRESS)
    budgets = {"changes": [1], "budget_bytes": 1_000_000_000, "disk_budget_bytes": 2_000_000_000}
    status.keep_rewinds(RewindsKept(num_bytes=2_000_000, **budgets))
    assert status.memory_text == "worker 900 MB · rewinds 2.0 MB"
    status.keep_rewinds(RewindsKept(num_bytes=2_000_000, disk_bytes=128_000, **budgets))
    assert status.memory_text == "worker 900 MB · rewinds 2.0 MB, 128 kB on disk"
    tip = "Rewinds are the states before changes: 2.0 MB of 1.0 GB in memory, 128 kB of 2.0 GB on disk"
    assert status.memory_tip == tip
    # Of a run that was resumed.
    status.keep_rewinds(RewindsKept(num_bytes=0, disk_bytes=128_000, **budgets))
    assert status.memory_text == "worker 900 MB · rewinds 128 kB on disk"
    status.keep_rewinds(RewindsKept(num_bytes=0, **budgets))
    assert (status.memory_text, status.memory_tip) == ("worker 900 MB", "")
