"""What a model is made of and what it costs: the shapes, multiply-adds and activations of each layer for one image."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trainer.config import ModelConfig
from trainer.feature_cut import NoCut, find_cut
from trainer.freezing import FreezeError, FreezeSet, freeze_at_start
from trainer.messages.model_info import FrozenFeatures, LayerInfo, ModelSummary
from trainer.models import inspect, layer_tree, preprocessing_of


def summarize(model: ModelConfig, num_classes: int, image_size: int | None = None) -> ModelSummary:
    """Describe a model that is not loaded, with a head of ``num_classes`` and what its configuration freezes.

    Raises:
        ValueError: There is no such model, or no such layer, or the images are too small for it.

    """
    module, head = inspect(model, num_classes, image_size)
    freeze_set = FreezeSet(module, head)
    atoms = freeze_set.resolve(model.frozen)
    num_frozen = sum(parameter.numel() for parameter in set(freeze_set.parameters(atoms)))
    image_size = preprocessing_of(model, image_size).image_size
    return ModelSummary(
        model=model.name,
        layers=_measured(layer_tree(module, head), module, image_size),
        frozen=sorted(freeze_set.names_of(atoms)),
        num_params=freeze_set.num_params,
        num_trainable=freeze_set.num_params - num_frozen,
        image_size=image_size,
        features=_features(module, freeze_set, model, image_size),
    )


def _features(module: nn.Module, freeze_set: FreezeSet, model: ModelConfig, image_size: int) -> FrozenFeatures:
    try:
        freeze_at_start(freeze_set, model)
    except FreezeError as error:
        return FrozenFeatures(reason=str(error))
    cut = find_cut(module, freeze_set, torch.empty(1, 3, image_size, image_size, device="meta"))
    if isinstance(cut, NoCut):
        return FrozenFeatures(reason=cut.reason)
    return FrozenFeatures(
        layers=freeze_set.describe_range(cut.layers),
        units=cut.layers,
        bytes_32=cut.bytes_per_image(torch.float32),
        bytes_16=cut.bytes_per_image(torch.float16),
        saved_share=cut.saved_share,
    )


def with_costs(summary: ModelSummary, model: ModelConfig, num_classes: int, image_size: int) -> ModelSummary:
    """Return the summary of a loaded model with what its layers cost, found on a twin of it that has no memory."""
    module, _ = inspect(model, num_classes, image_size)
    return summary.model_copy(
        update={"layers": _measured(summary.layers, module, image_size), "image_size": image_size}
    )


def _measured(layers: list[LayerInfo], module: nn.Module, image_size: int) -> list[LayerInfo]:
    """Return the layers with what one image costs in them.

    Multiply-adds are those of convolutions and of matrix products, attention included, as torchvision publishes them;
    torchinfo adds those of biases and norms, counts a Linear once where it is applied to many tokens, and leaves
    attention out. Activations are, as torchinfo counts them, the outputs of the layers without children that have
    parameters.

    Args:
        layers: The layers of the module.
        module: The model, on "meta". It is left in eval mode.
        image_size: Side of the image in pixels.

    """
    shapes: dict[str, list[int]] = {}
    activation_bytes: dict[str, int] = defaultdict(int)
    handles = [
        layer.register_forward_hook(partial(_note_output, fqn, shapes, activation_bytes))
        for fqn, layer in module.named_modules()
    ]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module.eval()(torch.empty(1, 3, image_size, image_size, device="meta"))
    for handle in handles:
        handle.remove()
    flops, root = counter.get_flop_counts(), type(module).__name__
    return [
        layer.model_copy(
            update={
                "output_shape": shapes.get(layer.fqn, []),
                # A multiply-add is two operations.
                "mult_adds": sum(flops.get(f"{root}.{layer.fqn}" if layer.fqn else root, {}).values()) // 2,
                "activation_bytes": activation_bytes[layer.fqn],
            }
        )
        for layer in layers
    ]


def _note_output(
    fqn: str,
    shapes: dict[str, list[int]],
    activation_bytes: dict[str, int],
    layer: nn.Module,
    _inputs: object,
    output: Any,
) -> None:
    tensor = output[0] if isinstance(output, tuple) else output
    assert isinstance(tensor, Tensor), fqn
    shapes[fqn] = list(tensor.shape[1:])
    if any(True for _ in layer.children()) or not any(True for _ in layer.parameters()):
        return
    names = fqn.split(".") if fqn else []
    for depth in range(len(names) + 1):
        activation_bytes[".".join(names[:depth])] += tensor.nbytes
