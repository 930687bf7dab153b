"""How the machine computes a run: the arithmetic, the layout of the weights, threads; and the figures behind it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from trainer.messages.base import Record

Precision = Literal["fp32", "bf16", "fp16"]


class Form(Record):
    """A form in which steps can be computed.

    ``precision`` is that of the forward pass: the weights are fp32 in any. ``channels_last``: the weights of
    convolutions, and what they give, have the channels of a pixel side by side. ``tf32``: a GPU multiplies fp32
    numbers, in matrices and convolutions, with 10 bits of fraction. ``num_threads`` are the CPU's.
    """

    precision: Precision = "fp32"
    channels_last: bool = False
    tf32: bool = False
    num_threads: int = 1

    @property
    def text(self) -> str:
        """Name it for a log: "bf16, channels last"."""
        return ", ".join((self.precision, *(["TF32"] if self.tf32 else []), *self._layout))

    @property
    def _layout(self) -> list[str]:
        return ["channels last"] if self.channels_last else []


class MeasuredForm(Record):
    """What a training step took in one form: the median, in ms."""

    form: Form
    step_ms: float


class ComputeChoice(Record):
    """The form in which a run is computed; it stays that of the run, as another one rounds otherwise.

    ``is_compiled``: the model goes through torch.compile. ``measured`` are the steps on which the choice rests, the
    plainest form's first, each with ``num_images``, at ``measured_at`` (Unix time in seconds); there are none where
    nothing was to choose, or was measured.
    """

    form: Form = Form()
    is_compiled: bool = False
    measured: list[MeasuredForm] = Field(default_factory=list)
    num_images: int = 0
    measured_at: float = 0.0

    @property
    def plain_ms(self) -> float | None:
        """Return what a step took in the plainest form, in ms; None where nothing was measured."""
        return self.measured[0].step_ms if self.measured else None

    @property
    def step_ms(self) -> float | None:
        """Return what a step took in the form that was chosen, in ms; None where nothing was measured."""
        return next((each.step_ms for each in self.measured if each.form == self.form), None)

    @property
    def text(self) -> str:
        """Say it for a log: "bf16, channels last, compiled"."""
        return f"{self.form.text}, compiled" if self.is_compiled else self.form.text

    @property
    def words(self) -> dict[str, str]:
        """Describe it beside the versions that a run is made with, by the words for it."""
        form = self.form
        return {
            "precision": form.precision,
            "TF32": "on" if form.tf32 else "off",
            "layout of weights": "channels last" if form.channels_last else "plain",
            "torch.compile": "on" if self.is_compiled else "off",
        }
