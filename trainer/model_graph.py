"""A model as a graph of its calls (torch.fx), and which of them give the same for an image in every epoch."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - everyone's name for it
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import type_before_parametrizations
from torchvision.models.swin_transformer import (
    _get_relative_position_bias,
    _patch_merging_pad,
    shifted_window_attention,
)
from torchvision.ops import StochasticDepth, stochastic_depth

from trainer.freezing import FreezeSet


class TraceError(ValueError):
    """A model that cannot be read as a graph, with the reason."""


# Only what is listed here can be above a cut: whatever is new or unknown ends it, which costs time and no accuracy.
STATELESS_LAYERS = {
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.CELU, nn.ChannelShuffle, nn.ELU,
    nn.Flatten, nn.GELU, nn.GLU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LeakyReLU,
    nn.LocalResponseNorm, nn.LogSigmoid, nn.MaxPool1d, nn.MaxPool2d, nn.Mish, nn.PixelShuffle, nn.PixelUnshuffle,
    nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softmax, nn.Softplus, nn.Tanh, nn.Unflatten, nn.Upsample,
    nn.ZeroPad2d, nn.ReflectionPad2d, nn.ConstantPad2d,
}  # fmt: skip
"""Layers that do the same in train and in eval mode."""

LAYERS_STILL_IN_EVAL = {
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d,
    nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm, nn.Linear, nn.MultiheadAttention, nn.PReLU, nn.RMSNorm,
    nn.SyncBatchNorm,
}  # fmt: skip
"""Layers that do the same each time in eval mode, as long as their weights stay."""

RANDOM_LAYERS = {nn.AlphaDropout, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, StochasticDepth}
"""Layers that are random in train mode, with the probability ``p``. ViT and Swin have them with 0 all over."""

PURE_FUNCTIONS: set[Any] = {
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
    operator.neg, operator.matmul, operator.getitem, operator.eq, operator.ne, operator.lt, operator.le, operator.gt,
    operator.ge, torch._assert, torch.add, torch.sub, torch.mul, torch.div, torch.pow, torch.sqrt, torch.rsqrt,
    torch.exp, torch.log, torch.abs, torch.clamp, torch.where, torch.matmul, torch.bmm, torch.einsum, torch.cat,
    torch.stack, torch.chunk, torch.split, torch.unbind, torch.flatten, torch.reshape, torch.permute, torch.transpose,
    torch.swapaxes, torch.movedim, torch.unsqueeze, torch.squeeze, torch.roll, torch.flip, torch.mean, torch.sum,
    torch.amax, torch.amin, torch.var, torch.std, torch.relu, torch.sigmoid, torch.tanh, torch.softmax,
    torch.conv2d, F.relu, F.relu6, F.gelu, F.silu, F.elu, F.leaky_relu, F.hardswish, F.hardsigmoid, F.hardtanh, F.mish,
    F.softplus, F.softmax, F.log_softmax, F.linear, F.conv1d, F.conv2d, F.layer_norm, F.group_norm, F.normalize,
    F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate, F.pad, F.pixel_shuffle,
    F.unfold, _get_relative_position_bias, _patch_merging_pad,
}  # fmt: skip

RANDOM_WHEN: dict[Any, tuple[str, int, Any]] = {
    F.dropout: ("training", 2, True),
    F.dropout2d: ("training", 2, True),
    F.batch_norm: ("training", 5, False),
    F.scaled_dot_product_attention: ("dropout_p", 4, 0.0),
    stochastic_depth: ("training", 3, True),
    shifted_window_attention: ("training", 12, True),
}
"""Functions that are pure only where one argument is false: its name, its position and its default."""

PURE_METHODS = {
    "abs", "add", "amax", "amin", "bmm", "chunk", "clamp", "clone", "contiguous", "detach", "dim", "div", "exp",
    "expand", "flatten", "flip", "float", "half", "log", "matmul", "mean", "movedim", "mul", "permute", "pow", "relu",
    "repeat", "reshape", "roll", "rsqrt", "sigmoid", "size", "softmax", "split", "sqrt", "squeeze", "std", "sub", "sum",
    "swapaxes", "tanh", "to", "transpose", "unbind", "unflatten", "unsqueeze", "var", "view",
}  # fmt: skip

PURE_ATTRIBUTES = {"T", "device", "dtype", "mT", "ndim", "shape"}


class _Tracer(fx.Tracer):
    """Records the calls of layers without children, and of those named to it, as calls; all others it looks into."""

    # A buffer that the forward pass changes would be changed for good while it is traced.
    proxy_buffer_attributes = True

    def __init__(self, whole: set[nn.Module]) -> None:
        super().__init__()
        self._whole = whole

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_whole = m in self._whole or next(m.children(), None) is None
        return is_whole or super().is_leaf_module(m, module_qualified_name)


def trace(module: nn.Module) -> tuple[fx.Graph, bool]:
    """Return a module's graph, and whether it is another one in the other mode.

    A layer within that asks if it is in train mode is not looked into, so that whoever runs the graph meets it as it
    then is: torch.fx would write down the mode of this moment. What remains are the questions of the module itself.

    Raises:
        TraceError: The way through the model depends on its data, or on chance, or torch.fx cannot follow it.

    """
    whole: set[nn.Module] = set()
    while True:
        with _noting_who_asks_for_its_mode() as asking, _without_chance():
            try:
                graph = _Tracer(whole).trace(module)
            except Exception as error:  # a model's own code may raise anything
                forget_constants(module)
                raise TraceError(first_line(error)) from error
        if asking - {module} <= whole:
            return graph, bool(asking)
        forget_constants(module)
        whole |= asking - {module}


def first_line(error: Exception) -> str:
    """Return what an error of a model's own code says first, for use within a sentence."""
    return str(error).strip().split("\n")[0].strip(" .") or type(error).__name__


def constants_of(module: nn.Module) -> dict[str, Tensor]:
    """Return what torch.fx has put on a module for its graph: tensors that its forward makes of plain numbers."""
    return {name: value for name, value in vars(module).items() if name.startswith("_tensor_constant")}


def forget_constants(module: nn.Module) -> None:
    """Take them off."""
    for name in constants_of(module):
        delattr(module, name)


@contextmanager
def _noting_who_asks_for_its_mode() -> Iterator[set[nn.Module]]:
    asking: set[nn.Module] = set()
    plain = nn.Module.__getattribute__

    def noting(module: nn.Module, name: str) -> Any:
        if name == "training":
            asking.add(module)
        return plain(module, name)

    # As torch.fx itself does with __getattr__ and __call__ while it traces.
    nn.Module.__getattribute__ = noting  # type: ignore[method-assign, assignment]
    try:
        yield asking
    finally:
        del nn.Module.__getattribute__


@contextmanager
def _without_chance() -> Iterator[None]:
    """Refuse a trace that draws random numbers: what was drawn would be taken for a constant of the model."""
    torch_state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    yield
    drawn = (
        not torch.equal(torch_state, torch.get_rng_state())
        or python_state != random.getstate()
        or any(not np.array_equal(a, b) for a, b in zip(numpy_state, np.random.get_state(), strict=True))
    )
    torch.set_rng_state(torch_state)
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    if drawn:
        raise TraceError("its way through its layers depends on chance")


class ConstantCalls:
    """Tells which calls give the same for the same arguments for as long as what is frozen stays so.

    That is so if every parameter and buffer that a call uses is frozen, what has a mode is in eval mode, and nothing in
    it is random, adapts to the data, or is unknown.
    """

    def __init__(self, freeze_set: FreezeSet) -> None:
        self._frozen = set(freeze_set.parameters(freeze_set.frozen_atoms))
        self._still = set(freeze_set.eval_modules)
        moving = [unit for unit in freeze_set.units if unit not in freeze_set.frozen or unit in freeze_set.adapting]
        self._moving = {id(buffer) for buffer in freeze_set.buffers(moving)}

    def obstacle(self, node: fx.Node, root: nn.Module) -> str:
        """Say what keeps a call from being constant ("layer4 is trainable"); nothing where it is."""
        if node.op == "call_module":
            return self._layer_obstacle(str(node.target), root.get_submodule(str(node.target)))
        if node.op == "get_attr":
            return self._tensor_obstacle(str(node.target), root)
        if node.op == "placeholder" or _is_pure(node):
            return ""
        return f"{_name_of(node)!r} may give something else each time"

    def _tensor_obstacle(self, fqn: str, root: nn.Module) -> str:
        tensor = operator.attrgetter(fqn)(root)
        if isinstance(tensor, nn.Parameter):
            return "" if tensor in self._frozen else f"{fqn!r} is trainable"
        if isinstance(tensor, Tensor) and not tensor.requires_grad and id(tensor) not in self._moving:
            return ""
        return f"{fqn!r} is not frozen"

    def _layer_obstacle(self, fqn: str, layer: nn.Module) -> str:
        if any(parameter not in self._frozen for parameter in layer.parameters()):
            return f"{fqn!r} is trainable"
        below = list(layer.modules())
        kind, is_still = type_before_parametrizations(layer), self._still.issuperset(below)
        is_hooked = any(each._forward_hooks or each._forward_pre_hooks for each in below)
        is_torchs = all(type(each).__module__.startswith("torch.nn.") for each in below)
        # Such a BatchNorm takes those of the batch in eval mode, too.
        if any(isinstance(each, _BatchNorm) and each.running_mean is None for each in below):
            return f"{fqn!r} has no running statistics"
        if not is_hooked and is_torchs and (kind in STATELESS_LAYERS or (is_still and kind in LAYERS_STILL_IN_EVAL)):
            return ""
        if not is_hooked and kind in RANDOM_LAYERS:
            return "" if is_still or layer.p == 0 else f"{fqn!r} is random"
        if not is_hooked and self._is_constant_within(layer):
            return ""
        return f"{fqn!r} may give something else each time"

    def _is_constant_within(self, layer: nn.Module) -> bool:
        try:
            graph, has_modes = trace(layer)
        except TraceError:
            return False
        is_constant = all(node.op == "output" or not self.obstacle(node, layer) for node in graph.nodes)
        forget_constants(layer)
        return is_constant and (not has_modes or self._still.issuperset(layer.modules()))


def _is_pure(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in PURE_METHODS
    if node.op != "call_function" or "out" in node.kwargs:
        return False
    if node.target is getattr:
        return node.args[1] in PURE_ATTRIBUTES
    if node.target in RANDOM_WHEN:
        name, position, default = RANDOM_WHEN[node.target]
        switch = node.kwargs.get(name, node.args[position] if len(node.args) > position else default)
        return not isinstance(switch, fx.Node) and not switch
    return node.target in PURE_FUNCTIONS


def _name_of(node: fx.Node) -> str:
    called: Callable[..., Any] | str = node.target
    return called if isinstance(called, str) else getattr(called, "__name__", str(called))
