"""ImageData: the batches of a run's splits, from this process or from loader processes."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from trainer.config import DataConfig, TrainingConfig
from trainer.data.dataset import ImageDataset
from trainer.data.decoding import num_usable_cores
from trainer.data.file_watch import FileWatch
from trainer.data.images import DataError, displayed
from trainer.data.sampler import EpochSampler
from trainer.data.scan import ScannedData, place_in
from trainer.data.store import SUFFIX, DecodedStore, StoreContent, open_stores, store_content
from trainer.data.stream import Batch, Stream
from trainer.data.transforms import ImageTransform, Preprocessing, train_transform, validation_transform
from trainer.messages.data_info import SPLITS
from trainer.record_store import find_budget

SMALL_IMAGE_SIZE = 64
MAX_CHOSEN_WORKERS = 4
MAX_READERS = 8
MIN_PIXELS_FOR_READERS = 75_000
"""In the median: smaller images are decoded sooner than threads have agreed on whose turn it is."""


class ImageData:
    """The images of a run as batches (x, y): float32 (B, 3, H, W), normalized, and class indexes, int64 (B,).

    Where an image may have several classes, y is 1 for each that it has, and 0 for the others: float32 (B, C).

    Attributes:
        class_names: Names of the classes, by index.
        class_counts: Number of training images of each class.
        num_train: Number of training images.
        num_validation: Number of validation images.
        num_test: Number of test images.
        skipped: (path, reason) of the files that no batch will hold.
        preprocessing: How images are made to fit the model.
        batches_per_epoch: Number of training batches in an epoch.
        num_loader_workers: Processes that load images; 0: this one does.
        fingerprint: SHA-256 over the images' relative paths, sizes, classes, splits and hashes, to notice that data
            changed before a resume.
        fingerprints: That, and the one that an earlier Thaw took, without the hashes.
        num_kept: Number of images that are decoded only once, because there is room to keep them.
        store_bytes: What these take on the disk, once all are decoded.
        all_store_bytes: What all images would take there.
        store_budget_bytes: What the decoded images of all runs together may take there.
        images_per_s: Training images a second that loading alone sustains, by epoch; so far, where one is
            going on.
        train: The training images by themselves.
        validation: The validation images by themselves.
        test: The test images by themselves.
        sampler: The order of the training images.
        identities: What tells the images of each split from others, as the model gets them in an epoch.

    """

    def __init__(
        self,
        data: DataConfig,
        training: TrainingConfig,
        preprocessing: Preprocessing,
        scanned: ScannedData,
        store_dir: Path | None = None,
        *,
        is_for_gpu: bool = False,
    ) -> None:
        """Describe the batches; no image is read yet.

        Args:
            data: How images are augmented, how classes are balanced, and what may be kept.
            training: The size of batches, the seed, and the number of loader processes.
            preprocessing: How images are made to fit the model.
            scanned: The images and their splits.
            store_dir: The folder of decoded images, shared by all runs; None keeps none.
            is_for_gpu: Whether batches are to be copied to a GPU.

        Raises:
            DataError: An image of the scan is not there any more.

        """
        parts = {split: [idx for idx, name in enumerate(scanned.splits) if name == split] for split in SPLITS}
        train_classes = [scanned.samples[idx][1] for idx in parts["train"]]
        self.class_names = list(scanned.class_names)
        counts = Counter(class_idx for class_idxs in train_classes for class_idx in class_idxs)
        self.class_counts = [counts[class_idx] for class_idx in range(len(self.class_names))]
        self.num_train, self.num_validation, self.num_test = (len(parts[split]) for split in SPLITS)
        self.skipped = list(scanned.skipped)
        self.preprocessing = preprocessing
        self.num_loader_workers = min(
            _num_workers(training.num_loader_workers, preprocessing.image_size),
            -(-self.num_train // training.batch_size),
        )
        states = _states(scanned)
        self.fingerprints = _fingerprints(scanned, states)
        self.fingerprint = self.fingerprints[0]
        self._watch = FileWatch([path for path, _ in scanned.samples], states)
        labels = [class_idx for (class_idx,) in train_classes] if data.balance == "sampler" else None
        self.sampler = EpochSampler(self.num_train, training.batch_size, training.seed, labels)
        self.batches_per_epoch = self.sampler.num_batches
        self._batch_size = training.batch_size
        transforms = {split: validation_transform(preprocessing) for split in SPLITS}
        transforms["train"] = train_transform(preprocessing, data.augmentation)
        # Room is given in this order: what is loaded most often comes first.
        stores: dict[str, DecodedStore | None] = dict.fromkeys(SPLITS)
        contents = [_content(scanned, states, parts[split], transforms[split]) for split in SPLITS]
        # A store keeps what comes before the random changes and the scaling.
        self.identities = {
            split: f"{content.key} {transforms[split]}" for split, content in zip(SPLITS, contents, strict=True)
        }
        self.identities["train"] += f" {training.seed}"
        if store_dir is not None:
            stores.update(zip(SPLITS, open_stores(store_dir, data.cache_gb, contents), strict=True))
        self._stores = [store for store in stores.values() if store is not None]
        self.num_kept = sum(store.num_kept for store in self._stores)
        self.store_bytes = sum(store.num_bytes for store in self._stores)
        self.store_budget_bytes = 0 if store_dir is None else find_budget(store_dir, SUFFIX, data.cache_gb)
        self.all_store_bytes = sum(store.all_bytes for store in self._stores)
        num_readers = _num_readers(scanned.sides)
        self.train, self.validation, self.test = (
            Stream(
                ImageDataset(
                    [scanned.samples[idx] for idx in parts[split]],
                    transforms[split],
                    training.seed,
                    stores[split],
                    len(self.class_names) if data.task == "multi_label" else None,
                ),
                training.batch_size,
                self.num_loader_workers,
                num_readers,
                is_for_gpu=is_for_gpu,
            )
            for split in SPLITS
        )
        self.images_per_s: dict[int, float] = {}

    def train_batches(self, epoch: int, start_batch: int = 0, view: int | None = None) -> Iterator[Batch]:
        """Yield the training batches of an epoch, from ``start_batch`` on. Starting anew ends an earlier iterator.

        The images are augmented as in the epoch ``view``, None: in this one.

        Raises:
            DataError: An image cannot be read any more, or a loader process is gone.

        """
        keys = list(self.sampler.batches(epoch, start_batch))
        if view is not None:
            keys = [[(view, index) for _, index in batch] for batch in keys]
        return self.train.batches(keys, partial(self.tell_images_per_s, epoch))

    def tell_images_per_s(self, epoch: int, rate: float) -> None:
        """Note how fast the images of an epoch are loaded."""
        self.images_per_s[epoch] = rate

    def validation_batches(self) -> Iterator[Batch]:
        """Yield the validation batches: always the same, without augmentation. Raises as ``train_batches``."""
        return self.validation.batches(self._keys_in_order(self.num_validation))

    def test_batches(self) -> Iterator[Batch]:
        """Yield the test batches, none where there is no test split. Otherwise as ``validation_batches``."""
        return self.test.batches(self._keys_in_order(self.num_test))

    def look_for_changes(self) -> None:
        """Begin to look whether every file is still as it was; a warning names what is not, once.

        Kept copies would hide that: nothing reads the files any more.
        """
        self._watch.look()

    def close(self) -> None:
        """End the loader processes. Batches can be asked for again; that starts new ones."""
        self._watch.end()
        for stream in (self.train, self.validation, self.test):
            stream.close()
        for store in self._stores:
            store.close()

    def _keys_in_order(self, num_samples: int) -> list[list[tuple[int, int]]]:
        return [
            [(0, idx) for idx in range(start, min(start + self._batch_size, num_samples))]
            for start in range(0, num_samples, self._batch_size)
        ]


def _num_workers(asked: int | None, image_size: int) -> int:
    """Choose the number of loader processes, also where all images are kept: a GPU waits for augmentation as well."""
    if asked is not None:
        return asked
    num_cores = num_usable_cores()
    if image_size <= SMALL_IMAGE_SIZE or num_cores <= 2:
        return 0
    return min(MAX_CHOSEN_WORKERS, num_cores - 1)


def _num_readers(sides: Sequence[tuple[int, int]]) -> int:
    """Choose the number of threads that read images where there are no loader processes."""
    pixels = median(width * height for width, height in sides)
    return min(MAX_READERS, num_usable_cores()) if pixels >= MIN_PIXELS_FOR_READERS else 1


def _states(scanned: ScannedData) -> list[os.stat_result]:
    states = []
    for path, _ in scanned.samples:
        try:
            states.append(Path(path).stat())
        except OSError as error:
            raise DataError(
                f"Cannot read {displayed(path)} any more: {error.strerror}. Check the data and try again."
            ) from error
    return states


def _content(
    scanned: ScannedData, states: list[os.stat_result], part: list[int], transform: ImageTransform
) -> StoreContent:
    files = [(scanned.samples[idx][0], states[idx]) for idx in part]
    return store_content(transform, files, [scanned.sides[idx] for idx in part])


def _fingerprints(scanned: ScannedData, states: list[os.stat_result]) -> tuple[str, str]:
    """Return the images' fingerprint, and the one without the hashes."""
    digest = hashlib.sha256()
    rows = (
        (path, class_idxs, split, state.st_size)
        for (path, class_idxs), split, state in zip(scanned.samples, scanned.splits, states, strict=True)
    )
    for path, class_idxs, split, size_bytes in sorted(rows):
        classes = "\0".join(scanned.class_names[class_idx] for class_idx in class_idxs)
        said = f"{place_in(scanned.root, path)}\0{size_bytes}\0{classes}\0{split}\n"
        digest.update(said.encode("utf-8", "surrogateescape"))
    without_hashes = digest.hexdigest()
    for _, sha256 in sorted(zip(scanned.samples, scanned.hashes, strict=bool(scanned.hashes))):
        digest.update(sha256.encode())
    return digest.hexdigest(), without_hashes
