"""Decoded images that are kept: they change nothing in the stream, and nothing that happens to them stops a run."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.trainer.test_data_loader import digests, loaded, make_scanned
from trainer.data.images import DataError
from trainer.data.scan import ScannedData
from trainer.data.store import SUFFIX, DecodedStore, StoreContent, open_stores, store_content
from trainer.data.transforms import ImageTransform, Preprocessing, train_transform, validation_transform
from trainer.record_store import find_budget

SHAPES = [(4, 6), (5, 4), (4, 4)]
IMAGE_BYTES = 3 * 4 * 6


@pytest.fixture
def scanned(tmp_path: Path) -> ScannedData:
    return make_scanned(tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DecodedStore]:
    store = DecodedStore(tmp_path / "a.images", SHAPES, max_bytes=10_000)
    yield store
    store.close()


def image(sample_idx: int) -> Tensor:
    """Make an image laid out as Pillow gives it: the channels lie side by side."""
    generator = torch.Generator().manual_seed(sample_idx)
    return torch.randint(256, (*SHAPES[sample_idx], 3), generator=generator, dtype=torch.uint8).permute(2, 0, 1)


def content(key: str, num_images: int = 1) -> StoreContent:
    return StoreContent(key, [(4, 6)] * num_images)


def unlink_images(scanned: ScannedData) -> None:
    for path, _ in scanned.samples:
        Path(path).unlink()


# -- the stream -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", ["none", "strong"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_stream_is_the_same_with_a_store_and_decodes_every_image_once(
    scanned: ScannedData, tmp_path: Path, num_workers: int, augmentation: str
) -> None:
    plain = loaded(scanned, augmentation=augmentation)
    expected = [digests(plain.train_batches(epoch)) for epoch in (0, 1)]
    validation = digests(plain.validation_batches())

    data = loaded(scanned, num_workers, store_dir=tmp_path / "store", augmentation=augmentation)
    later = loaded(scanned, 2 - num_workers, store_dir=tmp_path / "store", augmentation=augmentation)
    assert data.num_kept == 27
    assert digests(data.train_batches(0)) == expected[0]
    assert digests(data.validation_batches()) == validation
    # One image was in the batch of one that is left out of epoch 0.
    assert len(digests(data.train_batches(1))) == data.batches_per_epoch
    assert digests(data.train_batches(2)) == digests(plain.train_batches(2))
    unlink_images(scanned)
    for keeping in (data, later):
        assert [digests(keeping.train_batches(epoch)) for epoch in (0, 1)] == expected
        assert digests(keeping.train_batches(1, start_batch=2)) == expected[1][2:]
        assert digests(keeping.validation_batches()) == validation
        keeping.close()
    with pytest.raises(DataError):
        list(plain.train_batches(0))
    assert sum(path.stat().st_size for path in (tmp_path / "store").iterdir()) == data.store_bytes


def test_a_changed_image_is_decoded_anew_in_the_next_run(scanned: ScannedData, tmp_path: Path) -> None:
    first = loaded(scanned, store_dir=tmp_path / "store")
    list(first.train_batches(0))
    first.close()
    for path, _ in scanned.samples:
        with Image.open(path) as before:
            size = before.size
        Image.new("RGB", size, "red").save(path)
    second = loaded(scanned, store_dir=tmp_path / "store")
    assert digests(second.train_batches(0)) == digests(loaded(scanned).train_batches(0))
    second.close()


def test_what_does_not_fit_is_decoded_each_time(scanned: ScannedData, tmp_path: Path) -> None:
    data = loaded(scanned, store_dir=tmp_path / "store", cache_gb=2e-5)
    assert 0 < data.num_kept < data.num_train
    assert 15_000 < data.store_bytes <= 20_000
    plain = loaded(scanned)
    for epoch in (0, 1):
        assert digests(data.train_batches(epoch)) == digests(plain.train_batches(epoch))
    assert sum(path.stat().st_size for path in (tmp_path / "store").iterdir()) <= data.store_bytes
    unlink_images(scanned)
    with pytest.raises(DataError):
        list(data.train_batches(2))
    data.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_store_that_cannot_grow_is_given_up_and_the_run_goes_on(
    scanned: ScannedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import resource

    data = loaded(scanned, store_dir=tmp_path / "store")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (data.store_bytes // 3, limits[1]))
    try:
        given = [digests(data.train_batches(epoch)) for epoch in (0, 1)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert given == [digests(loaded(scanned).train_batches(epoch)) for epoch in (0, 1)]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "File too large" in caplog.text
    data.close()


# -- the file -------------------------------------------------------------------------------------------------


def test_an_image_is_read_as_it_was_written_here_and_in_a_copy_for_another_process(store: DecodedStore) -> None:
    assert store.read(1) is None
    store.write(1, image(1))
    for reader in (store, pickle.loads(pickle.dumps(store))):
        for _ in range(2):
            kept = reader.read(1)
            assert torch.equal(kept, image(1))
            assert kept.stride() == image(1).stride(), "another layout may be resized by other code"
        assert reader.read(0) is None
        assert reader.read(2) is None
        reader.close()
        assert torch.equal(reader.read(1), image(1)), "opened again"
        reader.close()


def test_a_black_image_is_told_from_an_empty_place(store: DecodedStore) -> None:
    store.write(0, torch.zeros_like(image(0)))
    assert torch.equal(store.read(0), torch.zeros_like(image(0)))


def test_an_image_that_was_half_written_at_a_crash_counts_as_missing(store: DecodedStore, tmp_path: Path) -> None:
    store.write(0, image(0))
    path = tmp_path / "a.images"
    with path.open("r+b") as file:
        file.seek(4 * len(SHAPES) + IMAGE_BYTES // 2)
        file.write(bytes(IMAGE_BYTES // 2))
    later = DecodedStore(path, SHAPES, max_bytes=10_000)
    assert later.read(0) is None
    later.write(0, image(0))
    assert torch.equal(later.read(0), image(0))
    os.truncate(path, 4 * len(SHAPES) + IMAGE_BYTES - 1)
    assert later.read(0) is None
    later.close()


def test_an_image_that_changed_its_shape_after_the_scan_is_not_kept(store: DecodedStore) -> None:
    store.write(2, image(0))
    assert store.read(2) is None


def test_the_disk_is_never_filled_to_the_last_byte(store: DecodedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    free_bytes = shutil.disk_usage(Path.cwd()).free
    monkeypatch.setattr("trainer.record_store.MIN_FREE_BYTES", free_bytes * 2)
    store.write(0, image(0))
    assert store.read(0) is None


# -- the key --------------------------------------------------------------------------------------------------


def test_the_key_follows_the_files_and_what_is_done_to_them(scanned: ScannedData) -> None:
    def key(transform: ImageTransform) -> str:
        files = [(path, Path(path).stat()) for path, _ in scanned.samples]
        return store_content(transform, files, scanned.sides).key

    plain = validation_transform(Preprocessing(16, 20))
    assert key(plain) == key(train_transform(Preprocessing(16, 20), "none"))
    assert key(train_transform(Preprocessing(16, 20), "light")) == key(train_transform(Preprocessing(16, 20), "strong"))
    others = [
        key(transform)
        for transform in (
            train_transform(Preprocessing(16, 20), "light"),
            validation_transform(Preprocessing(16, 18)),
            validation_transform(Preprocessing(18, 20)),
            validation_transform(Preprocessing(16, 20, interpolation="bicubic")),
        )
    ]
    assert len({key(plain), *others}) == 5


def test_the_key_follows_every_sign_that_a_file_was_changed() -> None:
    def key(path: str = "/data/1.png", side: int = 20, **state: int) -> str:
        states = SimpleNamespace(**{"st_size": 1, "st_mtime_ns": 2, "st_ctime_ns": 3, **state})
        return store_content(transform, [(path, states)], [(side, 40)]).key

    transform = train_transform(Preprocessing(16, 20), "light")
    assert key() == key()
    changed = {key(), key(path="/data/2.png"), key(side=25), key(st_size=4), key(st_mtime_ns=4)}
    # An unpacked archive may claim the same time and size for another image, but not the time of the change.
    assert len({*changed, key(st_ctime_ns=4)}) == 6


# -- the folder -----------------------------------------------------------------------------------------------


def test_stores_that_were_not_used_for_longest_make_room_but_not_those_in_use(tmp_path: Path) -> None:
    def names() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    stores = {}
    for age_s, key in ((300, "oldest"), (200, "older"), (100, "newer")):
        (stores[key],) = open_stores(tmp_path, 1, [content(key, 100)])
        for sample_idx in range(100):
            stores[key].write(sample_idx, torch.ones((3, 4, 6), dtype=torch.uint8))
        os.utime(tmp_path / f"{key}{SUFFIX}", (1e9 - age_s, 1e9 - age_s))
    (tmp_path / "notes.txt").write_text("not ours")
    stores["older"].close()
    stores["newer"].close()

    taken_gb = sum(path.stat().st_blocks * 512 for path in tmp_path.glob(f"*{SUFFIX}")) / 1e9
    (added,) = open_stores(tmp_path, taken_gb, [content("added", 100)])
    assert names() == ["added.images", "newer.images", "notes.txt", "oldest.images"]
    assert added.num_kept == 100
    added.close()
    (again,) = open_stores(tmp_path, 0, [content("again")])
    assert names() == ["notes.txt", "oldest.images"]
    assert (again.num_kept, again.num_bytes) == (0, 0)
    assert torch.equal(stores["oldest"].read(0), torch.ones((3, 4, 6), dtype=torch.uint8))
    stores["oldest"].close()


def test_what_a_run_has_still_to_fill_is_not_given_to_another(tmp_path: Path) -> None:
    """Two runs that fill theirs at the same time would take twice the budget else."""
    (first,) = open_stores(tmp_path, 1, [content("first", 1000)])
    budget_gb = 1.5 * first.num_bytes / 1e9
    (second,) = open_stores(tmp_path, budget_gb, [content("second", 1000)])
    assert 0 < second.num_kept < 600
    second.close()
    # Once no run fills it any more, it takes what is in it: nothing.
    first.close()
    (second,) = open_stores(tmp_path, budget_gb, [content("second", 1000)])
    assert second.num_kept == 1000
    second.close()


def test_opening_a_store_counts_as_using_it(tmp_path: Path) -> None:
    path = tmp_path / f"used{SUFFIX}"
    path.touch()
    os.utime(path, (1, 1))
    (store,) = open_stores(tmp_path, None, [content("used")])
    store.close()
    assert path.stat().st_mtime > 1e9


def test_without_a_budget_half_of_the_free_disk_is_taken_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def num_kept(free_bytes: int, budget_gb: float | None) -> int:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))
        (store,) = open_stores(tmp_path, budget_gb, [content("a", 1000)])
        store.close()
        # What is named is what was given.
        assert (
            store.num_kept == min((find_budget(tmp_path, SUFFIX, budget_gb) - 4 * 1000) // IMAGE_BYTES, 1000)
            or not free_bytes
        )
        return store.num_kept

    assert num_kept(2 * 500 * IMAGE_BYTES + 2 * 4 * 1000, None) == 500
    assert num_kept(10**10, None) == 1000
    assert num_kept(0, None) == 0
    assert num_kept(10**9 + 300 * IMAGE_BYTES + 4 * 1000, 100) == 300, "a run must be able to save its checkpoints"
    monkeypatch.setattr("trainer.record_store.MAX_CHOSEN_BYTES", 400 * IMAGE_BYTES + 4 * 1000)
    assert num_kept(10**10, None) == 400


def test_the_first_contents_get_room_first(tmp_path: Path) -> None:
    budget_gb = 15 * (IMAGE_BYTES + 4) / 1e9
    stores = open_stores(tmp_path, budget_gb, [content("a", 10), content("b", 10), content("c", 0)])
    assert [store.num_kept for store in stores] == [10, 4, 0]
    for store in stores:
        store.close()


def test_a_folder_that_cannot_be_made_means_that_nothing_is_kept(
    scanned: ScannedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    data = loaded(scanned, store_dir=tmp_path / "file" / "store")
    assert (data.num_kept, data.store_bytes, data.store_budget_bytes) == (0, 0, 0)
    assert digests(data.train_batches(0)) == digests(loaded(scanned).train_batches(0))
    assert "Decoded images are not kept" in caplog.text
