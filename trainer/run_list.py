"""The runs under a folder: list them, find the one that is meant, and see whether one could be made."""

from __future__ import annotations

import tempfile
from pathlib import Path

from trainer.messages.states import RunState
from trainer.run_record import RunFolderError, RunListing
from trainer.runs import RunFolder, created_at


def find_run(run: str, runs_dir: Path) -> Path:
    """Return the folder that a user means: a path, or a unique piece of a name under ``runs_dir``, or "last".

    Raises:
        RunFolderError: There is none, or there are several.

    """
    given = Path(run).expanduser()
    if given.is_dir() and (given / "run.db").is_file():
        return given
    names = sorted(p for p in runs_dir.iterdir() if (p / "run.db").is_file()) if runs_dir.is_dir() else []
    if run == "last" and names:
        return names[-1]
    found = [path for path in names if path.name == run] or [path for path in names if run in path.name]
    if len(found) == 1:
        return found[0]
    if not names:
        raise RunFolderError(f"There are no runs in {runs_dir} yet, and {run} is no run's folder. Begin one first.")
    count = "No run" if not found else f"{len(found)} runs"
    raise RunFolderError(
        f"{count} named {run!r} in {runs_dir}. `thaw runs` lists them; give the folder's path or its whole name."
    )


def list_runs(runs_dir: Path) -> list[RunListing]:
    """List the runs under a folder, newest first. A damaged one is listed with its problem, never hidden."""
    if not runs_dir.is_dir():
        return []
    listings = []
    for path in sorted(runs_dir.iterdir(), reverse=True):
        if not (path / "run.db").is_file():
            continue
        try:
            with RunFolder(path, read_only=True) as folder:
                listings.append(folder.listing())
        except ValueError as error:
            listings.append(_damaged_listing(path, str(error)))
    return listings


def runs_on(device: str, runs_dir: Path) -> list[str]:
    """Name the runs under a folder that a living worker trains, or is about to, on a device ("cuda:0")."""
    live = [run.path for run in list_runs(runs_dir) if run.is_live]
    return [path.name for path in live if _device_of(path) == device]


def _device_of(path: Path) -> str:
    with RunFolder(path, read_only=True) as folder:
        info = folder.run_info()
        # Until it is prepared, only what it asks for is known.
        device = info.device if info is not None else folder.config().training.device
    return "cuda:0" if device in {"auto", "cuda"} else device


def check_writable(runs_dir: Path) -> None:
    """Make the folder of the runs if need be, before hours go into a run that could not be kept there.

    Raises:
        RunFolderError: It cannot be made or written.

    """
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs_dir):
            pass
    except OSError as error:
        raise RunFolderError(
            f"Cannot write to {runs_dir}: {error.strerror}. Choose a folder for the runs that you can write to."
        ) from error


def _damaged_listing(path: Path, problem: str) -> RunListing:
    return RunListing(path, path.name, "", RunState.FAILED, False, False, 0, 0, 0, None, created_at(path), problem)
