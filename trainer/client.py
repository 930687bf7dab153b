"""WorkerClient: start or attach to a worker, send commands, take its events from a queue that a thread fills."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path

import psutil

from trainer.frames import MAX_FRAME_BYTES, ProtocolError, decode_event, encode
from trainer.memory import DETERMINISTIC_CUBLAS, KEEP_FREED_MEMORY
from trainer.messages.base import Command
from trainer.messages.events import AnyEvent, MetricsSkipped, RunPrepared
from trainer.run_record import RunFolderError, RunRecord
from trainer.runs import RunFolder

LOG_TAIL_BYTES = 20_000
_CONNECT_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.2
_LONGEST_SOCKET_FOLDER = 80


@dataclass(frozen=True)
class WorkerLost:
    """The worker is gone. ``was_expected`` if it had been asked to end; ``sentence`` is what the user reads."""

    was_expected: bool
    sentence: str
    log_tail: str = ""


@dataclass(frozen=True)
class RunOpened:
    """A run's folder was read; ``is_live`` if its worker is attached, so that events follow."""

    record: RunRecord
    is_live: bool


ClientEvent = AnyEvent | WorkerLost | RunOpened


def finding_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what an environment needs so that a Python process started with it, from anywhere, finds our packages."""
    root = str(Path(__file__).resolve().parent.parent)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))}


class WorkerClient:
    """One end of a conversation with a worker process.

    ``events`` fills from a thread; the owner drains it in its own time. Commands are sent by another thread, so that
    neither a busy nor a dead worker can hold up the caller.
    """

    def __init__(
        self, address: str, key: bytes, pid: int, log_path: Path, process: subprocess.Popen[bytes] | None
    ) -> None:
        self.events: queue.SimpleQueue[ClientEvent] = queue.SimpleQueue()
        self.pid = pid
        self._log_path = log_path
        self._process = process
        self._address = address
        self._key = key
        self._outbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._is_closing = False
        self._is_lost = threading.Lock()
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_hex(4)
        self._run_to_read: Path | None = None
        self._folder: Path | None = None

    @classmethod
    def start(cls) -> WorkerClient:
        """Start a worker process in its own process group and connect to it in the background."""
        # A Unix socket's path must stay under 104 characters (108 on Linux), which a run folder's often does not.
        is_too_deep = sys.platform != "win32" and len(os.fsencode(tempfile.gettempdir())) > _LONGEST_SOCKET_FOLDER
        folder = Path(tempfile.mkdtemp(prefix="thaw-", dir="/tmp" if is_too_deep else None))
        address = rf"\\.\pipe\{folder.name}" if sys.platform == "win32" else str(folder / "worker")
        key = secrets.token_bytes(32)
        log_path = folder / "worker.log"
        environment = {**KEEP_FREED_MEMORY, **DETERMINISTIC_CUBLAS, **os.environ, "PYTHONUNBUFFERED": "1"}
        # torch's threads wait for each other by spinning. Where anything else wants a core, as this window does, a step
        # of two threads on two cores then took 312 ms instead of 44 with one thread, and at times 11 s; spinning less
        # keeps that to 160 ms and costs some 10 % where nothing else runs.
        environment.setdefault("GOMP_SPINCOUNT", "1000")
        environment |= finding_ours(environment)
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trainer"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=sys.platform != "win32",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"address": address, "key": key.hex(), "folder": str(folder)}).encode() + b"\n")
        process.stdin.close()
        client = cls(address, key, process.pid, log_path, process)
        client._folder = folder
        client._begin()
        return client

    @classmethod
    def attach(cls, run_dir: Path) -> WorkerClient:
        """Attach to the live worker of a run. RunOpened comes first, then the worker's events, without a gap.

        Raises:
            RunFolderError: The folder is no run, or no worker serves it.

        """
        with RunFolder(run_dir, read_only=True) as folder:
            worker = folder.worker()
            if worker is None:
                raise RunFolderError(
                    f"{run_dir.name} is not running: no worker serves it. Resume it with `thaw resume {run_dir}`."
                )
            client = cls(worker.address, worker.key, worker.pid, folder.log_path, None)
        client._run_to_read = run_dir
        client._begin()
        return client

    def send(self, command: Command) -> str:
        """Send a command soon. Returns the id that comes back in the events that answer it."""
        command_id = command.command_id or f"{self._id_prefix}-{next(self._ids)}"
        self._outbox.put(command.model_copy(update={"command_id": command_id}))
        return command_id

    def drain(self, max_events: int = 500) -> list[ClientEvent]:
        """Take the events that are there, at most ``max_events`` so that a backlog never freezes a window."""
        drained: list[ClientEvent] = []
        with contextlib.suppress(queue.Empty):
            while len(drained) < max_events:
                drained.append(self.events.get_nowait())
        return drained

    def log_tail(self) -> str:
        """Return the end of what the worker printed."""
        try:
            with self._log_path.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def close(self) -> None:
        """Leave the worker alone: it goes on with its run, or ends if it has none."""
        self._is_closing = True
        self._outbox.put(None)

    def kill(self) -> None:
        """End the worker and all it started, at once."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            for child in [*process.children(recursive=True), process]:
                with contextlib.suppress(psutil.Error):
                    child.kill()

    # -- threads ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        threading.Thread(target=self._converse, name="worker-reader", daemon=True).start()
        threading.Thread(target=self._watch_process, name="worker-watcher", daemon=True).start()

    def _converse(self) -> None:
        try:
            connection = self._connect()
        except (OSError, EOFError, ConnectionError) as error:
            self._report_lost(f"Cannot reach the worker: {error}.")
            return
        threading.Thread(target=self._send_all, args=(connection,), name="worker-sender", daemon=True).start()
        try:
            # The worker's first event tells that it counts us in: all that happened before is in the folder by then.
            _, attached = decode_event(connection.recv_bytes(MAX_FRAME_BYTES))
            last_event_id = self._read_folder(self._run_to_read) if self._run_to_read else 0
            self.events.put(attached)
            while not self._is_closing:
                # Closing a connection under a read breaks it with a TypeError, so the reader leaves by itself.
                if not connection.poll(_POLL_INTERVAL_S):
                    continue
                _, event = decode_event(connection.recv_bytes(MAX_FRAME_BYTES))
                if isinstance(event, RunPrepared):
                    self._run_to_read = Path(event.run.run_dir)
                    self._log_path = self._run_to_read / "worker.log"
                if isinstance(event, MetricsSkipped) and self._run_to_read is not None:
                    last_event_id = self._read_folder(self._run_to_read)
                elif event.event_id == 0 or event.event_id > last_event_id:
                    self.events.put(event)
        except ProtocolError as error:
            self._report_lost(f"The worker speaks another version of Thaw's protocol: {error}")
        except ValueError as error:
            self._report_lost(str(error))
        except (OSError, EOFError):
            # A cut frame raises OSError, a closed end EOFError: either way nothing more comes from there.
            self._report_lost("")

    def _read_folder(self, run_dir: Path) -> int:
        with RunFolder(run_dir, read_only=True) as folder:
            record = folder.read()
        self.events.put(RunOpened(record, is_live=True))
        return record.last_event_id

    def _connect(self) -> Connection:
        deadline = time.monotonic() + _CONNECT_TIMEOUT_S
        while True:
            try:
                return Client(self._address, authkey=self._key)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline or not psutil.pid_exists(self.pid):
                    raise
                time.sleep(0.02)

    def _send_all(self, connection: Connection) -> None:
        for seq in itertools.count(1):
            command = self._outbox.get()
            if command is None:
                return
            try:
                connection.send_bytes(encode(command, seq))
            except (OSError, ValueError):
                return

    def _watch_process(self) -> None:
        # The end of the stream can come seconds late when a loader process holds the socket; the process's does not.
        if self._process is not None:
            # Not psutil: it would reap our child, and Popen would then report exit code 0 for a kill.
            self._process.wait()
        else:
            with contextlib.suppress(psutil.Error):
                psutil.Process(self.pid).wait()
        self._report_lost("")

    def _report_lost(self, reason: str) -> None:
        if not self._is_lost.acquire(blocking=False):
            return
        code = self._exit_code()
        log_tail = self.log_tail()
        if self._folder is not None and code is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._is_closing:
            self.events.put(WorkerLost(True, ""))
        elif code == 0:
            self.events.put(WorkerLost(True, "The worker has ended."))
        else:
            self.events.put(WorkerLost(False, reason or describe_exit(code), log_tail))

    def _exit_code(self) -> int | None:
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return None


def describe_exit(code: int | None) -> str:
    """Say in a sentence how a worker ended, from its exit code (negative: the signal that ended it)."""
    if code is None:
        return "The worker is gone. What it saved is safe: resume the run from its last checkpoint."
    if code == -9:
        return (
            "The worker was killed (perhaps memory ran out). What it saved is safe: "
            "resume the run from its last checkpoint."
        )
    if code < 0:
        return (
            f"The worker was ended by signal {-code}. What it saved is safe: resume the run from its last checkpoint."
        )
    return f"The worker failed with exit code {code}. Its log says why; resume the run from its last checkpoint."
