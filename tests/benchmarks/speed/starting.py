"""The rows of starting: to the first step, and to the first paint of the window."""

from __future__ import annotations

import statistics
from dataclasses import replace

from tests.benchmarks.speed import window
from tests.benchmarks.speed.stopwatch import Layers
from tests.benchmarks.speed.table import Line, Table, spread, times
from tests.benchmarks.speed.turns import PLAIN, THAW, Length, take_turns

NUM_WINDOWS = 5
STEP_GOAL = "within 1 s"
PAINT_GOAL = "≤ 1.0 s"
_STARTS = (
    ("from a fresh process, data never seen", 0, 0),
    ("from a fresh process, data seen before", 1, 0),
    ("in a process with torch loaded, data seen before", 2, 1),
)
"""What is told, and the position of the times among Thaw's and among the script's."""


def measure(table: Table, length: Length, num_windows: int = NUM_WINDOWS) -> None:
    """Add the lines to the table."""
    taken = take_turns((THAW, PLAIN), "head", length, is_first_step=True)
    for what, ours_idx, plain_idx in _STARTS:
        ours = [each.first_steps_s[ours_idx] for each in taken[THAW.column]]
        plain = [each.first_steps_s[plain_idx] for each in taken[PLAIN.column]]
        later_s = statistics.median(ours) - statistics.median(plain)
        table.lines.append(
            Line(
                "start",
                f"to the first step, {what}",
                {THAW.column: spread(ours), PLAIN.column: spread(plain)},
                f"{later_s:+.1f} s",
                STEP_GOAL,
            )
        )
    ours, bare = [], []
    for _ in range(num_windows):
        ours.append(window.painted_s("idle", length.scratch))
        bare.append(window.painted_s("bare", length.scratch))
    table.lines.append(
        Line(
            "start",
            "window, to the first paint",
            {THAW.column: spread(ours), "bare Qt": spread(bare)},
            times(statistics.median(ours) / statistics.median(bare)),
            PAINT_GOAL,
        )
    )
    table.notes.append(
        "start: cold is a fresh process with empty caches of Thaw's own; the system's page cache holds the files by "
        "then, which no user can empty. Of data never seen, Thaw first decodes every image, to say what is wrong."
    )


def measure_memory(table: Table, length: Length, num_windows: int = NUM_WINDOWS) -> None:
    """Add the lines of memory to the table."""
    # The most is held within the first epoch.
    short = replace(length, num_epochs=1, rest_s=0.0)
    works: tuple[tuple[Layers, str], ...] = (("head", "head only"), ("full", "full fine-tune"))
    for layers, work in works:
        taken = take_turns((THAW, PLAIN), layers, short, has_shares=True)
        for what, field in (
            ("shared pages counted once", "peak_pss_bytes"),
            ("sum of the processes", "peak_rss_bytes"),
        ):
            megabytes = {name: [getattr(each, field) / 1e6 for each in turns] for name, turns in taken.items()}
            ratio = statistics.median(megabytes[THAW.column]) / statistics.median(megabytes[PLAIN.column])
            cells = {name: spread(found, "MB") for name, found in megabytes.items()}
            line = Line("memory", f"training, {work}, {what}", cells, times(ratio), "≤ 1.1 × + cache")
            table.lines.append(line)
    kinds: tuple[tuple[window.Kind, str], ...] = (
        ("idle", "its worker ready"),
        ("demo", f"{window.NUM_DEMO_STEPS} steps of the demo shown"),
    )
    for kind, what in kinds:
        held = [window.held_bytes(kind, length.scratch) / 1e6 for _ in range(num_windows)]
        table.lines.append(Line("memory", f"window, {what}", {THAW.column: spread(held, "MB")}, "", "≤ 200 MB"))
    bare = [window.held_bytes("bare", length.scratch) / 1e6 for _ in range(num_windows)]
    table.lines.append(Line("memory", "a window of Qt's own", {"bare Qt": spread(bare, "MB")}))
    table.notes.append("memory: the peak of all processes together, by a look each quarter of a second.")
