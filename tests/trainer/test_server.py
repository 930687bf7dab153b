"""The recorder keeps everything, in order, whatever a client does."""

from __future__ import annotations

import errno
import os
import queue
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.config import RunConfig
from trainer.frames import MAX_FRAME_BYTES, decode_event, encode
from trainer.messages.base import Event
from trainer.messages.commands import PauseRun
from trainer.messages.events import (
    CommandRejected,
    FeaturesCached,
    LayerStatsReported,
    LogWritten,
    MetricsLogged,
    MetricsSkipped,
    StateChanged,
    WorkerAttached,
)
from trainer.messages.run_info import Series
from trainer.messages.states import RunState
from trainer.runs import RunFolder
from trainer.server import EventServer

KEY = b"key"


class Served:
    """An event server on a real socket, with the run folder that it keeps events in."""

    def __init__(self, address: Path, folder: RunFolder) -> None:
        self.commands: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.listener = Listener(str(address), authkey=KEY)
        self.server = EventServer(self.listener, self.commands.put)
        self.server.begin(WorkerAttached(state=RunState.IDLE, pid=1, torch_version="", devices=[]))
        self.logged: list[Event] = []
        self.log: Callable[[Event], None] = self.logged.append
        self.server.keep_in(folder, lambda event: self.log(event))
        self.address = str(address)


@pytest.fixture
def folder(tmp_path: Path, small_config: RunConfig) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path / "runs", small_config) as made:
        made.begin_segment(0, None, 0.0)
        yield made


@pytest.fixture
def served(tmp_path: Path, folder: RunFolder) -> Iterator[Served]:
    made = Served(tmp_path / "socket", folder)
    yield made
    made.server.finish()
    made.listener.close()


@contextmanager
def held(folder: RunFolder) -> Iterator[None]:
    """Hold run.db as another program might, for as long as this lasts."""
    folder.database.read("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(folder.path / "run.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield


def told_until(client: Connection, text: str) -> list[LogWritten]:
    """Return the lines that a client is told, the last of which has a text in it."""
    told: list[LogWritten] = []
    while not (told and text in told[-1].text):
        assert client.poll(10), f"only this came: {told}"
        _, event = decode_event(client.recv_bytes())
        if isinstance(event, LogWritten):
            told.append(event)
    return told


def line(text: str) -> LogWritten:
    return LogWritten(level="info", text=text)


def stats(step: int) -> LayerStatsReported:
    return LayerStatsReported(step=step, segment=0, layers=[], gradient_norms=[], update_norms=[], weight_norms=[])


def kept_lines(folder: RunFolder) -> list[str]:
    return [event.text for event in folder.read().log if isinstance(event, LogWritten)]


def metrics(step: int) -> MetricsLogged:
    # Long enough that a few hundred of them fill the socket's buffer many times over.
    tag = "Loss/train" + "x" * 2000
    return MetricsLogged(segment=0, series={tag: Series(steps=[step], values=[float(step)])})


def test_what_a_client_is_told_is_in_the_folder_already_with_the_same_number(served: Served, folder: RunFolder) -> None:
    with Client(served.address, authkey=KEY) as client:
        _, attached = decode_event(client.recv_bytes())
        assert isinstance(attached, WorkerAttached)
        for state in (RunState.PREPARING, RunState.READY):
            served.server.publish(StateChanged(state=state))
            _, event = decode_event(client.recv_bytes())
            assert isinstance(event, StateChanged)
            assert event.state is state
            assert event.event_id == folder.read().last_event_id
        client.send_bytes(encode(PauseRun(command_id="x"), 1))
        assert served.commands.get(timeout=10) == PauseRun(command_id="x")


def test_a_client_that_comes_later_is_told_why_the_run_is_paused_until_it_is_no_more(served: Served) -> None:
    with Client(served.address, authkey=KEY) as early:
        decode_event(early.recv_bytes())
        for state, sentence in ((RunState.PAUSED, "No memory."), (RunState.RUNNING, "")):
            served.server.publish(StateChanged(state=state, sentence=sentence, offered_parts=2))
            decode_event(early.recv_bytes())
            with Client(served.address, authkey=KEY) as late:
                _, attached = decode_event(late.recv_bytes())
            assert isinstance(attached, WorkerAttached)
            assert attached.state is state
            paused = attached.paused
            assert (paused and (paused.sentence, paused.offered_parts)) == (("No memory.", 2) if sentence else None)


def test_a_client_that_comes_later_is_told_what_is_cached_and_finds_it_in_the_folder(
    served: Served, folder: RunFolder
) -> None:
    cached = FeaturesCached(
        layers=["conv1"], sentence="conv1", views=4, fixed_views=4, saved_share=0.5, num_bytes=800, is_in_memory=True,
        is_on_disk=False, reason="", applied_step=0, segment=0,
    )  # fmt: skip
    with Client(served.address, authkey=KEY) as early:
        decode_event(early.recv_bytes())
        served.server.publish(cached)
        _, told = decode_event(early.recv_bytes())
    with Client(served.address, authkey=KEY) as late:
        _, attached = decode_event(late.recv_bytes())
    assert isinstance(attached, WorkerAttached)
    assert attached.features is not None
    assert attached.features.layers == ["conv1"]
    assert [event.time for event in folder.read().log] == [told.time]


def test_a_client_that_does_not_read_loses_metrics_only_and_is_told_where_they_are(
    served: Served, folder: RunFolder
) -> None:
    with Client(served.address, authkey=KEY) as client:
        decode_event(client.recv_bytes())
        for step in range(2000):
            served.server.publish(metrics(step))
            if step % 500 == 0:
                served.server.publish(LogWritten(level="info", text=str(step)))
        served.server.publish(LogWritten(level="info", text="last"))
        while folder.read().last_event_id < 5:
            assert not client.closed
        seen = []
        while not (seen and isinstance(seen[-1], LogWritten) and seen[-1].text == "last"):
            assert client.poll(10)
            seen.append(decode_event(client.recv_bytes())[1])
    assert [event.text for event in seen if isinstance(event, LogWritten)] == ["0", "500", "1000", "1500", "last"]
    skipped = next(position for position, event in enumerate(seen) if isinstance(event, MetricsSkipped))
    # What the worker alone knows is told again: the client reads all else from the folder.
    assert isinstance(seen[skipped + 1], WorkerAttached)
    assert sum(isinstance(event, MetricsLogged) for event in seen) < 2000
    (curve,) = folder.curves().values()
    assert list(curve.steps) == list(range(2000))


def test_what_is_no_command_closes_that_client_alone(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    with Client(served.address, authkey=KEY) as good, Client(served.address, authkey=KEY) as bad:
        for client in (good, bad):
            decode_event(client.recv_bytes())
        bad.send_bytes(b"\x80\x04 not JSON")
        with pytest.raises((EOFError, OSError)):
            bad.recv_bytes()
        served.server.publish(LogWritten(level="info", text="still here"))
        assert decode_event(good.recv_bytes())[1].text == "still here"
    assert "no command" in capfd.readouterr().out


def test_an_event_that_is_too_large_costs_a_client_only_that_event(served: Served) -> None:
    with Client(served.address, authkey=KEY) as client:
        decode_event(client.recv_bytes())
        served.server.publish(LogWritten(level="info", text="x" * MAX_FRAME_BYTES))
        assert "over the limit" in decode_event(client.recv_bytes())[1].text
        served.server.publish(LogWritten(level="info", text="still here"))
        assert decode_event(client.recv_bytes())[1].text == "still here"


def test_a_name_that_is_no_text_reaches_the_client_and_the_folder_with_marks(served: Served, folder: RunFolder) -> None:
    with Client(served.address, authkey=KEY) as client:
        decode_event(client.recv_bytes())
        rejection = CommandRejected(command="CheckData", reason="It holds .\udcff alone.", command_id="x")
        served.server.publish(rejection)
        assert client.poll(10), "nothing came: a thread of the server has died"
        _, event = decode_event(client.recv_bytes())
        assert isinstance(event, CommandRejected)
        assert (event.command_id, event.reason) == ("x", "It holds .\ufffd alone.")
        assert folder.read().last_event_id == event.event_id
        served.server.publish(StateChanged(state=RunState.READY))
        assert client.poll(10)
        assert isinstance(decode_event(client.recv_bytes())[1], StateChanged)


def test_an_event_that_cannot_be_written_costs_only_itself(
    served: Served, folder: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    with Client(served.address, authkey=KEY) as client:
        decode_event(client.recv_bytes())
        served.server.publish(LogWritten.model_construct(level="info", text=object()))
        served.server.publish(LogWritten(level="info", text="still here"))
        texts: list[str] = []
        while "still here" not in texts:
            assert client.poll(10), "nothing came: a thread of the server has died"
            texts.append(decode_event(client.recv_bytes())[1].text)
    kept, shown = texts[:-1]
    assert kept.startswith("An event is not kept. LogWritten cannot be written")
    assert shown.startswith("Not shown here. LogWritten cannot be written")
    assert "ProtocolError" in capfd.readouterr().err
    assert kept_lines(folder) == ["still here"]


def test_what_run_db_did_not_take_is_written_in_its_order_before_what_comes_next(
    served: Served, folder: RunFolder
) -> None:
    with Client(served.address, authkey=KEY) as client:
        decode_event(client.recv_bytes())
        with held(folder):
            for step in range(3):
                served.server.publish(line(f"line {step}"))
                served.server.publish(metrics(step))
                served.server.publish(stats(step))
            complaint, *shown = told_until(client, "line 2")
            assert complaint.text.startswith(
                "What happens now is shown, and waits in memory until it can be kept. Cann"
            )
            assert "database is locked" in complaint.text
            assert [(event.text, event.event_id) for event in shown] == [(f"line {step}", 0) for step in range(3)]
            assert kept_lines(folder) == []
        served.server.publish(line("line 3"))
        kept_again, last = told_until(client, "line 3")
        assert kept_again.text == "All that had to wait is kept now."
        assert last.event_id == folder.last_event_id() == 4
        served.server.publish(line("line 4"))
        assert len(told_until(client, "line 4")) == 1, "it is said once"
    assert kept_lines(folder) == [f"line {step}" for step in range(5)]
    times = [event.time for event in folder.read().log]
    assert times == sorted(times)
    (curve,) = folder.curves().values()
    assert list(curve.steps) == [0, 1, 2]
    layer_stats = folder.layer_stats()
    assert layer_stats is not None
    assert layer_stats.step == 2
    assert [event.text for event in served.logged if isinstance(event, LogWritten)] == kept_lines(folder)


def test_what_waits_as_the_run_ends_is_written_then(served: Served, folder: RunFolder) -> None:
    with Client(served.address, authkey=KEY) as client:
        decode_event(client.recv_bytes())
        with held(folder):
            served.server.publish(line("line 0"))
            served.server.publish(line("line 1"))
            told_until(client, "line 1")
        served.server.finish()
        assert [event.text for event in told_until(client, "All that")] == ["All that had to wait is kept now."]
    assert kept_lines(folder) == ["line 0", "line 1"]


def test_what_cannot_be_kept_to_the_very_end_is_said_to_be_lost(
    served: Served, folder: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    with Client(served.address, authkey=KEY) as client, held(folder):
        decode_event(client.recv_bytes())
        served.server.publish(line("line 0"))
        served.server.publish(metrics(0))
        told_until(client, "line 0")
        served.server.finish()
        lost = told_until(client, "The run ends")[-1].text
    assert lost.startswith("The run ends, and its last 2 events and measurements were shown but are not kept. Cannot")
    assert lost in capfd.readouterr().err, "there may be no client"
    assert kept_lines(folder) == []


def fail(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_the_log_for_tensorboard_does_not_take_is_kept_once(served: Served, folder: RunFolder) -> None:
    served.log = fail
    with Client(served.address, authkey=KEY) as client:
        decode_event(client.recv_bytes())
        served.server.publish(line("line 0"))
        served.server.publish(line("line 1"))
        complaint, *shown = told_until(client, "line 1")
    assert complaint.text.startswith("What happens now is kept, but TensorBoard's files lack it. ")
    assert [(event.text, event.event_id) for event in shown] == [("line 0", 1), ("line 1", 2)]
    assert kept_lines(folder) == ["line 0", "line 1"]


def test_a_worker_log_on_the_full_disk_too_ends_no_thread(
    served: Served, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(served.address, authkey=KEY) as client:
        decode_event(client.recv_bytes())
        with monkeypatch.context() as patch, held(folder):
            patch.setattr(sys, "stderr", SimpleNamespace(write=fail, flush=fail))
            served.server.publish(line("line 0"))
            told_until(client, "line 0")
        served.server.publish(line("line 1"))
        told_until(client, "line 1")
    assert kept_lines(folder) == ["line 0", "line 1"]
