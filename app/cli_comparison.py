"""The command of ``thaw`` that compares checkpoints, of one run or of several."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli_errands import do_errand
from app.cli_options import Json, Run, RunsDir, console, print_line, runs_dir
from app.comparison import (
    by_distance,
    count_changes,
    few,
    is_equal_in_all,
    layers_at,
    metric_name,
    metric_rows,
    num_right,
)
from app.figures import count, counted
from app.json_lines import to_json
from app.plan_syntax import plan_text
from app.tables import add_row, bar, new_table
from trainer.messages.comparison import (
    CheckpointPlace,
    CheckpointsCompared,
    CompareCheckpoints,
    ComparedLayer,
    LayerDistance,
)
from trainer.run_list import find_run
from trainer.runs import RunFolder

_MAX_LAYERS = 20
_MAX_CHANGES = 10

commands = typer.Typer()


@commands.command()
def compare(
    context: typer.Context,
    run: Run,
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT...",
            help="Two or more, which are compared with the first one: a unique piece of a name, an epoch's number, "
            '"best" or "last"; one of another run as RUN:CHECKPOINT.',
        ),
    ],
    layers: Annotated[
        int | None,
        typer.Option(min=1, metavar="DEPTH", help="Sum up layers from this depth of the tree on; by default none are."),
    ] = None,
    confusion: Annotated[
        bool,
        typer.Option(
            "--confusion/--no-confusion",
            help="Whether to evaluate those whose confusion matrix is not kept any more: each takes a validation.",
        ),
    ] = True,
    runs: RunsDir = None,
    json: Json = False,
) -> None:
    """Compare checkpoints: metrics, each layer's weights, what is mistaken for what, and the configuration."""
    if len(checkpoints) < 2:
        raise typer.BadParameter("Name two checkpoints or more; the first is what the others are compared with.")
    folder = runs_dir(context, runs)
    places = [_place(run, checkpoint, folder) for checkpoint in checkpoints]
    compared = do_errand(CompareCheckpoints(checkpoints=places, with_confusion=confusion), CheckpointsCompared)
    if json:
        print_line(to_json(compared.model_dump(mode="json")))
    else:
        _print(compared, layers)


def _place(run: str, checkpoint: str, folder: Path) -> CheckpointPlace:
    other, _, name = checkpoint.rpartition(":")
    run_dir = find_run(other or run, folder)
    with RunFolder(run_dir, read_only=True) as opened:
        return CheckpointPlace(run_dir=str(run_dir.absolute()), checkpoint=opened.checkpoints.find(name).name)


def _print(compared: CheckpointsCompared, depth: int | None) -> None:
    first, *others = compared.checkpoints
    print_line(f"{first.title}: {first.info.name} (the reference)")
    for each in others:
        print_line(f"{each.title}: {each.info.name}")
    print_line("")
    console().print(_metrics_table(compared))
    print_line("")
    _print_layers(compared, depth)
    print_line("")
    if compared.settings:
        console().print(_settings_table(compared))
    else:
        print_line("They were trained with the same configuration, rate and freeze set.")
    print_line("")
    _print_confusion(compared)


def _metrics_table(compared: CheckpointsCompared) -> Table:
    first, *others = compared.checkpoints
    table = new_table("validation", f"{first.title}>", *(each for other in others for each in (f"{other.title}>", "")))
    for row in metric_rows(compared):
        cells = [_value(row.values[0])]
        for column in range(1, len(row.values)):
            word = {None: "", True: " better", False: " worse"}[row.is_better_as_shown(column, _value)]
            cells += [_value(row.values[column]), _difference(row.difference(column)) + word]
        add_row(table, metric_name(row.tag), *cells)
    return table


def _print_layers(compared: CheckpointsCompared, depth: int | None) -> None:
    if compared.layers_problem:
        print_line(compared.layers_problem)
        return
    for each in compared.checkpoints:
        if each.not_finite:
            names = ", ".join(each.not_finite[:_MAX_CHANGES])
            print_line(f"! {each.title} has weights that are NaN or infinite: {names}.")
    whole, listed = compared.layers[0], by_distance(layers_at(compared.layers, depth))
    equal = [layer for layer in listed if is_equal_in_all(layer)]
    if len(equal) > 1:
        listed = [layer for layer in listed if not is_equal_in_all(layer)]
    console().print(_layers_table(compared, [whole, *listed[:_MAX_LAYERS]]))
    if len(listed) > _MAX_LAYERS:
        rest = counted(len(listed) - _MAX_LAYERS, "layer")
        print_line(f"… and {rest} that moved less: `--layers 1` sums them up, `--json` has them all.")
    if len(equal) > 1:
        print_line(f"{counted(len(equal), 'layer')} are equal{_frozen_note(equal)}: `--json` has them all.")
    for each in compared.checkpoints[1:]:
        for said in each.unmatched[:_MAX_CHANGES]:
            print_line(f"not compared with {each.title}: {said}")
        if len(each.unmatched) > _MAX_CHANGES:
            print_line(f"… and {counted(len(each.unmatched) - _MAX_CHANGES, 'more', 'more')}: `--json` has them all.")


def _frozen_note(layers: list[ComparedLayer]) -> str:
    is_frozen = [layer.is_frozen and all(each and each.is_frozen for each in layer.distances) for layer in layers]
    if all(is_frozen):
        return " and frozen"
    return f", {sum(is_frozen):,} of them frozen" if any(is_frozen) else ""


def _layers_table(compared: CheckpointsCompared, layers: list[ComparedLayer]) -> Table:
    others = compared.checkpoints[1:]
    headers = [each for other in others for each in (f"{other.title}: moved>", "", "cosine>", "")]
    table = new_table("layer", "weights>", *headers)
    relatives = [each.relative for layer in layers for each in layer.distances if each is not None]
    largest = max((value for value in relatives if math.isfinite(value)), default=0.0)
    for layer in layers:
        cells = [cell for each in layer.distances for cell in _distance_cells(layer, each, largest)]
        add_row(table, layer.fqn or "(the whole model)", count(layer.num_values), *cells)
    return table


def _distance_cells(layer: ComparedLayer, distance: LayerDistance | None, largest: float) -> list[str]:
    if distance is None:
        return ["–", "", "–", "no counterpart"]
    is_finite = math.isfinite(distance.relative)
    share = distance.relative / largest if is_finite and largest else 0.0
    notes = ["frozen"] if layer.is_frozen and distance.is_frozen else []
    if not distance.distance:
        notes.append("equal" if distance.is_equal else "only statistics differ")
    if distance.num_compared < layer.num_values:
        notes.append(f"{count(distance.num_compared)} compared")
    return [
        f"{distance.relative:.2%}" if is_finite else f"{distance.relative}",
        bar(share / 2),
        "–" if distance.cosine is None else f"{distance.cosine:.4f}",
        ", ".join(notes),
    ]


def _settings_table(compared: CheckpointsCompared) -> Table:
    table = new_table("setting", *(each.title for each in compared.checkpoints))
    for setting in compared.settings:
        add_row(table, setting.name, *(_setting(setting.name, value) for value in setting.values))
    return table


def _setting(name: str, value: Any) -> str:
    if value is None or value == []:
        return "–"
    if name == "plan":
        return plan_text(value)
    return ", ".join(map(str, few(value))) if isinstance(value, list) else str(value)


def _print_confusion(compared: CheckpointsCompared) -> None:
    confusion, names = compared.confusion, compared.confusion.class_names
    first = confusion.matrices[0]
    if first is None:
        print_line(confusion.problems[0])
        return
    for each, other, problem in zip(compared.checkpoints, confusion.matrices, confusion.problems, strict=True):
        if other is None:
            print_line(problem)
            continue
        right, num_images = num_right(other, len(names))
        print_line(f"{each.title}: {right:,} of {num_images:,} validation images right")
        changes = count_changes(first, other, len(names))
        if not changes:
            continue
        table = new_table("class", "taken for", "images>", "now>", "")
        for change in changes[:_MAX_CHANGES]:
            word = "better" if change.is_better else "worse"
            cells = names[change.true_idx], names[change.taken_idx], f"{change.first:,}", f"{change.other:,}", word
            add_row(table, *cells)
        console().print(table)
        if len(changes) > _MAX_CHANGES:
            print_line(f"… and {counted(len(changes) - _MAX_CHANGES, 'more', 'more')}: `--json` has them all.")


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _difference(difference: float | None) -> str:
    if not difference:
        return ""
    # A small difference is not none.
    return f"{difference:+.4f}" if round(difference, 4) else f"{difference:+.0e}"
