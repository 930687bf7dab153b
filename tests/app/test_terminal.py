import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from app.event_sentences import cached_sentence
from app.figures import count, counted, duration, printable, size
from app.following import Ending
from app.json_lines import JsonLines
from app.terminal import TerminalView
from trainer.client import WorkerLost
from trainer.config import RunConfig
from trainer.messages.changes import LayersFrozen, LayersUnfrozen, TrainingChanged
from trainer.messages.events import (
    ChangeAdvised,
    CheckpointSaved,
    CheckpointsDeleted,
    CommandRejected,
    FeaturesCached,
    FreezeVerified,
    LogWritten,
    MetricsLogged,
    PreparationProgressed,
    ProgressReported,
    RunPrepared,
    StateChanged,
    WorkerAttached,
)
from trainer.messages.model_info import ModelSummary
from trainer.messages.run_info import CheckpointInfo, RunInfo, Series
from trainer.messages.states import RunState


def make_view(*, is_terminal=False):
    output = io.StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=120, height=40, color_system=None, no_color=True)
    return TerminalView(console), output


def drawn(view):
    """What the live progress shows now, as text."""
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(view._draw())
    return console.file.getvalue()


def prepared(run_dir="/runs/one"):
    summary = ModelSummary(model="resnet18", layers=[], frozen=["backbone"], num_params=11_689_512, num_trainable=5130)
    run = RunInfo(
        run_dir=run_dir,
        config=RunConfig(name="digits"),
        summary=summary,
        class_names=["0", "1"],
        num_train=1437,
        num_validation=360,
        num_skipped=2,
        steps_per_epoch=46,
        total_steps=276,
        device="cpu",
        precision="fp32",
        num_threads=2,
        image_size=48,
    )
    return RunPrepared(run=run, step=0, epoch=0)


def progress(**changes):
    values = {
        "epoch": 2,
        "num_epochs": 6,
        "step": 138,
        "total_steps": 276,
        "samples_per_s": 812.4,
        "seconds_left": 42.0,
        "step_ms": 30.0,
        "worker_bytes": 0,
    }
    return ProgressReported(**{**values, **changes})


def test_advice_names_the_run_it_is_for():
    view, output = make_view()
    view.show(prepared("/runs/older one"))
    sentence = "The run overfits. Freeze stage3, conv5?"
    view.show(ChangeAdvised(layers=["stage3", "conv5"], is_freeze=True, sentence=sentence, step=9, segment=0, time=1.0))
    assert f"{sentence} `thaw freeze '/runs/older one' stage3 conv5` does it." in output.getvalue().replace("\n", " ")


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("binary", "One output, positive for 1\n"),
        ("multi_label", "A yes or no for each class; accuracy counts the images of which each class is right\n"),
    ],
)
def test_a_run_says_what_its_outputs_are(task, line):
    view, output = make_view()
    event = prepared()
    config = RunConfig(name="digits", data={"task": task})
    view.show(event.model_copy(update={"run": event.run.model_copy(update={"config": config})}))
    assert line in output.getvalue()


def checkpoint(name, epoch, loss, accuracy):
    return CheckpointSaved(
        checkpoint=CheckpointInfo(
            name=name,
            epoch=epoch,
            step=epoch * 46,
            loss=loss,
            accuracy=accuracy,
            frozen=[],
            frozen_summary="",
            size_bytes=1_700_000,
            sha256="",
            saved_at=0,
            reason="epoch",
            segment=0,
        )
    )


FREEZE = {
    "layers": ["stage4"],
    "frozen": ["stage4"],
    "num_trainable": 208_000,
    "requested_step": 120,
    "applied_step": 121,
    "segment": 0,
}


def test_a_deleted_checkpoint_is_told_and_is_not_named_as_the_best_at_the_end():
    view, output = make_view()
    view.show(prepared())
    view.show(checkpoint("a.pt", 1, 0.5, 0.9))
    view.show(checkpoint("b.pt", 2, 0.4, 0.8))
    view.show(CheckpointsDeleted(names=["a.pt"], freed_bytes=1_700_000))
    assert "deleted, 1.7 MB freed: a.pt" in output.getvalue()
    assert [saved.name for saved in view._saved] == ["b.pt"]


def test_run_is_introduced_with_its_data_model_and_folder():
    view, output = make_view()
    view.show(prepared())
    text = output.getvalue()
    assert "digits: 1,437 training and 360 validation images in 2 classes, 2 files skipped" in text
    assert "resnet18 at 48 px, 5.13 k of 11.69 M parameters trainable · cpu, 2 threads, fp32" in text
    assert "Run folder /runs/one" in text


def test_one_of_a_thing_is_named_as_one():
    view, output = make_view()
    one = prepared().run.model_copy(update={"num_threads": 1, "num_skipped": 1, "num_validation": 1})
    view.show(RunPrepared(run=one, step=0, epoch=0))
    assert "1 validation image in 2 classes, 1 file skipped" in output.getvalue()
    assert "cpu, 1 thread, fp32" in output.getvalue()


def test_run_that_a_worker_has_already_is_introduced_too():
    view, output = make_view()
    view.show(WorkerAttached(state=RunState.READY, pid=1, torch_version="", devices=[], run=prepared().run))
    assert "Run folder /runs/one" in output.getvalue()


def test_intervention_is_one_line_with_the_step_asked_for_and_the_step_applied():
    view, output = make_view()
    view.show(LayersFrozen(sentence="stage4 frozen", source="user", **FREEZE))
    view.show(LayersUnfrozen(sentence="stage4 unfrozen", source="plan", **FREEZE))
    frozen, unfrozen = output.getvalue().splitlines()
    assert frozen == "❄ stage4 frozen · asked at step 120, applied at step 121 · 208 k parameters trainable"
    assert unfrozen.startswith("☀ stage4 unfrozen · asked at step 120, applied at step 121 · by the plan")


def test_freeze_that_changes_nothing_prints_nothing():
    view, output = make_view()
    view.show(LayersFrozen(sentence="nothing frozen", source="user", **{**FREEZE, "layers": []}))
    assert output.getvalue() == ""


def test_only_the_best_checkpoint_so_far_gets_a_star():
    view, output = make_view()
    view.show(checkpoint("a.pt", 1, 0.5, 0.9))
    view.show(checkpoint("b.pt", 2, 0.7, 0.8))
    view.show(checkpoint("c.pt", 3, math.nan, 0.99))
    view.show(checkpoint("d.pt", 4, 0.4, 0.95))
    assert [line[0] for line in output.getvalue().splitlines()] == ["★", " ", " ", "★"]


def test_the_star_is_by_the_loss_where_the_patience_watches_it(tmp_path):
    view, output = make_view()
    ready = prepared(str(tmp_path / "one"))
    view.show(ready)
    view.show(checkpoint("a.pt", 1, 0.5, 0.9))
    view.show(checkpoint("b.pt", 2, 0.4, 0.8))
    changed = {"epochs": 6, "before_epochs": 6, "total_steps": 60, "requested_step": 2, "applied_step": 2, "segment": 0}
    view.show(TrainingChanged(patience=3, before_patience=None, **changed))
    view.show(checkpoint("c.pt", 3, 0.3, 0.7))
    view.show(checkpoint("d.pt", 4, 0.35, 0.95))
    assert [line[0] for line in output.getvalue().splitlines() if ".pt" in line] == ["★", " ", "★", " "]
    view.summarize(Ending(0, "", tmp_path / "one"))
    assert "★ c.pt · epoch 3 · validation loss 0.3000, accuracy 0.7000 · best by loss" in output.getvalue()


def test_lines_are_whole_where_there_is_no_terminal():
    view, output = make_view()
    view.show(LogWritten(level="warning", text="word " * 100))
    assert len(output.getvalue().splitlines()) == 1


def test_name_of_a_file_can_neither_style_nor_steer_the_terminal():
    view, output = make_view(is_terminal=True)
    view.show(LogWritten(level="info", text="Skipped [bold]a\x1b[2J.png[/bold]"))
    assert "\x1b[2J" not in output.getvalue()
    assert "[bold]a\N{REPLACEMENT CHARACTER}[2J.png[/bold]" in output.getvalue()


def test_progress_comes_as_a_line_now_and_then_where_there_is_no_terminal():
    view, output = make_view()
    view.show(MetricsLogged(segment=0, series={"Loss/train": Series(steps=[1, 2], values=[0.4, 0.6])}))
    for second in range(0, 70, 5):
        view.show(progress(time=1000.0 + second))
    lines = output.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0] == "epoch 3 of 6 · step 138 of 276 · loss 0.5000 · 812 images/s · 0:42 left"


def test_live_progress_shows_state_scores_speed_and_time_left():
    view, _ = make_view(is_terminal=True)
    view.show(prepared())
    view.show(StateChanged(state=RunState.RUNNING))
    view.show(
        MetricsLogged(
            segment=0,
            series={
                "Accuracy/train": Series(steps=[1], values=[0.75]),
                "Loss/train": Series(steps=[1], values=[0.5]),
                "Loss/validation": Series(steps=[1], values=[math.nan]),
            },
        )
    )
    view.show(progress())
    text = drawn(view)
    for part in ("Running", "epoch 3 of 6 · 0:42 left", "step 138 of 276 · 812 images/s · 5.13 k of 11.69 M trainable"):
        assert part in text
    assert "train loss 0.5000 accuracy 0.7500" in text
    assert "validation loss nan" in text
    assert len(text.splitlines()) == 3


def test_live_progress_shows_a_download_in_bytes():
    view, _ = make_view(is_terminal=True)
    view.show(StateChanged(state=RunState.PREPARING))
    view.show(PreparationProgressed(what="Downloading resnet18", done=12_300_000, total=46_800_000, unit="bytes"))
    assert "12.3 MB of 46.8 MB" in drawn(view)


def test_live_progress_leaves_the_terminal_as_it_was():
    view, output = make_view(is_terminal=True)
    with view:
        view.show(progress())
    assert output.getvalue().rstrip().endswith("\x1b[2K")
    assert "\x1b[?25h" in output.getvalue()


def test_drift_of_a_frozen_layer_is_reported_at_once():
    view, output = make_view()
    view.show(FreezeVerified(step=10, num_verified=3, drifted=[]))
    assert output.getvalue() == ""
    view.show(FreezeVerified(step=20, num_verified=3, drifted=["conv1"]))
    assert "conv1 changed while frozen" in output.getvalue()


def test_pause_says_how_to_go_on():
    view, output = make_view()
    view.show(prepared())
    view.show(StateChanged(state=RunState.RUNNING))
    view.show(StateChanged(state=RunState.PAUSED, sentence="The loss became NaN."))
    view.show(StateChanged(state=RunState.RUNNING))
    assert "The loss became NaN. `thaw unpause /runs/one` goes on" in output.getvalue()
    assert output.getvalue().splitlines()[-1] == "Unpaused."


def test_a_pause_for_want_of_memory_says_how_to_need_less():
    view, output = make_view()
    view.show(prepared())
    view.show(StateChanged(state=RunState.PAUSED, sentence="No memory for step 1.", offered_parts=2))
    ways = "`thaw batch-parts /runs/one 2` changes that, `thaw unpause /runs/one` goes on"
    assert f"No memory for step 1. {ways}" in output.getvalue()


def test_refusal_of_another_clients_command_is_shown():
    view, output = make_view()
    view.show(prepared())
    view.show(CommandRejected(command="FreezeLayers", reason="Cannot freeze every layer."))
    assert output.getvalue().splitlines()[-1] == "Cannot freeze every layer."


def test_summary_names_the_best_checkpoint_and_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "runs" / "my run"
    view, output = make_view()
    view.show(prepared(str(run_dir)))
    view.show(StateChanged(state=RunState.RUNNING, time=100.0))
    view.show(checkpoint("a.pt", 1, 0.5, 0.9))
    view.show(progress(epoch=1, step=50))
    view.show(StateChanged(state=RunState.STOPPED, time=165.0))
    view.summarize(Ending(130, "", run_dir))
    text = output.getvalue()
    assert "Stopped after epoch 1 of 6, step 50, in 1:05." in text
    assert "★ a.pt · epoch 1 · validation loss 0.5000, accuracy 0.9000" in text
    assert "thaw open 'runs/my run'" in text
    assert "thaw resume 'runs/my run'" in text


@pytest.mark.parametrize(("exit_code", "word"), [(130, "Killed"), (1, "Interrupted")])
def test_run_whose_worker_went_away_is_not_said_to_be_running(exit_code, word):
    view, output = make_view()
    view.show(prepared())
    view.show(StateChanged(state=RunState.RUNNING, time=100.0))
    view.show(progress())
    view.summarize(Ending(exit_code, "It is gone.", Path("/runs/one")))
    assert f"{word} after epoch 2 of 6" in output.getvalue()


def test_reason_of_a_failure_is_left_to_the_last_sentence():
    view, output = make_view()
    with view:
        view.show(prepared())
        view.show(LogWritten(level="error", text="What happens now is not kept."))
        view.show(LogWritten(level="error", text="Out of memory."))
        view.show(StateChanged(state=RunState.FAILED, sentence="Out of memory.", time=1.0))
    assert "What happens now is not kept." in output.getvalue()
    assert "Out of memory." not in output.getvalue()


def test_error_that_comes_last_is_shown():
    view, output = make_view()
    with view:
        view.show(LogWritten(level="error", text="What happens now is not kept."))
    assert output.getvalue() == "What happens now is not kept.\n"


def test_finished_run_is_not_offered_to_be_resumed():
    view, output = make_view()
    view.show(prepared())
    view.show(StateChanged(state=RunState.FINISHED, time=1.0))
    view.summarize(Ending(0, "", Path("/runs/one")))
    assert "thaw open" in output.getvalue()
    assert "thaw resume" not in output.getvalue()


def test_json_lines_are_strict_json_even_for_a_loss_that_is_nan():
    stream = io.StringIO()
    lines = JsonLines(stream)
    series = {"Loss/train": Series(steps=[1, 2], values=[math.nan, 0.5])}
    lines.show(MetricsLogged(segment=0, series=series))
    lines.show(WorkerLost(was_expected=False, sentence="The worker was killed."))

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    metrics, lost = (json.loads(line, parse_constant=refuse) for line in stream.getvalue().splitlines())
    assert metrics["kind"] == "MetricsLogged"
    assert metrics["series"]["Loss/train"]["values"] == [None, 0.5]
    assert lost == {"kind": "WorkerLost", "expected": False, "sentence": "The worker was killed."}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (duration(42), "0:42"),
        (duration(3725), "1:02:05"),
        (size(950), "950 B"),
        (size(1_700_000), "1.7 MB"),
        (size(999_960), "1.0 MB"),
        (size(2.5e12), "2,500.0 GB"),
        (count(950), "950"),
        (counted(1, "thread"), "1 thread"),
        (counted(1200, "class", "classes"), "1,200 classes"),
        (count(208_000), "208 k"),
        (count(11_689_512), "11.69 M"),
        (printable("a\udc80\tb"), "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_figures_read_as_a_person_writes_them(written, expected):
    assert written == expected


def cached(**changes):
    values = {
        "layers": ["conv1", "layer1.0"],
        "sentence": "backbone",
        "views": 4,
        "fixed_views": 4,
        "saved_share": 0.99994,
        "num_bytes": 8_000_000,
        "is_in_memory": True,
        "is_on_disk": True,
        "reason": "",
        "applied_step": 0,
        "segment": 0,
    }
    return FeaturesCached(**{**values, **changes})


def test_what_is_cached_is_said_in_a_line_when_it_is_decided_and_to_one_who_attaches():
    view, output = make_view()
    view.show(prepared())
    view.show(cached())
    sentence = (
        "Features of backbone are computed once for each of 4 views of an image, then read: 8.0 MB in memory and on "
        "disk, 99.9 % of the forward computing saved."
    )
    assert output.getvalue().splitlines()[-1] == sentence
    late, output = make_view()
    late.show(
        WorkerAttached(
            state=RunState.RUNNING, pid=1, torch_version="2", devices=[], run=prepared().run, features=cached()
        )
    )
    assert output.getvalue().splitlines()[-1] == sentence


def test_why_nothing_is_cached_or_not_all_is_said():
    reason = "Each epoch has a new view of each training image, so that only validation's features are kept."
    assert cached_sentence(cached(layers=[], reason="No features can be cached: nothing is frozen.")) == (
        "No features can be cached: nothing is frozen."
    )
    assert cached_sentence(cached(views=0, is_in_memory=False, reason=reason)) == (
        "Features of backbone are cached for validation alone: 8.0 MB on disk, 99.9 % of the forward computing saved. "
        f"{reason}"
    )
    assert "computed once an image, then read: 8.0 MB partly in" in cached_sentence(
        cached(views=1, is_in_memory=False, is_on_disk=False)
    )


def test_progress_says_how_much_of_the_features_is_there():
    view, _ = make_view(is_terminal=True)
    view.show(prepared())
    for share, said in ((0.629, "features cached 62 % ·"), (1.0, "features cached ·"), (None, "images/s ·")):
        view.show(progress(cached_share=share))
        assert said in drawn(view)
    assert "cached" not in drawn(view)
