"""What the commands of ``thaw`` share: their options, the runs folder, and how they print."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from app.figures import printable

DEFAULT_RUNS_DIR = "runs"
STEER_TIMEOUT_S = 60.0

RunsDir = Annotated[
    Path | None, typer.Option("--runs", metavar="DIR", help="Folder of the runs; by default THAW_RUNS, or ./runs.")
]
Run = Annotated[str, typer.Argument(metavar="RUN", help='A run\'s folder, a unique piece of its name, or "last".')]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Timeout = Annotated[float, typer.Option("--timeout", min=1, metavar="SECONDS", help="How long to wait for the answer.")]
Layers = Annotated[
    list[str],
    typer.Argument(
        metavar="LAYER...", help='Layers by qualified name, or patterns ("layer4.*.bn?"); also "backbone" and "head".'
    ),
]
LayersOrParameters = Annotated[
    list[str],
    typer.Argument(
        metavar="LAYER...",
        help='Layers or single parameters ("fc.bias") by qualified name, or patterns ("*.bias"); also "backbone" and '
        '"head". What a layer has of running statistics is frozen when all of it is.',
    ),
]
NewRate = Annotated[
    float, typer.Argument(metavar="RATE", help="The new learning rate; the run's schedule goes on from it.")
]
Multiplier = Annotated[
    float, typer.Argument(metavar="MULTIPLIER", help="What the run's rate is multiplied by there; 1 is its own.")
]
Statistics = Annotated[
    Literal["frozen", "adapting"],
    typer.Argument(metavar="frozen|adapting", help="What running statistics do while their layer is frozen."),
]
NewEpochs = Annotated[
    int, typer.Argument(metavar="N", min=1, max=10_000, help="Epochs in all, those completed included.")
]
NewPatience = Annotated[
    int,
    typer.Argument(metavar="N", min=0, max=10_000, help="Epochs without a better validation; 0 ends nothing early."),
]
NewParts = Annotated[
    int, typer.Argument(metavar="N", min=1, max=100_000, help="Parts that a batch goes through the model in.")
]
RewindStep = Annotated[
    int | None,
    typer.Argument(metavar="[STEP]", min=0, help="The step of the change to go back before; by default the last one."),
]
UndoRewind = Annotated[
    bool,
    typer.Option(
        "--undo", help="Go back to where the run was before the last rewind or restore, if nothing changed since."
    ),
]
Phases = Annotated[
    str,
    typer.Argument(
        metavar="PHASES",
        help='What is to come, as "3: +layer4 ×0.4; step 900: -conv1; plateau 2: +backbone"; "" for nothing.',
    ),
]
CheckpointName = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help='An epoch, a unique piece of its name, "best" or "last".')
]
WeightsOnly = Annotated[
    bool,
    typer.Option("--weights-only", help="Its weights alone: position, schedule and freeze set stay as they are."),
]
DataSet = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET",
        readable=False,  # what cannot be read is said by the command, in our words
        help="A folder, a zip or tar, or a CSV or TSV table of images; or a run's CONFIG.toml, whose data are "
        "checked as it says, and for which it is tried out what the run will need.",
    ),
]
Layout = Annotated[
    str,
    typer.Option(metavar="LAYOUT", help="auto, class_folders, split_folders, splits_in_classes, table or file_names."),
]
PathColumn = Annotated[str, typer.Option(metavar="NAME", help="A table's column of image paths.")]
LabelColumn = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="A table's column of classes; or several columns of 0 and 1, with commas between them."
    ),
]
LabelSeparator = Annotated[
    str,
    typer.Option(metavar="SIGN", help='What stands between the classes in a cell: auto, none, ";", "|", "," or space.'),
]
SplitColumn = Annotated[str, typer.Option(metavar="NAME", help="A table's column of splits.")]
GroupColumn = Annotated[str, typer.Option(metavar="NAME", help="A table's column of groups kept together.")]
ValidationFraction = Annotated[
    float, typer.Option(metavar="SHARE", help="Share set aside for validation where the data say nothing.")
]
SplitSeed = Annotated[int, typer.Option(metavar="N", help="Seed of the split.")]
IssuesCsv = Annotated[Path | None, typer.Option(metavar="FILE", help="Write every issue into a CSV file.")]


def runs_dir(context: typer.Context, given: Path | None) -> Path:
    """Return the runs folder: the command's own option, else that before the command, else THAW_RUNS, else ./runs."""
    chosen = given or context.find_root().obj or os.environ.get("THAW_RUNS") or DEFAULT_RUNS_DIR
    return Path(chosen).expanduser().absolute()


def console() -> Console:
    """Return where tables and progress go."""
    # Rich would cut a table to 80 columns where there is no terminal to ask for its width.
    return Console() if sys.stdout.isatty() else Console(width=10_000)


def print_line(text: str) -> None:
    """Print a line to standard output as it is."""
    print(printable(text))  # noqa: T201 (this is the command's output)


def complain(sentence: str, exit_code: int) -> int:
    """Print a sentence to standard error, or a line for each thing that is wrong. Returns ``exit_code``."""
    for line in sentence.splitlines():
        print(f"thaw: {printable(' '.join(line.split()))}", file=sys.stderr)  # noqa: T201 (so is this)
    return exit_code
