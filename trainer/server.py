"""The worker's side of the socket: clients, and the one thread that keeps and sends every event in order."""

from __future__ import annotations

import itertools
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener

from trainer.frames import MAX_FRAME_BYTES, ProtocolError, decode_command, encode
from trainer.messages.base import Event
from trainer.messages.changes import BatchNormChanged, FreezeChanged, RateMultiplierChanged, StateRestored, follow
from trainer.messages.commands import AnyCommand
from trainer.messages.events import (
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
_UNRECORDED = (MetricsLogged, ProgressReported, LayerStatsReported, PreparationProgressed, WorkerAttached, RewindsKept)
_DROPPABLE = MetricsLogged | ProgressReported | LayerStatsReported


class EventServer:
    """Takes commands from clients to a queue, and events from the run to run.db, to listeners and to the clients.

    ``publish`` may be called from any thread and never waits. One recorder thread handles the events one after
    another: first run.db, then everybody else, so that whatever a client was told is in the run folder too.
    """

    def __init__(self, listener: Listener, on_command: Callable[[AnyCommand], None]) -> None:
        self._listener = listener
        self._on_command = on_command
        self._inbox: queue.SimpleQueue[Event | _Client | RunFolder | None] = queue.SimpleQueue()
        self._clients: list[_Client] = []
        self._can_keep = True
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

    def finish(self, timeout_s: float = 10.0) -> None:
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

    def _handle(self, event: Event) -> None:
        try:
            event = self._record(event)
            self._can_keep = True
        except (RunFolderError, ProtocolError, OSError) as error:
            # A full disk must not end the run: what cannot be kept is still shown, and said, once.
            if self._can_keep:
                self._can_keep = False
                traceback.print_exc()
                text = f"What happens now is shown but not kept. {error}"
                self._send(LogWritten(level="error", text=text, time=event.time))
        self._attached = _follow(self._attached, event)
        self._send(event)

    def _record(self, event: Event) -> Event:
        if self._folder is None:
            return event
        if isinstance(event, MetricsLogged):
            self._folder.add_metrics(event.segment, event.series)
        elif isinstance(event, LayerStatsReported):
            self._folder.keep_layer_stats(event)
        elif not isinstance(event, _UNRECORDED):
            event = event.model_copy(update={"event_id": self._folder.add_event(event)})
        if self._log is not None:
            self._log(event)
        return event

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
