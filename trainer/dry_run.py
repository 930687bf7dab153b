"""A run of a model's graph without memory: the shape of each value, what it costs, and what is written over."""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.fx.node import map_aggregate
from torch.utils.flop_counter import FlopCounterMode

from trainer.model_graph import TraceError, first_line


class DryRun(fx.Interpreter):
    """A run of a graph on the meta device.

    Args:
        module: The model.
        graph: Its graph.
        inputs: A batch of its input, on "meta".
        is_counted: Whether multiply-adds are counted, which takes most of the time.

    Attributes:
        inputs: The batch.
        env: The value of each node.
        mult_adds: Multiply-adds of each node, for the whole batch; 0 where they are not counted.
        touched: Indexes of the nodes that read or give a tensor, by the storage that it is in.
        written: Indexes of the nodes that write over a tensor, by its storage; only of storages with any.

    Raises:
        TraceError: The model cannot take such inputs, or needs their data.

    """

    def __init__(self, module: nn.Module, graph: fx.Graph, inputs: Tensor, *, is_counted: bool = True) -> None:
        super().__init__(module, garbage_collect_values=False, graph=graph)
        self.extra_traceback = False
        self.inputs = inputs
        self.mult_adds: dict[fx.Node, int] = {}
        self.touched: dict[int, list[int]] = defaultdict(list)
        self.written: dict[int, list[int]] = defaultdict(list)
        self._counter = FlopCounterMode(display=False)
        self._is_counted = is_counted

        self._go()

    def _go(self) -> None:
        # The parameters, and the statistics that a run in train mode would change, are others for the while.
        runner = _Runner(self)
        state = {**dict(runner.named_parameters()), **dict(runner.named_buffers())}
        on_meta = {name: tensor.detach().to("meta") for name, tensor in state.items()}
        try:
            with torch.no_grad(), self._counter if self._is_counted else nullcontext():
                functional_call(runner, on_meta, (self.inputs,))
        except Exception as error:  # a model's own code may raise anything
            raise TraceError(first_line(error)) from error

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and note what it costs and which tensors it reads, gives and writes over."""
        index = len(self.mult_adds)
        given = _tensors((self.map_nodes_to_values(n.args, n), self.map_nodes_to_values(n.kwargs, n)))
        versions, before = [tensor._version for tensor in given], self._count()
        value = super().run_node(n)
        # A multiply-add is two operations.
        self.mult_adds[n] = (self._count() - before) // 2
        for storage in {storage_of(tensor) for tensor in (*given, *_tensors(value))}:
            self.touched[storage].append(index)
        for storage in {storage_of(t) for t, then in zip(given, versions, strict=True) if t._version != then}:
            self.written[storage].append(index)
        return value

    def fetch_attr(self, target: str) -> Any:
        """Return a tensor of the module; one that is neither parameter nor buffer is still where it was."""
        attribute = super().fetch_attr(target)
        return attribute.to("meta") if isinstance(attribute, Tensor) else attribute

    def _count(self) -> int:
        return sum(self._counter.flop_counts["Global"].values())


class _Runner(nn.Module):
    """Lets ``functional_call`` reach the module of an interpreter."""

    def __init__(self, run: DryRun) -> None:
        super().__init__()
        self.module = run.module
        self._run = run

    def forward(self, inputs: Tensor) -> None:
        self._run.run(inputs)


def storage_of(tensor: Tensor) -> int:
    """Return what tells a tensor's storage from all others: views have that of their base."""
    number: int = tensor.untyped_storage()._cdata
    return number


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    map_aggregate(value, lambda each: found.append(each) if isinstance(each, Tensor) else None)
    return found
