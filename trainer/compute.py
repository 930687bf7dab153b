"""The form in which a run is computed: chosen by a short measurement on its own model, and kept as long as it lasts."""

from __future__ import annotations

import datetime
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from trainer.checkpoints import read_rng, restore_rng
from trainer.compiling import check_compiler
from trainer.config import ConfigError, RunConfig, TrainingConfig
from trainer.data.archive import Progress
from trainer.messages.compute import ComputeChoice, Form, MeasuredForm, Precision
from trainer.optim import autocast, make_optimizer

if TYPE_CHECKING:
    from trainer.live_run import LiveRun

MOST_SECONDS = 3.0
SHARE_OF_RUN = 0.05
"""The measurement takes no longer than either of these, but for its last step."""
FEWEST_STEPS = 100
"""A run of fewer steps is over before a measurement pays."""
CLEAR_GAIN = 0.05
"""How much faster a form must be to be taken instead of a plainer one; and faster it must be in every round."""
EARLY_GAIN = 0.2
"""A form that is faster by this much needs no third round."""
_FEWEST_ROUNDS, _MOST_ROUNDS = 2, 3
_FEWEST_IMAGES = 2
_STEPS_OF_DUEL = 1 + 2 * _FEWEST_ROUNDS
"""With one in which kernels are made and memory is taken."""
_GRACE = 3.0
"""How much too long the first duel may take: of a large model, even two images are slow, and much is to be gained."""
_AMPERE = (8, 0)
_JUST_NOW_S = 60.0
_CONV_WEIGHT_DIM = 4


def check_compute(config: RunConfig, device: torch.device) -> None:
    """Refuse a form that the device cannot compute.

    Raises:
        ConfigError: The precision is not for this device, or there is no compiler.

    """
    training = config.training
    if training.precision == "fp16" and device.type != "cuda":
        raise ConfigError(
            f"The precision fp16 needs an NVIDIA or AMD GPU, and the run is to be trained on {device}. Use auto, fp32 "
            "or bf16.",
            "training.precision",
        )
    if training.compile == "on":
        check_compiler(device)


def native_precisions(device: torch.device) -> list[Precision]:
    """Return the precisions in which a device computes by itself, the plainest first: others it only imitates."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return ["fp32", "bf16"]
        return ["fp32", "fp16"]
    if device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        # On x86, what oneDNN itself calls supported includes plain AVX512: there it is slower than fp32.
        is_arm = platform.machine().lower() in {"aarch64", "arm64"}
        has_x86 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        if has_x86 or (is_arm and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            return ["fp32", "bf16"]
    return ["fp32"]


def default_choice(config: RunConfig, device: torch.device, num_threads: int) -> ComputeChoice:
    """Return what a run is computed in where nothing is measured: bf16 on a GPU that has it, else fp32."""
    precision = native_precisions(device)[-1]
    form = Form(precision=precision if device.type == "cuda" and precision == "bf16" else "fp32")
    return ComputeChoice(
        form=_as_asked(form, config.training, device, num_threads), is_compiled=config.training.compile == "on"
    )


def choose(
    run: LiveRun,
    earlier: ComputeChoice | None,
    num_threads: int,
    on_progress: Progress,
    check_cancelled: Callable[[], None],
) -> ComputeChoice:
    """Choose the form in which a run is computed.

    What the configuration names is taken. Of the rest, a run that was begun before goes on as it was computed, where
    this machine can, and a new one gets the fastest form: nothing of the run is another after that was measured.

    Args:
        run: The run, which has made no step here.
        earlier: How it was computed before, None where it begins.
        num_threads: The most threads that the CPU has for it.
        on_progress: Called with (what, done, total, unit).
        check_cancelled: Called between steps; raises to end it.

    """
    training, device = run.config.training, run.device
    plain = default_choice(run.config, device, num_threads)
    if earlier is not None:
        form = _as_asked(earlier.form, training, device, min(earlier.form.num_threads, num_threads))
        if form.precision in {training.precision, *native_precisions(device)}:
            is_same = form == earlier.form
            return earlier.model_copy(
                update={"form": form, "is_compiled": plain.is_compiled, **({} if is_same else {"measured": []})}
            )
    if training.deterministic or run.total_steps < FEWEST_STEPS:
        # What is measured may be another form the next time, and a run that is repeatable would not be that.
        return plain
    forms = _forms(run, num_threads)
    has_fewer_threads = training.num_threads is None and device.type == "cpu" and num_threads > 1
    if len(forms) == 1 and not has_fewer_threads:
        return plain
    on_progress("Measuring precisions", 0, 0, "")
    measured = measure(run, forms, check_cancelled, has_fewer_threads=has_fewer_threads)
    return plain if measured is None else measured.model_copy(update={"is_compiled": plain.is_compiled})


def measure(
    run: LiveRun, forms: Sequence[Form], check_cancelled: Callable[[], None], *, has_fewer_threads: bool
) -> ComputeChoice | None:
    """Time steps of the run's model in several forms, two against each other, on images of noise.

    There are as many images in them, and as many forms are tried, as there is time for: the most promising first.
    Returns the fastest of them, None where there is no time for any, or a step cannot be made.

    Args:
        run: The run. Its weights, statistics, optimizer and generators are as they were afterwards, to the bit.
        forms: The plainest first.
        check_cancelled: Called between steps; raises to end it.
        has_fewer_threads: Whether the fastest is tried with half of its threads, too.

    """
    started = time.perf_counter()
    with _aside(run):
        duels = _Duels(_Steps(run, min(run.config.training.batch_size, _FEWEST_IMAGES), check_cancelled))
        try:
            duels.warm_up(forms[0])
            step_s = duels.seconds_of(forms[0])
            run_s = step_s / duels.steps.share * run.total_steps * run.features.computed_share()
            deadline = started + min(MOST_SECONDS, SHARE_OF_RUN * run_s)
            left_s = deadline - time.perf_counter()
            if left_s * _GRACE < _STEPS_OF_DUEL * step_s:
                return None
            num_steps = (len(forms) - 1 + has_fewer_threads) * _STEPS_OF_DUEL
            num_images = min(
                run.config.training.batch_size, int(duels.steps.num_images * left_s / (num_steps * step_s))
            )
            if num_images > duels.steps.num_images:
                duels = _Duels(_Steps(run, num_images, check_cancelled))
                duels.warm_up(forms[0])
        except RuntimeError:
            # The run's own first step meets the same, and says so.
            return None
        best = forms[0]
        for rival in reversed(forms[1:]):
            if best == forms[0] or duels.have_time(best, deadline):
                best = duels.fight(*sorted((best, rival), key=forms.index)) or best
        fewer = best.model_copy(update={"num_threads": best.num_threads // 2})
        if has_fewer_threads and duels.have_time(best, deadline):
            best = duels.fight(best, fewer) or best
        measured = [
            MeasuredForm(form=form, step_ms=statistics.median(duels.seconds[form]) * 1000)
            for form in (*forms, fewer)
            if form in duels.seconds
        ]
    return ComputeChoice(form=best, measured=measured, num_images=duels.steps.num_images, measured_at=time.time())


def apply_form(form: Form, module: nn.Module, device: torch.device) -> None:
    """Have the process and a model's weights be as a form says, but for the precision: that is ``autocast``'s."""
    torch.set_num_threads(form.num_threads)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if form.tf32 else "highest")
        # Of convolutions, torch itself takes TF32 always.
        torch.backends.cudnn.allow_tf32 = form.tf32
    for parameter in module.parameters():
        if parameter.dim() == _CONV_WEIGHT_DIM:
            parameter.data = _laid_out(parameter.data, form)


def log_sentence(choice: ComputeChoice) -> str:
    """Say what was chosen, and what each form took; "" where nothing was measured."""
    plain_ms, step_ms = choice.plain_ms, choice.step_ms
    if plain_ms is None or step_ms is None:
        return ""
    earlier = ""
    if time.time() - choice.measured_at > _JUST_NOW_S:
        at = datetime.datetime.fromtimestamp(choice.measured_at).astimezone()
        earlier = f" (measured on {at:%d %b} at {at:%H:%M} for the same steps, and kept for a day)"
    what = f"on {choice.num_images} images{earlier}"
    others = "; ".join(f"{_name(each.form, choice)} {each.step_ms:.3g} ms" for each in choice.measured)
    plainest = choice.measured[0].form
    name = f"{_name(choice.form, choice)}{', compiled' if choice.is_compiled else ''}"
    if choice.form == plainest:
        return f"Computed in {name}, the fastest by steps {what}: {others}."
    return f"Computed in {name}, {plain_ms / step_ms:.2g} × as fast as {plainest.text} by steps {what}: {others}."


def _name(form: Form, choice: ComputeChoice) -> str:
    plainest = choice.measured[0].form
    threads = f" with {form.num_threads} of {plainest.num_threads} threads"
    return form.text + (threads if form.num_threads != plainest.num_threads else "")


def _forms(run: LiveRun, num_threads: int) -> list[Form]:
    training, device = run.config.training, run.device
    precisions = native_precisions(device) if training.precision == "auto" else [training.precision]
    has_convolutions = any(parameter.dim() == _CONV_WEIGHT_DIM for parameter in run.module.parameters())
    layouts = [False, True] if has_convolutions and device.type in {"cpu", "cuda"} else [False]
    forms = [
        _as_asked(Form(precision=precision, channels_last=layout), training, device, num_threads)
        for precision in precisions
        for layout in layouts
    ]
    return list(dict.fromkeys(forms))


def _as_asked(form: Form, training: TrainingConfig, device: torch.device, num_threads: int) -> Form:
    """Return a form with what the configuration names."""
    precision = form.precision if training.precision == "auto" else training.precision
    has_tf32 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE
    return Form(
        precision=precision,
        channels_last=form.channels_last if training.channels_last == "auto" else training.channels_last == "on",
        # Who names fp32 gets matrices and convolutions in it, too.
        tf32=has_tf32 and training.precision == "auto" and precision == "fp32",
        num_threads=training.num_threads or num_threads,
    )


def _laid_out(weight: Tensor, form: Form) -> Tensor:
    wanted = torch.channels_last if form.channels_last else torch.contiguous_format
    # Of a kernel of 1 × 1 both are contiguous, whatever its strides say; and by these the operators go.
    laid_out = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device, memory_format=wanted)
    return weight if laid_out.stride() == weight.stride() else laid_out.copy_(weight)


class _Duels:
    """Steps in two forms in turn, as what slows the machine for a while slows both.

    Attributes:
        steps: What is timed.
        seconds: What each step took, by its form.

    """

    def __init__(self, steps: _Steps) -> None:
        self.steps = steps
        self.seconds: dict[Form, list[float]] = {}

    def warm_up(self, form: Form) -> None:
        """Make a step that does not count."""
        self.steps.seconds_of(form)

    def seconds_of(self, form: Form) -> float:
        """Make a step that counts."""
        seconds = self.steps.seconds_of(form)
        self.seconds.setdefault(form, []).append(seconds)
        return seconds

    def have_time(self, form: Form, deadline: float) -> bool:
        """Whether there is time for another rival of a form."""
        return time.perf_counter() + _STEPS_OF_DUEL * statistics.median(self.seconds[form]) <= deadline

    def fight(self, plainer: Form, other: Form) -> Form | None:
        """Return the other form where it is faster in every round, and clearly so in the median, else the plainer one.

        None where one of them cannot be computed.
        """
        mine: list[float] = []
        theirs: list[float] = []
        try:
            for form in (plainer, other):
                if form not in self.seconds:
                    self.warm_up(form)
            for number in range(_MOST_ROUNDS):
                theirs.append(self.seconds_of(plainer))
                mine.append(self.seconds_of(other))
                if mine[-1] >= theirs[-1]:
                    return plainer
                gains = [1 - a / b for a, b in zip(mine, theirs, strict=True)]
                if number + 1 >= _FEWEST_ROUNDS and min(gains) > EARLY_GAIN:
                    break
        except RuntimeError:
            # An operator that does not know this precision, or no memory.
            return None
        return other if statistics.median(mine) <= (1 - CLEAR_GAIN) * statistics.median(theirs) else plainer


class _Steps:
    """Training steps of a run's model on images of noise.

    Args:
        run: The run, set aside.
        num_images: The images of a step.
        check_cancelled: Called before each step.

    Attributes:
        num_images: The images of a step.
        share: Their share of those of an update.

    """

    def __init__(self, run: LiveRun, num_images: int, check_cancelled: Callable[[], None]) -> None:
        size = run.data.preprocessing.image_size
        generator = torch.Generator().manual_seed(0)
        self._images = torch.randn((num_images, 3, size, size), generator=generator).to(run.device)
        self.num_images = num_images
        self.share = num_images / (run.config.training.batch_size * run.config.training.accumulate_batches)
        self._run, self._check_cancelled = run, check_cancelled
        self._update_s: float | None = None

    def seconds_of(self, form: Form) -> float:
        """Return the seconds of a step, with these images' share of the optimizer's part."""
        self._check_cancelled()
        run = self._run
        apply_form(form, run.module, run.device)
        started = time.perf_counter()
        with autocast(form.precision, run.device):
            outputs = run.module(self._images)
        # Any loss costs as good as nothing beside the model.
        outputs.float().square().mean().backward()
        wait_for(run.device)
        seconds = time.perf_counter() - started
        if self._update_s is None:
            self._update_s = self._time_update()
        for parameter in run.module.parameters():
            parameter.grad = None
        return seconds + self._update_s * self.share

    def _time_update(self) -> float:
        """Time the optimizer's part, which is alike in all forms: the weights are fp32 in any."""
        optimizer = make_optimizer(self._run.config.optimizer, self._run.module)
        # The first one makes its state.
        optimizer.step()
        wait_for(self._run.device)
        started = time.perf_counter()
        optimizer.step()
        wait_for(self._run.device)
        return time.perf_counter() - started


@contextmanager
def _aside(run: LiveRun) -> Iterator[None]:
    """Put a run back to the bit, whatever steps are made inside: its own weights are not touched."""
    rng, form = read_rng(run.device), run.compute.form
    modes = [(module, module.training) for module in run.module.modules()]
    own = [(parameter, parameter.data) for parameter in run.module.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in run.module.buffers()]
    for parameter, data in own:
        if parameter.requires_grad:
            parameter.data = data.clone()
    run.freeze_set.set_mode(training=True)
    try:
        yield
    finally:
        for parameter, data in own:
            parameter.data, parameter.grad = data, None
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, mode in modes:
            module.training = mode
        apply_form(form, run.module, run.device)
        restore_rng(rng, run.device)
        if run.device.type == "cuda":
            # Of forms that were not chosen.
            torch.cuda.empty_cache()


def wait_for(device: torch.device) -> None:
    """Return when all is done that a device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
