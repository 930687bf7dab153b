"""Make the demo that Thaw carries with it: real handwritten digits, and a backbone pretrained on printed letters.

    python assets/make_demo.py            both files, about ten minutes on two CPU cores
    python assets/make_demo.py digits     assets/digits.zip only, a second
    python assets/make_demo.py letters    assets/letters_shufflenet_v2_x0_5.pt only

The backbone has never seen a digit: it learns letters, rendered from the fonts of this machine, and the demo then
fine-tunes it on digits. Both draw black ink on white paper and reach the network as 3 x 48 x 48, normalized with the
mean and standard deviation of ImageNet. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import io
import logging
import math
import sys
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import shufflenet_v2_x0_5

log = logging.getLogger("make_demo")

ASSETS = Path(__file__).resolve().parent
DIGITS_FILE = ASSETS / "digits.zip"
LETTERS_FILE = ASSETS / "letters_shufflenet_v2_x0_5.pt"

FONT_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "C:/Windows/Fonts",
)
NO_LETTERS = ("symbol", "dingbat", "d050000l", "emoji", "icon", "math")  # families that draw no Latin letters
MIN_FAMILIES = 12
MAX_FACES_PER_FAMILY = 6  # so that a family with eighteen weights does not outvote the others

# As in the "balanced" split of EMNIST (Cohen et al. 2017, https://arxiv.org/abs/1702.05373): a small letter has a class
# of its own only where its shape is not that of its capital.
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SMALL_OF_OWN_SHAPE = "abdefghnqrt"
CLASSES = CAPITALS + SMALL_OF_OWN_SHAPE
LETTERS = CAPITALS + CAPITALS.lower()

IMAGE_SIZE = 48
GLYPH_SIZE = 64  # pixels a side of a rendered letter
GLYPH_EXTENT = 48  # pixels of its longer side
SHAPE_SIZE = 32  # pixels a side after the warp; the UCI digits were 32 x 32 bitmaps too
# Pixels a side that a letter is reduced to; each takes an equal share of a batch. Digits are 8 x 8.
REDUCED_SIZES = (8, 8, 8, 8, 8, 10, 12, 16)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Letters(NamedTuple):
    """Rendered letters: `glyphs` uint8 (N, 1, 64, 64), 255 is ink; `labels` int64 (N,), indexes of CLASSES."""

    glyphs: Tensor
    labels: Tensor


def main() -> None:
    """Read the command line and make what it names."""
    parser = argparse.ArgumentParser(description="Make the demo's digits and its backbone.")
    parser.add_argument("what", nargs="?", choices=("digits", "letters", "both"), default="both")
    parser.add_argument("--steps", type=int, default=3200, help="optimizer steps of the pretraining")
    parser.add_argument("--batch-size", type=int, default=256, help="letters a step")
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="peak of the one-cycle schedule")
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=LETTERS_FILE, help="where the backbone goes")
    arguments = parser.parse_args()
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    if arguments.what in ("digits", "both"):
        make_digits(DIGITS_FILE)
    if arguments.what in ("letters", "both"):
        torch.set_num_threads(arguments.threads)
        make_letters(
            arguments.out,
            num_steps=arguments.steps,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            weight_decay=arguments.weight_decay,
            seed=arguments.seed,
        )


def make_digits(path: Path) -> None:
    """Write the 1,797 UCI digits to a zip of `digits/<class>/<index>.png`: 8 x 8, grey, black ink on white paper.

    The bytes depend on nothing but the data and the versions of Pillow and zlib: every entry carries the same date.

    Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, https://doi.org/10.24432/C50P49, as scikit-learn carries it.
    """
    digits = load_digits()
    with zipfile.ZipFile(path, "w") as archive:
        for idx, (ink, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
            grey = 255 - np.rint(ink * (255 / 16)).astype(np.uint8)  # ink runs from 0 to 16
            png = io.BytesIO()
            Image.fromarray(grey).save(png, format="PNG", optimize=True)
            entry = zipfile.ZipInfo(f"digits/{digit}/{idx:04d}.png", date_time=(1998, 7, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # the same byte on every system
            archive.writestr(entry, png.getvalue(), compress_type=zipfile.ZIP_DEFLATED)
    log.info(f"{path.name}: {len(digits.target)} images, {path.stat().st_size / 1e6:.2f} MB")


def make_letters(
    path: Path, *, num_steps: int, batch_size: int, learning_rate: float, weight_decay: float, seed: int
) -> None:
    """Pretrain `shufflenet_v2_x0_5` on letters and write its state_dict.

    Every sixth family of fonts is held out, and the accuracy printed is on its letters.

    Raises:
        SystemExit: too few fonts are installed.

    """
    families = find_fonts()
    if len(families) < MIN_FAMILIES:
        raise SystemExit(
            f"Found {len(families)} families of fonts with Latin letters, and {MIN_FAMILIES} are needed: "
            "install more, on Debian with `apt-get install fonts-dejavu-core fonts-liberation fonts-freefont-ttf "
            "fonts-urw-base35 fonts-inter fonts-lato fonts-comic-neue fonts-breip fonts-dkg-handwriting "
            "fonts-rufscript`."
        )
    held_out = sorted(families)[3::6]
    training = render_letters([face for name in sorted(families) if name not in held_out for face in families[name]])
    validation = render_letters([face for name in held_out for face in families[name]])
    log.info(f"{len(families)} families, {len(training.labels)} letters; held out: {', '.join(held_out)}")
    for name in sorted(families):
        log.info(f"  {name}: {len(families[name])} faces")

    torch.manual_seed(seed)
    # channels_last trains a fifth faster on a CPU here; bfloat16 is slower for a network this small.
    model = shufflenet_v2_x0_5(weights=None, num_classes=len(CLASSES)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=num_steps, pct_start=0.15)
    model.train()
    start_s = time.perf_counter()
    total_loss = torch.zeros(())
    for step in range(1, num_steps + 1):
        picked = torch.randint(len(training.labels), (batch_size,))
        images = draw(training.glyphs[picked]).contiguous(memory_format=torch.channels_last)
        loss = functional.cross_entropy(model(images), training.labels[picked])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        total_loss += loss.detach()
        if step % 200 == 0 or step == num_steps:
            elapsed_s = time.perf_counter() - start_s
            log.info(f"step {step:5d}  loss {total_loss.item() / (step % 200 or 200):.3f}  {elapsed_s:.0f} s")
            total_loss.zero_()

    torch.manual_seed(seed)  # the same held-out drawings whatever the training drew
    log.info(f"accuracy on letters of the held-out families, reduced as in training: {accuracy(model, validation):.4f}")
    temporary = path.with_suffix(".tmp")
    torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, temporary)
    temporary.replace(path)
    log.info(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def find_fonts() -> dict[str, list[Path]]:
    """Return the font files of this machine that draw every letter, by family, at most six faces of each."""
    families: dict[str, list[Path]] = {}
    for folder in FONT_FOLDERS:
        root = Path(folder).expanduser()
        files = sorted(file for file in root.rglob("*") if file.suffix.lower() in (".ttf", ".otf"))
        for file in files:
            try:
                family = ImageFont.truetype(file, 16).getname()[0]
            except OSError:  # a damaged or bitmap font
                continue
            if family is None or any(word in family.lower() for word in NO_LETTERS) or not draws_letters(file):
                continue
            families.setdefault(family, []).append(file)
    return {name: spread(faces, MAX_FACES_PER_FAMILY) for name, faces in families.items()}


def draws_letters(file: Path) -> bool:
    """Whether a font draws each letter, none as the box that stands for a missing one."""
    font = ImageFont.truetype(file, 24)
    shapes = {bytes(font.getmask(letter)) for letter in LETTERS}
    return b"" not in shapes and len(shapes) > len(CAPITALS) - 2  # some fonts draw small letters as capitals


def spread(faces: list[Path], count: int) -> list[Path]:
    """Pick at most `count` faces, evenly over the list."""
    if len(faces) <= count:
        return faces
    return [faces[round(idx * (len(faces) - 1) / (count - 1))] for idx in range(count)]


def render_letters(faces: list[Path]) -> Letters:
    """Draw every letter in every face, centred, its longer side 48 of 64 pixels."""
    glyphs: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
    labels: list[int] = []
    for face in faces:
        font = ImageFont.truetype(face, 2 * GLYPH_EXTENT)
        for letter in LETTERS:
            left, top, right, bottom = font.getbbox(letter)
            drawn = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
            ImageDraw.Draw(drawn).text((-left, -top), letter, fill=255, font=font)
            scale = GLYPH_EXTENT / max(drawn.size)
            size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
            square = Image.new("L", (GLYPH_SIZE, GLYPH_SIZE))
            corner = ((GLYPH_SIZE - size[0]) // 2, (GLYPH_SIZE - size[1]) // 2)
            square.paste(drawn.resize(size, Image.Resampling.LANCZOS), corner)
            glyphs.append(np.asarray(square, dtype=np.uint8))
            labels.append(CLASSES.index(letter if letter in CLASSES else letter.upper()))
    return Letters(torch.from_numpy(np.stack(glyphs)).unsqueeze(1), torch.tensor(labels))


def draw(glyphs: Tensor) -> Tensor:
    """Turn printed letters into something between print and a small scan of handwriting.

    Each gets its own stroke thickness, slant, rotation, size, shift and wobble, is reduced to between 8 x 8 and 16 x 16
    pixels of at most 17 grey levels, as the digits are, and enlarged again. The wobble is an elastic distortion after
    Simard, Steinkraus and Platt (2003), https://doi.org/10.1109/ICDAR.2003.1227801.

    Args:
        glyphs: uint8 (N, 1, 64, 64), 255 where there is ink.

    Returns:
        float32 (N, 3, 48, 48), black ink on white paper, normalized.

    """
    ink = warp(thicken(glyphs.float() / 255))
    gain = torch.empty(len(ink), 1, 1, 1).uniform_(1.0, 4.0)
    ink = ((ink - 0.4) * gain + 0.4).clamp(0, 1)  # towards a bitmap's hard edge
    parts = []
    for part, size in zip(ink.tensor_split(len(REDUCED_SIZES)), REDUCED_SIZES, strict=True):
        small = functional.interpolate(part, size=(size, size), mode="area")
        darkest = small.amax((1, 2, 3), keepdim=True).clamp_min(0.05)  # a digit's darkest pixel is nearly always black
        small = small / darkest * torch.empty(len(part), 1, 1, 1).uniform_(0.85, 1.1) + 0.02 * torch.randn_like(small)
        small = (small.clamp(0, 1) * 16).round() / 16
        parts.append(functional.interpolate(small, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False))
    paper = 1 - torch.cat(parts)
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return (paper - mean) / std


def thicken(ink: Tensor) -> Tensor:
    """Widen the strokes of each letter by 0, 2, 4 or 6 of 64 pixels; ink (N, 1, 64, 64) in, the same out.

    A letter is widened no further where that would fill more than a third of its square, as bold ones would close up.
    """
    width = torch.randint(0, 4, (len(ink), 1, 1, 1))
    result = ink
    widened = ink
    for step in range(1, 4):
        widened = functional.max_pool2d(widened, 3, stride=1, padding=1)
        is_open = widened.mean((1, 2, 3), keepdim=True) < 1 / 3
        result = torch.where((width >= step) & is_open, widened, result)
    return result


def warp(ink: Tensor) -> Tensor:
    """Slant, rotate, resize, shift and wobble each letter; ink (N, 1, 64, 64) in, (N, 1, 32, 32) out."""
    num = len(ink)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(num).uniform_(low, high)

    angle = uniform(-0.3, 0.3)  # radians
    slant = uniform(-0.45, 0.45)
    # From output to input coordinates, both from -1 to 1; below 0.75 the longer side no longer fits.
    wide, high = uniform(0.72, 1.35), uniform(0.72, 1.0)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(num, 2, 2)
    zero, one = torch.zeros(num), torch.ones(num)
    shear = torch.stack([one, slant, zero, one], 1).view(num, 2, 2)
    size = torch.stack([wide, zero, zero, high], 1).view(num, 2, 2)
    shift = torch.empty(num, 2, 1).uniform_(-0.08, 0.08)
    grid = functional.affine_grid(
        torch.cat([rotation @ shear @ size, shift], 2), [num, 1, SHAPE_SIZE, SHAPE_SIZE], align_corners=False
    )
    strength = uniform(0.0, 0.12).view(num, 1, 1, 1)
    wobble = functional.interpolate(
        torch.randn(num, 2, 4, 4) * strength, size=(SHAPE_SIZE, SHAPE_SIZE), mode="bicubic", align_corners=True
    )
    return functional.grid_sample(ink, grid + wobble.permute(0, 2, 3, 1), align_corners=False)


@torch.inference_mode()
def accuracy(model: nn.Module, letters: Letters, batch_size: int = 512) -> float:
    """Return the share of letters named rightly, each drawn once at random."""
    model.eval()
    order = torch.randperm(len(letters.labels))  # so that every kind of letter meets every reduced size
    num_right = 0
    for picked in order.chunk(math.ceil(len(order) / batch_size)):
        named = model(draw(letters.glyphs[picked])).argmax(1)
        num_right += int((named == letters.labels[picked]).sum())
    return num_right / len(letters.labels)


if __name__ == "__main__":
    main()
