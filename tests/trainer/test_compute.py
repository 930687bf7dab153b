"""The form in which a run is computed: measured without a trace, recorded, and taken again by a resume."""

from __future__ import annotations

import copy
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import platformdirs
import psutil
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import make_images
from trainer import compute
from trainer.checkpoints import CheckpointStore
from trainer.compute import choose, default_choice, log_sentence, measure, native_precisions
from trainer.config import ConfigError, DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainingConfig
from trainer.data.loader import ImageData
from trainer.data.transforms import Preprocessing
from trainer.feature_batches import ModelBatch
from trainer.feature_cache import FeatureCache
from trainer.freezing import hash_layer
from trainer.known_choices import KEPT_S
from trainer.loop import Trainer
from trainer.messages.base import Event
from trainer.messages.compute import ComputeChoice, Form, MeasuredForm
from trainer.messages.events import LogWritten, RunPrepared
from trainer.metrics import GRADIENT_NORM
from trainer.models import LoadedModel
from trainer.preparation import Preparation, PreparedRun
from trainer.run_changes import RunChanged
from trainer.run_record import WorkerAddress
from trainer.runs import RunFolder

CPU = torch.device("cpu")
NUM_STEPS = 1000
ORDER = ["fp32", "fp32, channels last", "bf16", "bf16, channels last"]
Pace = Callable[[Form], float]


class Net(nn.Module):
    """Convolutions, one of them of 1 × 1, statistics that move, and noise from a generator."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return cast("Tensor", self.head(self.body(self.stem(images)).mean((2, 3))))


class NoData:
    """Stands for a run's data, of which only the shape matters here."""

    preprocessing = Preprocessing(image_size=8, resize_size=8, mean=[0.5] * 3, std=[0.5] * 3, interpolation="bilinear")
    class_names = ("a", "b", "c")
    class_counts = (8, 8, 8)
    num_train = 24
    num_validation = 0
    num_test = 0
    batches_per_epoch = NUM_STEPS
    fingerprint = ""

    def close(self) -> None:
        """There is nothing to end."""


def make_run(frozen: list[str] | None = None, optimizer: str = "AdamW", **training: Any) -> Trainer:
    config = RunConfig(
        model=ModelConfig(weights="random", frozen=["stem"] if frozen is None else frozen),
        optimizer=OptimizerConfig.model_validate({"name": optimizer}),
        training=TrainingConfig(epochs=1, batch_size=8, device="cpu", **training),
    )
    torch.manual_seed(0)
    return Trainer(config, LoadedModel(Net(), ["head"], NoData.preprocessing), cast("ImageData", NoData()), CPU, print)


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Callable[[Pace], list[Form]]:
    """Let each step of a measurement take what a function says of its form. Returns the forms in their order."""

    def pace(of: Pace) -> list[Form]:
        tried: list[Form] = []

        def seconds_of(_: compute._Steps, form: Form) -> float:
            tried.append(form)
            return of(form)

        monkeypatch.setattr(compute._Steps, "seconds_of", seconds_of)
        return tried

    return pace


@pytest.fixture
def _has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "native_precisions", lambda device: ["fp32", "bf16"])


def chosen(run: Trainer, earlier: ComputeChoice | None = None, num_threads: int = 1) -> ComputeChoice:
    return choose(run, earlier, num_threads, lambda *_: None, lambda: None)


@pytest.mark.parametrize("is_on", [True, False])
def test_without_tf32_convolutions_are_computed_without_it_too(is_on: bool) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        compute.apply_form(Form(tf32=is_on, num_threads=torch.get_num_threads()), Net(), torch.device("cuda"))
        assert torch.get_float32_matmul_precision() == ("high" if is_on else "highest")
        assert torch.backends.cudnn.allow_tf32 is is_on
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def state_of(run: Trainer) -> tuple[list[Any], ...]:
    module = run.module
    return (
        [(name, tensor.clone(), tensor.stride(), tensor.data_ptr()) for name, tensor in module.state_dict().items()],
        [(name, parameter.requires_grad, parameter.grad) for name, parameter in module.named_parameters()],
        [child.training for child in module.modules()],
        [torch.get_rng_state(), random.getstate(), torch.get_num_threads()],
        [copy.deepcopy(run.optimizer.state_dict()), run.step, run.compute, sorted(run.freeze_set.find_drifted())],
    )


def assert_same(before: Any, after: Any) -> None:
    if isinstance(before, Tensor):
        assert torch.equal(before, after)
    elif isinstance(before, dict):
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert_same(value, after[key])
    elif isinstance(before, list | tuple):
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            assert_same(one, other)
    else:
        assert before == after


@pytest.mark.usefixtures("_has_bf16")
@pytest.mark.parametrize("frozen", [["stem"], []])
def test_a_measurement_leaves_nothing_of_a_run_other_than_it_was(frozen: list[str]) -> None:
    run = make_run(frozen)
    before = state_of(run)
    forms = [Form(precision=p, channels_last=layout) for p in ("fp32", "bf16") for layout in (False, True)]
    measured = measure(run, forms, lambda: None, has_fewer_threads=False)
    assert measured is not None
    assert {each.form for each in measured.measured} >= {forms[0], forms[-1]}
    assert_same(before, state_of(run))


@pytest.mark.usefixtures("_has_bf16")
def test_a_measurement_that_is_cancelled_leaves_nothing_either() -> None:
    run = make_run([])
    before, num_left = state_of(run), 6

    class CancelledError(Exception):
        pass

    def check_cancelled() -> None:
        nonlocal num_left
        num_left -= 1
        if not num_left:
            raise CancelledError

    with pytest.raises(CancelledError):
        choose(run, None, 1, lambda *_: None, check_cancelled)
    assert_same(before, state_of(run))


@pytest.mark.usefixtures("_has_bf16")
def test_the_fastest_form_is_taken_and_the_plainest_where_none_is_clearly_faster(paced) -> None:
    costs = {("fp32", False): 1.0, ("fp32", True): 0.97, ("bf16", False): 0.7, ("bf16", True): 0.3}
    tried = paced(lambda form: 1e-3 * costs[form.precision, form.channels_last])
    choice = chosen(make_run())
    assert choice.form == Form(precision="bf16", channels_last=True, num_threads=1)
    assert (choice.plain_ms, choice.step_ms) == (pytest.approx(1.0), pytest.approx(0.3))
    # The most promising one first, and in turn: what slows the machine for a while slows both.
    names = [form.text for form in tried]
    first = names.index("bf16, channels last")
    assert names[first + 1 : first + 5] == ["fp32", "bf16, channels last"] * 2
    assert [each.form.text for each in choice.measured] == list(dict.fromkeys(sorted(names, key=ORDER.index)))
    assert "3.3 × as fast as fp32" in log_sentence(choice)
    costs |= {("fp32", True): 0.96, ("bf16", False): 0.96, ("bf16", True): 0.96}
    choice = chosen(make_run())
    assert choice.form == Form(num_threads=1)
    assert "the fastest" in log_sentence(choice)


@pytest.mark.usefixtures("_has_bf16")
def test_a_form_that_was_slower_once_is_not_taken(paced) -> None:
    number = 0

    def seconds(form: Form) -> float:
        nonlocal number
        number += form.precision == "bf16"
        return 1e-3 if form.precision == "fp32" else 2e-3 if number % 3 == 0 else 1e-4

    paced(seconds)
    assert chosen(make_run()).form.precision == "fp32"


@pytest.mark.usefixtures("_has_bf16")
def test_half_of_the_threads_are_taken_where_they_are_faster(paced) -> None:
    paced(lambda form: 1e-3 * form.num_threads)
    assert chosen(make_run(), num_threads=2).form.num_threads == 1
    assert chosen(make_run(num_threads=2), num_threads=2).form.num_threads == 2


@pytest.mark.usefixtures("_has_bf16")
def test_what_the_configuration_names_is_not_measured_against_others(paced) -> None:
    tried = paced(lambda form: 1e-3)
    run = make_run(precision="bf16", channels_last="on")
    assert chosen(run).form == Form(precision="bf16", channels_last=True, num_threads=1)
    assert not tried
    chosen(make_run(precision="bf16"))
    assert {form.precision for form in tried} == {"bf16"}
    tried.clear()
    # Two runs alike are to be computed alike.
    assert chosen(make_run(deterministic=True)).form == Form(num_threads=1)
    assert not tried


@pytest.mark.usefixtures("_has_bf16")
def test_a_short_run_is_not_measured(monkeypatch, paced) -> None:
    monkeypatch.setattr(NoData, "batches_per_epoch", compute.FEWEST_STEPS - 1)
    tried = paced(lambda form: 1e-3)
    assert chosen(make_run()).measured == []
    assert not tried


@pytest.mark.usefixtures("_has_bf16")
def test_a_measurement_keeps_to_its_share_of_the_run_by_fewer_images_or_none(monkeypatch, paced) -> None:
    clock = 0.0

    def of(form: Form) -> float:
        nonlocal clock
        clock += 0.01
        return 0.01

    paced(of)
    monkeypatch.setattr(compute.time, "perf_counter", lambda: clock)
    # Two images take 10 ms, so that a step takes 40 and the run 40 s, of which 2 may go into this.
    assert chosen(make_run()).num_images == 8
    # Of which most steps read what the first ones have computed.
    with monkeypatch.context() as patched:
        patched.setattr(FeatureCache, "computed_share", lambda _: 0.33 / 2)
        assert chosen(make_run()).num_images == 4
    monkeypatch.setattr(compute, "SHARE_OF_RUN", 0.33 / 40)
    assert chosen(make_run()).num_images == 4
    monkeypatch.setattr(compute, "SHARE_OF_RUN", 0.03 / 40)
    assert chosen(make_run()).num_images == 0


@pytest.mark.usefixtures("_has_bf16")
def test_a_form_that_the_model_cannot_be_computed_in_is_left_out(monkeypatch) -> None:
    run = make_run()
    real = run.module.forward

    def forward(images: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("\"median\" not implemented for 'BFloat16'")
        return real(images)

    monkeypatch.setattr(run.module, "forward", forward)
    assert {each.form.precision for each in chosen(run).measured} == {"fp32"}


def test_fp16_is_refused_without_a_gpu_and_a_processor_without_bf16_is_not_asked_for_it(monkeypatch) -> None:
    config = RunConfig(training=TrainingConfig(precision="fp16", device="cpu"))
    with pytest.raises(ConfigError, match=r"fp16 needs an NVIDIA or AMD GPU.* Use auto, fp32 or bf16") as refused:
        compute.check_compute(config, CPU)
    assert refused.value.field == "training.precision"
    monkeypatch.setattr(compute.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for has_it, expected in ((False, ["fp32"]), (True, ["fp32", "bf16"])):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has_it=has_it: has_it)
        assert native_precisions(CPU) == expected
    assert default_choice(RunConfig(), CPU, 2).form == Form(num_threads=2)


# -- recorded, and taken again ------------------------------------------------------------------------------------

FAST = ComputeChoice(
    form=Form(precision="bf16", channels_last=True),
    measured=[
        MeasuredForm(form=Form(), step_ms=412.0),
        MeasuredForm(form=Form(precision="bf16", channels_last=True), step_ms=196.0),
    ],
    num_images=8,
)


class Kept:
    """A run's folder with what a worker keeps in it: the events, and the checkpoints at the end of each epoch."""

    def __init__(self, root: Path) -> None:
        self.root = root
        process = psutil.Process()
        self.address = WorkerAddress("", b"", process.pid, process.create_time())
        self.told: list[Event] = []
        self.folder: RunFolder | None = None

    def emit(self, event: Event) -> None:
        self.told.append(event)
        if self.folder is not None and event.kind in {"RunPrepared", "CheckpointSaved"}:
            self.folder.add_event(event)

    def preparation(self) -> Preparation:
        return Preparation(self.address, self.emit, lambda *_: None, lambda: None)

    def take(self, prepared: PreparedRun) -> Trainer:
        self.prepared, self.folder = prepared, prepared.folder
        trainer = prepared.trainer
        self.emit(RunPrepared(run=prepared.info, step=trainer.step, epoch=trainer.epoch, segment=trainer.segment))
        return trainer

    def leave(self) -> Path:
        assert self.folder is not None
        self.prepared.trainer.close()
        self.prepared.log.close()
        path = self.folder.path
        self.folder.remove_worker(self.address)
        self.folder.close()
        self.folder = None
        return path


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(
        name="small",
        data=DataConfig(path=str(make_images(tmp_path / "images")), image_size=32, validation_fraction=0.25),
        model=ModelConfig(name="shufflenet_v2_x0_5", weights="random", frozen=["conv1"]),
        training=TrainingConfig(epochs=2, batch_size=8, device="cpu", num_threads=1),
    )


def stop_at(step: int, trainer: Trainer) -> None:
    from trainer.loop import RunStopped

    def between_steps() -> None:
        if trainer.step >= step:
            raise RunStopped

    with pytest.raises(RunStopped):
        trainer.fit(between_steps)


def test_a_resume_computes_as_the_run_did_to_the_bit_and_measures_nothing(config, tmp_path, monkeypatch) -> None:
    asked: list[ComputeChoice | None] = []

    def fast(run: Any, earlier: ComputeChoice | None, *others: Any) -> ComputeChoice:
        asked.append(earlier)
        return FAST if earlier is None else choose(run, earlier, *others)

    monkeypatch.setattr("trainer.preparation.FEWEST_STEPS", 1)
    monkeypatch.setattr("trainer.preparation.choose", fast)
    monkeypatch.setattr(compute, "native_precisions", lambda device: ["fp32", "bf16"])
    whole = Kept(tmp_path)
    trainer = whole.take(whole.preparation().begin(config, tmp_path / "whole"))
    assert any("bf16, channels last, 2.1 × as fast as fp32" in text for text in logged(whole))
    conv = trainer.module.get_parameter("stage2.0.branch2.3.weight")
    assert conv.is_contiguous(memory_format=torch.channels_last)
    trainer.fit(lambda: None)
    expected = {name: hash_layer(child) for name, child in trainer.module.named_modules()}
    steps = trainer.step
    whole.leave()

    cut = Kept(tmp_path)
    trainer = cut.take(cut.preparation().begin(config, tmp_path / "cut"))
    stop_at(5, trainer)
    trainer.save(reason="stop")
    run_dir = cut.leave()
    again = Kept(tmp_path)
    trainer = again.take(again.preparation().open(run_dir, None, is_to_start=True))
    assert asked == [None, FAST], "the run begun again is known"
    assert trainer.compute == FAST
    assert again.prepared.info.compute == FAST
    trainer.fit(lambda: None)
    assert trainer.step == steps
    assert {name: hash_layer(child) for name, child in trainer.module.named_modules()} == expected
    again.leave()


def logged(kept: Kept) -> list[str]:
    return [event.text for event in kept.prepared.events if isinstance(event, LogWritten)]


def test_a_run_with_the_same_steps_takes_what_was_measured_within_a_day(config, tmp_path, monkeypatch) -> None:
    num_measured = 0

    def fast(*_: Any) -> ComputeChoice:
        nonlocal num_measured
        num_measured += 1
        return FAST.model_copy(update={"measured_at": time.time() - 3600})

    def begin(config: RunConfig) -> Trainer:
        kept = Kept(tmp_path)
        trainer = kept.take(kept.preparation().begin(config, tmp_path / "runs"))
        kept.leave()
        return trainer

    monkeypatch.setattr("trainer.preparation.choose", fast)
    monkeypatch.setattr("trainer.preparation.FEWEST_STEPS", 1)
    begin(config)
    again = begin(config.model_copy(update={"name": "again"}))
    assert (num_measured, again.compute.form) == (1, FAST.form)
    assert "(measured on " in log_sentence(again.compute)
    begin(
        config.model_copy(
            update={
                "optimizer": config.optimizer.model_copy(update={"rate": 0.5}),
                "training": config.training.model_copy(update={"seed": 8, "patience": 5, "epochs": 3}),
            }
        )
    )
    assert num_measured == 1, "no step of it takes longer"
    begin(config.model_copy(update={"training": config.training.model_copy(update={"epochs": 50})}))
    assert num_measured == 2, "a longer run has more time to measure"
    begin(config.model_copy(update={"model": config.model.model_copy(update={"frozen": ["backbone"]})}))
    assert num_measured == 3
    monkeypatch.setattr("trainer.preparation.FEWEST_STEPS", 1000)
    assert begin(config).compute.form == FAST.form
    assert num_measured == 4, "a run that is too short to be measured takes nothing that was"
    monkeypatch.setattr("trainer.preparation.FEWEST_STEPS", 1)
    begin(config.model_copy(update={"training": config.training.model_copy(update={"batch_size": 4})}))
    assert num_measured == 5
    files = list((platformdirs.user_cache_path("thaw") / "compute").iterdir())
    assert len(files) == 4
    for file in files:
        file.write_text("{")
    begin(config)
    assert num_measured == 6, "what cannot be read is measured"
    for file in files:
        os.utime(file, (time.time() - 2 * KEPT_S,) * 2)
    begin(config)
    assert num_measured == 7
    assert [file.exists() for file in files].count(True) == 1, "what is too old goes"
    (kept,) = files[0].parent.iterdir()
    os.utime(kept, (time.time() + 3600,) * 2)
    begin(config)
    assert num_measured == 8, "the clock was set back"


def test_fewer_threads_than_the_most_are_not_taken_for_the_next_run(config, tmp_path, monkeypatch) -> None:
    most, fewer = (MeasuredForm(form=Form(num_threads=number), step_ms=1.0) for number in (8, 4))
    busy = ComputeChoice(form=fewer.form, measured=[most, fewer], num_images=3)
    monkeypatch.setattr("trainer.preparation.choose", lambda *_: busy)
    kept = Kept(tmp_path)
    assert kept.take(kept.preparation().begin(config, tmp_path / "runs")).compute == busy
    kept.leave()
    assert not (platformdirs.user_cache_path("thaw") / "compute").exists()


def test_a_machine_that_cannot_compute_as_the_run_did_says_what_changes(config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("trainer.preparation.choose", lambda run, *_: FAST)
    kept = Kept(tmp_path)
    trainer = kept.take(kept.preparation().begin(config, tmp_path / "runs"))
    stop_at(2, trainer)
    trainer.save(reason="stop")
    run_dir = kept.leave()
    monkeypatch.undo()
    monkeypatch.setattr(compute, "native_precisions", lambda device: ["fp32"])
    with pytest.raises(RunChanged) as refused:
        kept.preparation().open(run_dir, None, is_to_start=True)
    assert refused.value.changes == ["precision bf16 → fp32", "layout of weights channels last → plain"]
    kept.take(kept.preparation().open(run_dir, None, is_to_start=True, anyway=True))
    assert kept.prepared.trainer.compute.form == Form(num_threads=1)
    kept.leave()


def test_a_run_of_an_earlier_thaw_goes_on_in_the_precision_that_it_had(config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(compute, "FEWEST_STEPS", 1)
    run = make_run()
    earlier = ComputeChoice(form=Form(precision="fp32", num_threads=1))
    assert chosen(run, earlier) == earlier
    # The configuration was changed by hand since.
    asked = chosen(make_run(precision="bf16"), earlier)
    assert (asked.form.precision, asked.measured) == ("bf16", [])


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_an_optimizer_takes_over_the_state_of_a_run_with_another_layout(name: str) -> None:
    def trained(layout: str) -> Trainer:
        run = make_run([], optimizer=name, channels_last=layout, precision="fp32")
        # Which values it drops goes by their order.
        cast("nn.Dropout", run.module.get_submodule("body.3")).p = 0
        run.freeze_set.set_mode(training=True)
        return run

    plain, other = trained("off"), trained("on")
    images, target = torch.randn(8, 3, 8, 8), torch.arange(8) % 3
    plain.train_step([batch_of(plain, images, target)])
    content = {**plain.content(), "model_state_dict": copy.deepcopy(plain.module.state_dict())}
    other.load_state(copy.deepcopy(content), "the state")
    for run in (plain, other):
        torch.manual_seed(1)
        run.train_step([batch_of(run, images, target)])
    expected, weight = (run.module.get_parameter("stem.0.weight") for run in (plain, other))
    assert weight.stride() != expected.stride()
    states = other.optimizer.state[weight]
    assert all(value.stride() == weight.stride() for value in states.values() if value.shape == weight.shape)
    torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-6)


def test_a_checkpoint_of_a_run_with_channels_last_is_read_by_a_plain_model(config, tmp_path) -> None:
    training = config.training.model_copy(update={"channels_last": "on", "precision": "fp32"})
    kept = Kept(tmp_path)
    prepared = kept.preparation().begin(config.model_copy(update={"training": training}), tmp_path / "runs")
    trainer = kept.take(prepared)
    stop_at(2, trainer)
    info = trainer.save(reason="stop")
    expected = {name: hash_layer(child) for name, child in trainer.module.named_modules()}
    state = CheckpointStore(prepared.folder, read_only=True).load(info)["model_state_dict"]
    plain = copy.deepcopy(trainer.module)
    compute.apply_form(Form(), plain, CPU)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    plain.load_state_dict(state)
    assert {name: hash_layer(child) for name, child in plain.named_modules()} == expected
    kept.leave()
    shutil.rmtree(prepared.folder.path)


# -- fp16 ---------------------------------------------------------------------------------------------------------


def in_fp16(scale: float | None = None) -> Trainer:
    """Return a run that scales its loss as on a GPU; a processor imitates fp16."""
    run = make_run([], precision="fp32")
    run.compute_in(ComputeChoice(form=Form(precision="fp16")), is_compiled=False)
    run.freeze_set.set_mode(training=True)
    if scale is not None:
        run.scaler.load_state_dict({**run.scaler.state_dict(), "scale": scale})
    return run


def batch_of(run: Trainer, images: Tensor, target: Tensor) -> ModelBatch:
    return ModelBatch.of_images(run.module, images, target, run.device)


BATCH = (torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)


def test_a_gradient_that_fp16_cannot_hold_is_left_out_and_the_next_is_scaled_less() -> None:
    run = in_fp16(scale=2.0**40)
    before = [parameter.detach().clone() for parameter in run.module.parameters()]
    run.train_step([batch_of(run, *BATCH)])
    assert_same(before, [parameter.detach() for parameter in run.module.parameters()])
    assert (run.step, run.non_finite_step) == (1, None)
    assert run.scaler.get_scale() == 2.0**39
    for _ in range(40):
        run.train_step([batch_of(run, *BATCH)])
    assert run.non_finite_step is None
    assert not torch.equal(before[0], next(run.module.parameters()))
    # The norm is that of the gradient itself.
    norms = run.reporter.metrics.flush()[GRADIENT_NORM].values
    assert norms[-1] < 100


def test_a_loss_that_is_not_finite_counts_in_fp16_as_in_any_other_precision() -> None:
    run = in_fp16()
    run.train_step([batch_of(run, BATCH[0] * float("nan"), BATCH[1])])
    assert run.non_finite_step == 1


def test_the_scale_of_the_loss_is_kept_and_put_back() -> None:
    run = in_fp16(scale=2.0**40)
    run.train_step([batch_of(run, *BATCH)])
    content = {**run.content(), "model_state_dict": run.module.state_dict()}
    other = in_fp16()
    other.load_state(copy.deepcopy(content), "the state")
    assert other.scaler.state_dict() == run.scaler.state_dict()
    run.renew_scaler()
    assert run.scaler.state_dict() == other.scaler.state_dict()
    # What knows of no scale goes on without.
    make_run([]).load_state(copy.deepcopy(content), "the state")
