"""The tables that the ``thaw`` command prints, and the same as plain values for ``--json``."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from app.figures import count, duration, printable, size
from trainer.data_report import Bin, DataReport, IssueKind, Measure, ReportedIssue
from trainer.messages.changes import FreezeChanged, StateRestored
from trainer.messages.data_info import DataSummary
from trainer.messages.events import DataChecked, ModelInspected, ProgressReported
from trainer.messages.model_info import LayerInfo, ModelEntry, ModelSummary
from trainer.messages.run_info import RateCurve, RunEstimate
from trainer.run_record import RunListing, RunRecord, best_checkpoint
from trainer.runs import RunFolder

if TYPE_CHECKING:
    # With numpy, for which no other command waits.
    from app.confusion import Confusion

MAX_ISSUES_SHOWN = 20
NUM_ALIKE_NAMED = 3
"""Files of which the same is said, before the others are only counted."""
MAX_CLASSES_ACROSS = 20
MAX_PAIRS_SHOWN = 20
_NUM_RATES_SHOWN = 20
_BAR_LETTERS = 30


def runs_table(listings: list[RunListing]) -> Table:
    """Return the runs of a folder, one a row; ``listings`` newest first."""
    table = _table("run", "state", "model", "epoch>", "step>", "best accuracy>", "began")
    for run in listings:
        began = datetime.datetime.fromtimestamp(run.created_at).strftime("%Y-%m-%d %H:%M")
        if run.problem:
            _add(table, run.path.name, "damaged", printable(run.problem), "", "", "", began)
            continue
        accuracy = "–" if run.best_accuracy is None else f"{run.best_accuracy:.4f}"
        epochs = f"{run.epoch} of {run.num_epochs}"
        _add(table, run.path.name, listed_state(run), run.model, epochs, f"{run.step:,}", accuracy, began)
    return table


def run_values(run: RunListing) -> dict[str, Any]:
    """Return a run's row as plain values."""
    return {**asdict(run), "path": str(run.path), "name": run.path.name, "state": listed_state(run)}


def listed_state(run: RunListing) -> str:
    """Return the word for a run's state: one whose worker died is interrupted, whatever it last said."""
    return "interrupted" if run.was_interrupted else run.state.value


def checkpoints_table(folder: RunFolder) -> Table:
    """Return a run's checkpoints, one a row, oldest first."""
    listed = folder.checkpoints()
    best = best_checkpoint(listed)
    table = _table("", "checkpoint", "epoch>", "step>", "validation loss>", "accuracy>", "size>", "frozen", "")
    for info in listed:
        note = folder.problem_of(info) or ("last" if info is listed[-1] else "")
        loss = "–" if info.loss is None else f"{info.loss:.4f}"
        accuracy = "–" if info.accuracy is None else f"{info.accuracy:.4f}"
        star = "★" if info is best else ""
        size_text = size(info.size_bytes)
        _add(
            table,
            star,
            info.name,
            str(info.epoch),
            f"{info.step:,}",
            loss,
            accuracy,
            size_text,
            info.frozen_summary,
            note,
        )
    return table


def checkpoint_values(folder: RunFolder) -> list[dict[str, Any]]:
    """Return a run's checkpoints as plain values."""
    listed = folder.checkpoints()
    best = best_checkpoint(listed)
    return [
        {
            **info.model_dump(mode="json"),
            "path": str(folder.checkpoints_dir / info.name),
            "is_best": info is best,
            "is_last": info is listed[-1],
            "problem": folder.problem_of(info),
        }
        for info in listed
    ]


def confusion_table(confusion: Confusion) -> Table:
    """Return a confusion matrix: a row for each class, with what its images were taken for."""
    table = _table("class, taken for", *(f"{printable(name)}>" for name in confusion.class_names), "right>")
    for name, counts, recall in zip(confusion.class_names, confusion.counts, confusion.recall, strict=True):
        _add(table, name, *(f"{number:,}" if number else "·" for number in counts), _share(recall))
    return table


def confused_table(confusion: Confusion) -> Table:
    """Return the pairs of classes that are confused most often, for a matrix that is too wide to be shown."""
    table = _table("class", "taken for", "images>", "of its images>")
    for true_idx, taken_idx, number in confusion.pairs[:MAX_PAIRS_SHOWN]:
        share = _share(confusion.share_of(true_idx, taken_idx))
        _add(table, confusion.class_names[true_idx], confusion.class_names[taken_idx], f"{number:,}", share)
    return table


def _share(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}"


def models_table(models: list[ModelEntry]) -> Table:
    """Return the models on offer with their published weights, one a row; a model's default ones come first."""
    table = _table("model", "parameters>", "weights", "published accuracy>", "pixels>", "size>", "on this disk")
    for entry in models:
        of_model = [entry.name, count(entry.num_params)]
        for each in entry.weight_sets:
            is_cached = "yes" if each.is_cached else ""
            pixels = str(each.images.image_size)
            _add(table, *of_model, each.name, f"{each.accuracy:.4g}", pixels, size(each.size_bytes), is_cached)
            of_model = ["", ""]
    return table


def summary_table(summary: ModelSummary) -> Table:
    """Return the layers of a model with what one image costs in them, one a row, indented as they are nested."""
    table = _table("layer", "type", "output shape", "parameters>", "trainable", "multiply-adds>", "activations>")
    for layer in summary.layers:
        *above, name = layer.fqn.split(".")
        indent = "  " * (len(above) + 1) if layer.fqn else ""
        _add(
            table,
            indent + (name or summary.model),
            layer.type,
            " × ".join(str(side) for side in layer.output_shape),
            f"{layer.num_params:,}" if layer.num_params else "",
            _trainable_word(layer, summary),
            count(layer.mult_adds) if layer.mult_adds else "",
            size(layer.activation_bytes) if layer.activation_bytes else "",
        )
    return table


def _trainable_word(layer: LayerInfo, summary: ModelSummary) -> str:
    below = f"{layer.fqn}." if layer.fqn else ""
    units = {each.fqn for each in summary.layers if each.is_unit and (each is layer or each.fqn.startswith(below))}
    if not layer.num_params:
        return ""
    frozen = units.intersection(summary.frozen)
    return "no" if frozen == units else "partly" if frozen else "yes"


def summary_totals(summary: ModelSummary) -> Table:
    """Return what a model comes to, one figure a row, in the words of torchinfo."""
    total_bytes = summary.input_bytes + summary.forward_backward_bytes + summary.param_bytes
    facts = [
        ("Total parameters", f"{summary.num_params:,}"),
        ("Trainable parameters", f"{summary.num_trainable:,}"),
        ("Frozen parameters", f"{summary.num_params - summary.num_trainable:,}"),
        ("Multiply-adds", f"{summary.layers[0].mult_adds:,}"),
        ("Input size (MB)", f"{summary.input_bytes / 1e6:,.2f}"),
        ("Forward/backward pass size (MB)", f"{summary.forward_backward_bytes / 1e6:,.2f}"),
        ("Parameter size (MB)", f"{summary.param_bytes / 1e6:,.2f}"),
        ("Estimated total size (MB)", f"{total_bytes / 1e6:,.2f}"),
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for label, text in facts:
        table.add_row(Text(label, style="dim"), Text(text))
    return table


def summary_values(inspected: ModelInspected) -> dict[str, Any]:
    """Return a model's layers and totals, and how its weights file fits, as plain values."""
    summary, weights = inspected.summary, inspected.weights
    return {
        **summary.model_dump(mode="json", exclude={"layers"}),
        "num_frozen": summary.num_params - summary.num_trainable,
        "mult_adds": summary.layers[0].mult_adds,
        "input_bytes": summary.input_bytes,
        "forward_backward_bytes": summary.forward_backward_bytes,
        "param_bytes": summary.param_bytes,
        "layers": [
            {**layer.model_dump(mode="json"), "trainable": _trainable_word(layer, summary)} for layer in summary.layers
        ],
        "weights": None if weights is None else weights.model_dump(mode="json"),
    }


def rates_table(curve: RateCurve) -> Table:
    """Return the smoothed loss at rising rates, one a row, as bars; the suggested rate is marked."""
    table = _table("rate>", "smoothed loss>", "", "")
    highest = max(curve.smoothed, default=1.0)
    # As many rows as a screen shows, and the suggested one among them.
    stride = max(1, len(curve.rates) // _NUM_RATES_SHOWN)
    for idx, (rate, loss) in enumerate(zip(curve.rates, curve.smoothed, strict=True)):
        is_suggested = rate == curve.suggestion
        if idx % stride == 0 or is_suggested:
            _add(table, f"{rate:.2g}", f"{loss:.4f}", _bar(loss / highest), "← suggested" if is_suggested else "")
    return table


def suggestion_sentence(curve: RateCurve) -> str:
    """Say which rate is suggested, and where that is from."""
    if curve.suggestion is None:
        return "No rate is suggested: the loss fell at none of them. Check the data, or unfreeze more layers."
    return (
        f"Suggested rate: {curve.suggestion:.2g}, where the smoothed loss fell most steeply "
        "(Smith 2015, arXiv 1506.01186)."
    )


def classes_table(summary: DataSummary) -> Table:
    """Return the classes of a data set with their images in each split."""
    splits = list(summary.counts)
    table = _table("class", *(f"{split}>" for split in splits))
    for class_idx, name in enumerate(summary.class_names):
        _add(table, name, *(f"{summary.counts[split][class_idx]:,}" for split in splits))
    return table


def bins_table(bins: Sequence[Bin]) -> Table:
    """Return how many images have which size, or which shape, as bars."""
    is_size = bins[0].measure is Measure.SIZE
    table = _table("short side, px>" if is_size else "width : height>", "images>", "")
    largest = max(each.num_images for each in bins)
    for each in bins:
        _add(
            table,
            _size_text(each) if is_size else _shape_text(each),
            f"{each.num_images:,}",
            _bar(each.num_images / largest),
        )
    return table


def _size_text(size: Bin) -> str:
    low, high = f"{size.low:,.0f}", f"{size.high - 1:,.0f}"
    return low if low == high else f"{low} – {high}"


def _shape_text(shape: Bin) -> str:
    sign = "≤ " if shape.low == 0 else "≥ " if math.isinf(shape.high) else ""
    return "{}{} : {}".format(sign, *shape.shape)


def _bar(share: float) -> str:
    """Return a bar of eighths of a letter. One image among thousands still has one to be seen."""
    eighths = max(round(share * _BAR_LETTERS * 8), 1 if share else 0)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def issues_table(issues: Iterable[ReportedIssue]) -> tuple[Table, int]:
    """Return the issues of a data set, the gravest first, and the number of those of which the table says nothing.

    Of those that say the same of a file, the first few are named and the others counted.
    """
    alike: dict[tuple[IssueKind, str], list[ReportedIssue]] = {}
    for issue in issues:
        alike.setdefault((issue.kind, issue.sentence), []).append(issue)
    table = _table("issue", "file", "what")
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
            _add(table, kind.replace("_", " "), files, sentence)
        if len(group) > len(named):
            _add(table, kind.replace("_", " "), f"… and {len(group) - len(named):,} more", sentence)
        num_left -= len(named)
    return table, num_untold


def need_sentence(need: RunEstimate) -> str:
    """Say what a run will need."""
    whole_s = need.seconds_per_epoch * need.num_epochs
    is_part = need.kept_bytes < need.decoded_bytes
    kept = f"{size(need.kept_bytes)} of {size(need.decoded_bytes)}" if is_part else f"all {size(need.decoded_bytes)}"
    return (
        f"The run will need about {duration(max(need.seconds_per_epoch, 1))} an epoch, {duration(max(whole_s, 1))} in "
        f"all on {need.device}, {size(need.memory_bytes)} of memory and {size(need.disk_bytes)} on disk "
        f"({size(need.free_bytes)} free). Of its decoded images, {kept} will be kept: those of all runs may take "
        f"{size(need.budget_bytes)}."
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


def status_values(record: RunRecord, is_live: bool, progress: ProgressReported | None) -> dict[str, Any]:
    """Return where a run stands; ``progress`` is the live worker's report, None if there is none."""
    best = best_checkpoint(record.checkpoints)
    summary = record.info.summary if record.info else None
    return {
        "run": record.path.name,
        "path": str(record.path),
        "state": "interrupted" if record.was_interrupted else record.state.value,
        "is_live": is_live,
        "epoch": progress.epoch if progress else record.epoch,
        "num_epochs": (record.info.present if record.info else record.config.training).epochs,
        "step": progress.step if progress else record.step,
        "total_steps": record.info.total_steps if record.info else None,
        "samples_per_s": progress.samples_per_s if progress else None,
        "seconds_left": progress.seconds_left if progress else None,
        "num_trainable": _num_trainable(record),
        "num_params": summary.num_params if summary else None,
        "last": {tag: curve.values[-1] for tag, curve in record.curves.items() if curve.values},
        "num_checkpoints": len(record.checkpoints),
        "best_checkpoint": best.name if best else None,
        "best_accuracy": best.accuracy if best else None,
        "sentence": record.sentence,
    }


def status_table(values: dict[str, Any]) -> Table:
    """Return where a run stands, one fact a row, from ``status_values``."""
    table = Table.grid(padding=(0, 2))
    state = values["state"] + (" (live)" if values["is_live"] else "")
    total = "" if values["total_steps"] is None else f" of {values['total_steps']:,}"
    facts = [
        ("Run", values["run"]),
        ("State", state),
        ("Epoch", f"{values['epoch']} of {values['num_epochs']} completed"),
        ("Step", f"{values['step']:,}{total}"),
    ]
    if values["samples_per_s"] is not None:
        facts.append(("Speed", f"{values['samples_per_s']:,.0f} images/s"))
    if values["seconds_left"] is not None:
        facts.append(("Time left", duration(values["seconds_left"])))
    if values["num_trainable"] is not None:
        facts.append(("Trainable", f"{count(values['num_trainable'])} of {count(values['num_params'])} parameters"))
    facts.extend((tag, f"{value:.4g}") for tag, value in values["last"].items())
    best = "" if values["best_checkpoint"] is None else f", best {values['best_checkpoint']}"
    facts.append(("Checkpoints", f"{values['num_checkpoints']}{best}"))
    if values["sentence"]:
        facts.append(("Note", values["sentence"]))
    for label, text in facts:
        table.add_row(Text(label, style="dim"), Text(printable(text)))
    return table


def _num_trainable(record: RunRecord) -> int | None:
    # What happened before the present segment was undone by the restore or the resume that began it.
    for event in reversed(record.log):
        if isinstance(event, FreezeChanged | StateRestored) and event.segment == record.segment:
            return event.num_trainable
    return record.info.summary.num_trainable if record.info else None


def _table(*headers: str) -> Table:
    # A header that ends in ">" is that of a column of numbers.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for header in headers:
        # As Text: a class's name is never read as markup.
        name = Text(header.removesuffix(">"))
        table.add_column(name, justify="right" if header.endswith(">") else "left", overflow="fold")
    return table


def _add(table: Table, *cells: str) -> None:
    table.add_row(*(Text(printable(cell)) for cell in cells))
