"""RunNeed: what the form's run would need of time, memory and disk, in words."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.viewmodels.quantities import duration_text, part_text, size_text
from trainer.messages.run_info import RunEstimate


class RunNeed(QObject):
    """Holds the sentence about what a run would need, or why that is not known."""

    changed = Signal()
    """It is known anew."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.text = ""
        """"" while nothing is known."""
        self.lacks_room = False
        """Whether the disk has too little room for it."""

    def show_estimating(self) -> None:
        """Say that a few steps are being tried."""
        self.show_text(self.tr("Trying a few steps …"))

    def show_estimate(self, estimate: RunEstimate | None) -> None:
        """Say what the run will need; None takes it back."""
        if estimate is None:
            self.show_text("")
            return
        seconds = max(estimate.seconds_per_epoch, 1.0)
        text = self.tr("About {epoch} an epoch, {all} in all · {memory} of memory · {disk} on disk, {free} free")
        text = text.format(
            epoch=duration_text(seconds),
            all=duration_text(max(estimate.seconds_per_epoch * estimate.num_epochs, 1.0)),
            memory=size_text(estimate.memory_bytes),
            disk=size_text(estimate.disk_bytes),
            free=size_text(estimate.free_bytes),
        )
        kept = size_text(estimate.kept_bytes)
        if estimate.kept_bytes < estimate.decoded_bytes:
            kept = part_text(estimate.kept_bytes, estimate.decoded_bytes)
        budget = size_text(estimate.budget_bytes)
        text = self.tr("{} · {} of images kept decoded, budget {}").format(text, kept, budget)
        self.show_text(text, lacks_room=estimate.disk_bytes > estimate.free_bytes)

    def show_text(self, text: str, *, lacks_room: bool = False) -> None:
        """Say in words what the run would need, or why that is not known."""
        if (text, lacks_room) != (self.text, self.lacks_room):
            self.text, self.lacks_room = text, lacks_room
            self.changed.emit()
