"""Why each checkpoint of the run on display is kept, in words."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QCoreApplication

from trainer.config import CheckpointsConfig, Metric
from trainer.messages.run_info import CheckpointInfo
from trainer.retention import Reason, why_kept
from trainer.run_record import best_checkpoint


def kept_for(listed: Sequence[CheckpointInfo], rules: CheckpointsConfig, metric: Metric) -> dict[str, list[str]]:
    """Return the reasons by the checkpoint's name. Those of which nobody needs to be told are left out.

    That it is the best, the last, pinned or saved by hand has a word of its own; that all are kept is no news.
    """
    words: dict[Reason, str] = {
        "before a change": QCoreApplication.translate("Checkpoints", "before a freeze change"),
        "every n epochs": QCoreApplication.translate("Checkpoints", "one in {} epochs").format(rules.every_epochs)
        if rules.every_epochs != 1
        else QCoreApplication.translate("Checkpoints", "every epoch"),
        "best": QCoreApplication.translate("Checkpoints", "among the best {}").format(rules.keep_best),
        "last": QCoreApplication.translate("Checkpoints", "among the last {}").format(rules.keep_last),
    }
    if not rules.is_thinning or not listed:
        return {}
    # From which one the run would go on is known to its folder alone; the newest is marked as the last.
    reasons = why_kept(listed, rules, metric, None)
    best = best_checkpoint(list(listed), metric)
    told_anyway = {(listed[-1].name, "last"), ("" if best is None else best.name, "best")}
    return {
        name: [words[reason] for reason in why if reason in words and (name, reason) not in told_anyway]
        for name, why in reasons.items()
    }
