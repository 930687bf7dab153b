"""Single fields of a configuration as a shell gives them: "training.epochs=5"."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from trainer.config import ConfigError, RunConfig, config_from_dict


def with_settings(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """Return a configuration with some fields set, each given as "section.field=value"; the value is TOML or a text.

    Raises:
        ConfigError: One of them has another form, or names no field of a run, or its value is out of range.

    """
    values = config.model_dump(exclude_none=True)
    for setting in settings:
        field, separator, text = setting.partition("=")
        *sections, name = field.strip().split(".")
        if not separator or not name:
            raise ConfigError(f'{setting!r} sets no field. Write it as "training.epochs=5".')
        place: Any = values
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ConfigError(
                f"{field.strip()} is not a field of a run. Give a section and a field of it.", field.strip()
            )
        place[name] = _value_of(text.strip())
    return config_from_dict(values, "--set")


def _value_of(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        # A word needs no quotes in a shell that takes them away.
        return text
