"""The words for the form in which a run is computed, and for the figures of the choice."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from app.viewmodels.quantities import count_text, milliseconds_text, number_text
from trainer.messages.compute import ComputeChoice, Form
from trainer.messages.run_info import RunInfo


def compute_text(choice: ComputeChoice) -> str:
    """Name the form: "bf16, channels last, compiled"."""
    return _with_compiled(_form_text(choice.form), choice)


def chosen_text(run: RunInfo) -> str:
    """Name the form with its figures: "bf16, channels last — 2.1 × fp32 (412 → 196 ms a step)"."""
    choice = run.computed_in
    plain_ms, step_ms = choice.plain_ms, choice.step_ms
    if plain_ms is None or step_ms is None:
        return compute_text(choice)
    plainest = choice.measured[0].form
    name = _with_compiled(_form_text(choice.form, plainest.num_threads), choice)
    if choice.form == plainest:
        text = QCoreApplication.translate("Compute", "{} — the fastest of {}")
        return text.format(name, count_text(len(choice.measured)))
    return QCoreApplication.translate("Compute", "{} — {}\u00a0× {} ({} → {} {})").format(
        name,
        number_text(plain_ms / step_ms, 1),
        _form_text(plainest),
        milliseconds_text(plain_ms).removesuffix(" ms"),
        milliseconds_text(step_ms),
        _of_step(run),
    )


def measured_text(run: RunInfo) -> str:
    """Say what each form took that was measured, a line each; "" where none was."""
    choice = run.computed_in
    if not choice.measured:
        return ""
    most = choice.measured[0].form.num_threads
    lines = [QCoreApplication.translate("Compute", "Measured before the first step, {}:").format(_of_step(run))]
    lines += [f"{milliseconds_text(each.step_ms)}  {_form_text(each.form, most)}" for each in choice.measured]
    return "\n".join(lines)


def _of_step(run: RunInfo) -> str:
    num_images, training = run.computed_in.num_images, run.config.training
    if num_images == training.batch_size * training.accumulate_batches:
        return QCoreApplication.translate("Compute", "a step")
    return QCoreApplication.translate("Compute", "for {} images").format(count_text(num_images))


def _form_text(form: Form, most_threads: int = 0) -> str:
    """Name a form, and how many of its threads it has, where they are not ``most_threads``."""
    parts: list[str] = [form.precision]
    if form.tf32:
        parts.append("TF32")
    if form.channels_last:
        parts.append(QCoreApplication.translate("Compute", "channels last"))
    if most_threads and form.num_threads != most_threads:
        threads = QCoreApplication.translate("Compute", "{} of {} threads")
        parts.append(threads.format(count_text(form.num_threads), count_text(most_threads)))
    return ", ".join(parts)


def _with_compiled(text: str, choice: ComputeChoice) -> str:
    return QCoreApplication.translate("Compute", "{}, compiled").format(text) if choice.is_compiled else text
