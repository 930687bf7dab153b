"""Comparing checkpoints: what is asked of the process that does it, and what it found."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.messages.base import Command, Event, Record
from trainer.messages.run_info import CheckpointInfo


class CheckpointPlace(Record):
    """A checkpoint by its file's name and its run's folder, an absolute path."""

    run_dir: str
    checkpoint: str


class CompareCheckpoints(Command):
    """Compare checkpoints with the first of them. An errand (``trainer.errand``), not for a worker.

    ``with_confusion`` evaluates those whose confusion matrix is not kept any more, which takes a validation each.
    """

    kind: Literal["CompareCheckpoints"] = "CompareCheckpoints"
    checkpoints: list[CheckpointPlace] = Field(min_length=2)
    with_confusion: bool = True


class LayerDistance(Record):
    """How far the weights of a layer, with all below it, are from those of the first checkpoint.

    ``distance`` is the L2 norm of the difference, ``relative`` that by the norm of the first one's weights (infinite
    where these are all 0), ``cosine`` that of the angle between the two, None where either is all 0. They are of the
    ``num_compared`` values that both have. NaN where a weight is NaN or infinite.

    ``is_equal`` says that nothing differs by a bit, running statistics included; ``is_frozen`` that all of the layer
    was frozen as the checkpoint was saved.
    """

    distance: float
    relative: float
    cosine: float | None
    num_compared: int
    is_equal: bool
    is_frozen: bool


class ComparedLayer(Record):
    """A layer of the first checkpoint's model, with what it is in each of the others.

    ``norm`` is that of its ``num_values`` weights; ``distances`` has None for each other checkpoint that has nothing of
    the layer.
    """

    fqn: str
    type: str
    num_values: int
    norm: float
    is_frozen: bool
    distances: list[LayerDistance | None]


class ComparedCheckpoint(Record):
    """One of the checkpoints. ``title`` names it for people: "epoch 3", with the run's name where there are several.

    ``not_finite`` names the tensors with a weight that is NaN or infinite. ``unmatched`` says of each layer that only
    one of the models has, or has in another shape, what it is, and is empty for the first checkpoint.
    """

    title: str
    run_dir: str
    info: CheckpointInfo
    not_finite: list[str] = Field(default_factory=list)
    unmatched: list[str] = Field(default_factory=list)


class ConfusionCounts(Record):
    """A confusion matrix without its zeros, of which one of a thousand classes is full.

    ``counts[k]`` images of the class ``cells[k] // C`` were taken for the class ``cells[k] % C``, of C classes.
    """

    cells: list[int]
    counts: list[int]


class ComparedConfusion(Record):
    """The confusion matrices of validation, of each checkpoint in order; None, with the problem, where there is none.

    ``problems`` has "" where there is a matrix.
    """

    class_names: list[str]
    matrices: list[ConfusionCounts | None]
    problems: list[str]


class SettingDifference(Record):
    """A setting that is not the same in all of the checkpoints, with its value in each; None where it has none.

    ``name`` is a field of the configuration ("optimizer.rate"), whose values are plain ones, or one of:
    "checkpoint.rate" and "checkpoint.frozen", as it was saved; "training.batch_parts"; "data.fingerprint"; "made_with."
    with what else the figures depend on. The rate, the epochs, the patience, the parts of a batch and the plan are
    those in force as the checkpoint was saved, all else is as its run began; layers go by their fewest names.
    """

    name: str
    values: list[Any]


class CheckpointsCompared(Event):
    """What differs between checkpoints; ``layers`` are in the model's order, the whole model ("") first.

    ``layers_problem`` is the sentence in the place of layers where the models have none in common.
    """

    kind: Literal["CheckpointsCompared"] = "CheckpointsCompared"
    checkpoints: list[ComparedCheckpoint]
    layers: list[ComparedLayer]
    layers_problem: str
    settings: list[SettingDifference]
    confusion: ComparedConfusion
