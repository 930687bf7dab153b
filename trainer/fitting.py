"""Fitting: whether the tensors of a weights file are those of a model, told in full before any of them is used."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Container

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from trainer.messages.model_info import MisshapenTensor, WeightsReport

AUXILIARY_MODELS = frozenset({"googlenet", "inception_v3"})
"""The models that were published with auxiliary heads, which are left out: their 1,000 outputs are another task's."""

_AUXILIARY_KEYS = ("aux1.", "aux2.", "AuxLogits.")
# torchvision's densenet files were saved when their layers had dots in their names.
_OLD_DENSENET_KEY = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$"
)
_NUM_NAMED = 3
_NUM_LOOKED_FOR = 5
"""How many of a model's first tensors are looked for in a file that names them below something."""


def load(
    name: str,
    module: nn.Module,
    head: str,
    state: dict[str, Tensor],
    source: str,
    image_size: int,
    *,
    must_be_finite: bool,
) -> WeightsReport:
    """Copy weights into the module; into one on "meta", they are put. A head of another shape is left out.

    Where the file is of a larger module that holds the model under some name, as a LightningModule does, the rest of it
    is left out.

    Args:
        name: The model's name.
        module: The model with the task's head.
        head: Qualified name of the head.
        state: The tensors of the file.
        source: Path of the file, for the report.
        image_size: Side of the images in pixels, to which a vision transformer's positions are fitted.
        must_be_finite: Whether NaN or infinity in what is taken of them makes them of no use.

    Returns:
        How they fit. Where they do not, the module holds some of them and is of no use.

    """
    own = module.state_dict()
    num_in_file = len(state)
    state = _inner_model(state, own, head)
    num_left_out = num_in_file - len(state)
    if name in AUXILIARY_MODELS:
        state = OrderedDict((key, value) for key, value in state.items() if not key.startswith(_AUXILIARY_KEYS))
    if name.startswith("densenet"):
        state = OrderedDict((_OLD_DENSENET_KEY.sub(r"\1\2", key), value) for key, value in state.items())
    if name.startswith("vit_") and "encoder.pos_embedding" in state:
        state = _with_position_embeddings(state, own, module, image_size)
    head_keys = [key for key in own if key.startswith(f"{head}.")]
    is_head_new = any(key not in state or state[key].shape != own[key].shape for key in head_keys)
    if is_head_new:
        for key in head_keys:
            state.pop(key, None)
    misshapen = [
        MisshapenTensor(key=key, in_file=list(state.pop(key).shape), in_model=list(own[key].shape))
        for key in list(own)
        if key in state and state[key].shape != own[key].shape
    ]
    # mnasnet refuses a state_dict that does not tell its version; all its published files are of the current one.
    state._metadata = {"": {"version": getattr(module, "_version", None)}}  # type: ignore[attr-defined]
    try:
        is_on_meta = any(tensor.is_meta for tensor in own.values())
        missing, unexpected = module.load_state_dict(state, strict=False, assign=is_on_meta)
        num_fitting, problem = len(state) - len(unexpected), ""
    except (RuntimeError, ValueError) as error:
        missing, unexpected, num_fitting = [], [], 0
        problem = str(error).splitlines()[-1].strip()
    told = {each.key for each in misshapen}
    missing = [key for key in missing if key not in head_keys and key not in told]
    unexpected = [key for key in unexpected if not key.startswith(f"{head}.")]
    fits = not (misshapen or missing or unexpected or problem)
    # Only what is taken: a file may have anything in what is left out.
    spoilt = _not_finite(own, state) if must_be_finite and fits else []
    if spoilt:
        sentence = _spoilt_sentence(source, spoilt)
    elif fits:
        sentence = _fitting_sentence(len(own), len(head_keys) if is_head_new else 0, num_left_out)
    else:
        is_last_layer = _is_last_layer(told, own, head)
        sentence = _misfit_sentence(source, name, misshapen, missing, unexpected, problem, is_last_layer)
    return WeightsReport(
        path=source,
        is_usable=fits and not spoilt,
        num_fitting=num_fitting,
        is_head_new=is_head_new,
        missing=missing,
        unexpected=unexpected,
        misshapen=misshapen,
        sentence=sentence,
    )


def _inner_model(state: dict[str, Tensor], own: dict[str, Tensor], head: str) -> OrderedDict[str, Tensor]:
    """Return what of a file has the model's names below a common prefix; all of it, where that is the empty one."""
    first = [key for key in own if not key.startswith(f"{head}.")][:_NUM_LOOKED_FOR]
    prefixes = {key.removesuffix(name) for key in state for name in first if key.endswith(f".{name}")}

    def count(prefix: str) -> int:
        return sum(f"{prefix}{key}" in state for key in own)

    best = max(["", *sorted(prefixes, key=len)], key=count)
    if count(best) * 2 <= len(own):
        # Of another model: some names are alike in most of them.
        best = ""
    return OrderedDict((key.removeprefix(best), tensor) for key, tensor in state.items() if key.startswith(best))


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


def _is_last_layer(keys: set[str], own: dict[str, Tensor], head: str) -> bool:
    """Tell whether these are keys of the layer before the head: a file with another task's outputs."""
    backbone = [key for key in own if not key.startswith(f"{head}.")]
    last = backbone[-1].rpartition(".")[0]
    return bool(keys) and all(key.rpartition(".")[0] == last for key in keys)


def _not_finite(taken: Container[str], state: dict[str, Tensor]) -> list[str]:
    """Name the tensors, of those that are taken, that have NaN or infinity in them."""
    return [
        key
        for key, tensor in state.items()
        if key in taken
        # torch has no isfinite for numbers of eight bits.
        and tensor.is_floating_point()
        and not torch.isfinite(tensor.float() if tensor.dtype.itemsize == 1 else tensor).all()
    ]


def _fitting_sentence(num_own: int, num_new: int, num_left_out: int) -> str:
    rest = f" {num_left_out:,} of the file that are not of the model are left out." if num_left_out else ""
    if num_new:
        return f"All {num_own - num_new:,} tensors fit; the head begins anew.{rest}"
    return f"All {num_own:,} tensors fit, the head's too.{rest}"


def _spoilt_sentence(source: str, keys: list[str]) -> str:
    where = f"its tensor {keys[0]}" if len(keys) == 1 else f"{len(keys):,} of its tensors, the first of them {keys[0]}"
    return (
        f"{source} has NaN or infinity in {where}, from which nothing can learn. Choose a file that was saved before "
        "they came in, or other weights."
    )


def _misfit_sentence(
    source: str,
    name: str,
    misshapen: list[MisshapenTensor],
    missing: list[str],
    unexpected: list[str],
    problem: str,
    is_last_layer: bool,
) -> str:
    what = []
    if misshapen:
        first = misshapen[0]
        what.append(
            f"{_some([each.key for each in misshapen])} differ in shape ({tuple(first.in_file)} in the file, "
            f"{tuple(first.in_model)} in the model)"
        )
    if missing:
        what.append(f"{_some(missing)} missing in the file")
    if unexpected:
        what.append(f"{_some(unexpected)} unknown to the model")
    if problem:
        what.append(problem)
    advice = "Choose the model that it was saved from"
    if is_last_layer:
        advice += ", or replace the last layer"
    return f"{source} does not fit {name}: {'; '.join(what)}. {advice}."


def _some(keys: list[str]) -> str:
    named = ", ".join(keys[:_NUM_NAMED])
    return f"{named} and {len(keys) - _NUM_NAMED} more tensors" if len(keys) > _NUM_NAMED else named
