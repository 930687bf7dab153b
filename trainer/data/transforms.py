"""From a decoded image to what the model sees: a deterministic fit that may be kept, then augmentation and scaling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LIGHT_AREA = (0.8, 1.0)
"""Share of the picture's area that light augmentation keeps, as in torchvision's RandomResizedCrop."""
SQUARE_MARGIN = 0.08
SQUARE_AREA = (0.74, 1.0)
"""A small square image fills its frame, so that a crop would cut off parts of digits or leaves: its edge pixels are
repeated outwards by this share of its side first. Crops then zoom by 0.86 to 1.0 and shift by up to 8 %."""


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its images: sides in pixels, mean and std of each RGB channel for values of 0 to 1.

    The short side is resized to ``resize_size`` and a square of ``image_size`` cut from the centre; where both are the
    same, the image is resized to that square without a cut.
    """

    image_size: int
    resize_size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"

    def resized_to(self, image_size: int) -> Preprocessing:
        """Return the same with another image size, in the same proportion to the size before the cut."""
        resize_size = max(image_size, round(image_size * self.resize_size / self.image_size))
        return replace(self, image_size=image_size, resize_size=resize_size)


class ImageTransform:
    """From a PIL image to a float32 tensor (3, H, W), in two parts.

    ``fit`` is deterministic and gives a uint8 tensor that a cache may keep; ``finish`` augments and normalizes it.
    Randomness comes from torch's global CPU generator.
    """

    def __init__(self, preprocessing: Preprocessing, is_training: bool, augmentation: Literal["none", "light"]) -> None:
        size, resize_size = preprocessing.image_size, preprocessing.resize_size
        interpolation = v2.InterpolationMode(preprocessing.interpolation)
        is_square = size == resize_size
        is_augmented = is_training and augmentation == "light"
        fit: list[torch.nn.Module] = [
            v2.Resize([size, size] if is_square else [resize_size], interpolation=interpolation, antialias=True)
        ]
        finish: list[torch.nn.Module] = []
        if is_augmented:
            if is_square:
                fit.append(v2.Pad(round(size * SQUARE_MARGIN), padding_mode="edge"))
            area, ratio = (SQUARE_AREA, (0.95, 1.05)) if is_square else (LIGHT_AREA, (3 / 4, 4 / 3))
            finish.append(
                v2.RandomResizedCrop([size, size], scale=area, ratio=ratio, interpolation=interpolation, antialias=True)
            )
        elif not is_square:
            fit.append(v2.CenterCrop([size, size]))
        self._fit = v2.Compose([*fit, v2.PILToTensor()])
        self._augment = finish[0] if finish else None
        self._mean = torch.tensor(preprocessing.mean).view(3, 1, 1) * 255
        self._scale = 1 / (torch.tensor(preprocessing.std).view(3, 1, 1) * 255)

    def fit(self, image: Image.Image) -> Tensor:
        """Resize (and, without augmentation, cut) an RGB image. Returns uint8 (3, h, w)."""
        fitted: Tensor = self._fit(image)
        return fitted

    def finish(self, fitted: Tensor) -> Tensor:
        """Augment and normalize a fitted image. Returns float32 (3, image_size, image_size)."""
        augmented: Tensor = fitted if self._augment is None else self._augment(fitted)
        return (augmented.to(torch.float32) - self._mean) * self._scale

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the float32 tensor (3, image_size, image_size) of an RGB image."""
        return self.finish(self.fit(image))


def train_transform(preprocessing: Preprocessing, augmentation: Literal["none", "light"]) -> ImageTransform:
    """Return the transform of training images. "light" shifts and scales; flips are never guessed."""
    return ImageTransform(preprocessing, is_training=True, augmentation=augmentation)


def validation_transform(preprocessing: Preprocessing) -> ImageTransform:
    """Return the transform of validation images, which has no randomness."""
    return ImageTransform(preprocessing, is_training=False, augmentation="none")
