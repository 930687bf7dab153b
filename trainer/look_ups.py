"""Answers to what is looked up: models, a model's tree, a check, a trial; and, in mid-run, a preview."""

from __future__ import annotations

from pathlib import Path

import torch

from trainer import models
from trainer.config import ConfigError
from trainer.messages.base import Event
from trainer.messages.commands import (
    CheckData,
    EstimateRun,
    FindRate,
    InspectModel,
    ListModels,
    PreviewImage,
)
from trainer.messages.events import (
    DataChecked,
    ImagePreviewed,
    ModelInspected,
    ModelsListed,
    RateFound,
    RunEstimated,
)
from trainer.messages.run_info import RateCurve
from trainer.preparation import Preparation, PreparedRun
from trainer.summary import summarize

LookUp = ListModels | InspectModel | CheckData | EstimateRun | FindRate | PreviewImage


def answer(command: LookUp, preparation: Preparation, run: PreparedRun | None = None) -> Event:
    """Look up what a command asks for; ``run`` is the worker's own, if it has one.

    Raises:
        ValueError: There is no such data, model, layer or image, or the trial does not fit into memory.
        PreparationCancelled: The user stopped it, or asked for something else.

    """
    command_id = command.command_id
    match command:
        case ListModels():
            return ModelsListed(models=models.list_models(), command_id=command_id)
        case InspectModel():
            model = command.model, command.num_classes, command.image_size
            return ModelInspected(
                summary=summarize(*model), weights=models.compare_weights(*model), command_id=command_id
            )
        case CheckData():
            scanned = preparation.scan(command.data, command.seed)
            report_path = str(scanned.report_path)
            return DataChecked(
                path=command.data.path, summary=scanned.summary, report_path=report_path, command_id=command_id
            )
        case EstimateRun():
            try:
                estimate = preparation.estimate(command.config, Path(command.runs_dir))
            except torch.OutOfMemoryError:
                sentence = "A trial step ran out of memory. Choose a smaller batch or smaller images."
                raise ConfigError(sentence, "training.batch_size") from None
            return RunEstimated(estimate=estimate, command_id=command_id)
        case FindRate():
            try:
                curve = _found_rate(command, preparation, run)
            except torch.OutOfMemoryError:
                sentence = "A trial step ran out of memory. Choose a smaller batch or smaller images."
                raise ConfigError(sentence, "training.batch_size") from None
            return RateFound(curve=curve, command_id=command_id)
        case PreviewImage():
            views = preparation.preview(command, _present_epoch(command, run))
            return ImagePreviewed(path=command.path, views=views, command_id=command_id)


def _found_rate(command: FindRate, preparation: Preparation, run: PreparedRun | None) -> RateCurve:
    if command.config is None and run is not None:
        return preparation.find_rate_of(run.trainer)
    if command.config is not None and run is None:
        return preparation.find_rate(command.config, Path(command.runs_dir))
    raise ValueError(
        "This worker has no run to find a rate for. Give a configuration."
        if run is None
        else "This worker has a run already: it finds a rate for no other one. Begin a new run first."
    )


def _present_epoch(command: PreviewImage, run: PreparedRun | None) -> int:
    """Return the completed epochs of the run of the images."""
    is_own = run is not None and (command.config, command.report_path) == (run.info.config, run.info.report_path)
    return run.trainer.epoch if run is not None and is_own else 0
