"""Mixing the images of a training batch, and their classes with them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2

from trainer.data.dataset import mixed_seed

MIXUP_ALPHA = 0.2
CUTMIX_ALPHA = 1.0
"""Both as in torchvision's reference training: most images stay mostly themselves, boxes have any size."""

_NO_SAMPLE = -1
"""In the place of a sample's index, so that the mixing's seeds are nobody else's."""


class BatchMixer:
    """Mixes each image of a batch with its neighbour, which the order has shuffled, by seed, epoch and batch.

    "mixup" blends two images (Zhang et al. 2017, arXiv 1710.09412); "cutmix" pastes a box of one into the other (Yun
    et al. 2019, arXiv 1905.04899). One share holds for the whole batch.
    """

    def __init__(self, kind: Literal["mixup", "cutmix"], num_classes: int, seed: int) -> None:
        self._mix = (
            v2.MixUp(alpha=MIXUP_ALPHA, num_classes=num_classes)
            if kind == "mixup"
            else v2.CutMix(alpha=CUTMIX_ALPHA, num_classes=num_classes)
        )
        self._seed = seed

    @staticmethod
    def neighbour(position: int, batch_size: int) -> int:
        """Return the position of the image that is mixed into another one: torchvision rolls a batch on by one."""
        return (position - 1) % batch_size

    def __call__(self, x: Tensor, y: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Return the mixed batch; the global generator is left as it was, and the given tensors too.

        Args:
            x: Shape (B, 3, H, W), float32, on any device.
            y: Class indexes, shape (B,), int64; or the share of each class, shape (B, num_classes), float32.
            epoch: Completed epochs.
            batch: Batches of this epoch before this one.

        Returns:
            The images, and the share of each class in each: float32 (B, num_classes).

        """
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(mixed_seed(self._seed, epoch, batch, _NO_SAMPLE))
        try:
            mixed, shares = self._mix(x, y)
        finally:
            torch.set_rng_state(state)
        return mixed, shares
