"""What a scan finds in a data set, and what a model sees of one of its images."""

from __future__ import annotations

from pydantic import Field, model_validator

from trainer.messages.base import Record

SPLITS = ("train", "validation", "test")
"""The parts of a data set, in the order in which they matter."""


class TableColumns(Record):
    """The columns of a table of images: their names, and which of them were taken for what.

    ``taken`` names columns by the config field that chooses another one ("label_column"); what was looked for and not
    found is not in it.
    """

    names: list[str]
    taken: dict[str, str]


class DataSummary(Record):
    """What a scan of a data set found, in a few figures. Every image and issue is in the report (``data_report``).

    ``counts`` has for each split ("train", "validation", "test") the images of each class, in the order of
    ``class_names``; ``num_images`` all images of each split, and ``is_multi_label`` says whether some of them have
    several classes, or none. ``issue_counts`` counts the issues by kind. ``advice`` are sentences about what to look at
    before a run. ``image_sides`` are the smallest, median and largest (width, height), by area, in pixels; ``aspects``
    the lowest, median and highest of width divided by height. ``columns`` are a table's, None in another layout.
    """

    layout: str
    class_names: list[str]
    counts: dict[str, list[int]]
    num_images: dict[str, int] = Field(default_factory=dict)
    is_multi_label: bool = False
    num_skipped: int = 0
    issue_counts: dict[str, int] = Field(default_factory=dict)
    advice: list[str] = Field(default_factory=list)
    image_sides: list[tuple[int, int]] = Field(default_factory=list)
    aspects: list[float] = Field(default_factory=list)
    num_bytes: int = 0
    columns: TableColumns | None = None

    @model_validator(mode="after")
    def _counts_images(self) -> DataSummary:
        # Not in those that earlier versions wrote: there, each image had one class.
        if not self.num_images:
            self.num_images.update({split: sum(counts) for split, counts in self.counts.items()})
        return self

    @property
    def class_counts(self) -> dict[str, int]:
        """Return each class's images over all splits."""
        return {name: sum(counts[idx] for counts in self.counts.values()) for idx, name in enumerate(self.class_names)}


class ImageView(Record):
    """What the model sees of an image in an epoch: the PNG file of its pixels, "" where the epoch does without it.

    ``epoch`` counts from 1; None stands for every epoch. ``num_times`` says how often the epoch has the image: the file
    shows the first time. ``mixed_with`` names the classes of the image that is mixed in, "" if it has none or no image
    is, and ``mixed_share`` is that image's share, 0 to 1.
    """

    file: str
    epoch: int | None
    num_times: int = 1
    mixed_with: str = ""
    mixed_share: float = 0.0
