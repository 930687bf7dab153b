"""The images that every contender trains on: JPEGs in ten classes that a network can learn to tell apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

NUM_CLASSES = 10
SIDES = (500, 375)
QUALITY = 90
VALIDATION_EVERY = 5
_ABOUT = "about.json"
_FLAT_ANGLE = np.pi


def make_images(root: Path, num_images: int) -> Path:
    """Write images into ``train/CLASS`` and ``val/CLASS``, each fifth into the latter. Does nothing if they are there.

    Each has the size and the detail of a photograph: a coarse background of its own and grain. A class is the direction
    and the width of the stripes over it, whose place and colour differ from image to image.

    Raises:
        ValueError: The folder holds something else.

    """
    about = {"num_images": num_images, "sides": list(SIDES), "classes": NUM_CLASSES, "quality": QUALITY}
    if (root / _ABOUT).exists():
        if json.loads((root / _ABOUT).read_text()) == about:
            return root
        raise ValueError(f"{root} holds other images than these: {about}. Name another folder.")
    if root.exists() and any(root.iterdir()):
        raise ValueError(f"{root} is not empty and holds no images of this benchmark. Name another folder.")
    generator = np.random.default_rng(0)
    for number in range(num_images):
        class_idx, nth = number % NUM_CLASSES, number // NUM_CLASSES
        split = "val" if nth % VALIDATION_EVERY == VALIDATION_EVERY - 1 else "train"
        path = root / split / f"class_{class_idx}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels_of(class_idx, generator)).save(path, quality=QUALITY)
    (root / _ABOUT).write_text(json.dumps(about))
    return root


def pixels_of(class_idx: int, generator: np.random.Generator) -> np.ndarray:
    """Return an image of a class, uint8 (H, W, 3)."""
    width, height = SIDES
    coarse = Image.fromarray(generator.integers(40, 216, (6, 8, 3), dtype=np.uint8))
    background = np.asarray(coarse.resize(SIDES, Image.Resampling.BICUBIC)).astype(np.float32)
    angle = _FLAT_ANGLE * class_idx / NUM_CLASSES
    wave_length = 16 + 8 * (class_idx % 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    stripes = np.sin(2 * np.pi * along / wave_length + generator.uniform(0, 2 * np.pi)).astype(np.float32)
    colour = generator.uniform(20, 60, 3).astype(np.float32)
    grain = generator.normal(0, 8, (height, width, 1)).astype(np.float32)
    pixels: np.ndarray = (background + stripes[:, :, None] * colour + grain).clip(0, 255).astype(np.uint8)
    return pixels
