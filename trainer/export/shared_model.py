"""A run's model at one of its checkpoints, whole and by itself, with what must be known to use it."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from torch import nn

from trainer.checkpoints import CheckpointStore
from trainer.config import RunConfig
from trainer.data.transforms import Preprocessing
from trainer.environment import versions
from trainer.messages.run_info import CheckpointInfo
from trainer.models import build_model, with_version
from trainer.runs import RunFolder

INPUT_NAME = "images"
OUTPUT_NAME = "logits"

_MEANINGS = {
    "multi_class": "One number for each class, in the order of class_names; their softmax are the probabilities.",
    "binary": "One number: its sigmoid is the probability of the second of class_names.",
    "multi_label": "One number for each class, in the order of class_names; the sigmoid of each is the probability "
    "that the image shows it.",
}


class ExportError(ValueError):
    """A checkpoint that cannot be shared as asked, with the sentence for the user."""


@dataclass(frozen=True)
class SharedModel:
    """A run's model at a checkpoint.

    Attributes:
        module: The network in eval mode, on the CPU, with the checkpoint's weights.
        head: Qualified name of its head.
        preprocessing: How its images are to be prepared.
        class_names: Names of the classes, by index.
        config: The run's configuration.
        checkpoint: The checkpoint's row.
        optimizer_state: The optimizer's state_dict.
        scheduler_state: The state of the run's rates.
        run_name: The name of the run's folder.

    """

    module: nn.Module
    head: str
    preprocessing: Preprocessing
    class_names: list[str]
    config: RunConfig
    checkpoint: CheckpointInfo
    optimizer_state: dict[str, Any]
    scheduler_state: dict[str, Any]
    run_name: str

    @property
    def num_outputs(self) -> int:
        """Return how many outputs the model has."""
        return self.config.data.num_outputs(len(self.class_names))

    def description(self) -> dict[str, Any]:
        """Say in plain values what the model is, what it takes and what it gives."""
        size = self.preprocessing.image_size
        return {
            "model": self.config.model.name,
            "task": self.config.data.task,
            "class_names": self.class_names,
            "preprocessing": {
                **asdict(self.preprocessing),
                "steps": "RGB; the short side to resize_size; a square of image_size from the centre (where both are "
                "the same: the whole image to that square); values of 0 to 1; minus mean, divided by std.",
            },
            "input": {"name": INPUT_NAME, "shape": ["batch", 3, size, size], "dtype": "float32"},
            "output": {
                "name": OUTPUT_NAME,
                "shape": ["batch", self.num_outputs],
                "meaning": _MEANINGS[self.config.data.task],
            },
            # JSON has no word for what is not finite.
            "metrics": {tag: value if isfinite(value) else None for tag, value in self.checkpoint.metrics.items()},
            "run": self.run_name,
            "checkpoint": self.checkpoint.name,
            "epoch": self.checkpoint.epoch,
            "step": self.checkpoint.step,
            "versions": {**versions(), "platform": platform.platform()},
        }


def read_shared_model(folder: RunFolder, name: str) -> SharedModel:
    """Read a run's model at a checkpoint; its data are not needed.

    Args:
        folder: The run's folder, also of a live run: nothing in it is touched.
        name: A unique piece of the checkpoint's name, "best", "last", or an epoch's number.

    Raises:
        RunFolderError: There is no such checkpoint.
        CheckpointError: Its file, or the run's base, is missing or damaged.
        ModelError: This torchvision has no such model.

    """
    info = folder.checkpoints.find(name)
    checkpoint = CheckpointStore(folder, read_only=True).load(info)
    config = folder.config()
    class_names = list(checkpoint["class_names"])
    num_outputs = config.data.num_outputs(len(class_names))
    model, image_size, seed = config.model, config.data.image_size, config.training.seed
    loaded = build_model(model, num_outputs, seed, image_size, lambda *_: None, lambda: None, with_weights=False)
    loaded.module.load_state_dict(with_version(loaded.module, checkpoint["model_state_dict"]))
    return SharedModel(
        module=loaded.module.eval(),
        head=loaded.head[0],
        preprocessing=loaded.preprocessing.edited(config.data),
        class_names=class_names,
        config=config,
        checkpoint=info,
        optimizer_state=checkpoint["optimizer_state_dict"],
        scheduler_state=checkpoint["scheduler_state_dict"],
        run_name=folder.path.resolve().name,
    )
