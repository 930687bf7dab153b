"""What a run's numbers depend on besides its files: the versions of libraries, the device, its arithmetic, threads."""

from __future__ import annotations

import contextlib
import functools
import platform
from importlib.metadata import PackageNotFoundError, version

import PIL
import torch
import torchvision

from trainer.messages.compute import ComputeChoice


def environment(device: torch.device, compute: ComputeChoice) -> dict[str, str]:
    """Describe where a run is trained, by the words for it; what is not known is left out."""
    threads = {"threads": str(torch.get_num_threads())}
    return {**versions(), "device": device_text(device), **_libraries(device), **compute.words, **threads}


def versions() -> dict[str, str]:
    """Name the versions of what a run is made with."""
    known = {
        "Python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        # Decodes every image.
        "Pillow": PIL.__version__,
        "Thaw": _thaw_version(),
    }
    return {name: value for name, value in known.items() if value}


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Say what is another one by now: "torch 2.14.0 → 2.15.0". What one of them does not know is passed over."""
    return [f"{name} {was} → {now[name]}" for name, was in before.items() if name in now and now[name] != was]


def device_text(device: torch.device) -> str:
    """Name a device as far as it changes what is computed: a GPU, or the vector instructions of a CPU."""
    if device.type == "cuda":
        return f"{device.type} ({torch.cuda.get_device_name(device)})"
    # Another processor's vector instructions add in another order.
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else device.type


def _libraries(device: torch.device) -> dict[str, str]:
    if device.type != "cuda":
        return {}
    return {"CUDA": str(torch.version.cuda), "cuDNN": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]


@functools.cache
def _thaw_version() -> str:
    # Read from a file, once. A source tree that is not installed has none.
    with contextlib.suppress(PackageNotFoundError):
        return version("thaw-studio")
    return ""
