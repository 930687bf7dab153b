"""What was deleted here from runs: kept beside the trash, so that it can be undone also after the window was closed.

All of it reads or writes files: never on the window's thread.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs
from pydantic import TypeAdapter

from app import trash
from trainer.messages.run_info import CheckpointInfo


@dataclass(frozen=True)
class Trashed:
    """A deleted checkpoint, where its file was, and where it lies in the trash; None while it is on its way there."""

    info: CheckpointInfo
    path: Path
    trashed: Path | None


@dataclass(frozen=True)
class Deletion:
    """What was deleted in one go. ``trashed`` can be put back as long as the trash is not emptied."""

    names: list[str]
    freed_bytes: int
    trashed: list[Trashed]
    kept: str = ""
    """The sentence that says which were to go, too, and stay."""
    has_best: bool = False
    """Whether the best one is among them."""

    @property
    def is_on_its_way(self) -> bool:
        """Return whether its files are still to be moved to the trash."""
        return any(each.trashed is None for each in self.trashed)


_DELETIONS = TypeAdapter(list[Deletion])


def read_deletions(run_dir: Path) -> tuple[list[Deletion], list[CheckpointInfo]]:
    """Return the deletions from a run that can be undone, and what was to be deleted but is in its place.

    The latter is left where a window was killed in the middle of a deletion, or of undoing one.

    Raises:
        OSError: What was kept cannot be read, or is damaged.

    """
    kept = _read(run_dir)
    left = [each.info for deletion in kept for each in deletion.trashed if each.path.exists()]
    undoable = [replace(deletion, trashed=list(filter(_is_in_trash, deletion.trashed))) for deletion in kept]
    return [deletion for deletion in undoable if deletion.trashed], left


def begin_deletion(run_dir: Path, infos: list[CheckpointInfo]) -> None:
    """Keep what is about to be moved to the trash, so that a kill in the middle does not make anybody forget it.

    Raises:
        OSError: It cannot be kept.

    """
    on_their_way = [Trashed(info, run_dir / "checkpoints" / info.name, None) for info in infos]
    _write(run_dir, [*_read(run_dir), Deletion([info.name for info in infos], 0, on_their_way)])


def end_deletion(run_dir: Path, names: Iterable[str], deletion: Deletion | None = None) -> None:
    """Keep what became of it: a deletion that can be undone, or none. ``names`` are those that it was begun with.

    Raises:
        OSError: It cannot be kept.

    """
    ended = set(names)
    kept = [each for each in _read(run_dir) if not (ended.issuperset(each.names) and each.is_on_its_way)]
    if deletion is not None and deletion.trashed:
        kept.append(deletion)
    _write(run_dir, kept)


def forget_deletion(run_dir: Path, deletion: Deletion) -> None:
    """Forget a deletion that was undone.

    Raises:
        OSError: It cannot be forgotten.

    """
    _write(run_dir, [each for each in _read(run_dir) if each != deletion])


def _read(run_dir: Path) -> list[Deletion]:
    record = _record_of(run_dir)
    try:
        return _DELETIONS.validate_json(record.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise OSError(
            f"{record} is damaged, which tells where in the system's trash lies what was deleted from {run_dir.name}. "
            "Delete that file; what lies in the trash can be put back from there."
        ) from error


def _write(run_dir: Path, deletions: list[Deletion]) -> None:
    record = _record_of(run_dir)
    if not deletions:
        record.unlink(missing_ok=True)
        return
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        draft = record.with_suffix(f".{os.getpid()}")
        draft.write_bytes(_DELETIONS.dump_json(deletions))
        draft.replace(record)
    except OSError as error:
        raise OSError(
            f"Cannot note in {record.parent} what is deleted, so that it can be undone: {error.strerror}. Mend that, "
            "and try again."
        ) from error


def _is_in_trash(each: Trashed) -> bool:
    # A trash gives a name again that has become free: another file there may have it by now.
    return each.trashed is not None and not each.path.exists() and trash.size_of(each.trashed) == each.info.size_bytes


def _record_of(run_dir: Path) -> Path:
    name = hashlib.sha256(os.fsencode(run_dir.resolve())).hexdigest()[:16]
    return platformdirs.user_data_path("thaw") / "deleted" / f"{name}.json"
