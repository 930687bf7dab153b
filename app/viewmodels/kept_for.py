"""Why each checkpoint of the run on display is kept, in words."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QCoreApplication

from trainer.config import CheckpointsConfig, Metric
from trainer.messages.run_info import CheckpointInfo
from trainer.retention import Reason, why_kept
from trainer.run_record import best_checkpoint


def kept_for(
    listed: Sequence[CheckpointInfo], rules: CheckpointsConfig, metric: Metric, resume_point: str | None
) -> dict[str, list[str]]:
    """Return the reasons by the checkpoint's name. Those of which nobody needs to be told are left out.

    That it is the best, the last, pinned or saved by hand has a word of its own; that all are kept is no news, unless
    they only are as long as the disk's budget has room.
    """
    words: dict[Reason, str] = {
        "resume point": QCoreApplication.translate("Checkpoints", "resume point"),
        "before a change": QCoreApplication.translate("Checkpoints", "before a freeze change"),
        "every n epochs": QCoreApplication.translate("Checkpoints", "one in {} epochs").format(rules.every_epochs)
        if rules.every_epochs != 1
        else QCoreApplication.translate("Checkpoints", "every epoch"),
        "best": QCoreApplication.translate("Checkpoints", "among the best {}").format(rules.keep_best),
        "last": QCoreApplication.translate("Checkpoints", "among the last {}").format(rules.keep_last)
        if (rules.keep_last or 1) > 1
        else QCoreApplication.translate("Checkpoints", "last of an epoch"),
    }
    if not listed:
        return {}
    newest = listed[-1]
    # One of within an epoch is kept for nothing else.
    is_point_told = resume_point == newest.name and newest.reason != "periodic"
    if not rules.is_thinning and rules.disk_gb is None:
        # All are kept, of which there may be thousands.
        return {} if resume_point is None or is_point_told else {resume_point: [words["resume point"]]}
    reasons = why_kept(listed, rules, metric, resume_point)
    best = best_checkpoint(list(listed), metric)
    told_anyway = {(newest.name, "last"), ("" if best is None else best.name, "best")}
    told_anyway |= {(newest.name, "resume point")} if is_point_told else set()
    room = QCoreApplication.translate("Checkpoints", "while there is room")
    return {
        name: [words[reason] for reason in why if reason in words and (name, reason) not in told_anyway]
        + [room] * (why == ["all"])
        for name, why in reasons.items()
    }
