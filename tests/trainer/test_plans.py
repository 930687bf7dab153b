"""Named plans written out for every model, and the phases as a run goes through them."""

from __future__ import annotations

import math

import pytest

from trainer.config import ConfigError, ModelConfig, PlanPhase, RunConfig
from trainer.freezing import FreezeSet
from trainer.messages.model_info import LayerInfo
from trainer.models import inspect, layer_tree, list_models
from trainer.plans import PlanName, make_plan, plan_named, stages
from trainer.schedules import Plan, check_plan, frozen_after


def tree_of(name: str) -> tuple[FreezeSet, list[LayerInfo]]:
    module, head = inspect(ModelConfig(name=name))
    return FreezeSet(module, head), layer_tree(module, head)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", [["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]]),
        ("shufflenet_v2_x0_5", [["conv1"], ["stage2"], ["stage3"], ["stage4", "conv5"]]),
        ("vgg11", [["features"], ["classifier.0", "classifier.3"]]),
    ],
)
def test_a_backbone_is_divided_at_its_blocks(name: str, expected: list[list[str]]) -> None:
    assert stages(tree_of(name)[1]) == expected


def test_a_transformers_blocks_are_its_stages() -> None:
    of_model = stages(tree_of("vit_b_16")[1])
    assert len(of_model) == 13
    assert of_model[0] == ["class_token", "conv_proj", "encoder.pos_embedding"]
    assert of_model[-1] == ["encoder.layers.encoder_layer_11", "encoder.ln"]


def test_a_part_that_holds_nearly_everything_is_no_stage() -> None:
    of_model = stages(tree_of("maxvit_t")[1])
    assert [stage[0] for stage in of_model[:5]] == ["stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3"]


@pytest.mark.slow
def test_every_model_has_stages_that_share_nothing_leave_nothing_out_and_have_a_rate_each() -> None:
    for entry in list_models():
        freeze_set, layers = tree_of(entry.name)
        found = [set(freeze_set.resolve(stage)) for stage in stages(layers)]
        assert len(found) >= 2, entry.name
        assert sum(map(len, found)) == len(set().union(*found)), entry.name
        assert set(freeze_set.resolve(["backbone"])) == set().union(*found), entry.name
        for layer in make_plan(PlanName.LAYER_DECAY, layers, num_epochs=3).multipliers:
            freeze_set.resolve_units([layer])


@pytest.mark.parametrize("model", ["vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"])
def test_a_transformers_own_parameters_go_with_its_first_stage(model: str) -> None:
    freeze_set, layers = tree_of(model)
    own = {"class_token", "encoder.pos_embedding"}
    frozen = set(freeze_set.resolve(make_plan(PlanName.LAST_STAGE, layers, num_epochs=3).frozen))
    assert own <= frozen
    assert set(freeze_set.atoms) - frozen == set(freeze_set.resolve([*stages(layers)[-1], "head"]))
    rates = make_plan(PlanName.LAYER_DECAY, layers, num_epochs=3).multipliers
    assert {rates[name] for name in own} == {min(rates.values())}
    assert freeze_set.resolve_units(own) == ["", "encoder"]


@pytest.mark.parametrize("model", ["resnet18", "vit_b_16", "efficientnet_b0", "alexnet"])
@pytest.mark.parametrize("name", list(PlanName))
def test_each_plan_works_with_each_kind_of_model(model: str, name: PlanName) -> None:
    freeze_set, layers = tree_of(model)
    num_epochs = 60
    plan = make_plan(name, layers, num_epochs)
    freeze_set.frozen_atoms = set(freeze_set.resolve(plan.frozen))
    freeze_set.resolve_units(plan.multipliers)
    check_plan(plan.phases, freeze_set, num_epochs, 10)
    frozen = set(freeze_set.frozen_atoms)
    for phase in plan.phases:
        frozen = frozen_after(phase, freeze_set, frozen)
    ends_with_everything = {PlanName.GRADUAL, PlanName.LP_FT, PlanName.CHAIN_THAW, PlanName.LAYER_DECAY}
    assert (frozen == set()) == (name in ends_with_everything)


def test_gradual_unfreezing_goes_from_the_output_with_rates_that_fall_by_2_6_a_stage() -> None:
    plan = make_plan(PlanName.GRADUAL, tree_of("resnet18")[1], num_epochs=8, every=2)
    assert [(phase.epoch, phase.unfreeze) for phase in plan.phases] == [
        (2, ["layer4"]), (4, ["layer3"]), (6, ["layer2"]),
    ]  # fmt: skip
    assert plan.multipliers["layer4"] == 0.38
    assert plan.multipliers["layer3"] == 0.15
    assert plan.frozen == ["backbone"]


def test_a_cycle_comes_round_to_the_last_stage_again() -> None:
    plan = make_plan(PlanName.CYCLIC, tree_of("resnet18")[1], num_epochs=9, every=1)
    assert [phase.unfreeze[0] for phase in plan.phases] == [
        "layer4", "layer3", "layer2", "layer1", "conv1", "layer4", "layer3", "layer2",
    ]  # fmt: skip
    assert plan.phases[5].freeze == ["conv1", "bn1"]


def test_a_chain_needs_an_epoch_for_each_stage() -> None:
    with pytest.raises(ConfigError, match="at least 7 epochs") as caught:
        make_plan(PlanName.CHAIN_THAW, tree_of("resnet18")[1], num_epochs=5)
    assert caught.value.field == "plan"


@pytest.mark.parametrize("name", PlanName)
def test_a_plan_goes_by_its_title_and_by_its_short_name(name: PlanName) -> None:
    spellings = (name.words, name.words.lower(), name.words.replace(" ", "-"), str(name), name.replace("_", "-"))
    assert {plan_named(spelling) for spelling in spellings} == {name}


def test_a_phase_waits_for_those_before_it() -> None:
    plan = Plan([PlanPhase(plateau=1, unfreeze=["a"]), PlanPhase(epoch=2, unfreeze=["b"])])
    assert plan.due(epoch=5, step=50) is None
    for loss in (1.0, 0.5, 0.6):
        assert plan.due(epoch=5, step=50) is None
        plan.end_epoch(loss, accuracy=0.0)
    assert plan.due(epoch=5, step=50) == plan.phases[0]
    plan.begin_next()
    assert plan.due(epoch=5, step=50) == plan.phases[1]
    plan.begin_next()
    assert plan.due(epoch=5, step=50) is None


def test_a_plateau_of_accuracy_counts_from_the_phase_before_and_survives_nan() -> None:
    phase = PlanPhase(plateau=2, metric="accuracy", unfreeze=["b"])
    plan = Plan([PlanPhase(step=3, unfreeze=["a"]), phase])
    for _ in range(4):
        plan.end_epoch(1.0, 0.5)
    assert plan.due(epoch=0, step=2) is None
    assert plan.due(epoch=0, step=3) is not None
    plan.begin_next()
    for accuracy in (math.nan, 0.5, 0.6, 0.6):
        plan.end_epoch(1.0, accuracy)
        assert plan.due(epoch=9, step=99) is None
    copy = Plan([])
    copy.load_state_dict(plan.state_dict())
    copy.end_epoch(1.0, 0.4)
    assert copy.due(epoch=9, step=99) == phase


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ([PlanPhase(epoch=2, unfreeze=["layer1"]), PlanPhase(step=5, unfreeze=["layer2"])], "stands behind"),
        ([PlanPhase(step=30, unfreeze=["layer1"])], "step 30 never comes"),
        ([PlanPhase(epoch=1, unfreeze=["layer?.*.conv9"])], "matches no layer"),
        ([PlanPhase(plateau=2, unfreeze=["layer1"])], "a plateau of 2 epochs never comes"),
        ([PlanPhase(epoch=1, rates={"layer9": 0.5})], "no layer 'layer9'"),
        ([PlanPhase(epoch=1, freeze=["head"])], "nothing would be left"),
    ],
)
def test_a_plan_that_cannot_come_true_is_refused(phases: list[PlanPhase], words: str) -> None:
    freeze_set, _ = tree_of("resnet18")
    freeze_set.frozen_atoms = set(freeze_set.resolve(["backbone"]))
    with pytest.raises(ConfigError, match=words):
        check_plan(phases, freeze_set, 3, 10)


def test_the_parameters_of_a_layer_name_it_together_and_not_alone() -> None:
    freeze_set, _ = tree_of("resnet18")
    freeze_set.frozen_atoms = set(freeze_set.resolve(["backbone"]))
    both = {"layer4.0.bn1.weight": 0.5, "layer4.0.bn1.bias": 0.5}
    check_plan([PlanPhase(epoch=1, unfreeze=["layer4"], rates=both)], freeze_set, 3, 10)
    alone = [PlanPhase(epoch=1, unfreeze=["layer4"], rates={"layer4.0.bn1.bias": 0.5})]
    with pytest.raises(ConfigError, match=r"only a part of the layer 'layer4\.0\.bn1'"):
        check_plan(alone, freeze_set, 3, 10)


def test_a_pattern_names_layers_all_over_the_model() -> None:
    freeze_set, _ = tree_of("resnet18")
    assert freeze_set.names_of(freeze_set.resolve(["layer[34].*.bn?"])) == [
        f"layer{stage}.{block}.bn{number}" for stage in (3, 4) for block in (0, 1) for number in (1, 2)
    ]


@pytest.mark.parametrize("when", [{}, {"epoch": 1, "step": 2}])
def test_a_phase_begins_at_one_time(when: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="one of epoch, step and plateau"):
        PlanPhase(unfreeze=["a"], **when)


def test_a_plan_is_kept_in_toml(tmp_path) -> None:
    from trainer.config import config_to_toml, load_config

    phases = [PlanPhase(plateau=2, metric="accuracy", unfreeze=["layer4"], rates={"layer4": 0.1})]
    config = RunConfig(plan=phases)
    path = tmp_path / "run.toml"
    path.write_text(config_to_toml(config))
    assert load_config(path).plan == phases
