"""ComparisonViewModel: checkpoints that are compared beside whatever trains, from the question to what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QObject, Signal

from app.backlog import Backlog
from app.confusion_difference import ConfusionDifference, difference_of
from app.errands import Errand
from app.viewmodels.compared_layers import ComparedLayerItemModel, moved_text
from app.viewmodels.comparison_items import ComparedMetricItemModel, ConfusionDifferenceItemModel, SettingItemModel
from app.viewmodels.quantities import count_text, number_text
from trainer.messages.comparison import CheckpointPlace, CheckpointsCompared, CompareCheckpoints
from trainer.messages.errands import AnyErrandEvent
from trainer.messages.events import PreparationProgressed

_MAX_NAMED = 2


class ComparisonViewModel(QObject):
    """Metrics, settings, layers and confusion of checkpoints; of the last two, one at a time beside the first one."""

    changed = Signal()
    """It goes on, has failed, or is done."""
    chosen = Signal()
    """Another checkpoint is shown beside the first one, or where their confusion matrices differ is known by now."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.metrics = ComparedMetricItemModel(self)
        self.settings = SettingItemModel(self)
        self.layers = ComparedLayerItemModel(self)
        self.matrix = ConfusionDifferenceItemModel(self)
        self.compared: CheckpointsCompared | None = None
        self.column = 0
        """Which of the others is shown, by its place among them."""
        self.sentence = ""
        self.is_failed = False
        self.done, self.total = 0, 0
        """How far it is; of 0 where that is not known."""
        # Of a thousand classes, longer than a frame.
        self._backlog = Backlog(self._difference, parent=self)
        self._backlog.answered.connect(self._show_difference)
        self._errand = Errand(self)
        self._errand.progressed.connect(self._progress)
        self._errand.done.connect(self.take)
        self._errand.failed.connect(lambda sentence: self._say(sentence, is_failed=True))
        self._errand.cancelled.connect(lambda: self._say(self.tr("Nothing was compared."), is_failed=False))

    @property
    def is_going(self) -> bool:
        """Whether it is under way."""
        return self._errand.is_going

    def begin(self, places: Sequence[tuple[Path, str]]) -> None:
        """Compare checkpoints, each by its run's folder and its name, with the first of them."""
        self._errand.start(
            CompareCheckpoints(
                checkpoints=[
                    CheckpointPlace(run_dir=str(run_dir.absolute()), checkpoint=name) for run_dir, name in places
                ]
            )
        )
        self._say(self.tr("Comparing {} checkpoints …").format(count_text(len(places))), is_failed=False)

    def cancel(self) -> None:
        """End it before its end."""
        self._errand.cancel()

    def close(self) -> None:
        """End it, as nobody looks any more."""
        self._errand.close()

    def take(self, compared: AnyErrandEvent) -> None:
        """Show what was found."""
        assert isinstance(compared, CheckpointsCompared)
        self.compared, self.column = compared, 0
        self.metrics.show(compared)
        self.settings.show(compared)
        self.layers.show(compared.layers)
        self._show_matrix()
        self._say("", is_failed=False)

    def choose(self, column: int) -> None:
        """Show another one of the others beside the first one."""
        if self.compared is not None and column != self.column:
            self.column = column
            self.layers.choose(column)
            self._show_matrix()
            self.chosen.emit()

    # -- words ------------------------------------------------------------------------------------------------

    def titles(self) -> list[str]:
        """Return the checkpoints' names for people, that of the first one first."""
        return [] if self.compared is None else [each.title for each in self.compared.checkpoints]

    def layers_title(self) -> str:
        """Say how far the whole model has moved, or why there is no distance."""
        compared, whole = self.compared, self.layers.whole
        if compared is None or whole is None:
            return "" if compared is None else compared.layers_problem or self.tr("No layer of these two is the same.")
        text = self.tr("{other} against {first}: moved by {moved}, cosine {cosine}")
        said = text.format(
            other=compared.checkpoints[self.column + 1].title,
            first=compared.checkpoints[0].title,
            moved=moved_text(whole),
            cosine=number_text(whole.cosine, 4),
        )
        if whole.num_compared == self.layers.num_values:
            return said
        counts = count_text(whole.num_compared), count_text(self.layers.num_values)
        return self.tr("{}, over {} of {} weights").format(said, *counts)

    def warnings(self) -> list[str]:
        """Say what of the weights cannot be compared, or is no number; a sentence each."""
        if self.compared is None:
            return []
        first, other = self.compared.checkpoints[0], self.compared.checkpoints[self.column + 1]
        told = []
        for each in (first, other):
            if each.not_finite:
                text = self.tr("{title} has weights that are NaN or infinite: {names}.")
                told.append(text.format(title=each.title, names=self._few(each.not_finite, ", ")))
        if other.unmatched and self.layers.whole is not None:
            told.append(self.tr("Not compared: {}.").format(self._few(other.unmatched, "; ")))
        return told

    def warnings_in_full(self) -> str:
        """Return all that is not compared, a line each."""
        if self.compared is None:
            return ""
        first, other = self.compared.checkpoints[0], self.compared.checkpoints[self.column + 1]
        return "\n".join([*first.not_finite, *other.not_finite, *other.unmatched])

    def confusion_title(self) -> str:
        """Say how many images are right in both, or why there is nothing to compare."""
        if self.compared is None:
            return ""
        confusion, difference = self.compared.confusion, self.matrix.difference
        if difference is None:
            return confusion.problems[0] or confusion.problems[self.column + 1]
        rights, nums = (map(count_text, counts) for counts in (difference.num_right(), difference.num_images()))
        (before, after), (before_num, after_num) = rights, nums
        text = self.tr("{before} of {before_num} → {after} of {after_num} validation images right")
        said = text.format(before=before, before_num=before_num, after=after, after_num=after_num)
        return said if difference.num_cells else self.tr("{}, and no difference").format(said)

    # -- inside -----------------------------------------------------------------------------------------------

    def _few(self, names: list[str], sign: str) -> str:
        listed = sign.join(names[:_MAX_NAMED])
        if len(names) <= _MAX_NAMED:
            return listed
        return self.tr("{listed} and {count} more").format(listed=listed, count=count_text(len(names) - _MAX_NAMED))

    def _show_matrix(self) -> None:
        self.matrix.show(None)
        self._backlog.want([self.column])

    def _difference(self, column: int) -> ConfusionDifference | None:
        """Work out where the matrix of another one differs, in a thread; None where there is none."""
        assert self.compared is not None
        confusion = self.compared.confusion
        first, other = confusion.matrices[0], confusion.matrices[column + 1]
        return None if first is None or other is None else difference_of(confusion.class_names, first, other)

    def _show_difference(self, column: int, difference: ConfusionDifference | None) -> None:
        if column == self.column:
            self.matrix.show(difference)
            self.chosen.emit()

    def _progress(self, event: PreparationProgressed) -> None:
        self.done, self.total = event.done, event.total
        text = self.tr("{} …").format(event.what)
        if event.total and event.unit == "images":
            count = self.tr("{} of {} images").format(count_text(event.done), count_text(event.total))
            text = f"{event.what} · {count}"
        self._say(text, is_failed=False)

    def _say(self, sentence: str, *, is_failed: bool) -> None:
        self.sentence, self.is_failed = sentence, is_failed
        self.changed.emit()
