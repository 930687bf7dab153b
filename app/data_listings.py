"""What a scan of a data set found and what a run on it will need, as the ``thaw`` command prints it or writes JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from app.figures import duration, percent, short_time, size
from app.tables import add_row, bar, new_table
from trainer.data_report import Bin, DataReport, IssueKind, Measure, ReportedIssue
from trainer.messages.data_info import DataSummary
from trainer.messages.events import DataChecked
from trainer.messages.run_info import RunEstimate

MAX_ISSUES_SHOWN = 20
NUM_ALIKE_NAMED = 3
"""Files of which the same is said, before the others are only counted."""


def classes_table(summary: DataSummary) -> Table:
    """Return the classes of a data set with their images in each split."""
    splits = list(summary.counts)
    table = new_table("class", *(f"{split}>" for split in splits))
    for class_idx, name in enumerate(summary.class_names):
        add_row(table, name, *(f"{summary.counts[split][class_idx]:,}" for split in splits))
    return table


def bins_table(bins: Sequence[Bin]) -> Table:
    """Return how many images have which size, or which shape, as bars."""
    is_size = bins[0].measure is Measure.SIZE
    table = new_table("short side, px>" if is_size else "width : height>", "images>", "")
    largest = max(each.num_images for each in bins)
    for each in bins:
        add_row(
            table,
            _size_text(each) if is_size else _shape_text(each),
            f"{each.num_images:,}",
            bar(each.num_images / largest),
        )
    return table


def _size_text(size: Bin) -> str:
    low, high = f"{size.low:,.0f}", f"{size.high - 1:,.0f}"
    return low if low == high else f"{low} – {high}"


def _shape_text(shape: Bin) -> str:
    sign = "≤ " if shape.low == 0 else "≥ " if math.isinf(shape.high) else ""
    return "{}{} : {}".format(sign, *shape.shape)


def issues_table(issues: Iterable[ReportedIssue]) -> tuple[Table, int]:
    """Return the issues of a data set, the gravest first, and the number of those of which the table says nothing.

    Of those that say the same of a file, the first few are named and the others counted.
    """
    alike: dict[tuple[IssueKind, str], list[ReportedIssue]] = {}
    for issue in issues:
        alike.setdefault((issue.kind, issue.sentence), []).append(issue)
    table = new_table("issue", "file", "what")
    num_left = MAX_ISSUES_SHOWN
    num_untold = 0
    for (kind, sentence), group in alike.items():
        if not num_left:
            num_untold += len(group)
            continue
        # A line that counts a single one takes no less room than its name.
        num_named = len(group) if len(group) <= NUM_ALIKE_NAMED + 1 else NUM_ALIKE_NAMED
        named = group[: min(num_named, num_left)]
        for issue in named:
            files = f"{issue.shown}\n{issue.other_shown}" if issue.other_shown else issue.shown
            add_row(table, kind.replace("_", " "), files, sentence)
        if len(group) > len(named):
            add_row(table, kind.replace("_", " "), f"… and {len(group) - len(named):,} more", sentence)
        num_left -= len(named)
    return table, num_untold


def need_sentence(need: RunEstimate) -> str:
    """Say what a run will need."""
    is_part = need.kept_bytes < need.decoded_bytes
    kept = f"{size(need.kept_bytes)} of {size(need.decoded_bytes)}" if is_part else f"all {size(need.decoded_bytes)}"
    return (
        f"The run will need about {_time_sentence(need)} on {need.device}, "
        f"{size(need.memory_bytes)} of memory and {size(need.disk_bytes)} on disk "
        f"({size(need.free_bytes)} free). Of its decoded images, {kept} will be kept: those of all runs may take "
        f"{size(need.budget_bytes)}. {need.not_cached}".rstrip()
    )


def _time_sentence(need: RunEstimate) -> str:
    epoch, whole = duration(max(need.seconds_per_epoch, 1)), f"{duration(max(need.seconds, 1))} in all"
    if need.unfreezes:
        whole = f"{whole}, more once the plan unfreezes,"
    if not 0 < need.cached_views < need.num_epochs:
        return f"{epoch} an epoch, {whole}"
    later, room = short_time(need.cached_seconds_per_epoch), size(need.cached_bytes)
    return (
        f"{epoch} an epoch, from epoch {need.cached_views + 1} on {later}, as features of {need.cached_layers} are "
        f"cached ({room}, {percent(need.cached_saved_share)} of the forward computing), {whole}"
    )


def check_values(checked: DataChecked, report: DataReport, need: RunEstimate | None) -> dict[str, Any]:
    """Return what a scan of a data set found, with every issue, and what a run will need, as plain values."""
    issues = [
        {"kind": issue.kind.value, "file": issue.shown, "other_file": issue.other_shown, "sentence": issue.sentence}
        for issue in report.issues()
    ]
    bins = {
        f"{measure.value}s": [{"from": each.low, "below": each.high, "images": each.num_images} for each in found]
        for measure, found in report.bins().items()
    }
    return {
        "path": checked.path,
        **checked.summary.model_dump(mode="json"),
        "class_counts": checked.summary.class_counts,
        **bins,
        "issues": issues,
        "need": None if need is None else need.model_dump(mode="json"),
    }
