"""fastai's ``fit`` with a frozen body. ``python -m tests.benchmarks.speed.fastai_loop TURN``."""

from __future__ import annotations

import sys
from pathlib import Path

from fastai.vision.all import (
    Callback,
    CancelFitException,
    CrossEntropyLossFlat,
    ImageDataLoaders,
    Learner,
    Normalize,
    RandomResizedCrop,
    accuracy,
    imagenet_stats,
    params,
)
from torch import nn
from torchvision.models import resnet18

from tests.benchmarks.speed.images import NUM_CLASSES
from tests.benchmarks.speed.stopwatch import (
    ALL_EPOCHS,
    BATCH_SIZE,
    IMAGE_SIZE,
    LIGHT_AREA,
    LIGHT_RATIO,
    NUM_WORKERS,
    RATE,
    Stopwatch,
    Turn,
)

_FIRST_LEARNING = {"head": -1, "last": -2, "full": 0}
"""The first of the parameter groups that learns: the stages before the last, the last, the head."""


def main() -> None:
    """Take a turn."""
    turn = Turn.read(sys.argv[1])
    watch = Stopwatch(turn)
    loaders = ImageDataLoaders.from_folder(
        Path(turn.images),
        train="train",
        valid="val",
        item_tfms=RandomResizedCrop(IMAGE_SIZE, min_scale=LIGHT_AREA[0], ratio=LIGHT_RATIO),
        batch_tfms=Normalize.from_stats(*imagenet_stats),
        bs=BATCH_SIZE,
        num_workers=NUM_WORKERS,
    )
    learner = Learner(
        loaders,
        resnet18(weights=None, num_classes=NUM_CLASSES),
        loss_func=CrossEntropyLossFlat(),
        metrics=accuracy,
        splitter=split_groups,
        path=Path(turn.scratch),
        cbs=[Watcher(watch)],
    )
    learner.freeze_to(_FIRST_LEARNING[turn.layers])
    learner.fit(ALL_EPOCHS, lr=RATE)
    watch.write()


def split_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of the stages before the last one, of that, and of the head."""
    body = [layer for name, layer in model.named_children() if name not in {"layer4", "fc"}]
    return [params(nn.ModuleList(body)), params(model.layer4), params(model.fc)]


class Watcher(Callback):  # type: ignore[misc]
    """Notes when what happens, and ends the fit with the turn."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def before_fit(self) -> None:
        """Note the beginning."""
        self._watch.begin()

    def after_batch(self) -> None:
        """Note a step."""
        if self.training:
            self._watch.end_step()

    def after_validate(self) -> None:
        """Note an epoch, of which the recorder has the accuracy."""
        if not self._watch.end_epoch(float(self.learn.metrics[-1].value)):
            raise CancelFitException


if __name__ == "__main__":
    main()
