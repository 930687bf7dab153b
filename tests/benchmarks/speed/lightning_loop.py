"""Lightning with its own BackboneFinetuning. ``python -m tests.benchmarks.speed.lightning_loop TURN``."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, Callback
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from tests.benchmarks.speed.images import NUM_CLASSES
from tests.benchmarks.speed.stopwatch import ALL_EPOCHS, RATE, Stopwatch, Turn
from tests.benchmarks.speed.torch_loop import make_loaders

_NEVER = 10**6
_FIRST_LEARNING = {"head": "fc", "last": "layer4"}


def main() -> None:
    """Take a turn."""
    turn = Turn.read(sys.argv[1])
    watch = Stopwatch(turn)
    train_loader, validation_loader = make_loaders(Path(turn.images))
    callbacks: list[Callback] = [Watcher(watch)]
    if turn.layers != "full":
        callbacks.append(BackboneFinetuning(unfreeze_backbone_at_epoch=_NEVER))
    trainer = lightning.Trainer(max_epochs=ALL_EPOCHS, callbacks=callbacks, default_root_dir=turn.scratch)
    trainer.fit(Classifier(_FIRST_LEARNING.get(turn.layers, "conv1")), train_loader, validation_loader)
    watch.write()


class Classifier(lightning.LightningModule):
    """The network in two parts: the backbone, all before a layer, and what learns from the start."""

    def __init__(self, first_learning: str) -> None:
        super().__init__()
        parts = list(resnet18(weights=None, num_classes=NUM_CLASSES).named_children())
        cut = [name for name, _ in parts].index(first_learning)
        layers = [layer for _, layer in parts]
        layers.insert(-1, nn.Flatten())
        self.backbone = nn.Sequential(*layers[: cut + (first_learning == "fc")])
        self.rest = nn.Sequential(*layers[cut + (first_learning == "fc") :])

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.rest(self.backbone(images))
        return logits

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        """Return the loss of a batch."""
        images, target = batch
        loss = cross_entropy(self(images), target)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        """Log the loss and the accuracy."""
        images, target = batch
        logits = self(images)
        self.log("val_loss", cross_entropy(logits, target))
        self.log("val_accuracy", (logits.argmax(1) == target).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer of what learns."""
        return torch.optim.AdamW([each for each in self.parameters() if each.requires_grad], lr=RATE)


class Watcher(Callback):
    """Notes when what happens, and ends the fit with the turn."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def on_train_start(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Begin after Lightning's trial of the validation."""
        self._watch.begin()

    def on_train_batch_end(self, *_: object) -> None:
        """Note a step."""
        self._watch.end_step()

    def on_validation_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        """Note an epoch."""
        if not trainer.sanity_checking:
            trainer.should_stop |= not self._watch.end_epoch(float(trainer.callback_metrics["val_accuracy"]))


if __name__ == "__main__":
    main()
