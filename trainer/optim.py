"""The optimizer, its parameter groups, the device, and the precision of the forward pass."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from trainer.config import ConfigError, OptimizerConfig

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "RMSprop": torch.optim.RMSprop,
}
_NOT_FUSED = frozenset({"RMSprop"})


def make_optimizer(config: OptimizerConfig, module: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer over all parameters, frozen ones too, in one group a layer that never changes.

    A parameter without a gradient is passed over, so a frozen layer costs nothing and gets no state; and a schedule
    or a resume never meets a group that was not there at step 0.
    """
    seen: set[int] = set()
    groups = []
    for fqn, child in module.named_modules():
        own = [p for p in child.parameters(recurse=False) if id(p) not in seen]
        seen.update(id(p) for p in own)
        if own:
            groups.append({"params": own, "name": fqn})
    kwargs: dict[str, object] = {"lr": config.rate, "weight_decay": config.weight_decay}
    if config.name in {"SGD", "RMSprop"}:
        kwargs["momentum"] = config.momentum
    if config.name == "SGD":
        kwargs["nesterov"] = config.nesterov and config.momentum > 0
    if config.name not in _NOT_FUSED:
        kwargs["fused"] = next(module.parameters()).device.type in {"cpu", "cuda"}
    return _OPTIMIZERS[config.name](groups, **kwargs)  # type: ignore[arg-type]


def even_out_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give the parameters that learn anew a momentum of zero, where others of their group have one.

    Torch's fused SGD takes the parameters of a group all for new, or none of them, and breaks where only some have a
    momentum yet. Zero makes the same update as none does, to the bit.
    """
    for group in optimizer.param_groups:
        if not (group.get("momentum") and group.get("fused")):
            continue
        learning = [parameter for parameter in group["params"] if parameter.requires_grad]
        new = [p for p in learning if optimizer.state.get(p, {}).get("momentum_buffer") is None]
        if len(new) < len(learning):
            for parameter in new:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def choose_device(wanted: str) -> torch.device:
    """Return the device that a run asks for; "auto" takes a GPU if there is one.

    Raises:
        ConfigError: There is no such device here.

    """
    if wanted == "auto":
        if torch.cuda.is_available():
            # Not by current_device(): that would take a GPU's memory before anything is to be done there.
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ConfigError(
            f"The device {wanted!r} is unknown. Use auto, cpu, cuda, cuda:1 or mps.", "training.device"
        ) from None
    offered = list_devices()
    name = "cuda:0" if str(device) == "cuda" else str(device)
    if name not in offered:
        raise ConfigError(
            f"The device {wanted} is not on this machine. Use one of: {', '.join(offered)}.", "training.device"
        )
    return torch.device(name)


def list_devices() -> list[str]:
    """Name the devices of this machine, as a run's configuration names them."""
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return [*devices, "mps"] if torch.backends.mps.is_available() else devices


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return "bf16" or "fp32". "auto" takes bf16 on a GPU that computes it natively, else fp32."""
    if wanted != "auto":
        return wanted
    is_native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if is_native else "fp32"


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context of a forward pass. Weights stay fp32 in either precision."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
