"""A frozen layer does not move: not its weights, not its buffers, for any optimizer on offer."""

from __future__ import annotations

from collections import OrderedDict
from typing import get_args

import pytest
import torch
from pydantic import BaseModel
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from trainer.config import OptimizerConfig
from trainer.freezing import FreezeError, FreezeSet, hash_layer
from trainer.optim import autocast, even_out_momentum, make_optimizer
from trainer.rates import RateSchedule
from trainer.schedules import multiplied_units, multipliers_by_name


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3)),
    )


def train(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    num_steps: int,
    rates: RateSchedule | None = None,
    precision: str = "fp32",
) -> None:
    for step in range(num_steps):
        if rates is not None:
            rates.set_rates(step)
        with autocast(precision, torch.device("cpu")):
            loss = cross_entropy(net(torch.randn(6, 3, 9, 9)), torch.randint(0, 3, (6,)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def hashes(net: nn.Module) -> dict[str, str]:
    return {name: hash_layer(child) for name, child in net.named_modules()}


def changed_tensors(net: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}


def copied(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


STATISTICS_OF_1_1 = {"1.1.running_mean", "1.1.running_var", "1.1.num_batches_tracked"}


def offered(section: type[BaseModel], field: str) -> tuple[str, ...]:
    return get_args(section.model_fields[field].annotation)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("schedule", offered(OptimizerConfig, "schedule"))
@pytest.mark.parametrize("name", offered(OptimizerConfig, "name"))
def test_frozen_layer_is_bit_identical_until_it_is_unfrozen(
    name: str, schedule: str, precision: str, weight_decay: float
) -> None:
    net = make_net()
    freeze_set = FreezeSet(net, ["2.3"])
    config = OptimizerConfig(
        name=name, rate=0.05, weight_decay=weight_decay, momentum=0.9, nesterov=True, schedule=schedule
    )
    optimizer = make_optimizer(config, net)
    rates = RateSchedule(config, optimizer, 20, 4)
    freeze_set.set_mode(training=True)
    train(net, optimizer, 5, rates, precision)  # momentum and Adam's state build up first

    freeze_set.freeze(["0", "1.0.bias", "1.1.weight", "2.3.weight"])
    at_freeze, tensors = hashes(net), copied(net)
    for _ in range(3):
        train(net, optimizer, 4, rates, precision)
        rates.end_epoch(1.0)
        freeze_set.set_mode(training=False)
        freeze_set.set_mode(training=True)
    assert changed_tensors(net, tensors) == {"1.0.weight", "1.1.bias", "2.3.bias"} | STATISTICS_OF_1_1
    assert freeze_set.find_drifted() == []

    freeze_set.unfreeze(["0"])
    rates.ramp(["0.0", "0.1"], 0)
    train(net, optimizer, 1, rates, precision)
    assert hash_layer(net[0][0]) != at_freeze["0.0"]
    assert hash_layer(net[0][1]) != at_freeze["0.1"]


@pytest.mark.parametrize("variant", ["fused", "foreach", "single"])
@pytest.mark.parametrize("name", offered(OptimizerConfig, "name"))
def test_each_variant_of_an_optimizer_leaves_a_frozen_weight_beside_a_bias_that_learns(name: str, variant: str) -> None:
    net = make_net()
    freeze_set = FreezeSet(net, ["2.3"])
    config = OptimizerConfig(name=name, rate=0.05, weight_decay=0.1, momentum=0.9)
    optimizer = make_optimizer(config, net)
    if variant == "fused" and "fused" not in optimizer.defaults:
        pytest.skip("torch has no such variant of it")
    for group in optimizer.param_groups:
        group.update({kind: kind == variant for kind in ("fused", "foreach") if kind in group})
    train(net, optimizer, 3)
    freeze_set.freeze(["*.weight"])
    before = copied(net)
    train(net, optimizer, 3)
    assert {tensor for tensor in changed_tensors(net, before) if tensor in freeze_set.atoms} == {
        "0.0.bias", "0.1.bias", "1.0.bias", "1.1.bias", "2.3.bias",
    }  # fmt: skip


@pytest.mark.parametrize("nesterov", [True, False])
def test_a_weight_that_learns_later_than_its_bias_gets_the_same_momentum_from_the_fused_variant(nesterov: bool) -> None:
    nets = [make_net(), make_net()]
    for net, is_fused in zip(nets, (True, False), strict=True):
        freeze_set = FreezeSet(net, ["2.3"])
        optimizer = make_optimizer(OptimizerConfig(name="SGD", rate=0.05, momentum=0.9, nesterov=nesterov), net)
        for group in optimizer.param_groups:
            group["fused"] = is_fused
        freeze_set.freeze(["*.weight"])
        torch.manual_seed(1)
        train(net, optimizer, 2)
        freeze_set.unfreeze(["*.weight"])
        even_out_momentum(optimizer)
        train(net, optimizer, 3)
    ours, theirs = (net.state_dict() for net in nets)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])


def test_a_gradient_that_was_there_before_the_freeze_is_never_applied() -> None:
    net = make_net()
    freeze_set = FreezeSet(net, ["2.3"])
    optimizer = make_optimizer(OptimizerConfig(name="SGD", rate=0.1), net)
    cross_entropy(net(torch.randn(6, 3, 9, 9)), torch.randint(0, 3, (6,))).backward()
    freeze_set.freeze(["1"])
    before = hash_layer(net[1][0])
    optimizer.step()
    assert hash_layer(net[1][0]) == before


def test_dropout_in_a_frozen_part_is_off_and_beside_a_trainable_head_on() -> None:
    net = make_net()
    freeze_set = FreezeSet(net, ["2.3"])
    freeze_set.freeze(["backbone"])
    freeze_set.set_mode(training=True)
    assert not net[0][3].training
    assert net[2][2].training
    net.train()
    freeze_set.set_mode(training=True)
    assert not net[0][1].training


def test_a_layer_is_told_by_its_name_when_all_it_owns_is_frozen_and_by_its_parameters_before() -> None:
    freeze_set = FreezeSet(make_net(), ["2.3"])
    assert freeze_set.freeze(["0.1.weight", "1"]) == ["0.1.weight", "1.0", "1.1"]
    assert freeze_set.freeze(["0.1"]) == ["0.1.bias"]
    assert freeze_set.frozen == {"0.1", "1.0", "1.1"}
    assert freeze_set.unfreeze(["*.bias"]) == ["0.1.bias", "1.0.bias", "1.1.bias"]
    assert freeze_set.frozen == {"0.1.weight", "1.0.weight", "1.1.weight"}
    assert freeze_set.unfreeze(["1.0.weight"], is_exact=True) == ["1.0.weight"]
    assert freeze_set.freeze(["1.0.weight"], is_exact=True) == ["1.0.weight"]
    again = FreezeSet(make_net(), ["2.3"])
    again.set_frozen(freeze_set.frozen)
    assert again.frozen_atoms == freeze_set.frozen_atoms


def test_with_the_biases_alone_learning_a_norm_goes_on_in_train_mode_and_its_weight_is_still() -> None:
    net = make_net()
    freeze_set = FreezeSet(net, ["2.3"])
    optimizer = make_optimizer(OptimizerConfig(name="AdamW", rate=0.1, weight_decay=0.1), net)
    freeze_set.freeze(["backbone"], but=["*.bias"])
    assert freeze_set.num_trainable == 4 * 4 + 4 * 3 + 3
    freeze_set.set_mode(training=True)
    assert net[1][1].training
    before = copied(net)
    train(net, optimizer, 3)
    assert {name for name in changed_tensors(net, before) if name.startswith("1.1")} == {
        "1.1.bias",
        *STATISTICS_OF_1_1,
    }
    freeze_set.freeze(["1.1.bias"])
    assert not net[1][1].training
    before = copied(net)
    train(net, optimizer, 3)
    assert not {name for name in changed_tensors(net, before) if name.startswith("1.1")}
    assert freeze_set.find_drifted() == []


def test_the_check_of_a_copy_is_of_its_moment_whatever_the_network_does_afterwards() -> None:
    net = make_net()
    net[0][1].register_buffer("scratch", torch.zeros(3), persistent=False)
    freeze_set = FreezeSet(net, ["2.3"])
    freeze_set.freeze(["backbone"])
    whole = freeze_set.drift_check(copied(net))
    with torch.no_grad():
        net[1][1].weight += 1
        net[1][1].running_mean += 1
        net[0][1].scratch += 1
    drifted = freeze_set.drift_check(copied(net))
    freeze_set.unfreeze(["backbone"])
    assert whole() == []
    assert drifted() == ["0.1", "1.1"]


def test_drift_of_a_single_parameter_is_told_by_its_layer() -> None:
    net = make_net()
    freeze_set = FreezeSet(net, ["2.3"])
    freeze_set.freeze(["1.0.weight", "1.1.weight"])
    with torch.no_grad():
        net[1][0].bias += 1
        net[1][1].running_mean += 1
    assert freeze_set.find_drifted() == []
    with torch.no_grad():
        net[1][1].weight += 1e-6
    assert freeze_set.find_drifted() == ["1.1"]
    freeze_set.freeze(["1.1"])
    assert freeze_set.find_drifted() == ["1.1"]


def test_freezing_everything_is_refused_and_changes_nothing() -> None:
    net = make_net()
    freeze_set = FreezeSet(net, ["2.3"])
    freeze_set.freeze(["0"])
    with pytest.raises(FreezeError, match="nothing would be left to train"):
        freeze_set.freeze(["backbone", "head"])
    assert freeze_set.frozen == {"0.0", "0.1"}


def test_an_unknown_layer_is_refused_with_the_nearest_name() -> None:
    freeze_set = FreezeSet(nn.Sequential(), [])
    with pytest.raises(FreezeError, match=r"no layer 'hed'\. Did you mean 'head'"):
        freeze_set.resolve(["hed"])


def test_an_unknown_parameter_is_refused_with_the_nearest_name() -> None:
    freeze_set = FreezeSet(make_net(), ["2.3"])
    with pytest.raises(FreezeError, match=r"no layer '0\.1\.biass'\. Did you mean '0\.1\.bias'"):
        freeze_set.resolve(["0.1.biass"])
    with pytest.raises(FreezeError, match=r"'\*\.gamma' matches no layer and no parameter"):
        freeze_set.resolve(["*.gamma"])


def test_what_is_of_a_whole_layer_is_refused_for_a_part_of_one() -> None:
    freeze_set = FreezeSet(make_net(), ["2.3"])
    assert freeze_set.resolve_units(["1", "0.1"]) == ["0.1", "1.0", "1.1"]
    for name in ("1.1.bias", "*.bias"):
        with pytest.raises(FreezeError, match=r"only a part of the layer '\d\.\d'\. Name the whole layer"):
            freeze_set.resolve_units([name])


def test_tied_layers_freeze_together() -> None:
    net = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False), "c": nn.Linear(3, 3)})
    net["b"].weight = net["a"].weight
    freeze_set = FreezeSet(net, ["c"])
    assert freeze_set.freeze(["a"]) == ["a", "b"]
    assert freeze_set.num_params == 9 + 12
    assert freeze_set.num_trainable == 12
    assert freeze_set.unfreeze(["b.weight"]) == ["a", "b"]
    assert freeze_set.resolve_units(["b"]) == ["a", "b"]


@pytest.mark.parametrize("parametrize", [weight_norm, spectral_norm])
def test_a_parametrized_layer_freezes_by_its_module(parametrize: object) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(parametrize(nn.Linear(4, 4)), nn.Linear(4, 3))  # type: ignore[operator]
    freeze_set = FreezeSet(net, ["1"])
    optimizer = make_optimizer(OptimizerConfig(name="AdamW", rate=0.1, weight_decay=0.1), net)
    freeze_set.freeze(["0"])
    before = {name: tensor.clone() for name, tensor in net[0].state_dict().items()}
    freeze_set.set_mode(training=True)
    for _ in range(5):
        cross_entropy(net(torch.randn(6, 4)), torch.randint(0, 3, (6,))).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net[0].state_dict().items())


def test_a_change_behind_our_back_is_found_as_drift() -> None:
    net = make_net()
    freeze_set = FreezeSet(net, ["2.3"])
    freeze_set.freeze(["backbone"])
    with torch.no_grad():
        net[1][1].running_mean += 1e-7
    assert freeze_set.find_drifted() == ["1.1"]


def test_statistics_of_a_frozen_layer_adapt_where_that_is_wanted_and_its_weights_do_not() -> None:
    net = make_net()
    freeze_set = FreezeSet(net, ["2.3"])
    optimizer = make_optimizer(OptimizerConfig(name="AdamW", rate=0.1, weight_decay=0.1), net)
    freeze_set.freeze(["0", "1"])
    assert freeze_set.set_adapting(["0"], is_adapting=True) == ["0.1"]
    before = hashes(net)
    weights = [parameter.detach().clone() for parameter in net[0][1].parameters()]
    freeze_set.set_mode(training=True)
    train(net, optimizer, 3)
    changed = {name for name, digest in hashes(net).items() if digest != before[name]}
    assert changed == {"0.1", "2.3"}
    assert all(torch.equal(a, b) for a, b in zip(weights, net[0][1].parameters(), strict=True))
    assert freeze_set.find_drifted() == []
    assert [buffer.data_ptr() for buffer in freeze_set.adapting_buffers] == [b.data_ptr() for b in net[0][1].buffers()]

    freeze_set.set_adapting(["backbone"], is_adapting=False)
    still = hash_layer(net[0][1])
    train(net, optimizer, 3)
    assert hash_layer(net[0][1]) == still
    assert freeze_set.find_drifted() == []
    with torch.no_grad():
        net[0][1].running_mean += 1e-7
    assert freeze_set.find_drifted() == ["0.1"]


def test_a_weight_that_drifted_is_found_though_its_layers_statistics_adapt_and_then_do_not() -> None:
    net = make_net()
    freeze_set = FreezeSet(net, ["2.3"])
    freeze_set.freeze(["backbone"])
    freeze_set.set_adapting(["1.1"], is_adapting=True)
    with torch.no_grad():
        net[1][1].weight += 1e-6
    assert freeze_set.find_drifted() == ["1.1"]
    freeze_set.set_adapting(["1.1"], is_adapting=False)
    assert freeze_set.find_drifted() == ["1.1"]


def test_statistics_of_what_has_none_are_refused() -> None:
    freeze_set = FreezeSet(make_net(), ["2.3"])
    with pytest.raises(FreezeError, match=r"no running statistics in '2\.3'"):
        freeze_set.set_adapting(["2.3"], is_adapting=True)


def test_the_optimizer_covers_every_parameter_once_and_keeps_no_state_for_the_frozen() -> None:
    net = make_net()
    freeze_set = FreezeSet(net, ["2.3"])
    freeze_set.freeze(["backbone"])
    optimizer = make_optimizer(OptimizerConfig(name="AdamW"), net)
    covered = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(covered) == sorted(id(p) for p in net.parameters())
    freeze_set.set_mode(training=True)
    train(net, optimizer, 2)
    assert set(optimizer.state) == set(net[2][3].parameters())


def test_a_freeze_set_is_named_by_the_fewest_layers() -> None:
    freeze_set = FreezeSet(make_net(), ["2.3"])
    assert freeze_set.describe([]) == "nothing"
    assert freeze_set.describe(["0.0", "0.1"]) == "0"
    assert freeze_set.describe(["0.0", "1.0", "1.1"]) == "0.0, 1"
    assert freeze_set.describe(["0.0", "0.1", "1.0", "1.1"]) == "backbone"
    assert freeze_set.describe(["2.3"]) == "head"
    assert freeze_set.describe(["0.1", "2.3"]) == "0.1, head"
    assert freeze_set.describe(freeze_set.resolve(["*.bias"])) == "all biases"
    assert freeze_set.describe(["0.0.bias", "0.1.bias"]) == "biases of 0"
    assert freeze_set.describe(["1.1.bias"]) == "1.1.bias"
    assert freeze_set.describe(["0.0.weight", "0.1.weight", "1.0.weight", "1.1.weight"]) == "weights of backbone"
    assert freeze_set.describe(["0.0", "0.1", "1.1.weight", "2.3.bias"]) == "0, 1.1.weight, 2.3.bias"


def test_a_few_layers_are_all_named_and_of_many_it_is_said_how_many_more_there_are() -> None:
    net = nn.Sequential(OrderedDict((f"stage{number}", nn.Linear(2, 2)) for number in range(1, 10)))
    freeze_set = FreezeSet(net, ["stage9"])
    assert freeze_set.describe(["stage1", "stage2", "stage4", "stage5"]) == "stage1, stage2, stage4, stage5"
    assert freeze_set.describe([f"stage{n}" for n in (1, 2, 3, 4, 5, 7)]) == "stage1, stage2 and 4 more"


def test_statistics_are_named_by_the_layers_that_hold_them() -> None:
    net = nn.Sequential(
        OrderedDict(
            (f"stage{n}", nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)))
            for n in (1, 2)
        )
    )
    net.append(nn.Linear(2, 2))
    freeze_set = FreezeSet(net, ["2"])
    assert freeze_set.describe_statistics(["stage1.1", "stage1.3"]) == "stage1"
    assert freeze_set.describe_statistics(["stage1.1", "stage1.3", "stage2.1"]) == "stage1, stage2.1"
    assert freeze_set.describe_statistics(freeze_set.with_statistics(["backbone"])) == "backbone"


class Encoder(nn.Module):
    """A unit of a vision transformer's kind, which owns a parameter and has layers below it."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(2))
        self.layer = nn.Linear(2, 2)


def make_transformer() -> nn.Sequential:
    module = nn.Sequential()
    module.add_module("encoder", Encoder())
    module.add_module("head", nn.Linear(2, 2))
    return module


def test_a_configuration_names_what_is_frozen_and_what_is_multiplied_without_what_lies_below() -> None:
    first, again = FreezeSet(make_transformer(), ["head"]), FreezeSet(make_transformer(), ["head"])
    first.freeze(["encoder.position"])
    again.freeze(first.names_for_config())
    assert again.frozen == first.frozen == {"encoder"}
    first.freeze(["encoder"])
    assert first.names_for_config() == ["encoder", "encoder.layer"]
    named = multipliers_by_name({"encoder": 0.5}, first)
    assert multiplied_units(named, first) == [(["encoder", "encoder.layer"], 0.5), (["encoder.layer"], 1.0)]


def test_exact_names_stand_for_nothing_below_them() -> None:
    module = make_transformer()
    freeze_set = FreezeSet(module, ["head"])
    freeze_set.freeze(["encoder.layer"])
    changed = freeze_set.freeze(["encoder"])
    assert changed == ["encoder"]
    assert freeze_set.describe(changed) == "encoder.position"
    assert freeze_set.unfreeze(changed, is_exact=True) == ["encoder"]
    assert freeze_set.frozen == {"encoder.layer"}
    with pytest.raises(FreezeError, match="stage9"):
        freeze_set.freeze(["stage9"], is_exact=True)
