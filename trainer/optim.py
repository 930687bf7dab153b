"""The optimizer, its parameter groups, the device, and the precision of the forward pass."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import ConfigError, OptimizerConfig
from trainer.freezing import FreezeSet

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "RMSprop": torch.optim.RMSprop,
}
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
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
    optimizer = _OPTIMIZERS[config.name](groups, **kwargs)  # type: ignore[arg-type]
    # A checkpoint may be of a run with another layout.
    optimizer.register_load_state_dict_post_hook(match_layout)
    return optimizer


class Learners:
    """What of an optimizer's groups learns: to look at all others again at each step takes longer than a head's step.

    Args:
        optimizer: With one group a layer, frozen ones too.
        freeze_set: What of them is frozen.

    """

    def __init__(self, optimizer: torch.optim.Optimizer, freeze_set: FreezeSet) -> None:
        self._optimizer, self._freeze_set = optimizer, freeze_set
        self._all: list[dict[str, Any]] = []
        self._groups: list[dict[str, Any]] = []
        self._parameters: list[nn.Parameter] = []
        self._num_changes = -1

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn, in the model's order."""
        self._follow()
        return self._parameters

    @property
    def gradients(self) -> list[Tensor]:
        """Return the gradients of those that have one, in the same order."""
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def update(self) -> None:
        """Move them, and drop their gradients."""
        self._follow()
        optimizer = self._optimizer
        optimizer.param_groups = self._groups
        try:
            optimizer.step()
        finally:
            optimizer.param_groups = self._all
        # As zero_grad does, in a thirtieth of its time.
        for parameter in self._parameters:
            parameter.grad = None

    def _follow(self) -> None:
        # A state that is loaded brings other groups.
        if self._all is self._optimizer.param_groups and self._num_changes == self._freeze_set.num_changes:
            return
        self._all, self._num_changes = self._optimizer.param_groups, self._freeze_set.num_changes
        self._groups = [group for group in self._all if any(each.requires_grad for each in group["params"])]
        self._parameters = [each for group in self._groups for each in group["params"] if each.requires_grad]


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


def set_determinism(is_on: bool) -> None:
    """Let this process use only operators that give the same to the bit each time, or any again.

    An operator that cannot raises a RuntimeError as it is used. cuBLAS needs ``DETERMINISTIC_CUBLAS`` as well.
    https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    torch.use_deterministic_algorithms(is_on)
    # Else every new tensor would be filled first, to show reads of memory that nothing was written to.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # It measures which kernel is the fastest, and that may be another one each time.
    torch.backends.cudnn.benchmark = False


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context of a forward pass. Weights stay fp32 in any precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Lay out what the optimizer knows of each parameter as the parameter is: its kernels take the bytes in order."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
