"""Preparing a run in this process, without a worker."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from trainer.config import ConfigError, DataConfig, RunConfig
from trainer.preparation import Preparation
from trainer.run_record import WorkerAddress
from trainer.runs import RunFolder


def test_a_run_whose_data_are_gone_says_what_to_do_before_it_goes_on(tmp_path: Path) -> None:
    gone = tmp_path / "digits"
    config = RunConfig(data=DataConfig(path=str(gone)))
    with RunFolder.create(tmp_path / "runs", config) as folder:
        run_dir = folder.path
    here = psutil.Process()
    worker = WorkerAddress("nowhere", b"", here.pid, here.create_time())
    preparation = Preparation(worker, lambda _: None, lambda *_: None, lambda: None)
    with pytest.raises(ConfigError) as refused:
        preparation.open(run_dir, None, is_to_start=True)
    sentence = str(refused.value)
    assert sentence.startswith(f"{run_dir.name} cannot go on without its data. There is no file or folder {gone}.")
    assert sentence.endswith("Put the data back where they were and resume again, or begin a new run with others.")
    assert refused.value.field == "data.path"
    assert not (run_dir / "worker.json").exists()
