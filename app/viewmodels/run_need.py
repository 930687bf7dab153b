"""RunNeed: what the form's run would need of time, memory and disk, in words."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.viewmodels.cached_layers import share_text
from app.viewmodels.quantities import count_text, duration_text, part_text, short_time_text, size_text
from trainer.config import RunConfig
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

    def show_estimate(self, estimate: RunEstimate | None, config: RunConfig | None = None) -> None:
        """Say what the run will need, and what of its ``config`` would make it need less; None takes it back."""
        if estimate is None:
            self.show_text("")
            return
        text = self.tr("{time} · {memory} of memory · {disk} on disk, {free} free")
        text = text.format(
            time=" · ".join(filter(None, (self._time_text(estimate), self._offer(estimate, config)))),
            memory=size_text(estimate.memory_bytes),
            disk=size_text(estimate.disk_bytes),
            free=size_text(estimate.free_bytes),
        )
        kept = size_text(estimate.kept_bytes)
        if estimate.kept_bytes < estimate.decoded_bytes:
            kept = part_text(estimate.kept_bytes, estimate.decoded_bytes)
        budget = size_text(estimate.budget_bytes)
        text = self.tr("{} · {} of images kept decoded, budget {}").format(text, kept, budget)
        if estimate.not_cached:
            text = f"{text} · {estimate.not_cached}"
        self.show_text(text, lacks_room=estimate.disk_bytes > estimate.free_bytes)

    def _time_text(self, estimate: RunEstimate) -> str:
        epoch = duration_text(max(estimate.seconds_per_epoch, 1.0))
        whole = self.tr("{} in all").format(duration_text(max(estimate.seconds, 1.0)))
        if estimate.unfreezes:
            whole = self.tr("{}, more once the plan unfreezes").format(whole)
        if not 0 < estimate.cached_views < estimate.num_epochs:
            return self.tr("About {epoch} an epoch, {all}").format(epoch=epoch, all=whole)
        text = self.tr(
            "About {epoch} an epoch, from epoch {number} on {later}, as features of {layers} are cached ({size}); {all}"
        )
        return text.format(
            epoch=epoch,
            number=count_text(estimate.cached_views + 1),
            later=short_time_text(estimate.cached_seconds_per_epoch),
            layers=estimate.cached_layers,
            size=size_text(estimate.cached_bytes),
            all=whole,
        )

    def _offer(self, estimate: RunEstimate, config: RunConfig | None) -> str:
        """Say what fixed views of the images would save, or fewer of them; "" where they would not."""
        if config is None or config.data.augmentation == "none" or not estimate.cached_layers:
            return ""
        if config.data.views == 0 and config.data.mixing == "none":
            share = share_text(estimate.cached_saved_share)
            return self.tr("fixed views (now 0) would save later epochs {} of the forward computing").format(share)
        if estimate.cached_views > 1 and estimate.cached_views >= estimate.num_epochs:
            text = self.tr("with {} views each comes once at most, so that fewer would save time")
            return text.format(count_text(estimate.cached_views))
        return ""

    def show_text(self, text: str, *, lacks_room: bool = False) -> None:
        """Say in words what the run would need, or why that is not known."""
        if (text, lacks_room) != (self.text, self.lacks_room):
            self.text, self.lacks_room = text, lacks_room
            self.changed.emit()
