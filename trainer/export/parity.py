"""Parity: whether an exported model, loaded again from its file, says of real images what the run's model does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

from trainer.config import RunConfig
from trainer.config_error import ConfigError
from trainer.data.images import quiet_pillow
from trainer.data.kept_split import read_split
from trainer.data.sources import read_source
from trainer.data.transforms import Preprocessing, validation_transform
from trainer.export.shared_model import ExportError
from trainer.messages.export import Parity

MAX_IMAGES = 16

Forward = Callable[[Tensor], Tensor]
"""From images, float32 (B, 3, H, W), to outputs, float32 (B, C)."""

Progress = Callable[[str, int, int, str], None]


def data_root(config: RunConfig, on_progress: Progress) -> Path | None:
    """Return the folder of a run's images, below which its split names them; None where the data are gone."""
    cache_dir = platformdirs.user_cache_path("thaw") / "data"
    try:
        return read_source(config.data, cache_dir, on_progress, lambda: None).root
    except (ConfigError, OSError):
        return None


def sample_images(
    run_dir: Path, root: Path | None, preprocessing: Preprocessing, on_progress: Progress
) -> tuple[Tensor, bool]:
    """Return images as the model takes them, float32 (B, 3, H, W), and whether they are noise.

    They are from all over the run's validation split, up to MAX_IMAGES; noise where none of these can be read.

    Args:
        run_dir: The run's folder.
        root: The folder of its images, None where that is gone.
        preprocessing: How the model wants its images.
        on_progress: Called with each image.

    """
    transform = validation_transform(preprocessing)
    split = (read_split(run_dir) if root is not None else None) or {}
    places = [place for place, part in split.items() if part == "validation"]
    chosen = places[:: max(1, len(places) // MAX_IMAGES)][:MAX_IMAGES]
    found: list[Tensor] = []
    for number, place in enumerate(chosen, start=1):
        on_progress("Reading validation images", number, len(chosen), "images")
        assert root is not None
        try:
            with quiet_pillow():
                found.append(transform.read(str(root / place)))
        except ConfigError:
            # Taken away since: the others will do.
            continue
    if found:
        return transform.normalize(torch.stack(found)), False
    size = preprocessing.image_size
    noise = torch.randint(0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return transform.normalize(noise), True


def compare(own: Forward, exported: Forward, images: Tensor, is_random: bool, share: float, what: str) -> Parity:
    """Compare two models on all images at once, and on the first one alone.

    Args:
        own: The run's model.
        exported: The exported one, loaded again.
        images: Float32 (B, 3, H, W).
        is_random: Whether the images are noise.
        share: What the outputs may differ by, as a share of the largest one (of 1, where all are smaller).
        what: The file's name, for the sentence.

    Raises:
        ExportError: They differ by more, or the run's outputs are not finite.

    """
    largest, scale = 0.0, 1.0
    with torch.no_grad():
        for batch in (images, images[:1]):
            expected, got = own(batch), exported(batch)
            if not torch.isfinite(expected).all():
                raise ExportError(
                    "The checkpoint's outputs are NaN or infinite: its training had failed. Choose an earlier one."
                )
            if got.shape != expected.shape:
                raise ExportError(
                    f"{what} gives outputs of another shape ({tuple(got.shape)}) than the run's model "
                    f"({tuple(expected.shape)}), and was not kept. Choose another format."
                )
            scale = max(scale, float(expected.abs().max()))
            difference = float((got - expected).abs().max())
            # A NaN would lose every comparison.
            largest = max(largest, difference) if difference == difference else float("inf")
    parity = Parity(
        largest_difference=largest,
        tolerance=share * scale,
        num_images=len(images),
        is_on_random_images=is_random,
    )
    if largest > parity.tolerance:
        raise ExportError(
            f"{what} was not kept: its outputs differ by up to {largest:.3g} from the run's, more than "
            f"{parity.tolerance:.3g}. Choose another format, and report this."
        )
    return parity
