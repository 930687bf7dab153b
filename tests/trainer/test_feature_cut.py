"""A model cut behind its frozen part does to the bit what the model does, and nothing above the cut can change."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils._pytree import tree_leaves
from torchvision.ops import StochasticDepth

from trainer.config import ModelConfig
from trainer.feature_cut import Cut, CutError, NoCut, agrees, find_cut
from trainer.freezing import FreezeSet
from trainer.models import build_model, inspect

ALL_MODELS = torchvision.models.list_models(module=torchvision.models)
ONE_OF_EACH_FAMILY = {
    "alexnet": 64,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 32,
    "vit_b_32": 64,
}


def loaded(name: str, image_size: int, frozen: Sequence[str] = ("backbone",)) -> tuple[nn.Module, FreezeSet]:
    config = ModelConfig(name=name, weights="random")
    model = build_model(config, 3, 0, image_size, lambda *_: None, lambda: None)
    return frozen_model(model.module, frozen, model.head)


def frozen_model(
    module: nn.Module, frozen: Sequence[str], head: list[str] | None = None
) -> tuple[nn.Module, FreezeSet]:
    freeze_set = FreezeSet(module, head or [])
    if frozen:
        freeze_set.freeze(frozen)
    freeze_set.set_mode(training=True)
    return module, freeze_set


def images(size: int, num_images: int = 2) -> Tensor:
    return torch.rand(num_images, 3, size, size, generator=torch.Generator().manual_seed(3))


def cut_of(module: nn.Module, freeze_set: FreezeSet, inputs: Tensor) -> Cut:
    found = find_cut(module, freeze_set, inputs)
    assert isinstance(found, Cut), found
    return found


def no_cut_of(module: nn.Module, freeze_set: FreezeSet, inputs: Tensor) -> str:
    found = find_cut(module, freeze_set, inputs)
    assert isinstance(found, NoCut)
    return found.reason


def one_step(module: nn.Module, forward: Callable[[], Any]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return outputs, gradients and buffers of a step from the same random state; the buffers are put back."""
    before = [buffer.clone() for buffer in module.buffers()]
    module.zero_grad(set_to_none=True)
    torch.manual_seed(5)
    outputs = [leaf for leaf in tree_leaves(forward()) if isinstance(leaf, Tensor)]
    if torch.is_grad_enabled():
        sum(output.square().sum() for output in outputs).backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    after = [buffer.clone() for buffer in module.buffers()]
    for buffer, then in zip(module.buffers(), before, strict=True):
        buffer.copy_(then)
    return [output.detach() for output in outputs], gradients, after


def assert_same_to_the_bit(cut: Cut, module: nn.Module, freeze_set: FreezeSet, inputs: Tensor) -> None:
    freeze_set.set_mode(training=True)
    with torch.no_grad():
        features = cut.prefix(inputs)
    given = [feature.clone() for feature in features]
    expected = one_step(module, lambda: module(inputs))
    assert expected[1], "nothing learned"
    assert_all_equal(one_step(module, lambda: cut.suffix(*features)), expected)
    assert all(map(torch.equal, features, given))
    assert [(tuple(f.shape[1:]), f.dtype) for f in features] == [(t.shape, t.dtype) for t in cut.stored]
    assert not any(feature.requires_grad for feature in features)
    freeze_set.set_mode(training=False)
    with torch.no_grad():
        assert_all_equal(
            one_step(module, lambda: cut.suffix(*cut.prefix(inputs))), one_step(module, lambda: module(inputs))
        )
    freeze_set.set_mode(training=True)


def assert_all_equal(some: Sequence[Sequence[Tensor]], others: Sequence[Sequence[Tensor]]) -> None:
    for one, other in zip(some, others, strict=True):
        assert len(one) == len(other)
        assert all(map(torch.equal, one, other))


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_each_family_is_cut_before_its_head_and_stays_the_same_to_the_bit(name: str) -> None:
    size = ONE_OF_EACH_FAMILY[name]
    module, freeze_set = loaded(name, size)
    assert_cut_before_its_head(module, freeze_set, images(size))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in ALL_MODELS if name not in ONE_OF_EACH_FAMILY])
def test_every_model_is_cut_before_its_head_and_stays_the_same_to_the_bit(name: str) -> None:
    size = 224 if name == "maxvit_t" else 2 * 14 if name == "vit_h_14" else 64
    module, freeze_set = loaded(name, size)
    assert_cut_before_its_head(module, freeze_set, images(size))


def assert_cut_before_its_head(module: nn.Module, freeze_set: FreezeSet, inputs: Tensor) -> None:
    cut = cut_of(module, freeze_set, inputs)
    assert_same_to_the_bit(cut, module, freeze_set, inputs)
    assert agrees(cut, module, inputs) == 0
    # The random ones among those that are not frozen come before the last layers of alexnet and vgg.
    assert cut.saved_share > 0.4
    assert len(cut.stored) == 1
    assert set(cut.layers) <= freeze_set.frozen
    behind = {child for child in cut.suffix.modules() if any(True for _ in child.parameters(recurse=False))}
    assert {fqn for fqn, child in module.named_modules() if child in behind}.isdisjoint(cut.layers)


STAGES = [
    ("resnet18", ["conv1", "bn1", "layer1"], 64 * 16 * 16),
    ("resnet18", ["conv1", "bn1", "layer1", "layer2"], 128 * 8 * 8),
    ("resnet18", ["conv1", "bn1", "layer1", "layer2", "layer3"], 256 * 4 * 4),
    ("resnet18", ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4.0"], 512 * 2 * 2),
    # Two at the residual: 2.5 times the bytes of what comes in.
    ("resnet18", ["conv1", "bn1", "layer1.*", "layer1", "layer2.0.conv1", "layer2.0.bn1"], 128 * 8 * 8 + 64 * 16 * 16),
    ("densenet121", ["features.conv0", "features.norm0", "features.dense*", "features.trans*"], 1024 * 2 * 2),
    ("vit_b_32", ["class_token", "conv_proj", "encoder.pos_embedding", "encoder.layers.encoder_layer_?"], 768 * 5),
    pytest.param("swin_t", [f"features.{idx}" for idx in range(4)], 192 * 8 * 8, marks=pytest.mark.slow),
    pytest.param("convnext_tiny", [f"features.{idx}" for idx in range(4)], 192 * 8 * 8, marks=pytest.mark.slow),
    ("googlenet", ["conv?", "inception3?", "inception4?"], 832 * 2 * 2),
    pytest.param("inception_v3", ["Conv2d_*", "Mixed_5?", "Mixed_6?"], 768 * 4 * 4, marks=pytest.mark.slow),
    ("mobilenet_v3_large", ["features.?", "features.10"], 80 * 4 * 4),
]


@pytest.mark.parametrize(("name", "frozen", "num_values"), STAGES)
def test_a_model_is_cut_between_its_stages(name: str, frozen: list[str], num_values: int) -> None:
    size = ONE_OF_EACH_FAMILY.get(name, 64)
    module, freeze_set = loaded(name, size, frozen)
    cut = cut_of(module, freeze_set, images(size))
    assert cut.bytes_per_image(torch.float32) == 4 * num_values
    assert cut.bytes_per_image(torch.bfloat16) == 2 * num_values
    assert_same_to_the_bit(cut, module, freeze_set, images(size))


def test_densenet_is_cut_where_many_tensors_cross() -> None:
    module, freeze_set = loaded("densenet121", 64, ["features"])
    freeze_set.unfreeze(["features.denseblock4.denselayer16", "features.norm5"])
    cut = cut_of(module, freeze_set, images(64))
    assert [tensor.shape for tensor in cut.stored] == [(512, 2, 2)] + 15 * [(32, 2, 2)]
    assert_same_to_the_bit(cut, module, freeze_set, images(64))


def conv(channels_in: int = 3, channels: int = 4, **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 3, padding=1, **kwargs)


class Net(nn.Module):
    """Two convolutions and a head, with something between the first and the second."""

    def __init__(self, between: nn.Module | None = None, channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = conv(3, channels)
        self.between = between or nn.Identity()
        self.second = conv(channels, channels)
        self.head = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))

    def features(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


def cut_net(net: nn.Module, frozen: Sequence[str] = ("first", "between", "second")) -> tuple[Cut, FreezeSet]:
    known = dict(net.named_modules())
    net, freeze_set = frozen_model(net, [name for name in frozen if known[name].state_dict()], ["head"])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    cut = cut_of(net, freeze_set, images(9))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert_same_to_the_bit(cut, net, freeze_set, images(9))
    return cut, freeze_set


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class FunctionalDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5)


class Scaled(nn.Module):
    """Another in train mode than in eval mode, yet not random."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if self.training else x


class Counter(nn.Module):
    """Writes into a buffer in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.count.add_(1)


@pytest.mark.parametrize(
    "between",
    [
        nn.Dropout(0.5),
        nn.RReLU(),
        StochasticDepth(0.5, "row"),
        FunctionalDropout(),
        Noise(),
        Scaled(),
        Counter(),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.FractionalMaxPool2d(2, output_size=4),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_nothing_random_adapting_or_unknown_is_above_the_cut(between: nn.Module) -> None:
    cut, _ = cut_net(Net(between))
    assert cut.layers == ["first"]
    assert "second" in dict(cut.suffix.named_modules())


@pytest.mark.parametrize("between", [nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4))])
def test_a_batch_norm_that_learns_ends_the_cut(between: nn.Module) -> None:
    cut, _ = cut_net(Net(between), ["first", "second"])
    assert cut.layers == ["first"]


@pytest.mark.parametrize(
    "between",
    [
        nn.Sequential(conv(4, 4), nn.Dropout(0.5)),
        nn.Sequential(conv(4, 4), StochasticDepth(0.5, "row")),
        nn.Sequential(conv(4, 4), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        nn.Sequential(conv(4, 4), Scaled()),
        nn.Sequential(weight_norm(conv(4, 4)), spectral_norm(conv(4, 4))),
    ],
    ids=["dropout", "stochastic-depth", "batch-norm", "two-modes", "parametrized"],
)
def test_what_freezing_keeps_still_is_above_the_cut(between: nn.Module) -> None:
    cut, freeze_set = cut_net(Net(between))
    assert set(cut.layers) == {unit for unit in freeze_set.units if unit != "head"}


def test_a_batch_norm_that_adapts_ends_the_cut_though_it_is_frozen() -> None:
    net, freeze_set = frozen_model(Net(nn.BatchNorm2d(4)), ["first", "between", "second"], ["head"])
    assert cut_of(net, freeze_set, images(9)).layers == ["first", "between", "second"]
    freeze_set.set_adapting(["between"], is_adapting=True)
    cut = cut_of(net, freeze_set, images(9))
    assert cut.layers == ["first"]
    assert_same_to_the_bit(cut, net, freeze_set, images(9))


def test_a_layer_whose_bias_learns_ends_the_cut() -> None:
    net, freeze_set = frozen_model(Net(), ["first", "second"], ["head"])
    freeze_set.unfreeze(["second.bias"])
    assert cut_of(net, freeze_set, images(9)).layers == ["first"]


def test_a_layer_in_the_middle_that_learns_ends_the_cut_whatever_is_frozen_behind_it() -> None:
    cut, _ = cut_net(Net(nn.Sequential(conv(4, 4), nn.ReLU())), ["first", "second"])
    assert cut.layers == ["first"]


NOT_FROZEN = "No features can be cached: 'first' is trainable. Only what is frozen from the beginning on can be."


def test_gradients_switched_off_by_hand_are_no_freeze() -> None:
    net, freeze_set = frozen_model(Net(), [], ["head"])
    net.first.requires_grad_(False)
    assert no_cut_of(net, freeze_set, images(9)) == "No features can be cached: nothing is frozen."


def test_where_nothing_at_the_beginning_is_frozen_there_is_no_cut_and_a_reason() -> None:
    net, freeze_set = frozen_model(Net(), ["second"], ["head"])
    assert no_cut_of(net, freeze_set, images(9)) == NOT_FROZEN
    freeze_set.unfreeze(["second"])
    assert isinstance(find_cut(net, freeze_set, images(9)), NoCut)


def test_a_hook_ends_the_cut_as_nobody_knows_what_it_does() -> None:
    net, freeze_set = frozen_model(Net(), ["first", "second"], ["head"])
    net.second.register_forward_hook(lambda _module, _inputs, output: output + torch.rand(()))
    assert cut_of(net, freeze_set, images(9)).layers == ["first"]


class Tied(Net):
    """Uses the weights of the first half once more in the second."""

    def features(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(self.second(self.between(self.first(x))), self.between.weight, padding=1)


def test_tied_weights_are_above_the_cut_with_all_who_use_them() -> None:
    net = Tied(conv(4, 4))
    net.second.weight = net.between.weight
    cut, freeze_set = cut_net(net)
    assert cut.layers == ["first", "between", "second"]
    freeze_set.unfreeze(["second"])
    cut = cut_of(net, freeze_set, images(9))
    assert cut.layers == ["first"]
    assert_same_to_the_bit(cut, net, freeze_set, images(9))


class InPlace(Net):
    """Writes over the frozen features after they were used as they were."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__(between)
        self.shift = nn.Parameter(torch.rand(4, 1, 1))

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x)
        before = x + self.shift
        return self.second(before + self.between(x))


@pytest.mark.parametrize("frozen", [["first"], ["first", "second"]])
@pytest.mark.parametrize("between", [nn.ReLU(inplace=True), nn.Dropout(0.5, inplace=True)])
def test_a_layer_that_writes_over_its_input_finds_it_as_in_the_model(between: nn.Module, frozen: list[str]) -> None:
    cut, _ = cut_net(InPlace(between), frozen)
    assert "first" in cut.layers


class InPlaceBetween(InPlace):
    """Has a frozen layer behind what is written over, that a later place would save."""

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x)
        before = x + self.shift
        return before + self.second(self.between(x))


def test_no_place_is_behind_a_layer_that_would_write_before_others_have_read() -> None:
    cut, _ = cut_net(InPlaceBetween(nn.ReLU(inplace=True)), ["first", "second"])
    assert cut.layers == ["first"]


class ReadsStatistics(Net):
    """Uses the statistics of a layer that goes on gathering them."""

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.between(self.second(x - self.between.running_mean.reshape(4, 1, 1)))


class WritesOver(Net):
    """Changes a tensor of its own in each forward pass, after it has used it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4, 1, 1))

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x) + self.seen
        self.seen.add_(1)
        return self.second(x)


@pytest.mark.parametrize("net", [ReadsStatistics(nn.BatchNorm2d(4)), WritesOver()], ids=lambda net: type(net).__name__)
def test_a_buffer_that_changes_ends_the_cut(net: nn.Module) -> None:
    net, freeze_set = frozen_model(net, ["backbone"], ["head"])
    if isinstance(net, ReadsStatistics):
        freeze_set.unfreeze(["between"])
    cut = cut_of(net, freeze_set, images(9))
    assert cut.layers == ["first"]
    assert_same_to_the_bit(cut, net, freeze_set, images(9))


class ImagesSecond(Net):
    """Has the images of a batch side by side, in the second dimension, where the features end."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.rand(9))

    def features(self, x: Tensor) -> Tensor:
        return self.second((self.first(x).transpose(0, 1) + self.shift).transpose(0, 1))


def test_what_is_stored_has_a_row_for_each_image() -> None:
    cut, _ = cut_net(ImagesSecond(), ["first"])
    assert [tensor.shape for tensor in cut.stored] == [(4, 9, 9)]


class Fork(Net):
    """Branches of the model that give numbers, tensors of the model's own, and tuples to what comes behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(3, 1, 1))
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("shift", torch.rand(4, 1, 1))

    def features(self, x: Tensor) -> Tensor:
        num_images, (height, width) = x.size(0), x.shape[2:]
        x = self.first(x - self.mean - torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1))
        scale = self.scale.sqrt() * 2
        some, others = (x * scale).chunk(2, dim=1)
        x = self.second(torch.cat([some, torch.relu(others)], dim=1)) * scale + self.shift
        x = x.reshape(num_images * 4, height * width) + torch.ones(1, device=x.device)
        return x.view(num_images, 4, height, width)


def test_numbers_and_the_models_own_tensors_are_not_stored_for_each_image() -> None:
    net, freeze_set = frozen_model(Fork(), ["first", "scale", "shift", "mean"][:2], ["head"])
    cut = cut_of(net, freeze_set, images(9))
    assert [tensor.shape for tensor in cut.stored] == [(4, 9, 9)]
    assert_same_to_the_bit(cut, net, freeze_set, images(9))
    # The same for any number of images.
    assert_same_to_the_bit(cut, net, freeze_set, images(9, num_images=5))
    assert not [name for name in vars(net) if name.startswith("_tensor")]


class WithChoice(Net):
    def features(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) if x.mean() > 0 else self.first(x)


class WithChance(Net):
    def features(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) if random.random() < 0.5 else self.first(x)


class WithNoise(Net):
    def features(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) + torch.randn(1))


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (WithChoice(), "symbolically traced variables cannot be used as inputs to control flow"),
        (WithChance(), "its way through its layers depends on chance"),
        (WithNoise(), "its way through its layers depends on chance"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_that_is_no_fixed_graph_is_not_cut_and_says_why(net: nn.Module, reason: str) -> None:
    net, freeze_set = frozen_model(net, ["first", "second"], ["head"])
    states = torch.get_rng_state(), random.getstate()
    assert no_cut_of(net, freeze_set, images(9)) == (
        f"No features can be cached, as {type(net).__name__} cannot be cut in two: {reason}."
    )
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


@pytest.mark.parametrize("name", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_a_model_with_auxiliary_heads_is_another_in_train_mode_and_in_eval_mode(name: str) -> None:
    # An auxiliary head takes 299 pixels or more.
    inputs = images(299 if name == "inception_v3" else 64)
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None, num_classes=3, aux_logits=True, init_weights=False)
    frozen = ["conv?", "inception3?", "inception4a"] if name == "googlenet" else ["Conv2d_*", "Mixed_5?", "Mixed_6?"]
    net, freeze_set = frozen_model(net, frozen, ["fc"])
    cut = cut_of(net, freeze_set, inputs)
    assert_same_to_the_bit(cut, net, freeze_set, inputs)
    assert agrees(cut, net, inputs) == 0
    assert cut.saved_share > 0.5


class ModeAtTheTop(Net):
    """Is random on the way to its features, by its own mode."""

    def features(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.dropout(self.first(x), 0.5, training=self.training))


class ModeOfAnother(Net):
    """Is another model while its last layer trains."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if self.head.training else 1)


def test_a_model_that_asks_for_the_mode_of_a_layer_is_another_in_each() -> None:
    cut, _ = cut_net(ModeOfAnother(), ["first", "second"])
    assert cut.layers == ["first", "second"]


def test_functional_dropout_of_a_part_that_learns_ends_the_cut() -> None:
    cut, _ = cut_net(ModeAtTheTop(), ["first", "second"])
    assert cut.layers == ["first"]


def test_dropout_of_a_frozen_part_is_above_the_cut_and_of_one_that_learns_behind_it() -> None:
    module, freeze_set = loaded("vgg11", 32)
    assert "classifier.0" in cut_of(module, freeze_set, images(32)).layers
    # It follows the layer around it, of which the head learns.
    assert "classifier.3" not in cut_of(module, freeze_set, images(32)).layers


def test_training_the_second_part_trains_the_model_and_follows_later_freezes() -> None:
    net = Net(nn.Sequential(conv(4, 4), nn.BatchNorm2d(4), nn.Dropout(0.5)))
    cut, freeze_set = cut_net(net, ["first"])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with torch.no_grad():
        features = cut.prefix(images(9))

    def step() -> dict[str, Tensor]:
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        cut.suffix(*features).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}

    of_rest = {name for name in net.state_dict() if not name.startswith("first.")}
    assert step() == of_rest
    freeze_set.freeze(["between"])
    assert step() == {name for name in of_rest if not name.startswith("between.")}
    assert torch.equal(cut.suffix(*features), cut.suffix(*features))


def test_the_parts_do_not_set_the_mode_of_the_models_layers() -> None:
    cut, _ = cut_net(Net(), ["first"])
    for part in (cut.prefix, cut.suffix):
        with pytest.raises(AssertionError, match="freeze set alone"):
            part.eval()


def test_finding_a_cut_leaves_the_model_and_the_generators_as_they_were() -> None:
    module, freeze_set = loaded("swin_t", 64, ["features.0", "features.1"])
    freeze_set.set_mode(training=False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state, modes = torch.get_rng_state(), [child.training for child in module.modules()]
    attributes = {name: set(vars(child)) for name, child in module.named_modules()}
    cut_of(module, freeze_set, images(64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert [child.training for child in module.modules()] == modes
    assert {name: set(vars(child)) for name, child in module.named_modules()} == attributes


class Mixed(Net):
    """Takes the mean of the whole batch off each image."""

    def features(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x - x.mean(0, keepdim=True))


def test_the_probe_finds_features_that_depend_on_the_rest_of_the_batch() -> None:
    net, freeze_set = frozen_model(Mixed(), ["first", "second"], ["head"])
    cut = cut_of(net, freeze_set, images(9))
    with pytest.raises(CutError, match="depends on the other images of its batch"):
        agrees(cut, net, images(9))


def test_the_probe_finds_a_model_that_is_another_than_the_one_that_was_cut() -> None:
    cut, _ = cut_net(Net(nn.BatchNorm2d(4)))
    other, _ = frozen_model(Net(nn.BatchNorm2d(4)), ["first"], ["head"])
    with torch.no_grad():
        other.first.weight.mul_(1.1)
    before = [buffer.clone() for buffer in other.buffers()]
    with pytest.raises(CutError, match="gives other outputs than without"):
        agrees(cut, other, images(9))
    assert all(map(torch.equal, before, other.buffers()))


def test_the_cut_of_a_model_without_memory_is_that_of_the_loaded_one() -> None:
    module, freeze_set = loaded("mobilenet_v3_small", 64)
    on_meta, head = inspect(ModelConfig(name="mobilenet_v3_small"), 3, 64)
    on_meta, meta_freeze_set = frozen_model(on_meta, ["backbone"], head)
    ours, theirs = cut_of(module, freeze_set, images(64)), cut_of(on_meta, meta_freeze_set, images(64).to("meta"))
    assert (ours.stored, ours.saved_share, ours.layers) == (theirs.stored, theirs.saved_share, theirs.layers)
