"""Plain PyTorch: the loop that torchvision's own references have. ``python -m tests.benchmarks.speed.torch_loop TURN``.

https://github.com/pytorch/vision/tree/main/references/classification
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms import v2

from tests.benchmarks.speed.images import NUM_CLASSES
from tests.benchmarks.speed.stopwatch import (
    ALL_EPOCHS,
    BATCH_SIZE,
    IMAGE_SIZE,
    LIGHT_AREA,
    LIGHT_RATIO,
    NUM_WORKERS,
    ONE_VIEW,
    RATE,
    RESIZE_SIZE,
    Layers,
    Stopwatch,
    Turn,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BF16 = "bf16"
_LEARNING: dict[Layers, tuple[str, ...]] = {"head": ("fc.",), "last": ("layer4.", "fc."), "full": ("",)}
Loader = DataLoader[tuple[Tensor, Tensor]]


def main() -> None:
    """Take a turn."""
    watch = Stopwatch(Turn.read(sys.argv[1]))
    if watch.turn.is_first_step:
        tell_first_steps(watch)
    else:
        Loop(watch).fit()
    watch.write()


def tell_first_steps(watch: Stopwatch) -> None:
    """Note how long a first step takes from the process's start, and from where torch is loaded already."""
    began_at = watch.turn.started_at
    for _ in range(2):
        loop = Loop(watch)
        loop.step(*next(iter(loop.train_loader)))
        watch.times.first_steps_s.append(time.time() - began_at)
        began_at = time.time()


def make_loaders(images: Path, *, is_augmented: bool = True) -> tuple[Loader, Loader]:
    """Return the loaders of the training and of the validation images."""
    as_floats = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    crop = v2.RandomResizedCrop(IMAGE_SIZE, scale=LIGHT_AREA, ratio=LIGHT_RATIO, antialias=True)
    fit = [v2.Resize(RESIZE_SIZE, antialias=True), v2.CenterCrop(IMAGE_SIZE)]
    is_pinned = torch.cuda.is_available()
    train, validation = (
        DataLoader(
            ImageFolder(str(images / split), v2.Compose([*changes, *as_floats])),
            BATCH_SIZE,
            shuffle=split == "train",
            num_workers=NUM_WORKERS,
            pin_memory=is_pinned,
        )
        for split, changes in (("train", [crop] if is_augmented else fit), ("val", fit))
    )
    return train, validation


def make_model(layers: Layers) -> nn.Module:
    """Return the network, of which only these layers learn."""
    model = resnet18(weights=None, num_classes=NUM_CLASSES)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(_LEARNING[layers]))
    return model


class Loop:
    """The model, the data and the optimizer, and the loop over them."""

    def __init__(self, watch: Stopwatch) -> None:
        turn = watch.turn
        self._watch = watch
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.train_loader, self._validation_loader = make_loaders(
            Path(turn.images), is_augmented=turn.variant != ONE_VIEW
        )
        self._is_bf16 = turn.variant == BF16
        self._memory_format = torch.channels_last if self._is_bf16 else torch.contiguous_format
        self._model = make_model(turn.layers).to(self._device, memory_format=self._memory_format)
        learning = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(learning, lr=RATE)
        self._criterion = nn.CrossEntropyLoss()

    def fit(self) -> None:
        """Train epoch by epoch, until the turn is over."""
        self._watch.begin()
        for _ in range(ALL_EPOCHS):
            self._model.train()
            for images, target in self.train_loader:
                self.step(images, target)
            if not self._watch.end_epoch(self._validate()):
                return

    def step(self, images: Tensor, target: Tensor) -> None:
        """Train on a batch."""
        images, target = self._on_device(images), target.to(self._device, non_blocking=True)
        with self._precision():
            loss = self._criterion(self._model(images), target)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        # The references log it at each step.
        loss.item()
        self._watch.end_step()

    def _validate(self) -> float:
        self._model.eval()
        num_right = num_seen = 0
        with torch.inference_mode():
            for images, target in self._validation_loader:
                with self._precision():
                    logits = self._model(self._on_device(images))
                    self._criterion(logits, target.to(self._device, non_blocking=True)).item()
                num_right += int((logits.argmax(1).cpu() == target).sum())
                num_seen += len(target)
        return num_right / num_seen

    def _on_device(self, images: Tensor) -> Tensor:
        return images.to(self._device, non_blocking=True, memory_format=self._memory_format)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(self._device.type, torch.bfloat16) if self._is_bf16 else contextlib.nullcontext()


if __name__ == "__main__":
    main()
