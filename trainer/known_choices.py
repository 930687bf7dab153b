"""What was measured of how to compute a run, kept for a day: one that computes the same is computed alike, at once."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from trainer.environment import device_text, versions
from trainer.live_run import LiveRun
from trainer.messages.compute import ComputeChoice

KEPT_S = 24 * 3600.0
"""By then the machine may have other work, and be as fast in another form."""

_OF_TRAINING = {
    "batch_size",
    "accumulate_batches",
    "precision",
    "channels_last",
    "compile",
    "deterministic",
    "num_threads",
}
"""Of a rate, a seed or a patience no step takes longer: runs that are to be compared are computed alike."""


class KnownChoices:
    """The choices of this machine, a file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> ComputeChoice | None:
        """Return what was chosen under a key, None where that is not known or too long ago."""
        path = self._path(key)
        try:
            return ComputeChoice.model_validate_json(path.read_bytes()) if _is_fresh(path) else None
        except (OSError, ValidationError):
            # Not kept, or by another Thaw: it is measured.
            return None

    def keep(self, key: str, choice: ComputeChoice) -> None:
        """Keep what was chosen under a key."""
        path = self._path(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        # Where it cannot be kept, the next run measures again.
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(choice.model_dump_json())
            temporary.replace(path)
            for other in self._folder.iterdir():
                if not _is_fresh(other):
                    other.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _is_fresh(path: Path) -> bool:
    # The clock may have been set back.
    return 0 <= time.time() - path.stat().st_mtime <= KEPT_S


def choice_key(run: LiveRun, num_threads: int) -> str:
    """Name all on which a choice for a run depends, with the most threads that the CPU has for it.

    Of the run's length that is its order, and whether some of it may be read in place of computed, as a long one has
    more time to measure.
    """
    config = run.config
    said = [
        platform.node(),
        versions(),
        device_text(run.device),
        config.training.num_threads or num_threads,
        config.model.model_dump(mode="json", exclude={"weights"}),
        config.training.model_dump(mode="json", include=_OF_TRAINING),
        config.optimizer.name,
        config.data.num_outputs(len(run.data.class_names)),
        str(run.data.preprocessing),
        run.total_steps.bit_length(),
        [config.training.feature_cache, config.data.fixed_views, bool(config.plan)],
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]
