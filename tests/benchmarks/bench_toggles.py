"""How long a freeze takes from the command to its taking hold: 1,000 random toggles of a real worker's run.

Run it with ``python -m tests.benchmarks.bench_toggles``. The bundled demo's model and data; each command is sent as
soon as the last one was answered, and the times are set beside that of a training step of the same run.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from app.cli import DEMO_CONFIG_PATH
from tests.integration.conftest import Driver
from trainer.client import WorkerClient
from trainer.config import load_config
from trainer.messages.changes import LayersFrozen, LayersUnfrozen
from trainer.messages.commands import FreezeLayers, UnfreezeLayers
from trainer.messages.events import ProgressReported
from trainer.messages.states import RunState

LAYERS = ["conv1", "stage2", "stage3", "stage4", "stage4.1", "stage4.1.branch2", "conv5", "backbone"]


def main() -> None:
    """Print how many steps and how many milliseconds a toggle takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=1_000, help="number of toggles")
    num_toggles = parser.parse_args().num
    config = load_config(DEMO_CONFIG_PATH)
    training = config.training.model_copy(update={"epochs": 10_000})
    config = config.model_copy(update={"training": training, "plan": []})
    generator = random.Random(0)
    steps: Counter[int] = Counter()
    latencies_ms: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        driver = Driver(WorkerClient.start())
        try:
            driver.prepare(config.model_copy(update={"name": "toggles"}), Path(folder))
            driver.wait_state(RunState.RUNNING)
            for _ in range(num_toggles):
                layer = generator.choice(LAYERS)
                command = generator.choice([FreezeLayers, UnfreezeLayers])(layers=[layer])
                started = time.perf_counter()
                answer = driver.ask(command, (LayersFrozen, LayersUnfrozen))  # type: ignore[arg-type]
                latencies_ms.append((time.perf_counter() - started) * 1000)
                assert isinstance(answer, LayersFrozen | LayersUnfrozen), answer
                steps[answer.applied_step - answer.requested_step] += 1
            progress = [event for event in driver.seen if isinstance(event, ProgressReported) and event.step_ms]
        finally:
            driver.client.kill()
            driver.client.close()
    print(f"{platform.platform()}, shufflenet_v2_x0_5 on digits, all toggled layers in its backbone")
    print(f"steps between asking and taking hold: {dict(sorted(steps.items()))} of {num_toggles:,} toggles")
    step_ms = statistics.median(event.step_ms for event in progress) if progress else float("nan")
    median, worst = statistics.median(latencies_ms), max(latencies_ms)
    print(f"from command to answer: median {median:.1f} ms, longest {worst:.1f} ms")
    print(f"a training step of the same run: median {step_ms:.1f} ms")


if __name__ == "__main__":
    main()
