"""ChangeSender: sends what a person changes of the live run, and shows it on its way until the worker has made it."""

from __future__ import annotations

from app.session import TrainingSession
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.run_config import RunConfigViewModel
from trainer.messages.base import Command
from trainer.messages.commands import FreezeLayers, UnfreezeLayers


class ChangeSender:
    """Asks for changes of the live run: of its layers, which the tree shows pending, and of its values in the form."""

    def __init__(
        self, session: TrainingSession, layer_tree: LayerTreeViewModel, run_config: RunConfigViewModel
    ) -> None:
        self._session = session
        self._layer_tree = layer_tree
        self._run_config = run_config

    def freeze(self, layers: list[str]) -> None:
        """Freeze layers."""
        self._layer_tree.mark_pending(self._session.freeze(layers), layers)

    def unfreeze(self, layers: list[str]) -> None:
        """Unfreeze layers."""
        self._layer_tree.mark_pending(self._session.unfreeze(layers), layers)

    def multiply(self, layers: list[str], multiplier: float) -> None:
        """Let layers learn at a rate of their own."""
        self._layer_tree.mark_multiplying(self._session.set_rate_multiplier(layers, multiplier), layers)

    def set_batchnorm(self, layers: list[str], is_adapting: bool) -> None:
        """Let the statistics of frozen layers adapt, or freeze with them."""
        self._layer_tree.mark_pending(self._session.set_batchnorm(layers, is_adapting=is_adapting), layers)

    def send(self, command: Command) -> str:
        """Send what undoes a change or makes it again. Returns the command's id."""
        command_id = self._session.send(command)
        if isinstance(command, FreezeLayers | UnfreezeLayers):
            self._layer_tree.mark_pending(command_id, command.layers)
        return command_id

    def use_rate(self, rate: float) -> None:
        """Write a rate that was found into the form; a live run gets it at once."""
        self._run_config.set_text("optimizer.rate", f"{rate:g}")
        self.send_typed()

    def send_typed(self) -> None:
        """Ask for what was typed for the live run: another rate, other epochs, another patience, another plan."""
        changes = self._run_config.live.wanted()
        if (rate := changes.pop("rate", None)) is not None:
            self._run_config.mark_pending(self._session.set_rate(rate), "rate")
        if (plan := changes.pop("plan", None)) is not None:
            self._run_config.mark_pending(self._session.set_plan(plan), "plan")
        if changes:
            epochs = changes.get("epochs")
            patience = (changes["patience"] or 0) if "patience" in changes else None
            command_id = self._session.change_training(
                epochs=None if epochs is None else int(epochs), patience=None if patience is None else int(patience)
            )
            self._run_config.mark_pending(command_id, *changes)
