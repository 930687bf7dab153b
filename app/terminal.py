"""The terminal's view of a run: the same events as the window's, as live progress or as plain lines."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.event_sentences import (
    cached_sentence,
    change_sentence,
    freeze_sentence,
    plan_change_sentence,
    rate_sentence,
    rewound_sentence,
    training_sentence,
    undone_rewind_sentence,
)
from app.figures import count, counted, duration, printable, shown_path, size
from app.following import Ending
from trainer.client import ClientEvent
from trainer.config import Metric
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    PlanChanged,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    TrainingChanged,
    follow,
)
from trainer.messages.events import (
    ChangeAdvised,
    CheckpointSaved,
    CheckpointsDeleted,
    CheckpointsPutBack,
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
from trainer.messages.run_info import CheckpointInfo, RunInfo
from trainer.messages.states import RunState
from trainer.run_record import best_checkpoint, best_word, metric_word, metrics_text
from trainer.runs import RunFolder

REFRESHES_PER_S = 4
PLAIN_LINE_EVERY_S = 30.0
NUM_STEPS_AVERAGED = 20
ACCENT = "#4DA6E0"
_LEVEL_STYLES = {"info": "dim", "warning": "yellow", "error": "bold red"}
_ENDED = frozenset({RunState.FINISHED, RunState.STOPPED, RunState.FAILED})
_STATE_WORDS = {
    RunState.STARTING: "Starting the worker",
    RunState.IDLE: "Starting the worker",
    RunState.PREPARING: "Preparing",
    RunState.READY: "Ready",
    RunState.RUNNING: "Running",
    RunState.PAUSED: "Paused",
    RunState.STOPPING: "Stopping",
    RunState.FINISHED: "Finished",
    RunState.STOPPED: "Stopped",
    RunState.FAILED: "Failed",
}


class TerminalView:
    """Shows a run's events: progress that is redrawn on a terminal, plain lines elsewhere. Use as a context manager.

    Losses and accuracies of the training are means of the last ``NUM_STEPS_AVERAGED`` steps.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._state = RunState.STARTING
        self._run: RunInfo | None = None
        self._preparation: PreparationProgressed | None = None
        self._progress: ProgressReported | None = None
        self._train: dict[str, deque[float]] = {}
        self._validation: dict[str, float] = {}
        self._num_trainable: int | None = None
        self._saved: list[CheckpointInfo] = []
        self._verified: FreezeVerified | None = None
        self._began_at: float | None = None
        self._ended_at = 0.0
        self._plain_line_at = 0.0
        self._held_error: LogWritten | None = None

    def __enter__(self) -> Self:
        if self._console.is_interactive:
            self._live = Live(
                get_renderable=self._draw,
                console=self._console,
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._print_held_error()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self, event: ClientEvent) -> None:
        """Take an event: it changes what the progress shows, prints a line, or both."""
        self._print_held_error(_reason_of_failure(event))
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def summarize(self, ending: Ending) -> None:
        """Print how the run ended, its best checkpoint, and the commands to go on with."""
        if ending.run_dir is None or self._run is None:
            return
        if self._state in _ENDED:
            how = _STATE_WORDS[self._state]
        else:
            how = "Killed" if ending.was_interrupted else "Interrupted"
        progress = self._progress
        epoch = f" after epoch {progress.epoch} of {progress.num_epochs}, step {progress.step:,}" if progress else ""
        took = f", in {duration(self._ended_at - self._began_at)}" if self._began_at and self._ended_at else ""
        self._print("")
        self._print(f"{how}{epoch}{took}.", "bold")
        best = best_checkpoint(self._saved, self._metric)
        if best is not None:
            scores = f"{_scores(best)} · best by {best_word(self._metric)}"
            self._print_pair("Best", f"★ {best.name} · epoch {best.epoch} · {scores}")
        if self._verified is not None:
            self._print_pair("Frozen layers", _verified_sentence(self._verified))
        path = shown_path(ending.run_dir)
        self._print_pair("Open it", f"thaw open {path}")
        if self._state is not RunState.FINISHED and not ending.sentence:
            self._print_pair("Go on", f"thaw resume {path}")

    # -- events -----------------------------------------------------------------------------------------------

    def _take_state(self, event: StateChanged | WorkerAttached) -> None:
        earlier, self._state = self._state, event.state
        if event.state is RunState.RUNNING and self._began_at is None:
            self._began_at = event.time
        if event.state in _ENDED:
            self._ended_at = event.time
        if isinstance(event, WorkerAttached):
            if event.run is not None:
                self._introduce(event.run, event.step)
            if event.features is not None:
                self._take_cached(event.features)
            return
        is_unpaused = event.state is RunState.RUNNING and earlier is RunState.PAUSED
        if event.state is RunState.PAUSED and self._run is not None:
            path = shown_path(Path(self._run.run_dir))
            parts = event.offered_parts
            change = "" if parts is None else f"`thaw batch-parts {path} {parts}` changes that, "
            ways = f"{change}`thaw unpause {path}` goes on, Ctrl+C stops and saves."
            self._print(f"{event.sentence or 'Paused.'} {ways}", "yellow")
        elif is_unpaused:
            self._print("Unpaused.")
        elif event.sentence and event.state is not RunState.FAILED:
            self._print(event.sentence)

    def _take_preparation(self, event: PreparationProgressed) -> None:
        is_new = self._preparation is None or self._preparation.what != event.what
        self._preparation = event
        if is_new and self._live is None:
            self._print(event.what)

    def _take_prepared(self, event: RunPrepared) -> None:
        self._introduce(event.run, event.step)

    def _introduce(self, run: RunInfo, step: int) -> None:
        self._run = run
        self._preparation = None
        self._num_trainable = run.summary.num_trainable
        if step:
            with RunFolder(Path(run.run_dir), read_only=True) as folder:
                self._saved = folder.checkpoints.listed()
        skipped = f", {counted(run.num_skipped, 'file')} skipped" if run.num_skipped else ""
        validation = counted(run.num_validation, "validation image")
        classes = counted(len(run.class_names), "class", "classes")
        self._print(
            f"{run.config.title}: {run.num_train:,} training and {validation} in {classes}{skipped}",
            "bold",
        )
        if run.config.data.task == "multi_label":
            self._print("A yes or no for each class; accuracy counts the images of which each class is right")
        if run.config.data.task == "binary":
            self._print(f"One output, positive for {run.class_names[1]}")
        self._print(
            f"{run.config.model.name} at {run.image_size} px, {count(run.summary.num_trainable)} of "
            f"{count(run.summary.num_params)} parameters trainable · {run.device}, "
            f"{counted(run.num_threads, 'thread')}, {run.computed_in.text}"
        )
        begins = f" · goes on after step {step:,}" if step else ""
        self._print(f"Run folder {shown_path(Path(run.run_dir))}{begins}")

    def _take_metrics(self, event: MetricsLogged) -> None:
        for tag, series in event.series.items():
            if tag.endswith("/train"):
                self._train.setdefault(tag, deque(maxlen=NUM_STEPS_AVERAGED)).extend(series.values)
            elif tag.endswith("/validation") and series.values:
                self._validation[tag] = series.values[-1]

    def _take_progress(self, event: ProgressReported) -> None:
        self._progress = event
        if self._live is None and event.time - self._plain_line_at >= PLAIN_LINE_EVERY_S:
            # The first report only starts the clock: it has nothing to tell yet.
            if self._plain_line_at:
                left = [] if event.seconds_left is None else [f"{duration(event.seconds_left)} left"]
                scores = self._training_scores()
                facts = [_epoch(event), _step(event), *scores, _speed(event), *_cached(event), *_patience(event), *left]
                self._print(" · ".join(facts))
            self._plain_line_at = event.time

    def _take_freeze(self, event: LayersFrozen | LayersUnfrozen) -> None:
        if not event.layers:
            return
        self._num_trainable = event.num_trainable
        by_whom = "" if event.source == "user" else f" · by the {event.source}"
        self._print(
            f"{freeze_sentence(event)}{by_whom} · {count(event.num_trainable)} parameters trainable",
            "cyan" if isinstance(event, LayersFrozen) else "yellow",
        )

    def _take_rate(self, event: RateChanged) -> None:
        self._print(rate_sentence(event))

    def _take_layer_change(self, event: RateMultiplierChanged | BatchNormChanged) -> None:
        if event.layers:
            self._print(change_sentence(event))

    def _take_plan(self, event: PlanChanged) -> None:
        self._print(plan_change_sentence(event))

    def _take_advice(self, event: ChangeAdvised) -> None:
        if self._run is not None:
            verb, path = "freeze" if event.is_freeze else "unfreeze", shown_path(Path(self._run.run_dir))
            self._print(f"{event.sentence} `thaw {verb} {path} {' '.join(event.layers)}` does it.")

    @property
    def _metric(self) -> Metric:
        """By what the best checkpoint is told."""
        return "accuracy" if self._run is None else self._run.best_metric

    def _take_training(self, event: TrainingChanged) -> None:
        if self._run is not None:
            self._run = follow(self._run, event)
        self._print(training_sentence(event))

    def _take_checkpoint(self, event: CheckpointSaved) -> None:
        saved = event.checkpoint
        self._saved.append(saved)
        star = "★" if best_checkpoint(self._saved, self._metric) is saved else " "
        self._print(
            f"{star} epoch {saved.epoch} · step {saved.step:,} · {_scores(saved)} · "
            f"{saved.name} ({size(saved.size_bytes)})"
        )

    def _take_deleted(self, event: CheckpointsDeleted) -> None:
        self._saved = [saved for saved in self._saved if saved.name not in event.names]
        text = event.problem or f"deleted, {size(event.freed_bytes)} freed: {', '.join(event.names)}"
        self._print(text, "yellow" if event.problem else "dim")

    def _take_put_back(self, event: CheckpointsPutBack) -> None:
        self._saved = sorted([*self._saved, *event.checkpoints], key=lambda saved: saved.saved_at)
        self._print(f"listed again: {', '.join(saved.name for saved in event.checkpoints)}", "dim")
        if event.problem:
            self._print(event.problem, "yellow")

    def _take_restored(self, event: CheckpointRestored) -> None:
        self._num_trainable = event.num_trainable
        what = f"weights of {event.name}" if event.weights_only else event.name
        self._print(f"{what} restored · goes on from epoch {event.epoch}, step {event.step:,}", "yellow")

    def _take_rewound(self, event: RunRewound) -> None:
        self._num_trainable = event.num_trainable
        self._print(rewound_sentence(event), "yellow")

    def _take_undone_rewind(self, event: RewindUndone) -> None:
        self._num_trainable = event.num_trainable
        self._print(undone_rewind_sentence(event), "yellow")

    def _take_verified(self, event: FreezeVerified) -> None:
        self._verified = event
        if event.drifted:
            self._print(_verified_sentence(event), "bold red")

    def _take_cached(self, event: FeaturesCached) -> None:
        self._print(cached_sentence(event), "cyan" if event.layers else "dim")

    def _take_rejection(self, event: CommandRejected) -> None:
        # One that answers this process ends it, and is printed then; this one answers another client.
        if self._run is not None:
            self._print(event.reason, "yellow")

    def _take_log(self, event: LogWritten) -> None:
        if event.level == "error":
            self._held_error = event
        else:
            self._print(event.text, _LEVEL_STYLES[event.level])

    def _print_held_error(self, reason_of_failure: str = "") -> None:
        # Held back until the next event tells whether it is why the run failed: the end says that, on standard error.
        if self._held_error is not None and self._held_error.text != reason_of_failure:
            self._print(self._held_error.text, _LEVEL_STYLES["error"])
        self._held_error = None

    # -- drawing ----------------------------------------------------------------------------------------------

    def _draw(self) -> RenderableType:
        progress = self._progress
        word = _STATE_WORDS[self._state]
        if progress is None or self._state is RunState.PREPARING:
            return self._draw_preparation(word)
        phase = {"train": "", "validation": ", validating"}[progress.phase]
        left = "" if progress.seconds_left is None else f" · {duration(progress.seconds_left)} left"
        line = Table.grid(padding=(0, 2), expand=True)
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True)
        line.add_row(
            Text(f"{word}{phase}", style="bold"),
            ProgressBar(
                total=max(progress.total_steps, 1),
                completed=progress.step,
                complete_style=ACCENT,
                finished_style=ACCENT,
            ),
            Text(f"{_epoch(progress)}{left}"),
        )
        validation = [f"{name} {value:.4f}" for name, value in self._named(self._validation)]
        scores = [
            Text("train " + (" ".join(self._training_scores()) or "–"), style="blue"),
            Text("validation " + (" ".join(validation) or "–"), style="dark_orange"),
        ]
        facts = [_step(progress), _speed(progress), *_cached(progress), *_patience(progress)]
        if self._num_trainable is not None and self._run is not None:
            facts.append(f"{count(self._num_trainable)} of {count(self._run.summary.num_params)} trainable")
        return Group(line, Text("   ").join(scores), Text(" · ".join(facts), style="dim"))

    def _draw_preparation(self, word: str) -> RenderableType:
        step = self._preparation
        if step is None or step.total <= 0:
            return Text(f"{step.what if step else word} …", style="bold")
        done, total = (size(step.done), size(step.total)) if step.unit == "bytes" else (step.done, step.total)
        unit = "" if step.unit == "bytes" else f" {step.unit}"
        line = Table.grid(padding=(0, 2))
        line.add_row(
            Text(printable(step.what), style="bold"),
            ProgressBar(total=step.total, completed=step.done, width=30, complete_style=ACCENT, finished_style=ACCENT),
            Text(f"{done} of {total}{unit}"),
        )
        return line

    def _training_scores(self) -> list[str]:
        means = {tag: sum(values) / len(values) for tag, values in self._train.items() if values}
        return [f"{name} {value:.4f}" for name, value in self._named(means)]

    @staticmethod
    def _named(values: dict[str, float]) -> list[tuple[str, float]]:
        ordered = sorted(values.items(), key=lambda item: not item[0].startswith("Loss"))
        return [(metric_word(tag), value) for tag, value in ordered]

    def _print_pair(self, label: str, text: str) -> None:
        self._print(f"{label:<14} {text}")

    def _print(self, text: str, style: str = "") -> None:
        # As Text, so that a file's name is never read as markup; unwrapped, so that it can be copied and searched.
        self._console.print(Text(printable(text), style=style), soft_wrap=True)


def _reason_of_failure(event: ClientEvent) -> str:
    return event.sentence if isinstance(event, StateChanged) and event.state is RunState.FAILED else ""


def _epoch(progress: ProgressReported) -> str:
    return f"epoch {min(progress.epoch + 1, progress.num_epochs)} of {progress.num_epochs}"


def _step(progress: ProgressReported) -> str:
    return f"step {progress.step:,} of {progress.total_steps:,}"


def _speed(progress: ProgressReported) -> str:
    return f"{progress.samples_per_s:,.0f} images/s"


def _cached(progress: ProgressReported) -> list[str]:
    if progress.cached_share is None:
        return []
    filled = f" {math.floor(100 * progress.cached_share)} %" if progress.cached_share < 1 else ""
    return [f"features cached{filled}"]


def _patience(progress: ProgressReported) -> list[str]:
    if progress.patience is None:
        return []
    return [f"early stop {min(progress.num_epochs_no_better, progress.patience)} / {progress.patience}"]


def _scores(checkpoint: CheckpointInfo) -> str:
    if checkpoint.loss is None or checkpoint.accuracy is None:
        return "not validated"
    values = {"Loss/validation": checkpoint.loss, "Accuracy/validation": checkpoint.accuracy, **checkpoint.metrics}
    return f"validation {metrics_text(values)}"


def _verified_sentence(event: FreezeVerified) -> str:
    if event.drifted:
        names = ", ".join(event.drifted)
        return f"{names} changed while frozen, found at step {event.step:,}: please report this defect of Thaw."
    return f"{event.num_verified:,} verified at step {event.step:,}, 0 drift"


_HANDLERS: dict[type, Callable[[TerminalView, Any], None]] = {
    StateChanged: TerminalView._take_state,
    WorkerAttached: TerminalView._take_state,
    PreparationProgressed: TerminalView._take_preparation,
    RunPrepared: TerminalView._take_prepared,
    MetricsLogged: TerminalView._take_metrics,
    ProgressReported: TerminalView._take_progress,
    LayersFrozen: TerminalView._take_freeze,
    LayersUnfrozen: TerminalView._take_freeze,
    RateChanged: TerminalView._take_rate,
    PlanChanged: TerminalView._take_plan,
    RateMultiplierChanged: TerminalView._take_layer_change,
    BatchNormChanged: TerminalView._take_layer_change,
    TrainingChanged: TerminalView._take_training,
    ChangeAdvised: TerminalView._take_advice,
    CheckpointSaved: TerminalView._take_checkpoint,
    CheckpointsDeleted: TerminalView._take_deleted,
    CheckpointsPutBack: TerminalView._take_put_back,
    CheckpointRestored: TerminalView._take_restored,
    RunRewound: TerminalView._take_rewound,
    RewindUndone: TerminalView._take_undone_rewind,
    FreezeVerified: TerminalView._take_verified,
    FeaturesCached: TerminalView._take_cached,
    CommandRejected: TerminalView._take_rejection,
    LogWritten: TerminalView._take_log,
}
