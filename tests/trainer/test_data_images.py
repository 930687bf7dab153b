"""Decoding: every odd kind of file as a person would see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.data.images import DataError, load_rgb

RED, WHITE = (255, 0, 0), (255, 255, 255)


def pixels(path: Path) -> np.ndarray:
    image = load_rgb(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10), WHITE)
    image.paste(RED, (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored left is the top
    image.save(tmp_path / "a.png", exif=exif)
    seen = pixels(tmp_path / "a.png")
    assert seen.shape == (20, 10, 3)
    assert (seen[:10] == RED).all()
    assert (seen[10:] == WHITE).all()


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), RED).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(pixels(tmp_path / "a.jpg") - RED).max() < 10


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_by_its_range(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257 * 100], [257 * 200, 65_535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert pixels(tmp_path / f"a.{suffix}")[..., 0].tolist() == [[0, 100], [200, 255]]


def test_floating_point_grey_is_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5], [1.0, np.nan]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif")[..., 1].tolist() == [[0, 128], [255, 0]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 2))
    if mode == "P":
        paletted = Image.new("P", (4, 4), 1)
        paletted.putpalette([0, 0, 0, 9, 9, 9])
        paletted.paste(0, (0, 0, 4, 2))
        paletted.save(tmp_path / "a.png", transparency=bytes([255, 0]))
    else:
        image.convert(mode).save(tmp_path / "a.png")
    seen = pixels(tmp_path / "a.png")
    assert (seen[:2] == 0).all()
    assert (seen[2:] == 255).all()


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 6), color) for color in (RED, WHITE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (pixels(tmp_path / "a.gif") == RED).all()


@pytest.mark.parametrize("mode", ["1", "L", "YCbCr"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    name = tmp_path / ("a.tif" if mode == "YCbCr" else "a.png")
    Image.new("RGB", (6, 6), WHITE).convert(mode).save(name)
    assert (pixels(name) >= 253).all()


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(DataError, match=r"Cannot read the image .*a\.png: it is not an image"):
        load_rgb(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"gone\.png: it is not there any more"):
        load_rgb(tmp_path / "gone.png")
