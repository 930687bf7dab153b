"""Sharing a checkpoint: what is asked of the process that exports one, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from trainer.messages.base import Command, Event, Record

ExportFormat = Literal["pt", "course", "pickle", "safetensors", "onnx", "pt2"]

ENDINGS: dict[ExportFormat, tuple[str, ...]] = {
    "pt": (".pt", ".pth"),
    "course": (".pt", ".pth"),
    "pickle": (".pt", ".pth", ".pkl"),
    "safetensors": (".safetensors",),
    "onnx": (".onnx",),
    "pt2": (".pt2",),
}
"""The endings of each format's files. Where several have the same, the first one is meant by the ending alone."""

FORMAT_SENTENCES: dict[ExportFormat, str] = {
    "pt": "A bare state_dict: the model's weights by name, and nothing else.",
    "course": "A dict with epoch, model_state_dict, optimizer_state_dict and loss, and what the file beside it says.",
    "pickle": "The whole model, pickled. Loading it executes code from the file: load it only from people you trust.",
    "safetensors": "The weights, which execute nothing when they are loaded; what they mean is in the file's header.",
    "onnx": "The model as a graph of ONNX, for any number of images at once.",
    "pt2": "The model as a graph of torch.export, for any number of images at once.",
}
"""What each format is, in a sentence."""

BUNDLE_ARCHIVE = ".zip"


class ExportCheckpoint(Command):
    """Write a checkpoint of a run for others. An errand (``trainer.errand``), not for a worker.

    ``to`` is an absolute path, a bundle's that of a folder or a .zip. ``format`` is None where the ending says it.
    """

    kind: Literal["ExportCheckpoint"] = "ExportCheckpoint"
    run_dir: str
    checkpoint: str
    to: str
    format: ExportFormat | None = None
    is_bundle: bool = False
    overwrite: bool = False

    @property
    def places(self) -> list[Path]:
        """Return what is to be written: the file and what is said beside it, or the bundle.

        Raises:
            ValueError: The path ends in no name.

        """
        to = Path(self.to)
        name = name_of(to)
        return [to] if self.is_bundle else [to, to.with_name(f"{name}.json")]


class Parity(Record):
    """How far the outputs of an exported model, loaded again from its file, are from those of the run's.

    ``largest_difference`` is of any output of any of the images, and no more than ``tolerance``. The images are of the
    run's validation split, or (``is_on_random_images``) noise where these cannot be read any more.
    """

    largest_difference: float
    tolerance: float
    num_images: int
    is_on_random_images: bool

    @property
    def sentence(self) -> str:
        """Say it."""
        images = f"{self.num_images} {'random' if self.is_on_random_images else 'validation'} " + (
            "image" if self.num_images == 1 else "images"
        )
        how = (
            f"differ by at most {self.largest_difference:.2g} from the run's"
            if self.largest_difference
            else "equal the run's to the bit"
        )
        why = ": none of the run's own can be read" if self.is_on_random_images else ""
        return f"Its outputs, loaded again from the file, {how}, on {images}{why}."


class CheckpointExported(Event):
    """A checkpoint is written, durably, and its outputs were compared with the run's.

    ``path`` is the file, or the bundle's folder or archive; ``files`` has the size in bytes of each file by its path
    relative to the folder of ``path`` (in a bundle: to the bundle). ``notes`` are sentences about what it lacks.
    """

    kind: Literal["CheckpointExported"] = "CheckpointExported"
    checkpoint: str
    path: str
    files: dict[str, int]
    parity: Parity
    notes: list[str] = Field(default_factory=list)


def name_of(to: Path) -> str:
    """Return the name of the file or bundle that is to be written to a path.

    Raises:
        ValueError: It ends in none, as a root does, and a folder that dots stand for.

    """
    if to.name in {"", ".."}:
        raise ValueError(f"The path {to} ends in no name of a file or bundle. Add one to it.")
    return to.name


def format_of(to: str, chosen: ExportFormat | None) -> ExportFormat:
    """Return the format that is meant by a file's ending, or that was chosen.

    Raises:
        ValueError: The ending says nothing, or another one than was chosen.

    """
    fitting = [name for name, endings in ENDINGS.items() if to.lower().endswith(endings)]
    if chosen is not None:
        if chosen in fitting:
            return chosen
        endings = " or ".join(ENDINGS[chosen])
        raise ValueError(f"A file of the format {chosen} ends in {endings}, but {to} does not. Choose another name.")
    if fitting:
        return fitting[0]
    known = ", ".join(dict.fromkeys(ending for endings in ENDINGS.values() for ending in endings))
    raise ValueError(f"The ending of {to} says no format. Choose one of {known}, or ask for a bundle.")
