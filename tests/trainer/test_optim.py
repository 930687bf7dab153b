"""What all optimizers share: the norm of the whole gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.utils import get_total_norm

from trainer.optim import total_norm


def test_the_norm_of_gradients_is_that_of_one_vector() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(shape, generator=generator) for shape in [(), (7,), (64, 3, 7, 7)]]
    gradients.append(torch.randn(8, 4, 3, 3, generator=generator).to(memory_format=torch.channels_last))
    whole = torch.cat([gradient.flatten() for gradient in gradients])
    assert total_norm(gradients).shape == ()
    assert total_norm(gradients).item() == pytest.approx(whole.double().norm().item(), rel=1e-5)
    assert total_norm(gradients).item() == pytest.approx(get_total_norm(gradients).item(), rel=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_norm_is_not_finite_where_one_value_is_not(value: float) -> None:
    gradient = torch.ones(1000)
    gradient[617] = value
    assert not torch.isfinite(total_norm([torch.ones(3), gradient]))


def test_no_gradients_have_no_norm() -> None:
    assert total_norm([]).item() == 0.0
