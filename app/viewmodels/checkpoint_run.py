"""CheckpointRun: the checkpoints of one run, with what sets each of them apart from the others of that run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PySide6.QtCore import QCoreApplication

from app.viewmodels.field_words import choice_text
from app.viewmodels.kept_for import kept_for
from trainer.config import CheckpointsConfig, Metric, RunConfig
from trainer.messages.run_info import CheckpointInfo
from trainer.run_record import RunCheckpoints, best_checkpoint, checkpoint_rank

_FOLDER_TIME = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)(\d\d)\d\d_")


class CheckpointKey(NamedTuple):
    """Names a checkpoint among those of several runs."""

    run_dir: Path
    name: str


class CheckpointRun:
    """One run's checkpoints, oldest first. ``config`` is None where nothing of the run is known yet."""

    def __init__(self, path: Path = Path(), config: RunConfig | None = None) -> None:
        self.path, self.config = path, config
        self.infos: list[CheckpointInfo] = []
        self.problems: dict[str, str] = {}
        self.left_behind: set[str] = set()
        self.resume_point: str | None = None
        """From which the run would go on, as far as that is known."""
        self.metric: Metric = "accuracy"
        self.rules = CheckpointsConfig()
        self.best_name: str | None = None
        self._place: dict[str, int] = {}
        self._kept_for: dict[str, list[str]] | None = None

    @classmethod
    def of_reading(cls, reading: RunCheckpoints) -> CheckpointRun:
        """Return what was read of a run that is not on display."""
        assert reading.config is not None
        run = cls(reading.path, reading.config)
        run.metric, run.rules, run.problems = reading.metric, reading.config.checkpoints, reading.problems
        run.left_behind, run.resume_point = reading.left_behind, reading.resume_point
        run.take(reading.checkpoints)
        return run

    @property
    def title(self) -> str:
        """Return its name, as the list of runs has it, and when it began: another one may have the name."""
        began = _FOLDER_TIME.match(self.path.name)
        if self.config is None or began is None:
            return self.path.name
        day, hour, minute = began.groups()
        return f"{self.config.title} · {day} {hour}:{minute}"

    @property
    def origin(self) -> str:
        """Return the checkpoint from which it branches, in words, "" if it branches from none."""
        branch = None if self.config is None else self.config.branch
        return "" if branch is None else branch.source

    def key(self, name: str) -> CheckpointKey:
        """Name one of its checkpoints among those of several runs."""
        return CheckpointKey(self.path, name)

    def info(self, name: str) -> CheckpointInfo | None:
        """Return what is known of a checkpoint, None if it is not listed."""
        place = self._place.get(name)
        return None if place is None else self.infos[place]

    # -- what comes in ----------------------------------------------------------------------------------------

    def take(self, infos: Sequence[CheckpointInfo]) -> None:
        """Have these checkpoints, oldest first."""
        self.infos = list(infos)
        self._place = {info.name: place for place, info in enumerate(self.infos)}
        self.problems = {name: problem for name, problem in self.problems.items() if name in self._place}
        self.find_best()

    def append(self, info: CheckpointInfo) -> None:
        """Have one more, which was just saved: the run would go on from there."""
        self.resume_point = info.name
        self._place[info.name] = len(self.infos)
        self.infos.append(info)
        rank = checkpoint_rank(info, self.metric)
        best = None if self.best_name is None else self.info(self.best_name)
        best_rank = None if best is None else checkpoint_rank(best, self.metric)
        if rank is not None and (best_rank is None or rank < best_rank):
            self.best_name = info.name
        self.forget_reasons()

    def replace(self, info: CheckpointInfo) -> None:
        """Know otherwise of a checkpoint that is listed."""
        place = self._place[info.name]
        before, self.infos[place] = self.infos[place], info
        if checkpoint_rank(before, self.metric) != checkpoint_rank(info, self.metric):
            self.find_best()
        self.forget_reasons()

    def find_best(self) -> None:
        """Look for the best among all of them."""
        best = best_checkpoint(self.infos, self.metric)
        self.best_name = None if best is None else best.name
        self.forget_reasons()

    def forget_reasons(self) -> None:
        """Find out anew why each is kept, when that is asked for."""
        self._kept_for = None

    # -- in words ---------------------------------------------------------------------------------------------

    def tags_of(self, info: CheckpointInfo) -> list[str]:
        """Return what sets a checkpoint apart from the others."""
        translate, problem = QCoreApplication.translate, self.problems.get(info.name)
        tags = [translate("Checkpoints", "damaged: {}").format(problem)] if problem else []
        if info.label:
            tags.append(info.label)
        if info.name == self.best_name:
            tags.append(translate("Checkpoints", "best"))
        if info is self.infos[-1]:
            tags.append(translate("Checkpoints", "last"))
        if info.name in self.left_behind:
            tags.append(translate("Checkpoints", "left behind"))
        if info.is_pinned:
            tags.append(translate("Checkpoints", "pinned"))
        if info.reason != "epoch":
            tags.append(reason_text(info.reason))
        return tags + self._reasons.get(info.name, [])

    @property
    def best_text(self) -> str:
        """Say by what the best is the best."""
        return QCoreApplication.translate("Checkpoints", "best by {}").format(choice_text(self.metric))

    @property
    def best_sentence(self) -> str:
        """Say in a sentence what the best is."""
        if self.metric != "loss":
            text = QCoreApplication.translate("Checkpoints", "The highest validation {} so far.")
            return text.format(choice_text(self.metric))
        if self.rules.best_metric == "loss":
            return QCoreApplication.translate("Checkpoints", "The lowest validation loss so far.")
        return QCoreApplication.translate(
            "Checkpoints", "The lowest validation loss so far: the patience watches the loss."
        )

    @property
    def _reasons(self) -> dict[str, list[str]]:
        """Return which rules keep a checkpoint, by its name, in words."""
        if self._kept_for is None:
            self._kept_for = kept_for(self.infos, self.rules, self.metric, self.resume_point)
        return self._kept_for


def reason_text(reason: str) -> str:
    """Return the tag for why a checkpoint was saved."""
    words = {
        "user": QCoreApplication.translate("Checkpoints", "saved by hand"),
        "stop": QCoreApplication.translate("Checkpoints", "saved at the stop"),
        "periodic": QCoreApplication.translate("Checkpoints", "within an epoch"),
        "branch": QCoreApplication.translate("Checkpoints", "start of the branch"),
        "weights": QCoreApplication.translate("Checkpoints", "weights restored"),
    }
    return words.get(reason, reason)
