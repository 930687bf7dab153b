"""What an update does in each layer, beside the same reckoned by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.config import OptimizerConfig
from trainer.freezing import FreezeSet
from trainer.layer_norms import LayerNorms
from trainer.messages.events import LayerStatsReported
from trainer.optim import make_optimizer


class Updates:
    """A small net with a frozen layer, and updates of it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
        FreezeSet(self.net, ["2"]).freeze(["0"])
        self.optimizer = make_optimizer(OptimizerConfig(name="SGD", rate=0.5, momentum=0, weight_decay=0), self.net)
        self.norms = LayerNorms(self.optimizer)

    def make(self, step: int) -> LayerStatsReported | None:
        self.net(torch.randn(8, 4)).square().mean().backward()
        self.norms.begin()
        self.gradients = [p.grad.clone() for p in self.net[2].parameters()]
        self.optimizer.step()
        self.norms.finish(step, 3)
        self.optimizer.zero_grad(set_to_none=True)
        return self.norms.take()


def norm(tensors: list[torch.Tensor]) -> float:
    return float(torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).norm())


def test_each_layer_that_learned_has_the_norms_of_its_gradient_its_change_and_its_weights() -> None:
    updates = Updates()
    before = [parameter.detach().clone() for parameter in updates.net[2].parameters()]
    report = updates.make(7)
    assert report is not None
    assert (report.step, report.segment, report.layers) == (7, 3, ["1", "2"])
    after = list(updates.net[2].parameters())
    assert report.gradient_norms[1] == pytest.approx(norm(updates.gradients), rel=1e-3)
    assert report.weight_norms[1] == pytest.approx(norm(before), rel=1e-3)
    change = norm([a - b for a, b in zip(after, before, strict=True)])
    assert report.update_norms[1] == pytest.approx(change, rel=1e-3)
    assert report.update_norms[1] == pytest.approx(0.5 * report.gradient_norms[1], rel=1e-2)


def test_an_update_that_comes_too_soon_is_not_taken_and_a_later_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = Updates()
    now = 100.0
    monkeypatch.setattr("trainer.layer_norms.time.perf_counter", lambda: now)
    assert updates.make(1) is not None
    now = 100.9
    assert updates.make(2) is None
    now = 101.1
    report = updates.make(3)
    assert report is not None
    assert report.step == 3


def test_the_dearer_the_norms_are_the_seldomer_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = Updates()
    # Each look at the clock comes 0.1 s after the one before: taking the norms costs 0.2 s.
    ticks = iter(range(1000))
    monkeypatch.setattr("trainer.layer_norms.time.perf_counter", lambda: next(ticks) / 10)
    taken = [step for step in range(500) if updates.make(step) is not None]
    # One look a step that is passed over, and 0.5 % of the time at most: once in 40 s.
    assert len(taken) == 2
    assert taken[1] - taken[0] > 390
