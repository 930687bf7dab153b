"""From an image to what the model sees: sizes, presets, and randomness that the seed of the sample decides."""

from __future__ import annotations

import random
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from trainer.config import ConfigError, DataConfig
from trainer.data.images import load_rgb
from trainer.data.transforms import Augmentation, ImageTransform, Preprocessing, train_transform, validation_transform

AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)
CUT = Preprocessing(16, 20, interpolation="bicubic")
SQUARE = Preprocessing(16, 16)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


def seen(transform: ImageTransform, image: Image.Image) -> Tensor:
    return transform.normalize(transform.augment(transform.fit(image)))


def seeded(transform: ImageTransform, image: Image.Image, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return seen(transform, image)


def views(transform: ImageTransform, image: Image.Image, number: int) -> list[Tensor]:
    fitted = transform.fit(image)
    torch.manual_seed(0)
    return [transform.normalize(transform.augment(fitted)) for _ in range(number)]


# -- sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(30, 30), (90, 20), (8, 8), (1, 1), (1, 40)])
@pytest.mark.parametrize("preprocessing", [SQUARE, CUT, Preprocessing(8, 8)])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_every_image_becomes_the_square_that_the_model_sees(
    size: tuple[int, int], preprocessing: Preprocessing, augmentation: Augmentation
) -> None:
    for transform in (train_transform(preprocessing, augmentation), validation_transform(preprocessing)):
        for x in views(transform, Image.new("RGB", size, (255, 0, 128)), 5):
            assert (x.shape, x.dtype) == ((3, preprocessing.image_size, preprocessing.image_size), torch.float32)
            assert x.isfinite().all()


@pytest.mark.parametrize("preprocessing", [SQUARE, CUT, Preprocessing(16, 20, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3))])
@pytest.mark.parametrize("augmentation", ["none", "light"])
def test_colours_are_scaled_by_the_models_mean_and_std(
    preprocessing: Preprocessing, augmentation: Augmentation
) -> None:
    x = seen(train_transform(preprocessing, augmentation), Image.new("RGB", (30, 40), (255, 0, 128)))
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    assert torch.allclose(x.mean((1, 2)), (torch.tensor([1, 0, 128 / 255]) - mean) / std, atol=1e-5)


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(AUGMENTATIONS), st.sampled_from([(8, 8), (8, 11)]))
@settings(max_examples=150, deadline=None)
def test_the_fitted_shape_is_known_without_the_image(
    width: int, height: int, augmentation: Augmentation, sides: tuple[int, int]
) -> None:
    transform = train_transform(Preprocessing(*sides), augmentation)
    fitted = transform.fit(Image.new("RGB", (width, height)))
    assert fitted.dtype == torch.uint8
    assert fitted.shape == (3, *transform.fitted_shape(width, height))


def test_a_square_image_gets_a_margin_to_be_cropped_from() -> None:
    shapes = [train_transform(Preprocessing(100, 100), name).fitted_shape(30, 20) for name in AUGMENTATIONS]
    assert shapes == [(100, 100), (116, 116), (116, 116), (116, 116)]


# -- presets --------------------------------------------------------------------------------------------------


def test_the_configuration_offers_these_presets() -> None:
    assert get_args(DataConfig.model_fields["augmentation"].annotation) == AUGMENTATIONS


@pytest.mark.parametrize("resize_size", [100, 120])
def test_light_is_the_same_to_the_bit_as_torchvisions_transforms_of_the_whole_image(resize_size: int) -> None:
    interpolation, size = v2.InterpolationMode.BICUBIC, [100, 100]
    if resize_size == 100:
        resize, pad = v2.Resize(size, interpolation, antialias=True), v2.Pad(8, padding_mode="edge")
        area, ratio = (0.74, 1.0), (0.95, 1.05)
    else:
        resize, pad = v2.Resize([120], interpolation, antialias=True), v2.Identity()
        area, ratio = (0.8, 1.0), (3 / 4, 4 / 3)
    stock = v2.Compose([v2.PILToTensor(), resize, pad, v2.RandomResizedCrop(size, area, ratio, interpolation)])
    preprocessing = Preprocessing(100, resize_size, (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "bicubic")
    mean, std = torch.tensor(preprocessing.mean).view(3, 1, 1), torch.tensor(preprocessing.std).view(3, 1, 1)
    transform, image = train_transform(preprocessing, "light"), noise(131, 147)
    for seed in range(10):
        torch.manual_seed(seed)
        expected = (stock(image).to(torch.float32) - mean * 255) * (1 / (std * 255))
        assert torch.equal(seeded(transform, image, seed), expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sides", [(131, 147), (400, 90), (20, 14)])
def test_images_are_fitted_as_pillow_resizes_them_within_a_level(interpolation: str, sides: tuple[int, int]) -> None:
    preprocessing = Preprocessing(48, 60, interpolation=interpolation)
    mode = v2.InterpolationMode(interpolation)
    stock = v2.Compose([v2.Resize([60], mode, antialias=True), v2.CenterCrop([48, 48]), v2.PILToTensor()])
    difference = validation_transform(preprocessing).fit(noise(*sides)).int() - stock(noise(*sides)).int()
    assert difference.abs().max() <= 1


def photograph(path: Path, width: int, height: int) -> Image.Image:
    """Write a large JPEG with smooth and fine detail, and return it as it is decoded whole."""
    coarse = np.random.default_rng(5).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=95)
    return load_rgb(path)


@pytest.mark.parametrize(
    ("sides", "decoded"),
    [((1600, 1200), (400, 300)), ((1604, 1202), (802, 601)), ((1601, 1200), (1601, 1200)), ((240, 160), (240, 160))],
)
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(
    tmp_path: Path, sides: tuple[int, int], decoded: tuple[int, int]
) -> None:
    transform = validation_transform(Preprocessing(100, 120))
    whole = photograph(tmp_path / "photo.jpg", *sides)
    assert load_rgb(tmp_path / "photo.jpg", 240).size == decoded
    seen, expected = transform.read(str(tmp_path / "photo.jpg")), transform.fit(whole)
    assert seen.shape == expected.shape
    difference = (seen.int() - expected.int()).abs().float()
    assert difference.mean() < 1
    assert difference.max() <= 8


def test_a_large_jpeg_with_a_rotation_is_upright_and_has_the_size_that_was_reckoned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (1600, 800), "red").save(tmp_path / "turned.jpg", exif=exif)
    transform = train_transform(Preprocessing(100, 120), "light")
    assert transform.read(str(tmp_path / "turned.jpg")).shape[1:] == transform.fitted_shape(800, 1600) == (240, 120)


def test_validation_images_and_unaugmented_ones_are_cut_from_the_centre_without_randomness() -> None:
    image = noise(60, 40)
    for preprocessing in (SQUARE, CUT):
        expected = seen(validation_transform(preprocessing), image)
        for seed in range(3):
            assert torch.equal(seeded(train_transform(preprocessing, "none"), image, seed), expected)


def test_light_shifts_and_scales_a_little_and_never_flips() -> None:
    image = Image.new("RGB", (32, 32))
    image.paste((255, 255, 255), (2, 2, 14, 30))
    seen = views(train_transform(Preprocessing(32, 32), "light"), image, 50)
    assert len({view.numpy().tobytes() for view in seen}) > 25
    for view in seen:
        assert view[..., :14].mean() > view[..., 18:].mean() + 1, "the bar stays on the left"
        assert (view[0] > 1).float().mean() > 0.2, "most of the bar stays in the picture"


@pytest.mark.parametrize("augmentation", ["standard", "strong"])
@pytest.mark.parametrize("preprocessing", [Preprocessing(32, 32), Preprocessing(32, 40)])
def test_standard_and_strong_flip_half_of_the_images(preprocessing: Preprocessing, augmentation: Augmentation) -> None:
    image = Image.linear_gradient("L").rotate(90).convert("RGB")  # brighter to the right
    seen = views(train_transform(preprocessing, augmentation), image, 200)
    num_flipped = sum(int(view[..., 10:16].mean() > view[..., 16:22].mean()) for view in seen)
    assert 60 < num_flipped < 140


@pytest.mark.parametrize("preprocessing", [Preprocessing(64, 64), Preprocessing(64, 80)])
def test_standard_zooms_further_in_than_light_and_leaves_a_third_of_the_picture(preprocessing: Preprocessing) -> None:
    stripes = np.zeros((160, 160, 3), np.uint8)
    stripes[:, np.arange(160) // 8 % 2 == 1] = 255

    def fewest_edges(augmentation: Augmentation) -> int:
        seen = views(train_transform(preprocessing, augmentation), Image.fromarray(stripes), 60)
        rows = [view[0, 32] > (view[0, 32].amax() + view[0, 32].amin()) / 2 for view in seen]
        return min(int((row[1:] != row[:-1]).sum()) for row in rows)

    light, standard = fewest_edges("light"), fewest_edges("standard")
    assert 8 <= standard <= light - 3


def test_standard_varies_the_colours_a_little_and_keeps_the_hue() -> None:
    seen = torch.stack(views(train_transform(SQUARE, "standard"), Image.new("RGB", (20, 20), (150, 100, 60)), 100))
    colours = seen.mean((2, 3)) * torch.tensor(SQUARE.std) + torch.tensor(SQUARE.mean)
    assert len(torch.unique(colours, dim=0)) > 80
    assert (colours[:, 0] > colours[:, 1]).all()
    assert (colours[:, 1] > colours[:, 2]).all()
    red = colours[:, 0] / (150 / 255)
    assert 0.7 < red.amin() < 0.9 < 1.1 < red.amax() < 1.35


def test_strong_erases_a_rectangle_of_a_quarter_of_the_images_to_the_mean_colour() -> None:
    def num_erased(augmentation: Augmentation) -> int:
        seen = views(train_transform(CUT, augmentation), Image.new("RGB", (20, 20), (200, 90, 40)), 300)
        return sum(bool((view.abs() < 0.01).all(dim=0).any()) for view in seen)

    assert 45 < num_erased("strong") < 105
    assert num_erased("standard") == 0


# -- randomness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preprocessing", [SQUARE, CUT])
@pytest.mark.parametrize("augmentation", ["light", "standard", "strong"])
def test_randomness_comes_from_torchs_generator_alone(preprocessing: Preprocessing, augmentation: Augmentation) -> None:
    transform, image = train_transform(preprocessing, augmentation), noise(50, 40)
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), repr(np.random.get_state())
    first = [seeded(transform, image, seed) for seed in range(60)]
    assert (random.getstate(), repr(np.random.get_state())) == before
    assert len({view.numpy().tobytes() for view in first}) > 20
    random.seed(2)
    np.random.seed(2)
    assert all(torch.equal(seeded(transform, image, seed), view) for seed, view in enumerate(first))


@pytest.mark.parametrize("augmentation", ["standard", "strong"])
def test_images_are_changed_on_one_thread_as_in_a_loader_process(
    augmentation: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mean over 384 × 384 pixels is another one on two threads, and then some colours are."""
    seen: list[int] = []
    mean = torch.mean

    def watched(*args: object, **kwargs: object) -> Tensor:
        seen.append(torch.get_num_threads())
        return mean(*args, **kwargs)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "mean", watched)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        views(train_transform(SQUARE, augmentation), noise(20, 20), 60)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(num_threads)
    assert set(seen) == {1}


def test_what_a_configuration_says_of_sizes_and_colours_goes_before_the_weights() -> None:
    own = Preprocessing(image_size=224, resize_size=256)
    assert own.edited(DataConfig()) == own
    edited = own.edited(DataConfig(resize_size=300, mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.1]))
    assert edited == Preprocessing(224, 300, (0.5, 0.5, 0.5), (0.2, 0.2, 0.1))
    with pytest.raises(ConfigError, match="A square of 224 pixels cannot be cut from images of 200") as caught:
        own.edited(DataConfig(resize_size=200))
    assert caught.value.field == "data.resize_size"
