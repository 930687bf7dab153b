"""ModelOffer: the models and weights to choose from, what is known of the chosen ones, and what is wrong there."""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QCoreApplication

from app.viewmodels.field_values import shown_value, typed_error, typed_value
from app.viewmodels.quantities import percent_text, size_text
from trainer.config import DataConfig, ModelConfig
from trainer.messages.model_info import ImagePreset, ModelEntry, WeightSet


class ModelOffer:
    """Looks up the names that the form's fields hold among the models that a worker listed; none before it did."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts
        self.models: list[ModelEntry] = []

    @property
    def chosen_entry(self) -> ModelEntry | None:
        """Return what is known of the model that is chosen, None while its name is none of those on offer."""
        return next((entry for entry in self.models if entry.name == self._texts["model.name"].strip()), None)

    @property
    def chosen_weights(self) -> WeightSet | None:
        """Return the published weights that are chosen, None where they are a file's, random or not known."""
        entry = self.chosen_entry
        return None if entry is None else entry.weight_set(self._texts["model.weights"].strip())

    @property
    def has_foreign_weights(self) -> bool:
        """Whether the weights are published ones of another model."""
        name = ModelConfig(weights=self._texts["model.weights"]).weight_set
        return bool(name) and self.chosen_entry is not None and self.chosen_weights is None

    def error(self, field: str) -> str:
        """Say what is not on offer in a field; "" for nothing."""
        name, weights = self._texts["model.name"].strip(), self._texts["model.weights"].strip()
        if field == "model.name" and self.models and self.chosen_entry is None:
            text = QCoreApplication.translate("RunForm", "No model is named {}. Choose one from the list.")
            return text.format(name or '""')
        if field == "model.weights" and self.has_foreign_weights:
            text = QCoreApplication.translate("RunForm", "{} has no published weights {}. Choose others from the list.")
            return text.format(name, weights)
        return ""

    def weights_note(self) -> str:
        """Say of the chosen weights what matters most first: the note has one line. "" where nothing is known."""
        weights = self.chosen_weights
        if weights is None:
            return ""
        place = QCoreApplication.translate("RunForm", "On this disk")
        if not weights.is_cached:
            size = size_text(weights.size_bytes)
            place = QCoreApplication.translate("RunForm", "{} to be downloaded").format(size)
        return f"{place} · {percent_text(weights.accuracy)} · {weights.name}"

    def own_text(self, field: str) -> str:
        """Return what the weights were trained with, where a field about the images is left empty."""
        images = self._images()
        if images is None:
            return QCoreApplication.translate("RunForm", "the weights' own")
        side = self._texts["data.image_size"]
        image_size = typed_value("data.image_size", side)
        if field == "data.resize_size" and image_size is not None and not typed_error("data.image_size", side):
            images = images.resized_to(DataConfig(image_size=image_size).image_size or images.image_size)
        return shown_value(getattr(images, field.removeprefix("data.")))

    def _images(self) -> ImagePreset | None:
        entry, chosen = self.chosen_entry, self.chosen_weights
        if chosen is not None:
            return chosen.images
        return None if entry is None else entry.images


def weights_text(weights: WeightSet) -> str:
    """Return the published accuracy and the size of weights, and whether they are here already."""
    place = (
        QCoreApplication.translate("RunForm", "on this disk")
        if weights.is_cached
        else QCoreApplication.translate("RunForm", "to be downloaded")
    )
    return f"{percent_text(weights.accuracy)} · {size_text(weights.size_bytes)} · {place}"
