"""The bytes of tensors, in the order of their indexes, however they lie in memory: hashed and compared."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

_BYTES_AT_ONCE = 2**20


class Digest(Protocol):
    """A hash of hashlib's."""

    def update(self, data: memoryview, /) -> None:
        """Take more bytes."""


def add_to(digest: Digest, tensor: Tensor) -> None:
    """Add a tensor's bytes to a digest, with no copy of more than about a megabyte or a row of it.

    Whole copies of channels-last weights, made by the thread that writes, would stay with that thread's memory.
    """
    rows = tensor.detach() if tensor.ndim else tensor.detach().reshape(1)
    at_once = max(1, _BYTES_AT_ONCE * len(rows) // max(1, rows.nbytes))
    for piece in torch.split(rows, at_once):
        digest.update(_bytes(piece.cpu()).numpy().data)


def is_same(a: Tensor, b: Tensor) -> bool:
    """Tell whether two CPU tensors are equal to the bit (0.0 is not -0.0 here, and a NaN equals itself)."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(_bytes(a), _bytes(b))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
