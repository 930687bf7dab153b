"""A tensor's bytes are the same however it lies in memory, and adding them up copies little."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from trainer import tensor_bytes
from trainer.tensor_bytes import add_to, is_same


def digest(tensor: Tensor) -> str:
    made = hashlib.sha256()
    add_to(made, tensor)
    return made.hexdigest()


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (7,), (5, 3, 2, 2), (70, 64, 3, 3), (1, 100_003)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_the_digest_is_of_the_bytes_in_the_order_of_the_indexes(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(tensor_bytes, "_BYTES_AT_ONCE", 10_000)
    tensor = torch.randint(0, 2, shape).to(dtype)
    assert digest(tensor) == hashlib.sha256(bytes(tensor.reshape(-1).view(torch.uint8).tolist())).hexdigest()


def test_the_digest_of_another_layout_is_the_same_and_of_another_bit_is_not() -> None:
    tensor = torch.randn(300, 64, 3, 3)
    last = tensor.to(memory_format=torch.channels_last)
    assert last.stride() != tensor.stride()
    assert digest(last) == digest(tensor) == digest(torch.nn.Parameter(tensor))
    last[-1, -1, -1, -1] *= -1
    assert digest(last) != digest(tensor)


def test_no_copy_is_as_large_as_the_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    whole = tensor_bytes._bytes

    def noted(tensor: Tensor) -> Tensor:
        copied.append(0 if tensor.is_contiguous() else tensor.nbytes)
        return whole(tensor)

    monkeypatch.setattr(tensor_bytes, "_bytes", noted)
    tensor = torch.randn(512, 512, 3, 3)
    digest(tensor)
    assert sum(copied) == 0
    digest(tensor.to(memory_format=torch.channels_last))
    assert 0 < max(copied) <= 2**20 < tensor.nbytes


def test_two_tensors_are_the_same_to_the_bit_or_not() -> None:
    assert is_same(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
    assert not is_same(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not is_same(torch.zeros(2), torch.zeros(2, dtype=torch.float64))
    assert is_same(torch.tensor(3), torch.tensor(3))
