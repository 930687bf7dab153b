"""The session: what it sends, what it shows, and what it does when a worker goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.session import TrainingSession
from tests.app.conftest import ScriptedClient, checkpoint
from trainer.client import WorkerLost
from trainer.config import DataConfig, RunConfig
from trainer.messages.events import CheckpointSaved, CommandRejected, MetricsLogged, RunPrepared, StateChanged
from trainer.messages.run_info import RunInfo, Series
from trainer.messages.states import RunState
from trainer.runs import RunFolder

Begin = Callable[[ScriptedClient], None]


def is_in(session: TrainingSession, state: RunState) -> Callable[[], bool]:
    return lambda: session.state is state


def write_run(runs_dir: Path, run_info: RunInfo) -> Path:
    """Write a run's folder as a worker leaves it that was killed while it trained."""
    with RunFolder.create(runs_dir, run_info.config) as folder:
        run = run_info.model_copy(update={"run_dir": str(folder.path)})
        folder.begin_segment(0, None, 1.0)
        folder.add_event(RunPrepared(run=run, step=0, epoch=0, time=1.0))
        folder.add_event(StateChanged(state=RunState.RUNNING, time=1.0))
        folder.add_metrics(0, {"Loss/train": Series(steps=[1, 2], values=[2.0, 1.0])})
        folder.checkpoints.add(checkpoint(1, 0.5, 0.9))
        return folder.path


def test_commands_wait_until_the_worker_says_that_it_serves(qtbot, session, clients) -> None:
    session.check_data(DataConfig(path="images"), seed=7)
    assert clients[0].sent == []
    clients[0].serve()
    qtbot.waitUntil(lambda: clients[0].kinds() == ["CheckData"])
    assert session.state is RunState.IDLE


def test_each_kind_of_event_has_its_signal(qtbot, session, clients, begin_run: Begin) -> None:
    clients[0].serve()
    begin_run(clients[0])
    with qtbot.waitSignal(session.metrics_logged) as logged:
        clients[0].say(MetricsLogged(segment=0, series={"Loss/train": Series(steps=[1], values=[0.5])}))
    assert logged.args[0].series["Loss/train"].values == [0.5]
    assert session.state is RunState.RUNNING
    assert session.is_live
    assert session.run.num_train == 1437


def test_a_backlog_is_taken_in_more_than_one_tick(qtbot, session, clients) -> None:
    clients[0].serve()
    seen: list[object] = []
    session.metrics_logged.connect(seen.append)
    clients[0].say(*[MetricsLogged(segment=0, series={}) for _ in range(3000)])
    qtbot.waitUntil(lambda: len(seen) == 3000)


def test_what_the_state_allows_is_what_the_worker_takes(qtbot, session, clients, begin_run: Begin) -> None:
    clients[0].serve()
    qtbot.waitUntil(is_in(session, RunState.IDLE))
    assert session.allows("PrepareRun")
    assert not session.allows("PauseRun")
    begin_run(clients[0])
    qtbot.waitUntil(is_in(session, RunState.RUNNING))
    assert session.allows("PauseRun")
    assert not session.allows("PrepareRun")


def test_another_run_gets_a_fresh_worker_and_leaves_the_first_alone(qtbot, session, clients, begin_run: Begin) -> None:
    clients[0].serve()
    begin_run(clients[0])
    qtbot.waitUntil(is_in(session, RunState.RUNNING))
    with qtbot.waitSignal(session.run_left):
        session.prepare_run(RunConfig(data=DataConfig(path="other")))
    assert clients[0].is_closed
    assert clients[0].sent == []
    clients[1].serve()
    qtbot.waitUntil(lambda: clients[1].kinds() == ["PrepareRun"])


def test_a_worker_with_an_ended_run_is_told_to_end(qtbot, session, clients, begin_run: Begin) -> None:
    clients[0].serve()
    begin_run(clients[0])
    clients[0].say(StateChanged(state=RunState.FINISHED, time=9.0))
    qtbot.waitUntil(is_in(session, RunState.FINISHED))
    session.new_run()
    assert clients[0].kinds() == ["ShutDown"]
    assert clients[0].is_closed
    assert session.run is None


def test_a_killed_worker_leaves_a_run_that_can_be_resumed(qtbot, session, clients, begin_run: Begin, run_info) -> None:
    clients[0].serve()
    begin_run(clients[0])
    qtbot.waitUntil(is_in(session, RunState.RUNNING))
    with qtbot.waitSignal(session.worker_lost) as lost:
        clients[0].say(WorkerLost(False, "The worker was killed."))
    assert lost.args[0].sentence == "The worker was killed."
    assert session.state is RunState.STOPPED
    assert session.was_interrupted
    assert session.can_resume
    assert not session.is_live
    session.resume()
    clients[1].serve()
    qtbot.waitUntil(lambda: clients[1].kinds() == ["OpenRun"])
    assert clients[1].sent[0].run_dir == run_info.run_dir


def test_a_worker_that_never_served_is_not_started_over_and_over(qtbot, session, clients) -> None:
    with qtbot.waitSignal(session.worker_lost):
        clients[0].say(WorkerLost(False, "The worker failed with exit code 1."))
    assert session.state is RunState.FAILED
    assert len(clients) == 1
    session.list_models()
    assert len(clients) == 2


def test_the_end_of_an_attached_worker_after_its_run_is_no_trouble(qtbot, session, clients, begin_run: Begin) -> None:
    clients[0].serve()
    begin_run(clients[0])
    clients[0].say(StateChanged(state=RunState.FINISHED, time=9.0), WorkerLost(False, "The worker is gone."))
    with qtbot.waitSignal(session.worker_lost) as lost:
        pass
    assert lost.args[0].was_expected
    assert session.state is RunState.FINISHED
    assert session.can_resume


def test_a_stopped_run_resumes_in_its_own_worker(qtbot, session, clients, begin_run: Begin) -> None:
    clients[0].serve()
    begin_run(clients[0])
    clients[0].say(
        CheckpointSaved(checkpoint=checkpoint(1, 0.5, 0.9), time=8.0), StateChanged(state=RunState.STOPPED, time=9.0)
    )
    qtbot.waitUntil(is_in(session, RunState.STOPPED))
    session.resume()
    # All of it is still in the worker's memory.
    assert clients[0].kinds() == ["StartRun"]


def test_a_stopped_run_resumes_from_an_earlier_checkpoint_in_its_own_worker(
    qtbot, session, clients, begin_run: Begin
) -> None:
    clients[0].serve()
    begin_run(clients[0])
    clients[0].say(StateChanged(state=RunState.STOPPED, time=9.0))
    qtbot.waitUntil(is_in(session, RunState.STOPPED))
    command_id = session.resume("checkpoint_tiny_001.pt")
    assert clients[0].kinds() == ["RestoreCheckpoint"]
    clients[0].say(StateChanged(state=RunState.READY, command_id=command_id, time=10.0))
    qtbot.waitUntil(lambda: clients[0].kinds() == ["RestoreCheckpoint", "StartRun"])


def test_a_restore_into_a_stopped_run_does_not_start_it(qtbot, session, clients, begin_run: Begin) -> None:
    clients[0].serve()
    begin_run(clients[0])
    clients[0].say(StateChanged(state=RunState.STOPPED, time=9.0))
    qtbot.waitUntil(is_in(session, RunState.STOPPED))
    session.restore("checkpoint_tiny_001.pt")
    clients[0].say(StateChanged(state=RunState.READY, time=10.0))
    qtbot.waitUntil(is_in(session, RunState.READY))
    assert clients[0].kinds() == ["RestoreCheckpoint"]


def test_a_restore_does_not_start_a_run_that_was_to_train_on_and_could_not(
    qtbot, session, clients, begin_run: Begin
) -> None:
    clients[0].serve()
    begin_run(clients[0])
    clients[0].say(StateChanged(state=RunState.FINISHED, time=4.0))
    qtbot.waitUntil(is_in(session, RunState.FINISHED))
    # Fewer epochs than lie behind it: it has another length, and stays over.
    session.train_on(1)
    command_id = session.restore("checkpoint_tiny_001.pt")
    clients[0].say(StateChanged(state=RunState.READY, command_id=command_id, time=5.0))
    qtbot.waitUntil(is_in(session, RunState.READY))
    assert clients[0].kinds() == ["ChangeTraining", "RestoreCheckpoint"]


def test_a_folder_is_shown_without_a_worker_of_its_own(qtbot, session, clients, tmp_path, run_info) -> None:
    clients[0].serve()
    run_dir = write_run(tmp_path / "runs", run_info)
    with qtbot.waitSignal(session.run_opened) as opened:
        session.open_run(run_dir)
    assert not opened.args[0].is_live
    assert list(opened.args[0].record.curves["Loss/train"].values) == [2.0, 1.0]
    assert session.state is RunState.STOPPED
    assert session.was_interrupted
    assert not session.allows("PrepareRun")
    session.restore("checkpoint_tiny_001.pt")
    qtbot.waitUntil(lambda: clients[0].kinds() == ["OpenRun"])
    assert not clients[0].sent[0].start


def test_opening_with_resume_goes_on_at_once(qtbot, session, clients, tmp_path, run_info) -> None:
    clients[0].serve()
    session.open_run(write_run(tmp_path / "runs", run_info), resume=True)
    qtbot.waitUntil(lambda: clients[0].kinds() == ["OpenRun"])
    assert clients[0].sent[0].start


def test_a_run_that_is_over_trains_on_in_the_worker_that_has_it_or_in_a_new_one(
    qtbot, session, clients, tmp_path, run_info, begin_run
) -> None:
    clients[0].serve()
    begin_run(clients[0])
    clients[0].say(StateChanged(state=RunState.FINISHED, time=4.0))
    qtbot.waitUntil(is_in(session, RunState.FINISHED))
    command_id = session.train_on(9)
    assert clients[0].sent[-1].epochs == 9
    clients[0].say(StateChanged(state=RunState.READY, command_id=command_id, time=5.0))
    qtbot.waitUntil(lambda: clients[0].kinds() == ["ChangeTraining", "StartRun"])
    run_dir = write_run(tmp_path / "runs", run_info)
    with RunFolder(run_dir) as folder:
        folder.add_event(StateChanged(state=RunState.FINISHED, time=4.0))
    session.open_run(run_dir)
    qtbot.waitUntil(lambda: session.run_dir == run_dir)
    clients[-1].serve()
    session.train_on(12)
    qtbot.waitUntil(lambda: clients[-1].kinds() == ["OpenRun"])
    assert (clients[-1].sent[0].epochs, clients[-1].sent[0].start) == (12, True)


def test_a_refused_resume_leaves_the_run_as_it_was(qtbot, session, clients, tmp_path, run_info) -> None:
    clients[0].serve()
    session.open_run(write_run(tmp_path / "runs", run_info), resume=True)
    qtbot.waitUntil(lambda: clients[0].kinds() == ["OpenRun"])
    with qtbot.waitSignal(session.command_rejected):
        clients[0].say(
            StateChanged(state=RunState.PREPARING, time=5.0),
            StateChanged(state=RunState.IDLE, time=6.0),
            CommandRejected(command="OpenRun", reason="The data are gone.", time=6.0),
        )
    assert session.state is RunState.STOPPED
    assert session.can_resume


@pytest.mark.parametrize("ended_as", [RunState.FINISHED, RunState.FAILED])
def test_a_refused_resume_leaves_an_ended_run_as_it_ended(
    qtbot, session, clients, tmp_path, run_info, ended_as: RunState
) -> None:
    clients[0].serve()
    run_dir = write_run(tmp_path / "runs", run_info)
    with RunFolder(run_dir) as folder:
        folder.add_event(StateChanged(state=ended_as, time=4.0))
    session.open_run(run_dir)
    qtbot.waitUntil(is_in(session, ended_as))
    command_id = session.resume()
    assert session.is_beginning
    with qtbot.waitSignal(session.command_rejected):
        clients[0].say(
            StateChanged(state=RunState.PREPARING, time=5.0),
            StateChanged(state=RunState.IDLE, time=6.0),
            CommandRejected(command="OpenRun", reason="The data are gone.", command_id=command_id, time=6.0),
        )
    assert session.state is ended_as
    assert session.can_resume
    assert not session.is_beginning


def opened_finished(qtbot, session, clients, tmp_path, run_info) -> Path:
    """Show a run that has finished, with a worker that serves and has no run."""
    clients[0].serve()
    run_dir = write_run(tmp_path / "runs", run_info)
    with RunFolder(run_dir) as folder:
        folder.add_event(StateChanged(state=RunState.FINISHED, time=4.0))
    session.open_run(run_dir)
    qtbot.waitUntil(is_in(session, RunState.FINISHED))
    return run_dir


def test_a_resume_that_is_refused_before_anything_is_prepared_leaves_the_run_as_it_ended(
    qtbot, session, clients, tmp_path, run_info
) -> None:
    opened_finished(qtbot, session, clients, tmp_path, run_info)
    command_id = session.restore("checkpoint_tiny_001.pt")
    with qtbot.waitSignal(session.command_rejected):
        clients[0].say(CommandRejected(command="OpenRun", reason="Not now.", command_id=command_id, time=6.0))
    assert session.state is RunState.FINISHED
    assert session.can_resume
    assert not session.is_live
    assert not session.is_beginning


def test_a_resume_that_is_asked_for_twice_and_refused_leaves_the_run_as_it_ended(
    qtbot, session, clients, tmp_path, run_info
) -> None:
    opened_finished(qtbot, session, clients, tmp_path, run_info)
    first, second = session.restore("checkpoint_tiny_001.pt"), session.resume("checkpoint_tiny_001.pt")
    clients[0].say(StateChanged(state=RunState.PREPARING, time=5.0))
    qtbot.waitUntil(is_in(session, RunState.PREPARING))
    with qtbot.waitSignal(session.command_rejected):
        clients[0].say(CommandRejected(command="OpenRun", reason="Preparing.", command_id=second, time=6.0))
    assert session.state is RunState.PREPARING
    with qtbot.waitSignal(session.command_rejected):
        clients[0].say(
            StateChanged(state=RunState.IDLE, time=7.0),
            CommandRejected(command="OpenRun", reason="The data are gone.", command_id=first, time=7.0),
        )
    assert session.state is RunState.FINISHED
    assert session.can_resume


@pytest.mark.parametrize("is_preparing", [True, False])
def test_a_worker_that_dies_before_it_has_the_run_leaves_the_run_as_it_ended(
    qtbot, session, clients, tmp_path, run_info, is_preparing: bool
) -> None:
    opened_finished(qtbot, session, clients, tmp_path, run_info)
    session.resume("checkpoint_tiny_001.pt")
    if is_preparing:
        clients[0].say(StateChanged(state=RunState.PREPARING, time=5.0))
    with qtbot.waitSignal(session.worker_lost) as lost:
        clients[0].say(WorkerLost(False, "The worker was killed."))
    assert lost.args[0].sentence == "The worker was killed."
    assert session.state is RunState.FINISHED
    assert not session.was_interrupted
    assert session.can_resume


def test_a_worker_that_cannot_be_started_leaves_the_run_as_it_ended(
    qtbot, session, clients, tmp_path, run_info, monkeypatch
) -> None:
    opened_finished(qtbot, session, clients, tmp_path, run_info)
    clients[0].say(WorkerLost(True, ""))
    qtbot.waitUntil(lambda: len(clients) == 2)
    clients[1].say(WorkerLost(True, ""))
    qtbot.waitUntil(lambda: not session.has_worker)

    def start() -> ScriptedClient:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(session, "_start_worker", start)
    with qtbot.waitSignal(session.worker_lost):
        session.resume("checkpoint_tiny_001.pt")
    assert session.state is RunState.FINISHED
    assert session.can_resume


def test_what_is_looked_up_goes_before_a_run_that_waits(qtbot, session, clients) -> None:
    session.prepare_run(RunConfig(data=DataConfig(path="images")))
    session.list_models()
    clients[0].serve()
    qtbot.waitUntil(lambda: clients[0].kinds() == ["ListModels", "PrepareRun"])


def test_a_folder_that_is_no_run_gets_a_sentence(qtbot, session, tmp_path) -> None:
    with qtbot.waitSignal(session.open_failed) as failed:
        session.open_run(tmp_path)
    assert "is not a run of Thaw" in failed.args[0]


def test_only_the_last_of_two_opened_runs_is_shown(qtbot, session, tmp_path, run_info) -> None:
    first, second = write_run(tmp_path / "runs", run_info), write_run(tmp_path / "runs", run_info)
    session.open_run(first)
    with qtbot.waitSignal(session.run_opened) as opened:
        session.open_run(second)
    assert opened.args[0].record.path == second


def test_detaching_leaves_a_live_run_alone(qtbot, session, clients, begin_run: Begin) -> None:
    clients[0].serve()
    begin_run(clients[0])
    qtbot.waitUntil(is_in(session, RunState.RUNNING))
    session.detach()
    assert clients[0].is_closed
    assert clients[0].sent == []


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("start_run", "StartRun"),
        ("pause", "PauseRun"),
        ("unpause", "UnpauseRun"),
        ("stop", "StopRun"),
        ("save_checkpoint", "SaveCheckpoint"),
        ("list_models", "ListModels"),
    ],
)
def test_each_verb_sends_its_command_with_an_id(qtbot, session, clients, call: str, kind: str) -> None:
    clients[0].serve()
    qtbot.waitUntil(is_in(session, RunState.IDLE))
    command_id = getattr(session, call)()
    assert [(type(c).__name__, c.command_id) for c in clients[0].sent] == [(kind, command_id)]
