"""A model that goes through torch.compile: whether that is possible here, and how often it is done."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainer.config import ConfigError
from trainer.messages.base import Event
from trainer.messages.events import LogWritten

MOST_GRAPHS = 64
"""A freeze pattern needs four: whole and last batches, trained and validated. torch's own limit is 8."""
_LOGGER = logging.getLogger("torch._dynamo.convert_frame")
_LIMIT_WORDS = "torch._dynamo hit config."


class Compilation:
    """Compiles a module in place, and tells of each graph: it takes up to minutes, and the run waits for it.

    Each shape of a batch gets its own graph: one for all shapes would round otherwise, and a run that is resumed would
    come to it at another step.

    Args:
        module: The model. Its names, its weights and what copies it stay as they were.
        emit: Where the log's lines go.

    Attributes:
        num_graphs: How many were compiled.
        is_at_limit: Whether torch compiles no more of them: what is new is computed as without it.

    """

    def __init__(self, module: nn.Module, emit: Callable[[Event], None]) -> None:
        self.num_graphs = 0
        self.is_at_limit = False
        self._emit = emit
        self._compile_graph = torch._dynamo.lookup_backend("inductor")
        torch._dynamo.config.recompile_limit = MOST_GRAPHS
        _LOGGER.addFilter(self._watch_limit)
        self.add(module)

    def add(self, module: nn.Module) -> None:
        """Compile another module in place, from its next call on."""
        module.compile(backend=self._compile, dynamic=False)

    def close(self) -> None:
        """Watch no more."""
        _LOGGER.removeFilter(self._watch_limit)

    def _compile(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor], **options: Any) -> Any:
        self.num_graphs += 1
        text = "The model is compiled: its first step takes as long as that."
        if self.num_graphs > 1:
            times = f"{self.num_graphs:,} times now"
            text = f"The model is compiled again ({times}): what learns, or the shape of a batch, is another."
        self._emit(LogWritten(level="info", text=text))
        return self._compile_graph(graph, inputs, **options)

    def _watch_limit(self, record: logging.LogRecord) -> bool:
        if not self.is_at_limit and _LIMIT_WORDS in str(record.msg):
            self.is_at_limit = True
            text = (
                f"The model was compiled {self.num_graphs:,} times, which is the most: whatever is new from here on is "
                "computed without torch.compile, as fast as with training.compile = off. Resume the run to begin anew."
            )
            self._emit(LogWritten(level="warning", text=text))
        return True


def check_compiler(device: torch.device) -> None:
    """Refuse torch.compile where it cannot compile.

    Raises:
        ConfigError: There is no compiler for the device, or it fails.

    """
    problem = _problem(device.type)
    if problem:
        needed = "Triton" if device.type == "cuda" else "a C++ compiler (g++ or clang++)"
        raise ConfigError(
            f"The model cannot be compiled for {device}: {problem} Install {needed}, or use training.compile = off.",
            "training.compile",
        )


@functools.cache
def _problem(device_type: str) -> str:
    """Try a small function. Returns why that fails, "" where it does not."""
    if device_type not in {"cpu", "cuda"}:
        return "torch.compile is not tried on such devices here."
    try:
        # What an earlier compiler left would be taken else.
        options: dict[str, str | int | bool | Callable[..., Any]] = {"force_disable_caches": True}
        torch.compile(lambda values: (values * 2).sum(), options=options)(torch.ones(64, device=device_type))
    except Exception as error:  # noqa: BLE001 (compilers and what calls them raise anything)
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return ""
