"""What is typed into the fields of the run form, as the values of RunConfig and back, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from PySide6.QtCore import QCoreApplication, QLocale

from app.plan_syntax import parse_plan
from app.viewmodels.field_words import field_label
from app.viewmodels.quantities import read_number
from app.viewmodels.run_fields import CHANNELS, FIELDS, MAY_BE_EMPTY, NUMBERS
from trainer.config import ConfigError, config_from_dict


def typed_value(field: str, text: str) -> Any:
    """Read what was typed into a field; what cannot be read stays text, for the check to name."""
    text = text.strip()
    if field == "plan":
        plan = parse_plan(text)
        return text if plan is None else plan
    if field in MAY_BE_EMPTY and not text:
        return None
    if field in CHANNELS:
        # A list of three is written with points: a comma stands between them.
        return re.split(r"[,;\s]+", text.strip("[] "))
    return _number(text) if field in NUMBERS else text


def typed_values(texts: Mapping[str, str], fields: Iterable[str]) -> dict[str, Any]:
    """Return what was typed into some fields as RunConfig's nested plain values."""
    values: dict[str, Any] = {}
    for field in fields:
        *sections, key = field.split(".")
        section = values
        for name in sections:
            section = section.setdefault(name, {})
        section[key] = typed_value(field, texts[field])
    return values


def typed_error(field: str, text: str) -> str:
    """Say what is wrong with what was typed into a field by itself; "" for nothing."""
    values = typed_values({field: text}, [field])
    if field == "plan" and isinstance(values["plan"], str):
        return QCoreApplication.translate(
            "RunForm", 'Write the plan as "3: +stage4, +conv5", phases apart by a semicolon.'
        )
    try:
        config_from_dict(values)
    except ConfigError as error:
        # What stands within a field follows its name there: "plan, phase 1: epoch".
        return error.sentences[error.field].replace(field, field_label(field), 1)
    return ""


def shown_value(value: Any) -> str:
    """Write a value as a field shows it."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(str(number) for number in value)
    if isinstance(value, float):
        return QLocale().toString(value, "g", QLocale.FloatingPointPrecisionOption.FloatingPointShortest.value)
    return str(value)


def value_at(values: Mapping[str, Any], field: str) -> Any:
    """Return a field's value among RunConfig's nested plain values."""
    for part in field.split("."):
        values = values[part]
    return values


def field_of(name: str) -> str:
    """Return the field of the form that a name in RunConfig belongs to, whole or without its section; "" for none."""
    if name in FIELDS:
        return name
    owner = next((known for known in FIELDS if name.startswith(f"{known}.")), "")
    return owner or next((known for known in FIELDS if name and known.endswith(f".{name}")), "")


def _number(text: str) -> float | str:
    number = read_number(text)
    return text if number is None else number
