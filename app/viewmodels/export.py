"""ExportViewModel: one checkpoint written for others: what is chosen, how far it is, and what came of it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from PySide6.QtCore import QObject, Signal

from app.backlog import Backlog
from app.errands import Errand
from app.viewmodels.quantities import count_text
from trainer.messages.events import PreparationProgressed
from trainer.messages.export import (
    BUNDLE_ARCHIVE,
    ENDINGS,
    FORMAT_SENTENCES,
    CheckpointExported,
    ExportCheckpoint,
    ExportFormat,
    format_of,
    name_of,
)
from trainer.messages.run_info import CheckpointInfo

SharedAs = ExportFormat | Literal["bundle", "archive"]
"""A format, or a bundle as a folder or as one file."""

SHARED_AS: tuple[SharedAs, ...] = (*get_args(ExportFormat), "bundle", "archive")


@dataclass(frozen=True)
class ExportTarget:
    """The checkpoint that is meant, and the run that it is of."""

    run_dir: Path
    run_title: str
    info: CheckpointInfo


class _Place(NamedTuple):
    """What is where a checkpoint is to be written: the first thing that would be replaced, and whether its folder."""

    taken: Path | None
    has_folder: bool


class ExportViewModel(QObject):
    """Goes on with an export when nobody looks at it any more, and then tells what came of it."""

    changed = Signal()
    """Something else is chosen, or it is further on, or over."""
    told = Signal(str, object)
    """What came of an export that nobody looks at: the sentence, and the file (a Path), None where nothing came."""
    folder_used = Signal(str)
    """The folder of the latest export: the next one is offered there."""

    def __init__(self, folder: str, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.target: ExportTarget | None = None
        self.shared_as: SharedAs = "pt"
        self.to = ""
        self.may_replace = False
        self.is_watched = False
        """Whether the outcome is seen where it was asked for."""
        self.refusal = ""
        self.exported: CheckpointExported | None = None
        self._folder = folder
        self._progress: PreparationProgressed | None = None
        self._seen: dict[tuple[Path, ...], _Place] = {}
        self._looker = Backlog(_look_at, 1, self)
        self._looker.answered.connect(self._take_look)
        self._errand = Errand(self)
        self._errand.progressed.connect(self._take_progress)
        self._errand.done.connect(self._take_done)
        self._errand.failed.connect(self._take_failed)
        self._errand.cancelled.connect(self._take_cancelled)

    # -- what is chosen ---------------------------------------------------------------------------------------

    def choose(self, target: ExportTarget) -> None:
        """Begin anew with a checkpoint. One that is exported now goes first: it stays the one that is shown."""
        if self.is_going:
            return
        self.target, self.exported, self.refusal = target, None, ""
        folder = Path(self._folder) if self._folder else target.run_dir.parent
        info = target.info
        place = f"epoch-{info.epoch}" if info.reason == "epoch" else f"step-{info.step}"
        self._set_to(str(folder / f"{target.run_dir.name}_{place}{self._ending()}"))

    def share_as(self, shared_as: SharedAs) -> None:
        """Choose a format or a bundle; the name ends accordingly."""
        before, self.shared_as = self._endings(), shared_as
        stem = next((self.to[: -len(end)] for end in before if end and self.to.lower().endswith(end)), self.to)
        self._set_to(self.to if self._fits() else stem + self._ending())

    def write_to(self, to: str) -> None:
        """Choose the file, or the bundle's folder."""
        if to != self.to:
            self._set_to(to)

    def replace(self, may_replace: bool) -> None:
        """Allow that what is there is replaced, or not."""
        self.may_replace = may_replace
        self.changed.emit()

    def label(self, shared_as: SharedAs) -> str:
        """Return what a choice is called."""
        return {
            "pt": self.tr("PyTorch weights (.pt)"),
            "course": self.tr("PyTorch weights and optimizer (.pt)"),
            "pickle": self.tr("PyTorch model as code (.pt)"),
            "safetensors": self.tr("Safetensors (.safetensors)"),
            "onnx": self.tr("ONNX (.onnx)"),
            "pt2": self.tr("torch.export (.pt2)"),
            "bundle": self.tr("Bundle, a folder"),
            "archive": self.tr("Bundle, one file (.zip)"),
        }[shared_as]

    @property
    def sentence(self) -> str:
        """Say what the choice is."""
        if self.shared_as in {"bundle", "archive"}:
            return self.tr(
                "Weights, class names, metrics and versions, with a model card, and scripts that predict and repeat "
                "the run in plain PyTorch."
            )
        return FORMAT_SENTENCES[self.shared_as]  # type: ignore[index]

    @property
    def is_code(self) -> bool:
        """Return whether what is written executes code where it is loaded."""
        return self.shared_as == "pickle"

    @property
    def taken(self) -> Path | None:
        """Return what is there already and would be replaced, as far as is known."""
        seen = self._seen.get(self._places)
        return None if seen is None else seen.taken

    @property
    def can_begin(self) -> bool:
        """Return whether all is chosen, and nothing replaced unasked."""
        is_free = self.taken is None or self.may_replace
        return bool(self.to.strip()) and self._places in self._seen and is_free and not self.no_place

    @property
    def no_place(self) -> str:
        """Say that there is no such place to write to, "" if there is, or if that is not known yet."""
        if not self.to.strip():
            return ""
        if no_name := self._no_name():
            return no_name
        seen = self._seen.get(self._places)
        if seen is None or seen.has_folder:
            return ""
        text = self.tr("There is no folder {}. Make it first, or choose another place.")
        return text.format(self._place().parent)

    @property
    def is_place_wrong(self) -> bool:
        """Return whether it is the place that is refused, and nothing else."""
        return bool(self.no_place or (self.refusal and self._complaint()))

    def look_again(self) -> None:
        """See what is there by now: another program may have made, or taken away, a folder or a file."""
        if not self.is_going:
            self._look()

    # -- the export -------------------------------------------------------------------------------------------

    @property
    def is_going(self) -> bool:
        """Return whether a checkpoint is being exported."""
        return self._errand.is_going

    @property
    def progress(self) -> tuple[str, int, int]:
        """Return what is being done, how much of it is done, and of how much (0 where that is not known)."""
        event = self._progress
        if event is None:
            return self.tr("Starting …"), 0, 0
        if not event.total:
            return self.tr("{} …").format(event.what), 0, 0
        text = self.tr("{what}: {done} of {total} …")
        counts = {"done": count_text(event.done), "total": count_text(event.total)}
        return text.format(what=event.what, **counts), event.done, event.total

    def begin(self) -> None:
        """Export as chosen."""
        assert self.target is not None
        self.refusal, self._progress = self._complaint(), None
        if not self.refusal:
            self._errand.start(self._command())
        self.changed.emit()

    def cancel(self) -> None:
        """End the export: nothing is left of it."""
        self._errand.cancel()

    def close(self) -> None:
        """End it, before the window goes."""
        self._errand.close()

    # -- inside -----------------------------------------------------------------------------------------------

    def _command(self) -> ExportCheckpoint:
        assert self.target is not None
        is_bundle = self.shared_as in {"bundle", "archive"}
        return ExportCheckpoint(
            run_dir=str(self.target.run_dir.absolute()),
            checkpoint=self.target.info.name,
            to=str(self._place()),
            format=None if is_bundle else self.shared_as,
            is_bundle=is_bundle,
            overwrite=self.may_replace,
        )

    @property
    def _places(self) -> tuple[Path, ...]:
        is_named = self.target is not None and not self._no_name()
        return tuple(self._command().places) if is_named else ()

    def _no_name(self) -> str:
        """Say that the path ends in no name, "" if it ends in one."""
        try:
            # As it was typed: a dot, or nothing, would have the name of the folder that is offered.
            name_of(self._given())
        except ValueError as error:
            return str(error)
        return ""

    def _complaint(self) -> str:
        """Say why it cannot be written under this name, "" if it can."""
        name, is_zip = self._place().name, self._place().suffix.lower() == BUNDLE_ARCHIVE
        match self.shared_as:
            case "archive" if not is_zip:
                return self.tr("A bundle in one file ends in .zip, but {} does not. Choose another name.").format(name)
            case "bundle" if is_zip:
                return self.tr("{} is the name of a file. Choose another name for the bundle's folder.").format(name)
            case "archive" | "bundle":
                return ""
            case chosen:
                try:
                    format_of(name, chosen)
                except ValueError as error:
                    return str(error)
                return ""

    def _place(self) -> Path:
        """Return where it is written: what is no whole path is meant within the folder that is offered."""
        beside = self.target.run_dir.parent if self.target is not None else Path()
        return (Path(self._folder or beside) / self._given()).absolute()

    def _given(self) -> Path:
        given = Path(self.to.strip())
        with contextlib.suppress(RuntimeError):
            # Where a user is named that this system does not know, it is a name as any other.
            given = given.expanduser()
        return given

    def _endings(self) -> tuple[str, ...]:
        return {"bundle": ("",), "archive": (BUNDLE_ARCHIVE,)}.get(self.shared_as) or ENDINGS[self.shared_as]  # type: ignore[index]

    def _ending(self) -> str:
        return self._endings()[0]

    def _fits(self) -> bool:
        known = (BUNDLE_ARCHIVE, *(ending for endings in ENDINGS.values() for ending in endings))
        fits = self.to.lower().endswith(self._endings())
        return fits if self._ending() else not self.to.lower().endswith(known)

    def _set_to(self, to: str) -> None:
        self.to, self.may_replace, self.refusal = to, False, ""
        self._look()
        self.changed.emit()

    def _look(self) -> None:
        if self.target is not None:
            # What was seen there before may be gone by now, or have come.
            self._seen = {}
            places = self._places
            self._looker.want([places] if places else [])

    def _take_look(self, places: tuple[Path, ...], seen: _Place) -> None:
        self._seen[places] = seen
        self.changed.emit()

    def _take_progress(self, event: PreparationProgressed) -> None:
        self._progress = event
        self.changed.emit()

    def _take_done(self, event: CheckpointExported) -> None:
        self.exported = event
        path = Path(event.path)
        self._folder = str(path.parent)
        self.folder_used.emit(self._folder)
        self.changed.emit()
        if not self.is_watched:
            sentence = self.tr("{checkpoint} is exported to {path}. {parity}")
            said = {"checkpoint": event.checkpoint, "path": path, "parity": event.parity.sentence}
            self.told.emit(sentence.format(**said), path)

    def _take_failed(self, sentence: str) -> None:
        self.refusal = sentence
        self._look()
        self.changed.emit()
        if not self.is_watched:
            self.told.emit(sentence, None)

    def _take_cancelled(self) -> None:
        self._look()
        self.changed.emit()


def _look_at(places: tuple[Path, ...]) -> _Place:
    try:
        taken = next((path for path in places if path.exists() or path.is_symlink()), None)
        return _Place(taken, places[0].parent.is_dir())
    except OSError:
        # A folder that cannot be read: who writes there says why not.
        return _Place(None, has_folder=True)
