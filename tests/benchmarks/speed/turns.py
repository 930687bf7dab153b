"""Contenders take turns: each turn is a process of its own, whose memory is watched from here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from tests.benchmarks.speed.stopwatch import ONE_VIEW, Layers, Times, Turn

PACKAGE = "tests.benchmarks.speed"
PATIENCE_S = 3600.0
_LOG_CHARACTERS = 3000


@dataclass(frozen=True)
class Contender:
    """Who takes turns.

    Attributes:
        column: Its name in the table.
        module: The module of ``tests.benchmarks.speed`` that is its process.
        variant: What is other than its default.
        needs: The package that it stands on, "" where that is there with Thaw.
        is_child: Whether its training is in a child of its process, whose own memory does not count.

    """

    column: str
    module: str
    variant: str = ""
    needs: str = ""
    is_child: bool = False

    @property
    def is_installed(self) -> bool:
        """Tell whether it can take turns here."""
        return not self.needs or find_spec(self.needs) is not None


THAW = Contender("Thaw", "thaw_loop", is_child=True)
THAW_ONE_VIEW = Contender("Thaw, one view", "thaw_loop", ONE_VIEW, is_child=True)
THAW_NO_CACHE = Contender("Thaw, cache off", "thaw_loop", "no cache", is_child=True)
THAW_FP32 = Contender("Thaw, fp32", "thaw_loop", "fp32", is_child=True)
THAW_BF16 = Contender("Thaw, bf16", "thaw_loop", "bf16", is_child=True)
PLAIN = Contender("plain PyTorch", "torch_loop")
PLAIN_ONE_VIEW = Contender("plain, one view", "torch_loop", ONE_VIEW)
PLAIN_BF16 = Contender("plain, bf16", "torch_loop", "bf16")
LIGHTNING = Contender("Lightning", "lightning_loop", needs="lightning")
FASTAI = Contender("fastai", "fastai_loop", needs="fastai")
CONTENDERS = (
    THAW,
    THAW_ONE_VIEW,
    THAW_NO_CACHE,
    THAW_FP32,
    THAW_BF16,
    PLAIN,
    PLAIN_ONE_VIEW,
    PLAIN_BF16,
    LIGHTNING,
    FASTAI,
)


@dataclass(frozen=True)
class Length:
    """How much is measured.

    Attributes:
        images: The folder with the images.
        scratch: A folder for what the turns write.
        num_turns: Of each contender.
        num_epochs: In each turn at least.
        rest_s: A turn makes all epochs where the others take no longer than this.

    """

    images: Path
    scratch: Path
    num_turns: int
    num_epochs: int
    rest_s: float


def take_turns(
    contenders: Sequence[Contender],
    layers: Layers,
    length: Length,
    *,
    is_first_step: bool = False,
    has_shares: bool = False,
) -> dict[str, list[Times]]:
    """Let contenders take turns, and return the times of each, by its column; of one not installed there are none."""
    taken: dict[str, list[Times]] = {each.column: [] for each in contenders}
    present = [each for each in contenders if each.is_installed]
    for number in range(length.num_turns):
        # The order turns round: who comes after whom would matter otherwise.
        for contender in present if number % 2 == 0 else reversed(present):
            print(
                f"  {layers}, turn {number + 1} of {length.num_turns}: {contender.column}", file=sys.stderr, flush=True
            )
            times = take_turn(contender, layers, length, is_first_step=is_first_step, has_shares=has_shares)
            taken[contender.column].append(times)
    return taken


def take_turn(
    contender: Contender, layers: Layers, length: Length, *, is_first_step: bool = False, has_shares: bool = False
) -> Times:
    """Let a contender take one turn, in a process of its own with empty caches.

    Raises:
        RuntimeError: Its process failed; says what it printed last.

    """
    with tempfile.TemporaryDirectory(dir=length.scratch) as folder:
        report = Path(folder) / "times.json"
        environment = dict(os.environ)
        environment |= {f"XDG_{name}_HOME": str(Path(folder) / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        with (Path(folder) / "log").open("w+", encoding="utf-8") as log:
            turn = Turn(
                images=str(length.images),
                scratch=folder,
                report=str(report),
                started_at=time.time(),
                layers=layers,
                num_epochs=length.num_epochs,
                rest_s=length.rest_s,
                variant=contender.variant,
                is_first_step=is_first_step,
            )
            process = subprocess.Popen(
                [sys.executable, "-m", f"{PACKAGE}.{contender.module}", turn.text()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            try:
                with MemoryWatch(process.pid, is_child=contender.is_child, has_shares=has_shares) as memory:
                    code = process.wait(PATIENCE_S)
            finally:
                end_all(process)
            if code:
                log.seek(0)
                raise RuntimeError(f"{contender.column} failed with exit code {code}:\n{log.read()[-_LOG_CHARACTERS:]}")
        times = Times.read(report)
        times.peak_rss_bytes, times.peak_pss_bytes = memory.peak_rss_bytes, memory.peak_pss_bytes
        return times


def end_all(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, and what it started."""
    if process.poll() is not None:
        return
    parent = psutil.Process(process.pid)
    for each in [*parent.children(recursive=True), parent]:
        each.kill()
    process.wait()


class MemoryWatch:
    """Watches a process and its children from a thread, for the most memory that they hold at once.

    Attributes:
        peak_rss_bytes: The sum of what each has in memory; pages that several share count several times.
        peak_pss_bytes: The same with shared pages counted once; 0 where that was not asked for.

    """

    _INTERVAL_S = 0.25

    def __init__(self, pid: int, *, is_child: bool, has_shares: bool) -> None:
        self.peak_rss_bytes = self.peak_pss_bytes = 0
        self._root = psutil.Process(pid)
        self._is_child = is_child
        self._has_shares = has_shares
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(self._INTERVAL_S):
            try:
                watched = self._root.children(recursive=True)
            except psutil.NoSuchProcess:
                return
            if not self._is_child:
                watched.append(self._root)
            self.peak_rss_bytes = max(self.peak_rss_bytes, sum(map(_rss_bytes, watched)))
            if self._has_shares:
                self.peak_pss_bytes = max(self.peak_pss_bytes, sum(map(_pss_bytes, watched)))


def _rss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        # It has ended since it was listed.
        return 0


def _pss_bytes(process: psutil.Process) -> int:
    try:
        # Linux alone tells it; elsewhere what no other process has is the nearest.
        found = process.memory_full_info()
        return int(getattr(found, "pss", found.uss))
    except psutil.Error:
        return 0
