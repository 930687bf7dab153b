"""Saves under a file system whose n-th call fails, for each n, and prints what was left: run by test_every_call.

It runs in a process of its own, into which ``failing_calls.c`` is loaded; each save is made in a fork of that.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.checkpoints import CheckpointError, CheckpointStore
from trainer.config import RunConfig, load_config
from trainer.data.loader import ImageData
from trainer.data.scan import scan
from trainer.loop import Trainer
from trainer.messages.events import LogWritten
from trainer.messages.run_info import CheckpointInfo, Series
from trainer.models import build_model
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder

MODES = {"once": 1, "full": 2, "kill": 3}


def main() -> None:
    """Save once for each call, with the failure that the arguments name, until a save needs fewer calls than that."""
    library, config_path, folder, mode = sys.argv[1:]
    faults = ctypes.CDLL(library)
    faults.faults_last.restype = ctypes.c_char_p
    work = Path(folder)
    trainer = make_trainer(load_config(Path(config_path)), work)
    before = work / "before"
    for n in range(1, 10_000):
        run_dir = work / f"{n:04d}"
        shutil.copytree(before, run_dir)
        attempt = _save_in_fork(faults, trainer, run_dir, mode, n)
        print(json.dumps({"n": n, **attempt, **look(trainer, run_dir)}), flush=True)  # noqa: T201
        shutil.rmtree(run_dir)
        if attempt["counted"] < n and not attempt["was_killed"]:
            return


def make_trainer(config: RunConfig, work: Path) -> Trainer:
    """Make a trainer, and in "before" the folder of a run of one step with one checkpoint."""
    scanned = scan(config.data, config.training.seed, work / "cache", lambda *_: None, lambda: None)
    loaded = build_model(
        config.model, len(scanned.class_names), 7, config.data.image_size, lambda *_: None, lambda: None
    )
    data = ImageData(config.data, config.training, loaded.preprocessing, scanned)
    trainer = Trainer(config, loaded, data, torch.device("cpu"), lambda _: None)
    with contextlib.closing(RunFolder.create(work / "runs", config)) as folder:
        trainer.begin(folder)
        train_a_step(trainer)
        trainer.save(reason="user")
        folder.path.rename(work / "before")
    return trainer


def train_a_step(trainer: Trainer) -> None:
    """Make the update that comes next."""
    loaded = trainer.features.train_batches(trainer.epoch, trainer.batch)
    trainer.train_step(trainer.take_batches(loaded))


def save(trainer: Trainer, folder: RunFolder) -> CheckpointInfo:
    """Write all that a save and the events around it write."""
    info = trainer.save(reason="user")
    folder.add_metrics(trainer.segment, {"Loss/train": Series(steps=[trainer.step], values=[0.5])})
    folder.add_event(LogWritten(level="info", text="saved"))
    return info


@dataclass
class _Answer:
    counted: int
    last: str
    said: str


def _save_in_fork(faults: ctypes.CDLL, trainer: Trainer, run_dir: Path, mode: str, n: int) -> dict[str, Any]:
    # A fork has no other thread: the writer's begins anew in it.
    trainer._writer.finish()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.write(writing, json.dumps(vars(_save(faults, trainer, run_dir, mode, n))).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        answer = file.read()
    _, status = os.waitpid(child, 0)
    was_killed = os.WIFSIGNALED(status)
    assert was_killed or os.WEXITSTATUS(status) == 0, "the traceback is on standard error"
    empty = vars(_Answer(n, "", ""))
    return {"was_killed": was_killed, **(empty if was_killed else json.loads(answer))}


def _save(faults: ctypes.CDLL, trainer: Trainer, run_dir: Path, mode: str, n: int) -> _Answer:
    said = ""
    with contextlib.closing(RunFolder(run_dir)) as folder:
        trainer.open(folder, folder.checkpoints.resume_point())
        train_a_step(trainer)
        faults.faults_arm(MODES[mode], ctypes.c_long(n), os.fsencode(run_dir))
        try:
            save(trainer, folder)
        except (CheckpointError, RunFolderError) as error:
            said = str(error)
        if mode == "kill":
            # Closing the last connection to run.db writes, too.
            folder.close()
        counted = faults.faults_counted()
        faults.faults_disarm()
        if said:
            # As the worker does when the run goes on.
            save(trainer, folder)
        return _Answer(counted, faults.faults_last().decode(), said)


def look(trainer: Trainer, run_dir: Path) -> dict[str, Any]:
    """Load every checkpoint that the run lists, go on with it, and save once more, at a step that has none."""
    with contextlib.closing(RunFolder(run_dir)) as folder:
        store = CheckpointStore(folder)
        listed = [(info, store.load(info)) for info in folder.checkpoints.listed()]
        trainer.open(folder, folder.checkpoints.resume_point())
        resumed_at = trainer.step
        # Of what was not listed, one may be of the next step.
        train_a_step(trainer)
        train_a_step(trainer)
        last = save(trainer, folder)
        store.load(last)
        files = {file.name for file in folder.checkpoints_dir.iterdir()}
        unlisted = files - {info.name for info in folder.checkpoints.listed()}
    return {
        "steps": [content["step"] for _, content in listed],
        "are_whole": all(info.step == content["step"] for info, content in listed),
        "resumed_at": resumed_at,
        "unlisted": sorted(unlisted),
    }


if __name__ == "__main__":
    main()
