"""ConfusionViewModel: which classes the run on display takes for which, read from its folder while someone looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PySide6.QtCore import QObject, Signal

from app.backlog import Backlog
from app.confusion import Confusion, read_off
from app.viewmodels.confusion_items import ClassFigureItemModel, ConfusionItemModel, PairItemModel
from app.viewmodels.field_words import split_text
from app.viewmodels.quantities import count_text, percent_text
from trainer.runs import RunFolder


class ConfusionQuery(NamedTuple):
    """The matrix of one of ``CONFUSIONS`` of a run; ``turn`` tells a later look at the same one apart."""

    run_dir: Path
    which: str
    turn: int


class ConfusionViewModel(QObject):
    """The matrix, its classes and its most frequent pairs, and the cell that all three of them point at."""

    changed = Signal()
    """Another matrix is shown, or another sentence in its place."""
    cell_changed = Signal()
    """Another cell was chosen."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.matrix = ConfusionItemModel(self)
        self.classes = ClassFigureItemModel(self)
        self.pairs = PairItemModel(self)
        self.confusion: Confusion | None = None
        self.problem = ""
        self.which = "best"
        self.cell: tuple[int, int] | None = None
        self._run_dir: Path | None = None
        self._is_wanted, self._is_stale = False, True
        self._last_query: ConfusionQuery | None = None
        self._backlog = Backlog(read_confusion, parent=self)
        self._backlog.answered.connect(self._take)

    def follow(self, run_dir: Path | None) -> None:
        """Take note that the run on display is another one, or that it may have been evaluated anew."""
        if run_dir != self._run_dir:
            self._run_dir = run_dir
            self._show(None, "")
        self._is_stale = True
        self._read()

    def want(self, *, is_wanted: bool) -> None:
        """Read while someone looks, and only then."""
        self._is_wanted = is_wanted
        self._read()

    def choose(self, which: str) -> None:
        """Show the matrix of another one of ``CONFUSIONS``."""
        if which != self.which:
            self.which, self._is_stale = which, True
            self._read()

    def choose_cell(self, true_idx: int, taken_idx: int) -> None:
        """Point at what images of a class were taken for."""
        if (true_idx, taken_idx) != self.cell:
            self.cell = true_idx, taken_idx
            self.cell_changed.emit()

    def title(self) -> str:
        """Say of what the matrix is, and how much of it is right."""
        shown = self.confusion
        if shown is None:
            return ""
        text = self.tr("{right} of {count} {split} images right · step {step} · {checkpoint}")
        return text.format(
            right=percent_text(shown.accuracy),
            count=count_text(int(shown.num_images.sum())),
            split=split_text(shown.split),
            step=count_text(shown.step),
            checkpoint=shown.checkpoint,
        )

    def pairs_title(self) -> str:
        """Say how many pairs of classes are confused, and how many of them are listed."""
        shown = self.confusion
        if shown is None or not shown.num_pairs:
            return self.tr("Every image was taken for its own class.") if shown is not None else ""
        if shown.num_pairs > len(shown.pairs):
            text = self.tr("The {count} most frequent of {all} pairs of classes")
            return text.format(count=count_text(len(shown.pairs)), all=count_text(shown.num_pairs))
        return self.tr("What was taken for what")

    def matrix_rows(self) -> Iterable[Sequence[object]]:
        """Yield the lines of a CSV file: a heading, then a row for each class."""
        if (shown := self.confusion) is not None:
            yield ["class, taken for", *shown.class_names]
            for name, counts in zip(shown.class_names, shown.counts, strict=True):
                yield [name, *counts.tolist()]

    def class_rows(self) -> Iterable[Sequence[object]]:
        """Yield the lines of a CSV file: a heading, then the figures of each class."""
        if (shown := self.confusion) is not None:
            yield ["class", "images", "recall", "precision", "f1"]
            columns = (shown.num_images, shown.recall, shown.precision, shown.f1)
            for name, count, *shares in zip(shown.class_names, *(column.tolist() for column in columns), strict=True):
                yield [name, count, *("" if np.isnan(share) else share for share in shares)]

    def pair_rows(self) -> Iterable[Sequence[object]]:
        """Yield the lines of a CSV file: a heading, then what was taken for what, the most frequent first."""
        if (shown := self.confusion) is not None:
            yield ["class", "taken for", "images", "share of its images"]
            for pair in shown.pairs:
                names = shown.class_names[pair.true_idx], shown.class_names[pair.taken_idx]
                yield [*names, pair.num_images, shown.share_of(pair.true_idx, pair.taken_idx)]

    # -- inside -----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        if self._run_dir is None or not self._is_wanted or not self._is_stale:
            return
        self._is_stale = False
        turn = 0 if self._last_query is None else self._last_query.turn + 1
        self._last_query = ConfusionQuery(self._run_dir, self.which, turn)
        self._backlog.want([self._last_query])

    def _take(self, query: ConfusionQuery, answer: Confusion | str) -> None:
        if query != self._last_query or query.run_dir != self._run_dir:
            # Something else is wanted by now.
            return
        if isinstance(answer, str):
            self._show(None, answer)
        else:
            self._show(answer, "")

    def _show(self, confusion: Confusion | None, problem: str) -> None:
        before = self.confusion
        self.confusion, self.problem = confusion, problem
        if before is None or confusion is None or before.class_names != confusion.class_names:
            self.cell = None
        for model in (self.matrix, self.classes, self.pairs):
            model.show(confusion)
        self.changed.emit()
        self.cell_changed.emit()


def read_confusion(query: ConfusionQuery) -> Confusion | str:
    """Return a run's matrix with its figures, or the sentence that says why there is none."""
    try:
        with RunFolder(query.run_dir, read_only=True) as folder:
            return read_off(folder.checkpoints.confusion(query.which))
    except (ValueError, OSError) as error:
        return str(error)
