"""The words of settings that checkpoints or runs differ in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import QCoreApplication

from app.comparison import few
from app.plan_syntax import plan_text
from app.viewmodels.field_values import shown_value
from app.viewmodels.field_words import choice_text, field_label
from app.viewmodels.quantities import MISSING, rate_text
from app.viewmodels.run_fields import FIELDS

_SHORT_SHA = 12


def setting_name(name: str) -> str:
    """Return what a setting is called."""
    words = {
        "training.feature_cache": QCoreApplication.translate("Comparison", "Feature cache"),
        "training.feature_precision": QCoreApplication.translate("Comparison", "Features kept"),
        "training.feature_memory_gb": QCoreApplication.translate("Comparison", "Features in memory, GB"),
        "training.feature_disk_gb": QCoreApplication.translate("Comparison", "Features on disk, GB"),
        "checkpoint.rate": QCoreApplication.translate("Comparison", "Rate then"),
        "checkpoint.frozen": QCoreApplication.translate("Comparison", "Frozen then"),
        "training.batch_parts": QCoreApplication.translate("Comparison", "Parts of a batch"),
        "data.fingerprint": QCoreApplication.translate("Comparison", "Images (fingerprint)"),
        "model.frozen": QCoreApplication.translate("Comparison", "Frozen at start"),
        "optimizer.multipliers": QCoreApplication.translate("Comparison", "Rate multipliers"),
        "branch": QCoreApplication.translate("Comparison", "Branched from"),
        "branch.run": QCoreApplication.translate("Comparison", "Branched from the run"),
        "branch.checkpoint": QCoreApplication.translate("Comparison", "Branched from the checkpoint"),
        "branch.with_optimizer": QCoreApplication.translate("Comparison", "Optimizer's state of that"),
    }
    if name in words:
        return words[name]
    return field_label(name) if name in FIELDS else name.removeprefix("made_with.")


def setting_text(name: str, value: Any) -> str:
    """Write the value of a setting."""
    if value is None or value in ("", []):
        return MISSING
    if name == "plan":
        return plan_text(value)
    if name in {"checkpoint.rate", "optimizer.rate"}:
        return rate_text(value)
    if name == "data.fingerprint":
        return str(value)[:_SHORT_SHA]
    if name == "branch.run":
        return Path(value).name
    if isinstance(value, list):
        value = few(value)
    return choice_text(shown_value(value))
