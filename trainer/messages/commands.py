"""Commands: what a client asks for, and in which states of the worker it may."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainer.config import MAX_EPOCHS, DataConfig, ModelConfig, PlanPhase, RunConfig
from trainer.messages.base import Command
from trainer.messages.run_info import CheckpointInfo
from trainer.messages.states import RunState, S

MAX_LABEL, MAX_NOTE = 80, 4000
"""Characters of what the user may write beside a checkpoint."""


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
    the epochs from the present one on are shown, else the first ones. ``num_fixed`` is the number of views of an image
    that come in turn, as they do where features are cached; 0: each epoch has a new one.
    """

    kind: Literal["PreviewImage"] = "PreviewImage"
    config: RunConfig
    report_path: str
    path: str
    num_views: int = Field(6, ge=1, le=16)
    num_fixed: int = Field(0, ge=0)


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
    """Load an existing run at a checkpoint (None: the last one). Goes on at once if ``start``.

    Where its data, its weights' file, the libraries or the device are others by now it is refused, unless ``anyway``.
    ``epochs`` are all that it is to have from now on, those completed included; None leaves their number.
    """

    kind: Literal["OpenRun"] = "OpenRun"
    run_dir: str
    checkpoint: str | None = None
    start: bool = True
    anyway: bool = False
    epochs: int | None = Field(None, ge=1, le=MAX_EPOCHS)


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
    """Freeze layers or parameters, by qualified name or pattern; "backbone" and "head" name those parts.

    Atomic: all of them or none. With ``is_exact`` the names are as in a freeze set, and stand for nothing below them.
    """

    kind: Literal["FreezeLayers"] = "FreezeLayers"
    layers: list[str]
    is_exact: bool = False


class UnfreezeLayers(Command):
    """Unfreeze what is named as in FreezeLayers."""

    kind: Literal["UnfreezeLayers"] = "UnfreezeLayers"
    layers: list[str]
    is_exact: bool = False


class SetRate(Command):
    """Change the run's learning rate at the next step boundary; its schedule goes on from the new one."""

    kind: Literal["SetRate"] = "SetRate"
    rate: float = Field(gt=0, le=10)


class SetRateMultiplier(Command):
    """Multiply the rate in single layers from the next step boundary on; 1 is the run's own rate.

    A name of a single parameter is refused unless all that its layer owns is named: a rate is of a layer.
    """

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
    """Change at the next step boundary how long the run is, its schedule then spans the new length; or its batches.

    A run that was over, and now has epochs left, waits to be started again.
    ``epochs`` counts all epochs of the run, those completed included; a ``patience`` of 0 ends nothing early. A batch
    goes through the model in ``batch_parts``. What is None stays as it is.
    """

    kind: Literal["ChangeTraining"] = "ChangeTraining"
    epochs: int | None = Field(None, ge=1, le=MAX_EPOCHS)
    patience: int | None = Field(None, ge=0, le=10_000)
    batch_parts: int | None = Field(None, ge=1, le=100_000)


class Rewind(Command):
    """Go back to the state just before a change, at the next step boundary, as long as the worker keeps that state.

    ``change`` is the number of a freeze or a change of the rate; else ``step`` names the first change after that many
    updates; without either it is the last one. With ``is_undo``, go back to the state just before the last rewind, as
    long as nothing was changed since.
    """

    kind: Literal["Rewind"] = "Rewind"
    change: int | None = None
    step: int | None = None
    is_undo: bool = False


class SaveCheckpoint(Command):
    """Save a checkpoint at the next step boundary."""

    kind: Literal["SaveCheckpoint"] = "SaveCheckpoint"


class RestoreCheckpoint(Command):
    """Put a checkpoint's weights, optimizer and freeze set into the live run at the next step boundary.

    With ``weights_only`` the run goes on from where it stands, with its schedule and freeze set as they are, from the
    checkpoint's weights and without any state of the optimizer.
    """

    kind: Literal["RestoreCheckpoint"] = "RestoreCheckpoint"
    name: str
    weights_only: bool = False


class EditCheckpoint(Command):
    """Pin a checkpoint, so that it is kept, or not; give it a label (some words) and a note. What is None stays."""

    kind: Literal["EditCheckpoint"] = "EditCheckpoint"
    name: str
    is_pinned: bool | None = None
    label: str | None = Field(None, max_length=MAX_LABEL)
    note: str | None = Field(None, max_length=MAX_NOTE)


class DeleteCheckpoints(Command):
    """Delete those that may go of these. With ``leaves_files`` the client moves their files to the trash."""

    kind: Literal["DeleteCheckpoints"] = "DeleteCheckpoints"
    names: list[str]
    leaves_files: bool = False


class PutCheckpointsBack(Command):
    """List deleted checkpoints again, whose files the client has put back into their place."""

    kind: Literal["PutCheckpointsBack"] = "PutCheckpointsBack"
    checkpoints: list[CheckpointInfo]


class ShutDown(Command):
    """End the worker process, after stopping a live run (saved) if there is one."""

    kind: Literal["ShutDown"] = "ShutDown"


Change = FreezeLayers | UnfreezeLayers | SetRate | SetRateMultiplier | SetPlan | SetBatchNorm | ChangeTraining
"""The commands that change what a live run trains with."""

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
    | EditCheckpoint
    | DeleteCheckpoints
    | PutCheckpointsBack
    | ShutDown,
    Field(discriminator="kind"),
]

_ANYWHERE = frozenset(RunState)
_LOADED = frozenset({S.READY, S.RUNNING, S.PAUSED})
_PREPARED = _LOADED | {S.FINISHED, S.STOPPED, S.FAILED}
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
    "ChangeTraining": _LOADED | {S.FINISHED, S.STOPPED},
    "Rewind": _LOADED | {S.FINISHED, S.STOPPED},
    "SaveCheckpoint": _LOADED,
    "RestoreCheckpoint": _LOADED | {S.FINISHED, S.STOPPED},
    "EditCheckpoint": _PREPARED,
    "DeleteCheckpoints": _PREPARED,
    "PutCheckpointsBack": _PREPARED,
    "ShutDown": _ANYWHERE,
}
"""In which states the worker takes which command: buttons enable from it, the worker enforces it, tests walk it."""


def is_allowed(kind: str, state: RunState) -> bool:
    """Tell whether a command of this kind is taken in this state."""
    return state in ALLOWED_COMMANDS[kind]
