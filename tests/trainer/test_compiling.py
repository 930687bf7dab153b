"""torch.compile: graphs are counted and told, the limit too, and a resume goes on to the bit."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from trainer import compiling
from trainer.checkpoints import copy_to_cpu
from trainer.compiling import Compilation, check_compiler
from trainer.config import ConfigError
from trainer.messages.base import Event
from trainer.messages.events import LogWritten

# A compiler takes seconds for each.
pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, values: Tensor) -> Tensor:
        return cast("Tensor", self.head(torch.relu(self.body(values))))


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Compile anew in each test, and try the compiler anew."""
    compiling._problem.cache_clear()
    torch._dynamo.reset()
    yield
    compiling._problem.cache_clear()
    torch._dynamo.reset()


def test_without_a_compiler_the_run_is_refused_with_what_to_do() -> None:
    why = r"cannot be compiled for cpu: .* Install a C\+\+ compiler"
    without = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})
    with without, pytest.raises(ConfigError, match=why) as refused:
        check_compiler(CPU)
    assert refused.value.field == "training.compile"


def test_graphs_are_counted_and_told_until_no_more_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiler(CPU)
    monkeypatch.setattr(compiling, "MOST_GRAPHS", 2)
    net, told = Net(), list[Event]()
    expected = net(torch.ones(3, 4))
    compilation = Compilation(net, told.append)
    torch.testing.assert_close(net(torch.ones(3, 4)), expected)
    assert compilation.num_graphs == 1
    net.body.requires_grad_(False)
    net(torch.ones(3, 4))
    assert (compilation.num_graphs, compilation.is_at_limit) == (2, False)
    net(torch.ones(5, 4))
    net(torch.ones(6, 4))
    assert (compilation.num_graphs, compilation.is_at_limit) == (2, True)
    compilation.close()
    texts = [(event.level, event.text) for event in told if isinstance(event, LogWritten)]
    assert [level for level, _ in texts] == ["info", "info", "warning"]
    assert "2 times now" in texts[1][1]
    assert "without torch.compile" in texts[2][1]
    # What copies the model, or saves it, knows nothing of that.
    assert list(net.state_dict()) == list(Net().state_dict())
    copy.deepcopy(net)(torch.ones(3, 4))
    assert compilation.num_graphs == 2


def test_a_compiled_model_goes_on_to_the_bit_wherever_it_is_resumed() -> None:
    batches = [torch.randn(size, 4, generator=torch.Generator().manual_seed(size)) for size in (8, 8, 3, 8, 8, 3)]

    def trained(net: Net, batches: list[Tensor]) -> dict[str, Tensor]:
        torch._dynamo.reset()
        compilation = Compilation(net, lambda _: None)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for values in batches:
            optimizer.zero_grad()
            net(values).square().mean().backward()
            optimizer.step()
        compilation.close()
        return dict(copy_to_cpu(net.state_dict()))

    torch.manual_seed(0)
    start = Net()
    whole = trained(copy.deepcopy(start), batches)
    half = trained(start, batches[:3])
    resumed = Net()
    resumed.load_state_dict(half)
    again = trained(resumed, batches[3:])
    assert all(torch.equal(whole[name], again[name]) for name in whole)
