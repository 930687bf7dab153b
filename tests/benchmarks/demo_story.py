"""The demo's story, measured by Thaw itself: head only, with unfreezing, and from scratch in the same time.

    python -m tests.benchmarks.demo_story [--seeds 3]

Each run is a real `thaw train` in a process of its own. Prints the median and the range over the seeds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from trainer.config import RunConfig, config_to_toml, load_config
from trainer.messages.events import StateChanged
from trainer.messages.states import RunState
from trainer.run_list import list_runs
from trainer.runs import RunFolder

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo.toml"


def main() -> None:
    """Run the three stories for each seed and print what they reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    num_seeds = parser.parse_args().seeds
    reached: dict[str, list[float]] = {"head only": [], "with unfreezing": [], "from scratch": []}
    seconds: dict[str, list[float]] = {name: [] for name in reached}
    for seed in range(num_seeds):
        config = with_seed(load_config(DEMO), seed)
        demo_s, accuracy, _ = run(config)
        note(reached, seconds, "with unfreezing", accuracy, demo_s)
        head_s, accuracy, _ = run(config.model_copy(update={"plan": []}))
        note(reached, seconds, "head only", accuracy, head_s)
        model = config.model.model_copy(update={"weights": "random", "frozen": []})
        _, _, history = run(config.model_copy(update={"model": model, "plan": []}))
        in_time = [(after_s, value) for after_s, value in history if after_s <= demo_s]
        note(reached, seconds, "from scratch", in_time[-1][1], in_time[-1][0])
    for name, values in reached.items():
        low, mid, high = (100 * value for value in (min(values), statistics.median(values), max(values)))
        spent = statistics.median(seconds[name])
        print(f"{name:16} {mid:5.1f} % [{low:.1f} to {high:.1f}] in {spent:.0f} s", flush=True)


def note(
    reached: dict[str, list[float]], seconds: dict[str, list[float]], name: str, accuracy: float, spent_s: float
) -> None:
    """Keep one run's result and show it."""
    reached[name].append(accuracy)
    seconds[name].append(spent_s)
    print(f"  {name}: {100 * accuracy:.1f} % after {spent_s:.1f} s", flush=True)


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    """Return the configuration with another seed: another split, order, augmentation and head."""
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})


def run(config: RunConfig) -> tuple[float, float, list[tuple[float, float]]]:
    """Train. Returns seconds from the first step to the end, the last accuracy, and (seconds, accuracy) by epoch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_text(config_to_toml(config), encoding="utf-8")
        command = [sys.executable, "-m", "app", "train", str(path), "--runs", str(Path(folder) / "runs")]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (listing,) = list_runs(Path(folder) / "runs")
        with RunFolder(listing.path, read_only=True) as run_folder:
            record = run_folder.read()
    states = {event.state: event.time for event in record.log if isinstance(event, StateChanged)}
    started = states[RunState.RUNNING]
    history = [(info.saved_at - started, info.accuracy or 0.0) for info in record.checkpoints]
    return states[RunState.FINISHED] - started, history[-1][1], history


if __name__ == "__main__":
    main()
