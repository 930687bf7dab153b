"""How fast a run goes, and how long it will take."""

from __future__ import annotations


class Pace:
    """How fast the run goes, over its most recent steps."""

    _MEMORY = 0.95
    """What a step's weight is multiplied with at each later one."""

    def __init__(self) -> None:
        self.flushed_at = 0.0
        self.validation_s = 0.0
        self.forget()

    def forget(self) -> None:
        """Begin to measure anew, and have that told after the next step."""
        self.reported_at = 0.0
        self._seconds = self._samples = self._steps = 0.0

    def add(self, seconds: float, num_samples: int) -> None:
        """Count one step."""
        self._seconds = self._seconds * self._MEMORY + seconds
        self._samples = self._samples * self._MEMORY + num_samples
        self._steps = self._steps * self._MEMORY + 1

    @property
    def step_s(self) -> float:
        """Return the seconds that a step takes; 0 before there is one."""
        return self._seconds / self._steps if self._steps else 0.0

    @property
    def samples_per_s(self) -> float:
        """Return the samples trained in a second; 0 before there is a step."""
        return self._samples / self._seconds if self._seconds else 0.0

    def seconds_left(self, num_steps: int, num_epochs: int) -> float | None:
        """Predict from the recent steps and the last validation; None before there are any."""
        if not self._steps:
            return None
        return num_steps * self.step_s + num_epochs * self.validation_s
