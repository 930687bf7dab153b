"""The row of the monitor: ``bench_monitor``'s loops, and what a step takes in each."""

from __future__ import annotations

import os
import statistics

from tests.benchmarks.speed.table import Line, Table, spread, times
from tests.benchmarks.speed.turns import PLAIN, THAW

NUM_TURNS = 40


def measure(table: Table, num_turns: int = NUM_TURNS) -> None:
    """Add the lines to the table."""
    import torch

    from tests.benchmarks import bench_monitor as bench

    device = "cuda" if torch.cuda.is_available() else "cpu"
    turns = bench.take_turns(num_turns, device, torch.get_num_threads())
    for other, column in (("bare", "monitor off"), ("plain", PLAIN.column)):
        sides = {loop: [turn[loop][0] * 1000 for turn in turns] for loop in ("thaw", other)}
        ratios = [a / b for a, b in zip(sides["thaw"], sides[other], strict=True)]
        beside = "the same model in the same process" if other == "bare" else "the same loop as a script"
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        table.lines.append(
            Line(
                "monitor",
                f"a step of resnet18 at {bench.IMAGE_SIZE} px, beside {beside}",
                {THAW.column: spread(sides["thaw"], "ms"), column: spread(sides[other], "ms")},
                f"{times(median)} ({low:.3f}–{high:.3f})",
                "≤ 1.02 ×" if other == "bare" else "",
            )
        )
    table.notes.append(
        f"monitor: {num_turns} turns of {bench.NUM_STEPS} steps on {os.environ.get('OMP_NUM_THREADS', 'all')} threads; "
        "the ratio is the median over the turns."
    )
