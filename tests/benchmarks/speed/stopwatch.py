"""A contender's turn: what it is to do, and when it did what."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Layers = Literal["head", "last", "full"]
ALL_EPOCHS = 10
IMAGE_SIZE, RESIZE_SIZE = 160, 183
BATCH_SIZE = 32
RATE = 1e-3
LIGHT_AREA, LIGHT_RATIO = (0.8, 1.0), (3 / 4, 4 / 3)
"""Thaw's light augmentation, which is its default: a crop of this share of the area, in this ratio of its sides."""
ONE_VIEW = "one view"
"""The variant without augmentation: every epoch has the same images."""
NUM_WORKERS = 2
"""Loader processes of the plain loop, Lightning and fastai; none of them chooses by itself. Thaw does."""


@dataclass(frozen=True)
class Turn:
    """What a contender does in one process, from one start to one end.

    Attributes:
        images: The folder with ``train`` and ``val``.
        scratch: An empty folder, for what it writes.
        report: The file that it leaves its times in.
        started_at: When its process was started, Unix time in seconds.
        layers: What learns: the head, the last stage and the head, or everything.
        num_epochs: The epochs that it makes at least.
        rest_s: It goes on to ``ALL_EPOCHS`` where those that are left take no longer than this, by the last one.
        variant: What is other than the default.
        is_first_step: Only the first step is asked for, from several starts, instead of epochs.

    """

    images: str
    scratch: str
    report: str
    started_at: float
    layers: Layers = "head"
    num_epochs: int = 2
    rest_s: float = 150.0
    variant: str = ""
    is_first_step: bool = False

    @classmethod
    def read(cls, text: str) -> Turn:
        """Read what ``text`` wrote."""
        return cls(**json.loads(text))

    def text(self) -> str:
        """Return it as a line."""
        return json.dumps(asdict(self))


@dataclass
class Times:
    """What a turn took. Unix times in seconds.

    ``ready_at`` is the moment before the first step's images are loaded; ``epoch_ends`` are after each validation.
    ``first_steps_s`` are the seconds to a first step, each from the start of something.
    """

    started_at: float
    ready_at: float = 0.0
    first_step_at: float = 0.0
    epoch_ends: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    ended_at: float = 0.0
    first_steps_s: list[float] = field(default_factory=list)
    peak_rss_bytes: int = 0
    peak_pss_bytes: int = 0

    @classmethod
    def read(cls, path: Path) -> Times:
        """Read what a contender left."""
        return cls(**json.loads(path.read_text()))

    @property
    def epochs_s(self) -> list[float]:
        """Return the seconds of each epoch with its validation."""
        starts = [self.ready_at, *self.epoch_ends]
        return [end - start for start, end in zip(starts, self.epoch_ends, strict=False)]


class Stopwatch:
    """Notes when what happens, and says when a turn is over."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.times = Times(turn.started_at)

    def begin(self, at: float | None = None) -> None:
        """Training begins: data and model are there."""
        self.times.ready_at = at or time.time()

    def end_step(self, at: float | None = None) -> None:
        """Note that a step has ended; the first one counts."""
        if not self.times.first_step_at:
            self.times.first_step_at = at or time.time()

    def end_epoch(self, accuracy: float, at: float | None = None) -> bool:
        """Note that an epoch's validation has ended. Returns whether there is another epoch in this turn."""
        self.times.epoch_ends.append(at or time.time())
        self.times.accuracies.append(accuracy)
        num_done = len(self.times.epoch_ends)
        left_s = (ALL_EPOCHS - num_done) * self.times.epochs_s[-1]
        return num_done < self.turn.num_epochs or (num_done < ALL_EPOCHS and left_s <= self.turn.rest_s)

    def write(self) -> None:
        """Leave the times for who started the turn."""
        self.times.ended_at = time.time()
        Path(self.turn.report).write_text(json.dumps(asdict(self.times)))
