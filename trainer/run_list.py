"""The runs under a folder: list them, find the one that is meant, and see whether one could be made."""

from __future__ import annotations

import tempfile
from pathlib import Path

from trainer.config import BranchConfig, RunConfig
from trainer.messages.run_info import CheckpointInfo
from trainer.messages.states import RunState
from trainer.run_record import RunCheckpoints, RunFolderError, RunListing
from trainer.runs import RunFolder, created_at


def find_run(run: str, runs_dir: Path) -> Path:
    """Return the folder that a user means: a path, or a unique piece of a name under ``runs_dir``, or "last".

    Raises:
        RunFolderError: There is none, or there are several.

    """
    given = Path(run).expanduser()
    if given.is_dir() and (given / "run.db").is_file():
        return given
    names = sorted(_run_dirs(runs_dir))
    if run == "last" and names:
        return names[-1]
    found = [path for path in names if path.name == run] or [path for path in names if run in path.name]
    if len(found) == 1:
        return found[0]
    if not found and run != "last":
        _check_is_run(run, given if given.is_dir() else runs_dir / run)
    if not names:
        raise RunFolderError(f"There are no runs in {runs_dir} yet, and {run} is no run's folder. Begin one first.")
    count = "No run" if not found else f"{len(found)} runs"
    raise RunFolderError(
        f"{count} named {run!r} in {runs_dir}. `thaw runs` lists them; give the folder's path or its whole name."
    )


def _check_is_run(run: str, folder: Path) -> None:
    """Refuse what a user may have meant as a folder's path, and what is in a folder without being a run."""
    advice = "`thaw runs` lists the runs; give the path or the name of one."
    if folder.is_dir():
        raise RunFolderError(f"{folder} is no run's folder, for there is no run.db in it. {advice}")
    if Path(run).name != run:
        raise RunFolderError(f"There is no folder {Path(run).expanduser()}. {advice}")


def list_runs(runs_dir: Path) -> list[RunListing]:
    """List the runs under a folder, newest first. A damaged one is listed with its problem, never hidden."""
    listings = []
    for path in sorted(_run_dirs(runs_dir), reverse=True):
        try:
            with RunFolder(path, read_only=True) as folder:
                listings.append(folder.listing())
        except ValueError as error:
            listings.append(_damaged_listing(path, str(error)))
    return listings


def read_checkpoints(runs_dir: Path, relatives_of: Path | None = None) -> list[RunCheckpoints]:
    """Read the checkpoints of the runs under a folder, newest run first.

    Args:
        runs_dir: The folder. A damaged run in it says why it is, and does not keep the others from being read.
        relatives_of: Only this run, those above it, and its branches; None for all runs.

    """
    paths = sorted(_run_dirs(runs_dir), reverse=True)
    if relatives_of is not None:
        names = _relatives(relatives_of.name, {path.name: _parent_name(path) for path in paths})
        paths = [path for path in paths if path.name in names]
    # One that was deleted meanwhile is not damaged.
    return [found for path in paths if not (found := _checkpoints_of(path)).damage or (path / "run.db").is_file()]


def _run_dirs(runs_dir: Path) -> list[Path]:
    return [path for path in runs_dir.iterdir() if (path / "run.db").is_file()] if runs_dir.is_dir() else []


def _parent_name(path: Path) -> str:
    try:
        with RunFolder(path, read_only=True) as folder:
            branch = folder.config().branch
    except (ValueError, OSError):
        # Whose branch it is cannot be told.
        return ""
    return "" if branch is None else Path(branch.run).name


def _relatives(name: str, parents: dict[str, str]) -> set[str]:
    """Return the run, all above it, and all below it; ``parents`` are names, as a moved folder keeps them."""
    found = {name}
    above = parents.get(name, "")
    while above and above not in found:
        found.add(above)
        above = parents.get(above, "")
    below = {name}
    while below:
        below = {each for each, parent in parents.items() if parent in below} - found
        found |= below
    return found


def _checkpoints_of(path: Path) -> RunCheckpoints:
    try:
        with RunFolder(path, read_only=True) as folder:
            listed = folder.checkpoints.listed()
            problems = {info.name: problem for info in listed if (problem := folder.checkpoints.problem_of(info))}
            point = folder.checkpoints.resume_point(listed)
            seen = hash(tuple(info.model_dump_json() for info in listed))
            return RunCheckpoints(
                path,
                folder.config(),
                folder.best_metric(),
                listed,
                problems,
                left_behind=folder.checkpoints.left_behind(listed),
                resume_point=None if point is None else point.name,
                fingerprint=seen,
            )
    except (ValueError, OSError) as error:
        return RunCheckpoints(path, None, damage=str(error))


def by_branch(runs: list[RunListing]) -> list[tuple[RunListing, int]]:
    """Return runs with the number of runs above each in its tree: each run, then its branches, and their branches.

    What comes first of the runs as they are given brings its whole tree along, so that the tree of the newest run is
    the first. A run whose parent is not among them begins a tree.
    """
    # A folder that was moved with all its runs still has the parent in it, under its name.
    by_name = {run.path.name: run for run in runs}
    below: dict[str, dict[str, None]] = {}
    for run in runs:
        name, passed = run.path.name, set[str]()
        while name and name not in passed:
            passed.add(name)
            parent = by_name[name].parent
            above = parent.name if parent is not None and parent.name in by_name else ""
            below.setdefault(above, {})[name] = None
            name = above
    found: list[tuple[RunListing, int]] = []
    to_come = [(name, 0) for name in reversed(below.get("", {}))]
    while to_come:
        name, depth = to_come.pop()
        found.append((by_name[name], depth))
        to_come.extend((branch, depth + 1) for branch in reversed(below.get(name, {})))
    placed = {run.path.name for run, _ in found}
    # Two that name each other as parents, by an edited file, are shown all the same.
    return found + [(run, 0) for run in runs if run.path.name not in placed]


def rails(depths: list[int]) -> list[tuple[bool, ...]]:
    """Return for each row which of the lines beside it go on below, by how deep in their trees the rows are."""
    found: list[tuple[bool, ...]] = []
    going_on: set[int] = set()
    for depth in reversed(depths):
        found.append(tuple(level in going_on for level in range(1, depth + 1)))
        going_on = {level for level in going_on if level < depth} | {depth}
    return found[::-1]


def branch_config(config: RunConfig, run_dir: Path, checkpoint: CheckpointInfo) -> RunConfig:
    """Return the configuration of a branch that goes on as the run is at a checkpoint.

    What is frozen, adapts and has a rate of its own is as it is there. A plan counts from a run's start, and is left
    out.
    """
    model: dict[str, object] = {"frozen": checkpoint.frozen}
    if checkpoint.adapting is not None:
        # By name: a run whose statistics all adapt may have had some of them frozen since.
        model |= {"batchnorm": "frozen", "adapting": checkpoint.adapting}
    rates = {} if checkpoint.multipliers is None else {"multipliers": checkpoint.multipliers}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update=model),
            "optimizer": config.optimizer.model_copy(update=rates),
            "plan": [],
            "branch": BranchConfig(run=str(run_dir.absolute()), checkpoint=checkpoint.name),
        }
    )


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
