"""The stream of batches: the same for every number of loader processes, and from any step on."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from trainer.config import DataConfig, TrainingConfig
from trainer.data.images import DataError
from trainer.data.loader import ImageData
from trainer.data.scan import ScannedData
from trainer.data.transforms import ImageTransform, Preprocessing
from trainer.messages.data_info import DataSummary


@pytest.fixture
def scanned(tmp_path: Path) -> ScannedData:
    return make_scanned(tmp_path / "data")


def make_scanned(root: Path) -> ScannedData:
    """Write three classes of nine images, two of each for validation, and describe them as a scan does."""
    generator = np.random.default_rng(0)
    samples, sides = [], []
    for class_idx, name in enumerate(("cat", "dog", "fox")):
        (root / name).mkdir(parents=True)
        for number in range(9):
            path, size = root / name / f"{number}.png", (20 + number, 30 - number)
            Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
            samples.append((str(path), (class_idx,)))
            sides.append((size[1], size[0]))
    splits = ["validation" if idx % 9 in {2, 5} else "train" for idx in range(len(samples))]
    return ScannedData(root, ["cat", "dog", "fox"], samples, [], splits, sides, DataSummary.model_construct())


def loaded(
    scanned: ScannedData,
    num_workers: int = 0,
    batch_size: int = 5,
    store_dir: Path | None = None,
    **fields: Any,
) -> ImageData:
    return ImageData(
        DataConfig(path=str(scanned.root), **{"augmentation": "light", **fields}),
        TrainingConfig(batch_size=batch_size, num_loader_workers=num_workers, seed=3),
        Preprocessing(16, 20),
        scanned,
        store_dir,
    )


def digests(batches: Iterable[tuple[Tensor, Tensor]]) -> list[str]:
    return [hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest() for x, y in batches]


@pytest.fixture
def two_workers(scanned: ScannedData) -> Iterator[ImageData]:
    data = loaded(scanned, 2)
    yield data
    data.close()


# -- the stream -----------------------------------------------------------------------------------------------


def test_batches_have_the_documented_shapes(scanned: ScannedData) -> None:
    data = loaded(scanned)
    assert (data.num_train, data.num_validation, data.batches_per_epoch) == (21, 6, 4)
    assert data.class_names == ["cat", "dog", "fox"]
    batches = list(data.train_batches(0))
    assert len(batches) == data.batches_per_epoch
    x, y = batches[0]
    assert (x.shape, x.dtype) == ((5, 3, 16, 16), torch.float32)
    assert (y.shape, y.dtype) == ((5,), torch.int64)
    assert sum(len(y) for _, y in data.validation_batches()) == 6


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than a small machine has cores
@pytest.mark.parametrize("augmentation", ["light", "strong"])
@pytest.mark.parametrize("num_workers", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_stream_is_the_same_for_every_number_of_loader_processes_from_any_batch_on(
    scanned: ScannedData, num_workers: int, augmentation: str
) -> None:
    alone = loaded(scanned, augmentation=augmentation)
    helped = loaded(scanned, num_workers, augmentation=augmentation)
    epochs = [digests(alone.train_batches(epoch)) for epoch in (0, 1)]
    assert len({*epochs[0], *epochs[1]}) == 8
    assert [digests(helped.train_batches(epoch)) for epoch in (0, 1)] == epochs
    assert digests(helped.train_batches(1, start_batch=2)) == epochs[1][2:]
    assert digests(loaded(scanned, augmentation=augmentation).train_batches(1, start_batch=2)) == epochs[1][2:]
    assert digests(alone.train_batches(0)) == epochs[0]
    assert list(alone.train_batches(0, start_batch=4)) == []
    validation = digests(alone.validation_batches())
    assert digests(alone.validation_batches()) == validation
    assert digests(helped.validation_batches()) == validation
    helped.close()


@pytest.fixture
def three_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have images of any size read by three threads, where there are no loader processes."""
    monkeypatch.setattr("trainer.data.loader.MIN_PIXELS_FOR_READERS", 1)
    monkeypatch.setattr("trainer.data.loader.num_usable_cores", lambda: 3)


@pytest.mark.usefixtures("three_readers")
@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("balance", ["none", "sampler"])
def test_the_stream_is_the_same_where_threads_read_the_images(
    scanned: ScannedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps: bool, balance: str
) -> None:
    readers: set[str] = set()
    read = ImageTransform.read

    def noted(transform: ImageTransform, path: str) -> Tensor:
        readers.add(threading.current_thread().name)
        return read(transform, path)

    monkeypatch.setattr(ImageTransform, "read", noted)
    threaded = loaded(scanned, store_dir=tmp_path / "store" if keeps else None, balance=balance)
    epochs = [digests(threaded.train_batches(epoch)) for epoch in (0, 1)]
    validation = digests(threaded.validation_batches())
    assert all(name.startswith("image-read") for name in readers)
    assert readers
    monkeypatch.setattr("trainer.data.loader.MIN_PIXELS_FOR_READERS", 10**9)
    alone = loaded(scanned, balance=balance)
    assert [digests(alone.train_batches(epoch)) for epoch in (0, 1)] == epochs
    assert digests(alone.validation_batches()) == validation
    assert "MainThread" in readers


@pytest.mark.usefixtures("three_readers")
def test_an_image_that_a_thread_cannot_read_waits_for_the_others_and_leaves_the_warnings_as_they_were(
    scanned: ScannedData,
) -> None:
    Path(scanned.samples[1][0]).write_bytes(b"damaged")
    before = list(warnings.filters)
    data = loaded(scanned, batch_size=21)
    with pytest.raises(DataError, match=r"Cannot read the image .*1\.png"):
        list(data.train_batches(0))
    assert list(warnings.filters) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("image-read")]
    data.close()


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resume_at_a_small_last_batch_has_room_for_the_whole_batches_of_the_next_epoch(
    scanned: ScannedData, num_workers: int
) -> None:
    data = loaded(scanned, num_workers, batch_size=6)
    assert [len(y) for _, y in data.train_batches(0, start_batch=3)] == [3]
    assert digests(data.train_batches(1)) == digests(loaded(scanned, batch_size=6).train_batches(1))
    data.close()


def test_without_room_in_shared_memory_the_stream_is_the_same_from_this_process(
    scanned: ScannedData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Tensor) -> Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(Tensor, "share_memory_", refuse)
    data = loaded(scanned, 2)
    assert digests(data.train_batches(0)) == digests(loaded(scanned).train_batches(0))
    assert "no room in shared memory for the batches of 2 loader processes" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="only there a queue tells its length")
def test_a_batch_is_whole_when_all_that_can_be_loaded_ahead_of_it_is_loaded(
    scanned: ScannedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch lies where an earlier one lay: two loader processes have five places for ten batches."""
    data = loaded(scanned, 2, batch_size=2)
    stream = data.train
    normalize = stream._dataset.normalize
    expected = digests(data.train_batches(0))
    assert len(expected) == 10

    def normalize_late(x: Tensor, *, is_for_gpu: bool) -> Tensor:
        iterator = stream._loader._iterator  # type: ignore[union-attr]
        deadline = time.monotonic() + 30
        while True:
            tasks = iterator._task_info.values()
            if iterator._worker_result_queue.qsize() + sum(len(task) == 2 for task in tasks) == len(tasks):
                return normalize(x, is_for_gpu=is_for_gpu)
            assert time.monotonic() < deadline
            time.sleep(0.001)

    monkeypatch.setattr(stream._dataset, "normalize", normalize_late)
    assert digests(data.train_batches(0)) == expected
    assert digests(loaded(scanned, batch_size=2).train_batches(0)) == expected
    data.close()


def test_splits_are_those_of_the_scan(scanned: ScannedData) -> None:
    data = loaded(scanned)
    assert list(data.test_batches()) == []
    assert (data.class_counts, data.num_test) == ([7, 7, 7], 0)

    splits = ["train", "test", "validation"] * 9
    splits[:3] = ["test"] * 3
    data = loaded(replace(scanned, splits=splits))
    assert (data.num_train, data.num_validation, data.num_test) == (8, 8, 11)
    assert data.class_counts == [2, 3, 3]
    assert [len(y) for _, y in data.test_batches()] == [5, 5, 1]
    tested = torch.cat([y for _, y in data.test_batches()])
    assert tested.tolist() == [
        label for (_, (label,)), name in zip(scanned.samples, splits, strict=True) if name == "test"
    ]
    assert digests(data.test_batches()) == digests(loaded(replace(scanned, splits=splits)).test_batches())


def test_a_balanced_sampler_draws_each_class_equally_often(scanned: ScannedData) -> None:
    splits = ["train" if idx % 9 < (8, 2, 2)[idx // 9] else "validation" for idx in range(27)]
    uneven = replace(scanned, splits=splits)
    data = loaded(uneven, balance="sampler")
    assert data.batches_per_epoch == loaded(uneven).batches_per_epoch
    labels = torch.cat([y for _, y in data.train_batches(0)])
    assert torch.bincount(labels).tolist() == [4, 4, 4]


def test_the_images_a_second_are_told_by_epoch(scanned: ScannedData, two_workers: ImageData) -> None:
    for data in (loaded(scanned), two_workers):
        assert data.images_per_s == {}
        next(data.train_batches(0))
        batches = data.train_batches(1)
        # As a training loop does: it asks for no more than there are.
        for _ in range(data.batches_per_epoch):
            next(batches)
        assert set(data.images_per_s) == {0, 1}
        assert all(0 < rate < 1e7 for rate in data.images_per_s.values())


def test_an_epoch_left_in_the_middle_does_not_leak_into_the_next_iterator(
    scanned: ScannedData, two_workers: ImageData
) -> None:
    expected = digests(loaded(scanned).train_batches(2))
    for data in (two_workers, loaded(scanned)):
        next(data.train_batches(1))
        assert digests(data.train_batches(2)) == expected


def test_iterating_leaves_the_global_generator_alone(scanned: ScannedData, two_workers: ImageData) -> None:
    before = torch.get_rng_state()
    for data in (loaded(scanned), two_workers):
        for batches in (data.train_batches(0), data.validation_batches()):
            for _ in batches:
                assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_does_not_depend_on_the_global_generator(scanned: ScannedData) -> None:
    first = digests(loaded(scanned).train_batches(0))
    torch.rand(5)
    assert digests(loaded(scanned).train_batches(0)) == first


def test_closing_ends_the_loader_processes_and_batches_can_be_asked_for_again(two_workers: ImageData) -> None:
    def loaders() -> set[int]:
        # The fork server and the resource tracker stay; loader processes are the server's children.
        return {
            child.pid
            for server in psutil.Process().children()
            if "forkserver" in " ".join(server.cmdline())
            for child in server.children()
        }

    before = loaders()
    first = digests(two_workers.train_batches(0))
    next(two_workers.train_batches(1))
    mine = loaders() - before
    assert len(mine) == 2
    two_workers.close()
    psutil.wait_procs([psutil.Process(pid) for pid in mine if psutil.pid_exists(pid)], timeout=10)
    assert not mine & loaders()
    assert digests(two_workers.train_batches(0)) == first


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_image_that_is_damaged_during_the_run_is_named_in_one_sentence(
    scanned: ScannedData, num_workers: int
) -> None:
    data = loaded(scanned, num_workers)
    path = Path(scanned.samples[0][0])
    content = path.read_bytes()
    for file, _ in scanned.samples:
        Path(file).write_bytes(b"damaged")
    with pytest.raises(DataError) as caught:
        list(data.train_batches(0))
    assert str(caught.value).startswith("Cannot read the image ")
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    for file, _ in scanned.samples:
        Path(file).write_bytes(content)
    assert len(list(data.train_batches(0))) == 4, "the loader goes on after the file was mended"
    data.close()


@pytest.mark.slow
def test_a_killed_loader_process_is_told_in_a_sentence(scanned: ScannedData) -> None:
    data = loaded(scanned, 2, batch_size=1)
    batches = data.train_batches(0)
    next(batches)
    for server in psutil.Process().children():
        for child in server.children():
            child.kill()
    with pytest.raises(DataError, match="loader process ended unexpectedly") as caught:
        list(batches)
    assert caught.value.field == "training.num_loader_workers"
    assert len(list(data.train_batches(0))) == data.batches_per_epoch
    data.close()


@pytest.mark.skipif(sys.platform == "win32", reason="a fork server is a Unix thing")
@pytest.mark.slow
def test_loader_processes_end_with_a_killed_worker(scanned: ScannedData, tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        f"""
import time
from pathlib import Path
from tests.trainer.test_data_loader import loaded, make_scanned

if __name__ == "__main__":
    data = loaded(make_scanned(Path({str(tmp_path / "other")!r})), 2, batch_size=1)
    next(data.train_batches(0))
    print("loading", flush=True)
    time.sleep(600)
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        try:
            assert worker.stdout.readline() == "loading\n"
            helpers = psutil.Process(worker.pid).children(recursive=True)
        finally:
            worker.kill()
    _, alive = psutil.wait_procs(helpers, timeout=30)
    assert len(helpers) >= 3, "a fork server and its two loaders"
    assert not alive


def test_the_fingerprint_tells_other_data(scanned: ScannedData) -> None:
    before = loaded(scanned).fingerprint
    assert loaded(scanned).fingerprint == before
    with Path(scanned.samples[0][0]).open("ab") as file:
        file.write(b"x")
    assert loaded(scanned).fingerprint != before
    other_class = [(path, ((class_idx + 1) % 3,)) for path, (class_idx,) in scanned.samples]
    assert loaded(replace(scanned, samples=other_class)).fingerprint != loaded(scanned).fingerprint
    other_split = ["train" if split == "validation" else "validation" for split in scanned.splits]
    assert loaded(replace(scanned, splits=other_split)).fingerprint != loaded(scanned).fingerprint
    Path(scanned.samples[0][0]).unlink()
    with pytest.raises(DataError, match="any more"):
        loaded(scanned)


def test_loader_processes_are_chosen_by_the_machine(scanned: ScannedData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr("sys.platform", "linux")

    def chosen(image_size: int) -> int:
        training = TrainingConfig(batch_size=1)
        return ImageData(DataConfig(), training, Preprocessing(image_size, image_size), scanned).num_loader_workers

    assert chosen(64) == 0
    assert chosen(224) == 4
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert chosen(224) == 0


# -- order ------------------------------------------------------------------------------------------------------
