"""Events and tables as strict JSON, for scripts."""

from __future__ import annotations

import json
import math
from typing import Any, TextIO

from trainer.client import ClientEvent, RunOpened, WorkerLost


class JsonLines:
    """Writes each event as a line of JSON. A value that is no finite number is null, as JSON has no other."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, event: ClientEvent) -> None:
        """Write an event as one line, at once."""
        self._stream.write(event_to_json(event) + "\n")
        self._stream.flush()


def event_to_json(event: ClientEvent) -> str:
    """Return an event as one line of strict JSON."""
    if isinstance(event, WorkerLost):
        values: dict[str, Any] = {"kind": "WorkerLost", "expected": event.was_expected, "sentence": event.sentence}
    elif isinstance(event, RunOpened):
        values = {"kind": "RunOpened", "run_dir": str(event.record.path), "is_live": event.is_live}
    else:
        values = event.model_dump(mode="json")
    return to_json(values)


def to_json(values: object) -> str:
    """Return plain values as one line of strict JSON, with null for what is no finite number."""
    return json.dumps(_finite(values), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
