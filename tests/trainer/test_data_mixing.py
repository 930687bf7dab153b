"""Mixing of a batch as a function of seed, epoch and batch, and what evens out classes of different size."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Literal

import pytest
import torch
from torch import Tensor

from trainer.data.mixing import BatchMixer
from trainer.data.sampler import EpochSampler, class_weights

Kind = Literal["mixup", "cutmix"]
KINDS: tuple[Kind, ...] = ("mixup", "cutmix")
UNEQUAL = [0] * 80 + [1] * 15 + [3] * 5
"""Labels of three classes; class 2 has no training image."""


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Return six images of six classes (of seven), each of another colour."""
    x = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([4, 2, 5, 0, 1, 3])


# -- mixing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_shares_tell_how_much_of_each_class_an_image_holds(kind: Kind, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    neighbour, own = x.roll(1, 0), torch.arange(6)
    for number in range(20):
        mixed, shares = BatchMixer(kind, 7, seed=1)(x, y, 2, number)
        assert (shares.shape, shares.dtype, mixed.shape, mixed.dtype) == ((6, 7), torch.float32, x.shape, x.dtype)
        assert torch.allclose(shares.sum(dim=1), torch.ones(6))
        share = shares[0, y[0]]
        assert torch.allclose(shares[own, y], share.expand(6))
        assert torch.allclose(shares[own, y.roll(1)], 1 - share.expand(6), atol=1e-6)
        if kind == "mixup":
            assert torch.allclose(mixed, share * x + (1 - share) * neighbour, atol=1e-6)
        else:
            is_own = (mixed == x).all(dim=1)
            assert (is_own | (mixed == neighbour).all(dim=1)).all()
            assert torch.allclose(is_own.float().mean((1, 2)), share.expand(6))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mix_is_a_function_of_seed_epoch_and_batch_alone(kind: Kind, batch: tuple[Tensor, Tensor]) -> None:
    def shares(seed: int, epoch: int, number: int) -> tuple[float, ...]:
        return tuple(BatchMixer(kind, 7, seed)(*batch, epoch, number)[1][0].tolist())

    straight = BatchMixer(kind, 7, seed=1)
    in_order = [tuple(straight(*batch, 0, number)[1][0].tolist()) for number in range(8)]
    torch.rand(5)
    assert [shares(1, 0, number) for number in range(8)] == in_order, "as after a resume at each batch"
    assert len(set(in_order)) > 5
    assert [shares(1, 1, number) for number in range(8)] != in_order
    assert [shares(2, 0, number) for number in range(8)] != in_order


@pytest.mark.parametrize("kind", KINDS)
def test_mixing_leaves_the_global_generator_and_the_batch_as_they_were(
    kind: Kind, batch: tuple[Tensor, Tensor]
) -> None:
    before, (x, y) = torch.get_rng_state(), (tensor.clone() for tensor in batch)
    BatchMixer(kind, 7, seed=1)(*batch, 0, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(batch[0], x)
    assert torch.equal(batch[1], y)
    with pytest.raises(ValueError, match="batch size"):
        BatchMixer(kind, 7, seed=1)(x, y[:3], 0, 3)
    assert torch.equal(torch.get_rng_state(), before)


# -- balance --------------------------------------------------------------------------------------------------


def test_class_weights_are_inverse_to_the_counts_and_one_in_the_mean_over_the_images() -> None:
    weights = class_weights([80, 15, 0, 5])
    assert weights.dtype == torch.float32
    assert weights[2] == 0
    assert weights[[0, 1, 3]] * torch.tensor([80, 15, 5]) == pytest.approx([100 / 3] * 3)
    assert weights[torch.tensor(UNEQUAL)].mean().item() == pytest.approx(1)
    assert class_weights([7, 7]).tolist() == [1, 1]


def test_a_balanced_order_draws_each_class_equally_often() -> None:
    sampler = EpochSampler(len(UNEQUAL), 8, seed=1, labels=UNEQUAL)
    extra: Counter[int] = Counter()
    for epoch in range(30):
        order = sampler.order(epoch)
        counts = Counter(UNEQUAL[index] for index in order)
        assert sorted(counts.values()) == [33, 33, 34]
        extra[max(counts, key=lambda label: counts[label])] += 1
        times = Counter(order)
        assert {times[index] for index in range(80)} <= {0, 1}, "no image of a large class comes twice"
        assert {times[index] for index in range(80, 95)} <= {2, 3}, "each image of a small class comes as often"
        assert {times[index] for index in range(95, 100)} <= {6, 7}
    assert set(extra) == {0, 1, 3}


def test_a_balanced_order_is_shuffled_and_a_function_of_seed_and_epoch() -> None:
    sampler = EpochSampler(len(UNEQUAL), 8, seed=1, labels=UNEQUAL)
    order = sampler.order(3)
    assert order == EpochSampler(len(UNEQUAL), 16, seed=1, labels=UNEQUAL).order(3)
    assert order != sampler.order(4)
    assert order != EpochSampler(len(UNEQUAL), 8, seed=2, labels=UNEQUAL).order(3)
    assert len({UNEQUAL[index] for index in order[:12]}) == 3
    assert {index for epoch in range(12) for index in sampler.order(epoch)} == set(range(100))


def test_a_balanced_epoch_has_as_many_batches_as_without() -> None:
    for num_samples in (96, 97, 100):
        plain = EpochSampler(num_samples, 8, seed=1)
        balanced = EpochSampler(num_samples, 8, seed=1, labels=UNEQUAL[-num_samples:])
        assert [len(batch) for batch in balanced.batches(2)] == [len(batch) for batch in plain.batches(2)]
        assert list(balanced.batches(2, start_batch=5)) == list(balanced.batches(2))[5:]


# -- order ----------------------------------------------------------------------------------------------------


def test_an_order_without_labels_is_the_same_as_in_earlier_runs() -> None:
    """A run of Thaw 0.1 that is resumed in mid-epoch must go on with the images that are left."""
    for epoch in range(3):
        digest = hashlib.blake2b(f"(7, {epoch})".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        assert EpochSampler(12, 4, seed=7).order(epoch) == torch.randperm(12, generator=generator).tolist()


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


@pytest.mark.parametrize("labels", [None, UNEQUAL[-97:]])
@pytest.mark.parametrize("batch_size", [8, 96])
def test_the_indexes_are_those_of_the_batches_one_after_another(labels: list[int] | None, batch_size: int) -> None:
    sampler = EpochSampler(97, batch_size, seed=1, labels=labels)
    for start in range(sampler.num_batches + 1):
        listed = [index for batch in sampler.batches(2, start) for _, index in batch]
        assert sampler.indexes(2, start).tolist() == listed


@pytest.mark.parametrize("labels", [None, UNEQUAL[-97:]])
def test_each_sample_is_found_where_the_batches_have_it(labels: list[int] | None) -> None:
    sampler = EpochSampler(97, 8, seed=1, labels=labels)
    listed = [[index for _, index in batch] for batch in sampler.batches(2)]
    found = {index: sampler.places(2, index) for index in range(97)}
    for index, places in found.items():
        assert places == [
            (number, position, batch)
            for number, batch in enumerate(listed)
            for position, other in enumerate(batch)
            if other == index
        ]
    assert sum(map(len, found.values())) == 96, "the last one is left out"
