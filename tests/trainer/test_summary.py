"""What a layer costs is what torchinfo and torchvision say of it."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
import torchinfo
import torchvision
from torch import nn

from trainer.config import ModelConfig
from trainer.messages.model_info import FrozenFeatures
from trainer.models import ModelError, inspect
from trainer.summary import summarize, with_costs

FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "mnasnet0_5",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "vgg11_bn",
    "vit_b_32",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layers_and_totals_are_those_of_torchinfo(name: str) -> None:
    summary = summarize(ModelConfig(name=name), num_classes=7, image_size=128)
    ours = {layer.fqn: layer for layer in summary.layers}
    module, _ = inspect(ModelConfig(name=name), num_classes=7, image_size=128)
    image = torch.empty(1, 3, 128, 128, device="meta")
    theirs = torchinfo.summary(module, input_data=image, device="meta", mode="eval", verbose=0)
    assert summary.num_params == theirs.total_params
    assert summary.forward_backward_bytes == theirs.total_output_bytes
    # As printed: torchinfo's figure of the input has some bytes of Python's in it.
    assert f"Input size (MB): {summary.input_bytes / 1e6:.2f}\n" in str(theirs)
    assert summary.param_bytes == 4 * theirs.total_params
    fqns = {layer: fqn for fqn, layer in module.named_modules()}
    for row in theirs.summary_list:
        mine = ours[fqns[row.module]]
        assert (mine.type, mine.num_params) == (row.class_name, row.num_params)
        # torchinfo has no shape for what is not called by itself, as ours.
        assert mine.output_shape == row.output_size[1:], mine.fqn
        if isinstance(row.module, nn.Conv2d | nn.Linear) and row.executed:
            bias = row.module.bias
            positions = row.output_size[2:] if isinstance(row.module, nn.Conv2d) else row.output_size[1:-1]
            # torchinfo counts the bias, too, and a Linear on many tokens as if there were one.
            applied = prod(positions) if isinstance(row.module, nn.Linear) else 1
            of_bias = 0 if bias is None else bias.numel() * (prod(positions) if applied == 1 else 1)
            assert mine.mult_adds == (row.macs - of_bias) * applied, mine.fqn


@pytest.mark.parametrize("name", ["resnet18", "swin_t", "swin_v2_t", "vit_b_16", "maxvit_t", "inception_v3"])
def test_the_whole_model_costs_what_torchvision_publishes(name: str) -> None:
    published = torchvision.models.get_model_weights(name).DEFAULT.meta["_ops"]
    summary = summarize(ModelConfig(name=name), num_classes=1000)
    assert summary.layers[0].mult_adds / 1e9 == pytest.approx(published, rel=2e-3)


def test_a_container_costs_what_its_layers_cost() -> None:
    layers = {layer.fqn: layer for layer in summarize(ModelConfig(name="resnet18"), 7).layers}
    stages = [fqn for fqn in layers if fqn and "." not in fqn]
    for cost in ("mult_adds", "activation_bytes", "num_params"):
        assert getattr(layers[""], cost) == sum(getattr(layers[stage], cost) for stage in stages)
    assert layers["layer4"].output_shape == [512, 7, 7]
    assert layers["layer4.0.conv1"].activation_bytes == 4 * 512 * 7 * 7


def test_an_appended_head_is_counted_with_the_last_layer_before_it() -> None:
    summary = summarize(ModelConfig(name="resnet18", head="append"), 7)
    layers = {layer.fqn: layer for layer in summary.layers}
    assert (layers["fc"].output_shape, layers["appended"].output_shape, layers[""].output_shape) == ([1000], [7], [7])
    assert layers["appended"].mult_adds == 7000
    assert summary.num_trainable == 7007


def test_the_image_size_decides_the_cost_and_not_the_parameters() -> None:
    own, small = summarize(ModelConfig(name="resnet18"), 7), summarize(ModelConfig(name="resnet18"), 7, 112)
    assert (own.image_size, small.image_size) == (224, 112)
    assert own.num_params == small.num_params
    assert 3.5 < own.layers[0].mult_adds / small.layers[0].mult_adds < 4.5
    with pytest.raises(ModelError, match="cannot take images of 32 pixels"):
        summarize(ModelConfig(name="inception_v3"), 7, 32)


def test_a_loaded_model_gets_the_costs_of_its_twin() -> None:
    bare = summarize(ModelConfig(name="resnet18"), 7, 64)
    bare = bare.model_copy(
        update={"layers": [layer.model_copy(update={"mult_adds": 0, "output_shape": []}) for layer in bare.layers]}
    )
    assert with_costs(bare, ModelConfig(name="resnet18"), 7, 64) == summarize(ModelConfig(name="resnet18"), 7, 64)


def test_a_summary_says_what_of_the_frozen_part_could_be_cached() -> None:
    stages = ["conv1", "bn1", "layer1", "layer2"]
    summary = summarize(ModelConfig(name="resnet18", frozen=stages), 7, 64)
    assert summary.features == FrozenFeatures(
        layers="conv1 … layer2",
        units=[layer.fqn for layer in summary.layers if layer.is_unit and layer.fqn.partition(".")[0] in stages],
        bytes_32=4 * 128 * 8 * 8,
        bytes_16=2 * 128 * 8 * 8,
        saved_share=sum(layer.mult_adds for layer in summary.layers if layer.fqn in stages)
        / summary.layers[0].mult_adds,
    )


def test_a_summary_says_why_nothing_could_be_cached() -> None:
    def reason(**kwargs: Any) -> str:
        features = summarize(ModelConfig(name="resnet18", **kwargs), 7, 64).features
        assert features is not None
        return features.reason

    assert reason(frozen=[]) == "No features can be cached: nothing is frozen."
    assert reason(frozen=["layer1"]).startswith("No features can be cached: 'conv1' is trainable.")
    assert reason(frozen=["backbone"], batchnorm="adapting") == ""
    assert "Cannot freeze every layer" in reason(frozen=["backbone", "head"])


def test_statistics_that_go_on_end_what_could_be_cached() -> None:
    features = summarize(ModelConfig(name="resnet18", adapting=["layer3"]), 7, 64).features
    assert features is not None
    assert 0.3 < features.saved_share < 0.7
    assert features.layers == "conv1 … layer3.0.downsample.0"
