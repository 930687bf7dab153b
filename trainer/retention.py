"""Retention: which checkpoints of a run are kept, and why. A pure function of their rows and the run's rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from trainer.config import CheckpointsConfig, Metric
from trainer.messages.run_info import CheckpointInfo
from trainer.run_record import checkpoint_rank

Reason = Literal["pinned", "saved by hand", "resume point", "best", "last", "before a change", "every n epochs", "all"]
"""Why a checkpoint is kept: the user's pin or wish; the run would go on from it; then the rules' reasons."""

_NEVER_DELETED = frozenset({"pinned", "saved by hand", "resume point"})
_WORTH: dict[Reason, int] = {"all": 0, "every n epochs": 1, "before a change": 2, "last": 3, "best": 4}
"""What goes first where the disk's budget presses."""


def why_kept(
    listed: Sequence[CheckpointInfo],
    rules: CheckpointsConfig,
    metric: Metric,
    resume_point: str | None,
    *,
    is_pressed: bool = False,
) -> dict[str, list[Reason]]:
    """Say for each checkpoint why it is kept, by its name. One without a reason goes.

    Args:
        listed: The run's checkpoints, oldest first.
        rules: How many are kept.
        metric: By what the best is told.
        resume_point: The one from which the run would go on.
        is_pressed: Whether those that no rule asks for are in the way.

    """
    # Those of within an epoch are for a run that is killed there: the newest one, until there is a newer point.
    lasting = [info for info in listed if info.reason != "periodic"]
    ranked = sorted(
        (rank, position) for position, info in enumerate(lasting) if (rank := checkpoint_rank(info, metric))
    )
    best = {lasting[position].name for _, position in ranked[: rules.keep_best or 1]}
    last = {info.name for info in lasting[-(rules.keep_last or 1) :]}
    before_changes = {older.name for older, newer in pairwise(lasting) if older.frozen != newer.frozen}
    of_epochs = {info.name for info in lasting if info.reason == "epoch"}
    kept_for: dict[Reason, Iterable[str]] = {
        "pinned": (info.name for info in listed if info.is_pinned),
        "saved by hand": (info.name for info in listed if info.reason == "user"),
        "resume point": (info.name for info in listed if info.name == resume_point),
        "best": best,
        "last": last,
        "before a change": before_changes if rules.before_changes else (),
        "every n epochs": (
            info.name
            for info in lasting
            if info.name in of_epochs and rules.every_epochs is not None and info.epoch % rules.every_epochs == 0
        ),
        "all": () if rules.is_thinning or is_pressed else (info.name for info in lasting),
    }
    names = {reason: frozenset(those) for reason, those in kept_for.items()}
    return {info.name: [reason for reason in kept_for if info.name in names[reason]] for info in listed}


def superfluous(
    listed: Sequence[CheckpointInfo],
    rules: CheckpointsConfig,
    metric: Metric,
    resume_point: str | None,
    base_bytes: int = 0,
) -> list[CheckpointInfo]:
    """Return the checkpoints that go: those without a reason, then the least of the others until the next one has room.

    ``base_bytes`` is what the run's start takes of the budget. The pinned ones, those that were saved by hand, the best
    one and that from which the run would go on stay, whatever the budget.
    """
    if not rules.is_thinning and not any(info.reason == "periodic" for info in listed):
        # All are kept, of which there may be thousands.
        gone, kept = [], list(listed)
    else:
        reasons = why_kept(listed, rules, metric, resume_point)
        gone = [info for info in listed if not reasons[info.name]]
        kept = [info for info in listed if reasons[info.name]]
    over_bytes = 0 if rules.disk_gb is None else bytes_with_next(kept, base_bytes) - round(rules.disk_gb * 1e9)
    if over_bytes <= 0 or not kept:
        return gone
    pressed = why_kept(listed, rules, metric, resume_point, is_pressed=True)
    only_best = rules.model_copy(update={"keep_best": 1})
    best = {name for name, why in why_kept(listed, only_best, metric, resume_point).items() if "best" in why}
    spare = [info for info in kept if info.name not in best and _NEVER_DELETED.isdisjoint(pressed[info.name])]
    for info in sorted(spare, key=lambda info: _worth(info, pressed[info.name], metric)):
        if over_bytes <= 0:
            break
        over_bytes -= info.size_bytes
        gone.append(info)
    return gone


def bytes_with_next(listed: Sequence[CheckpointInfo], base_bytes: int) -> int:
    """Return what checkpoints will take with one more as large as the newest."""
    return base_bytes + sum(info.size_bytes for info in listed) + (listed[-1].size_bytes if listed else 0)


def most_bytes(sizes: Sequence[int], rules: CheckpointsConfig, base_bytes: int) -> int:
    """Return what the checkpoints of epochs of such sizes take at most at one time, beside their base."""
    total = sum(sizes)
    if rules.is_thinning:
        total, listed = 0, []
        for epoch, size in enumerate(sizes, start=1):
            # As if the first epochs were the best ones: then the most are kept. Others have another size for a change.
            listed.append(_imagined(epoch, size))
            total = max(total, sum(info.size_bytes for info in listed))
            reasons = why_kept(listed, rules, "loss", listed[-1].name)
            listed = [info for info in listed if reasons[info.name]]
    return total if rules.disk_gb is None else min(total, max(0, round(rules.disk_gb * 1e9) - base_bytes))


def _worth(info: CheckpointInfo, reasons: list[Reason], metric: Metric) -> tuple[int, float, float]:
    """Return what is the lower the sooner it goes: among the best the worse ones, among others the older ones."""
    worth = max((_WORTH[reason] for reason in reasons), default=0)
    rank = checkpoint_rank(info, metric) if worth == _WORTH["best"] else None
    return (worth, -rank[0] if rank else 0.0, info.saved_at)


def _imagined(epoch: int, size_bytes: int) -> CheckpointInfo:
    return CheckpointInfo(
        name=str(epoch), epoch=epoch, step=epoch, loss=float(epoch), accuracy=0.0, frozen=[str(size_bytes)],
        frozen_summary="", size_bytes=size_bytes, sha256="", saved_at=float(epoch), reason="epoch", segment=0,
    )  # fmt: skip
