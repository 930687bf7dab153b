"""Preparing a run: data, model and run folder are read and put together, before there is a first step."""

from __future__ import annotations

import contextlib
import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import platformdirs
import torch

from trainer.branching import BranchStart, read_start, take_optimizer_state, without_unread_weights
from trainer.checkpoints import end_what_was_cut_off
from trainer.compute import FEWEST_STEPS, choose, log_sentence
from trainer.config import ConfigError, DataConfig, RunConfig, resolve_paths
from trainer.config_error import Faults
from trainer.data.decoding import num_usable_cores
from trainer.data.kept_split import read_split, write_split
from trainer.data.loader import ImageData
from trainer.data.preview import write_views
from trainer.data.scan import ScannedData, scan, scan_key
from trainer.data.sources import read_source
from trainer.environment import environment
from trainer.estimate import check_no_run_uses, estimate
from trainer.known_choices import KnownChoices, choice_key
from trainer.layer_settings import with_fewest_names
from trainer.logs import TensorBoardLog
from trainer.loop import Trainer
from trainer.memory import give_memory_back
from trainer.messages.base import Event
from trainer.messages.commands import PreviewImage
from trainer.messages.compute import ComputeChoice
from trainer.messages.data_info import ImageView
from trainer.messages.events import LogWritten
from trainer.messages.run_info import RateCurve, RunEstimate, RunInfo
from trainer.models import GivenWeights, build_model, preprocessing_of
from trainer.optim import choose_device, set_determinism
from trainer.rate_finder import find_rate
from trainer.run_changes import RunChanged, find_changes, sha256_of
from trainer.run_check import check_run
from trainer.run_list import check_writable
from trainer.run_record import WorkerAddress
from trainer.runs import RunFolder
from trainer.summary import with_costs
from trainer.task import check_task
from trainer.validation_metrics import check_best_metric

Report = Callable[[str, int, int, str], None]
"""Called with what is being done, how much of it is, of how much, and the unit."""


_Found = TypeVar("_Found")


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


LookThrough = Callable[[Mapping[str, str] | None], ScannedData]
"""Called for the images, with the split that they are to have, None for a new one."""


@dataclass(frozen=True)
class _Loaded:
    """What a run is made of, before it has a folder, and what there is to tell of that."""

    trainer: Trainer
    scanned: ScannedData
    events: list[Event]


class Preparation:
    """Prepares runs for one worker, or trials of them for an errand.

    Args:
        worker: The address that the run's folder is to name; None where none is begun or opened.
        emit: Where the run's events will go.
        report: Called with progress.
        check_cancelled: Called often; raises PreparationCancelled to end the work.

    """

    def __init__(
        self,
        worker: WorkerAddress | None,
        emit: Callable[[Event], None],
        report: Report,
        check_cancelled: Callable[[], None],
    ) -> None:
        self._worker = worker
        self._emit = emit
        self._report = report
        self._check_cancelled = check_cancelled
        self._cache_dir = platformdirs.user_cache_path("thaw")
        self._default_num_threads = min(torch.get_num_threads(), num_usable_cores())
        self._known_choices = KnownChoices(self._cache_dir / "compute")
        self._last_scan: tuple[str, ScannedData] | None = None

    @property
    def worker(self) -> WorkerAddress:
        """Return the address that the run's folder is to name."""
        assert self._worker is not None, "an errand takes no run for itself"
        return self._worker

    def scan(self, data: DataConfig, seed: int, kept_split: Mapping[str, str] | None = None) -> ScannedData:
        """Look through a data set, as a run with this seed would split it, or did split it.

        Raises:
            ValueError: There is none, or it cannot be trained on.
            PreparationCancelled: The user stopped it.

        """
        scanned = scan(data, seed, self._cache_dir / "data", self._report, self._check_cancelled, kept_split)
        if kept_split is None:
            self._last_scan = scan_key(data, seed), scanned
        return scanned

    def estimate(self, config: RunConfig, runs_dir: Path) -> RunEstimate:
        """Try a few steps of a run. Nothing is downloaded, and nothing is left of it. A file of weights must fit.

        Raises:
            ValueError: The data or the model cannot be used, or a live run uses the GPU.
            PreparationCancelled: The user stopped it.

        """
        act = partial(estimate, runs_dir=runs_dir, on_progress=self._report, check_cancelled=self._check_cancelled)
        # Other weights from elsewhere cost what random ones cost.
        has_file = bool(config.model.weights_file) and config.branch is None
        return self._tried(config, runs_dir, act, with_weights=has_file)

    def find_rate(self, config: RunConfig, runs_dir: Path) -> RateCurve:
        """Try rising rates on a run that has not begun. Nothing is left of it.

        Raises:
            ValueError: The data or the model cannot be used, or a live run uses the GPU.
            PreparationCancelled: The user stopped it.

        """
        act = partial(find_rate, on_progress=self._report, check_cancelled=self._check_cancelled)
        return self._tried(config, runs_dir, act)

    def find_rate_of(self, trainer: Trainer) -> RateCurve:
        """Try rising rates on a run that waits, which is as it was afterwards.

        Raises:
            PreparationCancelled: The user stopped it.

        """
        return find_rate(trainer, self._report, self._check_cancelled)

    def preview(self, command: PreviewImage, present_epoch: int) -> list[ImageView]:
        """Write what the model sees of an image from the present epoch of a run on.

        Raises:
            ValueError: The report, the model or the image cannot be used.
            PreparationCancelled: Something else is of more interest by now.

        """
        config = command.config
        return write_views(
            Path(command.report_path),
            config,
            preprocessing_of(config.model, config.data.image_size).edited(config.data),
            command.path,
            self._cache_dir / "views",
            command.num_views,
            present_epoch,
            command.num_fixed,
            self._check_cancelled,
        )

    def _tried(
        self, config: RunConfig, runs_dir: Path, act: Callable[[Trainer], _Found], *, with_weights: bool = True
    ) -> _Found:
        """Do something with a trainer of a run that never begins. Nothing is left of it, in memory neither."""
        faults = Faults()
        with faults.noting():
            check_no_run_uses(choose_device(config.training.device), runs_dir)
        # How the images are split matters to no trial.
        look_through: LookThrough = lambda _: self._known_scan(config)  # noqa: E731 (a def of one expression)
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        # Its features in a folder of their own: the next trial is to compute them again.
        with tempfile.TemporaryDirectory(prefix="trial-", dir=self._cache_dir, ignore_cleanup_errors=True) as scratch:
            loaded = self._load(
                config,
                lambda _: None,
                look_through,
                faults,
                with_weights=with_weights,
                is_compiled=False,
                features_dir=Path(scratch),
            )
            try:
                return act(loaded.trainer)
            finally:
                loaded.trainer.close()
                del loaded
                _free_memory()

    def _known_scan(self, config: RunConfig) -> ScannedData:
        """Return the data as they were checked last: a trial is no reason to check them again."""
        key, known = self._last_scan or ("", None)
        data, seed = config.data, config.training.seed
        return known if known is not None and key == scan_key(data, seed) else self.scan(data, seed)

    def begin(self, config: RunConfig, runs_dir: Path) -> PreparedRun:
        """Make a new run. Nothing is left of it where this fails.

        Raises:
            ValueError: The data, the model or the folder cannot be used; says of each field what is wrong with it.
            PreparationCancelled: The user stopped it.

        """
        faults = Faults()
        with faults.noting():
            check_writable(runs_dir)
        # A resume reads the paths again, from wherever it is started.
        config = without_unread_weights(resolve_paths(config, Path.cwd()))
        look_through = partial(self.scan, config.data, config.training.seed)
        loaded = self._load(config, self._emit, look_through, faults)
        trainer, scanned = loaded.trainer, loaded.scanned
        folder = RunFolder.create(runs_dir, trainer.config)
        try:
            folder.claim(self.worker)
            write_split(folder.path, scanned)
            trainer.begin(folder)
            log = TensorBoardLog(folder)
            return self._prepared(trainer, scanned, folder, log, loaded.events)
        except BaseException:
            trainer.close()
            folder.close()
            shutil.rmtree(folder.path, ignore_errors=True)
            raise

    def open(
        self,
        run_dir: Path,
        checkpoint: str | None,
        *,
        is_to_start: bool,
        anyway: bool = False,
        num_epochs: int | None = None,
    ) -> PreparedRun:
        """Load a run that was begun before, at a checkpoint (None: where it was left).

        ``num_epochs`` is how many it is to have from now on, None for as many as before.

        Raises:
            RunChanged: Its data or what it is trained with are others by now, and that is not to be so ``anyway``.
            ValueError: Another worker has it, it is finished, or something of it cannot be read.
            PreparationCancelled: The user stopped it.

        """
        folder = RunFolder(run_dir)
        try:
            folder.claim(self.worker)
            # Before the checkpoint is looked for: the newest one may be listed only now.
            end_what_was_cut_off(folder)
            config = folder.config()
            info = folder.checkpoints.find(checkpoint) if checkpoint else folder.checkpoints.resume_point()
            if is_to_start and info is not None and info.epoch >= (num_epochs or folder.num_epochs()):
                length = num_epochs or folder.num_epochs()
                raise ValueError(
                    f"{folder.path.name} has {info.epoch} epochs behind it, and {length} in all: there "
                    "is nothing to resume. Train on for more epochs, restore an earlier checkpoint, or begin a new run."
                )
            earlier = folder.run_info(None if info is None else info.name)
            trainer, scanned = self._load_again(folder, config, self._emit, earlier)
            changes = find_changes(trainer, scanned, folder, earlier)
            if changes and not anyway:
                trainer.close()
                raise RunChanged(folder.path.name, changes)
            events = trainer.go_on(folder, info)
            if changes:
                text = f"Resumed though something has changed since: {'; '.join(changes)}."
                events.append(LogWritten(level="warning", text=text))
            if num_epochs is not None:
                events += trainer.changes.change_training(num_epochs, None)
            log = TensorBoardLog(folder)
            return self._prepared(trainer, scanned, folder, log, events)
        except BaseException:
            folder.remove_worker(self.worker)
            folder.close()
            raise

    @contextlib.contextmanager
    def trial_of(
        self, folder: RunFolder, emit: Callable[[Event], None], earlier: RunInfo | None
    ) -> Iterator[tuple[Trainer, ScannedData]]:
        """Load what a run that was begun before is made of, for a trial beside it; the run may be live.

        ``earlier`` is the run as it was prepared for the steps that the trial is about.

        Raises:
            ValueError: Something of the run cannot be read, or a live run uses the GPU.

        """
        config = folder.config()
        check_no_run_uses(choose_device(config.training.device), folder.path.parent)
        trainer, scanned = self._load_again(folder, config, emit, earlier)
        try:
            yield trainer, scanned
        finally:
            trainer.close()

    def _load_again(
        self, folder: RunFolder, config: RunConfig, emit: Callable[[Event], None], earlier: RunInfo | None
    ) -> tuple[Trainer, ScannedData]:
        # The run's own files hold every weight, so none are downloaded or read from elsewhere.
        loaded = self._load(
            config,
            emit,
            lambda _: self.scan(config.data, config.training.seed, read_split(folder.path)),
            Faults(),
            with_weights=False,
            owner_of_data=folder.path.name,
            computed_in=None if earlier is None else earlier.computed_in,
        )
        return loaded.trainer, loaded.scanned

    def _load(
        self,
        config: RunConfig,
        emit: Callable[[Event], None],
        look_through: LookThrough,
        faults: Faults,
        *,
        with_weights: bool = True,
        owner_of_data: str = "",
        computed_in: ComputeChoice | None = None,
        is_compiled: bool = True,
        features_dir: Path | None = None,
    ) -> _Loaded:
        start: BranchStart | None = None
        with faults.noting():
            start = read_start(config.branch) if with_weights and config.branch is not None else None
        given = None if start is None else GivenWeights(start.state, start.branch.source)
        check_run(config, faults, with_weights=with_weights, given=given)
        if faults:
            # No image need be decoded to say what else is wrong.
            with faults.noting(), _data_of(owner_of_data):
                read_source(config.data, self._cache_dir / "data", self._report, self._check_cancelled)
        faults.tell()
        if start is not None:
            # A checkpoint names each layer by itself.
            config = with_fewest_names(config)
        device = choose_device(config.training.device)
        torch.set_num_threads(config.training.num_threads or self._default_num_threads)
        set_determinism(config.training.deterministic)
        with _data_of(owner_of_data):
            scanned = look_through(None if start is None else start.split_for(config))
            check_task(config.data, scanned.summary)
            check_best_metric(config, len(scanned.class_names))
        if given is not None and start is not None:
            given = replace(given, is_head_left_out=start.class_names != list(scanned.class_names))
        loaded = build_model(
            config.model,
            config.data.num_outputs(len(scanned.class_names)),
            config.training.seed,
            config.data.image_size,
            self._report,
            self._check_cancelled,
            with_weights=with_weights,
            given=given,
        )
        preprocessing = loaded.preprocessing.edited(config.data)
        self._check_cancelled()
        data = ImageData(
            config.data,
            config.training,
            preprocessing,
            scanned,
            self._cache_dir / "decoded",
            is_for_gpu=device.type == "cuda",
        )
        events: list[Event] = []
        try:
            trainer = Trainer(config, loaded, data, device, emit, features_dir or self._cache_dir / "features")
            trainer.compute_in(self._choose_compute(trainer, computed_in), is_compiled=is_compiled)
            if computed_in is None and (sentence := log_sentence(trainer.compute)):
                events.append(LogWritten(level="info", text=sentence))
            if start is not None and loaded.report is not None:
                if start.branch.with_optimizer:
                    take_optimizer_state(start, trainer.optimizer, config.optimizer.name, loaded.report)
                    # base.pt has the weights alone.
                    trainer.only_in_memory = "branch"
                sentence = start.sentence(loaded.report, list(scanned.class_names))
                events.append(LogWritten(level="info", text=sentence))
            return _Loaded(trainer, scanned, events)
        except BaseException:
            data.close()
            raise

    def _choose_compute(self, trainer: Trainer, earlier: ComputeChoice | None) -> ComputeChoice:
        """Choose the form in which a run is computed: as before, or as was measured, once a day for the same steps."""
        num_threads = self._default_num_threads
        key = choice_key(trainer, num_threads)
        is_measured = earlier is None and trainer.total_steps >= FEWEST_STEPS
        known = self._known_choices.find(key) if is_measured else None
        if known is not None:
            return known
        choice = choose(trainer, earlier, num_threads, self._report, self._check_cancelled)
        # That fewer threads are faster may be due to other work on the machine, which ends.
        if earlier is None and choice.measured and choice.form.num_threads == choice.measured[0].form.num_threads:
            self._known_choices.keep(key, choice)
        return choice

    def _prepared(
        self, trainer: Trainer, scanned: ScannedData, folder: RunFolder, log: TensorBoardLog, events: list[Event]
    ) -> PreparedRun:
        # Of what was loaded and written on the way: training takes as much again.
        give_memory_back()
        data, image_size = trainer.data, trainer.data.preprocessing.image_size
        info = RunInfo(
            run_dir=str(folder.path.resolve()),
            config=trainer.config,
            summary=with_costs(trainer.summary(), trainer.config.model, len(data.class_names), image_size),
            class_names=list(data.class_names),
            num_train=data.num_train,
            num_validation=data.num_validation,
            num_skipped=len(data.skipped),
            steps_per_epoch=trainer.steps_per_epoch,
            total_steps=trainer.total_steps,
            device=str(trainer.device),
            precision=trainer.compute.form.precision,
            num_threads=torch.get_num_threads(),
            image_size=image_size,
            data_summary=scanned.summary,
            report_path=str(scanned.report_path),
            in_force=trainer.in_force,
            made_with=environment(trainer.device, trainer.compute),
            data_fingerprint=data.fingerprint,
            weights_sha256=sha256_of(trainer.config.model.weights_file),
            compute=trainer.compute,
        )
        return PreparedRun(trainer, folder, log, info, events)


@contextlib.contextmanager
def _data_of(run_name: str) -> Iterator[None]:
    """Say of a run that was begun before what it lacks: no one can choose other data for it. "" is a new run."""
    try:
        yield
    except ConfigError as error:
        if not run_name:
            raise
        said = " ".join(error.sentences.values())
        raise ConfigError(
            f"{run_name} cannot go on without its data. {said} Put the data back where they were and resume again, or "
            "begin a new run with others.",
            error.field,
        ) from error


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        # What a trial held would else stay with this process, and count in the next one's peak.
        torch.cuda.empty_cache()
