"""A freeze plan as it is typed, in the form and in a shell."""

from __future__ import annotations

import re
from typing import Any

_PHASE = re.compile(r"\s*(?P<start>[^:]+?)\s*:\s*(?P<changes>.+)")
_START = re.compile(r"(?P<when>epoch|step|plateau)?\s*(?P<number>\d+)(\s+(?P<metric>loss|accuracy))?")
_CHANGE = re.compile(r"(?P<sign>[-−+=]?)\s*(?P<layer>[^\s×=+−-][^\s×]*)(\s*[×x]\s*(?P<rate>\d+(\.\d+)?))?")


def parse_plan(text: str) -> list[dict[str, Any]] | None:
    """Read phases as they are typed. None if it is no plan.

    "3: +stage4, +conv5 ×0.4; step 900: -conv1; plateau 2: =head ×0.1": after 3 epochs, at a step, or when the
    validation loss (or "plateau 2 accuracy") got no better for 2 epochs. + unfreezes, - freezes, = changes the rate
    alone.
    """
    phases: list[dict[str, Any]] = []
    for part in filter(None, (piece.strip() for piece in re.split(r"[;\n]", text))):
        matched = _PHASE.fullmatch(part)
        start = matched and _START.fullmatch(matched["start"])
        if not matched or not start or (start["metric"] and start["when"] != "plateau"):
            return None
        phase: dict[str, Any] = {start["when"] or "epoch": int(start["number"]), "freeze": [], "unfreeze": []}
        if start["metric"]:
            phase["metric"] = start["metric"]
        for piece in filter(None, (piece.strip() for piece in matched["changes"].split(","))):
            if not _take_change(phase, piece):
                return None
        phases.append(phase)
    return phases


def _take_change(phase: dict[str, Any], text: str) -> bool:
    matched = _CHANGE.fullmatch(text)
    if matched is None or (matched["sign"] == "=" and not matched["rate"]):
        return False
    if matched["sign"] != "=":
        phase["freeze" if matched["sign"] in {"-", "−"} else "unfreeze"].append(matched["layer"])
    if matched["rate"]:
        phase.setdefault("rates", {})[matched["layer"]] = float(matched["rate"])
    return True


def plan_text(plan: list[dict[str, Any]]) -> str:
    """Write phases as ``parse_plan`` reads them."""
    return "; ".join(f"{start_text(phase).removeprefix('epoch ')}: {changes_text(phase)}" for phase in plan)


def start_text(phase: dict[str, Any]) -> str:
    """Write when a phase begins, as it is typed: "epoch 3"."""
    if phase.get("epoch") is not None:
        return f"epoch {phase['epoch']}"
    if phase.get("step") is not None:
        return f"step {phase['step']}"
    return f"plateau {phase['plateau']}" + (" accuracy" if phase.get("metric") == "accuracy" else "")


def changes_text(phase: dict[str, Any]) -> str:
    """Write what a phase changes, as it is typed: "+stage4 ×0.4, -conv1"."""
    rates = dict(phase.get("rates", {}))
    texts = []
    for sign, layers in (("+", phase["unfreeze"]), ("-", phase["freeze"])):
        for layer in layers:
            rate = rates.pop(layer, None)
            texts.append(f"{sign}{layer}" + ("" if rate is None else f" ×{rate:g}"))
    return ", ".join(texts + [f"={layer} ×{rate:g}" for layer, rate in rates.items()])
