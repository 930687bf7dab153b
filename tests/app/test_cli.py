import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Listener
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from rich.console import Console

from app import cli, cli_reports, cli_steering, cli_what_if, display
from app.cli import main
from app.data_listings import MAX_ISSUES_SHOWN, issues_table, need_sentence
from app.display import display_problem
from trainer.config import BranchConfig, DataConfig, RunConfig, load_config
from trainer.data.images import DataError
from trainer.data.scan import scan
from trainer.data.sources import read_source
from trainer.data_report import IssueKind, ReportedImage, ReportedIssue, write_report
from trainer.frames import decode_command, encode
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    TrainingChanged,
)
from trainer.messages.data_info import DataSummary
from trainer.messages.events import (
    CheckpointSaved,
    CommandRejected,
    DataChecked,
    FeaturesCached,
    ProgressReported,
    RateFound,
    RunPrepared,
    StateChanged,
    WorkerAttached,
)
from trainer.messages.replay import Replay, ResumeVerified, StepDifference
from trainer.messages.run_info import CheckpointInfo, ConfusionMatrix, RateCurve, RunEstimate, Series
from trainer.messages.states import RunState
from trainer.messages.what_if import ChangeTried, TriedBranch
from trainer.run_record import WorkerAddress
from trainer.runs import RunFolder

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parent.parent)}


@pytest.fixture
def runs_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THAW_RUNS", raising=False)
    return tmp_path / "runs"


@pytest.fixture
def run_folder(runs_dir):
    with RunFolder.create(runs_dir, RunConfig(name="digits")) as folder:
        folder.begin_segment(0, None, time.time())
        folder.add_metrics(0, {"Loss/train": Series(steps=[1, 2], values=[2.5, 2.25])})
        folder.add_event(StateChanged(state=RunState.RUNNING))
        for epoch, accuracy in enumerate([0.5, 0.9, 0.8], start=1):
            info = checkpoint_info(epoch, accuracy)
            (folder.checkpoints_dir / info.name).write_bytes(b"x" * info.size_bytes)
            folder.checkpoints.add(info)
        yield folder


def checkpoint_info(epoch, accuracy):
    return CheckpointInfo(
        name=f"checkpoint_{epoch}.pt",
        epoch=epoch,
        step=epoch * 10,
        loss=1 - accuracy,
        accuracy=accuracy,
        frozen=["conv1"],
        frozen_summary="backbone",
        size_bytes=1000 + epoch,
        sha256="",
        saved_at=float(epoch),
        reason="epoch",
        segment=0,
    )


class ScriptedWorker:
    """Serves a run folder over a real socket, in this process: answers each command as ``script`` says."""

    def __init__(self, folder, socket_path, script, state=RunState.RUNNING, greeting=()):
        self.commands = queue.SimpleQueue()
        self._listener = Listener(str(socket_path), family="AF_UNIX", authkey=b"key")
        self._script = script
        self._greeting = [
            WorkerAttached(state=state, pid=os.getpid(), torch_version="", devices=["cpu"]),
            *greeting,
        ]
        process = psutil.Process()
        folder.claim(WorkerAddress(str(socket_path), b"key", process.pid, process.create_time()))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        with self._listener, self._listener.accept() as connection:
            for event in self._greeting:
                connection.send_bytes(encode(event, 1))
            if self._script is None:
                return
            try:
                while True:
                    _, command = decode_command(connection.recv_bytes())
                    self.commands.put(command)
                    for event in self._script(command):
                        connection.send_bytes(encode(event, 2))
            except EOFError:
                return


@pytest.fixture
def scripted_worker(run_folder, tmp_path):
    return lambda script, **options: ScriptedWorker(run_folder, tmp_path / "s", script, **options)


# -- the user's input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train"], "thaw: Missing argument 'CONFIG.toml'. See `thaw train --help`."),
        (["trian"], "thaw: No such command 'trian'"),
        (["run"], "thaw: No such command 'run'. Did you mean 'runs'? See `thaw --help`."),
        (["runs", "--colour"], "thaw: No such option: --colour"),
        (["demo", "--epochs", "0"], "thaw: Invalid value for '--epochs'"),
        (["batchnorm", "digits", "off"], "thaw: Invalid value for 'frozen|adapting': 'off' is not one of 'frozen',"),
        (["train", "none.toml"], "thaw: Cannot read the configuration none.toml: No such file or directory."),
        (["train", "bad.toml"], "training.epochs is 'many'"),
        (["train", "gone.toml"], "thaw: There is no file or folder "),
        (["status", "nothing"], "thaw: No run named 'nothing' in "),
        (["checkpoints", "nothing"], "thaw: No run named 'nothing' in "),
        (["status", "empty"], "thaw: empty is no run's folder, for there is no run.db in it. `thaw runs` lists"),
        (["resume", "/gone"], "thaw: There is no folder /gone. `thaw runs` lists the runs; give the path or the name"),
        (["confusion", "digits"], "has no confusion matrix: it comes with the validation at the end of an epoch."),
        (
            ["confusion", "digits", "--of", "epoch 3"],
            "no confusion matrix of 'epoch 3'. Use one of: best, latest, test.",
        ),
        (["resume", "digits", "--from", "nothing"], "has no checkpoint named 'nothing'"),
        (["restore", "digits", "checkpoint"], "has 3 checkpoints named 'checkpoint'"),
        (["freeze", "digits", "head"], "is not running: no worker serves it."),
        (["runs", "nowhere"], "thaw: There is no folder nowhere."),
    ],
)
def test_wrong_input_gets_one_sentence_and_exit_code_2(arguments, sentence, run_folder, capsys):
    Path("photos.zip").touch()
    Path("bad.toml").write_text('[data]\npath = "photos.zip"\n[training]\nepochs = "many"\n')
    Path("gone.toml").write_text('[data]\npath = "gone"\n')
    Path("empty").mkdir()
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize("command", [["status"], ["checkpoints", "last"], ["freeze", "last", "fc"], ["resume", "last"]])
def test_without_any_run_a_command_says_that_there_are_none_yet(runs_dir, command, capsys):
    assert main(command) == 2
    assert f"thaw: There are no runs in {runs_dir} yet" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--from", "last"], ["--from", "10"]])
def test_resume_of_a_finished_run_names_the_way_from_an_earlier_checkpoint(run_folder, options, capsys):
    run_folder.checkpoints.add(checkpoint_info(10, 0.7))
    assert main(["resume", "last", *options]) == 2
    error = capsys.readouterr().err
    assert "has finished its 10 epochs: there is nothing to resume." in error
    assert f"`thaw resume runs/{run_folder.path.name} --from CHECKPOINT`" in error
    assert f"`thaw resume runs/{run_folder.path.name} --epochs N`" in error


def test_resume_refuses_fewer_epochs_than_are_behind_the_run(run_folder, capsys):
    run_folder.checkpoints.add(checkpoint_info(10, 0.7))
    assert main(["resume", "last", "--epochs", "10"]) == 2
    assert "has 10 epochs behind it there, so that it cannot end after 10 epochs. Choose 11 or more." in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("difference", "later", "causes", "code", "said"),
    [
        (
            None,
            "b.pt",
            [],
            0,
            "a.pt, made again from step 40 on: exact over 20 steps. All that was measured is equal to the bit, and so "
            "are the weights of b.pt.\n",
        ),
        (
            None,
            "",
            ["torch 2.14.0 → 2.15.0"],
            0,
            "exact over 20 steps. All that was measured is equal to the bit.\nThat is so although: torch 2.14.0 → "
            "2.15.0.\n",
        ),
        (
            StepDifference(step=43, what="Loss/train", recorded=0.5, replayed=0.625, difference=0.125),
            "b.pt",
            ["1 image changed", "threads 1 → 2"],
            1,
            "differs first at step 43, number 3 of 20: Loss/train was 0.5 and is 0.625, 0.125 apart.\n"
            "Likely cause: 1 image changed; threads 1 → 2.\n",
        ),
        (
            StepDifference(step=44, what="fc.bias", recorded=None, replayed=None, difference=1e-7),
            "b.pt",
            [],
            1,
            "number 4 of 20: the weights fc.bias differ by up to 1e-07.\nNo cause is known, nothing has changed since",
        ),
    ],
)
def test_verify_says_whether_a_resume_is_exact_and_if_not_why(
    run_folder, monkeypatch, capsys, difference, later, causes, code, said
):
    replay = Replay(checkpoint="a.pt", first_step=40, num_steps=20, later=later, difference=difference, causes=causes)
    asked = []

    def answer(command, _):
        asked.append(command)
        return ResumeVerified(run_dir=command.run_dir, replay=replay)

    monkeypatch.setattr(cli, "do_errand", answer)
    assert main(["resume", "last", "--verify", "--from", "1", "--steps", "20"]) == code
    assert said in capsys.readouterr().out
    name = run_folder.checkpoints.find("1").name
    assert (asked[0].run_dir, asked[0].checkpoint, asked[0].num_steps) == (str(run_folder.path), name, 20)
    assert main(["resume", "last", "--verify", "--json"]) == code
    assert json.loads(capsys.readouterr().out) == replay.model_dump(mode="json")
    # The newest checkpoint that has steps after it.
    assert asked[1].checkpoint is None


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (0.412, "the validation loss is 0.031 lower (0.412 against 0.443), at 1.8 × the time per step. That is one"),
        (0.474, "the validation loss is 0.031 higher (0.474 against 0.443)"),
        (0.443, "the validation loss is the same (0.443)"),
        (None, "there is nothing to compare: a branch has ended before."),
    ],
)
def test_what_if_says_what_a_change_made_of_the_loss_and_of_the_time(run_folder, monkeypatch, capsys, loss, said):
    asked = []

    def branch(loss, step_ms, num_trainable):
        validation = {} if loss is None else {"Accuracy/validation": 0.9, "Loss/validation": loss}
        return TriedBranch(
            steps=[41], losses=[0.5], validation=validation, step_ms=step_ms, num_trainable=num_trainable
        )

    tried = ChangeTried(
        run_dir="",
        checkpoint="a.pt",
        sentence="layer4 unfrozen",
        first_step=40,
        num_steps=50,
        start={"Accuracy/validation": 0.8, "Loss/validation": 0.6},
        unchanged=branch(0.443, 10.0, 5130),
        changed=branch(loss, 18.0, 8_400_000),
        notes=["The run ends."],
    )
    monkeypatch.setattr(cli_what_if, "do_errand", lambda command, _: asked.append(command) or tried)
    arguments = ["what-if", "last", "1", "--unfreeze", "layer4", "--unfreeze", "fc", "--rate", "0.01", "--steps", "50"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert f"After 50 steps from a.pt with layer4 unfrozen, {said}" in out
    assert "Loss/validation" in out.splitlines()[2]
    assert "The run ends." in err
    (command,) = asked
    assert [each.model_dump(exclude={"command_id", "is_exact"}) for each in command.changes] == [
        {"kind": "UnfreezeLayers", "layers": ["layer4", "fc"]},
        {"kind": "SetRate", "rate": 0.01},
    ]
    assert (command.run_dir, command.num_steps) == (str(run_folder.path), 50)
    assert command.checkpoint == run_folder.checkpoints.find("1").name
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == tried.model_dump(mode="json")


def test_what_if_tries_multipliers_and_statistics_as_the_window_does(run_folder, monkeypatch, capsys):
    asked = []

    def do_errand(command, _):
        asked.extend(each.model_dump(exclude={"command_id", "is_exact"}) for each in command.changes)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_what_if, "do_errand", do_errand)
    multipliers = ["--multiply", "layer4=0.1", "--multiply", "fc = 2"]
    assert main(["what-if", "last", "1", *multipliers, "--adapting", "layer1", "--still", "layer2"]) == 130
    assert asked == [
        {"kind": "SetRateMultiplier", "layers": ["layer4"], "multiplier": 0.1},
        {"kind": "SetRateMultiplier", "layers": ["fc"], "multiplier": 2.0},
        {"kind": "SetBatchNorm", "layers": ["layer1"], "is_adapting": True},
        {"kind": "SetBatchNorm", "layers": ["layer2"], "is_adapting": False},
    ]
    capsys.readouterr()
    for given in ("layer4", "layer4=", "layer4=fast"):
        assert main(["what-if", "last", "1", "--multiply", given]) == 2
        assert "Write it as --multiply layer4=0.1." in capsys.readouterr().err
    assert main(["what-if", "last", "1", "--multiply", "layer4=-1"]) == 2
    assert "optimizer.multipliers" in capsys.readouterr().err


def test_what_if_without_a_change_says_which_there_are(run_folder, capsys):
    assert main(["what-if", "last", "1"]) == 2
    assert "Say what is to change: --unfreeze LAYER, --freeze LAYER, --rate X, --multiply" in capsys.readouterr().err
    assert main(["what-if", "last", "1", "--rate", "0"]) == 2
    assert "optimizer.rate is 0.0, but should be greater than 0." in capsys.readouterr().err


def test_check_prints_the_first_issues_and_writes_all_of_them(tmp_path, runs_dir, monkeypatch, capsys):
    summary = DataSummary(
        layout="class_folders",
        class_names=["cat", "dog"],
        counts={"train": [3, 2], "validation": [1, 1]},
        num_skipped=2345,
        issue_counts={"unreadable": 2345},
        advice=["cat has too many images."],
    )
    issues = [
        ReportedIssue(IssueKind.UNREADABLE, "", f"{number}.png", "Not used: it is damaged.") for number in range(2345)
    ]
    write_report(tmp_path / "report.db", summary, [], issues)
    checked = DataChecked(path="", summary=summary, report_path=str(tmp_path / "report.db"))
    monkeypatch.setattr(cli_reports, "ask_worker", lambda *questions: [checked])
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    assert main(["check", "photos"]) == 0
    out = capsys.readouterr().out
    assert "class folders: 5 train, 2 validation in 2 classes, 2,345 files skipped" in out
    assert "! cat has too many images." in out
    listed = [line for line in out.splitlines() if "Not used: it is damaged." in line]
    assert [line.split()[1] for line in listed] == ["0.png", "1.png", "2.png", "…"]
    assert listed[-1].split("  ")[1].strip() == "… and 2,342 more"
    assert "`--csv FILE` writes all 2,345 of them." in out
    assert main(["check", "photos", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["issues"]) == 2345
    assert main(["check", "photos", "--csv", str(tmp_path / "issues.csv")]) == 0
    assert len((tmp_path / "issues.csv").read_text().splitlines()) == 2346


def test_check_names_a_few_of_the_files_that_are_alike_and_every_kind_up_to_its_limit(capsys):
    def issues(kind, number, sentence, start=0):
        return [ReportedIssue(kind, "", f"{name}.x", sentence) for name in range(start, start + number)]

    notes = issues(IssueKind.NOT_AN_IMAGE, 5000, "Not used: it is not an image.")
    four = issues(IssueKind.TINY, 4, "Only 1 × 1 pixels.", start=6000)
    pairs = [ReportedIssue(IssueKind.DUPLICATE, "", f"a{n}.x", "Twice in train.", "", f"b{n}.x") for n in range(6)]
    table, num_untold = issues_table([*notes, *four, *pairs])
    assert (table.row_count, num_untold) == (4 + 4 + 4, 0)
    Console(width=200).print(table)
    out = capsys.readouterr().out
    assert "not an image … and 4,997 more" in " ".join(out.split())
    assert all(f"{number}.x" in out for number in (0, 1, 2, 6000, 6001, 6002, 6003))
    assert "b2.x" in out
    assert "a3.x" not in out
    different = [
        ReportedIssue(IssueKind.LEAK, "", f"{number}.x", f"Its group {number}.")
        for number in range(MAX_ISSUES_SHOWN - 1)
    ]
    table, num_untold = issues_table([*different, *notes, *four])
    assert (table.row_count, num_untold) == (MAX_ISSUES_SHOWN + 1, 4)
    assert issues_table([*different, *four])[1] == 0, "all four of them are counted, though one alone is named"


def test_check_prints_how_many_images_have_which_size_and_shape(tmp_path, runs_dir, monkeypatch, capsys):
    summary = DataSummary(layout="class_folders", class_names=["cat", "dog"], counts={"train": [60, 61]})
    sides = [(400, 300)] * 80 + [(300, 400)] * 40 + [(30, 30)]
    images = [
        ReportedImage(f"/{number}", f"{number}", (number % 2,), "train", width, height, 1)
        for number, (width, height) in enumerate(sides)
    ]
    write_report(tmp_path / "report.db", summary, images, [])
    checked = DataChecked(path="", summary=summary, report_path=str(tmp_path / "report.db"))
    monkeypatch.setattr(cli_reports, "ask_worker", lambda *questions: [checked])
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    assert main(["check", "photos"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["25", "–", "31", "1", "▎"] in rows
    assert ["250", "–", "314", "120", "█" * 30] in rows
    assert ["3", ":", "4", "40", "█" * 15] in rows
    assert ["4", ":", "3", "80", "█" * 30] in rows
    assert main(["check", "photos", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [each for each in values["sizes"] if each["images"]] == [
        {"from": 25, "below": 32, "images": 1},
        {"from": 250, "below": 315, "images": 120},
    ]
    assert [each["images"] for each in values["shapes"]] == [40, 1, 80]


def test_check_says_that_images_have_several_classes_and_counts_each_image_once(
    tmp_path, runs_dir, monkeypatch, capsys
):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for number in range(20):
        generator = np.random.default_rng(number)
        Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    rows = [f"{number}.png,{('sea sky', 'sea', 'sky', '')[number % 4]}" for number in range(20)]
    Path("scenes/tags.csv").write_text("\n".join(["image,tags", *rows]))

    def answer(*questions):
        scanned = scan(questions[0].data, questions[0].seed, tmp_path / "cache", lambda *_: None, lambda: None)
        return [DataChecked(path="", summary=scanned.summary, report_path=str(scanned.report_path))]

    monkeypatch.setattr(cli_reports, "ask_worker", answer)
    assert main(["check", "scenes/tags.csv", "--label-separator", "space"]) == 0
    out = capsys.readouterr().out
    assert "! 5 images have no class:" in out
    assert main(["check", "scenes/tags.csv", "--label-separator", "space", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["class_counts"] == {"sea": 10, "sky": 10}
    train, validation = values["num_images"]["train"], values["num_images"]["validation"]
    assert train + validation == 20
    counts = f"table: {train} train, {validation} validation in 2 classes"
    assert f"{counts}, several to an image (task multi_label), 0 files skipped" in out
    assert main(["check", "scenes/tags.csv", "--label-separator", "dash"]) == 2
    assert capsys.readouterr().err.startswith("thaw: --label-separator is 'dash', but should be 'auto', 'none', ';'")


def test_check_says_what_its_path_leads_to_without_a_worker(runs_dir, monkeypatch, capsys):
    def start():
        raise AssertionError("a worker would load torch first")

    monkeypatch.setattr(cli_reports.WorkerClient, "start", start)
    Path("notes.txt").write_text("hello")
    Path("empty").mkdir()
    Path("run.toml").write_text('[data]\npath = "gone"\n')
    for given, path in (("nowhere", "nowhere"), ("notes.txt", "notes.txt"), ("empty", "empty"), ("run.toml", "gone")):
        with pytest.raises(ValueError, match=path) as said_by_worker:
            read_source(DataConfig(path=str(Path(path).absolute())), Path(), lambda *_: None, lambda: None)
        assert main(["check", given]) == 2
        assert capsys.readouterr().err == f"thaw: {said_by_worker.value}\n"
    Path("locked").mkdir(mode=0)
    if not os.access("locked", os.R_OK):
        assert main(["check", "locked"]) == 2
        assert "Cannot read the folder" in capsys.readouterr().err


def test_check_says_that_the_csv_cannot_be_written_before_it_looks_at_an_image(runs_dir, monkeypatch, capsys):
    def start():
        raise AssertionError("the check would be for nothing")

    monkeypatch.setattr(cli_reports.WorkerClient, "start", start)
    Path("photos/cat").mkdir(parents=True)
    Path("birds.csv").write_text("path,label\n")
    os.mkfifo("pipe")
    before = sorted(Path.cwd().rglob("*"))
    for data, given, sentence in (
        ("photos", "missing/issues.csv", "Cannot write missing/issues.csv: No such file or directory. Choose another"),
        ("photos", "birds.csv/issues.csv", "Cannot write birds.csv/issues.csv: Not a directory. Choose another folder"),
        ("photos", "photos", "Cannot write photos: it is a folder. Choose the name of a new file."),
        ("photos", "pipe", "Cannot write pipe: it is no plain file. Choose the name of a new file."),
        ("birds.csv", "birds.csv", "birds.csv is the data set itself. Choose another file for the issues."),
    ):
        assert main(["check", data, "--csv", given]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(f"thaw: {sentence}")
        assert (printed.err.count("\n"), printed.out) == (1, "")
    Path("locked").mkdir(mode=0o500)
    if not os.access("locked", os.W_OK):
        assert main(["check", "photos", "--csv", "locked/issues.csv"]) == 2
        assert "Cannot write locked/issues.csv: Permission denied." in capsys.readouterr().err
    Path("locked").rmdir()
    assert sorted(Path.cwd().rglob("*")) == before
    assert Path("birds.csv").read_text() == "path,label\n"


def test_check_prints_its_report_also_where_no_trial_was_made(tmp_path, runs_dir, monkeypatch, capsys):
    summary = DataSummary(
        layout="class_folders", class_names=["cat", "dog"], counts={"train": [3, 2], "validation": [1, 1]}
    )
    write_report(tmp_path / "report.db", summary, [], [])

    def answer(client, questions, show):
        assert [question.kind for question in questions] == ["CheckData", "EstimateRun"]
        checked = DataChecked(path="photos", summary=summary, report_path=str(tmp_path / "report.db"))
        return [checked, CommandRejected(command="EstimateRun", reason="The GPU is busy.")]

    monkeypatch.setattr(cli_reports.WorkerClient, "start", lambda: None)
    monkeypatch.setattr(cli_reports, "ask", answer)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "run.toml").write_text('[data]\npath = "photos"\n')
    assert main(["check", "run.toml"]) == 2
    printed = capsys.readouterr()
    assert "class folders: 5 train, 2 validation in 2 classes" in printed.out
    assert printed.err == "thaw: The GPU is busy.\n"
    assert main(["check", "run.toml", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["need"] is None


def test_check_names_an_option_that_cannot_be(runs_dir, capsys):
    assert main(["check", "photos", "--layout", "pile"]) == 2
    assert capsys.readouterr().err.startswith("thaw: --layout is 'pile', but should be 'auto', ")
    assert main(["check", "photos", "--validation-fraction", "3"]) == 2
    assert capsys.readouterr().err.startswith("thaw: --validation-fraction is 3.0, but should be less than 1.")


@pytest.mark.parametrize("given", ["birds.csv", "run.toml"])
@pytest.mark.parametrize(
    ("table", "field", "option"),
    [
        ("path,species\n1.png,jay\n", "data.label_column", "--label-column"),
        ("photo,label\n1.png,jay\n", "data.path_column", "--path-column"),
        ("path,label,split\n1.png,jay,autumn\n", "data.split_column", "--split-column"),
        ("path,label\n1.png,jay;owl\n2.png,jay|tit\n", "data.label_separator", "--label-separator"),
    ],
)
def test_check_names_the_option_or_the_field_for_a_column_that_it_misses(
    runs_dir, monkeypatch, capsys, given, table, field, option
):
    Path("birds.csv").write_text(table)
    Path("run.toml").write_text('[data]\npath = "birds.csv"\n')
    reasons = []

    def answer(client, questions, show):
        with pytest.raises(DataError) as refused:
            read_source(questions[0].data, Path(), lambda *_: None, lambda: None)
        reasons.append(str(refused.value))
        return [CommandRejected(command="CheckData", reason=reasons[-1], field=refused.value.field)]

    monkeypatch.setattr(cli_reports.WorkerClient, "start", lambda: None)
    monkeypatch.setattr(cli_reports, "ask", answer)
    assert main(["check", given]) == 2
    way = f"The option is `{option}`." if given == "birds.csv" else f"The field is {field} in run.toml."
    assert capsys.readouterr().err == f"thaw: {reasons[0]} {way}\n"


@pytest.mark.parametrize("given", ["birds.csv", "run.toml"])
def test_check_gives_each_thing_that_is_wrong_a_line(runs_dir, monkeypatch, capsys, given):
    Path("birds.csv").write_text("file,species\n1.png,jay\n")
    Path("run.toml").write_text('[data]\npath = "birds.csv"\n')
    sentences = {"data.path_column": "No photo.", "data.label_column": "No bird.", "data.path": "It is odd."}
    refused = CommandRejected(
        command="CheckData", reason="\n".join(sentences.values()), field="data.path_column", sentences=sentences
    )
    monkeypatch.setattr(cli_reports.WorkerClient, "start", lambda: None)
    monkeypatch.setattr(cli_reports, "ask", lambda *_: [refused])
    assert main(["check", given]) == 2
    ways = [f"The option is `{option}`." for option in ("--path-column", "--label-column")]
    if given == "run.toml":
        ways = [f"The field is {field} in run.toml." for field in list(sentences)[:2]]
    said = [f"No photo. {ways[0]}", f"No bird. {ways[1]}", "It is odd."]
    assert capsys.readouterr().err.splitlines() == [f"thaw: {line}" for line in said]


@pytest.fixture
def summarizes(monkeypatch):
    """Have a model looked at in this process, as a worker would, which costs a second less."""

    def answers(client, questions, show):
        from trainer.look_ups import answer

        try:
            return [answer(question, None) for question in questions]
        except ValueError as error:
            return [CommandRejected(command="InspectModel", reason=str(error))]

    monkeypatch.setattr(cli_reports.WorkerClient, "start", lambda: None)
    monkeypatch.setattr(cli_reports, "ask", answers)


def test_summary_prints_each_layer_and_what_the_model_comes_to(runs_dir, summarizes, capsys):
    assert main(["summary", "resnet18", "--image-size", "112", "--num-classes", "5"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert ["conv1", "Conv2d", "64", "×", "56", "×", "56", "9,408", "no", "29.50", "M", "802.8", "kB"] in rows
    assert ["fc", "Linear", "5", "2,565", "yes", "2.56", "k", "20", "B"] in rows
    totals = {" ".join(row[:-1]): row[-1] for row in rows[-10:-2]}
    assert totals == {
        "Total parameters": "11,179,077",
        "Trainable parameters": "2,565",
        "Frozen parameters": "11,176,512",
        "Multiply-adds": "484,850,176",
        "Input size (MB)": "0.15",
        "Forward/backward pass size (MB)": "10.09",
        "Parameter size (MB)": "44.72",
        "Estimated total size (MB)": "54.96",
    }
    assert main(["summary", "resnet18", "--image-size", "112", "--num-classes", "5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["features"] == {
        "layers": "backbone",
        "bytes_32": 2048,
        "bytes_16": 1024,
        "saved_share": 1 - 2560 / 484_850_176,
        "reason": "",
        "units": [layer["fqn"] for layer in said["layers"] if layer["is_unit"] and layer["fqn"] != "fc"],
    }
    assert said["num_frozen"] == 11_176_512
    assert said["mult_adds"] == 484_850_176
    layers = {layer["fqn"]: layer for layer in said["layers"]}
    assert layers["layer4.1.conv2"]["output_shape"] == [512, 4, 4]
    assert [layers[fqn]["trainable"] for fqn in ("", "layer4", "fc", "relu")] == ["partly", "no", "yes", ""]


def test_summary_says_what_could_be_cached_or_why_nothing(runs_dir, summarizes, capsys):
    assert main(["summary", "resnet18", "--image-size", "64"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "What comes out of backbone could be cached, at 2.0 kB an image in 32 bits or 1.0 kB in 16: "
        "99.9 % of the forward computing need then not be done twice."
    )
    Path("run.toml").write_text('[model]\nname = "resnet18"\nfrozen = ["layer1"]\n[data]\nimage_size = 64\n')
    assert main(["summary", "run.toml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "No features can be cached: 'conv1' is trainable. Only what is frozen from the beginning on can be."
    )


def test_summary_takes_what_a_runs_configuration_says(runs_dir, summarizes, capsys):
    model = 'name = "resnet18"\nhead = "append"\nfrozen = ["conv1"]\n'
    Path("run.toml").write_text(f"[model]\n{model}[data]\nimage_size = 64\n")
    assert main(["summary", "run.toml", "--num-classes", "5", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["image_size"], said["layers"][-1]["fqn"], said["frozen"]) == (64, "appended", ["conv1"])


def test_summary_tells_every_tensor_of_a_file_that_does_not_fit(runs_dir, tmp_path, summarizes, capsys):
    import torch

    torch.save({f"extra.{number}": torch.zeros(1) for number in range(9)}, tmp_path / "w.pt")
    assert main(["summary", "resnet18", "--weights", "w.pt", "--json"]) == 2
    printed = capsys.readouterr()
    weights = json.loads(printed.out)["weights"]
    assert len(weights["missing"]) > 50
    assert weights["unexpected"] == [f"extra.{number}" for number in range(9)]
    assert printed.err == f"thaw: {weights['sentence']}\n"
    assert weights["sentence"].startswith(f"{tmp_path / 'w.pt'} does not fit resnet18")
    assert main(["summary", "resnet18", "--weights", "gone.pt"]) == 2
    assert (
        f"There is no weights file {tmp_path / 'gone.pt'}. Check the path, or choose random." in capsys.readouterr().err
    )


def test_summary_refuses_what_there_is_not(runs_dir, summarizes, capsys):
    assert main(["summary", "resnet5"]) == 2
    assert "Did you mean resnet50" in capsys.readouterr().err
    assert main(["summary", "inception_v3", "--image-size", "32"]) == 2
    assert "cannot take images of 32 pixels" in capsys.readouterr().err
    assert main(["summary", "resnet18", "--image-size", "2"]) == 2
    assert "data.image_size is 2" in capsys.readouterr().err


def test_plan_writes_a_named_plan_out_for_the_configurations_model(runs_dir, summarizes, capsys):
    Path("run.toml").write_text('[model]\nname = "resnet18"\nweights = "random"\n[training]\nepochs = 6\n')
    assert main(["plan", "run.toml", "gradual", "--every", "2"]) == 0
    Path("planned.toml").write_text(capsys.readouterr().out)
    planned = load_config(Path("planned.toml"))
    assert [(phase.epoch, phase.unfreeze) for phase in planned.plan] == [(2, ["layer4"]), (4, ["layer3"])]
    assert planned.optimizer.multipliers["layer4"] == 0.38
    assert planned.model.frozen == ["backbone"]
    assert main(["plan", "run.toml", "chain_thaw", "--every", "2"]) == 2
    assert 'The plan "Chain-thaw" needs at least 13 epochs' in capsys.readouterr().err


def test_plan_takes_a_plans_name_as_the_window_writes_it(runs_dir, summarizes, capsys):
    Path("run.toml").write_text('[model]\nname = "resnet18"\nweights = "random"\n[training]\nepochs = 6\n')
    for name in ("LP-FT", "lp_ft", "lp-ft"):
        assert main(["plan", "run.toml", name]) == 0
        Path("planned.toml").write_text(capsys.readouterr().out)
        assert [phase.unfreeze for phase in load_config(Path("planned.toml")).plan] == [["backbone"]]
    assert main(["plan", "run.toml", "probing"]) == 2
    assert "There is no plan 'probing'. Use one of: Linear probe, Last stage + head," in capsys.readouterr().err


def test_replan_refuses_what_is_no_plan(run_folder, capsys):
    assert main(["replan", "digits", "stage4 later"]) == 2
    assert "'stage4 later' is no plan" in capsys.readouterr().err


def test_models_prints_each_published_set_of_weights(runs_dir, summarizes, capsys):
    assert main(["models"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    first = next(number for number, line in enumerate(lines) if line[:1] == ["resnet50"])
    assert lines[first] == ["resnet50", "25.56", "M", "IMAGENET1K_V2", "0.8086", "224", "102.5", "MB"]
    assert lines[first + 1] == ["IMAGENET1K_V1", "0.7613", "224", "102.5", "MB"]


def test_command_line_loads_neither_qt_nor_torch(run_folder):
    code = "import sys; from app.cli import main; main(['runs']); print({'torch', 'PySide6'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "set()"


# -- reading run folders ----------------------------------------------------------------------------------------


def test_runs_are_listed_with_their_state_and_best_accuracy(run_folder, capsys):
    assert main(["runs"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if run_folder.path.name in line)
    assert row.split()[1:] == ["interrupted", "resnet18", "0", "of", "10", "2", "0.9000", *row.split()[-2:]]


def test_runs_as_json_hold_the_same(run_folder, capsys):
    assert main(["runs", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert run["name"] == run_folder.path.name
    assert run["state"] == "interrupted"
    assert run["best_accuracy"] == 0.9


def test_damaged_run_is_listed_with_its_problem(runs_dir, capsys):
    (runs_dir / "broken").mkdir(parents=True)
    (runs_dir / "broken" / "run.db").write_bytes(b"this is no database")
    assert main(["runs"]) == 0
    assert "damaged" in capsys.readouterr().out


def test_runs_folder_comes_from_the_option_then_the_environment_then_here(run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("THAW_RUNS", str(tmp_path / "empty"))
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    for arguments in (["runs", "--runs", "runs"], ["--runs", "runs", "runs"], ["runs", "runs"]):
        assert main([*arguments, "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 1


def test_checkpoints_show_the_best_the_last_and_what_is_damaged(run_folder, capsys):
    (run_folder.checkpoints_dir / "checkpoint_1.pt").unlink()
    assert main(["checkpoints", "last"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "checkpoint_" in line]
    assert rows[0].rstrip().endswith("file is missing")
    assert rows[1].startswith("★")
    assert rows[1].rstrip().endswith("best by accuracy")
    assert rows[2].rstrip().endswith("last")


def test_checkpoints_and_status_name_the_metric_that_tells_the_best(run_folder, capsys):
    path = run_folder.path / "run.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('best_metric = "auto"', 'best_metric = "f1"'), encoding="utf-8")
    for info, score in zip(run_folder.checkpoints.listed(), (0.75, 0.25, None), strict=True):
        metrics = {} if score is None else {"F1/validation": score}
        run_folder.checkpoints.change(info.model_copy(update={"metrics": metrics}))
    assert main(["checkpoints", "last"]) == 0
    head, *rows = [line.split() for line in capsys.readouterr().out.splitlines() if "checkpoint" in line]
    assert head[:7] == ["checkpoint", "epoch", "step", "validation", "loss", "accuracy", "F1"]
    assert rows[0][:7] == ["★", "checkpoint_1.pt", "1", "10", "0.5000", "0.5000", "0.7500"]
    assert rows[0][-3:] == ["best", "by", "F1"]
    assert [rows[1][5], rows[2][5]] == ["0.2500", "–"]
    assert main(["status"]) == 0
    assert "best by F1 checkpoint_1.pt" in capsys.readouterr().out


def test_checkpoints_show_what_the_run_has_left_behind(run_folder, capsys):
    run_folder.begin_segment(0, None, 1.0)
    run_folder.begin_segment(10, "checkpoint_1.pt", 2.0)
    assert main(["checkpoints", "last"]) == 0
    rows = [line.rstrip() for line in capsys.readouterr().out.splitlines() if "checkpoint_" in line]
    assert [row.endswith("left behind") for row in rows] == [False, True, True]
    assert main(["checkpoints", "last", "--json"]) == 0
    assert [each["is_left_behind"] for each in json.loads(capsys.readouterr().out)] == [False, True, True]


def test_checkpoints_say_why_each_is_kept(run_folder, capsys):
    def tags() -> list[str]:
        assert main(["checkpoints", "last"]) == 0
        rows = [line for line in capsys.readouterr().out.splitlines() if "checkpoint_" in line]
        return [row.partition("backbone")[2].strip() for row in rows]

    def set_rules(text: str) -> None:
        path = run_folder.path / "run.toml"
        path.write_text(path.read_text(encoding="utf-8").replace("[checkpoints]", text), encoding="utf-8")

    assert tags() == ["", "best by accuracy", "last"]
    set_rules("[checkpoints]\ndisk_gb = 1.0")
    assert tags() == ["while there is room", "best by accuracy", "last"]
    set_rules("[checkpoints]\nkeep_last = 3\nkeep_best = 2")
    assert tags() == ["among the last", "best by accuracy, among the last", "last, among the best"]
    last = run_folder.checkpoints.find("last")
    run_folder.checkpoints.change(last.model_copy(update={"reason": "periodic"}))
    assert tags() == ["among the best, among the last", "best by accuracy, among the last", "last, resume point"]


def test_checkpoints_are_filtered_by_words_and_numbers(run_folder, capsys):
    assert main(["note", "last", "checkpoint_3", "before the warm-up"]) == 0
    for text, epochs in (
        ("accuracy>0.55", [2, 3]), ("epoch<3 best", [2]), ("WARM loss<0.5", [3]), ("conv1", [1, 2, 3]), ("loss<0", []),
    ):  # fmt: skip
        capsys.readouterr()
        assert main(["checkpoints", "last", "--filter", text, "--json"]) == 0
        assert [each["epoch"] for each in json.loads(capsys.readouterr().out)] == epochs, text
    assert main(["checkpoints", "last", "--filter", "accuracy>0.85"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "checkpoint_" in line]
    assert len(rows) == 1
    assert rows[0].startswith("★")
    assert main(["checkpoints", "last", "--filter", "loss<0"]) == 0
    assert "has all of that. Without --filter, all are listed." in capsys.readouterr().out
    for text, said in (
        ("lr<1", '--filter: there is no number called "lr". Compare epoch, step, loss, accuracy, rate, as in'),
        ("loss<", "--filter: write a number after loss<, as in accuracy>0.985 or epoch>=3."),
        ("accuracy>90", "--filter: a share goes from 0 to 1: write accuracy>0.985, or accuracy>98.5%."),
    ):
        assert main(["checkpoints", "last", "--filter", text]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_pins_labels_and_notes_of_an_ended_run_are_listed(run_folder, capsys):
    assert main(["pin", "last", "checkpoint_1"]) == 0
    assert capsys.readouterr().out == "checkpoint_1.pt: pinned.\n"
    assert main(["note", "last", "best", "before the warm-up", "--label", "figure 3"]) == 0
    assert main(["checkpoints", "last"]) == 0
    rows = [line.rstrip() for line in capsys.readouterr().out.splitlines() if "checkpoint_" in line][1:]
    assert rows[0].endswith("pinned")
    assert rows[1].endswith("figure 3, best by accuracy, before the warm-up")
    assert main(["pin", "last", "checkpoint_1", "--off", "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["checkpoint"]["is_pinned"]
    assert main(["note", "last", "last"]) == 2
    assert "Give a TEXT for the note, or --label WORDS." in capsys.readouterr().err
    assert main(["note", "last", "last", "--label", "x" * 81]) == 2
    assert "The label has 81 characters. Shorten it to 80." in capsys.readouterr().err


def test_checkpoints_as_json_hold_paths_and_tags(run_folder, capsys):
    assert main(["checkpoints", "digits", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [info["is_best"] for info in listed] == [False, True, False]
    assert [info["is_last"] for info in listed] == [False, False, True]
    assert [info["kept_for"] for info in listed] == [["all"], ["best", "all"], ["resume point", "last", "all"]]
    assert Path(listed[0]["path"]).is_file()


def test_status_of_a_run_without_a_worker_comes_from_its_folder(run_folder, capsys):
    assert main(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["state"] == "interrupted"
    assert not status["is_live"]
    assert status["step"] == 2
    assert status["last"] == {"Loss/train": 2.25}
    assert (status["best_checkpoint"], status["best_by"]) == ("checkpoint_2.pt", "accuracy")


def test_status_says_what_is_cached(run_folder, capsys):
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cached"] is None
    run_folder.add_event(
        FeaturesCached(
            layers=["conv1"], sentence="conv1", views=1, fixed_views=1, saved_share=0.5, num_bytes=800_000,
            is_in_memory=True, is_on_disk=False, reason="", applied_step=0, segment=0,
        )
    )  # fmt: skip
    assert main(["status", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["cached"]["layers"], said["cached"]["num_bytes"], said["cached_share"]) == (["conv1"], 800_000, None)
    assert main(["status"]) == 0
    told = "Features of conv1 are computed once an image, then read: 800.0 kB in memory, 50.0 % of the forward"
    assert told in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("is_resume", [False, True])
def test_status_forgets_a_freeze_that_a_restore_or_a_resume_undid(run_folder, run_info, capsys, is_resume):
    freeze = {"layers": ["fc"], "sentence": "", "frozen": [], "requested_step": 1, "applied_step": 2, "source": "user"}
    run_folder.add_event(RunPrepared(run=run_info, step=0, epoch=0, time=1.0))
    run_folder.add_event(LayersUnfrozen(**freeze, num_trainable=130, segment=0, time=2.0))
    segment = run_folder.begin_segment(1, "checkpoint_1.pt", 3.0)
    if is_resume:
        run_folder.add_event(RunPrepared(run=run_info, step=1, epoch=0, segment=segment, time=3.0))
    else:
        restored = {"name": "checkpoint_1.pt", "step": 1, "epoch": 0, "frozen": ["conv1", "stage2.0"]}
        run_folder.add_event(CheckpointRestored(**restored, num_trainable=10, segment=segment, time=3.0))
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_trainable"] == 10
    run_folder.add_event(LayersUnfrozen(**freeze, num_trainable=110, segment=segment, time=4.0))
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_trainable"] == 110


def test_find_rate_prints_the_curve_and_the_suggestion(monkeypatch, tmp_path, capsys):
    rates = [10 ** (number / 10 - 6) for number in range(61)]
    losses = [2.0 - number / 60 for number in range(61)]
    curve = RateCurve(rates=rates, losses=losses, smoothed=losses, suggestion=rates[37])
    asked = []

    def answer(*questions):
        asked.extend(questions)
        return [RateFound(curve=curve)]

    monkeypatch.setattr(cli_reports, "ask_worker", answer)
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "run.toml").write_text(f'[data]\npath = "{tmp_path}/photos"\n')
    assert main(["find-rate", str(tmp_path / "run.toml")]) == 0
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if "suggested" in line and "rate" not in line]
    assert row.split()[:2] == ["0.005", "1.3833"]
    assert "Suggested rate: 0.005, where the smoothed loss fell most steeply (Smith 2015, arXiv 1506.01186)." in out
    assert asked[0].config.data.path == f"{tmp_path}/photos"
    assert main(["find-rate", str(tmp_path / "run.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["suggestion"] == rates[37]


# -- steering ---------------------------------------------------------------------------------------------------


def frozen_event(command, **changes):
    values = {
        "command_id": command.command_id,
        "layers": ["stage4"],
        "sentence": "stage4 frozen",
        "frozen": ["stage4"],
        "num_trainable": 5130,
        "requested_step": 120,
        "applied_step": 121,
        "source": "user",
        "segment": 0,
    }
    return LayersFrozen(**{**values, **changes})


def test_freeze_says_at_which_step_it_took_hold(scripted_worker, capsys):
    # An event that answers another client's command comes first, and is not taken for the answer.
    worker = scripted_worker(lambda c: [frozen_event(c, command_id="another", applied_step=7), frozen_event(c)])
    assert main(["freeze", "digits", "stage4", "conv1"]) == 0
    assert worker.commands.get(timeout=5).layers == ["stage4", "conv1"]
    assert "stage4 frozen · asked at step 120, applied at step 121" in capsys.readouterr().out


def test_freeze_that_changes_nothing_says_so(scripted_worker, capsys):
    scripted_worker(lambda command: [frozen_event(command, layers=[], sentence="nothing frozen")])
    assert main(["freeze", "digits", "stage4"]) == 0
    assert capsys.readouterr().out == "Nothing changed: these layers were frozen already.\n"


def test_rate_says_what_it_was_before_and_from_which_step_it_holds(scripted_worker, capsys):
    def change(command):
        return [
            RateChanged(
                rate=command.rate, before=0.001, requested_step=120, applied_step=121, segment=0, time=1.0,
                command_id=command.command_id,
            )
        ]  # fmt: skip

    worker = scripted_worker(change)
    assert main(["rate", "digits", "5e-4"]) == 0
    assert worker.commands.get(timeout=5).rate == 5e-4
    assert capsys.readouterr().out == "Rate 0.0005, 0.001 before · from step 121 on\n"


def test_multiply_says_what_it_did_and_when(scripted_worker, capsys):
    def change(command):
        return [
            RateMultiplierChanged(
                layers=["fc"], multiplier=command.multiplier, sentence="head at rate × 0.1", multipliers={"fc": 0.1},
                requested_step=120, applied_step=121, source="user", segment=0, time=1.0,
                command_id=command.command_id,
            )
        ]  # fmt: skip

    worker = scripted_worker(change)
    assert main(["multiply", "digits", "0.1", "head", "conv5"]) == 0
    sent = worker.commands.get(timeout=5)
    assert (sent.layers, sent.multiplier) == (["head", "conv5"], 0.1)
    assert capsys.readouterr().out == "head at rate × 0.1 · asked at step 120, applied at step 121\n"


@pytest.mark.parametrize("multiplier", ["0", "1001"])
def test_a_multiplier_that_is_none_is_refused_before_any_worker_is_asked(run_folder, capsys, multiplier):
    assert main(["multiply", "digits", multiplier, "head"]) == 2
    assert multiplier in capsys.readouterr().err


def test_batchnorm_says_what_the_statistics_do_from_then_on(scripted_worker, capsys):
    def change(command):
        return [
            BatchNormChanged(
                layers=["conv1.1"], is_adapting=command.is_adapting, sentence="statistics of conv1.1 adapt when frozen",
                adapting=["conv1.1"], requested_step=120, applied_step=121, source="user", segment=0, time=1.0,
                command_id=command.command_id,
            )
        ]  # fmt: skip

    worker = scripted_worker(change)
    assert main(["batchnorm", "digits", "adapting", "conv1"]) == 0
    sent = worker.commands.get(timeout=5)
    assert (sent.layers, sent.is_adapting) == (["conv1"], True)
    said = "statistics of conv1.1 adapt when frozen · asked at step 120, applied at step 121\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("rate", ["0", "11"])
def test_a_rate_that_is_none_is_refused_before_any_worker_is_asked(run_folder, capsys, rate):
    assert main(["rate", "digits", rate]) == 2
    assert rate in capsys.readouterr().err


def test_a_rewind_says_where_the_run_goes_on(scripted_worker, capsys):
    def rewind(command):
        yield RunRewound(
            change=2, sentence="stage4 unfrozen", step=command.step, epoch=2, frozen=[], num_trainable=10, segment=1,
            command_id=command.command_id,
        )  # fmt: skip

    scripted_worker(rewind)
    assert main(["rewind", "digits", "128"]) == 0
    assert capsys.readouterr().out == "Rewound to before: stage4 unfrozen · goes on from epoch 2, step 128\n"


def test_a_rewind_is_undone_as_a_whole(scripted_worker, capsys):
    def undo(command):
        assert command.is_undo
        yield RewindUndone(
            step=160, epoch=3, frozen=[], num_trainable=10, segment=2, undone_segment=1, undone_step=128,
            command_id=command.command_id,
        )  # fmt: skip

    scripted_worker(undo)
    assert main(["rewind", "digits", "--undo"]) == 0
    assert capsys.readouterr().out == "The run is where it was before it went back · goes on from epoch 3, step 160\n"
    assert main(["rewind", "digits", "128", "--undo"]) == 2
    assert "Leave out the step 128, or --undo." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "asked", "words"),
    [
        (["epochs", "digits", "20"], {"epochs": 20, "patience": None}, "20 epochs, 10 before · from step 128 on"),
        (["patience", "digits", "0"], {"epochs": None, "patience": 0}, "Patience off, 3 before · from step 128 on"),
    ],
)
def test_the_length_of_a_run_is_changed_from_a_shell(scripted_worker, capsys, arguments, asked, words):
    def change(command):
        return [
            TrainingChanged(
                epochs=command.epochs or 10,
                before_epochs=10,
                patience=3 if command.patience is None else command.patience or None,
                before_patience=3,
                total_steps=900,
                requested_step=127,
                applied_step=128,
                segment=0,
                command_id=command.command_id,
            )
        ]

    worker = scripted_worker(change)
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"{words}\n"
    sent = worker.commands.get(timeout=5)
    assert {"epochs": sent.epochs, "patience": sent.patience} == asked


def test_steering_as_json_prints_the_event(scripted_worker, capsys):
    scripted_worker(lambda command: [frozen_event(command)])
    assert main(["freeze", "digits", "stage4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "LayersFrozen"


def test_refusal_by_the_worker_is_its_reason_and_exit_code_2(scripted_worker, capsys):
    reason = "Cannot freeze every layer: nothing would be left to train. Leave the head unfrozen."
    scripted_worker(
        lambda command: [CommandRejected(command=command.kind, reason=reason, command_id=command.command_id)]
    )
    assert main(["freeze", "digits", "backbone", "head"]) == 2
    assert capsys.readouterr().err == f"thaw: {reason}\n"


def test_stop_waits_until_the_run_has_stopped(scripted_worker, capsys):
    def stop(command):
        yield StateChanged(state=RunState.STOPPING, command_id=command.command_id)
        yield CheckpointSaved(checkpoint=checkpoint_info(4, 0.7), command_id=command.command_id)
        yield StateChanged(state=RunState.STOPPED, sentence="Stopped at step 40.")

    scripted_worker(stop)
    assert main(["stop", "digits"]) == 0
    assert capsys.readouterr().out == "Stopped at step 40.\n"


def test_restore_sends_the_whole_name_of_the_checkpoint(scripted_worker):
    worker = scripted_worker(
        lambda command: [CommandRejected(command=command.kind, reason="No.", command_id=command.command_id)]
    )
    assert main(["restore", "digits", "best"]) == 2
    assert worker.commands.get(timeout=5).name == "checkpoint_2.pt"


def test_worker_that_is_lost_while_steering_is_exit_code_1(scripted_worker, capsys):
    scripted_worker(None)
    assert main(["pause", "digits"]) == 1
    assert "resume" in capsys.readouterr().err


def test_silent_worker_is_waited_for_only_so_long(scripted_worker, capsys):
    scripted_worker(lambda command: [])
    assert main(["pause", "digits", "--timeout", "1"]) == 1
    assert "has not answered within 1 s. It may still apply the command: `thaw status runs/" in capsys.readouterr().err


@pytest.fixture
def deaf_worker(run_folder, tmp_path):
    """A worker that takes no connection, as one that was stopped."""
    with Listener(str(tmp_path / "s"), family="AF_UNIX", authkey=b"key"):
        process = psutil.Process()
        run_folder.claim(WorkerAddress(str(tmp_path / "s"), b"key", process.pid, process.create_time()))
        yield


def test_command_to_a_worker_that_takes_no_connection_was_not_sent(deaf_worker, capsys):
    assert main(["freeze", "last", "stage3", "--timeout", "1"]) == 1
    error = capsys.readouterr().err
    assert "does not answer; nothing was sent. Try again, or look with `thaw status runs/" in error
    assert "may still apply" not in error


def test_status_of_a_worker_that_does_not_answer_is_what_the_folder_tells(deaf_worker, monkeypatch, capsys):
    monkeypatch.setattr(cli_steering, "PROGRESS_TIMEOUT_S", 0.3)
    assert main(["status", "last", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["step"] == 2
    assert "does not answer" in printed.err


@pytest.mark.parametrize(
    ("state", "kind"),
    [(RunState.PAUSED, "UnpauseRun"), (RunState.READY, "StartRun"), (RunState.STOPPED, "StartRun")],
)
def test_unpause_goes_on_after_a_pause_a_restore_and_a_stop(scripted_worker, state, kind, capsys):
    worker = scripted_worker(
        lambda command: [StateChanged(state=RunState.RUNNING, command_id=command.command_id)], state=state
    )
    assert main(["unpause", "last"]) == 0
    assert worker.commands.get(timeout=5).kind == kind
    assert "is running." in capsys.readouterr().out


def restored_event(command):
    return CheckpointRestored(
        name=command.name,
        weights_only=command.weights_only,
        step=20,
        epoch=2,
        frozen=[],
        num_trainable=10,
        segment=1,
        command_id=command.command_id,
    )


def test_restore_into_a_run_that_does_not_train_names_the_way_on(scripted_worker, capsys):
    scripted_worker(lambda command: [restored_event(command)], state=RunState.STOPPED)
    assert main(["restore", "last", "best"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Restored checkpoint_2.pt: `thaw unpause runs/")
    assert out.endswith("goes on from epoch 2, step 20.\n")


def test_restored_weights_are_told_as_such(scripted_worker, capsys):
    worker = scripted_worker(lambda command: [restored_event(command)])
    assert main(["restore", "last", "best", "--weights-only"]) == 0
    assert worker.commands.get(timeout=5).weights_only
    assert "Restored the weights of checkpoint_2.pt: the run goes on from epoch 2" in capsys.readouterr().out


def starts_and_finishes(command):
    if command.kind == "RestoreCheckpoint":
        yield restored_event(command)
        yield StateChanged(state=RunState.READY)
    elif command.kind == "ChangeTraining":
        lengths = {"epochs": command.epochs, "before_epochs": 10, "patience": None, "before_patience": None}
        steps = {"total_steps": 200, "requested_step": 100, "applied_step": 100, "segment": 0}
        yield TrainingChanged(**lengths, **steps, command_id=command.command_id)
        yield StateChanged(state=RunState.READY)
    elif command.kind == "StartRun":
        yield StateChanged(state=RunState.RUNNING, command_id=command.command_id)
        yield StateChanged(state=RunState.FINISHED)


@pytest.mark.parametrize(
    ("state", "options", "sent"),
    [
        (RunState.READY, [], ["StartRun"]),
        (RunState.STOPPED, [], ["StartRun"]),
        (RunState.STOPPED, ["--from", "best"], ["RestoreCheckpoint", "StartRun"]),
        (RunState.FINISHED, ["--from", "1"], ["RestoreCheckpoint", "StartRun"]),
        (RunState.FINISHED, ["--epochs", "20"], ["ChangeTraining", "StartRun"]),
        (RunState.STOPPED, ["--from", "1", "--epochs", "20"], ["RestoreCheckpoint", "ChangeTraining", "StartRun"]),
    ],
)
def test_resume_starts_a_stopped_run_in_the_worker_that_has_it_and_leaves_that_alone(
    scripted_worker, state, options, sent
):
    worker = scripted_worker(starts_and_finishes, state=state)
    assert main(["resume", "last", *options]) == 0
    assert [worker.commands.get(timeout=5).kind for _ in sent] == sent
    assert worker.commands.empty()


@pytest.fixture
def followed(monkeypatch):
    """Return the commands that a run would have been begun with."""
    asked = []
    monkeypatch.setattr(cli, "_follow", lambda command, as_json: asked.append(command) or 0)
    return asked


def test_branch_begins_with_the_runs_configuration_and_what_is_set(run_folder, followed, tmp_path):
    settings = ["--set", "training.epochs=5", "--set", "optimizer.name=SGD", "--set", "model.frozen=['conv1', 'fc']"]
    assert main(["branch", "digits", "best", *settings, "--with-optimizer"]) == 0
    (command,) = followed
    branch = command.config.branch
    assert (branch.run, branch.checkpoint, branch.with_optimizer) == (str(run_folder.path), "checkpoint_2.pt", True)
    assert (command.config.training.epochs, command.config.optimizer.name) == (5, "SGD")
    assert command.config.model.frozen == ["conv1", "fc"]
    assert (command.config.name, command.runs_dir) == ("digits", str(tmp_path / "runs"))


def test_branch_takes_a_configuration_of_its_own(run_folder, followed, tmp_path, image_folder):
    (tmp_path / "mine.toml").write_text('name = "mine"\n[model]\nfrozen = []\n[data]\npath = "images"\n')
    assert main(["branch", "digits", "2", "mine.toml"]) == 0
    config = followed[0].config
    assert (config.name, config.model.frozen, config.branch.checkpoint) == ("mine", [], "checkpoint_2.pt")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("training.epochs", "'training.epochs' sets no field. Write it as \"training.epochs=5\"."),
        ("training.epoch=5", "training.epoch is not a field of a run. Did you mean training.epochs?"),
        ("training.epochs=0", "training.epochs is 0, but should be greater than or equal to 1."),
        ("name.epochs=0", "name.epochs is not a field of a run."),
    ],
)
def test_a_setting_that_is_none_is_refused_by_its_name(run_folder, followed, capsys, setting, sentence):
    assert main(["branch", "digits", "best", "--set", setting]) == 2
    assert sentence in capsys.readouterr().err
    assert not followed


def test_runs_come_with_their_branches_below_them(run_folder, runs_dir, capsys):
    origin = BranchConfig(run=str(run_folder.path), checkpoint="checkpoint_digits_002_0.1000_0.9000.pt")
    RunFolder.create(runs_dir, RunConfig(name="other", branch=origin)).close()
    assert main(["runs"]) == 0
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.startswith(run_folder.path.name)
    assert second.startswith("└ ")
    assert main(["runs", "--json"]) == 0
    parents = {run["title"]: (run["parent"], run["branched_from"]) for run in json.loads(capsys.readouterr().out)}
    assert parents == {"digits": (None, ""), "other": (str(run_folder.path), "digits-resnet18, epoch 2")}


def test_lines_lead_to_every_branch_of_a_run(run_folder, runs_dir, capsys):
    origin = BranchConfig(run=str(run_folder.path), checkpoint="checkpoint_1.pt")
    folders = [RunFolder.create(runs_dir, RunConfig(name=name, branch=origin)) for name in ("one", "two")]
    below = BranchConfig(run=str(folders[1].path), checkpoint="checkpoint_1.pt")
    folders.append(RunFolder.create(runs_dir, RunConfig(name="three", branch=below)))
    for folder in folders:
        folder.close()
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()[-3:]
    drawn = [(line[: line.index("20")], name) for line in lines for name in ("one", "two", "three") if name in line]
    assert drawn == [("├ ", "two"), ("│ └ ", "three"), ("└ ", "one")]


@pytest.mark.parametrize(
    ("state", "way"),
    [(RunState.RUNNING, "thaw status"), (RunState.PAUSED, "thaw unpause"), (RunState.FINISHED, "thaw status")],
)
def test_resume_of_a_run_that_waits_for_no_start_names_the_way(scripted_worker, state, way, capsys):
    worker = scripted_worker(lambda command: [], state=state)
    assert main(["resume", "last"]) == 2
    assert way in capsys.readouterr().err
    assert worker.commands.empty()


def test_resume_does_not_start_where_the_checkpoint_cannot_be_restored(scripted_worker, capsys):
    def refuse(command):
        return [CommandRejected(command=command.kind, reason="It is damaged.", command_id=command.command_id)]

    worker = scripted_worker(refuse, state=RunState.STOPPED)
    assert main(["resume", "last", "--from", "best"]) == 2
    assert capsys.readouterr().err == "thaw: It is damaged.\n"
    assert worker.commands.get(timeout=5).kind == "RestoreCheckpoint"
    assert worker.commands.empty()


@pytest.mark.parametrize(
    ("state", "code", "sentence"),
    [(RunState.FAILED, 1, "Out of memory."), (RunState.STOPPED, 130, "Stopped and saved."), (RunState.FINISHED, 0, "")],
)
def test_ctrl_c_tells_how_the_run_really_ended(scripted_worker, capsys, state, code, sentence):
    def interrupt_and_end(command):
        if command.kind == "StartRun":
            yield StateChanged(state=RunState.RUNNING, command_id=command.command_id)
            os.kill(os.getpid(), signal.SIGINT)
        elif command.kind == "StopRun":
            yield StateChanged(state=state, sentence=sentence)

    scripted_worker(interrupt_and_end, state=RunState.STOPPED)
    assert main(["resume", "last"]) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert "Killed" not in error


def test_status_of_a_paused_run_does_not_wait_for_progress(scripted_worker, capsys):
    scripted_worker(lambda command: [], state=RunState.PAUSED)
    assert main(["status", "digits", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["is_live"]
    assert status["samples_per_s"] is None


def test_status_of_a_live_run_holds_its_next_progress(scripted_worker, capsys):
    reported = ProgressReported(
        epoch=1,
        num_epochs=10,
        step=15,
        total_steps=100,
        samples_per_s=812.0,
        seconds_left=None,
        step_ms=1,
        worker_bytes=0,
    )
    scripted_worker(lambda command: [], greeting=[reported])
    assert main(["status", "digits"]) == 0
    out = capsys.readouterr().out
    assert "running (live)" in out
    assert "812 images/s" in out
    assert "Time left" not in out


# -- the display ------------------------------------------------------------------------------------------------


@pytest.fixture
def no_display(monkeypatch):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("sys.platform", "linux")


def test_window_without_a_display_is_one_sentence_and_exit_code_2(no_display, runs_dir, capsys):
    assert main([]) == 2
    printed = capsys.readouterr()
    assert "neither DISPLAY nor WAYLAND_DISPLAY is set" in printed.err
    assert "thaw demo --terminal" in printed.err
    assert printed.err.count("\n") == 1


def test_demo_without_a_display_goes_on_in_the_terminal(no_display, runs_dir, monkeypatch, capsys):
    followed = []
    monkeypatch.setattr(cli, "load_config", lambda path: RunConfig())
    monkeypatch.setattr(cli, "_follow", lambda command, as_json: followed.append(command) or 0)
    assert main(["demo", "--epochs", "3"]) == 0
    assert "The demo goes on here in the terminal." in capsys.readouterr().err
    assert followed[0].config.training.epochs == 3


def test_display_that_does_not_answer_is_named(no_display, monkeypatch):
    monkeypatch.setenv("DISPLAY", "localhost:4711")
    monkeypatch.setattr(display, "_missing_packages", lambda packages: [])
    monkeypatch.setattr(display, "_x11_answers", lambda: False)
    assert display_problem().startswith("No display answers at DISPLAY=localhost:4711")


def test_missing_library_is_named_by_its_package(no_display, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    load = ctypes.CDLL

    def load_all_but_cursor(name):
        if name == "libxcb-cursor.so.0":
            raise OSError(f"{name}: cannot open shared object file")
        return load(None)

    monkeypatch.setattr(ctypes, "CDLL", load_all_but_cursor)
    assert "`apt install libxcb-cursor0`" in display_problem()


def test_offscreen_platform_needs_no_display(no_display, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    assert display_problem() == ""


def test_second_platform_will_do_when_the_first_does_not_answer(no_display, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    monkeypatch.setattr(display, "_missing_packages", lambda packages: [])
    monkeypatch.setattr(display, "_x11_answers", lambda: False)
    monkeypatch.setattr(display, "_wayland_answers", lambda: True)
    assert display_problem() == ""


def test_what_a_run_will_need_says_how_much_of_the_images_is_kept_decoded_and_the_budget() -> None:
    need = RunEstimate(
        step_ms=40.0, seconds_per_epoch=34.0, num_epochs=10, memory_bytes=900_000_000, device="cpu",
        checkpoint_bytes=1_700_000, disk_bytes=20_000_000, free_bytes=80_000_000_000, kept_bytes=1_200_000_000,
        decoded_bytes=3_400_000_000, budget_bytes=1_200_000_000,
    )  # fmt: skip
    assert need_sentence(need).endswith(
        "(80.0 GB free). Of its decoded images, 1.2 GB of 3.4 GB will be kept: those of all runs may take 1.2 GB."
    )
    roomy = need.model_copy(update={"kept_bytes": 3_400_000_000, "budget_bytes": 20_000_000_000})
    assert need_sentence(roomy).endswith(
        "(80.0 GB free). Of its decoded images, all 3.4 GB will be kept: those of all runs may take 20.0 GB."
    )


def test_what_a_run_will_need_says_from_which_epoch_on_features_are_read() -> None:
    need = RunEstimate(
        step_ms=300.0, seconds_per_epoch=31.0, num_epochs=20, memory_bytes=900_000_000, device="cpu",
        checkpoint_bytes=1, disk_bytes=1, free_bytes=1, kept_bytes=1, decoded_bytes=1, budget_bytes=1,
        cached_seconds_per_epoch=0.4, cached_layers="conv1 … layer4", cached_views=4, cached_bytes=8_000_000,
        cached_saved_share=0.99994,
    )  # fmt: skip
    assert need_sentence(need).startswith(
        "The run will need about 0:31 an epoch, from epoch 5 on 0.4 s, as features of conv1 … layer4 are cached "
        "(8.0 MB, 99.9 % of the forward computing), 2:10 in all on cpu, 900.0 MB of memory"
    )
    few = need.model_copy(update={"num_epochs": 4, "not_cached": "No features can be cached: nothing is frozen."})
    assert need_sentence(few).startswith("The run will need about 0:31 an epoch, 2:04 in all on cpu")
    assert need_sentence(few).endswith(" No features can be cached: nothing is frozen.")
    more = need_sentence(few.model_copy(update={"unfreezes": True}))
    assert more.startswith("The run will need about 0:31 an epoch, 2:04 in all, more once the plan unfreezes, on cpu, ")


def confusion_of(class_names, counts):
    return ConfusionMatrix(
        split="validation", checkpoint="checkpoint_4.pt", step=1200, class_names=class_names, counts=counts
    )


def test_confusion_shows_what_each_class_was_taken_for(run_folder, capsys):
    confusion = confusion_of(["[cat]", "dog"], [[8, 2], [0, 1000]])
    run_folder.checkpoints.add(checkpoint_info(4, 0.95), confusion)
    assert main(["confusion", "digits"]) == 0
    title, header, _, *rows = capsys.readouterr().out.splitlines()
    assert title == "Validation of checkpoint_4.pt, at step 1,200"
    assert header.split() == ["class,", "taken", "for", "[cat]", "dog", "right"]
    assert [row.split() for row in rows] == [["[cat]", "8", "2", "80.0%"], ["dog", "·", "1,000", "100.0%"]]
    assert main(["confusion", "digits", "--of", "latest", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == confusion.model_dump(mode="json")


def test_confusion_of_many_classes_shows_the_pairs_that_are_confused_most(run_folder, capsys):
    names = [f"class {idx}" for idx in range(30)]
    counts = [[10 if idx == other else 0 for other in range(30)] for idx in range(30)]
    run_folder.checkpoints.add(checkpoint_info(4, 0.95), confusion_of(names, counts))
    assert main(["confusion", "digits"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "Every image was taken for its own class."
    counts[3][7], counts[9][1] = 10, 30
    run_folder.checkpoints.add(checkpoint_info(5, 0.95), confusion_of(names, counts))
    assert main(["confusion", "digits", "--of", "latest"]) == 0
    rows = capsys.readouterr().out.splitlines()[3:]
    assert [row.split()[1:] for row in rows] == [["9", "class", "1", "30", "75.0%"], ["3", "class", "7", "10", "50.0%"]]
