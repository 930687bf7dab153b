"""What can be told of a run's configuration before its data are looked through: all that is wrong, at once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from trainer.compute import check_compute
from trainer.config import ConfigError, RunConfig
from trainer.config_error import Faults
from trainer.fitting import load
from trainer.freezing import FreezeError, FreezeSet
from trainer.models import GivenWeights, inspect, preprocessing_of, read_file
from trainer.optim import choose_device
from trainer.schedules import check_layers, multiplied_units
from trainer.weights import ModelError

_NUM_CLASSES = 10
"""Stands for what the data will tell. The layers' names do not depend on it."""


def check_run(config: RunConfig, faults: Faults, *, with_weights: bool, given: GivenWeights | None = None) -> None:
    """Note what is wrong with a run's device, model, weights, images' sides, layers and plan.

    Nothing is downloaded, and no model made but one without memory.

    Args:
        config: The run's configuration.
        faults: Where it is noted.
        given: Weights that it is to have instead of those of its configuration.
        with_weights: Whether its file of weights matters: a run that goes on has its own.

    """
    with faults.noting():
        check_compute(config, choose_device(config.training.device))
    num_outputs = config.data.num_outputs(_NUM_CLASSES)
    state = None if given is None else given.state
    sized: tuple[nn.Module, list[str]] | None = None
    with faults.noting():
        if given is None and with_weights and config.model.weights_file:
            state = read_file(config.model)
    with faults.noting():
        sized = inspect(config.model, num_outputs, config.data.image_size)
    with faults.noting():
        # Where the size is wrong: the layers are those of any other.
        module, head = sized or inspect(config.model, num_outputs)
        _check_layers(config, FreezeSet(module, head), faults)
    if sized is None:
        return
    preprocessing = preprocessing_of(config.model, config.data.image_size)
    with faults.noting():
        preprocessing.edited(config.data)
    with faults.noting():
        if state is not None:
            source = config.model.weights if given is None else given.source
            report = load(
                config.model.name,
                sized[0],
                sized[1][0],
                state,
                source,
                preprocessing.image_size,
                must_be_finite=given is None,
            )
            if not report.is_usable:
                raise ModelError(report.sentence, "model.weights" if given is None else "model.name")


def _check_layers(config: RunConfig, freeze_set: FreezeSet, faults: Faults) -> None:
    frozen: list[str] = []
    with faults.noting():
        frozen = _frozen_atoms(config.model.frozen, freeze_set)
    with faults.noting():
        _check_adapting(config.model.adapting, freeze_set)
    with faults.noting():
        check_layers(config.plan, freeze_set, set(frozen))
    with faults.noting():
        multiplied_units(config.optimizer.multipliers, freeze_set)


def _frozen_atoms(layers: Sequence[str], freeze_set: FreezeSet) -> list[str]:
    try:
        atoms = freeze_set.resolve(layers)
        freeze_set.check(atoms)
    except FreezeError as error:
        raise ConfigError(str(error), "model.frozen") from error
    return atoms


def _check_adapting(layers: Sequence[str], freeze_set: FreezeSet) -> None:
    # Each by itself: one that has no statistics was meant to be another.
    for layer in layers:
        try:
            freeze_set.with_statistics([layer])
        except FreezeError as error:
            raise ConfigError(str(error), "model.adapting") from error
