"""Preparing a run: data, model and run folder are read and put together, before there is a first step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
import torch

from trainer.config import ConfigError, ModelConfig, RunConfig, resolve_paths
from trainer.data.loader import ImageData
from trainer.data.scan import ScannedData, scan
from trainer.freezing import FreezeSet
from trainer.logs import TensorBoardLog
from trainer.loop import Trainer
from trainer.messages import Event, ModelSummary, RunInfo
from trainer.models import build_model, inspect, layer_tree
from trainer.optim import choose_device
from trainer.run_list import check_writable
from trainer.run_record import WorkerAddress
from trainer.runs import RunFolder

Report = Callable[[str, int, int, str], None]
"""Called with what is being done, how much of it is, of how much, and the unit."""


class PreparationCancelled(Exception):  # noqa: N818 (a request, not an error)
    """Raised by ``check_cancelled`` to end a preparation or a check."""


@dataclass(frozen=True)
class PreparedRun:
    """A run that could take its first step. ``events`` tell what a restore did, and nobody has been told yet."""

    trainer: Trainer
    folder: RunFolder
    log: TensorBoardLog
    info: RunInfo
    events: list[Event] = field(default_factory=list)


class Preparation:
    """Prepares runs for one worker.

    Args:
        worker: The address that the run's folder is to name.
        emit: Where the run's events will go.
        report: Called with progress.
        check_cancelled: Called often; raises PreparationCancelled to end the work.

    """

    def __init__(
        self,
        worker: WorkerAddress,
        emit: Callable[[Event], None],
        report: Report,
        check_cancelled: Callable[[], None],
    ) -> None:
        self.worker = worker
        self._emit = emit
        self._report = report
        self._check_cancelled = check_cancelled

    def scan(self, path: str) -> ScannedData:
        """Look through a data set.

        Raises:
            ValueError: There is none, or it cannot be trained on.
            PreparationCancelled: The user stopped it.

        """
        if not path:
            raise ConfigError("No data is chosen. Choose a folder of class folders, or a zip of one.", "data.path")
        cache_dir = platformdirs.user_cache_path("thaw") / "data"
        return scan(Path(path), cache_dir, self._report, self._check_cancelled)

    def begin(self, config: RunConfig, runs_dir: Path) -> PreparedRun:
        """Make a new run. Nothing is left of it where this fails.

        Raises:
            ValueError: The data, the model or the folder cannot be used.
            PreparationCancelled: The user stopped it.

        """
        check_writable(runs_dir)
        # A resume reads the paths again, from wherever it is started.
        config = resolve_paths(config, Path.cwd())
        trainer = self._load(config, config.model)
        folder = RunFolder.create(runs_dir, config)
        try:
            folder.claim(self.worker)
            trainer.begin(folder)
            return self._prepared(trainer, folder, TensorBoardLog(folder.tensorboard_dir, None), [])
        except BaseException:
            trainer.close()
            folder.close()
            shutil.rmtree(folder.path, ignore_errors=True)
            raise

    def open(self, run_dir: Path, checkpoint: str | None, *, is_to_start: bool) -> PreparedRun:
        """Load a run that was begun before, at a checkpoint (None: where it was left).

        Raises:
            ValueError: Another worker has it, it is finished, or something of it cannot be read.
            PreparationCancelled: The user stopped it.

        """
        folder = RunFolder(run_dir)
        try:
            folder.claim(self.worker)
            config = folder.config()
            info = folder.checkpoint(checkpoint) if checkpoint else folder.resume_point()
            if is_to_start and info is not None and info.epoch >= config.training.epochs:
                raise ValueError(
                    f"{folder.path.name} has finished all its {config.training.epochs} epochs: there is nothing to "
                    "resume. Restore an earlier checkpoint, or begin a new run."
                )
            # The run's own files hold every weight, so none are downloaded or read from elsewhere.
            trainer = self._load(config, config.model.model_copy(update={"weights": "random"}))
            events = trainer.go_on(folder, info)
            return self._prepared(trainer, folder, TensorBoardLog(folder.tensorboard_dir, trainer.step), events)
        except BaseException:
            folder.remove_worker(self.worker)
            folder.close()
            raise

    def _load(self, config: RunConfig, model: ModelConfig) -> Trainer:
        device = choose_device(config.training.device)
        if config.training.num_threads:
            torch.set_num_threads(config.training.num_threads)
        scanned = self.scan(config.data.path)
        loaded = build_model(
            model,
            len(scanned.class_names),
            config.training.seed,
            config.data.image_size,
            self._report,
            self._check_cancelled,
        )
        data = ImageData(config.data, config.training, loaded.preprocessing, scanned)
        self._check_cancelled()
        return Trainer(config, loaded, data, device, self._emit)

    def _prepared(self, trainer: Trainer, folder: RunFolder, log: TensorBoardLog, events: list[Event]) -> PreparedRun:
        data = trainer.data
        info = RunInfo(
            run_dir=str(folder.path.resolve()),
            config=trainer.config,
            summary=trainer.summary(),
            class_names=list(data.class_names),
            num_train=data.num_train,
            num_validation=data.num_validation,
            num_skipped=len(data.skipped),
            steps_per_epoch=data.steps_per_epoch,
            total_steps=trainer.total_steps,
            device=str(trainer.device),
            precision=trainer.precision,
            num_threads=torch.get_num_threads(),
            image_size=data.preprocessing.image_size,
        )
        return PreparedRun(trainer, folder, log, info, events)


def summarize(model: ModelConfig, num_classes: int) -> ModelSummary:
    """Describe a model that is not loaded, with a head of ``num_classes`` and what its configuration freezes.

    Raises:
        ValueError: There is no such model, or no such layer.

    """
    module, head = inspect(model, num_classes)
    freeze_set = FreezeSet(module, head)
    units = freeze_set.resolve(model.frozen)
    num_frozen = sum(p.numel() for name, p in module.named_parameters() if name.rpartition(".")[0] in units)
    return ModelSummary(
        model=model.name,
        layers=layer_tree(module, head),
        frozen=sorted(units),
        num_params=freeze_set.num_params,
        num_trainable=freeze_set.num_params - num_frozen,
    )
