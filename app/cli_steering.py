"""The commands of ``thaw`` that watch and steer a live run from any shell."""

from __future__ import annotations

from pathlib import Path

import typer

from app.cli_options import (
    STEER_TIMEOUT_S,
    CheckpointName,
    Json,
    Layers,
    LayersOrParameters,
    Multiplier,
    NewEpochs,
    NewParts,
    NewPatience,
    NewRate,
    Phases,
    RewindStep,
    Run,
    RunsDir,
    Statistics,
    Timeout,
    UndoRewind,
    WeightsOnly,
    complain,
    console,
    print_line,
    runs_dir,
)
from app.event_sentences import (
    change_sentence,
    freeze_sentence,
    plan_change_sentence,
    rate_sentence,
    rewound_sentence,
    training_sentence,
    undone_rewind_sentence,
)
from app.figures import count, shown_path
from app.json_lines import event_to_json, to_json
from app.listings import status_table, status_values
from app.plan_syntax import parse_plan
from app.steering import look, steer
from app.worker_talk import RunFailedError
from trainer.config import ConfigError, config_from_dict
from trainer.messages.base import Command
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
)
from trainer.messages.commands import (
    ChangeTraining,
    FreezeLayers,
    PauseRun,
    RestoreCheckpoint,
    Rewind,
    SaveCheckpoint,
    SetBatchNorm,
    SetPlan,
    SetRate,
    SetRateMultiplier,
    StopRun,
    UnfreezeLayers,
    UnpauseRun,
)
from trainer.messages.events import AnyEvent, CheckpointSaved, StateChanged
from trainer.messages.states import RunState
from trainer.run_list import find_run
from trainer.runs import RunFolder

PROGRESS_TIMEOUT_S = 3.0
_PANEL = "Steer a live run"

commands = typer.Typer()


@commands.command(rich_help_panel=_PANEL)
def status(context: typer.Context, run: Run = "last", runs: RunsDir = None, json: Json = False) -> int:
    """Show where a run stands."""
    run_dir = find_run(run, runs_dir(context, runs))
    with RunFolder(run_dir, read_only=True) as folder:
        is_live = folder.worker() is not None
        record = folder.read()
    progress, code = None, 0
    if is_live:
        try:
            record, progress = look(run_dir, PROGRESS_TIMEOUT_S)
        except RunFailedError as error:
            code = complain(f"{error} This is what its folder tells.", 1)
    values = status_values(record, is_live, progress)
    if json:
        print_line(to_json(values))
    else:
        console().print(status_table(values))
    return code


@commands.command(rich_help_panel=_PANEL)
def freeze(
    context: typer.Context,
    run: Run,
    layers: LayersOrParameters,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Freeze layers, or single parameters of them, at the next step."""
    _steer(find_run(run, runs_dir(context, runs)), FreezeLayers(layers=layers), json, timeout)


@commands.command(rich_help_panel=_PANEL)
def unfreeze(
    context: typer.Context,
    run: Run,
    layers: LayersOrParameters,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Unfreeze layers, or single parameters of them, at the next step."""
    _steer(find_run(run, runs_dir(context, runs)), UnfreezeLayers(layers=layers), json, timeout)


@commands.command(rich_help_panel=_PANEL)
def rate(
    context: typer.Context,
    run: Run,
    new_rate: NewRate,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Change the learning rate at the next step."""
    checked = config_from_dict({"optimizer": {"rate": new_rate}}).optimizer.rate
    _steer(find_run(run, runs_dir(context, runs)), SetRate(rate=checked), json, timeout)


@commands.command(rich_help_panel=_PANEL)
def multiply(
    context: typer.Context,
    run: Run,
    multiplier: Multiplier,
    layers: Layers,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Multiply the learning rate in single layers at the next step."""
    checked = config_from_dict({"optimizer": {"multipliers": dict.fromkeys(layers, multiplier)}}).optimizer.multipliers
    command = SetRateMultiplier(layers=list(checked), multiplier=multiplier)
    _steer(find_run(run, runs_dir(context, runs)), command, json, timeout)


@commands.command(rich_help_panel=_PANEL)
def batchnorm(
    context: typer.Context,
    run: Run,
    statistics: Statistics,
    layers: Layers,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Let the statistics of BatchNorm adapt while it is frozen, or freeze them along."""
    command = SetBatchNorm(layers=layers, is_adapting=statistics == "adapting")
    _steer(find_run(run, runs_dir(context, runs)), command, json, timeout)


@commands.command(rich_help_panel=_PANEL)
def replan(
    context: typer.Context,
    run: Run,
    phases: Phases,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Have other phases follow those of the plan that have begun."""
    plan = parse_plan(phases)
    if plan is None:
        raise ConfigError(f'{phases!r} is no plan. Write it as "3: +stage4, +conv5", phases apart by a semicolon.')
    command = SetPlan(phases=config_from_dict({"plan": plan}).plan)
    _steer(find_run(run, runs_dir(context, runs)), command, json, timeout)


@commands.command(rich_help_panel=_PANEL)
def epochs(
    context: typer.Context,
    run: Run,
    num_epochs: NewEpochs,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Change how many epochs the run has; a schedule then spans the new length."""
    _steer(find_run(run, runs_dir(context, runs)), ChangeTraining(epochs=num_epochs), json, timeout)


@commands.command(rich_help_panel=_PANEL)
def patience(
    context: typer.Context,
    run: Run,
    num_epochs: NewPatience,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Change after how many epochs without a better validation the run ends."""
    _steer(find_run(run, runs_dir(context, runs)), ChangeTraining(patience=num_epochs), json, timeout)


@commands.command(rich_help_panel=_PANEL)
def batch_parts(
    context: typer.Context,
    run: Run,
    num_parts: NewParts,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Have batches go through the model in parts, for less memory; only BatchNorm sees fewer images at once."""
    _steer(find_run(run, runs_dir(context, runs)), ChangeTraining(batch_parts=num_parts), json, timeout)


@commands.command(rich_help_panel=_PANEL)
def restore(
    context: typer.Context,
    run: Run,
    checkpoint: CheckpointName,
    weights_only: WeightsOnly = False,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Put a checkpoint back into the live run (for an ended one: `thaw resume RUN --from CHECKPOINT`)."""
    run_dir = find_run(run, runs_dir(context, runs))
    with RunFolder(run_dir, read_only=True) as folder:
        name = folder.checkpoints.find(checkpoint).name
    _steer(run_dir, RestoreCheckpoint(name=name, weights_only=weights_only), json, timeout)


@commands.command(rich_help_panel=_PANEL)
def rewind(
    context: typer.Context,
    run: Run,
    step: RewindStep = None,
    undo: UndoRewind = False,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Go back to just before a freeze or a change of the rate, as long as that state is kept."""
    if undo and step is not None:
        raise ConfigError(f"A rewind is undone as a whole. Leave out the step {step}, or --undo.")
    _steer(find_run(run, runs_dir(context, runs)), Rewind(step=step, is_undo=undo), json, timeout)


def _add_plain_command(name: str, command: Command, help_text: str) -> None:
    @commands.command(name, help=help_text, rich_help_panel=_PANEL)
    def steer_run(
        context: typer.Context,
        run: Run,
        runs: RunsDir = None,
        json: Json = False,
        timeout: Timeout = STEER_TIMEOUT_S,
    ) -> None:
        _steer(find_run(run, runs_dir(context, runs)), command, json, timeout)


_add_plain_command("pause", PauseRun(), "Pause between two steps; everything stays in memory.")
_add_plain_command("unpause", UnpauseRun(), "Go on after a pause or a restore.")
_add_plain_command("save", SaveCheckpoint(), "Save a checkpoint now.")
_add_plain_command("stop", StopRun(), "Stop after saving a checkpoint.")


def _steer(run_dir: Path, command: Command, as_json: bool, timeout_s: float) -> None:
    event, found_state = steer(run_dir, command, timeout_s)
    print_line(event_to_json(event) if as_json else _answer_sentence(event, run_dir, found_state))


def _answer_sentence(event: AnyEvent, run_dir: Path, found_state: RunState) -> str:
    match event:
        case LayersFrozen(layers=[]):
            return "Nothing changed: these layers were frozen already."
        case LayersUnfrozen(layers=[]):
            return "Nothing changed: these layers were trainable already."
        case LayersFrozen() | LayersUnfrozen():
            return f"{freeze_sentence(event)} · {count(event.num_trainable)} parameters trainable"
        case RateMultiplierChanged(layers=[]):
            return f"Nothing changed: the rate of these layers was multiplied by {event.multiplier:g} already."
        case BatchNormChanged(layers=[]):
            return "Nothing changed: the statistics of these layers did so already."
        case RateMultiplierChanged() | BatchNormChanged():
            return change_sentence(event)
        case PlanChanged():
            return plan_change_sentence(event)
        case RateChanged():
            return rate_sentence(event)
        case TrainingChanged() if found_state in {RunState.FINISHED, RunState.STOPPED}:
            return f"{training_sentence(event)} with `thaw unpause {shown_path(run_dir)}`"
        case TrainingChanged():
            return training_sentence(event)
        case CheckpointSaved(checkpoint=saved):
            return f"Saved {saved.name} at epoch {saved.epoch}, step {saved.step:,}."
        case CheckpointRestored() if found_state is not RunState.RUNNING:
            place = f"epoch {event.epoch}, step {event.step:,}"
            return f"Restored {_restored(event)}: `thaw unpause {shown_path(run_dir)}` goes on from {place}."
        case CheckpointRestored():
            return f"Restored {_restored(event)}: the run goes on from epoch {event.epoch}, step {event.step:,}."
        case RunRewound() | RewindUndone():
            is_going = found_state is RunState.RUNNING
            sentence = rewound_sentence(event) if isinstance(event, RunRewound) else undone_rewind_sentence(event)
            return sentence if is_going else f"{sentence} with `thaw unpause {shown_path(run_dir)}`"
        case StateChanged():
            return event.sentence or f"{run_dir.name} is {event.state}."
    raise AssertionError(f"{event.kind} answers no command")


def _restored(event: CheckpointRestored) -> str:
    return f"the weights of {event.name}" if event.weights_only else event.name
