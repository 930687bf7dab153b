"""The batches of a live run: images for the whole model, or features for what comes behind the cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from trainer.data.stream import Stream
from trainer.feature_store import FeatureStore, LostFeatures
from trainer.optim import autocast

_IMAGE_DIM = 4


@dataclass(frozen=True)
class ModelBatch:
    """What a step is made from.

    Attributes:
        target: The task's targets, on the run's device.
        model: The whole model, or what comes behind the cut.
        inputs: Returns what the model takes, on the device; computes features where they are not there yet. A
            torch.OutOfMemoryError of that leaves it to be called again.

    """

    target: Tensor
    model: nn.Module
    inputs: Callable[[], tuple[Tensor, ...]]

    def __len__(self) -> int:
        return len(self.target)

    @classmethod
    def of_images(cls, model: nn.Module, images: Tensor, target: Tensor, device: torch.device) -> ModelBatch:
        """Return a batch of images for a whole model: float32 (B, 3, H, W)."""
        return cls(target.to(device, non_blocking=True), model, lambda: (images.to(device, non_blocking=True),))


@dataclass(frozen=True)
class FrozenPart:
    """Computes what the frozen part of a model gives, for a fixed number of images at once.

    The number of images that a model takes at once, and it alone, changes its roundings: so they are the same whatever
    batch an image is in, and however many of it are there already.

    Attributes:
        module: From images, or from what an earlier cut gave, to a tuple of features.
        num_at_once: How many images it takes at once, always.
        precision: Of its arithmetic.
        device: Where it is.
        is_halved: Whether 32-bit features are kept in 16 bits.
        is_channels_last: Whether what comes behind wants features of images with the channels of a pixel side by side.
        is_passing: Whether features are not kept, and so need not leave the device.

    """

    module: nn.Module
    num_at_once: int
    precision: str
    device: torch.device
    is_halved: bool
    is_channels_last: bool = False
    is_passing: bool = False

    def compute(self, *given: Tensor) -> list[Tensor]:
        """Return features as they are kept, a row for each of what is given: on the CPU, unless they only pass."""
        parts = zip(*(torch.split(tensor, self.num_at_once) for tensor in given), strict=True)
        computed = [self._at_once(part) for part in parts]
        return [torch.cat(each) if len(each) > 1 else each[0] for each in zip(*computed, strict=True)]

    def as_kept(self, feature: Tensor) -> Tensor:
        """Return a tensor of features as it is kept."""
        place = feature.device if self.is_passing else "cpu"
        if not (self.is_halved and feature.dtype == torch.float32):
            return feature.to(place)
        # What is beyond the range of 16 bits would be infinite there.
        most = torch.finfo(torch.float16).max
        in_range = torch.where(feature.isinf(), feature, feature.clamp(-most, most))
        return in_range.to(place, torch.float16)

    def as_given(self, kept: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return kept features as the rest of the model takes them, on the device."""
        return tuple(map(self._given, kept))

    def _given(self, kept: Tensor) -> Tensor:
        is_widened = self.is_halved and kept.dtype == torch.float16
        is_last = self.is_channels_last and kept.ndim == _IMAGE_DIM
        return kept.to(
            self.device,
            torch.float32 if is_widened else kept.dtype,
            non_blocking=True,
            memory_format=torch.channels_last if is_last else torch.preserve_format,
        )

    def _at_once(self, part: tuple[Tensor, ...]) -> list[Tensor]:
        num, rest = len(part[0]), self.num_at_once - len(part[0])
        filled = [torch.cat([each, each[-1:].expand(rest, *each.shape[1:])]) if rest else each for each in part]
        with torch.no_grad(), autocast(self.precision, self.device):
            features = self.module(*(each.to(self.device, non_blocking=True) for each in filled))
        return [self.as_kept(feature[:num]) for feature in features]


@dataclass(frozen=True)
class Earlier:
    """What an earlier cut has left: its features, and what leads from them to those of the present one."""

    store: FeatureStore
    part: FrozenPart


@dataclass(frozen=True)
class CachedSplit:
    """The images of one split, whose features are kept: those of all views of all of them.

    Attributes:
        stream: The images.
        targets: Their targets, by index.
        views: Number of views of each.
        store: Their features, those of a view after those of the one before it.
        part: What computes them.
        suffix: What takes them.
        give_up: Called where features are not kept any longer after all.
        earlier: What is computed from the features of an earlier cut, where these are there.

    """

    stream: Stream
    targets: Tensor
    views: int
    store: FeatureStore
    part: FrozenPart
    suffix: nn.Module
    give_up: Callable[[], None]
    earlier: Earlier | None = None

    @property
    def num_images(self) -> int:
        """Return the number of images."""
        return len(self.targets)

    def batches(
        self, indexes: Tensor, batch_size: int, view: int, tell_images_per_s: Callable[[float], None] | None = None
    ) -> Iterator[ModelBatch]:
        """Yield batches of one view of the images. Starting anew ends an earlier iterator. Raises as a Stream.

        Args:
            indexes: Those of all batches, one after another: int64, shape (N,).
            batch_size: Images in a batch; the last one has the rest.
            view: Which one.
            tell_images_per_s: As for a Stream.

        """
        if not len(indexes):
            return
        # For all batches at once: in a step on cached features, either would take a part of it.
        places = torch.split(view * self.num_images + indexes, batch_size)
        all_targets = self.targets.index_select(0, indexes).to(self.part.device, non_blocking=True)
        targets = torch.split(all_targets, batch_size)
        missing = _missing(self.store, places)
        to_load = [[place for place in each if not self._is_left(place)] for each in missing]
        images = self.stream.batches([self._keys(each) for each in to_load if each], tell_images_per_s)
        for target, at, new, loaded in zip(targets, places, missing, to_load, strict=True):
            inputs = partial(self._inputs, at, new, loaded, next(images)[0] if loaded else None)
            yield ModelBatch(target, self.suffix, inputs)

    def _inputs(self, places: Tensor, new: list[int], loaded: list[int], images: Tensor | None) -> tuple[Tensor, ...]:
        """Return features. Of the ``new`` ones, ``loaded`` are computed from ``images``, the rest from earlier ones."""
        if images is not None:
            self._put(loaded, self.part.compute(images))
        moved = [place for place in new if place not in set(loaded)]
        try:
            if moved and self.earlier is not None:
                rows = self.earlier.store.take(torch.tensor(moved))
                self._put(moved, self.earlier.part.compute(*self.part.as_given(rows)))
            return self.part.as_given(self.store.take(places))
        except LostFeatures:
            # What was on the disk is broken: as rare as that is, the whole batch may be computed anew.
            features = self.part.compute(self.stream.load(self._keys(places.tolist())))
            self.store.put(places, features)
            if not self.store.is_kept(places):
                self.give_up()
            return self.part.as_given(features)

    def _put(self, places: list[int], features: list[Tensor]) -> None:
        self.store.put(torch.tensor(places), features)

    def _is_left(self, place: int) -> bool:
        return self.earlier is not None and bool(self.earlier.store.known[place])

    def _keys(self, places: list[int]) -> list[tuple[int, int]]:
        """Return the keys (view, index) of places in the store."""
        return [divmod(place, self.num_images) for place in places]


def _missing(store: FeatureStore, batches: Sequence[Tensor]) -> list[list[int]]:
    """Return for each batch the places whose features are to be computed for it, as no batch before it does."""
    if not store.is_keeping:
        return [list(dict.fromkeys(places.tolist())) for places in batches]
    if store.known.all():
        return [[] for _ in batches]
    by_then = store.known.clone()
    missing = []
    for places in batches:
        # One that comes twice is computed once.
        new = list(dict.fromkeys(places[~by_then[places]].tolist()))
        by_then[new] = True
        missing.append(new)
    return missing
