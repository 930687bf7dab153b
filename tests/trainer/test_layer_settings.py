"""A configuration's layers by their fewest names, which mean what the many did."""

from __future__ import annotations

import random

import pytest

from trainer.config import ModelConfig, OptimizerConfig, RunConfig
from trainer.freezing import FreezeSet
from trainer.layer_settings import with_fewest_names
from trainer.models import inspect


def freeze_set_of(name: str) -> FreezeSet:
    return FreezeSet(*inspect(ModelConfig(name=name)))


# The head is inside of a layer, a layer's name is "head", the model itself owns a parameter, layers are in a unit.
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "vgg11_bn", "swin_t", "vit_b_16"])
def test_the_fewest_names_of_a_set_stand_for_that_set(name: str) -> None:
    freeze_set = freeze_set_of(name)
    named = [layer for layer in freeze_set._modules if layer and freeze_set._atoms_below[layer]]
    draw = random.Random(name)
    for names in [["backbone"], named, ["*.bias"], *(draw.sample([*named, *freeze_set.atoms], 12) for _ in range(20))]:
        atoms = freeze_set.resolve(names)
        fewest = freeze_set.fewest_names(atoms)
        assert freeze_set.resolve(fewest) == atoms
        assert len(fewest) <= len(freeze_set.names_of(atoms))
    assert freeze_set.fewest_names(freeze_set.resolve(["backbone"])) == ["backbone"]


def test_a_layer_that_holds_the_head_is_not_named_for_what_is_beside_it() -> None:
    config = RunConfig(model=ModelConfig(name="vgg11_bn", frozen=["classifier.0", "classifier.3"]))
    assert with_fewest_names(config) == config


def test_one_rate_of_a_layer_and_another_below_it_are_kept_apart() -> None:
    units = freeze_set_of("swin_t").resolve_units(["features.1"])
    attention = "features.1.0.attn"
    multipliers = dict.fromkeys(units, 0.5) | {f"{attention}.qkv": 0.1, "features.3": 1.0}
    config = RunConfig(model=ModelConfig(name="swin_t"), optimizer=OptimizerConfig(multipliers=multipliers))
    found = with_fewest_names(config).optimizer.multipliers
    assert found[f"{attention}.qkv"] == 0.1
    assert len(found) < len(multipliers)
    assert {attention, "features.1", "features.3"}.isdisjoint(found)
    again = with_fewest_names(config.model_copy(update={"optimizer": OptimizerConfig(multipliers=found)}))
    assert again.optimizer.multipliers == found
