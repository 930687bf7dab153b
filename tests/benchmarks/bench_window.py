"""How long the window's thread is busy in one go while the demo trains beside it.

    xvfb-run -a -s "-screen 0 1920x1080x24" env QT_QPA_PLATFORM=xcb python -m tests.benchmarks.bench_window

Plays the demo of tests/integration/test_window.py some times, each in a process of its own: a run with freezes, tabs, a
save and a restore. A turn of the event loop is to take 50 ms at most, without the time for which the thread stood ready
and got no processor. Beside it stands what a turn is made of: a paint of the whole window, nothing else at work.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys

NUM_RUNS = 5
GOAL_MS = 50
_TEST = "tests/integration/test_window.py::test_the_window_is_never_blocked_for_longer_than_50_ms_in_a_whole_demo"
_TOLD = re.compile(r"longest turn (\d+) ms, wait (-?\d+) ms, paint ([\d.]+) ms")


def main() -> None:
    """Print the longest turns and waits."""
    found = [_play() for _ in range(NUM_RUNS)]
    turns, waits, paints = ([each[place] for each in found] for place in range(3))
    paint_ms = statistics.median(paints)
    for what, values in (("turn", turns), ("wait", waits)):
        median_ms = statistics.median(values)
        print(
            f"longest {what}: {median_ms:.0f} ms ({min(values):.0f} to {max(values):.0f}, n {len(values)}), "
            f"{median_ms / paint_ms:.1f} times a paint of the whole window; goal: {GOAL_MS} ms"
        )
    print(f"a paint of the whole window, nothing else at work: {paint_ms:.1f} ms")


def _play() -> tuple[float, float, float]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "-q", "-m", "slow", _TEST], capture_output=True, text=True, check=False
    )
    told = _TOLD.search(done.stdout)
    if told is None:
        raise RuntimeError(f"The demo failed with exit code {done.returncode}:\n{done.stdout[-3000:]}{done.stderr}")
    turn, wait, paint = told.groups()
    return float(turn), float(wait), float(paint)


if __name__ == "__main__":
    main()
