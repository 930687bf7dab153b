"""From a decoded image to what the model sees: a deterministic fit that may be kept, then augmentation and scaling."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from trainer.config import ConfigError, DataConfig
from trainer.data.images import load_rgb

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LIGHT_AREA = (0.8, 1.0)
"""Share of the picture's area that light augmentation keeps, as in torchvision's RandomResizedCrop."""
SQUARE_MARGIN = 0.08
SQUARE_AREA = (0.74, 1.0)
"""A small square image fills its frame, so that a crop would cut off parts of digits or leaves: its edge pixels are
repeated outwards by this share of its side first. Crops then zoom by 0.86 to 1.0 and shift by up to 8 %."""
LIGHT_RATIO = (3 / 4, 4 / 3)
SQUARE_RATIO = (0.95, 1.05)
STANDARD_AREA = (0.35, 1.0)
"""Torchvision's default goes down to 0.08, for training from nothing; fine-tuning has too few epochs for scraps."""
STANDARD_RATIO = (3 / 4, 4 / 3)
JITTER = 0.2
"""Brightness, contrast and saturation vary by up to this share; hue stays, as colour often is what tells classes."""
ERASING_PROBABILITY = 0.25

Augmentation = Literal["none", "light", "standard", "strong"]


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its images: sides in pixels, mean and std of each RGB channel for values of 0 to 1.

    The short side is resized to ``resize_size`` and a square of ``image_size`` cut from the centre; where both are the
    same, the image is resized to that square without a cut.
    """

    image_size: int
    resize_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    def edited(self, data: DataConfig) -> Preprocessing:
        """Return the same with what a configuration says otherwise.

        Raises:
            ConfigError: The square would be larger than the image that it is cut from.

        """
        resize_size = data.resize_size or self.resize_size
        if resize_size < self.image_size:
            raise ConfigError(
                f"A square of {self.image_size} pixels cannot be cut from images of {resize_size}. Choose a "
                "larger size before the cut, or a smaller image size.",
                "data.resize_size",
            )
        mean, std = (tuple(said) if said else own for said, own in ((data.mean, self.mean), (data.std, self.std)))
        return replace(self, resize_size=resize_size, mean=mean, std=std)


class ImageTransform:
    """From an image file to a float32 tensor (3, H, W), in three parts.

    ``read`` is deterministic and gives a uint8 tensor that may be kept; ``augment`` changes that at random;
    ``normalize`` makes of one, or of a batch, what the model takes. Randomness comes from torch's global CPU generator
    alone.

    Attributes:
        image_size: H and W.

    """

    def __init__(self, preprocessing: Preprocessing, augmentation: Augmentation) -> None:
        size, self._resize_size = preprocessing.image_size, preprocessing.resize_size
        self.image_size = size
        interpolation = v2.InterpolationMode(preprocessing.interpolation)
        is_square = size == self._resize_size
        is_augmented = augmentation != "none"
        # Both sides of what fit returns, where they do not depend on the image.
        self._fitted_size: int | None = None
        if is_square:
            fit: list[torch.nn.Module] = [v2.Resize([size, size], interpolation=interpolation, antialias=True)]
            margin = round(size * SQUARE_MARGIN) if is_augmented else 0
            if margin:
                fit.append(v2.Pad(margin, padding_mode="edge"))
            self._fitted_size = size + 2 * margin
        else:
            fit = [v2.Resize([self._resize_size], interpolation=interpolation, antialias=True)]
            if not is_augmented:
                fit.append(v2.CenterCrop([size, size]))
                self._fitted_size = size
        # On the tensor: more than twice as fast as Pillow resizes, and the same within one level of 255.
        self._fit = v2.Compose([v2.PILToTensor(), *fit])
        self._augment = _augment(augmentation, size, interpolation, is_square) if is_augmented else None
        # With the mean colour, which a model sees as nothing.
        colour = [round(255 * channel) for channel in preprocessing.mean]
        self._erase = v2.RandomErasing(ERASING_PROBABILITY, value=colour) if augmentation == "strong" else None
        self._mean = torch.tensor(preprocessing.mean).view(3, 1, 1) * 255
        self._scale = 1 / (torch.tensor(preprocessing.std).view(3, 1, 1) * 255)

    def __repr__(self) -> str:
        """Say what is done to an image, in full: two transforms that say the same are the same."""
        numbers = f"{self._mean.flatten().tolist()} {self._scale.flatten().tolist()}"
        return f"{self._resize_size} {self._fit} {self._augment} {self._erase} {numbers}"

    def read(self, path: str) -> Tensor:
        """Decode a file, no larger than it needs be, and fit it. Returns uint8 (3, h, w).

        Enter ``quiet_pillow`` around it.

        Raises:
            DataError: The file cannot be read or decoded; names it.

        """
        # From twice the size on, a decoder's smaller picture gives the same to within a level in the mean.
        return self.fit(load_rgb(path, 2 * self._resize_size))

    def fit(self, image: Image.Image) -> Tensor:
        """Resize (and, without augmentation, cut) an RGB image. Returns uint8 (3, h, w)."""
        fitted: Tensor = self._fit(image)
        return fitted

    def fitted_shape(self, width: int, height: int) -> tuple[int, int]:
        """Return (h, w) of what ``fit`` makes of an image of this many pixels, without the image."""
        if self._fitted_size is not None:
            return self._fitted_size, self._fitted_size
        # As torchvision rounds: down, after a division of floats.
        long_side = int(self._resize_size * max(width, height) / min(width, height))
        return (long_side, self._resize_size) if width <= height else (self._resize_size, long_side)

    def augment(self, fitted: Tensor) -> Tensor:
        """Change a fitted image at random. Returns uint8 (3, image_size, image_size)."""
        augmented = fitted
        if self._augment is not None:
            with _one_thread():
                augmented = self._augment(fitted)
        return augmented if self._erase is None else self._erase(augmented)

    def normalize(self, augmented: Tensor, *, is_for_gpu: bool = False) -> Tensor:
        """Scale an augmented image, or a batch of them, as the model wants it. Returns float32 of the same shape.

        For a GPU it lies in pinned memory, from which it is copied while both go on.
        """
        if is_for_gpu:
            floats = torch.empty(augmented.shape, dtype=torch.float32, pin_memory=True).copy_(augmented)
        else:
            floats = augmented.to(torch.float32)
        # In place: fresh memory for each result takes longer than the arithmetic.
        return floats.sub_(self._mean).mul_(self._scale)


def train_transform(preprocessing: Preprocessing, augmentation: Augmentation) -> ImageTransform:
    """Return the transform of training images.

    Args:
        preprocessing: How the model wants its images.
        augmentation: "light" shifts and scales, and never flips: that would change digits, letters and traffic signs.
            "standard" crops (Szegedy et al. 2015, arXiv 1409.4842), flips left and right and varies brightness,
            contrast and saturation. "strong" crops and flips likewise, then makes one random change of TrivialAugment
            (Müller and Hutter 2021, arXiv 2103.10158), and erases a rectangle (Zhong et al. 2017, arXiv 1708.04896).

    """
    return ImageTransform(preprocessing, augmentation)


def validation_transform(preprocessing: Preprocessing) -> ImageTransform:
    """Return the transform of validation images, which has no randomness."""
    return ImageTransform(preprocessing, "none")


def _augment(
    augmentation: Augmentation, size: int, interpolation: v2.InterpolationMode, is_square: bool
) -> Callable[[Tensor], Tensor]:
    """Return the random changes of a fitted image: uint8 (3, h, w) to uint8 (3, size, size)."""
    if augmentation == "light":
        area, ratio = (SQUARE_AREA, SQUARE_RATIO) if is_square else (LIGHT_AREA, LIGHT_RATIO)
    else:
        area, ratio = STANDARD_AREA, STANDARD_RATIO
    crop = v2.RandomResizedCrop([size, size], scale=area, ratio=ratio, interpolation=interpolation, antialias=True)
    changes: list[torch.nn.Module] = [crop]
    if augmentation == "standard":
        jitter = v2.ColorJitter(brightness=JITTER, contrast=JITTER, saturation=JITTER)
        changes += [v2.RandomHorizontalFlip(), jitter]
    elif augmentation == "strong":
        trivial = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)
        changes += [v2.RandomHorizontalFlip(), trivial]
    return torch.nn.Sequential(*changes)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute as a loader process does: a mean over a large image adds up in another order on more threads."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
