"""The ``thaw`` command with a real worker, as a shell sees it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.cli import main
from tests.conftest import make_label_table
from trainer.config import config_to_toml
from trainer.messages.commands import StopRun
from trainer.messages.events import CheckpointSaved
from trainer.messages.states import RunState
from trainer.run_list import find_run
from trainer.runs import RunFolder

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("THAW_RUNS")
    return tmp_path


def write_config(path, config, epochs):
    training = config.training.model_copy(update={"epochs": epochs})
    path.write_text(config_to_toml(config.model_copy(update={"training": training})))


class Shell:
    """A ``thaw`` command that runs in a process of its own and prints JSON lines."""

    def __init__(self, *arguments):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "app", *arguments, "--json"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.seen = []

    def wait_for(self, kind, **values):
        """Read events up to the first of this kind with these values."""
        for line in self._process.stdout:
            event = json.loads(line)
            self.seen.append(event)
            if event["kind"] == kind and all(event[name] == value for name, value in values.items()):
                return event
        raise AssertionError(f"ended without {kind}: {self._process.stderr.read()}")

    def interrupt(self):
        self._process.send_signal(signal.SIGINT)

    def read_error_line(self):
        return self._process.stderr.readline()

    def finish(self):
        """Wait for the end. Returns exit code and standard error."""
        for line in self._process.stdout:
            self.seen.append(json.loads(line))
        sentence = self._process.stderr.read()
        return self._process.wait(timeout=60), sentence

    def close(self):
        if self._process.poll() is None:
            for child in psutil.Process(self._process.pid).children(recursive=True):
                child.kill()
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def shell():
    started = []

    def start(*arguments):
        started.append(Shell(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.close()


def answer(capsys, *arguments):
    """Run a command in this process. Returns its exit code and what it printed as JSON."""
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_run_is_trained_to_its_end_in_the_terminal(here, small_config, capsys):
    write_config(here / "run.toml", small_config, epochs=2)
    assert main(["train", "run.toml"]) == 0
    out = capsys.readouterr().out
    assert "small: 27 training and 9 validation images in 3 classes" in out
    assert "Finished after epoch 2 of 2" in out
    assert "0 drift" in out
    run_dir = find_run("last", here / "runs")
    assert f"thaw open runs/{run_dir.name}" in out
    assert not (run_dir / "worker.json").exists()
    assert answer(capsys, "status")[1]["state"] == "finished"
    assert [info["epoch"] for info in answer(capsys, "checkpoints", "last")[1]] == [1, 2]
    assert main(["resume", "last"]) == 2
    error = capsys.readouterr().err
    assert "nothing to resume" in error
    assert f"`thaw resume runs/{run_dir.name} --from CHECKPOINT`" in error


@pytest.mark.slow
def test_shell_steers_a_run_and_the_terminal_sees_it(here, small_config, shell, capsys):
    write_config(here / "run.toml", small_config, epochs=2000)
    watching = shell("train", "run.toml")
    watching.wait_for("CheckpointSaved")

    code, status = answer(capsys, "status", "last")
    assert (code, status["state"], status["is_live"]) == (0, "running", True)
    assert status["samples_per_s"] > 0

    code, event = answer(capsys, "unfreeze", "last", "stage4")
    assert code == 0
    assert event["applied_step"] >= event["requested_step"] > 0
    seen = watching.wait_for("LayersUnfrozen")
    assert seen["applied_step"] == event["applied_step"]

    assert main(["freeze", "last", "stage4"]) == 0
    assert "frozen · asked at step" in capsys.readouterr().out
    assert main(["freeze", "last", "backbone", "head"]) == 2
    assert "every layer" in capsys.readouterr().err
    code, event = answer(capsys, "unfreeze", "last", "*.bias")
    assert (code, event["sentence"]) == (0, "biases of backbone unfrozen")
    assert "stage4.0.branch1.1.weight" in event["frozen"]
    assert "stage4.0.branch1.1" not in event["frozen"]
    assert main(["freeze", "last", "*.biases"]) == 2
    assert "matches no layer and no parameter" in capsys.readouterr().err
    assert main(["rate", "last", "2e-4"]) == 0
    assert "Rate 0.0002, 0.001 before" in capsys.readouterr().out
    assert main(["freeze", "last", "stage9"]) == 2
    assert "stage9" in capsys.readouterr().err

    assert answer(capsys, "pause", "last")[1]["state"] == "paused"
    assert answer(capsys, "status", "last")[1]["state"] == "paused"
    assert main(["pause", "last"]) == 2
    capsys.readouterr()
    code, saved = answer(capsys, "save", "last")
    assert code == 0
    assert (find_run("last", here / "runs") / "checkpoints" / saved["checkpoint"]["name"]).is_file()
    assert answer(capsys, "pin", "last", "last")[1]["checkpoint"]["is_pinned"]
    noted = answer(capsys, "note", "last", saved["checkpoint"]["name"], "in the pause")[1]["checkpoint"]
    assert (noted["is_pinned"], noted["note"]) == (True, "in the pause")
    assert answer(capsys, "restore", "last", saved["checkpoint"]["name"])[1]["step"] == saved["checkpoint"]["step"]
    assert main(["resume", "last"]) == 2
    assert "living worker" in capsys.readouterr().err
    assert answer(capsys, "unpause", "last")[1]["state"] == "running"

    assert answer(capsys, "stop", "last")[1]["state"] == "stopped"
    code, sentence = watching.finish()
    assert (code, sentence) == (0, "")


@pytest.mark.slow
def test_ctrl_c_stops_and_saves_and_the_run_can_be_resumed(here, small_config, shell):
    write_config(here / "run.toml", small_config, epochs=2000)
    first = shell("train", "run.toml")
    worker = psutil.Process(first.wait_for("WorkerAttached")["pid"])
    run_dir = Path(first.wait_for("RunPrepared")["run"]["run_dir"])
    first.wait_for("CheckpointSaved")
    first.interrupt()
    code, sentence = first.finish()
    assert code == 130
    assert sentence.splitlines() == [
        "thaw: Stopping after this step, then saving. Ctrl+C again ends it at once.",
        f"thaw: Stopped and saved. Go on with `thaw resume runs/{run_dir.name}`.",
    ]
    # A process that has ended keeps its id until the system has collected it.
    worker.wait(timeout=10)
    with RunFolder(run_dir, read_only=True) as folder:
        stopped = folder.checkpoints.find("last")
    assert stopped.reason == "stop"

    again = shell("resume", "last")
    assert again.wait_for("RunPrepared")["step"] == stopped.step
    again.wait_for("CheckpointSaved")
    again.interrupt()
    assert again.finish()[0] == 130


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal that a test can hold")
def test_run_whose_data_have_changed_is_resumed_if_the_user_says_so(here, small_config, image_folder, capfd):
    write_config(here / "run.toml", small_config, 2)
    assert main(["train", "run.toml", "--json"]) == 0
    (image_folder / "class_0" / "000.png").unlink()
    capfd.readouterr()
    arguments = ["resume", "last", "--from", "1"]
    for option in ([], ["--json"]):
        # Neither is a terminal that could be asked.
        assert main([*arguments, *option]) == 2
        said = capfd.readouterr().err
        assert "because something has changed since: 1 image removed (class_0/000.png)." in said
        assert "--anyway`." in said
    for answer, code in (("n", 2), ("y", 0)):
        assert answer_in_terminal(arguments, "Resume anyway?", answer) == code
    with RunFolder(find_run("last", here / "runs"), read_only=True) as folder:
        assert [info.epoch for info in folder.checkpoints.listed()] == [1, 2, 2]
    assert main([*arguments, "--anyway", "--json"]) == 0


def answer_in_terminal(arguments, question, answer):
    """Run a command in a terminal and answer its question. Returns its exit code."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        while True:
            try:
                piece = terminal.read(4096)
            except OSError:
                # Linux's word for the other end being closed.
                break
            if not piece:
                break
            had_asked = question.encode() in said
            said += piece
            if question.encode() in said and not had_asked:
                terminal.write(f"{answer}\n".encode())
    assert question.encode() in said
    return process.wait(timeout=60)


@pytest.mark.slow
def test_resume_of_a_finished_run_is_verified_in_a_process_of_its_own(here, small_config, capsys):
    write_config(here / "run.toml", small_config, 3)
    assert main(["train", "run.toml", "--json"]) == 0
    capsys.readouterr()
    code, replay = answer(capsys, "resume", "last", "--verify", "--from", "1", "--steps", "5")
    assert code == 0
    assert (replay["first_step"], replay["num_steps"], replay["difference"], replay["causes"]) == (4, 5, None, [])
    assert replay["later"]
    assert main(["resume", "last", "--verify", "--from", "last"]) == 2
    assert "has no steps to compare with" in capsys.readouterr().err


@pytest.mark.slow
def test_a_change_is_tried_in_a_process_of_its_own(here, small_config, capsys):
    write_config(here / "run.toml", small_config, 3)
    assert main(["train", "run.toml", "--json"]) == 0
    capsys.readouterr()
    code, tried = answer(capsys, "what-if", "last", "1", "--unfreeze", "conv5", "--steps", "5")
    assert code == 0
    assert tried["unchanged"]["steps"] == tried["changed"]["steps"] == [5, 6, 7, 8, 9]
    assert tried["unchanged"]["losses"] != tried["changed"]["losses"]
    assert main(["what-if", "last", "1", "--unfreeze", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.slow
def test_second_ctrl_c_ends_a_worker_that_does_not_stop(here, small_config, shell):
    write_config(here / "run.toml", small_config, epochs=2000)
    watching = shell("train", "run.toml")
    worker = psutil.Process(watching.wait_for("WorkerAttached")["pid"])
    watching.wait_for("CheckpointSaved")
    worker.suspend()
    watching.interrupt()
    assert "Stopping" in watching.read_error_line()
    watching.interrupt()
    code, sentence = watching.finish()
    assert code == 130
    assert "Killed" in sentence
    worker.wait(timeout=10)


@pytest.mark.slow
def test_stopped_run_of_a_window_goes_on_from_the_shell(here, small_config, start_worker, shell, capsys):
    window = start_worker()
    training = small_config.training.model_copy(update={"epochs": 2000})
    run_dir = window.prepare(small_config.model_copy(update={"training": training}), here / "runs")
    window.wait(CheckpointSaved)
    window.send(StopRun())
    window.wait_state(RunState.STOPPED)

    assert main(["restore", "last", "1"]) == 0
    assert f"`thaw unpause runs/{run_dir.name}` goes on from epoch 1" in capsys.readouterr().out
    window.wait_state(RunState.READY, after=len(window.seen))
    assert answer(capsys, "unpause", "last")[1]["state"] == "running"
    assert answer(capsys, "stop", "last")[1]["state"] == "stopped"

    watching = shell("resume", "last")
    watching.wait_for("MetricsLogged")
    watching.interrupt()
    code, sentence = watching.finish()
    assert code == 130
    assert f"Stopped and saved. Go on with `thaw resume runs/{run_dir.name}`." in sentence
    assert psutil.pid_exists(window.client.pid)


@pytest.mark.slow
def test_command_to_a_stopped_process_is_not_said_to_be_on_its_way(here, small_config, shell, capsys):
    write_config(here / "run.toml", small_config, epochs=2000)
    watching = shell("train", "run.toml")
    worker = psutil.Process(watching.wait_for("WorkerAttached")["pid"])
    watching.wait_for("CheckpointSaved")
    worker.suspend()
    assert main(["freeze", "last", "stage3", "--timeout", "1"]) == 1
    assert "nothing was sent" in capsys.readouterr().err
    worker.resume()
    assert answer(capsys, "freeze", "last", "stage3")[0] == 0


@pytest.mark.slow
def test_worker_that_is_killed_is_exit_code_1_and_a_way_to_go_on(here, small_config, shell):
    write_config(here / "run.toml", small_config, epochs=2000)
    watching = shell("train", "run.toml")
    worker_pid = watching.wait_for("WorkerAttached")["pid"]
    watching.wait_for("CheckpointSaved")
    psutil.Process(worker_pid).kill()
    code, sentence = watching.finish()
    assert code == 1
    assert "killed" in sentence
    assert "`thaw resume runs/" in sentence
    assert "Traceback" not in sentence


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": {"path": "nowhere"}}, "nowhere"),
        pytest.param({"model": {"name": "resnet19"}}, "resnet19", marks=pytest.mark.slow),
        pytest.param({"model": {"frozen": ["stage9"]}}, "stage9", marks=pytest.mark.slow),
        pytest.param({"data": {"layout": "table"}}, "data.layout in the run's configuration", marks=pytest.mark.slow),
    ],
)
def test_run_that_cannot_be_prepared_is_one_sentence_and_exit_code_2(here, small_config, change, named, capsys):
    values = small_config.model_dump()
    for section, fields in change.items():
        values[section] |= fields
    (here / "run.toml").write_text(config_to_toml(type(small_config).model_validate(values)))
    assert main(["train", "run.toml"]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not (here / "runs").exists() or not list((here / "runs").iterdir())


@pytest.mark.slow
def test_check_counts_the_images_of_each_class_and_names_what_it_skips(here, image_folder, capsys):
    (image_folder / "class_0" / "broken.png").write_bytes(b"no image")
    code, checked = answer(capsys, "check", str(image_folder))
    assert code == 0
    assert checked["class_counts"] == {"class_0": 12, "class_1": 12, "class_2": 12}
    (issue,) = [issue for issue in checked["issues"] if issue["kind"] == "unreadable"]
    assert issue["file"].endswith("broken.png")


@pytest.mark.slow
def test_check_of_a_configuration_says_what_its_run_will_need(here, small_config, capsys):
    (here / "run.toml").write_text(config_to_toml(small_config))
    code, checked = answer(capsys, "check", "run.toml")
    assert code == 0
    assert checked["counts"] == {"train": [9, 9, 9], "validation": [3, 3, 3]}
    assert checked["need"]["num_epochs"] == 3
    assert checked["need"]["disk_bytes"] > 1_000_000
    assert checked["need"]["kept_bytes"] == checked["need"]["decoded_bytes"] > 0
    assert not (here / "runs").exists()


@pytest.mark.slow
def test_models_lists_the_networks_on_offer(here, capsys):
    code, models = answer(capsys, "models")
    assert code == 0
    assert {"resnet18", "shufflenet_v2_x0_5"} <= {entry["name"] for entry in models}


@pytest.mark.slow
def test_summary_asks_a_worker(here, capsys):
    code, said = answer(capsys, "summary", "shufflenet_v2_x0_5", "--num-classes", "5")
    assert code == 0
    assert (said["num_trainable"], said["image_size"]) == (5125, 224)


@pytest.mark.slow
def test_a_run_with_an_appended_head_is_resumed_and_read_by_plain_pytorch(here, small_config, capsys):
    model = small_config.model.model_copy(update={"head": "append", "head_hidden": 8, "head_dropout": 0.5})
    write_config(here / "run.toml", small_config.model_copy(update={"model": model}), epochs=2)
    assert main(["train", "run.toml"]) == 0
    assert "0 drift" in capsys.readouterr().out
    run_dir = find_run("last", here / "runs")
    assert main(["resume", "last", "--from", answer(capsys, "checkpoints", "last")[1][0]["name"]]) == 0
    capsys.readouterr()
    checkpoint = sorted((run_dir / "checkpoints").iterdir())[-1]
    script = (
        "import sys, torch, torchvision\n"
        "from torch import nn\n"
        "model = torchvision.models.shufflenet_v2_x0_5()\n"
        "model.appended = nn.Sequential(nn.Dropout(), nn.Linear(1000, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))\n"
        "base, checkpoint = (torch.load(path, weights_only=True) for path in sys.argv[1:])\n"
        "base.update(checkpoint['model_state_dict'])\n"
        "model.load_state_dict(base)\n"
        "print(model.eval().appended(model(torch.zeros(1, 3, 32, 32))).shape)\n"
    )
    command = [sys.executable, "-c", script, str(run_dir / "base.pt"), str(checkpoint)]
    assert "[1, 3]" in subprocess.run(command, capture_output=True, text=True, check=True, cwd=here).stdout


@pytest.mark.slow
def test_a_run_on_several_labels_is_tried_trained_resumed_and_refused_as_another_task(here, small_config, capsys):
    table = make_label_table(here / "bars")
    data = small_config.data.model_copy(update={"path": str(table), "task": "multi_label", "balance": "class_weights"})
    config = small_config.model_copy(update={"data": data})
    write_config(here / "run.toml", config, epochs=2)
    code, checked = answer(capsys, "check", "run.toml")
    assert (code, checked["is_multi_label"], checked["need"]["num_epochs"]) == (0, True, 2)
    assert main(["train", "run.toml"]) == 0
    out = capsys.readouterr().out
    assert "A yes or no for each class" in out
    assert "mean AP" in out
    saved = answer(capsys, "checkpoints", "last")[1]
    assert saved[-1]["metrics"].keys() == {
        f"{name}/validation" for name in ("Loss", "Accuracy", "F1", "AUROC", "Mean AP")
    }
    assert main(["resume", "last", "--from", saved[0]["name"]]) == 0
    capsys.readouterr()
    assert answer(capsys, "checkpoints", "last")[1][-1]["metrics"] == saved[-1]["metrics"]
    assert main(["confusion", "last"]) == 2
    assert "its images may have several classes" in capsys.readouterr().err

    for change, sentence in (
        (
            {"task": "multi_class"},
            "Some images have several classes, or none, but the task multi_class is for images of",
        ),
        ({"task": "binary"}, "Some images have several classes, or none, but the task binary is for images of one."),
        ({"label_separator": "none"}, "Every image has one class, but the task multi_label (any of several) is for"),
        ({"balance": "sampler"}, "Images of several classes cannot be drawn so that each class comes equally often:"),
    ):
        wrong = config.model_copy(update={"data": data.model_copy(update=change)})
        write_config(here / "wrong.toml", wrong, epochs=1)
        assert main(["train", "wrong.toml", "--runs", "others"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"thaw: {sentence}")
        assert error.count("\n") == 1
    assert not (here / "others").exists() or not list((here / "others").iterdir())
