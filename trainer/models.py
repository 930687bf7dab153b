"""Models: torchvision's classification networks with the task's own last layer, their weights, and the layer tree."""

from __future__ import annotations

import difflib
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.models.vision_transformer import interpolate_embeddings

from trainer.config import ModelConfig
from trainer.data.transforms import Preprocessing
from trainer.freezing import has_statistics
from trainer.messages import ImagePreset, LayerInfo, ModelEntry
from trainer.weights import ModelError, Progress, cached_path, fetch_published, read_weights

__all__ = [
    "LoadedModel",
    "ModelError",
    "build_model",
    "inspect",
    "layer_tree",
    "list_models",
    "read_weights",
]

PUBLISHED = "published"
RANDOM = "random"
NUM_PUBLISHED_CLASSES = 1000
AUXILIARY_MODELS = frozenset({"googlenet", "inception_v3"})
_AUXILIARY_KEYS = ("aux1.", "aux2.", "AuxLogits.")
# torchvision's densenet files were saved when their layers had dots in their names.
_OLD_DENSENET_KEY = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$"
)
_NUM_NAMED = 3


@dataclass
class LoadedModel:
    """A network ready to be trained.

    Attributes:
        module: The stock architecture, on the CPU, with the task's last layer; its state_dict keys are the stock ones.
        head: Qualified names of the new layers.
        preprocessing: How its images are to be prepared.

    """

    module: nn.Module
    head: list[str]
    preprocessing: Preprocessing


def list_models() -> list[ModelEntry]:
    """List torchvision's classification models (not the quantized ones) with the figures of their default weights.

    ``accuracy`` is the published top-1 accuracy on ImageNet, 0 to 1.
    """
    entries = []
    for name in torchvision.models.list_models(module=torchvision.models):
        weights = _default_weights(name)
        entries.append(
            ModelEntry(
                name=name,
                num_params=weights.meta["num_params"],
                accuracy=round(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5),
                size_bytes=round(weights.meta["_file_size"] * 1024**2),
                is_cached=cached_path(weights.url).is_file(),
                images=_image_preset(name),
            )
        )
    return entries


def build_model(
    config: ModelConfig,
    num_classes: int,
    seed: int,
    image_size: int | None,
    on_progress: Progress,
    check_cancelled: Callable[[], None],
) -> LoadedModel:
    """Build a network with a new head of ``num_classes`` outputs and load its weights.

    Args:
        config: The model's name, and its weights: "published", "random" or the path of a file.
        num_classes: Number of the task's classes.
        seed: The new layers are drawn from it, whatever the backbone; the global generator is left as it was.
        image_size: Side of the images in pixels, None: the published weights' own.
        on_progress: Called with (what, done, total, unit) during a download.
        check_cancelled: Called several times a second during a download; raises to end it.

    Raises:
        ModelError: There is no such model, the weights cannot be had or do not fit, or the images are too small for it.

    """
    preprocessing = preprocessing_of(config.name, image_size)
    _check_image_size(config.name, preprocessing.image_size, _published_image_size(config.name))
    state: dict[str, Tensor] | None = None
    source = config.weights
    if config.weights == PUBLISHED:
        url = _default_weights(config.name).url
        path = fetch_published(url, config.name, on_progress, check_cancelled)
        source = str(path)
        state = read_weights(path)
    elif config.weights != RANDOM:
        state = read_weights(Path(os.path.expanduser(config.weights)))  # noqa: PTH111 - Path's raises for an unknown "~user"
    check_cancelled()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = _stock_model(config.name, preprocessing.image_size, is_drawn=config.weights == RANDOM)
        # Seeded anew: the head is the same after any backbone, drawn or loaded.
        torch.default_generator.manual_seed(seed)
        head = _replace_head(module, num_classes)
    if state is not None:
        _load_backbone(config.name, module, head, state, source, preprocessing.image_size)
    return LoadedModel(module, [head], preprocessing)


def inspect(config: ModelConfig, num_classes: int = 10) -> tuple[nn.Module, list[str]]:
    """Build a model without memory or weights, for its tree. Returns the module (on "meta") and the head's names.

    Raises:
        ModelError: There is no such model.

    """
    module = _meta_model(config.name, _published_image_size(config.name))
    with torch.device("meta"):
        head = _replace_head(module, num_classes)
    return module, [head]


def layer_tree(module: nn.Module, head: list[str]) -> list[LayerInfo]:
    """Describe every module of the tree, parents first, in the order of the definition; the root is ""."""
    return [
        LayerInfo(
            fqn=fqn,
            type=type(layer).__name__,
            num_params=sum(parameter.numel() for parameter in layer.parameters()),
            is_unit=any(True for _ in layer.parameters(recurse=False))
            or any(True for _ in layer.buffers(recurse=False)),
            is_head=fqn in head,
            has_statistics=has_statistics(layer),
        )
        for fqn, layer in module.named_modules()
    ]


def _default_weights(name: str) -> Any:
    known = torchvision.models.list_models(module=torchvision.models)
    if name in known:
        return torchvision.models.get_model_weights(name).DEFAULT
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    advice = f"Did you mean {', '.join(close)}?" if close else "`thaw models` lists them."
    raise ModelError(f'There is no torchvision classification model "{name}". {advice}', "model.name")


def _published_image_size(name: str) -> int:
    return _image_preset(name).image_size


def _image_preset(name: str) -> ImagePreset:
    preset = _default_weights(name).transforms()
    return ImagePreset(
        image_size=preset.crop_size[0],
        resize_size=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def preprocessing_of(name: str, image_size: int | None) -> Preprocessing:
    """Return how a model wants its images, at another size (in pixels) if one is given.

    Raises:
        ModelError: There is no such model.

    """
    images = _image_preset(name)
    if image_size is not None:
        images = images.resized_to(image_size)
    interpolation = _default_weights(name).transforms().interpolation.value
    return Preprocessing(images.image_size, images.resize_size, images.mean, images.std, interpolation)


def _check_image_size(name: str, image_size: int, published_size: int) -> None:
    if image_size == published_size:
        return
    try:
        with torch.no_grad():
            _meta_model(name, image_size).eval()(torch.empty(2, 3, image_size, image_size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ModelError(
            f"{name} cannot take images of {image_size} pixels ({str(error).splitlines()[0].strip(' .')}). "
            f"Leave the image size empty for its own, {published_size}.",
            "data.image_size",
        ) from error


def _stock_model(name: str, image_size: int, is_drawn: bool) -> nn.Module:
    options: dict[str, Any] = {}
    if name in AUXILIARY_MODELS:
        # The published weights were trained on input that the model itself scales anew; always doing so keeps a
        # file's meaning the same, whichever weights it began with.
        options = {"aux_logits": False, "transform_input": True, "init_weights": is_drawn}
    elif name.startswith("vit_"):
        options = {"image_size": image_size}
    elif name == "maxvit_t":
        options = {"input_size": (image_size, image_size)}
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model


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


def _replace_head(module: nn.Module, num_classes: int) -> str:
    """Replace the last layer, a Linear or (squeezenet) a Conv2d, by a fresh one. Returns its qualified name."""
    fqn: str
    fqn, old = [(fqn, layer) for fqn, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    new: nn.Module
    if isinstance(old, nn.Conv2d):
        assert old.out_channels == NUM_PUBLISHED_CLASSES, fqn
        assert old.kernel_size == (1, 1), fqn
        new = nn.Conv2d(old.in_channels, num_classes, kernel_size=1, bias=old.bias is not None)
    else:
        assert old.out_features == NUM_PUBLISHED_CLASSES, fqn
        new = nn.Linear(old.in_features, num_classes, bias=old.bias is not None)
    parent, _, attribute = fqn.rpartition(".")
    setattr(module.get_submodule(parent), attribute, new)
    return fqn


def _load_backbone(
    name: str, module: nn.Module, head: str, state: dict[str, Tensor], source: str, image_size: int
) -> None:
    """Copy weights into the module. A head of another shape is left out; anything else must fit."""
    own = module.state_dict()
    state = OrderedDict(state)
    if name in AUXILIARY_MODELS:
        state = OrderedDict((key, value) for key, value in state.items() if not key.startswith(_AUXILIARY_KEYS))
    if name.startswith("densenet"):
        state = OrderedDict((_OLD_DENSENET_KEY.sub(r"\1\2", key), value) for key, value in state.items())
    if name.startswith("vit_") and "encoder.pos_embedding" in state:
        state = _with_position_embeddings(state, own, module, image_size)
    head_keys = [key for key in own if key.startswith(f"{head}.")]
    if any(key not in state or state[key].shape != own[key].shape for key in head_keys):
        for key in head_keys:
            state.pop(key, None)
    misshapen = [key for key in own if key in state and state[key].shape != own[key].shape]
    if misshapen:
        key = misshapen[0]
        raise _misfit(
            source,
            name,
            f"{_some(misshapen)} differ in shape ({tuple(state[key].shape)} in the file, "
            f"{tuple(own[key].shape)} in the model)",
        )
    # mnasnet refuses a state_dict that does not tell its version; all its published files are of the current one.
    state._metadata = {"": {"version": getattr(module, "_version", None)}}  # type: ignore[attr-defined]
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        raise _misfit(source, name, str(error).splitlines()[-1].strip()) from error
    missing = [key for key in missing if key not in head_keys]
    unexpected = [key for key in unexpected if not key.startswith(f"{head}.")]
    if missing:
        raise _misfit(source, name, f"{_some(missing)} missing in the file")
    if unexpected:
        raise _misfit(source, name, f"{_some(unexpected)} unknown to the model")


def _with_position_embeddings(
    state: OrderedDict[str, Tensor], own: dict[str, Tensor], module: nn.Module, image_size: int
) -> OrderedDict[str, Tensor]:
    key = "encoder.pos_embedding"
    theirs, ours = state[key], own[key]
    if theirs.shape == ours.shape or theirs.dim() != 3 or theirs.shape[2] != ours.shape[2]:
        return state
    try:
        fitted: OrderedDict[str, Tensor] = interpolate_embeddings(image_size, module.patch_size, state)
    except ValueError:
        return state  # not a square grid: the shapes differ, which is reported with the other misfits
    return fitted


def _misfit(source: str, name: str, what: str) -> ModelError:
    return ModelError(f"{source} does not fit {name}: {what}. Choose the model that it was saved from.")


def _some(keys: list[str]) -> str:
    named = ", ".join(keys[:_NUM_NAMED])
    return f"{named} and {len(keys) - _NUM_NAMED} more tensors" if len(keys) > _NUM_NAMED else named
