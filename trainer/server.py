"""The worker's side of the socket: clients, and the one thread that keeps and sends every event in order."""

from __future__ import annotations

import itertools
import queue
import sys
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from typing import Literal

from trainer.frames import MAX_FRAME_BYTES, ProtocolError, decode_command, encode
from trainer.messages.base import Event
from trainer.messages.changes import BatchNormChanged, FreezeChanged, RateMultiplierChanged, StateRestored, follow
from trainer.messages.commands import AnyCommand
from trainer.messages.events import (
    FeaturesCached,
    LayerStatsReported,
    LogWritten,
    MetricsLogged,
    MetricsSkipped,
    PreparationProgressed,
    ProgressReported,
    RewindsKept,
    RunPrepared,
    StateChanged,
    WorkerAttached,
)
from trainer.messages.states import RunState
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder

MAX_WAITING_METRICS = 200
_ACCEPT_PAUSE_S = 0.5
# Longer than SQLite waits twice for a run.db that somebody holds: once as the end is asked for, and for the last time.
_LAST_EVENTS_WITHIN_S = 25.0
_UNRECORDED = ProgressReported | PreparationProgressed | WorkerAttached | RewindsKept
_DROPPABLE = MetricsLogged | ProgressReported | LayerStatsReported


class EventServer:
    """Takes commands from clients to a queue, and events from the run to run.db, to listeners and to the clients.

    ``publish`` may be called from any thread and never waits. One recorder thread handles the events one after
    another: first run.db, then everybody else, so that whatever a client was told is in the run folder too. What run.db
    does not take (a full disk must not end the run) is shown all the same, and waits in memory: in its order, and
    before anything newer, it is written as soon as that works again.
    """

    def __init__(self, listener: Listener, on_command: Callable[[AnyCommand], None]) -> None:
        self._listener = listener
        self._on_command = on_command
        self._inbox: queue.SimpleQueue[Event | _Client | RunFolder | None] = queue.SimpleQueue()
        self._clients: list[_Client] = []
        # What run.db has not taken yet, oldest first; of what each new measurement replaces, only the newest.
        self._waiting: OrderedDict[object, Event] = OrderedDict()
        self._is_behind = False
        self._lacks_log = False
        self._is_finished = False
        self._folder: RunFolder | None = None
        self._log: Callable[[Event], None] | None = None
        self._attached = WorkerAttached(state=RunState.STARTING, pid=0, torch_version="", devices=[])
        self._recorder = threading.Thread(target=self._record_all, name="recorder", daemon=True)
        threading.Thread(target=self._accept_all, name="listener", daemon=True).start()

    def begin(self, attached: WorkerAttached) -> None:
        """Begin to answer clients, first each with ``attached`` as it is brought up to date by later events."""
        self._attached = attached
        self._recorder.start()

    def publish(self, event: Event) -> None:
        """Keep an event and send it to every client, soon."""
        self._inbox.put(event.model_copy(update={"time": time.time()}))

    def keep_in(self, folder: RunFolder, log: Callable[[Event], None]) -> None:
        """Keep the events from here on in a run folder, and hand them to ``log``."""
        self._log = log
        self._inbox.put(folder)

    def finish(self, timeout_s: float = _LAST_EVENTS_WITHIN_S) -> None:
        """Handle what was published so far, and end."""
        self._is_finished = True
        self._inbox.put(None)
        self._recorder.join(timeout_s)
        deadline = time.monotonic() + 1.0
        for client in self._clients:
            client.finish(max(0.0, deadline - time.monotonic()))

    @property
    def num_clients(self) -> int:
        """Count the clients that are attached."""
        return sum(client.is_open for client in self._clients)

    # -- the recorder's thread --------------------------------------------------------------------------------

    def _record_all(self) -> None:
        while (item := self._inbox.get()) is not None:
            if isinstance(item, RunFolder):
                self._folder = item
            elif isinstance(item, _Client):
                item.put(self._attached)
                self._clients.append(item)
            else:
                self._handle(item)
        self._keep_last()

    def _handle(self, event: Event) -> None:
        if self._folder is not None and not isinstance(event, _UNRECORDED):
            event = self._keep(event)
        self._attached = _follow(self._attached, event)
        self._send(event)

    def _keep(self, event: Event) -> Event:
        """Write what waits and then an event. Returns it, with its number if it is written and not waiting."""
        is_waiting = bool(self._waiting)
        key = LayerStatsReported if isinstance(event, LayerStatsReported) else object()
        self._waiting.pop(key, None)
        self._waiting[key] = event
        if is_waiting and self._is_finished:
            # A run.db that somebody holds is waited for once more, and not once for each event that is left.
            return event
        try:
            return self._write_waiting() or event
        except RunFolderError as error:
            if not self._is_behind:
                self._is_behind = True
                self._complain(f"What happens now is shown, and waits in memory until it can be kept. {error}")
            return event

    def _keep_last(self) -> None:
        try:
            self._write_waiting()
        except RunFolderError as error:
            count = f"{len(self._waiting):,} events and measurements"
            self._complain(f"The run ends, and its last {count} were shown but are not kept. {error}")

    def _write_waiting(self) -> Event | None:
        """Write what waits, the oldest first. Returns the last one as it is written, None if that cannot be.

        Raises:
            RunFolderError: The oldest one that waits now could not be written.

        """
        written = None
        while self._waiting:
            try:
                written = self._write(next(iter(self._waiting.values())))
            except ProtocolError as error:
                # It never can be, and must not hold up the others.
                written = None
                self._complain(f"An event is not kept. {error}")
            self._waiting.popitem(last=False)
            if written is not None:
                self._write_log(written)
        if self._is_behind:
            self._is_behind = False
            self._tell("info", "All that had to wait is kept now.")
        return written

    def _write(self, event: Event) -> Event:
        assert self._folder is not None, "nothing waits before there is a folder"
        if isinstance(event, MetricsLogged):
            self._folder.add_metrics(event.segment, event.series)
        elif isinstance(event, LayerStatsReported):
            self._folder.keep_layer_stats(event)
        else:
            return event.model_copy(update={"event_id": self._folder.add_event(event)})
        return event

    def _write_log(self, event: Event) -> None:
        assert self._log is not None, "it came with the folder"
        try:
            self._log(event)
        except (RunFolderError, OSError) as error:
            if not self._lacks_log:
                self._lacks_log = True
                self._complain(f"What happens now is kept, but TensorBoard's files lack it. {error}")

    def _complain(self, text: str) -> None:
        """Tell, and write to the worker's log, what went wrong just now."""
        # That log may lie on the very disk that is full.
        with suppress(OSError):
            traceback.print_exc()
            print(text, file=sys.stderr, flush=True)  # noqa: T201 (worker.log)
        self._tell("error", text)

    def _tell(self, level: Literal["info", "error"], text: str) -> None:
        self._send(LogWritten(level=level, text=text, time=time.time()))

    def _send(self, event: Event) -> None:
        self._clients = [client for client in self._clients if client.is_open]
        for client in self._clients:
            client.put(event, self._attached)

    # -- the listener's thread --------------------------------------------------------------------------------

    def _accept_all(self) -> None:
        while True:
            try:
                # No name here for the connection: it would keep it open after its client is done with it.
                self._inbox.put(_Client(self._listener.accept(), self._on_command))
            except (AuthenticationError, EOFError, ConnectionError):
                continue
            except OSError:
                if self._is_finished:
                    return
                # Out of file descriptors, say: the next client may find some again.
                traceback.print_exc()
                time.sleep(_ACCEPT_PAUSE_S)


class _Client:
    """One attached client: a thread that reads its commands and one that sends it events.

    The threads alone hold the connection, and it closes with the last of them: closed under the other one's read or
    write, it would break that with a TypeError.
    """

    def __init__(self, connection: Connection, on_command: Callable[[AnyCommand], None]) -> None:
        self.is_open = True
        self._on_command = on_command
        self._waiting: deque[Event | None] = deque()
        self._num_waiting_metrics = 0
        self._has_news = threading.Condition()
        threading.Thread(target=self._read_all, args=(connection,), name="client-reader", daemon=True).start()
        self._sender = threading.Thread(target=self._send_all, args=(connection,), name="client-sender", daemon=True)
        self._sender.start()

    def put(self, event: Event | None, attached: WorkerAttached | None = None) -> None:
        """Send an event soon. State changes are never dropped; metrics are, when the client does not keep up.

        Then it reads the run's folder again, and is told ``attached`` anew: what the worker alone knows.
        """
        with self._has_news:
            if isinstance(event, _DROPPABLE):
                self._num_waiting_metrics += 1
                if self._num_waiting_metrics > MAX_WAITING_METRICS:
                    kept = [e for e in self._waiting if not isinstance(e, _DROPPABLE)]
                    if not any(isinstance(e, MetricsSkipped) for e in kept):
                        kept += [MetricsSkipped(), attached] if attached is not None else [MetricsSkipped()]
                    self._waiting = deque(kept)
                    self._num_waiting_metrics = 1
            self._waiting.append(event)
            self._has_news.notify()

    def finish(self, timeout_s: float) -> None:
        self.put(None)
        self._sender.join(timeout_s)

    def _send_all(self, connection: Connection) -> None:
        for seq in itertools.count(1):
            with self._has_news:
                self._has_news.wait_for(lambda: self._waiting)
                event = self._waiting.popleft()
                if isinstance(event, _DROPPABLE):
                    self._num_waiting_metrics -= 1
            if event is None:
                break
            try:
                frame = encode(event, seq)
            except ProtocolError as error:
                frame = encode(LogWritten(level="error", text=f"Not shown here. {error}", time=event.time), seq)
            try:
                connection.send_bytes(frame)
            except (OSError, EOFError):
                break
        self.is_open = False

    def _read_all(self, connection: Connection) -> None:
        try:
            while True:
                self._on_command(decode_command(connection.recv_bytes(MAX_FRAME_BYTES))[1])
        except ProtocolError as error:
            print(f"A client sent what is no command, and was let go: {error}", flush=True)  # noqa: T201 (worker.log)
        except (OSError, EOFError):
            pass
        self.is_open = False
        self.put(None)


def _follow(attached: WorkerAttached, event: Event) -> WorkerAttached:
    """Bring what a new client is told first up to date with an event."""
    if isinstance(event, StateChanged):
        paused = event if event.state is RunState.PAUSED else None
        return attached.model_copy(update={"state": event.state, "paused": paused})
    if isinstance(event, RunPrepared):
        return attached.model_copy(update={"run": event.run, "step": event.step, "epoch": event.epoch})
    if isinstance(event, ProgressReported):
        return attached.model_copy(update={"step": event.step, "epoch": event.epoch})
    if isinstance(event, RewindsKept):
        return attached.model_copy(update={"rewinds": event})
    if isinstance(event, FeaturesCached):
        return attached.model_copy(update={"features": event})
    if isinstance(event, StateRestored):
        attached = attached.model_copy(update={"step": event.step, "epoch": event.epoch})
    if attached.run is not None:
        attached = attached.model_copy(update={"run": follow(attached.run, event)})
    changes: dict[str, object] = {}
    if isinstance(event, FreezeChanged | StateRestored):
        changes = {"frozen": event.frozen, "num_trainable": event.num_trainable}
    if isinstance(event, RateMultiplierChanged | StateRestored):
        changes["multipliers"] = event.multipliers
    if isinstance(event, BatchNormChanged | StateRestored):
        changes["adapting"] = event.adapting
    if changes and attached.run is not None:
        summary = attached.run.summary.model_copy(update=changes)
        return attached.model_copy(update={"run": attached.run.model_copy(update={"summary": summary})})
    return attached
