"""The rows of training: epochs of resnet18 for each contender, and what they come to over ten."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from tests.benchmarks.speed import ceilings
from tests.benchmarks.speed.stopwatch import ALL_EPOCHS, Layers, Times
from tests.benchmarks.speed.table import NOT_INSTALLED, Line, Table, number, spread, times
from tests.benchmarks.speed.thaw_loop import has_cache
from tests.benchmarks.speed.turns import (
    FASTAI,
    LIGHTNING,
    PLAIN,
    PLAIN_BF16,
    PLAIN_ONE_VIEW,
    THAW,
    THAW_BF16,
    THAW_FP32,
    THAW_NO_CACHE,
    THAW_ONE_VIEW,
    Contender,
    Length,
    take_turns,
)

WORK: Mapping[Layers, str] = {"head": "head only", "last": "last stage + head", "full": "full fine-tune"}
GOALS: Mapping[Layers, tuple[str, str]] = {"head": ("≥ 12 ×", "≥ 100 ×"), "last": ("≥ 3 ×", ""), "full": ("", "")}
"""Of the ten epochs, and of a later one."""
PEERS = (PLAIN, LIGHTNING, FASTAI)
FULL_GOAL = "≥ 2 × with bf16"
EQUAL_GOAL = "≥ 1.0 ×"
Taken = Mapping[str, Sequence[Times]]
Seconds = Callable[[Sequence[Times]], list[float]]


def measure(table: Table, layers: Layers, length: Length) -> None:
    """Add the lines of one work to the table."""
    contenders = contenders_of(layers)
    taken = take_turns(contenders, layers, length)
    work = WORK[layers]
    ten_goal, later_goal = GOALS[layers] if layers != "full" else (FULL_GOAL, "")
    for what, seconds, goal in (
        ("first epoch", first_epochs_s, ""),
        ("a later epoch", later_epochs_s, later_goal),
        (f"{ALL_EPOCHS} epochs", ten_epochs_s, ten_goal),
        (f"{ALL_EPOCHS} epochs from the process's start", whole_s, ""),
    ):
        table.lines.append(compared(work, what, taken, seconds, goal))
        if layers != "full":
            table.lines.append(equal(work, f"{what}, one view", taken, THAW_ONE_VIEW, PLAIN_ONE_VIEW, seconds, goal))
    if layers == "full":
        for ours, plain, precision in ((THAW_FP32, PLAIN, "fp32"), (THAW_BF16, PLAIN_BF16, "bf16")):
            what = f"a later epoch, both in {precision}"
            table.lines.append(equal(work, what, taken, ours, plain, later_epochs_s, EQUAL_GOAL))
        table.lines.append(share_of_limit(work, taken, length))
    accuracies = {
        column: f"{100 * statistics.median(each.accuracies[-1] for each in turns):.0f} % after "
        f"{min(len(each.accuracies) for each in turns)}"
        for column, turns in taken.items()
        if turns
    }
    table.lines.append(Line(work, "accuracy after so many epochs", accuracies))
    table.notes.append(f"{work}: {how_ten(taken)}")


def contenders_of(layers: Layers) -> list[Contender]:
    """Return who takes part."""
    if layers == "full":
        return [THAW, THAW_FP32, THAW_BF16, PLAIN, PLAIN_BF16, LIGHTNING, FASTAI]
    return [THAW, THAW_ONE_VIEW, *([THAW_NO_CACHE] if has_cache() else []), *PEERS, PLAIN_ONE_VIEW]


def first_epochs_s(turns: Sequence[Times]) -> list[float]:
    """Return the seconds of the first epoch, of each turn."""
    return [each.epochs_s[0] for each in turns]


def later_epochs_s(turns: Sequence[Times]) -> list[float]:
    """Return the seconds of the epochs after the first, of all turns."""
    return [epoch_s for each in turns for epoch_s in each.epochs_s[1:]]


def ten_epochs_s(turns: Sequence[Times]) -> list[float]:
    """Return the seconds of ten epochs, of each turn: as they took, or the first and nine later ones."""
    later_s = statistics.median(later_epochs_s(turns))
    return [
        sum(each.epochs_s) if len(each.epochs_s) == ALL_EPOCHS else each.epochs_s[0] + (ALL_EPOCHS - 1) * later_s
        for each in turns
    ]


def whole_s(turns: Sequence[Times]) -> list[float]:
    """Return the seconds of ten epochs with what comes before the first, of each turn."""
    return [ten_s + each.ready_at - each.started_at for each, ten_s in zip(turns, ten_epochs_s(turns), strict=True)]


def compared(work: str, what: str, taken: Taken, seconds: Seconds, goal: str) -> Line:
    """Return a line of seconds by contender, and how many times the fastest peer takes as long as Thaw."""
    cells = {
        column: spread(seconds(turns)) if turns else NOT_INSTALLED
        for column, turns in taken.items()
        if column not in {THAW_ONE_VIEW.column, PLAIN_ONE_VIEW.column}
    }
    peers_s = {peer.column: statistics.median(seconds(taken[peer.column])) for peer in PEERS if taken.get(peer.column)}
    fastest = min(peers_s, key=lambda column: peers_s[column])
    ratio = peers_s[fastest] / statistics.median(seconds(taken[THAW.column]))
    return Line(work, what, cells, f"{times(ratio)} ({fastest})", goal)


def equal(work: str, what: str, taken: Taken, ours: Contender, plain: Contender, seconds: Seconds, goal: str) -> Line:
    """Return a line of Thaw and the plain loop where both do what no other contender does."""
    sides = {each.column: seconds(taken[each.column]) for each in (ours, plain)}
    ratio = statistics.median(sides[plain.column]) / statistics.median(sides[ours.column])
    cells = {column: spread(taken_s) for column, taken_s in sides.items()}
    return Line(work, what, cells, times(ratio), goal)


def share_of_limit(work: str, taken: Taken, length: Length) -> Line:
    """Return a line of the operations a second of a later epoch, beside the most that the machine does."""
    limits = ceilings.read()
    most = {precision: limits.best_gflops(precision) for precision in ("fp32", "bf16")}
    trained, validated = ceilings.image_gflop()
    num_train, num_validation = ceilings.count_images(length.images)
    cells = {}
    for column, turns in taken.items():
        if turns:
            rate = (num_train * trained + num_validation * validated) / statistics.median(later_epochs_s(turns))
            shares = ", ".join(f"{100 * rate / limit:.0f} % of {precision}'s" for precision, limit in most.items())
            cells[column] = f"{number(rate)} GFLOP/s ({shares})"
    cells["machine"] = ", ".join(f"{number(limit)} GFLOP/s in {precision}" for precision, limit in most.items())
    return Line(work, "arithmetic of a later epoch, its loading included", cells)


def how_ten(taken: Taken) -> str:
    """Say of whom ten epochs were measured, and of whom they were composed."""
    measured = [column for column, turns in taken.items() if turns and len(turns[0].epoch_ends) == ALL_EPOCHS]
    composed = [column for column, turns in taken.items() if turns and column not in measured]
    said = [
        f"{ALL_EPOCHS} epochs are {how} for {', '.join(columns)}"
        for how, columns in (
            ("as measured", measured),
            (f"composed (the first one and {ALL_EPOCHS - 1} times the median of the later ones)", composed),
        )
        if columns
    ]
    return "; ".join(said) + "."
