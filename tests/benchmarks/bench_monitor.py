"""What Thaw costs in a training step: its loop beside the same loop in plain PyTorch.

Run it with ``python -m tests.benchmarks.bench_monitor``, on a machine with nothing else to do. resnet18 at 64 px, batch
32, everything trainable. Thaw's loop has all that a run has: the check for NaN, metrics, layer statistics, run.db,
TensorBoard's files, and a client in a process of its own that reads every event. Each loop has a process of its own, as
a worker and a script have, and they take short turns, so that the machine's moods meet all of them: what is told is the
median over the turns. The plain loop is there twice: as a script is started, and with the worker's settings of the C
library, which keeps freed memory; beside the second, what is left is the cost of the monitor alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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
from trainer.memory import KEEP_FREED_MEMORY
from trainer.messages.events import WorkerAttached
from trainer.messages.states import RunState
from trainer.models import build_model
from trainer.optim import make_optimizer
from trainer.runs import RunFolder
from trainer.server import EventServer

NUM_CLASSES, IMAGE_SIZE, BATCH_SIZE = 10, 64, 32
NUM_BATCHES = 8
NUM_STEPS = 8
LOOPS = {
    "thaw": "Thaw, with the monitor attached",
    "plain": "plain PyTorch",
    "kept": "plain PyTorch that keeps freed memory, as Thaw's worker does",
}
Step = Callable[[Tensor, Tensor], None]
KEY = b"benchmark"
CLIENT = (
    "import sys; from multiprocessing.connection import Client; from trainer.frames import decode_event\n"
    "with Client(sys.argv[1], authkey=sys.argv[2].encode()) as client:\n"
    "    try:\n"
    "        while True: decode_event(client.recv_bytes())\n"
    "    except (EOFError, OSError): pass\n"
)


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
    """Print the times; or be one of the loops, which trains as many steps as a line says, and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=40, help="of each loop")
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.loop:
        serve(options.loop, torch.device(options.device))
        return
    times = take_turns(options.turns, options.device, options.threads)
    print(
        f"resnet18, {IMAGE_SIZE} px, batch {BATCH_SIZE}, {options.device}, {options.threads} threads: "
        f"{options.turns} turns of {NUM_STEPS} steps each"
    )
    for idx, what in enumerate(("by the clock", "of the processor")):
        of_thaw = [turn["thaw"][idx] for turn in times]
        for name, words in LOOPS.items():
            of_loop = [turn[name][idx] for turn in times]
            ratios = [a / b for a, b in zip(of_thaw, of_loop, strict=True)]
            low, median, high = statistics.quantiles(ratios, n=4)
            print(
                f"{what:16}  {statistics.median(of_loop) * 1000:8.2f} ms a step: {words}"
                + ("" if name == "thaw" else f"; Thaw takes {median:.3f} of it (quartiles {low:.3f}, {high:.3f})")
            )


def take_turns(num_turns: int, device: str, num_threads: int) -> list[dict[str, tuple[float, float]]]:
    """Start the loops, let them train by turns, and return the times of a step by turn and loop, in seconds."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.bench_monitor",
        "--device",
        device,
        "--threads",
        f"{num_threads}",
    ]
    loops = {
        name: subprocess.Popen(
            [*command, "--loop", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ) if name == "plain" else {**KEEP_FREED_MEMORY, **os.environ},
        )
        for name in LOOPS
    }
    try:
        for name in LOOPS:
            ask(loops[name], 2 * NUM_BATCHES)
        # The order turns round: who comes after whom would matter otherwise.
        return [
            {name: ask(loops[name], NUM_STEPS) for name in (LOOPS if number % 2 else reversed(LOOPS))}
            for number in range(num_turns)
        ]
    finally:
        for loop in loops.values():
            assert loop.stdin is not None
            loop.stdin.close()
            loop.wait()


def ask(loop: subprocess.Popen[str], num_steps: int) -> tuple[float, float]:
    """Let a loop train some steps. Returns the seconds that one took, by the clock and of the processor."""
    assert loop.stdin is not None
    assert loop.stdout is not None
    print(num_steps, file=loop.stdin, flush=True)
    clock, processor = loop.stdout.readline().split()
    return float(clock), float(processor)


def serve(loop: str, device: torch.device) -> None:
    """Train as many steps as each line of standard input says, and answer with the seconds that one took."""
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
    with monitored_step(config, device) if loop == "thaw" else nullcontext(plain_step(config, device)) as step:
        for line in sys.stdin:
            print(*run(step, batches, device, int(line)), flush=True)


@contextmanager
def monitored_step(config: RunConfig, device: torch.device) -> Iterator[Step]:
    """Give a step of Thaw's own loop, with a run's folder, TensorBoard's files, and a client that reads every event."""
    with tempfile.TemporaryDirectory() as scratch, RunFolder.create(Path(scratch), config) as folder:
        listener = Listener(str(Path(scratch) / "socket"), authkey=KEY)
        server = EventServer(listener, lambda _: None)
        server.begin(WorkerAttached(state=RunState.RUNNING, pid=0, torch_version="", devices=[]))
        log = TensorBoardLog(folder.tensorboard_dir, None)
        server.keep_in(folder, log.write)
        client = subprocess.Popen([sys.executable, "-c", CLIENT, str(listener.address), KEY.decode()])
        while not server.num_clients:
            time.sleep(0.05)
        loaded = build_model(config.model, NUM_CLASSES, 7, IMAGE_SIZE, lambda *_: None, lambda: None)
        trainer = Trainer(config, loaded, cast(ImageData, RandomImages()), device, server.publish)
        trainer.begin(folder)
        trainer.freeze_set.set_mode(training=True)

        def step(images: Tensor, target: Tensor) -> None:
            started = time.perf_counter()
            trainer.train_step([(images, target)])
            trainer.reporter.pace.add(time.perf_counter() - started, len(target))
            trainer.report()

        yield step
        server.finish()
        log.close()
        listener.close()
        client.terminate()
        client.wait()


def plain_step(config: RunConfig, device: torch.device) -> Step:
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


def run(step: Step, batches: list[tuple[Tensor, Tensor]], device: torch.device, num_steps: int) -> tuple[float, float]:
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
