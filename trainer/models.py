"""Models: torchvision's classification networks with the task's own last layer, their weights, and the layer tree."""

from __future__ import annotations

import copy
import difflib
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainer.config import ModelConfig
from trainer.data.transforms import Preprocessing
from trainer.fitting import AUXILIARY_MODELS, load
from trainer.freezing import has_statistics
from trainer.messages.model_info import ImagePreset, LayerInfo, ModelEntry, WeightSet, WeightsReport
from trainer.weights import ModelError, Progress, cached_path, fetch_published, read_weights

__all__ = [
    "LoadedModel",
    "ModelError",
    "build_model",
    "compare_weights",
    "inspect",
    "layer_tree",
    "list_models",
    "read_weights",
]

RANDOM = "random"
NUM_PUBLISHED_CLASSES = 1000
APPENDED = "appended"
"""Name of the layers that come after a stock model's outputs."""


@dataclass
class LoadedModel:
    """A network ready to be trained.

    Attributes:
        module: The stock architecture, on the CPU, with the task's head; the backbone's state_dict keys are the stock
            ones. The head's are told by ``_add_head``, with the lines that make the same model in plain PyTorch.
        head: Qualified names of the head: a single layer, or the Sequential that holds its layers.
        preprocessing: How its images are to be prepared.
        report: How the weights fitted that were read for it; None where they were drawn.

    """

    module: nn.Module
    head: list[str]
    preprocessing: Preprocessing
    report: WeightsReport | None = None


@dataclass(frozen=True)
class GivenWeights:
    """A state_dict for a model, what it is called, and whether its head is left out: it tells other classes apart."""

    state: dict[str, Tensor]
    source: str
    is_head_left_out: bool = False


def list_models() -> list[ModelEntry]:
    """List torchvision's classification models (not the quantized ones) with the figures of their published weights.

    ``accuracy`` is the published top-1 accuracy on ImageNet, 0 to 1.
    """
    entries = []
    for name in torchvision.models.list_models(module=torchvision.models):
        weights = _published_weights(name)
        sets = [
            WeightSet(
                name=each.name,
                accuracy=round(_accuracy(each) / 100, 5),
                size_bytes=round(each.meta["_file_size"] * 1024**2),
                is_cached=cached_path(each.url).is_file(),
                images=_image_preset(each),
            )
            for each in weights
        ]
        default = sets[0].model_dump(include={"accuracy", "size_bytes", "is_cached", "images"})
        entries.append(ModelEntry(name=name, num_params=weights[0].meta["num_params"], weight_sets=sets, **default))
    return entries


def build_model(
    config: ModelConfig,
    num_classes: int,
    seed: int,
    image_size: int | None,
    on_progress: Progress,
    check_cancelled: Callable[[], None],
    *,
    with_weights: bool = True,
    given: GivenWeights | None = None,
) -> LoadedModel:
    """Build a network with a new head of ``num_classes`` outputs and load its weights.

    Args:
        config: The model's name, head and weights.
        num_classes: Number of the task's classes.
        seed: The new layers are drawn from it, whatever the backbone; the global generator is left as it was.
        image_size: Side of the images in pixels, None: the published weights' own.
        on_progress: Called with (what, done, total, unit) during a download.
        check_cancelled: Called several times a second during a download; raises to end it.
        given: Weights that it is to have instead of those of ``config``.
        with_weights: False draws them all, for who has other ones for it, or needs none; the rest is as with them.

    Raises:
        ModelError: There is no such model, the weights cannot be had or do not fit, or the images are too small for it.

    """
    preprocessing = preprocessing_of(config, image_size)
    _check_image_size(config, preprocessing.image_size)
    state: dict[str, Tensor] | None = None
    source = config.weights
    if given is not None:
        state, source = given.state, given.source
    elif with_weights and config.weights_file:
        state = read_file(config)
    elif with_weights and config.weights != RANDOM:
        path = fetch_published(_weights_of(config).url, config.name, on_progress, check_cancelled)
        source = str(path)
        state = read_weights(path)
    check_cancelled()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = _stock_model(config.name, preprocessing.image_size, is_drawn=state is None)
        # Seeded anew: the head is the same after any backbone, drawn or loaded.
        torch.default_generator.manual_seed(seed)
        head = _add_head(module, config, num_classes)
    if given is not None and given.is_head_left_out:
        state = {key: tensor for key, tensor in given.state.items() if not key.startswith(f"{head}.")}
    report = None
    if state is not None:
        report = load(config.name, module, head, state, source, preprocessing.image_size, must_be_finite=given is None)
        if not report.is_usable:
            raise ModelError(report.sentence, "model.weights" if given is None else "model.name")
    return LoadedModel(module, [head], preprocessing, report)


def inspect(config: ModelConfig, num_classes: int = 10, image_size: int | None = None) -> tuple[nn.Module, list[str]]:
    """Build a model without memory or weights, for its tree. Returns the module (on "meta") and the head's names.

    Raises:
        ModelError: There is no such model, there are no such weights, or the images are too small for it.

    """
    image_size = preprocessing_of(config, image_size).image_size
    _check_image_size(config, image_size)
    module = _meta_model(config.name, image_size)
    with torch.device("meta"):
        head = _add_head(module, config, num_classes)
    return module, [head]


def compare_weights(config: ModelConfig, num_classes: int, image_size: int | None) -> WeightsReport | None:
    """Say how a local file of weights fits its model. None where the weights are published or random.

    Raises:
        ModelError: There is no such model, or the images are too small for it.

    """
    if not config.weights_file:
        return None
    module, (head,) = inspect(config, num_classes, image_size)
    try:
        state = read_file(config)
    except ModelError as error:
        return WeightsReport(path=config.weights, is_usable=False, sentence=str(error))
    size = preprocessing_of(config, image_size).image_size
    return load(config.name, module, head, state, config.weights, size, must_be_finite=True)


def layer_tree(module: nn.Module, head: list[str]) -> list[LayerInfo]:
    """Describe every module of the tree, parents first, in the order of the definition; the root is ""."""
    counted: set[nn.Parameter] = set()
    return [
        LayerInfo(
            fqn=fqn,
            type=type(layer).__name__,
            num_params=sum(parameter.numel() for parameter in layer.parameters()),
            is_unit=any(True for _ in layer.parameters(recurse=False))
            or any(True for _ in layer.buffers(recurse=False)),
            own_params=_count_own(layer, counted),
            is_head=fqn in head,
            has_statistics=has_statistics(layer),
        )
        for fqn, layer in module.named_modules()
    ]


def _count_own(layer: nn.Module, counted: set[nn.Parameter]) -> dict[str, int]:
    own = dict(layer.named_parameters(recurse=False))
    numbers = {name: 0 if parameter in counted else parameter.numel() for name, parameter in own.items()}
    counted.update(own.values())
    return numbers


def _published_weights(name: str) -> list[Any]:
    """Return all published weights of a model, the default ones first.

    vgg16 has some that were never trained to classify: their last layers hold NaN, so they are left out.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name in known:
        weights = torchvision.models.get_model_weights(name)
        others = [each for each in weights if each != weights.DEFAULT and math.isfinite(_accuracy(each))]
        return [weights.DEFAULT, *others]
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    advice = f"Did you mean {', '.join(close)}?" if close else "`thaw models` lists them."
    raise ModelError(f'There is no torchvision classification model "{name}". {advice}', "model.name")


def _weights_of(config: ModelConfig) -> Any:
    """Return the published weights that are chosen; for a file or random ones, the default whose images they share."""
    weights = _published_weights(config.name)
    if not config.weight_set:
        return weights[0]
    for each in weights:
        if each.name == config.weight_set:
            return each
    names = ", ".join(each.name for each in weights)
    raise ModelError(f"{config.name} has no published weights {config.weight_set}. Choose one of {names}.")


def _accuracy(weights: Any) -> float:
    accuracy: float = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    return accuracy


def read_file(config: ModelConfig) -> dict[str, Tensor]:
    """Read the tensors of a model's own file of weights. Raises ModelError as ``read_weights``."""
    return read_weights(Path(os.path.expanduser(config.weights)))  # noqa: PTH111 - Path's raises for an unknown "~user"


def _image_preset(weights: Any) -> ImagePreset:
    preset = weights.transforms()
    return ImagePreset(
        image_size=preset.crop_size[0],
        resize_size=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def preprocessing_of(config: ModelConfig, image_size: int | None) -> Preprocessing:
    """Return how a model with its weights wants its images, at another size (in pixels) if one is given.

    Raises:
        ModelError: There is no such model, or there are no such weights.

    """
    weights = _weights_of(config)
    images = _image_preset(weights)
    if image_size is not None:
        images = images.resized_to(image_size)
    interpolation = weights.transforms().interpolation.value
    return Preprocessing(images.image_size, images.resize_size, images.mean, images.std, interpolation)


def _check_image_size(config: ModelConfig, image_size: int) -> None:
    published_size = _image_preset(_weights_of(config)).image_size
    reason = "" if image_size == published_size else _reason_against_size(config.name, image_size)
    if reason:
        raise ModelError(
            f"{config.name} cannot take images of {image_size} pixels ({reason}). Leave the image size empty for its "
            f"own, {published_size}.",
            "data.image_size",
        )


@cache
def _reason_against_size(name: str, image_size: int) -> str:
    """Return why a model cannot take images of a size, "" if it can."""
    try:
        with torch.no_grad():
            _meta_model(name, image_size).eval()(torch.empty(2, 3, image_size, image_size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        return next(iter(str(error).splitlines()), "").strip(" .") or type(error).__name__
    return ""


def _stock_model(name: str, image_size: int, is_drawn: bool) -> nn.Module:
    options = stock_options(name, image_size, is_drawn=is_drawn)
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model


def stock_options(name: str, image_size: int, *, is_drawn: bool = False) -> dict[str, Any]:
    """Return what torchvision's ``get_model`` is to be told of a model; ``is_drawn``: its weights will be used."""
    if name in AUXILIARY_MODELS:
        # The published weights were trained on input that the model itself scales anew; always doing so keeps a
        # file's meaning the same, whichever weights it began with.
        return {"aux_logits": False, "transform_input": True, "init_weights": is_drawn}
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name == "maxvit_t":
        return {"input_size": (image_size, image_size)}
    return {}


class _NumbersOnCpu(TorchFunctionMode):
    """Lets regnet compute its widths, which it reads back as numbers, while all else is on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in {torch.arange, torch.tensor}:
            kwargs = {"device": "cpu", **(kwargs or {})}
        return func(*args, **(kwargs or {}))


def _meta_model(name: str, image_size: int) -> nn.Module:
    with torch.device("meta"), _NumbersOnCpu():
        return _stock_model(name, image_size, is_drawn=False).to("meta")


class _Appended(nn.Module):
    """Feeds a stock model's outputs to the layers that come after them."""

    appended: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.appended(super().forward(x))
        return outputs


def with_version(module: nn.Module, state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Return a state_dict that says of which version the module is, as mnasnet asks of one.

    Neither a compact checkpoint nor a .safetensors file keeps that.
    """
    told = OrderedDict(state)
    told._metadata = module.state_dict()._metadata  # type: ignore[attr-defined]
    return told


def without_our_code(module: nn.Module) -> nn.Module:
    """Return a model as modules of torch and torchvision alone: a Sequential of "model" and "appended" for such a head.

    The given one is left as it is; the weights are shared.
    """
    if not isinstance(module, _Appended):
        return module
    stock = copy.copy(module)
    stock.__class__ = type(module).__bases__[-1]
    stock._modules = {name: child for name, child in module._modules.items() if name != APPENDED}
    return nn.Sequential(OrderedDict({"model": stock, APPENDED: module.appended}))


def _add_head(module: nn.Module, config: ModelConfig, num_classes: int) -> str:
    """Give a stock model the task's head. Returns its qualified name.

    "replace": the last layer, a Linear or (squeezenet) a Conv2d of 1 × 1, gives way to the head, under its own name:
    ``model.fc = nn.Linear(512, 5)``. With dropout or hidden units that is a Sequential:
    ``model.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 5))``.

    "append": the stock model stays as it is, last layer and keys, and the head is its child "appended", which takes
    the 1,000 outputs. In plain PyTorch: ``model.appended = nn.Linear(1000, 5)``, and
    ``model.appended(model(images))`` is what this module's own forward returns. The backbone is then all of the stock
    model, its last layer included.

    The auxiliary heads of googlenet and inception_v3 are switched off (``aux_logits=False``), so that a model has one
    head in either habit.
    """
    fqn: str
    fqn, old = [(fqn, layer) for fqn, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    if config.head == "append":
        stock = type(module)
        # A subclass and not a wrapper, so that every stock layer keeps its name; and no hook, which no export sees.
        module.__class__ = type(stock.__name__, (_Appended, stock), {})
        module.add_module(APPENDED, _head_layers(nn.Linear, NUM_PUBLISHED_CLASSES, config, num_classes))
        return APPENDED
    make: Callable[..., nn.Module] = nn.Linear
    if isinstance(old, nn.Conv2d):
        assert (old.out_channels, old.kernel_size) == (NUM_PUBLISHED_CLASSES, (1, 1)), fqn
        make, num_inputs = partial(nn.Conv2d, kernel_size=1), old.in_channels
    else:
        assert old.out_features == NUM_PUBLISHED_CLASSES, fqn
        num_inputs = old.in_features
    head = _head_layers(make, num_inputs, config, num_classes, has_bias=old.bias is not None)
    parent, _, attribute = fqn.rpartition(".")
    setattr(module.get_submodule(parent), attribute, head)
    return fqn


def _head_layers(
    make: Callable[..., nn.Module], num_inputs: int, config: ModelConfig, num_classes: int, *, has_bias: bool = True
) -> nn.Module:
    layers: list[nn.Module] = []
    if config.head_hidden:
        layers += [*_dropout(config), make(num_inputs, config.head_hidden), nn.ReLU()]
        num_inputs = config.head_hidden
    layers += [*_dropout(config), make(num_inputs, num_classes, bias=has_bias)]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _dropout(config: ModelConfig) -> list[nn.Module]:
    return [nn.Dropout(config.head_dropout)] if config.head_dropout else []
