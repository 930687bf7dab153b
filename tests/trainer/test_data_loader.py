"""The stream of batches: the same for every number of loader processes, and from any step on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from trainer.config import DataConfig, TrainingConfig
from trainer.data.dataset import ImageDataset
from trainer.data.images import DataError
from trainer.data.loader import ImageData
from trainer.data.sampler import EpochSampler
from trainer.data.scan import ScannedData, scan
from trainer.data.split import split
from trainer.data.transforms import Preprocessing, train_transform, validation_transform


@pytest.fixture
def scanned(tmp_path: Path) -> ScannedData:
    generator = np.random.default_rng(0)
    for name in ("cat", "dog", "fox"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(9):
            size = (20 + number, 30 - number, 3)
            pixels = generator.integers(0, 256, size, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return scan(tmp_path / "data", tmp_path / "cache", lambda *_: None, lambda: None)


def loaded(scanned: ScannedData, num_workers: int = 0, batch_size: int = 5, cut: bool = True) -> ImageData:
    return ImageData(
        DataConfig(path=str(scanned.root), augmentation="light"),
        TrainingConfig(batch_size=batch_size, num_loader_workers=num_workers, seed=3),
        Preprocessing(16, 20 if cut else 16),
        scanned,
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
    assert (data.num_train, data.num_validation, data.steps_per_epoch) == (21, 6, 4)
    assert data.class_names == ["cat", "dog", "fox"]
    batches = list(data.train_batches(0))
    assert len(batches) == data.steps_per_epoch
    x, y = batches[0]
    assert (x.shape, x.dtype) == ((5, 3, 16, 16), torch.float32)
    assert (y.shape, y.dtype) == ((5,), torch.int64)
    assert sum(len(y) for _, y in data.validation_batches()) == 6


def test_the_stream_is_the_same_with_two_loader_processes_from_any_batch_on(
    scanned: ScannedData, two_workers: ImageData
) -> None:
    alone = loaded(scanned)
    epochs = [digests(alone.train_batches(epoch)) for epoch in (0, 1)]
    assert len({*epochs[0], *epochs[1]}) == 8
    assert [digests(two_workers.train_batches(epoch)) for epoch in (0, 1)] == epochs
    assert digests(two_workers.train_batches(1, start_batch=2)) == epochs[1][2:]
    assert digests(loaded(scanned).train_batches(1, start_batch=2)) == epochs[1][2:]
    assert digests(alone.train_batches(0)) == epochs[0], "decoded images kept in memory change nothing"
    assert list(alone.train_batches(0, start_batch=4)) == []
    validation = digests(alone.validation_batches())
    assert digests(alone.validation_batches()) == validation
    assert digests(two_workers.validation_batches()) == validation


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
    assert len(list(data.train_batches(0))) == data.steps_per_epoch
    data.close()


def test_the_fingerprint_tells_other_data(scanned: ScannedData) -> None:
    before = loaded(scanned).fingerprint
    assert loaded(scanned).fingerprint == before
    with Path(scanned.samples[0][0]).open("ab") as file:
        file.write(b"x")
    assert loaded(scanned).fingerprint != before
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


# -- order and split ------------------------------------------------------------------------------------------


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    sampler = EpochSampler(100, 8, seed=1)
    assert sampler.order(3) == EpochSampler(100, 16, seed=1).order(3)
    assert sorted(sampler.order(3)) == list(range(100))
    assert sampler.order(3) != sampler.order(4)
    assert sampler.order(3) != EpochSampler(100, 8, seed=2).order(3)


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 4]), (1, 4, [1]), (3, 1, [1, 1, 1]), (4, 4, [4]), (5, 4, [4])],
)
def test_a_last_batch_of_one_image_is_left_out_where_there_are_others(
    num_samples: int, batch_size: int, sizes: list[int]
) -> None:
    sampler = EpochSampler(num_samples, batch_size, seed=0)
    assert [len(batch) for batch in sampler.batches(0)] == sizes
    assert sampler.num_batches == len(sizes)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_every_class_is_in_both_parts(fraction: float) -> None:
    labels = [0] * 2 + [1] * 50 + [2] * 7
    train, validation = split(labels, fraction, seed=5)
    assert sorted(train + validation) == list(range(len(labels)))
    for part in (train, validation):
        assert {labels[index] for index in part} == {0, 1, 2}
        assert part == sorted(part)


def test_the_split_follows_the_seed_and_leaves_other_classes_alone() -> None:
    labels = [0] * 40 + [1] * 40
    train, validation = split(labels, 0.25, seed=5)
    assert len(validation) == 20
    assert split(labels, 0.25, seed=5) == (train, validation)
    assert split(labels, 0.25, seed=6) != (train, validation)
    assert split([*labels, 2, 2], 0.25, seed=5)[1][:20] == validation


# -- transforms and cache -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(30, 30), (90, 20), (8, 8)])
@pytest.mark.parametrize("preprocessing", [Preprocessing(16, 16), Preprocessing(16, 20, interpolation="bicubic")])
def test_every_image_becomes_the_square_that_the_model_sees(
    size: tuple[int, int], preprocessing: Preprocessing
) -> None:
    image = Image.new("RGB", size, (255, 0, 128))
    for transform in (
        train_transform(preprocessing, "light"),
        train_transform(preprocessing, "none"),
        validation_transform(preprocessing),
    ):
        x = transform(image)
        assert (x.shape, x.dtype) == ((3, 16, 16), torch.float32)
        expected = (torch.tensor([1, 0, 128 / 255]) - torch.tensor(preprocessing.mean)) / torch.tensor(
            preprocessing.std
        )
        assert torch.allclose(x.mean((1, 2)), expected, atol=1e-5)


def test_light_augmentation_shifts_and_scales_a_little_and_never_flips() -> None:
    image = Image.new("RGB", (32, 32))
    image.paste((255, 255, 255), (2, 2, 14, 30))
    transform = train_transform(Preprocessing(32, 32), "light")
    views = [transform(image) for _ in range(50)]
    assert len({view.numpy().tobytes() for view in views}) > 25
    for view in views:
        assert view[..., :14].mean() > view[..., 18:].mean() + 1, "the bar stays on the left"
        assert (view[0] > 1).float().mean() > 0.2, "most of the bar stays in the picture"


def test_another_image_size_keeps_the_proportion_of_the_cut() -> None:
    assert Preprocessing(224, 256).resized_to(112) == Preprocessing(112, 128)
    assert Preprocessing(224, 224).resized_to(96) == Preprocessing(96, 96)


def test_cached_images_are_not_read_again_and_the_budget_is_kept(scanned: ScannedData) -> None:
    transform = train_transform(Preprocessing(16, 16), "light")
    one_image_bytes = transform.fit(Image.new("RGB", (9, 9))).nbytes
    dataset = ImageDataset(scanned.samples[:2], transform, seed=1, cache_bytes=one_image_bytes)
    first = dataset[0, 0][0]
    dataset[0, 1]
    for path, _ in scanned.samples[:2]:
        Path(path).unlink()
    assert torch.equal(dataset[0, 0][0], first)
    assert not torch.equal(dataset[1, 0][0], first)
    with pytest.raises(DataError):
        dataset[0, 1]
