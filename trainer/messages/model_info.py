"""What a model is made of, what it costs, how it wants its images, and which weights fit it."""

from __future__ import annotations

from pydantic import Field

from trainer.messages.base import Record

BYTES_PER_VALUE = 4
"""Of a parameter, or of an activation, in fp32."""

SMALL_IMAGE_SIZE = 96
"""Side in pixels up to which an image is not cut."""


class LayerInfo(Record):
    """One module of the model's tree that has parameters, buffers or children.

    ``fqn`` is the qualified name in the stock model ("layer4.0.conv1"); the root is "". ``num_params`` counts the
    subtree's unique parameters; ``is_unit`` says that the module owns parameters or buffers itself, so that a freeze
    set can name it; ``own_params`` are the parameters that it owns, by their names in it, with the number of values in
    each: 0 where another module owns them too and has counted them. ``is_head`` marks the task's head: a layer, or the
    container of its layers. ``has_statistics``: it keeps running statistics, as BatchNorm does.

    What one image costs in the subtree: ``output_shape`` without the batch, empty where the layer is not called by
    itself; ``mult_adds``; ``activation_bytes`` in fp32, of the outputs of the layers with parameters.
    """

    fqn: str
    type: str
    num_params: int
    is_unit: bool
    own_params: dict[str, int] = Field(default_factory=dict)
    is_head: bool = False
    output_shape: list[int] = Field(default_factory=list)
    mult_adds: int = 0
    activation_bytes: int = 0
    has_statistics: bool = False

    @property
    def own_names(self) -> list[str]:
        """Return the qualified names of the parameters that the module owns."""
        return [f"{self.fqn}.{name}" if self.fqn else name for name in self.own_params]

    @property
    def atoms(self) -> list[str]:
        """Return what a freeze can name apart in the module itself: its parameters, or its buffers by its own name."""
        return self.own_names or [self.fqn] * self.is_unit


def is_bias(parameter: str) -> bool:
    """Tell by its name whether a parameter is a bias, an attention's "in_proj_bias" included."""
    return parameter.endswith("bias")


MIN_SAVED_SHARE = 0.1
"""Of a forward pass's multiply-adds: a run keeps no features that save less."""


class FrozenFeatures(Record):
    """What of a model could be computed once an image, and not in every epoch.

    ``layers`` are those out of which the features come, as briefly as a freeze is told ("backbone"), ``units`` all of
    them by name; ``bytes_32`` and ``bytes_16`` what an image's take in numbers of so many bits; ``saved_share`` the
    share of a forward pass's multiply-adds that is before them, 0 to 1. Where there are none, ``reason`` says why, in a
    sentence.
    """

    layers: str = ""
    units: list[str] = Field(default_factory=list)
    bytes_32: int = 0
    bytes_16: int = 0
    saved_share: float = 0.0
    reason: str = ""


class ModelSummary(Record):
    """What the tree shows of a model, before or during a run.

    ``image_size`` is the side in pixels of the image for which the layers' costs were counted, 0 if they were not.
    """

    model: str
    layers: list[LayerInfo]
    frozen: list[str]
    num_params: int
    num_trainable: int
    image_size: int = 0
    multipliers: dict[str, float] = Field(default_factory=dict)
    """What the rate is multiplied by in single units; 1 where a unit is not named."""
    adapting: list[str] = Field(default_factory=list)
    """The units whose running statistics go on when they are frozen."""
    features: FrozenFeatures | None = None
    """What a run that freezes the same from its beginning could cache; None where that was not asked."""

    @property
    def input_bytes(self) -> int:
        """Return the size of one image, in fp32."""
        return BYTES_PER_VALUE * 3 * self.image_size**2

    @property
    def forward_backward_bytes(self) -> int:
        """Return the size of one image's activations and of their gradients, where everything is trained."""
        return 2 * self.layers[0].activation_bytes if self.layers else 0

    @property
    def param_bytes(self) -> int:
        """Return the size of the parameters, in fp32."""
        return BYTES_PER_VALUE * self.num_params


class ImagePreset(Record):
    """How a model wants its images: sides in pixels, mean and std of red, green and blue for values of 0 to 1.

    The short side is resized to ``resize_size`` and a square of ``image_size`` cut from the centre.
    """

    image_size: int
    resize_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def resized_to(self, image_size: int) -> ImagePreset:
        """Return the same with another image size, in the same proportion to the size before the cut.

        A small image has no border to spare: it is resized to the square instead of cut from a larger one.
        """
        in_proportion = max(image_size, round(image_size * self.resize_size / self.image_size))
        resize_size = image_size if image_size <= SMALL_IMAGE_SIZE else in_proportion
        return self.model_copy(update={"image_size": image_size, "resize_size": resize_size})


class WeightSet(Record):
    """Published weights of a model, by the name that a configuration takes ("IMAGENET1K_V2").

    ``accuracy`` is the published top-1 accuracy on ImageNet, 0 to 1; ``is_cached``: they are on this disk already.
    ``images`` is how a run with them has its images, unless its configuration says otherwise.
    """

    name: str
    accuracy: float
    size_bytes: int
    is_cached: bool
    images: ImagePreset


class ModelEntry(Record):
    """A model on offer. Published figures of its default weights; ``is_cached``: they are on this disk already.

    ``images`` is how a run of the model has its images, unless it has other published weights or its configuration says
    otherwise. ``weight_sets`` are all its published weights, the default ones first.
    """

    name: str
    num_params: int
    accuracy: float
    size_bytes: int
    is_cached: bool
    images: ImagePreset
    weight_sets: list[WeightSet] = Field(default_factory=list)

    def weight_set(self, name: str) -> WeightSet | None:
        """Return published weights by their name; "published" are the default ones."""
        if name == "published":
            return next(iter(self.weight_sets), None)
        return next((each for each in self.weight_sets if each.name == name), None)


class MisshapenTensor(Record):
    """A tensor of a weights file that has another shape than the model's of that name."""

    key: str
    in_file: list[int]
    in_model: list[int]


class WeightsReport(Record):
    """How the tensors of a weights file fit a model, before they are used.

    ``sentence`` says it in words, and why it cannot be read where it cannot. ``num_fitting`` tensors would be taken;
    ``is_head_new``: the file has none for the task's head, or of another shape, which is no fault. ``missing`` are the
    model's keys that the file lacks, ``unexpected`` the file's that the model lacks.
    """

    path: str
    is_usable: bool
    sentence: str
    num_fitting: int = 0
    is_head_new: bool = True
    missing: list[str] = Field(default_factory=list)
    unexpected: list[str] = Field(default_factory=list)
    misshapen: list[MisshapenTensor] = Field(default_factory=list)
