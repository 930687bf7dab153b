"""Comparing checkpoints, of one run or of several, with the first of them: weights, settings, and what is mistaken."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint_confusion import confusion_of
from trainer.checkpoints import CheckpointStore
from trainer.config import RunConfig
from trainer.export.parity import Progress
from trainer.layer_distances import LayerDistances, LayerWeights
from trainer.layer_settings import with_fewest_names
from trainer.messages.comparison import (
    CheckpointsCompared,
    CompareCheckpoints,
    ComparedCheckpoint,
    ComparedConfusion,
    ComparedLayer,
    ConfusionCounts,
    SettingDifference,
)
from trainer.messages.run_info import CheckpointInfo, ConfusionMatrix, RunInfo
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder
from trainer.settings import differing, flat_settings


@dataclass(frozen=True)
class _Member:
    """One of the checkpoints, with its run as it was then. ``store`` is of all the run's, which read its base once.

    ``config`` is as the run began, with layers by their fewest names.
    """

    folder: RunFolder
    store: CheckpointStore
    config: RunConfig
    run: RunInfo
    info: CheckpointInfo
    title: str


def compare(command: CompareCheckpoints, on_progress: Progress) -> CheckpointsCompared:
    """Compare checkpoints with the first of them. Nothing of their runs is touched, which may be live.

    Args:
        command: The checkpoints.
        on_progress: Called with (what, done, total, unit).

    Raises:
        ValueError: A checkpoint, or its run, is missing or damaged.

    """
    with ExitStack() as stack:
        members = _open(command, stack)
        checkpoints, layers, problem = _compare_layers(members, on_progress)
        return CheckpointsCompared(
            checkpoints=checkpoints,
            layers=layers,
            layers_problem=problem,
            settings=_compare_settings(members),
            confusion=_compare_confusion(members, command, on_progress),
            command_id=command.command_id,
        )


def _open(command: CompareCheckpoints, stack: ExitStack) -> list[_Member]:
    stores: dict[str, tuple[RunFolder, CheckpointStore]] = {}
    for place in command.checkpoints:
        if str(Path(place.run_dir)) not in stores:
            folder = stack.enter_context(RunFolder(Path(place.run_dir), read_only=True))
            stores[str(folder.path)] = folder, CheckpointStore(folder, read_only=True)
    found = [(*stores[str(Path(place.run_dir))], place.checkpoint) for place in command.checkpoints]
    infos = [folder.checkpoints.find(name) for folder, _, name in found]
    epochs = [(folder.path, info.epoch) for (folder, _, _), info in zip(found, infos, strict=True)]
    run_names = _run_names({run_dir: folder for run_dir, (folder, _) in stores.items()})
    # Layers by name: equal sets are no difference, however they were written.
    configs = {run_dir: with_fewest_names(folder.config()) for run_dir, (folder, _) in stores.items()}
    members = []
    for (folder, store, _), info in zip(found, infos, strict=True):
        run = folder.run_info(info.name)
        if run is None:
            raise RunFolderError(f"{folder.path.name} says nothing of its model's layers. Choose another run.")
        config = configs[str(folder.path)]
        parts = [run_names[str(folder.path)], f"epoch {info.epoch}"][len(stores) == 1 :]
        if epochs.count((folder.path, info.epoch)) > 1:
            parts.append(f"step {info.step:,}")
        members.append(_Member(folder, store, config, run, info, ", ".join(parts)))
    return members


def _run_names(folders: dict[str, RunFolder]) -> dict[str, str]:
    """Name runs by their folders, as shortly as tells them apart."""
    configs = {run_dir: folder.config() for run_dir, folder in folders.items()}
    by_title = {run_dir: config.title for run_dir, config in configs.items()}
    by_model = {run_dir: f"{config.title}-{config.model.name}" for run_dir, config in configs.items()}
    by_folder = {run_dir: folder.path.name for run_dir, folder in folders.items()}
    parts = {run_dir: name.split("_") for run_dir, name in by_folder.items()}
    in_all = set.intersection(*map(set, parts.values()))
    # Of runs of the same model and data mostly the time of day.
    by_part = {run_dir: "_".join(part for part in each if part not in in_all) for run_dir, each in parts.items()}
    for names in (by_title, by_model, by_part, by_folder):
        if all(names.values()) and len(set(names.values())) == len(names):
            return names
    return {run_dir: run_dir for run_dir in folders}


# -- weights ------------------------------------------------------------------------------------------------------


def _compare_layers(
    members: list[_Member], on_progress: Progress
) -> tuple[list[ComparedCheckpoint], list[ComparedLayer], str]:
    distances: LayerDistances | None = None
    compared = []
    for number, member in enumerate(members):
        on_progress("Comparing weights", number, len(members), "checkpoints")
        weights = _read_weights(member)
        unmatched: list[str] = []
        if distances is None:
            distances = LayerDistances(weights)
        else:
            unmatched = distances.add(weights)
        compared.append(
            ComparedCheckpoint(
                title=member.title,
                run_dir=str(member.folder.path),
                info=member.info,
                not_finite=weights.not_finite(),
                unmatched=unmatched,
            )
        )
        # Before the next one is read.
        del weights
    assert distances is not None
    layers = distances.rows()
    if any(distance is not None for layer in layers for distance in layer.distances):
        return compared, layers, ""
    models = dict.fromkeys(member.config.model.name for member in members)
    sentence = f"No layer of {' and of '.join(models)} has both the same name and the same shape: there is no distance."
    return compared, [], sentence


def _read_weights(member: _Member) -> LayerWeights:
    state = member.store.load(member.info)["model_state_dict"]
    return LayerWeights(member.run.summary.layers, member.info.frozen, state)


# -- settings -----------------------------------------------------------------------------------------------------


def _compare_settings(members: list[_Member]) -> list[SettingDifference]:
    found = differing([_settings(member) for member in members])
    return [SettingDifference(name=name, values=values) for name, values in found.items()]


def _settings(member: _Member) -> dict[str, Any]:
    """Return what a checkpoint was trained with, by dotted names; of what the run has changed, as it was then."""
    present = member.run.present
    return {
        "checkpoint.rate": member.info.rate,
        "checkpoint.frozen": member.info.frozen_summary,
        **flat_settings(member.config.model_dump(mode="json")),
        "optimizer.rate": present.rate,
        "training.epochs": present.epochs,
        "training.patience": present.patience,
        "training.batch_parts": present.batch_parts,
        "plan": [phase.model_dump(mode="json") for phase in (*present.begun, *present.plan)],
        "data.fingerprint": member.run.data_fingerprint,
        **flat_settings(member.run.made_with, "made_with."),
    }


# -- confusion ----------------------------------------------------------------------------------------------------


def _compare_confusion(members: list[_Member], command: CompareCheckpoints, on_progress: Progress) -> ComparedConfusion:
    names = members[0].run.class_names
    matrices: list[ConfusionCounts | None] = []
    problems: list[str] = []
    for member in members:
        try:
            matrices.append(_sparse(_confusion(member, names, command, on_progress)))
            problems.append("")
        except (ValueError, OSError) as error:
            # What else is compared does not need the images.
            matrices.append(None)
            problems.append(str(error))
    return ComparedConfusion(class_names=names, matrices=matrices, problems=problems)


def _confusion(
    member: _Member, class_names: list[str], command: CompareCheckpoints, on_progress: Progress
) -> ConfusionMatrix:
    if member.config.data.task == "multi_label":
        raise RunFolderError(
            f"{member.folder.path.name} has no confusion matrix: its images may have several classes, so that none is "
            "taken for another. Look at its F1 and mean AP."
        )
    if member.run.class_names != class_names:
        raise RunFolderError(f"The classes of {member.title} are others than those of the first.")
    if not command.with_confusion:
        kept = member.folder.checkpoints.confusion_of(member.info)
        if kept is None:
            raise RunFolderError(f"The confusion matrix of {member.title} is not kept any more, and was not computed.")
        return kept
    return confusion_of(member.folder, member.info, member.title, on_progress)


def _sparse(matrix: ConfusionMatrix) -> ConfusionCounts:
    num_classes = len(matrix.class_names)
    full = {
        row * num_classes + column: count
        for row, counts in enumerate(matrix.counts)
        for column, count in enumerate(counts)
        if count
    }
    return ConfusionCounts(cells=list(full), counts=list(full.values()))
