"""Say what images show, with the model of this folder, in plain PyTorch.

    python predict.py IMAGE_OR_FOLDER... [--top 5] [--device cpu]

It needs torch, torchvision and Pillow, and executes no code of any file: the weights are read with weights_only=True.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor, nn
from torchvision.transforms import v2

# --- the model
MODEL: str = "resnet18"
MODEL_OPTIONS: dict[str, Any] = {}
HEAD_NAME: str = "fc"
HEAD_LAYERS: list[tuple[Any, ...]] = [("Linear", 512, 2, True)]
IS_APPENDED: bool = False
TASK: str = "multi_class"
CLASS_NAMES: list[str] = ["no", "yes"]
IMAGE_SIZE: int = 224
RESIZE_SIZE: int = 256
MEAN: list[float] = [0.485, 0.456, 0.406]
STD: list[float] = [0.229, 0.224, 0.225]
INTERPOLATION: str = "bilinear"
# --- end

FOLDER = Path(__file__).resolve().parent
MAX_PIXELS = 89_478_485
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2")
"""Of the files of a folder that are taken for images."""


def build_model() -> nn.Module:
    """Build the network with its head, and random weights."""
    model: nn.Module = torchvision.models.get_model(MODEL, weights=None, **MODEL_OPTIONS)
    layers = [getattr(nn, kind)(*arguments) for kind, *arguments in HEAD_LAYERS]
    head = layers[0] if len(layers) == 1 else nn.Sequential(*layers)
    parent, _, name = HEAD_NAME.rpartition(".")
    setattr(model.get_submodule(parent), name, head)
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state_dict into the model."""
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of images, float32 (B, 3, H, W), as shape (B, number of outputs)."""
    logits: Tensor = model(images)
    if IS_APPENDED:
        logits = model.get_submodule(HEAD_NAME)(logits)
    return logits


def load_rgb(path: Path) -> Image.Image:
    """Read an image as a person sees it: upright, in RGB, transparency over white, the first frame."""
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        # A large JPEG is decoded smaller where its sides can be divided so, and stay twice as large as is needed.
        for by in (8, 4, 2):
            if image.width % by == image.height % by == 0 and min(image.size) // by >= 2 * RESIZE_SIZE:
                image.draft(None, (image.width // by, image.height // by))
                break
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I") or image.mode == "F":
            return _scaled_to_8_bits(image).convert("RGB")
        if image.has_transparency_data:
            with_alpha = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", with_alpha.size, "white"), with_alpha).convert("RGB")
        return image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I") and low >= 0 and high <= 65_535:
        low, high = 0.0, 65_535.0
    elif image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif image.mode == "F" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    return Image.fromarray(np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8))


def make_fit(*, is_cut: bool = True, margin: int = 0) -> v2.Compose:
    """Return what fits an RGB image to the model's size: a uint8 tensor (3, H, W).

    Without ``is_cut``, the square is not cut from the centre; ``margin`` repeats the edge's pixels, where there is no
    cut to be made.
    """
    interpolation = v2.InterpolationMode(INTERPOLATION)
    steps: list[nn.Module] = [v2.PILToTensor()]
    if IMAGE_SIZE == RESIZE_SIZE:
        steps.append(v2.Resize([IMAGE_SIZE, IMAGE_SIZE], interpolation=interpolation, antialias=True))
        if margin:
            steps.append(v2.Pad(margin, padding_mode="edge"))
    else:
        steps.append(v2.Resize([RESIZE_SIZE], interpolation=interpolation, antialias=True))
        if is_cut:
            steps.append(v2.CenterCrop([IMAGE_SIZE, IMAGE_SIZE]))
    return v2.Compose(steps)


def normalize(images: Tensor) -> Tensor:
    """Scale images, uint8 (..., 3, H, W), as the model wants them: float32 of the same shape."""
    mean = torch.tensor(MEAN).view(3, 1, 1) * 255
    scale = 1 / (torch.tensor(STD).view(3, 1, 1) * 255)
    return images.to(torch.float32).sub_(mean).mul_(scale)


def predict(model: nn.Module, images: list[Image.Image], device: torch.device) -> Tensor:
    """Return the probability of each class for each RGB image, shape (number of images, number of classes)."""
    fit = make_fit()
    batch = normalize(torch.stack([fit(image) for image in images])).to(device)
    with torch.inference_mode():
        logits = outputs(model, batch).float().cpu()
    if TASK == "multi_class":
        return logits.softmax(dim=1)
    shares = logits.sigmoid()
    return torch.cat([1 - shares, shares], dim=1) if TASK == "binary" else shares


def read_images(paths: list[Path]) -> Iterator[tuple[Path, Image.Image | None, str]]:
    """Read image files, and those in folders. Yields each one's path, and the image or why there is none."""
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        if not files:
            yield path, None, "there is no image in this folder"
        for file in files:
            image, reason = None, ""
            try:
                image = load_rgb(file)
            except FileNotFoundError:
                reason = "there is no such file"
            except UnidentifiedImageError:
                reason = "it is not an image that can be read here"
            except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged bytes
                reason = f"it cannot be read ({(str(error).splitlines() or [type(error).__name__])[0]})"
            yield file, image, reason


def main() -> None:
    """Predict each image that the command line names; what is no image is told, and the others go on."""
    parser = argparse.ArgumentParser(description="Say what images show.")
    parser.add_argument("images", nargs="+", type=Path, help="image files, or folders of such")
    parser.add_argument("--top", type=int, default=5, help="classes to tell of each image")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    model = build_model()
    load_weights(model, FOLDER / "model.pt")
    model.to(device).eval()
    are_all_read = True
    for path, image, reason in read_images(arguments.images):
        if image is None:
            print(f"{path}: {reason}", file=sys.stderr)
            are_all_read = False
            continue
        (shares,) = predict(model, [image], device)
        found = sorted(zip(shares.tolist(), CLASS_NAMES, strict=True), reverse=True)
        if TASK == "multi_label":
            found = [(share, name) for share, name in found if share > 0.5]
        told = ", ".join(f"{name} {share:.1%}" for share, name in found[: arguments.top])
        print(f"{path}: {told or 'none of the classes'}")
    if not are_all_read:
        sys.exit(1)


if __name__ == "__main__":
    main()
