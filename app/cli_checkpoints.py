"""The commands of ``thaw`` that list checkpoints, and mark them in a live run or an ended one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.checkpoint_filter import CheckpointFilter
from app.cli_options import STEER_TIMEOUT_S, CheckpointName, Json, Run, RunsDir, Timeout, console, print_line, runs_dir
from app.json_lines import event_to_json, to_json
from app.listings import checkpoint_values, checkpoints_table, listed_checkpoints
from app.steering import steer
from trainer.checkpoint_list import change_list_of_ended
from trainer.messages.commands import MAX_LABEL, MAX_NOTE, EditCheckpoint
from trainer.messages.events import CheckpointEdited
from trainer.messages.run_info import CheckpointInfo
from trainer.run_list import find_run
from trainer.runs import RunFolder

_PANEL = "Mark checkpoints"

commands = typer.Typer()


@commands.command("checkpoints")
def show_checkpoints(
    context: typer.Context,
    run: Run,
    wanted: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="TEXT",
            help='Only those with all these words and numbers: "accuracy>0.985 epoch>=3 pinned".',
        ),
    ] = "",
    runs: RunsDir = None,
    json: Json = False,
) -> None:
    """List a run's checkpoints, oldest first."""
    run_dir = find_run(run, runs_dir(context, runs))
    with RunFolder(run_dir, read_only=True) as folder:
        listed = listed_checkpoints(folder, _read_filter(wanted, folder))
        if json:
            print_line(to_json(checkpoint_values(listed, folder.checkpoints_dir)))
        elif listed:
            console().print(checkpoints_table(listed, folder.best_metric()))
        elif folder.checkpoints.listed():
            print_line(f"No checkpoint of {run_dir.name} has all of that. Without --filter, all are listed.")
        else:
            print_line(f"{run_dir.name} has no checkpoints yet: the first comes at the end of its first epoch.")


@commands.command(rich_help_panel=_PANEL)
def pin(
    context: typer.Context,
    run: Run,
    checkpoint: CheckpointName,
    off: Annotated[bool, typer.Option("--off", help="Let it be deleted again.")] = False,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Pin a checkpoint: it is kept, whatever else is deleted."""
    run_dir = find_run(run, runs_dir(context, runs))
    _edit(run_dir, checkpoint, {"is_pinned": not off}, json, timeout)


@commands.command(rich_help_panel=_PANEL)
def note(
    context: typer.Context,
    run: Run,
    checkpoint: CheckpointName,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help='The note; "" takes it away.')] = None,
    label: Annotated[
        str | None, typer.Option(metavar="WORDS", help='A few words among its tags; "" takes them away.')
    ] = None,
    runs: RunsDir = None,
    json: Json = False,
    timeout: Timeout = STEER_TIMEOUT_S,
) -> None:
    """Write a note beside a checkpoint, or give it a label."""
    if text is None and label is None:
        raise typer.BadParameter("Give a TEXT for the note, or --label WORDS.")
    for what, words, longest in (("label", label, MAX_LABEL), ("note", text, MAX_NOTE)):
        if words is not None and len(words) > longest:
            raise typer.BadParameter(f"The {what} has {len(words):,} characters. Shorten it to {longest:,}.")
    run_dir = find_run(run, runs_dir(context, runs))
    _edit(run_dir, checkpoint, {"note": text, "label": label}, json, timeout)


def _read_filter(text: str, folder: RunFolder) -> CheckpointFilter:
    tags = dict.fromkeys(tag for info in folder.checkpoints.listed() for tag in info.metrics)
    wanted = CheckpointFilter(text, tags, _number)
    if (fault := wanted.fault) is not None:
        names, term = ", ".join(fault.names), fault.term
        raise typer.BadParameter(
            {
                "name": f'--filter: there is no number called "{term}". Compare {names}, as in accuracy>0.985.',
                "value": f"--filter: write a number after {term}, as in accuracy>0.985 or epoch>=3.",
                "share": f"--filter: a share goes from 0 to 1: write {term}0.985, or {term}98.5%.",
            }[fault.kind]
        )
    return wanted


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _edit(run_dir: Path, checkpoint: str, values: dict[str, object], as_json: bool, timeout_s: float) -> None:
    with RunFolder(run_dir, read_only=True) as folder:
        name = folder.checkpoints.find(checkpoint).name
        is_live = folder.worker() is not None
    command = EditCheckpoint.model_validate({"name": name, **values})
    event = steer(run_dir, command, timeout_s)[0] if is_live else change_list_of_ended(run_dir, command)
    assert isinstance(event, CheckpointEdited)
    print_line(event_to_json(event) if as_json else _sentence(event.checkpoint))


def _sentence(info: CheckpointInfo) -> str:
    facts = ["pinned"] * info.is_pinned + [info.label] * bool(info.label) + [info.note] * bool(info.note)
    return f"{info.name}: {' · '.join(facts) or 'not pinned, without a label or a note'}."
