"""What a configuration says of single layers, by the fewest names that say it: equal sets are written alike."""

from __future__ import annotations

from trainer.config import RunConfig
from trainer.freezing import FreezeSet, freeze_at_start
from trainer.models import inspect
from trainer.schedules import multiplied_units


def with_fewest_names(config: RunConfig) -> RunConfig:
    """Return a configuration that means the same: what is frozen, adapts and has a rate of its own, by fewest names.

    Raises:
        ValueError: There is no such model, or no such layer in it.

    """
    freeze_set = FreezeSet(*inspect(config.model, image_size=config.data.image_size))
    freeze_at_start(freeze_set, config.model)
    return config.model_copy(
        update={
            "model": config.model.model_copy(
                update={"frozen": freeze_set.fewest_names(freeze_set.frozen), **_adapting(freeze_set)}
            ),
            "optimizer": config.optimizer.model_copy(update={"multipliers": _multipliers(config, freeze_set)}),
        }
    )


def _adapting(freeze_set: FreezeSet) -> dict[str, object]:
    units = freeze_set.units_with_statistics
    if freeze_set.adapting and freeze_set.adapting.issuperset(units):
        return {"batchnorm": "adapting", "adapting": []}
    return {"batchnorm": "frozen", "adapting": freeze_set.fewest_names(freeze_set.adapting, units)}


def _multipliers(config: RunConfig, freeze_set: FreezeSet) -> dict[str, float]:
    by_unit: dict[str, float] = {}
    for units, multiplier in multiplied_units(config.optimizer.multipliers, freeze_set):
        by_unit.update(dict.fromkeys(units, multiplier))
    found: dict[str, float] = {}
    # Those of one number follow each other: of a unit above others, only all its parameters together name it alone.
    for multiplier in sorted({each for each in by_unit.values() if each != 1}):
        units = [unit for unit, each in by_unit.items() if each == multiplier]
        found.update(dict.fromkeys(freeze_set.fewest_names(units), multiplier))
    return found
