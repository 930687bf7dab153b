"""``thaw export``: a process of its own writes what others can use, and says in a sentence where it cannot."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli import main
from app.errand_process import ErrandProcess
from app.worker_talk import RunFailedError
from tests.trainer.recorded_runs import record_small_run
from tests.trainer.test_export_bundle import assert_repeats
from trainer.config import config_to_toml
from trainer.messages.errands import AnyErrandEvent
from trainer.messages.events import CommandRejected, PreparationProgressed
from trainer.messages.export import CheckpointExported, ExportCheckpoint
from trainer.run_list import find_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_small_run(tmp_path_factory.mktemp("run"))


def asked(run_dir: Path, to: Path) -> ExportCheckpoint:
    return ExportCheckpoint(run_dir=str(run_dir), checkpoint="last", to=str(to), command_id="3")


def until_writing(events: Iterator[AnyErrandEvent]) -> None:
    """Read events up to the one that says that the file is written."""
    for event in events:
        if isinstance(event, PreparationProgressed) and event.what.startswith("Writing"):
            return
    pytest.fail("nothing came of it")


def test_export_prints_the_file_its_size_and_how_its_outputs_compare(run_dir, tmp_path, capsys):
    to = tmp_path / "model.safetensors"
    assert main(["export", str(run_dir), "best", "--to", str(to)]) == 0
    out = capsys.readouterr().out
    assert "is exported to" in out
    assert "model.safetensors.json" in out
    assert "equal the run's to the bit, on 9 validation images." in out

    assert main(["export", str(run_dir), "best", "--to", str(to)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith(f"thaw: {to} is there already. Choose another name")
    assert main(["export", str(run_dir), "best", "--to", str(to), "--overwrite", "--json"]) == 0
    exported = CheckpointExported.model_validate(json.loads(capsys.readouterr().out))
    assert exported.files["model.safetensors"] == to.stat().st_size

    assert main(["export", str(run_dir), "best", "--to", str(tmp_path / "model.pkl"), "--format", "pickle"]) == 0
    assert "Loading it executes code from the file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["best", "--to", "a.h5"], "The ending of a.h5 says no format"),
        (["best", "--to", "a.pt", "--format", "onnx"], "A file of the format onnx ends in .onnx, but a.pt does not"),
        (["best", "--to", "a.pt", "--format", "h5"], "Invalid value for '--format': 'h5' is not one of 'pt', 'course'"),
        (["best", "--to", "/", "--format", "pt"], "The path / ends in no name of a file or bundle. Add one to it."),
        (["best", "--to", "/", "--bundle"], "The path / ends in no name of a file or bundle. Add one to it."),
        (["best", "--to", "."], "The path . ends in no name of a file or bundle. Add one to it."),
        (["best", "--to", ""], "The path . ends in no name of a file or bundle. Add one to it."),
        (["epoch7", "--to", "a.pt"], "no checkpoint named 'epoch7'"),
        (["best", "--to", "b", "--bundle", "--format", "pt"], "A bundle has formats of its own"),
        (["best"], "--to"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence_and_exit_code_2(
    run_dir, tmp_path, monkeypatch, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    with contextlib.chdir(tmp_path):
        assert main(["export", str(run_dir), *arguments]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_is_cancelled_or_killed_leaves_no_file_under_its_name(run_dir, tmp_path):
    with ErrandProcess(asked(run_dir, tmp_path / "model.onnx")) as process:
        until_writing(process.events())
    assert list(tmp_path.iterdir()) == []

    with ErrandProcess(asked(run_dir, tmp_path / "model.onnx")) as process:
        events = process.events()
        until_writing(events)
        process._process.send_signal(signal.SIGKILL)
        with pytest.raises(RunFailedError, match="was killed by signal 9; nothing came of it"):
            list(events)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_a_refusal_comes_as_an_event_for_who_asked(run_dir, tmp_path):
    with ErrandProcess(asked(run_dir, tmp_path / "nowhere" / "model.pt")) as process:
        *progress, last = process.events()
    assert all(isinstance(event, PreparationProgressed) for event in progress)
    assert isinstance(last, CommandRejected)
    assert (last.command, last.command_id) == ("ExportCheckpoint", "3")
    assert "There is no folder" in last.reason


def test_what_a_worker_trained_is_bundled_and_repeated_without_it(small_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THAW_RUNS")
    training = small_config.training.model_copy(update={"epochs": 25})
    (tmp_path / "run.toml").write_text(config_to_toml(small_config.model_copy(update={"training": training})))
    assert main(["train", "run.toml"]) == 0
    assert main(["export", "last", "last", "--to", "shared.zip", "--bundle"]) == 0
    assert main(["export", "last", "last", "--to", "shared", "--bundle"]) == 0
    assert "train.py" in capsys.readouterr().out
    assert_repeats(find_run("last", tmp_path / "runs"), tmp_path / "shared")
