"""Exporting a checkpoint: read it, write it as asked, load that again, compare, and only then give it its name."""

from __future__ import annotations

import json
from pathlib import Path

from trainer.export.bundle import write_bundle
from trainer.export.formats import write_checked
from trainer.export.parity import Progress, data_root, sample_images
from trainer.export.shared_model import read_shared_model
from trainer.export.unfinished import check_free, flush, put_in_place, unfinished_beside
from trainer.messages.export import CheckpointExported, ExportCheckpoint, ExportFormat, format_of
from trainer.runs import RunFolder


def export(command: ExportCheckpoint, on_progress: Progress) -> CheckpointExported:
    """Export a checkpoint as a command asks. Where that fails, nothing is left of it, and nothing else is touched.

    Args:
        command: What is to be written, and where.
        on_progress: Called with (what, done, total, unit).

    Raises:
        ValueError: It cannot be read, written, or would not be the same; the sentence says why.

    """
    to = Path(command.to)
    with RunFolder(Path(command.run_dir), read_only=True) as folder:
        if command.is_bundle:
            return write_bundle(folder, command.checkpoint, to, overwrite=command.overwrite, on_progress=on_progress)
        return _export_file(folder, command, to, format_of(to.name, command.format), on_progress)


def _export_file(
    folder: RunFolder, command: ExportCheckpoint, to: Path, name: ExportFormat, on_progress: Progress
) -> CheckpointExported:
    beside = command.places[-1]
    check_free(command.places, overwrite=command.overwrite)
    on_progress("Reading the checkpoint", 0, 0, "")
    model = read_shared_model(folder, command.checkpoint)
    root = data_root(model.config, on_progress)
    images, is_random = sample_images(folder.path, root, model.preprocessing, on_progress)
    with unfinished_beside(to) as aside:
        made = aside / to.name
        description, parity = write_checked(model, name, made, images, is_random, on_progress)
        said = aside / beside.name
        said.write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        flush(aside)
        # Again: it took a while.
        check_free(command.places, overwrite=command.overwrite)
        files = {path.name: path.stat().st_size for path in (made, said)}
        put_in_place([said, made], to.parent)
    return CheckpointExported(
        checkpoint=model.checkpoint.name, path=str(to), files=files, parity=parity, command_id=command.command_id
    )
