"""How many fixed views of an augmented image a head needs to learn what it does from a new view in every epoch.

Run it with ``python -m tests.benchmarks.bench_views``. The demo without its plan, so that the head alone learns, for
six seeds: with each augmentation, in so many fixed views, whose features are computed once for each, and in a new view
in every epoch (0). It needs no quiet machine: no time is taken.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.bench_precision import train
from tests.benchmarks.demo_story import DEMO, with_seed
from trainer.config import VIEWS, load_config

NUM_VIEWS = (1, 2, 4, 8, 0)


def main() -> None:
    """Train all runs and print what they reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for augmentation in [name for name in VIEWS if name != "none"]:
            for views in NUM_VIEWS:
                reached = [100 * reach(augmentation, views, seed, Path(scratch)) for seed in range(options.seeds)]
                by_seed = ", ".join(f"{accuracy:.2f}" for accuracy in reached)
                print(f"{augmentation}, {views} views: {statistics.mean(reached):.2f} % ({by_seed})", flush=True)


def reach(augmentation: str, views: int, seed: int, scratch: Path) -> float:
    """Return the accuracy of the last validation."""
    config = with_seed(load_config(DEMO), seed)
    data = config.data.model_copy(update={"augmentation": augmentation, "views": views})
    return train(config.model_copy(update={"plan": [], "data": data}), scratch / "runs")


if __name__ == "__main__":
    main()
