"""The tables that the ``thaw`` command prints of runs and models, and the same as plain values for ``--json``."""

from __future__ import annotations

import datetime
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from app.checkpoint_filter import CheckpointFilter
from app.event_sentences import cached_sentence
from app.figures import count, duration, percent, printable, size
from app.tables import add_row, bar, new_table
from trainer.config import Metric
from trainer.messages.changes import FreezeChanged, StateRestored
from trainer.messages.events import FeaturesCached, ModelInspected, ProgressReported
from trainer.messages.model_info import FrozenFeatures, LayerInfo, ModelEntry, ModelSummary
from trainer.messages.run_info import CheckpointInfo, RateCurve
from trainer.retention import Reason, why_kept
from trainer.run_list import by_branch, rails
from trainer.run_record import RunListing, RunRecord, best_checkpoint, best_word, metric_value
from trainer.runs import RunFolder

if TYPE_CHECKING:
    # With numpy, for which no other command waits.
    from app.confusion import Confusion

MAX_CLASSES_ACROSS = 20
MAX_PAIRS_SHOWN = 20
_NUM_RATES_SHOWN = 20
_TOLD_OF_CACHED = {"layers", "views", "saved_share", "num_bytes", "is_in_memory", "is_on_disk", "reason", "step"}
_KEPT_FOR: dict[Reason, str] = {"best": "among the best", "last": "among the last"}
"""The words for reasons, of those that are not the best one and the last one themselves."""


def runs_table(listings: list[RunListing]) -> Table:
    """Return the runs of a folder, one a row, each above its branches; ``listings`` newest first."""
    table = new_table("run", "state", "model", "epoch>", "step>", "accuracy at best>", "began")
    placed = by_branch(listings)
    for (run, _), lines in zip(placed, rails([depth for _, depth in placed]), strict=True):
        name = f"{_drawn(lines)}{run.path.name}"
        began = datetime.datetime.fromtimestamp(run.created_at).strftime("%Y-%m-%d %H:%M")
        if run.problem:
            add_row(table, name, "damaged", printable(run.problem), "", "", "", began)
            continue
        accuracy = "–" if run.best_accuracy is None else f"{run.best_accuracy:.4f}"
        epochs = f"{run.epoch} of {run.num_epochs}"
        add_row(table, name, listed_state(run), run.model, epochs, f"{run.step:,}", accuracy, began)
    return table


def _drawn(lines: tuple[bool, ...]) -> str:
    """Draw the lines of a tree that lead to a branch, "" for a run that is none."""
    above = "".join("│ " if goes_on else "  " for goes_on in lines[:-1])
    return above + "".join("├ " if goes_on else "└ " for goes_on in lines[-1:])


def run_values(run: RunListing) -> dict[str, Any]:
    """Return a run's row as plain values."""
    parent = None if run.parent is None else str(run.parent)
    own = {"path": str(run.path), "name": run.path.name, "state": listed_state(run), "parent": parent}
    return {**asdict(run), **own}


def listed_state(run: RunListing) -> str:
    """Return the word for a run's state: one whose worker died is interrupted, whatever it last said."""
    return "interrupted" if run.was_interrupted else run.state.value


@dataclass(frozen=True)
class ListedCheckpoint:
    """A checkpoint as a list tells it: ``kept_for`` are the rules' reasons, ``tags`` what its row says."""

    info: CheckpointInfo
    is_best: bool
    is_last: bool
    is_left_behind: bool
    kept_for: list[Reason]
    problem: str
    tags: list[str]


def listed_checkpoints(folder: RunFolder, wanted: CheckpointFilter) -> list[ListedCheckpoint]:
    """Return those of a run's checkpoints that are wanted, oldest first."""
    listed = folder.checkpoints.listed()
    metric = folder.best_metric()
    best = best_checkpoint(listed, metric)
    reasons, left_behind = _kept_for(folder, listed), folder.checkpoints.left_behind(listed)
    has_budget = folder.config().checkpoints.disk_gb is not None
    found = []
    for info in filter(wanted.has_numbers, listed):
        told: set[Reason] = {"all"}
        if info is best:
            told.add("best")
        # One of within an epoch is kept for nothing else than to go on from.
        if info is listed[-1] and info.reason != "periodic":
            told |= {"last", "resume point"}
        tags = [info.label] * bool(info.label) + [f"best by {best_word(metric)}"] * (info is best)
        tags += ["last"] * (info is listed[-1]) + ["left behind"] * (info.name in left_behind)
        tags += [_KEPT_FOR.get(reason, reason) for reason in reasons[info.name] if reason not in told]
        tags += ["while there is room"] * (has_budget and reasons[info.name] == ["all"])
        tags += [info.note] * bool(info.note)
        is_left_behind, problem = info.name in left_behind, folder.checkpoints.problem_of(info)
        text = " ".join((info.name, *tags, problem, info.frozen_summary, *info.frozen)).casefold()
        if all(word in text for word in wanted.words):
            marks = info is best, info is listed[-1], is_left_behind, reasons[info.name], problem, tags
            found.append(ListedCheckpoint(info, *marks))
    return found


def checkpoints_table(listed: list[ListedCheckpoint], best_by: Metric) -> Table:
    """Return checkpoints, one a row, with loss, accuracy, and what the best is told by."""
    metrics: list[Metric] = ["loss", "accuracy"]
    metrics += [] if best_by in metrics else [best_by]
    scores = (f"{best_word(metric)}>" for metric in metrics[1:])
    table = new_table("", "checkpoint", "epoch>", "step>", "validation loss>", *scores, "size>", "frozen", "")
    for each in listed:
        info = each.info
        values = (metric_value(info, metric) for metric in metrics)
        add_row(
            table,
            "★" if each.is_best else "",
            info.name,
            str(info.epoch),
            f"{info.step:,}",
            *("–" if value is None else f"{value:.4f}" for value in values),
            size(info.size_bytes),
            info.frozen_summary,
            printable(each.problem or ", ".join(each.tags)),
        )
    return table


def checkpoint_values(listed: list[ListedCheckpoint], folder: Path) -> list[dict[str, Any]]:
    """Return checkpoints, which lie in a folder, as plain values."""
    return [
        {
            **each.info.model_dump(mode="json"),
            "path": str(folder / each.info.name),
            "is_best": each.is_best,
            "is_last": each.is_last,
            "is_left_behind": each.is_left_behind,
            "kept_for": each.kept_for,
            "problem": each.problem,
        }
        for each in listed
    ]


def _kept_for(folder: RunFolder, listed: list[CheckpointInfo]) -> dict[str, list[Reason]]:
    point = folder.checkpoints.resume_point()
    rules = folder.config().checkpoints
    return why_kept(listed, rules, folder.best_metric(), None if point is None else point.name)


def confusion_table(confusion: Confusion) -> Table:
    """Return a confusion matrix: a row for each class, with what its images were taken for."""
    table = new_table("class, taken for", *(f"{printable(name)}>" for name in confusion.class_names), "right>")
    for name, counts, recall in zip(confusion.class_names, confusion.counts, confusion.recall, strict=True):
        add_row(table, name, *(f"{number:,}" if number else "·" for number in counts), _share(recall))
    return table


def confused_table(confusion: Confusion) -> Table:
    """Return the pairs of classes that are confused most often, for a matrix that is too wide to be shown."""
    table = new_table("class", "taken for", "images>", "of its images>")
    for true_idx, taken_idx, number in confusion.pairs[:MAX_PAIRS_SHOWN]:
        share = _share(confusion.share_of(true_idx, taken_idx))
        add_row(table, confusion.class_names[true_idx], confusion.class_names[taken_idx], f"{number:,}", share)
    return table


def _share(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.1%}"


def models_table(models: list[ModelEntry]) -> Table:
    """Return the models on offer with their published weights, one a row; a model's default ones come first."""
    table = new_table("model", "parameters>", "weights", "published accuracy>", "pixels>", "size>", "on this disk")
    for entry in models:
        of_model = [entry.name, count(entry.num_params)]
        for each in entry.weight_sets:
            is_cached = "yes" if each.is_cached else ""
            pixels = str(each.images.image_size)
            add_row(table, *of_model, each.name, f"{each.accuracy:.4g}", pixels, size(each.size_bytes), is_cached)
            of_model = ["", ""]
    return table


def summary_table(summary: ModelSummary) -> Table:
    """Return the layers of a model with what one image costs in them, one a row, indented as they are nested."""
    table = new_table("layer", "type", "output shape", "parameters>", "trainable", "multiply-adds>", "activations>")
    for layer in summary.layers:
        *above, name = layer.fqn.split(".")
        indent = "  " * (len(above) + 1) if layer.fqn else ""
        add_row(
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
    if not layer.num_params:
        return ""
    named = frozenset(summary.frozen)
    units = [each for each in summary.layers if each.is_unit and (each is layer or each.fqn.startswith(below))]
    is_frozen = [each.fqn in named or atom in named for each in units for atom in each.atoms]
    return "no" if all(is_frozen) else "partly" if any(is_frozen) else "yes"


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


def features_sentence(features: FrozenFeatures) -> str:
    """Say what of a model could be cached, or why nothing."""
    if features.reason:
        return features.reason
    return (
        f"What comes out of {features.layers} could be cached, at {size(features.bytes_32)} an image in 32 bits or "
        f"{size(features.bytes_16)} in 16: {percent(features.saved_share)} of the forward computing need then not be "
        "done twice."
    )


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
    table = new_table("rate>", "smoothed loss>", "", "")
    highest = max(curve.smoothed, default=1.0)
    # As many rows as a screen shows, and the suggested one among them.
    stride = max(1, len(curve.rates) // _NUM_RATES_SHOWN)
    for idx, (rate, loss) in enumerate(zip(curve.rates, curve.smoothed, strict=True)):
        is_suggested = rate == curve.suggestion
        if idx % stride == 0 or is_suggested:
            add_row(table, f"{rate:.2g}", f"{loss:.4f}", bar(loss / highest), "← suggested" if is_suggested else "")
    return table


def suggestion_sentence(curve: RateCurve) -> str:
    """Say which rate is suggested, and where that is from."""
    if curve.suggestion is None:
        return "No rate is suggested: the loss fell at none of them. Check the data, or unfreeze more layers."
    return (
        f"Suggested rate: {curve.suggestion:.2g}, where the smoothed loss fell most steeply "
        "(Smith 2015, arXiv 1506.01186)."
    )


def status_values(record: RunRecord, is_live: bool, progress: ProgressReported | None) -> dict[str, Any]:
    """Return where a run stands; ``progress`` is the live worker's report, None if there is none."""
    best = best_checkpoint(record.checkpoints, record.best_metric)
    summary = record.info.summary if record.info else None
    cached = next((event for event in reversed(record.log) if isinstance(event, FeaturesCached)), None)
    return {
        "run": record.path.name,
        "path": str(record.path),
        "state": "interrupted" if record.was_interrupted else record.state.value,
        "is_live": is_live,
        "epoch": progress.epoch if progress else record.epoch,
        "num_epochs": (record.info.present if record.info else record.config.training).epochs,
        "step": progress.step if progress else record.step,
        "total_steps": record.info.total_steps if record.info else None,
        "batch_parts": record.info.present.batch_parts if record.info else 1,
        "samples_per_s": progress.samples_per_s if progress else None,
        "seconds_left": progress.seconds_left if progress else None,
        "num_trainable": _num_trainable(record),
        "cached": None if cached is None else cached.model_dump(mode="json", include=_TOLD_OF_CACHED),
        "cached_share": progress.cached_share if progress else None,
        "cached_sentence": "" if cached is None else cached_sentence(cached),
        "num_params": summary.num_params if summary else None,
        "last": {tag: curve.values[-1] for tag, curve in record.curves.items() if curve.values},
        "num_checkpoints": len(record.checkpoints),
        "best_checkpoint": best.name if best else None,
        "best_by": record.best_metric,
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
    if values["batch_parts"] > 1:
        facts.append(("Batches", f"in {values['batch_parts']} parts"))
    if values["samples_per_s"] is not None:
        facts.append(("Speed", f"{values['samples_per_s']:,.0f} images/s"))
    if values["seconds_left"] is not None:
        facts.append(("Time left", duration(values["seconds_left"])))
    if values["num_trainable"] is not None:
        facts.append(("Trainable", f"{count(values['num_trainable'])} of {count(values['num_params'])} parameters"))
    if values["cached"] is not None:
        part = values["cached_share"]
        is_filling = part is not None and part < 1
        filled = f" {math.floor(100 * part)} % of this epoch's are there." if is_filling else ""
        facts.append(("Cached", f"{values['cached_sentence']}{filled}"))
    facts.extend((tag, f"{value:.4g}") for tag, value in values["last"].items())
    best = f", best by {best_word(values['best_by'])} {values['best_checkpoint']}" if values["best_checkpoint"] else ""
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
