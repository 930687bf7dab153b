"""The command of ``thaw`` that tries a change from a checkpoint, without the run that it would be a change of."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from app.cli_errands import do_errand
from app.cli_options import CheckpointName, Json, Run, RunsDir, complain, console, print_line, runs_dir
from app.event_sentences import tried_sentence
from app.figures import count
from app.json_lines import to_json
from app.tables import add_row, new_table
from trainer.config import config_from_dict
from trainer.messages.commands import FreezeLayers, SetBatchNorm, SetRate, SetRateMultiplier, UnfreezeLayers
from trainer.messages.what_if import MAX_STEPS, ChangeTried, TriedChange, TryChange
from trainer.run_list import find_run
from trainer.runs import RunFolder

commands = typer.Typer()

Layers = list[str] | None


@commands.command(name="what-if")
def what_if(
    context: typer.Context,
    run: Run,
    checkpoint: CheckpointName,
    unfreeze: Annotated[
        Layers, typer.Option("--unfreeze", metavar="LAYER", help="A layer that learns, by name or pattern. Repeatable.")
    ] = None,
    freeze: Annotated[
        Layers, typer.Option("--freeze", metavar="LAYER", help="A layer that is frozen. Repeatable.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="X", help="Another learning rate.")] = None,
    multiply: Annotated[
        Layers,
        typer.Option("--multiply", metavar="LAYER=X", help="A layer that learns at X times the rate. Repeatable."),
    ] = None,
    adapting: Annotated[
        Layers,
        typer.Option("--adapting", metavar="LAYER", help="A layer whose BatchNorm adapts while frozen. Repeatable."),
    ] = None,
    still: Annotated[
        Layers,
        typer.Option("--still", metavar="LAYER", help="A layer whose BatchNorm freezes with it. Repeatable."),
    ] = None,
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=MAX_STEPS, metavar="N", help="Steps of each of the two branches.")
    ] = 50,
    runs: RunsDir = None,
    json: Json = False,
) -> None:
    """Train some steps from a checkpoint, as it is and with a change, and compare. The run stays as it is."""
    changes: list[TriedChange] = []
    if unfreeze:
        changes.append(UnfreezeLayers(layers=unfreeze))
    if freeze:
        changes.append(FreezeLayers(layers=freeze))
    if rate is not None:
        # As the form checks it, in its words.
        changes.append(SetRate(rate=config_from_dict({"optimizer": {"rate": rate}}).optimizer.rate))
    multipliers = config_from_dict({"optimizer": {"multipliers": dict(map(_multiplier, multiply or []))}}).optimizer
    changes += (SetRateMultiplier(layers=[name], multiplier=x) for name, x in multipliers.multipliers.items())
    for layers, is_adapting in ((adapting, True), (still, False)):
        if layers:
            changes.append(SetBatchNorm(layers=layers, is_adapting=is_adapting))
    if not changes:
        raise typer.BadParameter(
            "Say what is to change: --unfreeze LAYER, --freeze LAYER, --rate X, --multiply LAYER=X, --adapting LAYER "
            "or --still LAYER."
        )
    run_dir = find_run(run, runs_dir(context, runs))
    with RunFolder(run_dir, read_only=True) as folder:
        name = folder.checkpoints.find(checkpoint).name
    command = TryChange(run_dir=str(run_dir.absolute()), checkpoint=name, changes=changes, num_steps=steps)
    tried = do_errand(command, ChangeTried)
    if json:
        print_line(to_json(tried.model_dump(mode="json")))
        return
    console().print(_table(tried))
    print_line(tried_sentence(tried))
    for note in tried.notes:
        complain(note, 0)


def _multiplier(text: str) -> tuple[str, float]:
    """Read "layer4=0.1"."""
    name, _, number = text.rpartition("=")
    try:
        return name.strip(), float(number)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no multiplier of a layer. Write it as --multiply layer4=0.1.") from None


def _table(tried: ChangeTried) -> Table:
    unchanged, changed = tried.unchanged, tried.changed
    table = new_table("", "checkpoint>", "as it is>", "changed>", "difference>")
    # The loss first, which the sentence is about.
    for tag in sorted(tried.start, key=lambda tag: (not tag.startswith("Loss/"), tag)):
        before, after = unchanged.validation.get(tag), changed.validation.get(tag)
        # Rounded first, or a small one would be "-0.0000".
        difference = "–" if before is None or after is None else f"{round(after - before, 4) + 0.0:+.4f}"
        add_row(table, tag, _figure(tried.start[tag]), _figure(before), _figure(after), difference)
    times = f"{unchanged.step_ms:,.1f} ms", f"{changed.step_ms:,.1f} ms"
    add_row(table, "time per step", "", *times, f"{changed.step_ms - unchanged.step_ms:+,.1f} ms")
    add_row(table, "trainable parameters", "", count(unchanged.num_trainable), count(changed.num_trainable), "")
    return table


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
