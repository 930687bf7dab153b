"""Duplicates: the same bytes, and nearly the same picture, are found among many images; different ones are not."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from trainer.data.duplicates import MAX_DISTANCE, Pair, content_groups, find_pairs
from trainer.data.file_facts import FileFacts, picture_hash, read_facts

REPOSITORY = Path(__file__).parents[2]
LANCZOS = Image.Resampling.LANCZOS


def picture(seed: int) -> Image.Image:
    """Draw what is like a photograph in structure: smooth color, shapes, text, and noise over it."""
    generator = np.random.default_rng(seed)
    width, height = 500, 375
    colors = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(colors).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(generator.integers(4, 15)):
        x, y, r = (int(value) for value in generator.integers((0, 0, 10), (width, height, 90)))
        color = tuple(int(value) for value in generator.integers(0, 256, 3))
        match generator.integers(0, 3):
            case 0:
                draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
            case 1:
                draw.rectangle((x - r, y - r // 2, x + r, y + r // 2), fill=color)
            case _:
                draw.text((x - r, y), "Thaw", fill=color, font=ImageFont.load_default(12 + r))
    noisy = np.asarray(image) + generator.normal(0, 12, (height, width, 1))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def of_hash(picture_hash: int | None, content: str = "", width: int = 400, height: int = 300) -> FileFacts:
    return FileFacts("", width, height, 1000, content, picture_hash)


def found(facts: list[FileFacts]) -> list[tuple[int, int, bool]]:
    return [(pair.first_idx, pair.second_idx, pair.is_same_file) for pair in find_pairs(facts)]


# -- the same bytes -------------------------------------------------------------------------------------------


def test_each_later_copy_is_paired_with_the_first() -> None:
    facts = [of_hash(None, content) for content in ("a", "b", "a", "c", "a")]
    assert find_pairs(facts) == [Pair(0, 2, True), Pair(0, 4, True)]
    assert content_groups(facts) == [0, 1, 0, 3, 0]


def test_a_file_whose_bytes_could_not_be_read_equals_no_other() -> None:
    facts = [FileFacts("there is no permission to read it")] * 2
    assert content_groups(facts) == [0, 1]
    assert find_pairs(facts) == []


def test_copies_that_no_run_reads_are_not_told_as_pairs() -> None:
    assert find_pairs([FileFacts("it is empty (0 bytes)", content_hash="a")] * 2) == []


def test_a_copy_is_not_paired_once_more_as_a_near_picture() -> None:
    facts = [of_hash(7, "a"), of_hash(7, "a"), of_hash(6, "b")]
    assert found(facts) == [(0, 1, True), (0, 2, False)]


# -- nearly the same picture ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_altered_copies_of_a_picture_are_near_it(seed: int) -> None:
    original = picture(seed)
    width, height = original.size
    copies = {
        "compressed": as_jpeg(original, 50),
        "half": original.resize((width // 2, height // 2), LANCZOS),
        "thumbnail": original.resize((160, 120), LANCZOS),
        "double": original.resize((width * 2, height * 2), LANCZOS),
        "cropped": original.crop((width // 100, height // 100, width - width // 100, height - height // 100)),
        "brightened": ImageEnhance.Brightness(original).enhance(1.15),
        "all of it": as_jpeg(ImageEnhance.Brightness(original.resize((300, 225), LANCZOS)).enhance(1.1), 50),
    }
    expected = picture_hash(original)
    assert expected is not None
    for name, copy in copies.items():
        hashed = picture_hash(copy.convert("RGB"))
        assert hashed is not None
        assert (hashed ^ expected).bit_count() <= MAX_DISTANCE, name


def test_different_pictures_are_not_near() -> None:
    facts = [of_hash(picture_hash(picture(seed)), str(seed)) for seed in range(60)]
    assert all(fact.picture_hash is not None for fact in facts)
    assert find_pairs(facts) == []


def test_pictures_without_enough_structure_have_no_hash() -> None:
    generator = np.random.default_rng(0)
    plain_with_noise = np.full((300, 400, 1), 200) + generator.integers(-40, 41, (300, 400, 3))
    stripes = np.broadcast_to(np.arange(300, dtype=np.uint8)[:, None, None] % 200, (300, 400, 3))
    on_white = Image.new("RGB", (400, 300), "white")
    ImageDraw.Draw(on_white).ellipse((160, 120, 240, 180), fill="navy")
    for image in (Image.fromarray(plain_with_noise.astype(np.uint8)), Image.fromarray(stripes.copy()), on_white):
        assert picture_hash(image) is None


def test_small_pictures_have_no_hash() -> None:
    assert picture_hash(picture(0).resize((32, 32))) is not None
    assert picture_hash(picture(0).resize((200, 31))) is None
    assert picture_hash(picture(0).resize((31, 200))) is None


def test_the_demo_has_no_near_pictures(tmp_path: Path) -> None:
    with zipfile.ZipFile(REPOSITORY / "assets" / "digits.zip") as archive:
        archive.extractall(tmp_path)
    facts = [read_facts(path) for path in sorted(tmp_path.rglob("*.png"))]
    assert len(facts) > 1000
    assert not any(fact.reason for fact in facts)
    assert all(pair.is_same_file for pair in find_pairs(facts))


def test_a_burst_gives_one_pair_for_each_later_picture() -> None:
    assert found([of_hash(1 << bit, str(bit)) for bit in range(5)]) == [(0, idx, False) for idx in range(1, 5)]


def test_a_picture_near_only_to_a_paired_one_is_paired_with_that() -> None:
    facts = [of_hash(0, "a"), of_hash(0b11_1111, "b"), of_hash(0b1111_1111_1111, "c")]
    assert found(facts) == [(0, 1, False), (1, 2, False)]


def test_pictures_of_other_proportions_are_not_near() -> None:
    landscape = of_hash(5, "a", 400, 300)
    assert found([landscape, of_hash(5, "b", 300, 400)]) == []
    assert found([landscape, of_hash(5, "c", 800, 560)]) == [(0, 1, False)]


def test_the_distance_is_counted_to_the_bit() -> None:
    ones = (1 << 64) - 1
    assert found([of_hash(ones, "a"), of_hash(ones - (0b111_1111 << 20), "b")]) == []
    assert found([of_hash(ones, "a"), of_hash(ones - (0b11_1111 << 20), "b")]) == [(0, 1, False)]


def test_nothing_gives_no_pairs() -> None:
    assert find_pairs([]) == []
    assert content_groups([]) == []


@pytest.mark.parametrize("kind", ["scattered", "alike"])
def test_the_first_near_one_is_found_as_by_comparing_all(kind: str) -> None:
    generator = np.random.default_rng(1)
    num_centers = {"scattered": 150, "alike": 3}[kind]
    centers = generator.integers(0, 2**64, num_centers, dtype=np.uint64)
    hashes = [int(value) for value in centers[generator.integers(0, num_centers, 400)]]
    for idx, bits in enumerate(generator.integers(0, 64, (400, 3))):
        hashes[idx] ^= sum(1 << int(bit) for bit in set(bits))
    expected = []
    for second in range(400):
        near = (first for first in range(second) if (hashes[first] ^ hashes[second]).bit_count() <= MAX_DISTANCE)
        expected += [(first, second, False) for first in [next(near, None)] if first is not None]
    assert len(expected) > 100
    assert found([of_hash(value, str(idx)) for idx, value in enumerate(hashes)]) == sorted(expected)


def test_an_image_without_a_hash_among_others_shifts_no_position() -> None:
    assert found([of_hash(None, "a"), of_hash(3, "b"), of_hash(None, "c"), of_hash(2, "d")]) == [(1, 3, False)]


def test_many_pictures_are_compared_without_comparing_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    num_compared = 0
    count_ones = np.bitwise_count

    def counting(numbers: np.ndarray) -> np.ndarray:
        nonlocal num_compared
        num_compared += len(numbers)
        return count_ones(numbers)

    monkeypatch.setattr(np, "bitwise_count", counting)
    num_pictures = 20_000
    generator = np.random.default_rng(2)
    scattered = [int(value) for value in generator.integers(0, 2**64, num_pictures, dtype=np.uint64)]
    one_film = [1 << int(first) | 1 << int(second) for first, second in generator.integers(0, 64, (num_pictures, 2))]
    for hashes in (scattered, one_film):
        num_compared = 0
        find_pairs([of_hash(value, str(idx)) for idx, value in enumerate(hashes)])
        assert num_compared < 100 * num_pictures
