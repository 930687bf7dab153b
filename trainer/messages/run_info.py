"""What is known of a run: what it trains, what it will need, and what it has measured and saved."""

from __future__ import annotations

from pydantic import Field

from trainer.config import Metric, PlanPhase, RunConfig
from trainer.messages.base import Record
from trainer.messages.compute import ComputeChoice, Form, Precision
from trainer.messages.data_info import DataSummary
from trainer.messages.model_info import ModelSummary


class Series(Record):
    """Values of one tag: ``values[i]`` was measured at ``steps[i]`` completed optimizer updates."""

    steps: list[int]
    values: list[float]


class CheckpointInfo(Record):
    """One row of the checkpoint table. ``loss`` and ``accuracy`` are validation's, None where it did not run.

    ``metrics`` are all of validation's, by tag. ``rate`` is what the last update was made with, before the layers'
    multipliers. ``frozen``, ``multipliers`` and ``adapting`` are what a configuration would have to begin a run with
    those layers frozen, those rates and those statistics. The latter two and ``rate`` are None in those of an earlier
    Thaw. The user pins it, so that it is kept, and gives it a ``label`` (some words) and a ``note``.
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
    multipliers: dict[str, float] | None = None
    adapting: list[str] | None = None
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

    Where the features of the ``cached_layers`` are kept, ``cached_step_ms`` and ``cached_seconds_per_epoch`` are of the
    epochs after the first ``cached_views``, which compute them; ``cached_bytes`` is what they take, and
    ``cached_saved_share`` the share of a forward pass's multiply-adds that is before them. ``not_cached`` says why not
    all is cached. ``unfreezes`` is whether the plan unfreezes layers on the way: an epoch takes more time from then on.
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
    cached_step_ms: float = 0.0
    cached_seconds_per_epoch: float = 0.0
    cached_layers: str = ""
    cached_views: int = 0
    cached_bytes: int = 0
    cached_saved_share: float = 0.0
    not_cached: str = ""
    unfreezes: bool = False

    @property
    def seconds(self) -> float:
        """Return what all epochs take, if the same stays frozen."""
        num_first = min(self.cached_views, self.num_epochs) if self.cached_views else self.num_epochs
        return num_first * self.seconds_per_epoch + (self.num_epochs - num_first) * self.cached_seconds_per_epoch


class RateCurve(Record):
    """The loss at rising rates: ``losses[i]`` as it was measured at ``rates[i]``, and smoothed.

    ``suggestion`` is the rate at which the smoothed loss fell most steeply, None where it fell at none.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None


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
    precision: Precision
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
    compute: ComputeChoice | None = None
    """In which form the run is computed; None in runs of an earlier Thaw."""

    @property
    def computed_in(self) -> ComputeChoice:
        """Return in which form the run is computed."""
        if self.compute is not None:
            return self.compute
        return ComputeChoice(form=Form(precision=self.precision, num_threads=self.num_threads))

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
        return self.config.best_metric(self.present.patience)
