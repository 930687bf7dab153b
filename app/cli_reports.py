"""The commands of ``thaw`` that print a table: runs, models, a model, and the check of a data set."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from app.cli_options import (
    DataSet,
    GroupColumn,
    IssuesCsv,
    Json,
    LabelColumn,
    LabelSeparator,
    Layout,
    PathColumn,
    Run,
    RunsDir,
    SplitColumn,
    SplitSeed,
    ValidationFraction,
    complain,
    console,
    print_line,
    runs_dir,
)
from app.data_listings import bins_table, check_values, classes_table, issues_table, need_sentence
from app.figures import counted
from app.json_lines import to_json
from app.listings import (
    MAX_CLASSES_ACROSS,
    confused_table,
    confusion_table,
    features_sentence,
    models_table,
    rates_table,
    run_values,
    runs_table,
    suggestion_sentence,
    summary_table,
    summary_totals,
    summary_values,
)
from app.questions import Answer, Question, ask
from app.terminal import TerminalView
from app.worker_talk import CommandRefusedError, with_fields
from trainer.client import WorkerClient
from trainer.config import ConfigError, RunConfig, config_from_dict, config_to_toml, load_config, resolve_paths
from trainer.data_path import load_run, look_at
from trainer.data_report import DataReport, DataReportError, check_csv_path, write_issues_csv
from trainer.messages.commands import CheckData, EstimateRun, FindRate, InspectModel, ListModels
from trainer.messages.events import CommandRejected, DataChecked, ModelInspected, ModelsListed, RateFound, RunEstimated
from trainer.messages.run_info import RunEstimate
from trainer.plans import PlanName, make_plan, plan_named
from trainer.run_list import find_run, list_runs
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder

_OPTIONS = {
    "data.layout": "--layout",
    "data.path_column": "--path-column",
    "data.label_column": "--label-column",
    "data.label_separator": "--label-separator",
    "data.split_column": "--split-column",
    "data.group_column": "--group-column",
    "data.validation_fraction": "--validation-fraction",
    "training.seed": "--seed",
}
"""The options of ``thaw check`` for fields of a configuration."""

commands = typer.Typer()


@commands.command("runs")
def show_runs(
    context: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Folder of the runs.")] = None,
    runs: RunsDir = None,
    json: Json = False,
) -> None:
    """List the runs, newest first, each with its branches below it."""
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


@commands.command("confusion")
def show_confusion(
    context: typer.Context,
    run: Run,
    of: Annotated[
        str, typer.Option("--of", metavar="WHICH", help='"best" or "latest" validation, or the "test" split.')
    ] = "best",
    runs: RunsDir = None,
    json: Json = False,
) -> None:
    """Show which classes a run takes for which: a row for each class, a column for what it was taken for."""
    # With numpy, for which no other command waits.
    from app.confusion import CONFUSIONS, read_off

    if of not in CONFUSIONS:
        raise RunFolderError(f"There is no confusion matrix of {of!r}. Use one of: {', '.join(CONFUSIONS)}.")
    run_dir = find_run(run, runs_dir(context, runs))
    with RunFolder(run_dir, read_only=True) as folder:
        matrix = folder.checkpoints.confusion(of)
    if json:
        print_line(to_json(matrix.model_dump(mode="json")))
        return
    confusion = read_off(matrix)
    print_line(f"{confusion.split.capitalize()} of {confusion.checkpoint}, at step {confusion.step:,}")
    table = confusion_table(confusion) if len(confusion.class_names) <= MAX_CLASSES_ACROSS else None
    if table is not None and console().measure(table).maximum <= console().width:
        console().print(table)
    elif confusion.pairs:
        console().print(confused_table(confusion))
    else:
        print_line("Every image was taken for its own class.")


@commands.command("models")
def show_models(json: Json = False) -> None:
    """List the models that can be fine-tuned."""
    (listed,) = ask_worker(ListModels())
    assert isinstance(listed, ModelsListed)
    if json:
        print_line(to_json([entry.model_dump(mode="json") for entry in listed.models]))
    else:
        console().print(models_table(listed.models))


@commands.command("summary")
def show_summary(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A model's name (`thaw models` lists them), or a run's CONFIG.toml for all it says."
        ),
    ],
    image_size: Annotated[
        int | None, typer.Option(metavar="N", help="Side of the images in pixels; by default the weights' own.")
    ] = None,
    num_classes: Annotated[int, typer.Option(min=1, metavar="N", help="Outputs of the head.")] = 10,
    weights: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Weights to compare with the model: a file, or the name of published ones."),
    ] = None,
    json: Json = False,
) -> int:
    """Show a model's layers: shapes, parameters, what is trainable, and what one image costs."""
    config = load_config(Path(model)) if model.lower().endswith(".toml") else RunConfig()
    values = config.model_dump()
    if not model.lower().endswith(".toml"):
        values["model"]["name"] = model
    if weights is not None:
        values["model"]["weights"] = weights
    if image_size is not None:
        values["data"]["image_size"] = image_size
    config = resolve_paths(config_from_dict(values), Path.cwd())
    num_outputs = config.data.num_outputs(num_classes)
    question = InspectModel(model=config.model, num_classes=num_outputs, image_size=config.data.image_size)
    (inspected,) = ask_worker(question)
    assert isinstance(inspected, ModelInspected)
    if json:
        print_line(to_json(summary_values(inspected)))
    else:
        console().print(summary_table(inspected.summary))
        print_line("")
        console().print(summary_totals(inspected.summary))
        size = inspected.summary.image_size
        print_line(f"\nFor one image of {size} × {size} pixels, in fp32.")
        if inspected.summary.features is not None:
            print_line(features_sentence(inspected.summary.features))
    fit = inspected.weights
    if fit is not None and not fit.is_usable:
        return complain(fit.sentence, 2)
    if fit is not None and not json:
        print_line(fit.sentence)
    return 0


@commands.command()
def check(
    context: typer.Context,
    dataset: DataSet,
    layout: Layout = "auto",
    path_column: PathColumn = "",
    label_column: LabelColumn = "",
    label_separator: LabelSeparator = "auto",
    split_column: SplitColumn = "",
    group_column: GroupColumn = "",
    validation_fraction: ValidationFraction = 0.2,
    seed: SplitSeed = 7,
    csv: IssuesCsv = None,
    json: Json = False,
) -> int:
    """Scan a data set: classes, splits, leaks, duplicates, and the files that no run will read."""
    is_run = dataset.suffix.lower() == ".toml"
    if is_run:
        config = load_run(dataset)
    else:
        data = {
            "path": str(dataset.expanduser().absolute()),
            "layout": layout,
            "path_column": path_column,
            "label_column": label_column,
            "label_separator": label_separator,
            "split_column": split_column,
            "group_column": group_column,
            "validation_fraction": validation_fraction,
        }
        config = _config_of_options({"data": data, "training": {"seed": seed}})
    # The worker says the same, but not before it has loaded torch.
    data_path, _ = look_at(config.data)
    if csv is not None:
        _check_csv(csv, data_path)
    questions: list[Question] = [CheckData(data=config.data, seed=config.training.seed)]
    if is_run:
        questions.append(EstimateRun(config=config, runs_dir=str(runs_dir(context, None))))
    try:
        checked, *estimated = ask_worker(*questions)
    except CommandRefusedError as error:
        raise _named_refusal(error, dataset if is_run else None) from error
    assert isinstance(checked, DataChecked)
    need = next((answer.estimate for answer in estimated if isinstance(answer, RunEstimated)), None)
    _show_check(checked, need, csv, as_json=json)
    refused = next((answer for answer in estimated if isinstance(answer, CommandRejected)), None)
    return complain(refused.reason, 2) if refused is not None else 0


def _check_csv(csv: Path, data_path: Path) -> None:
    check_csv_path(csv)
    if csv.exists() and csv.samefile(data_path):
        raise DataReportError(f"{csv} is the data set itself. Choose another file for the issues.")


def _named_refusal(error: CommandRefusedError, config: Path | None) -> CommandRefusedError:
    """Name what is to be changed: the field of the configuration that was checked, or without one the option."""
    if config is not None:
        return CommandRefusedError(with_fields(error.sentences, config.name))
    lines = (
        f"{sentence} The option is `{_OPTIONS[field]}`." if field in _OPTIONS else sentence
        for field, sentence in error.sentences.items()
    )
    return CommandRefusedError("\n".join(lines))


def _show_check(checked: DataChecked, need: RunEstimate | None, csv: Path | None, *, as_json: bool) -> None:
    with closing(DataReport(Path(checked.report_path))) as report:
        if csv is not None:
            write_issues_csv(csv, report.issues())
        if as_json:
            print_line(to_json(check_values(checked, report, need)))
            return
        _print_check(checked, report)
        if need is not None:
            print_line(f"\n{need_sentence(need)}")


def _config_of_options(values: dict[str, Any]) -> RunConfig:
    """Check the values of options.

    Raises:
        ConfigError: One is out of its range; names the option in place of the field.

    """
    try:
        return config_from_dict(values)
    except ConfigError as error:
        option = _OPTIONS.get(error.field, error.field)
        raise ConfigError(str(error).replace(error.field, option, 1), error.field) from error


@commands.command()
def plan(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The run's configuration; it is not changed.")],
    name: Annotated[str, typer.Argument(metavar="PLAN", help=f"One of: {', '.join(each.words for each in PlanName)}.")],
    every: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Epochs of a phase; by default an even share of the run."),
    ] = None,
) -> None:
    """Print a configuration with a plan that has a name, written out for its model: what to freeze, rates, phases."""
    loaded, named = load_config(config), plan_named(name)
    (inspected,) = ask_worker(InspectModel(model=loaded.model, num_classes=2, image_size=loaded.data.image_size))
    assert isinstance(inspected, ModelInspected)
    made = make_plan(named, inspected.summary.layers, loaded.training.epochs, every)
    planned = loaded.model_copy(
        update={
            "model": loaded.model.model_copy(update={"frozen": made.frozen}),
            "optimizer": loaded.optimizer.model_copy(update={"multipliers": made.multipliers}),
            "plan": made.phases,
        }
    )
    print_line(config_to_toml(planned).rstrip())


@commands.command("find-rate")
def find_rate(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The run's configuration.")],
    runs: RunsDir = None,
    json: Json = False,
) -> None:
    """Try rising learning rates on a run, and suggest one."""
    loaded = load_run(config)
    (found,) = ask_worker(FindRate(config=loaded, runs_dir=str(runs_dir(context, runs))))
    assert isinstance(found, RateFound)
    if json:
        print_line(to_json(found.curve.model_dump(mode="json")))
        return
    console().print(rates_table(found.curve))
    print_line(f"\n{suggestion_sentence(found.curve)}")


def _print_check(checked: DataChecked, report: DataReport) -> None:
    summary = checked.summary
    console().print(classes_table(summary))
    counts = ", ".join(f"{number:,} {split}" for split, number in summary.num_images.items())
    classes = counted(len(summary.class_names), "class", "classes")
    if summary.is_multi_label:
        classes += ", several to an image (task multi_label)"
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
        table, num_untold = issues_table(report.issues())
        print_line("")
        console().print(table)
        if num_untold:
            print_line(f"… and {num_untold:,} more: `--csv FILE` writes them all.")
        elif table.row_count < num_issues:
            print_line(f"`--csv FILE` writes all {num_issues:,} of them.")


def ask_worker(*questions: Question) -> list[Answer]:
    """Return a new worker's answers: to the first question, and to the others up to one that is refused.

    Raises:
        CommandRefusedError: The worker refused the first one.

    """
    # Progress goes to standard error, so that the table or the JSON can be piped on.
    with TerminalView(Console(stderr=True)) as view:
        answers = ask(WorkerClient.start(), questions, view.show)
    if isinstance(answers[0], CommandRejected):
        raise CommandRefusedError(answers[0].reason, answers[0].by_field)
    return answers
