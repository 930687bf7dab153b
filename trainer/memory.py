"""How a worker's C library holds memory: kept from step to step, and given back where it is to be measured."""

from __future__ import annotations

import ctypes
import platform

_ANY_SIZE = 2**40
_OLD_LIMIT = 2**25
"""Older versions refuse a larger threshold for mapped blocks, and would fall back to 128 kB."""


def keep_freed_memory(libc: tuple[str, str]) -> dict[str, str]:
    """Return the environment in which a process gives no freed memory back to the system until it ends.

    Every step on a CPU frees and takes hundreds of MB again, and each page that was given back is a page fault and a
    page to clear when it is taken again: that was 28 % of a step with a frozen resnet18, and 12 % of one with all of it
    trainable. A library other than glibc has no such settings.

    Args:
        libc: Name and version, as ``platform.libc_ver`` gives them.

    """
    name, version = libc
    if name != "glibc":
        return {}
    is_free = tuple(int(part) for part in version.split(".")[:2]) >= (2, 36)
    threshold = _ANY_SIZE if is_free else _OLD_LIMIT
    return {"MALLOC_TRIM_THRESHOLD_": str(_ANY_SIZE), "MALLOC_MMAP_THRESHOLD_": str(threshold)}


KEEP_FREED_MEMORY = keep_freed_memory(platform.libc_ver())


DETERMINISTIC_CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""The environment in which cuBLAS can give the same to the bit each time; it is read once, with 24 MB of workspace."""


def give_memory_back() -> None:
    """Give back to the system what was freed, so that what is measured afterwards is in use."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
