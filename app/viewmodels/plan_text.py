"""A freeze plan in sentences, and the words for the plans that have a name."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QCoreApplication

from trainer.plans import PlanName


def plan_sentence(plan: list[dict[str, Any]] | None) -> str:
    """Say a plan in words: "After epoch 3: unfreeze stage4, conv5."."""
    text = QCoreApplication.translate("RunForm", "{when}: {changes}.")
    return " ".join(text.format(when=start_sentence(phase), changes=change_sentence(phase)) for phase in plan or [])


def start_sentence(phase: dict[str, Any]) -> str:
    """Say when a phase begins: "After epoch 3"."""
    if phase.get("epoch") is not None:
        return QCoreApplication.translate("RunForm", "After epoch {}").format(phase["epoch"])
    if phase.get("step") is not None:
        return QCoreApplication.translate("RunForm", "After step {}").format(phase["step"])
    if phase.get("metric") == "accuracy":
        text = QCoreApplication.translate("RunForm", "After {} epochs without a higher validation accuracy")
    else:
        text = QCoreApplication.translate("RunForm", "After {} epochs without a lower validation loss")
    return text.format(phase["plateau"])


def change_sentence(phase: dict[str, Any]) -> str:
    """Say what a phase changes: "unfreeze stage4, conv5; freeze conv1; rate of head × 0.1"."""
    changes = []
    if phase["unfreeze"]:
        changes.append(QCoreApplication.translate("RunForm", "unfreeze {}").format(", ".join(phase["unfreeze"])))
    if phase["freeze"]:
        changes.append(QCoreApplication.translate("RunForm", "freeze {}").format(", ".join(phase["freeze"])))
    text = QCoreApplication.translate("RunForm", "rate of {} × {:g}")
    changes += [text.format(layer, rate) for layer, rate in phase.get("rates", {}).items()]
    return "; ".join(changes)


def plan_title(name: PlanName) -> str:
    """Return the words for a plan that has a name: ``PlanName.words``, in the window's language."""
    return {
        PlanName.LINEAR_PROBE: QCoreApplication.translate("RunForm", "Linear probe"),
        PlanName.LAST_STAGE: QCoreApplication.translate("RunForm", "Last stage + head"),
        PlanName.GRADUAL: QCoreApplication.translate("RunForm", "Gradual unfreezing"),
        PlanName.LP_FT: QCoreApplication.translate("RunForm", "LP-FT"),
        PlanName.CHAIN_THAW: QCoreApplication.translate("RunForm", "Chain-thaw"),
        PlanName.CYCLIC: QCoreApplication.translate("RunForm", "Cyclic"),
        PlanName.LAYER_DECAY: QCoreApplication.translate("RunForm", "Layer-wise rate decay"),
    }[name]


def plan_tip(name: PlanName) -> str:
    """Say what a plan does, and where it is from."""
    return {
        PlanName.LINEAR_PROBE: QCoreApplication.translate("RunForm", "The head alone learns."),
        PlanName.LAST_STAGE: QCoreApplication.translate("RunForm", "The last stage and the head learn."),
        PlanName.GRADUAL: QCoreApplication.translate(
            "RunForm",
            "Stage by stage from the output, each at a lower rate than the next (ULMFiT, Howard and Ruder 2018).",
        ),
        PlanName.LP_FT: QCoreApplication.translate(
            "RunForm",
            "Linear probing, then fine-tuning: the head for half of the run, then everything (Kumar et al. 2022).",
        ),
        PlanName.CHAIN_THAW: QCoreApplication.translate(
            "RunForm", "The head, then each stage by itself from the input, then everything (Felbo et al. 2017)."
        ),
        PlanName.CYCLIC: QCoreApplication.translate(
            "RunForm", "The head and one stage, which is frozen when the next one is unfrozen, and so on in turns."
        ),
        PlanName.LAYER_DECAY: QCoreApplication.translate(
            "RunForm", "Nothing is frozen; from the head on, each stage learns more slowly than the one after it."
        ),
    }[name]
