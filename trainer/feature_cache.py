"""The feature cache of a live run: what its frozen layers give for an image is computed once, and then read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trainer.data.stream import Batch, Stream
from trainer.environment import environment
from trainer.feature_batches import CachedSplit, Earlier, FrozenPart, ModelBatch
from trainer.feature_cut import Cut, CutError, CutFinder, NoCut, agrees
from trainer.feature_store import FeatureContent, FeatureStore, open_stores
from trainer.memory import give_memory_back
from trainer.messages.events import FeaturesCached, LogWritten
from trainer.messages.model_info import MIN_SAVED_SHARE
from trainer.optim import autocast

if TYPE_CHECKING:
    from trainer.live_run import LiveRun

_FORMAT = 1
_PROBE_SEED = 0
_PROBE_SIZE = 4


class FeatureCache:
    """Decides at each change what of a run's model is computed once an image, and makes the run's batches.

    While all that is before a cut is frozen, an image comes in as many fixed views as the run says, those of its first
    epochs; otherwise in a new one in each epoch. So what a step is made from depends on the configuration, the freeze
    set, the epoch and the batch alone, and a resume meets the same: also where there is no room for features, so that
    each step computes them.

    Attributes:
        views: Number of fixed views of a training image; 0: each epoch has a new one.
        other_views: Says in what other views than before the images came since a state was put back, "" for none.

    """

    def __init__(self, run: LiveRun, folder: Path | None) -> None:
        """Describe the cache; nothing is computed yet.

        Args:
            run: The run.
            folder: Where features are kept, those of all runs; None keeps them in memory alone.

        """
        self._run = run
        self._folder = folder
        self._finder: CutFinder | None = None
        self._followed: tuple[int, int, int | None] | None = None
        self._key = self._used = ""
        self._wanted = 0
        self._cut: Cut | None = None
        self._train: CachedSplit | None = None
        self._validation: CachedSplit | None = None
        self._has_let_go = False
        self._proven: dict[tuple[str, int], list[Tensor]] = {}
        self._reason = ""
        self._told_as: tuple[int, str, int, str] | None = None
        self._expected: tuple[int, int | None] = (-1, None)
        self.other_views = ""
        self._noted: list[tuple[int, int]] | None = None
        self._to_take: Sequence[tuple[int, int]] | None = None
        self._told: FeaturesCached | None = None

    @property
    def views(self) -> int:
        """Return the number of fixed views of a training image; 0: each epoch has a new one."""
        return 0 if self._train is None else self._train.views

    @property
    def views_of_state(self) -> int | None:
        """Return ``views`` for the present freeze set; None where that is not found out yet."""
        num_changes = self._run.freeze_set.num_changes
        if self._followed is not None and self._followed[0] == num_changes:
            return self.views
        return self._expected[1] if self._expected[0] == num_changes else None

    @property
    def told(self) -> FeaturesCached | None:
        """Return what was told last of what is cached; None before there was anything to tell."""
        return self._told

    def known_share(self, epoch: int) -> float | None:
        """Return the share of an epoch's training features that are there, 0 to 1; None where they are not kept."""
        if self._train is None or not self._train.store.is_keeping:
            return None
        start = epoch % self._train.views * self._train.num_images
        return float(self._train.store.known[start : start + self._train.num_images].float().mean())

    def follow(self) -> bool:
        """Bring the cut up to date with what is frozen. Returns whether the batches are others by that."""
        run = self._run
        if run.config.training.feature_cache == "off":
            return False
        state, are_others = (run.freeze_set.num_changes, run.batch_parts, self._views_to_take()), False
        if state != self._followed:
            before, self._followed = self._batches_are_of(), state
            self._reason = self._find_cut()
            expected = self._expected[1] if run.freeze_set.num_changes == self._expected[0] else None
            if expected is not None and self.views != expected:
                self._tell_other_views(expected)
            are_others = self._batches_are_of() != before
        # What began in a trial goes on after it. Each piece of the curve tells of its own: what the piece before it
        # told last may have been told after the state that this one goes on from.
        if self._told_as != (run.segment, self._key, self.views, self._reason) and not run.is_on_trial:
            self._tell()
        return are_others

    def _batches_are_of(self) -> tuple[str, int, int | None]:
        """Return what all training batches are of, but for the epoch."""
        return self._key, self.views, None if self._followed is None else self._followed[2]

    @contextmanager
    def noting_views(self) -> Iterator[list[tuple[int, int]]]:
        """Return a list of (step, number of views), which tells of what is trained inside from when on what was so."""
        self._noted = []
        try:
            yield self._noted
        finally:
            self._noted = None

    @contextmanager
    def taking_views(self, noted: Sequence[tuple[int, int]]) -> Iterator[None]:
        """Have images come inside in the views that ``noting_views`` noted, whatever of the model is frozen."""
        self._to_take = noted
        try:
            yield
        finally:
            self._to_take = None

    @property
    def passed_up(self) -> str:
        """Name the layers whose features of training images are kept where ``taking_views`` does not forbid it."""
        if self._cut is None or self.views or not self._to_take or not self._run.config.data.fixed_views:
            return ""
        return self._run.freeze_set.describe_range(self._cut.layers)

    def computed_share(self) -> float:
        """Return the share of a run's arithmetic that is left where there is room for what is kept, 0 to 1.

        As predicted at its start: of a forward pass s is saved; and a backward pass takes as long as two of the rest.
        """
        run, views = self._run, self._run.config.data.fixed_views
        # What a plan unfreezes later is computed again.
        if run.config.training.feature_cache == "off" or run.config.plan or not 0 < views < run.num_epochs:
            return 1.0
        # Of its own: in another form of computing, the model may be another graph.
        cut = self._new_finder().find()
        if isinstance(cut, NoCut) or cut.saved_share < MIN_SAVED_SHARE:
            return 1.0
        saved = cut.saved_share / (3 - 2 * cut.saved_share)
        return 1 - (1 - views / run.num_epochs) * saved

    def expect_views(self, views: int | None) -> None:
        """Have it said where a state that was just put back trained on another number of views than it does here."""
        self._expected = (self._run.freeze_set.num_changes, views)

    def close(self) -> None:
        """Close the files."""
        for split in (self._train, self._validation):
            if split is not None:
                split.store.close()

    def train_batches(self, epoch: int, start_batch: int = 0) -> Iterator[ModelBatch]:
        """Return the training batches of an epoch, from ``start_batch`` on. Raises as ImageData's."""
        self.follow()
        self._let_go()
        data, train = self._run.data, self._train
        if self._noted is not None:
            self._noted.append((self._run.step, self.views))
        if train is None:
            views = self._views_to_take()
            view = epoch % views if views else None
            return self._of_images(data.train_batches(epoch, start_batch, view), self._run.module)
        indexes, tell = data.sampler.indexes(epoch, start_batch), partial(data.tell_images_per_s, epoch)
        return train.batches(indexes, self._run.config.training.batch_size, epoch % train.views, tell)

    def validation_batches(self) -> Iterator[ModelBatch]:
        """Return the validation batches. Raises as ImageData's."""
        self.follow()
        self._let_go()
        data, validation = self._run.data, self._validation
        if validation is None:
            return self._of_images(data.validation_batches(), self._run.module)
        return validation.batches(torch.arange(validation.num_images), self._run.config.training.batch_size, view=0)

    def test_batches(self, module: nn.Module) -> Iterator[ModelBatch]:
        """Return the test batches for a copy of the model, of other weights perhaps: they are evaluated only once."""
        return self._of_images(self._run.data.test_batches(), module)

    def _of_images(self, batches: Iterator[Batch], module: nn.Module) -> Iterator[ModelBatch]:
        return (ModelBatch.of_images(module, *batch, self._run.device) for batch in batches)

    # -- the cut ----------------------------------------------------------------------------------------------

    def _find_cut(self) -> str:
        """Cut the model for what is frozen now. Returns why nothing is cached, or not all; "" where all is."""
        run = self._run
        if self._finder is None:
            self._finder = self._new_finder()
        cut = self._finder.find()
        if isinstance(cut, NoCut):
            return self._drop(cut.reason)
        if cut.saved_share < MIN_SAVED_SHARE:
            return self._drop(f"Only {cut.saved_share:.1%} of a forward pass is before the first layer that learns.")
        part = self._frozen_part(cut.prefix)
        key = self._key_of(cut, part)
        if key == self._key and self._wanted == self._wanted_views():
            return self._reason
        try:
            rows = self._prove(cut, part)
        except CutError as error:
            return self._drop(str(error))
        way = None if key == self._key else self._way_to(cut, part)
        if run.compilation is not None:
            run.compilation.add(cut.suffix)
        self._key, self._cut, self._used = key, cut, run.freeze_set.fingerprint(cut.used)
        return self._open(rows, part, way)

    def _new_finder(self) -> CutFinder:
        run, size = self._run, self._run.data.preprocessing.image_size
        return CutFinder(run.module, run.freeze_set, torch.empty((2, 3, size, size), device="meta"))

    def _frozen_part(self, module: nn.Module) -> FrozenPart:
        run, training = self._run, self._run.config.training
        num_at_once = -(-min(training.batch_size, run.data.num_train) // run.batch_parts)
        return FrozenPart(
            module,
            num_at_once,
            run.precision,
            run.device,
            is_halved=training.feature_precision == "half",
            is_channels_last=run.compute.form.channels_last,
        )

    def _way_to(self, cut: Cut, part: FrozenPart) -> FrozenPart | None:
        """Return what leads from the features that are there to those of another cut, if it gives them to the bit."""
        before = self._train or self._validation
        if self._finder is None or self._cut is None or before is None:
            return None
        if part.is_halved or replace(before.part, module=part.module) != part:
            return None
        if self._run.freeze_set.fingerprint(self._cut.used) != self._used:
            return None
        way = self._finder.between(self._cut, cut)
        return None if way is None else replace(part, module=way)

    def _drop(self, reason: str) -> str:
        self._leave_stores()
        self._key, self._used, self._cut = "", "", None
        return reason

    def _leave_stores(self) -> None:
        self._has_let_go |= self._train is not None or self._validation is not None
        self.close()
        self._train = self._validation = None

    def _let_go(self) -> None:
        """Let go of the features of an earlier cut, once nothing is left to be computed from them.

        To be called where no batches are under way: they hold them still.
        """
        self._train, self._validation = self._without_earlier(self._train), self._without_earlier(self._validation)
        if self._has_let_go:
            self._has_let_go = False
            give_memory_back()

    def _without_earlier(self, split: CachedSplit | None) -> CachedSplit | None:
        if split is None or split.earlier is None or not split.store.known.all():
            return split
        split.earlier.store.close()
        self._has_let_go = True
        return replace(split, earlier=None)

    def _give_up_disk(self) -> None:
        """Have it decided anew, at the next boundary, what there is room for without the disk."""
        self._followed, self._key, self._folder = None, "", None

    def _key_of(self, cut: Cut, part: FrozenPart) -> str:
        """Return what features depend on, but for the images."""
        said = (
            _FORMAT,
            # Another machine's processor, GPU or libraries round otherwise.
            sorted(environment(part.device, self._run.compute).items()),
            self._run.config.training.deterministic,
            cut.prefix.code,
            self._run.freeze_set.fingerprint(cut.used),
            part.is_halved,
            part.num_at_once,
        )
        return hashlib.sha256(repr(said).encode()).hexdigest()

    def _prove(self, cut: Cut, part: FrozenPart) -> list[Tensor]:
        """Prove on a batch that the cut changes nothing, once. Returns a row of each tensor that is to be kept.

        Raises:
            CutError: It does.

        """
        run, size = self._run, self._run.data.preprocessing.image_size
        place = (cut.prefix.code, run.batch_parts)
        if place in self._proven:
            return self._proven[place]
        generator = torch.Generator().manual_seed(_PROBE_SEED)
        probe = torch.randn((max(_PROBE_SIZE, part.num_at_once), 3, size, size), generator=generator).to(run.device)
        was_training = run.module.training
        try:
            for training in (True, False):
                run.freeze_set.set_mode(training=training)
                with autocast(run.precision, run.device):
                    agrees(cut, run.module, probe[:_PROBE_SIZE])
        finally:
            run.freeze_set.set_mode(training=was_training)
        features = part.compute(probe)
        # In its own place: this is where a run of a frozen backbone holds the most memory.
        probe = probe.flip(0)
        turned = part.compute(probe)
        if any(not torch.equal(row, other.flip(0)) for row, other in zip(features, turned, strict=True)):
            text = (
                "On this device, what the frozen layers give for an image is rounded otherwise at another place of its "
                "batch: with cached features a resume may differ in the last digits."
            )
            run.tell(LogWritten(level="warning", text=text))
        self._proven[place] = [feature[0] for feature in features]
        return self._proven[place]

    def _open(self, rows: list[Tensor], part: FrozenPart, way: FrozenPart | None) -> str:
        """Open the stores of both splits, where there is room. Returns why training's are not kept, or ""."""
        run, data, training, views = self._run, self._run.data, self._run.config.training, self._wanted_views()
        self._wanted = views
        contents = [
            self._content("train", views, data.num_train * views),
            self._content("validation", 1, data.num_validation),
        ]
        if way is None:
            self._leave_stores()
        left = [split.store for split in (self._train, self._validation) if split is not None]
        train, validation = open_stores(
            self._folder, contents, rows, training.feature_disk_gb, training.feature_memory_gb, left
        )
        assert self._cut is not None
        make = partial(CachedSplit, suffix=self._cut.suffix, give_up=self._give_up_disk)

        def split(
            stream: Stream, views: int, store: FeatureStore | None, before: CachedSplit | None
        ) -> CachedSplit | None:
            if store is None:
                return None
            earlier = Earlier(before.store, way) if before is not None and way is not None else None
            its_part = replace(part, is_passing=not store.is_keeping)
            return make(stream, stream.targets(), views, store, its_part, earlier=earlier)

        self._train = split(data.train, views, train, self._train)
        self._validation = split(data.validation, 1, validation, self._validation)
        if not views and run.config.data.mixing != "none":
            return "Training's images are mixed with each other, so that only validation's features are kept."
        if not views:
            return "Each epoch has a new view of each training image, so that only validation's features are kept."
        if train is not None and not train.is_keeping:
            needed_gb = sum(row.nbytes for row in rows) * contents[0].num_places / 1e9
            return (
                f"The features of the training images would take {needed_gb:.1f} GB, for which there is neither "
                "memory nor disk: each step computes them. Choose fewer views, or give the feature cache more room."
            )
        return ""

    def _views_to_take(self) -> int | None:
        """Return in how many views images are to come at this step, None: as the configuration says."""
        if self._to_take is None:
            return None
        return next((views for step, views in reversed(self._to_take) if step <= self._run.step), 0)

    def _wanted_views(self) -> int:
        to_take = self._views_to_take()
        return self._run.config.data.fixed_views if to_take is None else to_take

    def _content(self, split: str, views: int, num_places: int) -> FeatureContent:
        said = f"{self._key} {self._run.data.identities[split]} {views}"
        return FeatureContent(hashlib.sha256(said.encode()).hexdigest(), num_places)

    def _tell_other_views(self, before: int) -> None:
        is_same_image = self._run.config.data.augmentation == "none"

        def said(views: int) -> str:
            if is_same_image:
                return "as features that are kept" if views else "through the whole model"
            return f"in {views} fixed view{'s' * (views > 1)}" if views else "in a new view in each epoch"

        self.other_views = f"its images came {said(before)}, and now come {said(self.views)}"
        text = f"The run does not go on exactly as it was: {self.other_views}. {self._reason}"
        self._run.tell(LogWritten(level="warning", text=text.strip()))

    def _tell(self) -> None:
        run, cut = self._run, self._cut
        self._told_as = (run.segment, self._key, self.views, self._reason)
        stores = [
            split.store for split in (self._train, self._validation) if split is not None and split.store.is_keeping
        ]
        layers = [] if cut is None or not stores else cut.layers
        self._told = FeaturesCached(
            layers=layers,
            sentence=run.freeze_set.describe_range(layers) if layers else "",
            views=self.views if self._train is not None and self._train.store.is_keeping else 0,
            fixed_views=self.views,
            saved_share=0.0 if cut is None or not stores else cut.saved_share,
            num_bytes=sum(store.num_bytes for store in stores),
            is_in_memory=bool(stores) and all(store.is_in_memory for store in stores),
            is_on_disk=bool(stores) and all(store.is_on_disk for store in stores),
            reason=self._reason,
            applied_step=run.step,
            segment=run.segment,
        )
        run.tell(self._told)
