"""Events: what a worker says has happened. Those that change what a live run trains with are in ``changes``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer.messages.base import Event
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    PhaseBegan,
    PlanChanged,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    TrainingChanged,
)
from trainer.messages.data_info import DataSummary, ImageView
from trainer.messages.model_info import ModelEntry, ModelSummary, WeightsReport
from trainer.messages.run_info import CheckpointInfo, RateCurve, RunEstimate, RunInfo, Series
from trainer.messages.states import RunState


class RewindsKept(Event):
    """The worker keeps the states before these ``changes``, by their numbers.

    They take ``num_bytes`` of memory and ``disk_bytes`` in files. ``undo_step`` is where the run was before the last
    rewind, None where that cannot be undone.
    """

    kind: Literal["RewindsKept"] = "RewindsKept"
    changes: list[int]
    num_bytes: int
    budget_bytes: int
    disk_bytes: int = 0
    disk_budget_bytes: int = 0
    undo_step: int | None = None


class WorkerAttached(Event):
    """The first event on each connection: the worker's state, and the run's if there is one."""

    kind: Literal["WorkerAttached"] = "WorkerAttached"
    state: RunState
    pid: int
    torch_version: str
    devices: list[str]
    run: RunInfo | None = None
    step: int = 0
    epoch: int = 0
    rewinds: RewindsKept | None = None
    features: FeaturesCached | None = None
    paused: StateChanged | None = None
    """Why the run is paused, and what is offered; None where it is not."""


class StateChanged(Event):
    """The worker's state is now ``state``; ``sentence`` says why where a person needs to know.

    ``offered_rate`` is half the present rate where the run was paused because a loss was not finite, else None.
    ``offered_parts`` are those in which a batch would need about half the memory, where there was too little of it.
    """

    kind: Literal["StateChanged"] = "StateChanged"
    state: RunState
    sentence: str = ""
    offered_rate: float | None = None
    offered_parts: int | None = None


class CommandRejected(Event):
    """A command was refused. ``reason`` is the sentence for the user; ``field`` names the config field at fault.

    Where several fields are, ``sentences`` has what is wrong with each, ``reason`` has a line for each, and ``field``
    is the first. ``choices`` are values that the field could have instead, where they are known. ``is_cancelled``:
    nothing is at fault, the user ended it. ``changes``: what is another one by now, where a run can go on all the same.
    """

    kind: Literal["CommandRejected"] = "CommandRejected"
    command: str
    reason: str
    field: str = ""
    sentences: dict[str, str] = Field(default_factory=dict)
    choices: list[str] = Field(default_factory=list)
    is_cancelled: bool = False
    changes: list[str] = Field(default_factory=list)

    @property
    def by_field(self) -> dict[str, str]:
        """Return what is wrong with each field at fault; "" stands for the whole."""
        return self.sentences or {self.field: self.reason}


class ModelInspected(Event):
    """The tree of a model that was asked about; ``weights`` says how its local file of weights fits, if it has one."""

    kind: Literal["ModelInspected"] = "ModelInspected"
    summary: ModelSummary
    weights: WeightsReport | None = None


class ModelsListed(Event):
    """The models that can be fine-tuned, by name."""

    kind: Literal["ModelsListed"] = "ModelsListed"
    models: list[ModelEntry]


class DataChecked(Event):
    """What a scan of the data set at ``path`` found. ``report_path`` is the file with every image and issue."""

    kind: Literal["DataChecked"] = "DataChecked"
    path: str
    summary: DataSummary
    report_path: str


class RunEstimated(Event):
    """What a run that was asked about will need."""

    kind: Literal["RunEstimated"] = "RunEstimated"
    estimate: RunEstimate


class RateFound(Event):
    """The loss at rising rates, of the run that was asked about."""

    kind: Literal["RateFound"] = "RateFound"
    curve: RateCurve


class ImagePreviewed(Event):
    """What the model sees of the image at ``path``, epoch by epoch."""

    kind: Literal["ImagePreviewed"] = "ImagePreviewed"
    path: str
    views: list[ImageView]


class PreparationProgressed(Event):
    """Long work before a run: ``what`` is a phrase ("Downloading resnet18"), ``done`` of ``total`` in ``unit``."""

    kind: Literal["PreparationProgressed"] = "PreparationProgressed"
    what: str
    done: int
    total: int
    unit: str


class RunPrepared(Event):
    """Data and model are loaded; the run folder exists. What follows belongs to ``segment``, after ``step``.

    ``parent`` is the segment that it goes on from, None for a run's first and where that is not known.
    """

    kind: Literal["RunPrepared"] = "RunPrepared"
    run: RunInfo
    step: int
    epoch: int
    segment: int = 0
    parent: int | None = None


class MetricsLogged(Event):
    """A batch of measurements by tag ("Loss/train", "Accuracy/validation", "Learning rate")."""

    kind: Literal["MetricsLogged"] = "MetricsLogged"
    segment: int
    series: dict[str, Series]


class MetricsSkipped(Event):
    """Metrics were dropped for a client that was too slow; they are all in run.db, where the client reads them."""

    kind: Literal["MetricsSkipped"] = "MetricsSkipped"


class ProgressReported(Event):
    """Where the run stands. ``epoch`` counts completed epochs; ``seconds_left`` is None until it can be told.

    ``num_epochs_no_better`` counts the epochs since validation was last better; at ``patience`` of them the run ends,
    where that is not None. ``cached_share`` is the share of the present epoch's training features that are there, 0 to
    1, None where they are not cached. ``num_compiled`` graphs of the model went through torch.compile, and no more will
    when that limit is reached.
    """

    kind: Literal["ProgressReported"] = "ProgressReported"
    epoch: int
    num_epochs: int
    step: int
    total_steps: int
    samples_per_s: float
    seconds_left: float | None
    step_ms: float
    worker_bytes: int
    phase: Literal["train", "validation"] = "train"
    num_epochs_no_better: int = 0
    patience: int | None = None
    cached_share: float | None = None
    num_compiled: int = 0
    is_compile_limit_reached: bool = False


class LayerStatsReported(Event):
    """What one update did in each layer that it moved, sampled now and then.

    ``layers`` are units; the L2 norms of each are of its gradient before it was clipped, of the change of its weights,
    and of its weights before that. ``step`` counts completed updates, this one included.
    """

    kind: Literal["LayerStatsReported"] = "LayerStatsReported"
    step: int
    segment: int
    layers: list[str]
    gradient_norms: list[float]
    update_norms: list[float]
    weight_norms: list[float]


class ChangeAdvised(Event):
    """The next freeze or unfreeze is proposed, with the numbers that speak for it; nothing was done."""

    kind: Literal["ChangeAdvised"] = "ChangeAdvised"
    layers: list[str]
    is_freeze: bool
    sentence: str
    step: int
    segment: int


class FreezeVerified(Event):
    """Every frozen layer's bytes were hashed again at ``step``: ``drifted`` names those that changed (a defect).

    ``num_adapting`` of the frozen layers were hashed without their running statistics, which go on.
    """

    kind: Literal["FreezeVerified"] = "FreezeVerified"
    step: int
    num_verified: int
    drifted: list[str]
    num_adapting: int = 0


class FeaturesCached(Event):
    """What is computed only once an image from now on, as it was decided for what is frozen.

    ``layers`` are the units whose outputs are kept, none where nothing is cached; ``sentence`` tells them briefly. Of a
    training image ``views`` views are kept, 0 where only validation's are. It comes in ``fixed_views`` views in turn,
    kept or not, 0 where each epoch has a new one.
    ``saved_share`` is the share of a forward pass's multiply-adds that is before the cut. ``num_bytes`` is what all
    features take when they are there, in memory, on the disk, or both. ``reason`` says why not all is cached. It is so
    from ``applied_step`` completed updates on.
    """

    kind: Literal["FeaturesCached"] = "FeaturesCached"
    layers: list[str]
    sentence: str
    views: int
    fixed_views: int
    saved_share: float
    num_bytes: int
    is_in_memory: bool
    is_on_disk: bool
    reason: str
    applied_step: int
    segment: int


class CheckpointSaved(Event):
    """A checkpoint is durable on disk and listed in run.db."""

    kind: Literal["CheckpointSaved"] = "CheckpointSaved"
    checkpoint: CheckpointInfo


class CheckpointEdited(Event):
    """A checkpoint was pinned or not, or given another label or note: it is as ``checkpoint`` says."""

    kind: Literal["CheckpointEdited"] = "CheckpointEdited"
    checkpoint: CheckpointInfo


class CheckpointsDeleted(Event):
    """Checkpoints are listed no more; their files held ``freed_bytes``.

    ``problem`` says which could not be deleted, ``kept`` which were to go, too, and stay for a reason.
    """

    kind: Literal["CheckpointsDeleted"] = "CheckpointsDeleted"
    names: list[str]
    freed_bytes: int
    problem: str = ""
    kept: str = ""


class CheckpointsPutBack(Event):
    """Deleted checkpoints are listed again; ``problem`` says which could not be."""

    kind: Literal["CheckpointsPutBack"] = "CheckpointsPutBack"
    checkpoints: list[CheckpointInfo]
    problem: str = ""


class LogWritten(Event):
    """A line for the run's log."""

    kind: Literal["LogWritten"] = "LogWritten"
    level: Literal["info", "warning", "error"]
    text: str


AnyEvent = Annotated[
    WorkerAttached
    | StateChanged
    | CommandRejected
    | ModelInspected
    | ModelsListed
    | DataChecked
    | RunEstimated
    | RateFound
    | ImagePreviewed
    | PreparationProgressed
    | RunPrepared
    | MetricsLogged
    | MetricsSkipped
    | ProgressReported
    | LayerStatsReported
    | RateChanged
    | RateMultiplierChanged
    | BatchNormChanged
    | TrainingChanged
    | ChangeAdvised
    | LayersFrozen
    | LayersUnfrozen
    | PhaseBegan
    | PlanChanged
    | FreezeVerified
    | FeaturesCached
    | CheckpointSaved
    | CheckpointEdited
    | CheckpointsDeleted
    | CheckpointsPutBack
    | CheckpointRestored
    | RunRewound
    | RewindUndone
    | RewindsKept
    | LogWritten,
    Field(discriminator="kind"),
]
