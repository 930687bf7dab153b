"""What is known of a run: what it trains, what it will need, and what it has measured and saved."""

from __future__ import annotations

from pydantic import Field

from trainer.config import Metric, PlanPhase, RunConfig
from trainer.messages.base import Record
from trainer.messages.data_info import DataSummary
from trainer.messages.model_info import ModelSummary


class Series(Record):
    """Values of one tag: ``values[i]`` was measured at ``steps[i]`` completed optimizer updates."""

    steps: list[int]
    values: list[float]


class CheckpointInfo(Record):
    """One row of the checkpoint table. ``loss`` and ``accuracy`` are validation's, None where it did not run.

    ``metrics`` are all of validation's, by tag. ``rate`` is what the last update was made with, before the layers'
    multipliers, None in those of an earlier Thaw. The user pins it, so that it is kept, and gives it a ``label`` (some
    words) and a ``note``.
    """

    name: str
    epoch: int
    step: int
    loss: float | None
    accuracy: float | None
    metrics: dict[str, float] = Field(default_factory=dict)
    frozen: list[str]
    frozen_summary: str
    size_bytes: int
    sha256: str
    saved_at: float
    reason: str
    segment: int
    rate: float | None = None
    is_pinned: bool = False
    label: str = ""
    note: str = ""


class RewindInfo(Record):
    """A state of a run that is kept from just before a change, which it can go back to.

    ``change`` is the number of the change, ``sentence`` names it, by ``source``; ``step`` counts completed updates.
    ``resume_from`` is the checkpoint from which a run that is killed would have gone on then, None for its start.
    ``size_bytes`` and ``sha256`` are its file's, 0 and "" before there is one.
    """

    change: int
    sentence: str
    source: str
    step: int
    resume_from: str | None
    size_bytes: int = 0
    sha256: str = ""


class ConfusionMatrix(Record):
    """What the images of each class were taken for: ``counts[i][j]`` of class ``i`` were taken for class ``j``.

    ``split`` is "validation" or "test", ``checkpoint`` the one whose weights were evaluated, ``step`` its step.
    """

    split: str
    checkpoint: str
    step: int
    class_names: list[str]
    counts: list[list[int]]


class RunEstimate(Record):
    """What a run will need, reckoned from a few steps that were thrown away.

    ``seconds_per_epoch`` is of an epoch as the run begins, validation included. ``memory_bytes`` is the most that the
    steps held, of the GPU or else of the worker. ``checkpoint_bytes`` is the largest checkpoint's size, ``disk_bytes``
    that of all of them, of their base and of the decoded images that are kept, ``free_bytes`` what the disk of the runs
    has left. ``kept_bytes`` is the size of the decoded images that are kept, ``decoded_bytes`` that of all: what there
    is no room for is decoded in every epoch. ``budget_bytes`` is what the decoded images of all runs together may take.
    """

    step_ms: float
    seconds_per_epoch: float
    num_epochs: int
    memory_bytes: int
    device: str
    checkpoint_bytes: int
    disk_bytes: int
    free_bytes: int
    kept_bytes: int
    decoded_bytes: int
    budget_bytes: int


class RateCurve(Record):
    """The loss at rising rates: ``losses[i]`` as it was measured at ``rates[i]``, and smoothed.

    ``suggestion`` is the rate at which the smoothed loss fell most steeply, None where it fell at none.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None


class StepDifference(Record):
    """What of a step is not as it was: a measurement by its tag, with both values, or a tensor of the model.

    ``difference`` is between the two values, or the largest between two weights.
    """

    step: int
    what: str
    recorded: float | None
    replayed: float | None
    difference: float


class Replay(Record):
    """What came of making ``num_steps`` steps after a checkpoint again: the first difference, None where there is none.

    ``first_step`` is the checkpoint's. ``later`` is the next checkpoint, whose weights were compared, "" if none was
    within reach. ``causes`` say what is likely to be the reason for a difference; they may be there without one.
    """

    checkpoint: str
    first_step: int
    num_steps: int
    later: str
    difference: StepDifference | None
    causes: list[str]


class InForce(Record):
    """What of a run may change as it runs, as it is now.

    ``patience`` is None where nothing ends the run early. ``plan`` are the phases that have not begun, ``begun`` those
    before them. A batch goes through the model in ``batch_parts``, one after another, for less memory; all of them make
    one update.
    """

    rate: float
    epochs: int
    patience: int | None
    plan: list[PlanPhase] = Field(default_factory=list)
    begun: list[PlanPhase] = Field(default_factory=list)
    batch_parts: int = 1


class RunInfo(Record):
    """A prepared run: what was asked for is in ``config``, what was chosen for it stands beside it."""

    run_dir: str
    config: RunConfig
    summary: ModelSummary
    class_names: list[str]
    num_train: int
    num_validation: int
    num_skipped: int
    steps_per_epoch: int
    total_steps: int
    device: str
    precision: str
    num_threads: int
    image_size: int
    data_summary: DataSummary | None = None
    """What the scan of the data found, as the run last read them; None in runs of an earlier Thaw."""
    report_path: str = ""
    in_force: InForce | None = None
    """What the run trains with, where that is known to be other than ``config``."""
    made_with: dict[str, str] = Field(default_factory=dict)
    """Versions, device, precision and threads, by the words for them; empty in runs of an earlier Thaw."""
    data_fingerprint: str = ""
    weights_sha256: str = ""
    """Of the local file of weights that the run began with; "" without one."""

    @property
    def present(self) -> InForce:
        """Return what the run trains with."""
        if self.in_force is not None:
            return self.in_force
        config = self.config
        return InForce(
            rate=config.optimizer.rate,
            epochs=config.training.epochs,
            patience=config.training.patience,
            plan=config.plan,
        )

    @property
    def best_metric(self) -> Metric:
        """Return by what the run's best checkpoint is told, as it goes on now."""
        return self.config.training.best_metric(self.present.patience)
