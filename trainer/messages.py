"""The vocabulary of the app and the worker: commands, events, states. Plain values only, so that no torch crosses."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainer.config import DataConfig, ModelConfig, PlanPhase, RunConfig


class RunState(StrEnum):
    """Where a worker stands with its one run."""

    STARTING = "starting"
    IDLE = "idle"
    PREPARING = "preparing"
    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_live(self) -> bool:
        """Whether a run is in the worker's hands and can still change."""
        return self in {S.PREPARING, S.READY, S.RUNNING, S.PAUSED, S.STOPPING}


S = RunState

SPLITS = ("train", "validation", "test")
"""The parts of a data set, in the order in which they matter."""

TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    S.STARTING: frozenset({S.IDLE}),
    S.IDLE: frozenset({S.PREPARING}),
    S.PREPARING: frozenset({S.READY, S.IDLE}),
    S.READY: frozenset({S.RUNNING, S.STOPPED}),
    S.RUNNING: frozenset({S.PAUSED, S.STOPPING, S.FINISHED, S.FAILED}),
    S.PAUSED: frozenset({S.RUNNING, S.STOPPING, S.FAILED}),
    S.STOPPING: frozenset({S.STOPPED, S.PAUSED, S.FAILED}),
    S.FINISHED: frozenset({S.READY}),
    S.STOPPED: frozenset({S.READY, S.RUNNING}),
    S.FAILED: frozenset(),
}
"""The allowed transitions.

A refused preparation goes back to IDLE. A stop whose save fails goes to PAUSED: nothing is lost. STOPPED goes on where
it was by a start, and goes to READY by a restore, as FINISHED does.
"""


BYTES_PER_VALUE = 4
"""Of a parameter, or of an activation, in fp32."""

SMALL_IMAGE_SIZE = 96
"""Side in pixels up to which an image is not cut."""


class _Message(BaseModel):
    # NaN and infinity are losses that a user must see: pydantic's default would turn them into null.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


# ---------------------------------------------------------------------------------------------------------------
# Plain records that events carry and run.db keeps
# ---------------------------------------------------------------------------------------------------------------


class LayerInfo(_Message):
    """One module of the model's tree that has parameters, buffers or children.

    ``fqn`` is the qualified name in the stock model ("layer4.0.conv1"); the root is "". ``num_params`` counts the
    subtree's unique parameters; ``is_unit`` says that the module owns parameters or buffers itself, so that a freeze
    set can name it. ``is_head`` marks the task's head: a layer, or the container of its layers. ``has_statistics``: it
    keeps running statistics, as BatchNorm does.

    What one image costs in the subtree: ``output_shape`` without the batch, empty where the layer is not called by
    itself; ``mult_adds``; ``activation_bytes`` in fp32, of the outputs of the layers with parameters.
    """

    fqn: str
    type: str
    num_params: int
    is_unit: bool
    is_head: bool = False
    output_shape: list[int] = Field(default_factory=list)
    mult_adds: int = 0
    activation_bytes: int = 0
    has_statistics: bool = False


class Series(_Message):
    """Values of one tag: ``values[i]`` was measured at ``steps[i]`` completed optimizer updates."""

    steps: list[int]
    values: list[float]


class CheckpointInfo(_Message):
    """One row of the checkpoint table. ``loss`` and ``accuracy`` are validation's, None where it did not run."""

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


class ConfusionMatrix(_Message):
    """What the images of each class were taken for: ``counts[i][j]`` of class ``i`` were taken for class ``j``.

    ``split`` is "validation" or "test", ``checkpoint`` the one whose weights were evaluated, ``step`` its step.
    """

    split: str
    checkpoint: str
    step: int
    class_names: list[str]
    counts: list[list[int]]


class TableColumns(_Message):
    """The columns of a table of images: their names, and which of them were taken for what.

    ``taken`` names columns by the config field that chooses another one ("label_column"); what was looked for and not
    found is not in it.
    """

    names: list[str]
    taken: dict[str, str]


class DataSummary(_Message):
    """What a scan of a data set found, in a few figures. Every image and issue is in the report (``data_report``).

    ``counts`` has for each split ("train", "validation", "test") the images of each class, in the order of
    ``class_names``; ``num_images`` all images of each split, and ``is_multi_label`` says whether some of them have
    several classes, or none. ``issue_counts`` counts the issues by kind. ``advice`` are sentences about what to look at
    before a run. ``image_sides`` are the smallest, median and largest (width, height), by area, in pixels; ``aspects``
    the lowest, median and highest of width divided by height. ``columns`` are a table's, None in another layout.
    """

    layout: str
    class_names: list[str]
    counts: dict[str, list[int]]
    num_images: dict[str, int] = Field(default_factory=dict)
    is_multi_label: bool = False
    num_skipped: int = 0
    issue_counts: dict[str, int] = Field(default_factory=dict)
    advice: list[str] = Field(default_factory=list)
    image_sides: list[tuple[int, int]] = Field(default_factory=list)
    aspects: list[float] = Field(default_factory=list)
    num_bytes: int = 0
    columns: TableColumns | None = None

    @model_validator(mode="after")
    def _counts_images(self) -> DataSummary:
        # Not in those that earlier versions wrote: there, each image had one class.
        if not self.num_images:
            self.num_images.update({split: sum(counts) for split, counts in self.counts.items()})
        return self

    @property
    def class_counts(self) -> dict[str, int]:
        """Return each class's images over all splits."""
        return {name: sum(counts[idx] for counts in self.counts.values()) for idx, name in enumerate(self.class_names)}


class ModelSummary(_Message):
    """What the tree shows of a model, before or during a run.

    ``image_size`` is the side in pixels of the image for which the layers' costs were counted, 0 if they were not.
    """

    model: str
    layers: list[LayerInfo]
    frozen: list[str]
    num_params: int
    num_trainable: int
    image_size: int = 0
    multipliers: dict[str, float] = Field(default_factory=dict)
    """What the rate is multiplied by in single units; 1 where a unit is not named."""
    adapting: list[str] = Field(default_factory=list)
    """The units whose running statistics go on when they are frozen."""

    @property
    def input_bytes(self) -> int:
        """Return the size of one image, in fp32."""
        return BYTES_PER_VALUE * 3 * self.image_size**2

    @property
    def forward_backward_bytes(self) -> int:
        """Return the size of one image's activations and of their gradients, where everything is trained."""
        return 2 * self.layers[0].activation_bytes if self.layers else 0

    @property
    def param_bytes(self) -> int:
        """Return the size of the parameters, in fp32."""
        return BYTES_PER_VALUE * self.num_params


class RunEstimate(_Message):
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


class RateCurve(_Message):
    """The loss at rising rates: ``losses[i]`` as it was measured at ``rates[i]``, and smoothed.

    ``suggestion`` is the rate at which the smoothed loss fell most steeply, None where it fell at none.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None


class ImagePreset(_Message):
    """How a model wants its images: sides in pixels, mean and std of red, green and blue for values of 0 to 1.

    The short side is resized to ``resize_size`` and a square of ``image_size`` cut from the centre.
    """

    image_size: int
    resize_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def resized_to(self, image_size: int) -> ImagePreset:
        """Return the same with another image size, in the same proportion to the size before the cut.

        A small image has no border to spare: it is resized to the square instead of cut from a larger one.
        """
        in_proportion = max(image_size, round(image_size * self.resize_size / self.image_size))
        resize_size = image_size if image_size <= SMALL_IMAGE_SIZE else in_proportion
        return self.model_copy(update={"image_size": image_size, "resize_size": resize_size})


class WeightSet(_Message):
    """Published weights of a model, by the name that a configuration takes ("IMAGENET1K_V2").

    ``accuracy`` is the published top-1 accuracy on ImageNet, 0 to 1; ``is_cached``: they are on this disk already.
    ``images`` is how a run with them has its images, unless its configuration says otherwise.
    """

    name: str
    accuracy: float
    size_bytes: int
    is_cached: bool
    images: ImagePreset


class ModelEntry(_Message):
    """A model on offer. Published figures of its default weights; ``is_cached``: they are on this disk already.

    ``images`` is how a run of the model has its images, unless it has other published weights or its configuration says
    otherwise. ``weight_sets`` are all its published weights, the default ones first.
    """

    name: str
    num_params: int
    accuracy: float
    size_bytes: int
    is_cached: bool
    images: ImagePreset
    weight_sets: list[WeightSet] = Field(default_factory=list)

    def weight_set(self, name: str) -> WeightSet | None:
        """Return published weights by their name; "published" are the default ones."""
        if name == "published":
            return next(iter(self.weight_sets), None)
        return next((each for each in self.weight_sets if each.name == name), None)


class MisshapenTensor(_Message):
    """A tensor of a weights file that has another shape than the model's of that name."""

    key: str
    in_file: list[int]
    in_model: list[int]


class WeightsReport(_Message):
    """How the tensors of a weights file fit a model, before they are used.

    ``sentence`` says it in words, and why it cannot be read where it cannot. ``num_fitting`` tensors would be taken;
    ``is_head_new``: the file has none for the task's head, or of another shape, which is no fault. ``missing`` are the
    model's keys that the file lacks, ``unexpected`` the file's that the model lacks.
    """

    path: str
    is_usable: bool
    sentence: str
    num_fitting: int = 0
    is_head_new: bool = True
    missing: list[str] = Field(default_factory=list)
    unexpected: list[str] = Field(default_factory=list)
    misshapen: list[MisshapenTensor] = Field(default_factory=list)


class ImageView(_Message):
    """What the model sees of an image in an epoch: the PNG file of its pixels, "" where the epoch does without it.

    ``epoch`` counts from 1; None stands for every epoch. ``num_times`` says how often the epoch has the image: the file
    shows the first time. ``mixed_with`` is the class of the image that is mixed in, "" if none is, and ``mixed_share``
    that image's share, 0 to 1.
    """

    file: str
    epoch: int | None
    num_times: int = 1
    mixed_with: str = ""
    mixed_share: float = 0.0


class InForce(_Message):
    """What of a run may change as it runs, as it is now.

    ``patience`` is None where nothing ends the run early. ``plan`` are the phases that have not begun.
    """

    rate: float
    epochs: int
    patience: int | None
    plan: list[PlanPhase] = Field(default_factory=list)


class RunInfo(_Message):
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


# ---------------------------------------------------------------------------------------------------------------
# Commands: what a client asks for
# ---------------------------------------------------------------------------------------------------------------


class Command(_Message):
    """A request to the worker. ``command_id`` comes back in the event that answers it."""

    command_id: str = ""


class InspectModel(Command):
    """Build the model on no device and report its tree, before there is a run. Its head has ``num_classes`` outputs.

    ``image_size`` is the side of its images in pixels, None for the weights' own. A local file of weights is compared.
    """

    kind: Literal["InspectModel"] = "InspectModel"
    model: ModelConfig
    num_classes: int = Field(ge=1)
    image_size: int | None = None


class ListModels(Command):
    """List the models that can be fine-tuned."""

    kind: Literal["ListModels"] = "ListModels"


class CheckData(Command):
    """Scan a data set and report its classes and counts, before there is a run."""

    kind: Literal["CheckData"] = "CheckData"
    data: DataConfig
    seed: int = 7


class EstimateRun(Command):
    """Try a few steps of a run, without its published weights, and report what the whole of it will need."""

    kind: Literal["EstimateRun"] = "EstimateRun"
    config: RunConfig
    runs_dir: str


class FindRate(Command):
    """Train some steps at rising rates, undo them to the bit, and report the loss at each.

    With ``config`` it is a trial of a run that does not exist yet, whose folder would be in ``runs_dir``; without, the
    worker's own run, which must be waiting.
    """

    kind: Literal["FindRate"] = "FindRate"
    config: RunConfig | None = None
    runs_dir: str = ""


class PreviewImage(Command):
    """Write what the model sees of one image, by its absolute path, in ``num_views`` epochs of a run.

    The run need not be the worker's, nor exist yet: ``report_path`` is the report of its data. Of the worker's own run,
    the epochs from the present one on are shown, else the first ones.
    """

    kind: Literal["PreviewImage"] = "PreviewImage"
    config: RunConfig
    report_path: str
    path: str
    num_views: int = Field(6, ge=1, le=16)


class CancelLookUp(Command):
    """End the check, estimate, search for a rate or preview that goes on; it is answered by a refusal."""

    kind: Literal["CancelLookUp"] = "CancelLookUp"


class PrepareRun(Command):
    """Make a run folder for ``config`` under ``runs_dir`` and load data and model. Starts at once if ``start``."""

    kind: Literal["PrepareRun"] = "PrepareRun"
    config: RunConfig
    runs_dir: str
    start: bool = True


class OpenRun(Command):
    """Load an existing run at a checkpoint (None: the last one). Goes on at once if ``start``."""

    kind: Literal["OpenRun"] = "OpenRun"
    run_dir: str
    checkpoint: str | None = None
    start: bool = True


class StartRun(Command):
    """Begin, or go on with, a prepared run."""

    kind: Literal["StartRun"] = "StartRun"


class PauseRun(Command):
    """Stop between two steps; everything stays in memory."""

    kind: Literal["PauseRun"] = "PauseRun"


class UnpauseRun(Command):
    """Go on after a pause."""

    kind: Literal["UnpauseRun"] = "UnpauseRun"


class StopRun(Command):
    """End the run at the next step boundary, saving a checkpoint first if ``save``."""

    kind: Literal["StopRun"] = "StopRun"
    save: bool = True


class FreezeLayers(Command):
    """Freeze layers, by qualified name; "backbone" and "head" name those parts. Atomic: all of them or none.

    With ``is_exact`` the names are those of units, and stand for nothing below them.
    """

    kind: Literal["FreezeLayers"] = "FreezeLayers"
    layers: list[str]
    is_exact: bool = False


class UnfreezeLayers(Command):
    """Unfreeze layers, by qualified name; "backbone" and "head" name those parts. ``is_exact`` as in FreezeLayers."""

    kind: Literal["UnfreezeLayers"] = "UnfreezeLayers"
    layers: list[str]
    is_exact: bool = False


class SetRate(Command):
    """Change the run's learning rate at the next step boundary; its schedule goes on from the new one."""

    kind: Literal["SetRate"] = "SetRate"
    rate: float = Field(gt=0, le=10)


class SetRateMultiplier(Command):
    """Multiply the rate in single layers from the next step boundary on; 1 is the run's own rate."""

    kind: Literal["SetRateMultiplier"] = "SetRateMultiplier"
    layers: list[str]
    multiplier: float = Field(gt=0, le=1000)
    is_exact: bool = False


class SetPlan(Command):
    """Have these phases follow those of the plan that have begun, from the next step boundary on."""

    kind: Literal["SetPlan"] = "SetPlan"
    phases: list[PlanPhase]


class SetBatchNorm(Command):
    """Let the running statistics at and below layers go on while these are frozen, or freeze them along."""

    kind: Literal["SetBatchNorm"] = "SetBatchNorm"
    layers: list[str]
    is_adapting: bool


class ChangeTraining(Command):
    """Change at the next step boundary how long the run is; its schedule then spans the new length.

    ``epochs`` counts all epochs of the run, those completed included; a ``patience`` of 0 ends nothing early. What is
    None stays as it is.
    """

    kind: Literal["ChangeTraining"] = "ChangeTraining"
    epochs: int | None = Field(None, ge=1, le=10_000)
    patience: int | None = Field(None, ge=0, le=10_000)


class Rewind(Command):
    """Go back to the state just before a change, at the next step boundary, as long as the worker keeps that state.

    ``change`` is the number of a freeze or a change of the rate; else ``step`` names the first change after that many
    updates; without either it is the last one.
    """

    kind: Literal["Rewind"] = "Rewind"
    change: int | None = None
    step: int | None = None


class SaveCheckpoint(Command):
    """Save a checkpoint at the next step boundary."""

    kind: Literal["SaveCheckpoint"] = "SaveCheckpoint"


class RestoreCheckpoint(Command):
    """Put a checkpoint's weights, optimizer and freeze set into the live run at the next step boundary."""

    kind: Literal["RestoreCheckpoint"] = "RestoreCheckpoint"
    name: str


class ShutDown(Command):
    """End the worker process, after stopping a live run (saved) if there is one."""

    kind: Literal["ShutDown"] = "ShutDown"


AnyCommand = Annotated[
    InspectModel
    | ListModels
    | CheckData
    | EstimateRun
    | FindRate
    | PreviewImage
    | CancelLookUp
    | PrepareRun
    | OpenRun
    | StartRun
    | PauseRun
    | UnpauseRun
    | StopRun
    | FreezeLayers
    | UnfreezeLayers
    | SetRate
    | SetRateMultiplier
    | SetPlan
    | SetBatchNorm
    | ChangeTraining
    | Rewind
    | SaveCheckpoint
    | RestoreCheckpoint
    | ShutDown,
    Field(discriminator="kind"),
]

_ANYWHERE = frozenset(RunState)
_LOADED = frozenset({S.READY, S.RUNNING, S.PAUSED})
_WAITING = frozenset({S.IDLE, S.READY, S.PAUSED})
_SETTLED = _ANYWHERE - {S.STARTING, S.PREPARING, S.STOPPING}

ALLOWED_COMMANDS: dict[str, frozenset[RunState]] = {
    "InspectModel": frozenset({S.IDLE}),
    "ListModels": frozenset({S.IDLE}),
    "CheckData": frozenset({S.IDLE}),
    "EstimateRun": frozenset({S.IDLE}),
    "FindRate": _WAITING,
    "PreviewImage": _SETTLED,
    "CancelLookUp": _WAITING,
    "PrepareRun": frozenset({S.IDLE}),
    "OpenRun": frozenset({S.IDLE}),
    "StartRun": frozenset({S.READY, S.STOPPED}),
    "PauseRun": frozenset({S.RUNNING}),
    "UnpauseRun": frozenset({S.PAUSED}),
    "StopRun": frozenset({S.PREPARING, S.READY, S.RUNNING, S.PAUSED}),
    "FreezeLayers": _LOADED,
    "UnfreezeLayers": _LOADED,
    "SetRate": _LOADED,
    "SetRateMultiplier": _LOADED,
    "SetPlan": _LOADED,
    "SetBatchNorm": _LOADED,
    "ChangeTraining": _LOADED,
    "Rewind": _LOADED | {S.FINISHED, S.STOPPED},
    "SaveCheckpoint": _LOADED,
    "RestoreCheckpoint": _LOADED | {S.FINISHED, S.STOPPED},
    "ShutDown": _ANYWHERE,
}
"""In which states the worker takes which command: buttons enable from it, the worker enforces it, tests walk it."""


def is_allowed(kind: str, state: RunState) -> bool:
    """Tell whether a command of this kind is taken in this state."""
    return state in ALLOWED_COMMANDS[kind]


# ---------------------------------------------------------------------------------------------------------------
# Events: what happened
# ---------------------------------------------------------------------------------------------------------------


class Event(_Message):
    """A fact from the worker.

    ``command_id`` names the command that it answers, "" if none; ``time`` is Unix time in seconds; ``event_id`` is its
    row in run.db, 0 if it is not kept there.
    """

    command_id: str = ""
    time: float = 0.0
    event_id: int = 0


class RewindsKept(Event):
    """The worker keeps the states before these ``changes``, by their numbers; they take ``num_bytes``."""

    kind: Literal["RewindsKept"] = "RewindsKept"
    changes: list[int]
    num_bytes: int
    budget_bytes: int


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


class StateChanged(Event):
    """The worker's state is now ``state``; ``sentence`` says why where a person needs to know.

    ``offered_rate`` is half the present rate where the run was paused because a loss was not finite, else None.
    """

    kind: Literal["StateChanged"] = "StateChanged"
    state: RunState
    sentence: str = ""
    offered_rate: float | None = None


class CommandRejected(Event):
    """A command was refused. ``reason`` is the sentence for the user; ``field`` names the config field at fault.

    ``choices`` are values that the field could have instead, where they are known. ``is_cancelled``: nothing is at
    fault, the user ended it.
    """

    kind: Literal["CommandRejected"] = "CommandRejected"
    command: str
    reason: str
    field: str = ""
    choices: list[str] = Field(default_factory=list)
    is_cancelled: bool = False


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
    """Data and model are loaded; the run folder exists. What follows belongs to ``segment``, after ``step``."""

    kind: Literal["RunPrepared"] = "RunPrepared"
    run: RunInfo
    step: int
    epoch: int
    segment: int = 0


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
    where that is not None.
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


class FreezeChanged(Event):
    """Layers were frozen or unfrozen at a step boundary.

    ``layers`` are the changed units, ``sentence`` says it for the marker ("stage4 unfrozen"), ``frozen`` is the whole
    freeze set afterwards. ``requested_step`` and ``applied_step`` count completed updates; ``source`` is "user",
    "plan", "advisor" or "restore". ``change`` is the number of the change, which rises over the run's whole life; 0 if
    nothing changed, or in runs of an earlier Thaw.
    """

    layers: list[str]
    sentence: str
    frozen: list[str]
    num_trainable: int
    requested_step: int
    applied_step: int
    source: str
    segment: int
    change: int = 0


class LayersFrozen(FreezeChanged):
    """From here to the unfreeze, these layers' parameters and buffers do not change."""

    kind: Literal["LayersFrozen"] = "LayersFrozen"


class LayersUnfrozen(FreezeChanged):
    """These layers learn again."""

    kind: Literal["LayersUnfrozen"] = "LayersUnfrozen"


class RateChanged(Event):
    """The run's learning rate is another one from ``applied_step`` on; steps count completed updates.

    ``change`` is as in FreezeChanged.
    """

    kind: Literal["RateChanged"] = "RateChanged"
    rate: float
    before: float
    requested_step: int
    applied_step: int
    segment: int
    change: int = 0


class ChangeAdvised(Event):
    """The next freeze or unfreeze is proposed, with the numbers that speak for it; nothing was done."""

    kind: Literal["ChangeAdvised"] = "ChangeAdvised"
    layers: list[str]
    is_freeze: bool
    sentence: str
    step: int
    segment: int


class TrainingChanged(Event):
    """The run has another length or patience from ``applied_step`` on; steps count completed updates."""

    kind: Literal["TrainingChanged"] = "TrainingChanged"
    epochs: int
    before_epochs: int
    patience: int | None
    before_patience: int | None
    total_steps: int
    requested_step: int
    applied_step: int
    segment: int


class RateMultiplierChanged(Event):
    """The rate of single layers is multiplied by another number from ``applied_step`` on.

    ``layers`` are the changed units, ``before`` what the rate was multiplied by in each of them, ``sentence`` says it
    for the marker ("stage4 at rate × 0.1"), ``multipliers`` are all of the run afterwards, by unit. ``change`` numbers
    it, 0 if nothing changed. Steps count completed updates.
    """

    kind: Literal["RateMultiplierChanged"] = "RateMultiplierChanged"
    layers: list[str]
    before: list[float] = Field(default_factory=list)
    change: int = 0
    multiplier: float
    sentence: str
    multipliers: dict[str, float]
    requested_step: int
    applied_step: int
    source: str
    segment: int


class PhaseBegan(Event):
    """A phase of the run's plan began at ``step``; ``num_begun`` counts it and those before it, of all in ``plan``."""

    kind: Literal["PhaseBegan"] = "PhaseBegan"
    plan: list[PlanPhase]
    num_begun: int
    step: int
    segment: int


class PlanChanged(Event):
    """Other phases follow the ``num_begun`` that have begun; ``plan`` has all of them."""

    kind: Literal["PlanChanged"] = "PlanChanged"
    plan: list[PlanPhase]
    num_begun: int
    requested_step: int
    applied_step: int
    segment: int


class BatchNormChanged(Event):
    """The running statistics of single layers go on while these are frozen, or no longer do.

    ``layers`` are the changed units, ``adapting`` all of the run whose statistics go on. Steps count completed updates.
    """

    kind: Literal["BatchNormChanged"] = "BatchNormChanged"
    layers: list[str]
    is_adapting: bool
    sentence: str
    adapting: list[str]
    requested_step: int
    applied_step: int
    source: str
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


class CheckpointSaved(Event):
    """A checkpoint is durable on disk and listed in run.db."""

    kind: Literal["CheckpointSaved"] = "CheckpointSaved"
    checkpoint: CheckpointInfo


class StateRestored(Event):
    """The live run has an earlier state; what follows belongs to ``segment``, which starts at ``step``.

    ``rate`` is the run's rate again, None in runs of an earlier Thaw.
    """

    step: int
    epoch: int
    frozen: list[str]
    num_trainable: int
    segment: int
    rate: float | None = None
    multipliers: dict[str, float] = Field(default_factory=dict)
    plan: list[PlanPhase] = Field(default_factory=list)
    num_phases_begun: int = 0
    adapting: list[str] = Field(default_factory=list)


class CheckpointRestored(StateRestored):
    """The state is that of a checkpoint."""

    kind: Literal["CheckpointRestored"] = "CheckpointRestored"
    name: str


class RunRewound(StateRestored):
    """The state is the one just before a change: ``change`` is its number, ``sentence`` names it, by ``source``."""

    kind: Literal["RunRewound"] = "RunRewound"
    change: int
    sentence: str
    source: str = "user"


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
    | CheckpointSaved
    | CheckpointRestored
    | RunRewound
    | RewindsKept
    | LogWritten,
    Field(discriminator="kind"),
]


def follow(run: RunInfo, event: Event) -> RunInfo:
    """Bring what a run trains with up to date with an event."""
    present, total_steps = run.present, run.total_steps
    if isinstance(event, RateChanged) or (isinstance(event, StateRestored) and event.rate is not None):
        present = present.model_copy(update={"rate": event.rate})
        if isinstance(event, StateRestored):
            present = present.model_copy(update={"plan": event.plan[event.num_phases_begun :]})
    elif isinstance(event, PhaseBegan | PlanChanged):
        present = present.model_copy(update={"plan": event.plan[event.num_begun :]})
    elif isinstance(event, TrainingChanged):
        present = present.model_copy(update={"epochs": event.epochs, "patience": event.patience})
        total_steps = event.total_steps
    else:
        return run
    return run.model_copy(update={"in_force": present, "total_steps": total_steps})
