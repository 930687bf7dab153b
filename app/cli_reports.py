"""The commands of ``thaw`` that print a table: runs, checkpoints, models, and the check of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.cli_options import Json, Run, RunsDir, console, print_line, runs_dir
from app.figures import counted
from app.json_lines import to_json
from app.listings import (
    MAX_SKIPPED_SHOWN,
    checkpoint_values,
    checkpoints_table,
    classes_table,
    models_table,
    run_values,
    runs_table,
    skipped_table,
)
from app.steering import ask
from app.terminal import TerminalView
from trainer.client import WorkerClient
from trainer.messages import CheckData, DataChecked, ListModels, ModelsListed
from trainer.run_list import find_run, list_runs
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder

commands = typer.Typer()


@commands.command("runs")
def show_runs(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Folder of the runs.")] = None,
    runs: RunsDir = None,
    json: Json = False,
) -> None:
    """List the runs, newest first."""
    chosen = runs_dir(context, folder or runs)
    if folder is not None and not folder.is_dir():
        raise RunFolderError(f"There is no folder {folder}. Give the folder that holds your runs.")
    listings = list_runs(chosen)
    if json:
        print_line(to_json([run_values(run) for run in listings]))
    elif listings:
        console().print(runs_table(listings))
    else:
        print_line(f"No runs in {chosen} yet. Begin one with `thaw demo` or `thaw train CONFIG.toml`.")


@commands.command("checkpoints")
def show_checkpoints(context: typer.Context, run: Run, runs: RunsDir = None, json: Json = False) -> None:
    """List a run's checkpoints, oldest first."""
    run_dir = find_run(run, runs_dir(context, runs))
    with RunFolder(run_dir, read_only=True) as folder:
        if json:
            print_line(to_json(checkpoint_values(folder)))
        elif folder.checkpoints():
            console().print(checkpoints_table(folder))
        else:
            print_line(f"{run_dir.name} has no checkpoints yet: the first comes at the end of its first epoch.")


@commands.command("models")
def show_models(json: Json = False) -> None:
    """List the models that can be fine-tuned."""
    listed = _ask(ListModels())
    assert isinstance(listed, ModelsListed)
    if json:
        print_line(to_json([entry.model_dump(mode="json") for entry in listed.models]))
    else:
        console().print(models_table(listed.models))


@commands.command()
def check(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A folder of class subfolders, or a zip of one.")],
    json: Json = False,
) -> None:
    """Scan a data set: its classes, and the files that no run will read."""
    checked = _ask(CheckData(path=str(dataset.expanduser().absolute())))
    assert isinstance(checked, DataChecked)
    if json:
        print_line(to_json(checked.model_dump(mode="json")))
        return
    console().print(classes_table(checked))
    num_images, num_skipped = sum(checked.class_counts.values()), checked.num_skipped
    classes = counted(len(checked.class_counts), "class", "classes")
    print_line(f"\n{counted(num_images, 'image')} in {classes}, {counted(num_skipped, 'file')} skipped")
    if num_skipped:
        print_line("")
        console().print(skipped_table(checked))
    if num_skipped > MAX_SKIPPED_SHOWN:
        listed = "them all" if num_skipped == len(checked.skipped) else f"the first {len(checked.skipped):,}"
        print_line(f"… and {num_skipped - MAX_SKIPPED_SHOWN:,} more: `--json` lists {listed}.")


def _ask(question: ListModels | CheckData) -> ModelsListed | DataChecked:
    # Progress goes to standard error, so that the table or the JSON can be piped on.
    with TerminalView(Console(stderr=True)) as view:
        return ask(WorkerClient.start(), question, view.show)
