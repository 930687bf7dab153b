"""A bundle: a checkpoint with all that is needed to use it, and to repeat its run, without Thaw."""

from __future__ import annotations

import bisect
import csv
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from trainer.checkpoints import CheckpointStore
from trainer.export.curve_picture import draw_curves
from trainer.export.formats import write_checked
from trainer.export.model_card import model_card
from trainer.export.parity import Progress, data_root, sample_images
from trainer.export.recipe import RecipeError, images_table, predict_script, train_script
from trainer.export.shared_model import ExportError, SharedModel, read_shared_model
from trainer.export.timeline import changes_until
from trainer.export.unfinished import check_free, flush, put_in_place, unfinished_beside
from trainer.messages.export import BUNDLE_ARCHIVE, CheckpointExported, ExportFormat, Parity
from trainer.models import with_version
from trainer.run_record import Curve, RunRecord
from trainer.runs import RunFolder

CARD = "README.md"
_LEFT_BY_PYTHON = "__pycache__"

_FILES = {
    "model.pt": "the weights, a bare state_dict",
    "model.safetensors": "the same weights, with what they mean in the header",
    "model.json": "classes, preprocessing, metrics, versions, and how the weights were checked",
    "class_names.json": "the names of the classes, in the order of the outputs",
    "metrics.json": "what the validation split gave",
    "curves.csv": "all that was measured, by step",
    "curves.png": "loss and accuracy by step",
    "run.toml": "the run's configuration, as Thaw reads it",
    "environment.json": "the versions that were used",
    "predict.py": "predicts images, in plain PyTorch",
    "train.py": "repeats the run, in plain PyTorch",
    "base.pt": "the weights at the start of the run, for train.py",
    "images.csv": "which image is in which split, for train.py",
}


def write_bundle(
    folder: RunFolder, name: str, to: Path, *, overwrite: bool, on_progress: Progress
) -> CheckpointExported:
    """Write a checkpoint's bundle: a folder, or a .zip of one.

    Args:
        folder: The run's folder.
        name: Names the checkpoint.
        to: The bundle's folder or file.
        overwrite: Whether an older bundle there may be replaced.
        on_progress: Called with (what, done, total, unit).

    Raises:
        ValueError: It cannot be read or written.

    """
    is_archive = to.suffix.lower() == BUNDLE_ARCHIVE
    _check_place(to, is_archive=is_archive, overwrite=overwrite)
    on_progress("Reading the checkpoint", 0, 0, "")
    model = read_shared_model(folder, name)
    with unfinished_beside(to) as aside:
        bundle = aside / (to.stem if is_archive else to.name)
        bundle.mkdir()
        parity, notes = _fill(bundle, folder, model, on_progress)
        files = {path.name: path.stat().st_size for path in sorted(bundle.iterdir())}
        if is_archive:
            bundle = _archived(bundle, aside / "archive" / to.name)
            files = {to.name: bundle.stat().st_size}
        flush(bundle)
        _check_place(to, is_archive=is_archive, overwrite=overwrite)
        _put_in_place(bundle, to, aside / "replaced")
    return CheckpointExported(checkpoint=model.checkpoint.name, path=str(to), files=files, parity=parity, notes=notes)


def _check_place(to: Path, *, is_archive: bool, overwrite: bool) -> None:
    if is_archive or not to.is_dir():
        check_free([to], overwrite=overwrite and is_archive)
        return
    if not overwrite:
        check_free([to], overwrite=False)
    foreign = [path.name for path in to.iterdir() if path.name not in {CARD, _LEFT_BY_PYTHON, *_FILES}]
    if foreign:
        raise ExportError(
            f"{to} has {foreign[0]} in it, which is of no bundle, and would be lost. Choose another folder."
        )


def _put_in_place(bundle: Path, to: Path, replaced: Path) -> None:
    is_there = to.is_dir()
    if is_there:
        # A folder with anything in it is replaced by none.
        to.replace(replaced)
    try:
        put_in_place([bundle], to.parent)
    except OSError:
        if is_there:
            replaced.replace(to)
        raise


def _fill(bundle: Path, folder: RunFolder, model: SharedModel, on_progress: Progress) -> tuple[Parity, list[str]]:
    """Write all files of a bundle. Returns the parity of its weights, and sentences about what it lacks."""
    record = folder.read()
    curves = _cut(folder.curves(model.checkpoint.segment), model.checkpoint.step)
    root = data_root(model.config, on_progress)
    images, is_random = sample_images(folder.path, root, model.preprocessing, on_progress)
    parities: list[Parity] = []
    hashes: dict[str, str] = {}
    kinds: tuple[ExportFormat, ...] = ("pt", "safetensors")
    for kind in kinds:
        path = bundle / f"model.{kind}"
        said, parity = write_checked(model, kind, path, images, is_random, on_progress)
        parities.append(parity)
        hashes[path.name] = said["sha256"]
    largest = max(parities, key=lambda parity: parity.largest_difference)
    checked = {"parity": {**largest.model_dump(), "sentence": largest.sentence}, "sha256": hashes}
    _write_json(bundle / "model.json", {**model.description(), **checked})
    _write_json(bundle / "class_names.json", model.class_names)
    _write_json(bundle / "metrics.json", model.description()["metrics"])
    _write_json(bundle / "environment.json", model.description()["versions"])
    _write_curves(bundle / "curves.csv", curves)
    draw_curves(curves, bundle / "curves.png")
    shutil.copyfile(folder.path / "run.toml", bundle / "run.toml")
    _write_text(bundle / "predict.py", predict_script(model))
    on_progress("Writing the scripts", 0, 0, "")
    notes = _write_recipe(bundle, folder, model, record, curves, root)
    present = {name: what for name, what in _FILES.items() if (bundle / name).exists()}
    changes = changes_until(model.checkpoint, record.log, record.checkpoints)
    _write_text(bundle / CARD, "\n".join([model_card(model, record.info, changes, largest, present), *notes]))
    return largest, notes


def _write_recipe(
    bundle: Path,
    folder: RunFolder,
    model: SharedModel,
    record: RunRecord,
    curves: Mapping[str, Curve],
    root: Path | None,
) -> list[str]:
    """Write what repeats the run. Returns a sentence where that cannot be done."""
    try:
        table = images_table(folder.path, model, record.info)
        script = train_script(model, record, curves, root)
    except RecipeError as error:
        return [str(error)]
    _write_text(bundle / "images.csv", table)
    _write_text(bundle / "train.py", script)
    base = CheckpointStore(folder, read_only=True).read_base()
    torch.save(with_version(model.module, base), bundle / "base.pt")
    return []


def _cut(curves: Mapping[str, Curve], step: int) -> dict[str, Curve]:
    """Return the curves up to a checkpoint's step."""
    nums = {tag: bisect.bisect_right(curve.steps, step) for tag, curve in curves.items()}
    return {tag: Curve(curves[tag].steps[:num], curves[tag].values[:num]) for tag, num in nums.items() if num}


def _write_curves(path: Path, curves: Mapping[str, Curve]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tag", "step", "value"])
        for tag, curve in curves.items():
            # In full: a loss of train.py is compared to the bit.
            writer.writerows((tag, step, repr(value)) for step, value in zip(curve.steps, curve.values, strict=True))


def _archived(bundle: Path, to: Path) -> Path:
    to.parent.mkdir()
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(bundle.iterdir()):
            archive.write(path, f"{bundle.name}/{path.name}")
    return to


def _write_json(path: Path, values: object) -> None:
    _write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
