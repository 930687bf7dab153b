"""The command of ``thaw`` that writes a checkpoint for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from app.cli_errands import do_errand
from app.cli_options import CheckpointName, Json, Run, RunsDir, complain, console, print_line, runs_dir
from app.figures import printable, shown_path, size
from app.json_lines import to_json
from trainer.messages.export import (
    FORMAT_SENTENCES,
    CheckpointExported,
    ExportCheckpoint,
    ExportFormat,
    format_of,
    name_of,
)
from trainer.run_list import find_run
from trainer.runs import RunFolder

commands = typer.Typer()


@commands.command()
def export(
    context: typer.Context,
    run: Run,
    checkpoint: CheckpointName,
    to: Annotated[
        Path,
        typer.Option("--to", metavar="FILE", help="The file; of a bundle, its folder or .zip."),
    ],
    chosen: Annotated[
        ExportFormat | None,
        typer.Option(
            "--format",
            help="By default the ending's: .pt is a bare state_dict. Others of that ending: course (with the "
            "optimizer's state), pickle (the whole model, which executes code when it is loaded).",
        ),
    ] = None,
    bundle: Annotated[
        bool,
        typer.Option(
            "--bundle", help="With a model card, and scripts that predict and repeat the run in plain PyTorch."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    runs: RunsDir = None,
    json: Json = False,
) -> None:
    """Write a checkpoint for others, and compare what the file computes with the run."""
    run_dir = find_run(run, runs_dir(context, runs))
    if bundle and chosen is not None:
        raise ValueError("A bundle has formats of its own. Leave --format out, or --bundle.")
    filename = name_of(to)
    kind = None if bundle else format_of(filename, chosen)
    with RunFolder(run_dir, read_only=True) as folder:
        name = folder.checkpoints.find(checkpoint).name
    exported = do_errand(
        ExportCheckpoint(
            run_dir=str(run_dir.absolute()),
            checkpoint=name,
            to=str(to.expanduser().absolute()),
            format=kind,
            is_bundle=bundle,
            overwrite=overwrite,
        ),
        CheckpointExported,
    )
    if json:
        print_line(to_json(exported.model_dump(mode="json")))
        return
    _print(exported, kind)


def _print(exported: CheckpointExported, kind: ExportFormat | None) -> None:
    path = Path(exported.path)
    print_line(f"{exported.checkpoint} is exported to {shown_path(path)}.")
    files = Table.grid(padding=(0, 2))
    files.add_column()
    files.add_column(justify="right")
    for name, num_bytes in exported.files.items():
        files.add_row(printable(name), size(num_bytes))
    console().print(files)
    print_line(exported.parity.sentence)
    if kind == "pickle":
        complain(FORMAT_SENTENCES[kind], 0)
    for note in exported.notes:
        complain(note, 0)
