"""What Thaw costs in a training step: its loop beside the same loop in plain PyTorch.

Run it with ``python -m tests.benchmarks.bench_monitor``, on a machine with nothing else to do. resnet18 at 64 px, batch
32, everything trainable. Thaw's loop has all that a run has: the check for NaN, metrics, layer statistics, run.db,
TensorBoard's files, and a client in a process of its own that reads every event. The plain loop is there twice. As a
script it has a process of its own, as a person starts it; the worker has settings of the C library with which that
keeps freed memory. In Thaw's own process, with Thaw's own model and memory, it is the cost of the monitor alone: two
processes with the very same loop differ by up to 6 %, by where in memory their tensors happen to lie. The loops take
short turns, so that the machine's moods meet all of them: what is told is the median over the turns.
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
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainer.config import ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from trainer.data.loader import ImageData
from trainer.data.transforms import Preprocessing
from trainer.feature_batches import ModelBatch
from trainer.logs import TensorBoardLog
from trainer.loop import Trainer
from trainer.memory import KEEP_FREED_MEMORY
from trainer.messages.base import Event
from trainer.messages.events import WorkerAttached
from trainer.messages.states import RunState
from trainer.models import LoadedModel, build_model
from trainer.optim import make_optimizer
from trainer.runs import RunFolder
from trainer.server import EventServer

NUM_CLASSES, IMAGE_SIZE, BATCH_SIZE = 10, 64, 32
NUM_BATCHES = 8
NUM_STEPS = 24
LOOPS = {
    "thaw": "Thaw, with the monitor attached",
    "bare": "the plain loop with the same model in the same process",
    "plain": "plain PyTorch, as a script",
}
PROCESSES = {"thaw": "worker", "bare": "worker", "plain": "script"}
"""Where each loop runs."""
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
    fingerprints = (fingerprint,)
    preprocessing = Preprocessing(IMAGE_SIZE, IMAGE_SIZE)

    def close(self) -> None:
        """Nothing to close."""


def main() -> None:
    """Print the times; or be one of the processes, which trains as a line says, and prints what a step took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=40, help="of each loop")
    parser.add_argument("--process", choices=["worker", "script"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.process:
        serve(options.process, torch.device(options.device))
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
    processes = {
        name: subprocess.Popen(
            [*command, "--process", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**KEEP_FREED_MEMORY, **os.environ} if name == "worker" else dict(os.environ),
        )
        for name in ("worker", "script")
    }
    try:
        for name in LOOPS:
            ask(processes[PROCESSES[name]], name, 2 * NUM_BATCHES)
        # The order turns round: who comes after whom would matter otherwise.
        return [
            {
                name: ask(processes[PROCESSES[name]], name, NUM_STEPS)
                for name in (LOOPS if number % 2 else reversed(LOOPS))
            }
            for number in range(num_turns)
        ]
    finally:
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def ask(process: subprocess.Popen[str], loop: str, num_steps: int) -> tuple[float, float]:
    """Let a loop train some steps. Returns the seconds that one took, by the clock and of the processor."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(loop, num_steps, file=process.stdin, flush=True)
    clock, processor = process.stdout.readline().split()
    return float(clock), float(processor)


def serve(process: str, device: torch.device) -> None:
    """Train as each line of standard input says (a loop, a number of steps), and answer with the seconds of a step."""
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
    loaded = build_model(config.model, NUM_CLASSES, 7, IMAGE_SIZE, lambda *_: None, lambda: None)
    is_worker = process == "worker"
    with (
        worker_steps(config, device, loaded)
        if is_worker
        else nullcontext(script_steps(config, device, loaded)) as steps
    ):
        for line in sys.stdin:
            loop, num_steps = line.split()
            print(*run(steps[loop], batches, device, int(num_steps)), flush=True)


@contextmanager
def worker_steps(config: RunConfig, device: torch.device, loaded: LoadedModel) -> Iterator[dict[str, Step]]:
    """Give a step of Thaw's own loop, with a run's folder, TensorBoard's files, and a client that reads every event.

    And one of the plain loop, with the same model and the same optimizer.
    """
    with monitored(config) as (folder, publish):
        trainer = Trainer(config, loaded, cast(ImageData, RandomImages()), device, publish)
        trainer.begin(folder)
        trainer.freeze_set.set_mode(training=True)

        def step(images: Tensor, target: Tensor) -> None:
            started = time.perf_counter()
            trainer.train_step([ModelBatch.of_images(trainer.module, images, target, device)])
            trainer.reporter.pace.add(time.perf_counter() - started, len(target))
            trainer.report()

        yield {"thaw": step, "bare": plain_step(trainer.module, trainer.optimizer)}


@contextmanager
def monitored(config: RunConfig) -> Iterator[tuple[RunFolder, Callable[[Event], None]]]:
    """Give a run's folder, and where its events go: run.db, TensorBoard's files, and a client that reads each."""
    with tempfile.TemporaryDirectory() as scratch, RunFolder.create(Path(scratch), config) as folder:
        listener = Listener(str(Path(scratch) / "socket"), authkey=KEY)
        server = EventServer(listener, lambda _: None)
        server.begin(WorkerAttached(state=RunState.RUNNING, pid=0, torch_version="", devices=[]))
        log = TensorBoardLog(folder)
        server.keep_in(folder, log.write)
        client = subprocess.Popen([sys.executable, "-c", CLIENT, str(listener.address), KEY.decode()])
        while not server.num_clients:
            time.sleep(0.05)
        yield folder, server.publish
        server.finish()
        log.close()
        listener.close()
        client.terminate()
        client.wait()


def script_steps(config: RunConfig, device: torch.device, loaded: LoadedModel) -> dict[str, Step]:
    """Return a step of the plain loop, with the same kind of model and optimizer."""
    module = loaded.module.to(device).train()
    return {"plain": plain_step(module, make_optimizer(config.optimizer, module))}


def plain_step(module: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """Return a step of the loop that a person would write."""

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
