"""Why each checkpoint of the run on display is kept, in words."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QCoreApplication

from trainer.config import CheckpointsConfig, Metric
from trainer.messages.run_info import CheckpointInfo
from trainer.retention import Reason, why_kept


def kept_for(listed: Sequence[CheckpointInfo], rules: CheckpointsConfig, metric: Metric) -> dict[str, list[str]]:
    """Return the reasons by the checkpoint's name. Those of which nobody needs to be told are left out.

    That it is the best, the last, pinned or saved by hand has a word of its own; that all are kept is no news.
    """
    words: dict[Reason, str] = {
        "before a change": QCoreApplication.translate("Checkpoints", "before a freeze change"),
        "every n epochs": QCoreApplication.translate("Checkpoints", "one in {} epochs").format(rules.every_epochs)
        if rules.every_epochs != 1
        else QCoreApplication.translate("Checkpoints", "every epoch"),
        "best": QCoreApplication.translate("Checkpoints", "one of {} best").format(rules.keep_best),
        "last": QCoreApplication.translate("Checkpoints", "one of {} last").format(rules.keep_last),
    }
    if not rules.is_thinning:
        return {}
    # From which one the run would go on is known to its folder alone; the newest is marked as the last.
    reasons = why_kept(listed, rules, metric, None)
    told = {reason: text for reason, text in words.items() if _is_news(reason, rules)}
    return {name: [told[reason] for reason in why if reason in told] for name, why in reasons.items()}


def _is_news(reason: Reason, rules: CheckpointsConfig) -> bool:
    if reason == "best":
        return (rules.keep_best or 1) > 1
    return reason != "last" or (rules.keep_last or 1) > 1
