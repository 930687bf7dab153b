"""The tree takes and gives names as the worker does: what a row says it freezes is what is frozen."""

from __future__ import annotations

import pytest

from app.viewmodels.freeze_presets import preset_sets
from app.viewmodels.layer_rows import ROOT_ID, LayerRows
from trainer.config import ModelConfig
from trainer.freezing import FreezeSet
from trainer.messages.model_info import ModelSummary
from trainer.models import inspect, layer_tree

MODELS = ["resnet18", "vit_b_16", "swin_t", "convnext_tiny", "maxvit_t", "mobilenet_v3_small"]


@pytest.fixture(scope="module", params=MODELS)
def both(request) -> tuple[FreezeSet, LayerRows, ModelSummary]:
    config = ModelConfig(name=request.param, frozen=[])
    module, head = inspect(config)
    layers = layer_tree(module, head)
    num_params = layers[0].num_params
    summary = ModelSummary(model=config.name, layers=layers, frozen=[], num_params=num_params, num_trainable=num_params)
    return FreezeSet(module, head), LayerRows(summary), summary


def test_every_name_stands_for_the_same_on_both_sides(both) -> None:
    freeze_set, rows, _ = both
    assert set(rows.atoms) == set(freeze_set.atoms)
    for row in rows.in_order():
        if row.command_names and row.id != ROOT_ID:
            assert set(freeze_set.resolve(row.command_names)) == set(row.atoms), row.fqn
    for pattern in ("*.bias", "*bias", "*[wW]eight"):
        assert rows.atoms_of([pattern]) == set(freeze_set.resolve([pattern])), pattern


def test_a_freeze_set_comes_back_from_the_names_of_either_side(both) -> None:
    freeze_set, rows, _ = both
    for preset, atoms in preset_sets(rows).items():
        assert set(freeze_set.resolve(rows.names_of(atoms))) == atoms, preset
        assert rows.atoms_of_set(freeze_set.names_of(atoms)) == atoms, preset


def test_the_counts_of_the_tree_are_the_models(both) -> None:
    freeze_set, rows, summary = both
    assert sum(rows.num_params_of.values()) == freeze_set.num_params == summary.num_params
    for preset, atoms in preset_sets(rows).items():
        of_model = sum(parameter.numel() for parameter in set(freeze_set.parameters(atoms)))
        assert sum(rows.num_params_of[atom] for atom in atoms) == of_model, preset
