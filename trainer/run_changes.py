"""What of a run is another one by now than when it was last prepared, so that it would not go on as it was."""

from __future__ import annotations

from pathlib import Path

from trainer.checkpoints import hash_file
from trainer.data.kept_split import changes_since
from trainer.data.scan import ScannedData
from trainer.environment import differences, environment
from trainer.loop import Trainer
from trainer.messages.run_info import RunInfo
from trainer.runs import RunFolder


class RunChanged(ValueError):  # noqa: N818 (it can go on all the same)
    """A run would not go on as it was; ``changes`` say what is another one by now."""

    def __init__(self, name: str, changes: list[str]) -> None:
        super().__init__(
            f"{name} would not go on exactly as it was, because something has changed since: {'; '.join(changes)}. "
            "Put back what it was, or resume anyway."
        )
        self.changes = changes


def find_changes(trainer: Trainer, scanned: ScannedData, folder: RunFolder, earlier: RunInfo | None) -> list[str]:
    """Say what is not as it was when the run was last prepared; nothing of a run that did not note that."""
    if earlier is None or earlier.class_names != trainer.data.class_names:
        # Another model's data: no checkpoint can be put back, and that is said then.
        return []
    changes = differences(earlier.made_with, environment(trainer.device, trainer.compute))
    # A branch of an earlier Thaw names a file that it has never read.
    path = Path("" if trainer.config.branch is not None else trainer.config.model.weights_file)
    if earlier.weights_sha256 and path.is_file() and hash_file(path) != earlier.weights_sha256:
        changes.insert(0, f"{path.name} holds other weights (the run goes on with its own)")
    if earlier.data_fingerprint not in {"", *trainer.data.fingerprints}:
        changes[:0] = changes_since(folder.path, scanned) or ["its images are not those that it last went on with"]
    return changes


def sha256_of(file: str) -> str:
    """Return the SHA-256 of a file, "" where there is none."""
    return hash_file(Path(file)) if file and Path(file).is_file() else ""
