"""Finding the same file and nearly the same picture more than once, among as many images as a data set has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.data.file_facts import FileFacts

MAX_DISTANCE = 6
"""Bits of 64 in which the hashes of nearly the same picture may differ.

Measured on 250 made-up pictures of smooth color, shapes, text and noise: 95 of 100 copies as a JPEG of quality 50, at
half or double size or brightened by a fifth are within 4 bits of the original, cropped by 2 % on each side within 7;
of 31,125 pairs of different pictures none are within 7.
"""

MAX_ASPECT_RATIO = 1.1
"""How much wider, at the same height, one of two nearly the same pictures may be."""

_NUM_BANDS = 4
_BAND_BITS = 16
_SHORT = 16
_NUM_LEADERS = 8
_CANDIDATES_AT_ONCE = 1_000_000

Indexes = NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Two images that are the same, or nearly.

    Attributes:
        first_idx: Position of the earlier one in the list of facts.
        second_idx: Position of the later one.
        is_same_file: Whether they hold the same bytes, and not only nearly the same picture.

    """

    first_idx: int
    second_idx: int
    is_same_file: bool


def find_pairs(facts: Sequence[FileFacts], max_distance: int = MAX_DISTANCE) -> list[Pair]:
    """Pair each image that came before, as the same file or as nearly the same picture, with the first such one.

    So n copies, or a burst of n photographs, give n - 1 pairs. A copy of a file takes no part in the search for nearly
    the same pictures: the first of its kind does. Files that no run reads are left out.

    Args:
        facts: What is known of each image, in the order of the data set.
        max_distance: Number of bits, of 64, in which two picture hashes may differ; at most 7.

    Returns:
        The pairs in the order of their first images.

    """
    groups = content_groups(facts)
    pairs = [
        Pair(group, idx, is_same_file=True)
        for idx, group in enumerate(groups)
        if group != idx and not facts[idx].reason
    ]
    looked_at = [idx for idx, found in enumerate(facts) if groups[idx] == idx and found.picture_hash is not None]
    hashes = np.array([facts[idx].picture_hash for idx in looked_at], dtype=np.uint64)
    log_aspects = np.array([math.log(facts[idx].width / facts[idx].height) for idx in looked_at])
    first_near = _first_near(hashes, log_aspects, max_distance)
    pairs += [
        Pair(looked_at[first], looked_at[second], is_same_file=False)
        for second, first in enumerate(first_near.tolist())
        if first < second
    ]
    return sorted(pairs, key=lambda pair: (pair.first_idx, pair.second_idx))


def content_groups(facts: Sequence[FileFacts]) -> list[int]:
    """Return a number for each file: that of the first one with the same bytes, so its own where there is none."""
    first_of: dict[str, int] = {}
    return [
        first_of.setdefault(found.content_hash, idx) if found.content_hash else idx for idx, found in enumerate(facts)
    ]


def _first_near(hashes: NDArray[np.uint64], log_aspects: NDArray[np.float64], max_distance: int) -> Indexes:
    """Return, for each of n hashes, the position of the first near one: its own where there is none before it.

    Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR
    2012): of two hashes that differ in at most 7 bits, one of their 4 bands of 16 bits differs in at most 1.
    """
    assert max_distance < 2 * _NUM_BANDS, "all bands could differ in two bits, and the pair be missed"
    first_near = np.arange(len(hashes))
    buckets = [_Buckets(band) for band in _bands(hashes)]

    def compare(firsts: Indexes, seconds: Indexes) -> None:
        is_near = np.bitwise_count(hashes[firsts] ^ hashes[seconds]) <= max_distance
        is_near &= np.abs(log_aspects[firsts] - log_aspects[seconds]) <= math.log(MAX_ASPECT_RATIO)
        np.minimum.at(first_near, seconds[is_near], firsts[is_near])

    # What is like the first of its bucket need not be compared with all that come between, as in 10,000 frames of
    # one film.
    for bucket in buckets:
        for firsts, seconds in bucket.candidates(0, first_near, _NUM_LEADERS):
            compare(firsts, seconds)
    for bucket in buckets:
        for flipped in (0, *(1 << bit for bit in range(_BAND_BITS))):
            for firsts, seconds in bucket.candidates(flipped, first_near):
                compare(firsts, seconds)
    return first_near


def _bands(hashes: NDArray[np.uint64]) -> list[Indexes]:
    """Return 4 bands of n hashes, each as n numbers of 16 bits.

    Every fourth bit: with neighbouring ones, all pictures with a plain border would share a band.
    """
    bits = np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).astype(np.int64)
    return [bits[:, band::_NUM_BANDS] @ (1 << np.arange(_BAND_BITS)) for band in range(_NUM_BANDS)]


class _Buckets:
    """The positions of n hashes by the number that they have in one band."""

    def __init__(self, numbers: Indexes) -> None:
        self._numbers = numbers
        # Sorted by number, and by position where that is the same.
        self._members = np.argsort(numbers, kind="stable")
        self._keys = numbers[self._members] * len(numbers) + self._members
        self._starts = np.concatenate(([0], np.cumsum(np.bincount(numbers, minlength=1 << _BAND_BITS))))

    def candidates(
        self, flipped: int, before: Indexes, max_each: int | None = None
    ) -> Iterator[tuple[Indexes, Indexes]]:
        """Yield (firsts, seconds) with firsts[k] < before[seconds[k]] and numbers that differ in the bits ``flipped``.

        Args:
            flipped: The bits, as a number.
            before: For each of the n hashes, the position before which a first one is looked for.
            max_each: How many firsts are given for each second at most: the earliest.

        """
        sought = self._numbers ^ flipped
        starts, ends = self._starts[sought], self._starts[sought + 1]
        long = np.flatnonzero(ends - starts > _SHORT)
        ends[long] = np.searchsorted(self._keys, sought[long] * len(self._numbers) + before[long])
        if max_each is not None:
            ends = np.minimum(ends, starts + max_each)
        seconds = np.flatnonzero(ends > starts)
        ends_of_output = np.cumsum(ends[seconds] - starts[seconds])
        for some in np.split(seconds, np.searchsorted(ends_of_output, _splits(ends_of_output))):
            counts = ends[some] - starts[some]
            repeated = np.repeat(some, counts)
            offsets = np.arange(len(repeated)) - np.repeat(np.cumsum(counts) - counts, counts)
            firsts = self._members[starts[repeated] + offsets]
            is_before = firsts < before[repeated]
            yield firsts[is_before], repeated[is_before]


def _splits(cumulative: Indexes) -> Indexes:
    """Return where to cut running totals into pieces of about _CANDIDATES_AT_ONCE."""
    return np.arange(_CANDIDATES_AT_ONCE, cumulative[-1] if len(cumulative) else 0, _CANDIDATES_AT_ONCE)
