"""The settings of a run by dotted names, and those in which several are not the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted names: "model.name" of ``{"model": {"name": …}}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, Mapping)
        flat.update(flat_settings(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value})
    return flat


def differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the settings that are not the same in all, by name; None where one has no such setting."""
    names = dict.fromkeys(name for each in settings for name in each)
    rows = {name: [each.get(name) for each in settings] for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}
