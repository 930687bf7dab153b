"""The commands of ``thaw`` that print a table: runs, checkpoints, models, and the check of a data set."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.cli_options import Json, Run, RunsDir, complain, console, print_line, runs_dir
from app.figures import counted
from app.json_lines import to_json
from app.listings import (
    MAX_ISSUES_SHOWN,
    bins_table,
    check_values,
    checkpoint_values,
    checkpoints_table,
    classes_table,
    issues_table,
    models_table,
    need_sentence,
    rates_table,
    run_values,
    runs_table,
    suggestion_sentence,
)
from app.steering import Answer, CommandRefusedError, Question, ask
from app.terminal import TerminalView
from trainer.client import WorkerClient
from trainer.config import config_from_dict, load_config
from trainer.data_path import look_at
from trainer.data_report import DataReport, write_issues_csv
from trainer.messages import (
    CheckData,
    CommandRejected,
    DataChecked,
    EstimateRun,
    FindRate,
    ListModels,
    ModelsListed,
    RateFound,
    RunEstimated,
)
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
    (listed,) = _ask(ListModels())
    assert isinstance(listed, ModelsListed)
    if json:
        print_line(to_json([entry.model_dump(mode="json") for entry in listed.models]))
    else:
        console().print(models_table(listed.models))


@commands.command()
def check(
    context: typer.Context,
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            readable=False,  # what cannot be read is said below, in our words
            help="A folder, a zip or tar, or a CSV or TSV table of images; or a run's CONFIG.toml, whose data are "
            "checked as it says, and for which it is tried out what the run will need.",
        ),
    ],
    layout: Annotated[
        str, typer.Option(metavar="LAYOUT", help="auto, class_folders, split_folders, table or file_names.")
    ] = "auto",
    path_column: Annotated[str, typer.Option(metavar="NAME", help="A table's column of image paths.")] = "",
    label_column: Annotated[str, typer.Option(metavar="NAME", help="A table's column of classes.")] = "",
    split_column: Annotated[str, typer.Option(metavar="NAME", help="A table's column of splits.")] = "",
    group_column: Annotated[str, typer.Option(metavar="NAME", help="A table's column of groups kept together.")] = "",
    validation_fraction: Annotated[
        float, typer.Option(metavar="SHARE", help="Share set aside for validation where the data say nothing.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the split.")] = 7,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every issue into a CSV file.")] = None,
    json: Json = False,
) -> int:
    """Scan a data set: classes, splits, leaks, duplicates, and the files that no run will read."""
    is_run = dataset.suffix.lower() == ".toml"
    config = (
        load_config(dataset)
        if is_run
        else config_from_dict(
            {
                "data": {
                    "path": str(dataset.expanduser().absolute()),
                    "layout": layout,
                    "path_column": path_column,
                    "label_column": label_column,
                    "split_column": split_column,
                    "group_column": group_column,
                    "validation_fraction": validation_fraction,
                },
                "training": {"seed": seed},
            }
        )
    )
    # The worker says the same, but not before it has loaded torch.
    look_at(config.data)
    questions: list[Question] = [CheckData(data=config.data, seed=config.training.seed)]
    if is_run:
        questions.append(EstimateRun(config=config, runs_dir=str(runs_dir(context, None))))
    checked, *estimated = _ask(*questions)
    assert isinstance(checked, DataChecked)
    need = next((answer.estimate for answer in estimated if isinstance(answer, RunEstimated)), None)
    with closing(DataReport(Path(checked.report_path))) as report:
        if csv is not None:
            write_issues_csv(csv, report.issues())
        if json:
            print_line(to_json(check_values(checked, report, need)))
        else:
            _print_check(checked, report)
            if need is not None:
                print_line(f"\n{need_sentence(need)}")
    refused = next((answer for answer in estimated if isinstance(answer, CommandRejected)), None)
    return complain(refused.reason, 2) if refused is not None else 0


@commands.command("find-rate")
def find_rate(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The run's configuration.")],
    runs: RunsDir = None,
    json: Json = False,
) -> None:
    """Try rising learning rates on a run, and suggest one."""
    loaded = load_config(config)
    # The worker says the same, but not before it has loaded torch.
    look_at(loaded.data)
    (found,) = _ask(FindRate(config=loaded, runs_dir=str(runs_dir(context, runs))))
    assert isinstance(found, RateFound)
    if json:
        print_line(to_json(found.curve.model_dump(mode="json")))
        return
    console().print(rates_table(found.curve))
    print_line(f"\n{suggestion_sentence(found.curve)}")


def _print_check(checked: DataChecked, report: DataReport) -> None:
    summary = checked.summary
    console().print(classes_table(summary))
    counts = ", ".join(f"{sum(counts):,} {split}" for split, counts in summary.counts.items())
    classes = counted(len(summary.class_names), "class", "classes")
    print_line(
        f"\n{summary.layout.replace('_', ' ')}: {counts} in {classes}, {counted(summary.num_skipped, 'file')} skipped"
    )
    if summary.image_sides:
        smallest, median, largest = (f"{width:,} × {height:,}" for width, height in summary.image_sides)
        low, high = summary.aspects[0], summary.aspects[-1]
        print_line(f"{smallest} to {largest} pixels, median {median}; width to height {low:g} to {high:g}")
    for bins in report.bins().values():
        if bins:
            print_line("")
            console().print(bins_table(bins))
    if summary.advice:
        print_line("")
    for sentence in summary.advice:
        print_line(f"! {sentence}")
    num_issues = sum(summary.issue_counts.values())
    if num_issues:
        print_line("")
        console().print(issues_table(report.issues()))
    if num_issues > MAX_ISSUES_SHOWN:
        print_line(f"… and {num_issues - MAX_ISSUES_SHOWN:,} more: `--csv FILE` writes them all.")


def _ask(*questions: Question) -> list[Answer]:
    """Return a new worker's answers: to the first question, and to the others up to one that is refused.

    Raises:
        CommandRefusedError: The worker refused the first one.

    """
    # Progress goes to standard error, so that the table or the JSON can be piped on.
    with TerminalView(Console(stderr=True)) as view:
        answers = ask(WorkerClient.start(), questions, view.show)
    if isinstance(answers[0], CommandRejected):
        raise CommandRefusedError(answers[0].reason)
    return answers
