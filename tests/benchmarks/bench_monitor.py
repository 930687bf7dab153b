"""What Thaw costs in a training step: its loop beside the same loop in plain PyTorch, in one process.

Run it with ``python -m tests.benchmarks.bench_monitor``, on a machine with nothing else to do. resnet18 at 64 px, batch
32, everything trainable. Thaw's loop has all that a run has: the check for NaN, metrics, layer statistics, run.db,
TensorBoard's files, and a client in a process of its own that reads every event. The two take turns, so that the
machine's moods meet both; medians of five.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Listener
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainer.config import ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from trainer.data.loader import ImageData
from trainer.data.transforms import Preprocessing
from trainer.logs import TensorBoardLog
from trainer.loop import Trainer
from trainer.messages.events import LayerStatsReported, MetricsLogged, WorkerAttached
from trainer.messages.states import RunState
from trainer.models import build_model
from trainer.optim import make_optimizer
from trainer.runs import RunFolder
from trainer.server import EventServer

NUM_CLASSES, IMAGE_SIZE, BATCH_SIZE = 10, 64, 32
NUM_BATCHES = 8
NUM_RUNS = 5
KEY = b"benchmark"
CLIENT = (
    "import sys; from multiprocessing.connection import Client; from trainer.frames import decode_event\n"
    "with Client(sys.argv[1], authkey=sys.argv[2].encode()) as client:\n"
    "    try:\n"
    "        while True: decode_event(client.recv_bytes())\n"
    "    except (EOFError, OSError): pass\n"
)


class Spent:
    """How long some functions took, all calls together, in seconds by the clock."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, function: Callable[..., None]) -> Callable[..., None]:
        """Return a function that does the same and is counted."""

        def watched(*args: object) -> None:
            started = time.perf_counter()
            function(*args)
            self.seconds += time.perf_counter() - started

        return watched


class RandomImages:
    """What a Trainer asks of its data. The batches are made beforehand: loading is measured elsewhere."""

    class_names = tuple(str(number) for number in range(NUM_CLASSES))
    class_counts = (NUM_BATCHES * BATCH_SIZE // NUM_CLASSES,) * NUM_CLASSES
    num_train = NUM_BATCHES * BATCH_SIZE
    batches_per_epoch = NUM_BATCHES
    num_test = 0
    fingerprint = "random"
    preprocessing = Preprocessing(IMAGE_SIZE, IMAGE_SIZE)

    def close(self) -> None:
        """Nothing to close."""


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    config = RunConfig(
        model=ModelConfig(name="resnet18", weights="random", frozen=[]),
        optimizer=OptimizerConfig(name="AdamW"),
        training=TrainingConfig(epochs=10_000, batch_size=BATCH_SIZE, precision="fp32", device=str(device)),
    )
    generator = torch.Generator().manual_seed(0)
    batches = [
        (
            torch.rand(BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator).to(device),
            torch.randint(NUM_CLASSES, (BATCH_SIZE,), generator=generator).to(device),
        )
        for _ in range(NUM_BATCHES)
    ]
    with tempfile.TemporaryDirectory() as scratch, RunFolder.create(Path(scratch), config) as folder:
        listener = Listener(str(Path(scratch) / "socket"), authkey=KEY)
        server = EventServer(listener, lambda _: None)
        server.begin(WorkerAttached(state=RunState.RUNNING, pid=0, torch_version="", devices=[]))
        log = TensorBoardLog(folder.tensorboard_dir, None)
        server.keep_in(folder, log.write)
        client = subprocess.Popen([sys.executable, "-c", CLIENT, str(listener.address), KEY.decode()])
        while not server.num_clients:
            time.sleep(0.05)
        told: dict[type, int] = {}

        def emit(event: object) -> None:
            told[type(event)] = told.get(type(event), 0) + 1
            server.publish(event)  # type: ignore[arg-type]

        spent = Spent()
        ours, plain = ours_step(config, folder, device, emit, spent), plain_step(config, device)
        run(ours, batches, device, 3)
        run(plain, batches, device, 3)
        spent.seconds, told[LayerStatsReported] = 0.0, 0
        num_steps = max(5, round(options.seconds / run(plain, batches, device, 5)[0]))
        times = [
            (run(ours, batches, device, num_steps), run(plain, batches, device, num_steps)) for _ in range(NUM_RUNS)
        ]
        server.finish()
        log.close()
        listener.close()
        client.terminate()
        client.wait()
    print(
        f"resnet18, {IMAGE_SIZE} px, batch {BATCH_SIZE}, {device}, {options.threads} threads, {num_steps} steps a run"
    )
    for idx, what in enumerate(("by the clock", "of the processor")):
        of_ours, of_plain = ([of_run[idx] * 1000 for of_run in column] for column in zip(*times, strict=True))
        ratios = sorted(a / b for a, b in zip(of_ours, of_plain, strict=True))
        print(f"{what:16}  plain PyTorch {statistics.median(of_plain):8.2f} ms a step")
        print(f"{'':16}  Thaw, attached{statistics.median(of_ours):8.2f} ms a step")
        print(f"{'':16}  ratio         {statistics.median(ratios):8.4f}   ({ratios[0]:.4f} to {ratios[-1]:.4f})")
    # They are timed by the clock, which goes on in the other loop's turns: of a run's time, this is the share.
    share = spent.seconds / (sum(of_ours + of_plain for (of_ours, _), (of_plain, _) in times) * num_steps)
    num_stats = told.get(LayerStatsReported, 0)
    each_ms = spent.seconds / max(num_stats, 1) * 1000
    print(f"layer statistics  {num_stats} times, {each_ms:.1f} ms each: {share:.2%} of Thaw's loop")
    print(f"flushes of metrics {told.get(MetricsLogged, 0)}")


def ours_step(
    config: RunConfig, folder: RunFolder, device: torch.device, emit: Callable[[object], None], spent: Spent
) -> Callable[[Tensor, Tensor], None]:
    """Return a step of Thaw's own loop, whose layer statistics are counted apart, too."""
    loaded = build_model(config.model, NUM_CLASSES, 7, IMAGE_SIZE, lambda *_: None, lambda: None)
    trainer = Trainer(config, loaded, cast(ImageData, RandomImages()), device, emit)
    trainer.begin(folder)
    norms = trainer.reporter.layer_norms
    norms.begin, norms.finish = spent.watch(norms.begin), spent.watch(norms.finish)  # type: ignore[method-assign]
    trainer.freeze_set.set_mode(training=True)

    def step(images: Tensor, target: Tensor) -> None:
        started = time.perf_counter()
        trainer.train_step([(images, target)])
        trainer.reporter.pace.add(time.perf_counter() - started, len(target))
        trainer.report()

    return step


def plain_step(config: RunConfig, device: torch.device) -> Callable[[Tensor, Tensor], None]:
    """Return a step of the loop that a person would write, with the same optimizer."""
    loaded = build_model(config.model, NUM_CLASSES, 7, IMAGE_SIZE, lambda *_: None, lambda: None)
    module = loaded.module.to(device).train()
    optimizer = make_optimizer(config.optimizer, module)

    def step(images: Tensor, target: Tensor) -> None:
        loss = cross_entropy(module(images), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def run(
    step: Callable[[Tensor, Tensor], None], batches: list[tuple[Tensor, Tensor]], device: torch.device, num_steps: int
) -> tuple[float, float]:
    """Return the seconds that a step takes, and those of the processor in this process, over some of them."""
    wait_for(device)
    started, started_cpu = time.perf_counter(), time.process_time()
    for images, target in turn(batches, num_steps):
        step(images, target)
    wait_for(device)
    return (time.perf_counter() - started) / num_steps, (time.process_time() - started_cpu) / num_steps


def turn(batches: list[tuple[Tensor, Tensor]], num_steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches again and again."""
    return (batches[number % len(batches)] for number in range(num_steps))


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
