"""CachedLayers: what of the tree is computed only once an image, or could be, and how far that is."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable, Set

from PySide6.QtCore import QCoreApplication

from app.viewmodels.frozen_layers import FrozenLayers
from app.viewmodels.layer_rows import ROOT_ID, LayerRow, LayerRows, RowCounts
from app.viewmodels.quantities import count_text, milliseconds_text, percent_text, size_text
from trainer.config import RunConfig
from trainer.messages.events import FeaturesCached, ProgressReported
from trainer.messages.model_info import MIN_SAVED_SHARE, FrozenFeatures

_RANDOM = re.compile(r"Dropout|StochasticDepth")


class CachedLayers:
    """The layers whose features are cached in a run, or could be in the draft of one; a line in the tree ends them."""

    def __init__(self, rows: LayerRows) -> None:
        self._rows = rows
        self._positions = {row.id: position for position, row in enumerate(rows.in_order())}
        self._counts = RowCounts(rows)
        self.told: FeaturesCached | None = None
        """What the worker said last of the run."""
        self.offered: FrozenFeatures | None = None
        """What a run could cache that begins with what is frozen in the draft."""
        self._units: set[str] = set()
        self._end = 0
        self._exceptions: list[str] = []
        self._filling_epoch = -1
        self.share: float | None = None
        """How much of the present view of the training images is there, 0 to 1; None where it is not kept."""
        self.is_reading = False
        """Whether the steps read features, and compute none."""
        self.computing_ms: float | None = None
        """What a step took that computed its features; None where none was measured."""

    # -- what comes in ----------------------------------------------------------------------------------------

    def take(self, told: FeaturesCached) -> None:
        """Take what the worker caches from now on."""
        self.told, self.offered = told, None
        self._begin_anew()
        self._set_units(told.layers)

    def offer(self, features: FrozenFeatures | None) -> None:
        """Take what a run could cache that begins with what is frozen in the draft; None where that is not known."""
        self.told, self.offered = None, features
        self._begin_anew()
        self._set_units([] if features is None else features.units)

    def follow(self, progress: ProgressReported) -> None:
        """Take how far the features are there, and what a step takes meanwhile."""
        self.share = progress.cached_share
        if self.share is None:
            self.is_reading = False
        elif self.share < 1:
            self.is_reading, self._filling_epoch = False, progress.epoch
            self.computing_ms = progress.step_ms or self.computing_ms
        elif progress.epoch > self._filling_epoch:
            # Complete from its beginning: the epoch that completes them has computed some.
            self.is_reading = True

    # -- where the line is ------------------------------------------------------------------------------------

    def is_shown(self, frozen: FrozenLayers) -> bool:
        """Return whether there is a line. What is unfrozen ends it at once, before the worker has said so."""
        atoms = self._counts.atoms
        return bool(atoms) and atoms <= frozen.atoms and frozen.adapting.isdisjoint(self._units)

    def is_above(self, row_id: int) -> bool:
        """Return whether a row stands above the line where all rows are in sight."""
        return self._positions[row_id] <= self._end

    def is_whole(self, row_id: int) -> bool:
        """Return whether all layers at and below a row, if it has some, are cached."""
        row = self._rows[row_id]
        return bool(row.atoms) and self._counts.of(row_id) == len(row.atoms)

    # -- in words ---------------------------------------------------------------------------------------------

    @property
    def is_offer(self) -> bool:
        """Return whether it only could be so."""
        return self.told is None

    def views(self, config: RunConfig) -> int:
        """Return how many views of a training image come in turn in a run; 0: each epoch has a new one.

        Of one that has not begun, as it would be where its features can be cached.
        """
        if self.told is not None:
            return self.told.fixed_views
        is_offered = self.offered is not None and self.offered.saved_share >= MIN_SAVED_SHARE
        return config.data.fixed_views if is_offered and config.training.feature_cache == "auto" else 0

    def label(self, row_id: int) -> str:
        """Return the words on the line, where ``row_id`` is the last row in sight above it."""
        is_part = not self.is_whole(row_id) and not self.is_above_all_of(row_id)
        if self.is_offer:
            text = _tr("can be cached in part") if is_part else _tr("can be cached above")
        elif self.told is not None and not self.told.views:
            text = _tr("validation cached in part") if is_part else _tr("validation cached above")
        else:
            text = _tr("cached in part") if is_part else _tr("cached above")
        if not self._exceptions or is_part:
            return text
        if len(self._exceptions) == 1:
            return _tr("{}, but not {}").format(text, self._exceptions[0])
        return _tr("{}, but for {} layers").format(text, count_text(len(self._exceptions)))

    def is_above_all_of(self, row_id: int) -> bool:
        """Return whether the line comes after all that is below a row."""
        below = max(self._positions[row.id] for row in self._rows.in_order(row_id))
        return below <= self._end

    def explanation(self) -> str:
        """Say what is cached, or could be, and what that takes and saves."""
        parts = [self._offer_text()] if self.told is None else self._told_texts(self.told)
        if self._exceptions:
            parts.append(_tr("Not cached: {}.").format(", ".join(self._exceptions)))
        return "\n".join(filter(None, parts))

    @property
    def reason(self) -> str:
        """Say why nothing is cached, or not all; "" where all is, or nothing is known."""
        if self.told is not None:
            return self.told.reason
        return "" if self.offered is None else self.offered.reason

    @property
    def progress_text(self) -> str:
        """Say how far the features are there: "features cached 62 %", "cached, 31 ms before"; "" without any."""
        if self.share is None or self.told is None:
            return ""
        if not self.is_reading:
            text = _tr("features cached {} %").format(count_text(math.floor(100 * self.share)))
            if self.told.views <= 1:
                return text
            view = self._filling_epoch % self.told.views + 1
            return _tr("{}, view {} of {}").format(text, count_text(view), count_text(self.told.views))
        if self.computing_ms is None:
            return _tr("cached")
        return _tr("cached, {} before").format(milliseconds_text(self.computing_ms))

    # -- inside -----------------------------------------------------------------------------------------------

    def _begin_anew(self) -> None:
        self.share, self.is_reading, self.computing_ms, self._filling_epoch = None, False, None, -1

    def _offer_text(self) -> str:
        offered = self.offered
        if offered is None or not offered.units:
            return ""
        text = _tr(
            "The features of {layers} can be computed once an image and then be read, which saves {share} of the "
            "forward computing. Those of an image take {size}, or {half} in 16 bits."
        )
        return text.format(
            layers=offered.layers,
            share=share_text(offered.saved_share),
            size=size_text(offered.bytes_32),
            half=size_text(offered.bytes_16),
        )

    def _told_texts(self, told: FeaturesCached) -> list[str]:
        if not told.layers:
            return [told.reason]
        if not told.views:
            text = _tr("The features of {layers} are, for validation only, computed once and then read.")
        elif told.views == 1:
            text = _tr("The features of {layers} are computed once an image and then read.")
        else:
            text = _tr("The features of {layers} are computed once for each of {views} views of an image and read.")
        saved = _tr("They take {size} {place}, and save {share} of the forward computing.")
        if not told.views:
            saved = _tr("They take {size} {place}.")
        return [
            text.format(layers=told.sentence, views=count_text(told.views)),
            saved.format(size=size_text(told.num_bytes), place=place_text(told), share=share_text(told.saved_share)),
            told.reason,
        ]

    def _set_units(self, units: list[str]) -> None:
        self._units = self._rows.atoms_of_unit.keys() & set(units)
        self._counts.take({atom for unit in self._units for atom in self._atoms_of(unit)})
        self._end = self._find_end()
        above = {atom for row in self._rows.in_order() if self.is_above(row.id) for atom in row.own_atoms}
        self._exceptions = self._rows.names_of(above - self._counts.atoms)

    def _find_end(self) -> int:
        """Return the position of the last row above the line, 0 for none."""
        end, is_open = 0, False
        around = _with_modules_around(unit for unit in self._rows.units if unit not in self._units)
        for row in self._rows.in_order():
            if row.id == ROOT_ID or (row.atoms and row.children):
                continue
            if row.atoms:
                is_open = self.is_whole(row.id)
            elif row.fqn in around or self._draws(row, around):
                # It holds the head, say, or is the dropout before it.
                is_open = False
            if is_open:
                end = self._positions[row.id]
        return end

    def _draws(self, row: LayerRow, not_cached: Set[str]) -> bool:
        """Return whether a row without anything to freeze draws numbers, as it does where the module around it learns.

        That is the nearest one with parameters, as a freeze set has it.
        """
        if not _RANDOM.search(row.type):
            return False
        around = row.fqn
        while around := around.rpartition(".")[0]:
            if around in self._with_units:
                return around in not_cached
        return not self._units.issuperset(self._rows.units)

    @functools.cached_property
    def _with_units(self) -> Set[str]:
        return _with_modules_around(self._rows.units)

    def _atoms_of(self, unit: str) -> list[str]:
        return self._rows.atoms_of_unit[unit]


def _with_modules_around(units: Iterable[str]) -> Set[str]:
    return {fqn for unit in units for fqn in itertools.accumulate(unit.split("."), "{}.{}".format)}


def share_text(share: float) -> str:
    """Write the share of the computing that is saved: never "100 %" of what is a little less."""
    return percent_text(math.floor(1000 * share) / 1000)


def place_text(told: FeaturesCached) -> str:
    """Say where features are kept."""
    if told.is_in_memory:
        return _tr("in memory and on disk") if told.is_on_disk else _tr("in memory")
    return _tr("on disk") if told.is_on_disk else _tr("partly in memory, partly on disk")


def _tr(text: str) -> str:
    return QCoreApplication.translate("LayerTree", text)
