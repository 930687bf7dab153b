"""A freeze plan as text that is typed, and as a sentence that is read."""

from __future__ import annotations

import re
from typing import Any

from PySide6.QtCore import QCoreApplication

_PHASE = re.compile(r"\s*(\d+)\s*:\s*(.+)")


def parse_plan(text: str) -> list[dict[str, Any]] | None:
    """Read "3: +stage4, +conv5; 5: -conv1" as phases: + unfreezes at that epoch, - freezes. None if it is no plan."""
    phases: list[dict[str, Any]] = []
    for part in filter(None, (piece.strip() for piece in re.split(r"[;\n]", text))):
        matched = _PHASE.fullmatch(part)
        if matched is None:
            return None
        phase: dict[str, Any] = {"epoch": int(matched[1]), "freeze": [], "unfreeze": []}
        for layer in filter(None, (piece.strip() for piece in matched[2].split(","))):
            key = "freeze" if layer[0] in "-−" else "unfreeze"
            phase[key].append(layer.lstrip("+-−").strip())
        if not all(phase["freeze"] + phase["unfreeze"]):
            return None
        phases.append(phase)
    return phases


def plan_text(plan: list[dict[str, Any]]) -> str:
    """Write phases as ``parse_plan`` reads them."""
    return "; ".join(
        f"{phase['epoch']}: "
        + ", ".join([f"+{layer}" for layer in phase["unfreeze"]] + [f"-{layer}" for layer in phase["freeze"]])
        for phase in plan
    )


def plan_sentence(plan: list[dict[str, Any]] | None) -> str:
    """Say a plan in words: "After epoch 3: unfreeze stage4, conv5."."""
    sentences = []
    for phase in plan or []:
        changes = []
        if phase["unfreeze"]:
            changes.append(QCoreApplication.translate("RunForm", "unfreeze {}").format(", ".join(phase["unfreeze"])))
        if phase["freeze"]:
            changes.append(QCoreApplication.translate("RunForm", "freeze {}").format(", ".join(phase["freeze"])))
        sentences.append(
            QCoreApplication.translate("RunForm", "After epoch {}: {}.").format(phase["epoch"], "; ".join(changes))
        )
    return " ".join(sentences)
