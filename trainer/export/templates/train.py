"""Repeat the run that the model of this folder comes from, in plain PyTorch, up to the step of its checkpoint.

    python train.py [--data FOLDER] [--steps N] [--workers N] [--device cpu] [--save reproduced.pt]

On a CPU with the same versions (environment.json) each loss is that of the run, which curves.csv holds; on a GPU, which
adds up in no fixed order, they are close. Beside torch and torchvision it needs the files of this folder: predict.py,
base.pt (the weights at the start) and images.csv (which image is in which split, in the run's order).

What a person, the plan or the advisor changed as the run went on is in CHANGES: each took hold after so many updates.
"""

import argparse
import csv
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from predict import (
    FOLDER,
    IMAGE_SIZE,
    INTERPOLATION,
    MEAN,
    RESIZE_SIZE,
    TASK,
    build_model,
    load_rgb,
    load_weights,
    make_fit,
    normalize,
    outputs,
)
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

# --- the run
DATA: str = "images"
NUM_CLASSES: int = 2
STEPS: int = 100
NUM_EPOCHS: int = 10
SEED: int = 7
BATCH_SIZE: int = 32
ACCUMULATE_BATCHES: int = 1
AUGMENTATION: str = "light"
MIXING: str = "none"
BALANCE: str = "none"
LABEL_SMOOTHING: float = 0.0
OPTIMIZER: str = "AdamW"
RATE: float = 0.001
WEIGHT_DECAY: float = 0.01
MOMENTUM: float = 0.9
NESTEROV: bool = False
CLIP_NORM: float | None = None
SCHEDULE: str = "constant"
WARMUP_EPOCHS: float = 0
DECAY_FACTOR: float = 0.1
DECAY_EPOCHS: int = 3
RAMP_STEPS: int = 100
STATE_ON_UNFREEZE: str = "auto"
PRECISION: str = "fp32"
FEATURE_PRECISION: str = "same"
CHANNELS_LAST: bool = False
TF32: bool = False
DEVICE: str = "cpu"
NUM_THREADS: int = 1
FROZEN: list[str] = []
ADAPTING: list[str] = []
MULTIPLIERS: dict[str, float] = {}
CHANGES: list[tuple[int, str, Any]] = []
# --- end

Batch = tuple[Tensor, Tensor]


# -- the images ---------------------------------------------------------------------------------------------------


def mixed_seed(*numbers: int) -> int:
    """Mix numbers into one seed, so that neighbouring epochs and images get unrelated ones."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def make_augmentation() -> nn.Module | None:
    """Return the random changes of a fitted training image."""
    if AUGMENTATION == "none":
        return None
    area, ratio = (0.35, 1.0), (3 / 4, 4 / 3)
    if AUGMENTATION == "light":
        is_square = IMAGE_SIZE == RESIZE_SIZE
        area, ratio = ((0.74, 1.0), (0.95, 1.05)) if is_square else ((0.8, 1.0), (3 / 4, 4 / 3))
    interpolation = v2.InterpolationMode(INTERPOLATION)
    size = [IMAGE_SIZE, IMAGE_SIZE]
    crop = v2.RandomResizedCrop(size, scale=area, ratio=ratio, interpolation=interpolation, antialias=True)
    changes: list[nn.Module] = [crop]
    if AUGMENTATION == "standard":
        changes += [v2.RandomHorizontalFlip(), v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)]
    if AUGMENTATION == "strong":
        trivial = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)
        changes += [v2.RandomHorizontalFlip(), trivial]
    return nn.Sequential(*changes)


class Images(Dataset[Tensor]):
    """The training images by (epoch, index): each is changed at random by a seed of its own, wherever it is loaded."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        margin = round(IMAGE_SIZE * 0.08) if AUGMENTATION != "none" else 0
        self.fit = make_fit(is_cut=AUGMENTATION == "none", margin=margin)
        self.augmentation = make_augmentation()
        colour = [round(255 * channel) for channel in MEAN]
        self.erase = v2.RandomErasing(0.25, value=colour) if AUGMENTATION == "strong" else None

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        """Return an image as it is in an epoch: uint8 (3, H, W)."""
        epoch, index = key
        image: Tensor = self.fit(load_rgb(self.paths[index]))
        state, num_threads = torch.get_rng_state(), torch.get_num_threads()
        torch.default_generator.manual_seed(mixed_seed(SEED, epoch, index))
        # On more threads, the mean of an image adds up in another order.
        torch.set_num_threads(1)
        try:
            image = image if self.augmentation is None else self.augmentation(image)
            torch.set_num_threads(num_threads)
            return image if self.erase is None else self.erase(image)
        finally:
            torch.set_num_threads(num_threads)
            torch.set_rng_state(state)


class TrainingData:
    """The batches of each epoch: float32 (B, 3, H, W), and class indexes (B,), or yes and no of each class (B, C)."""

    def __init__(self, rows: Sequence[tuple[str, list[int]]], root: Path, num_workers: int) -> None:
        self.images = Images([root / place for place, _ in rows])
        self.classes = [classes for _, classes in rows]
        self.num_workers = num_workers
        size, rest = len(rows), len(rows) % BATCH_SIZE
        # BatchNorm in train mode cannot take a single image.
        self.num_batches = -(-size // BATCH_SIZE) - (BATCH_SIZE > 1 and size > BATCH_SIZE and rest == 1)

    def order(self, epoch: int) -> list[int]:
        """Return the indexes of the images of an epoch, in their order."""
        generator = torch.Generator().manual_seed(mixed_seed(SEED, epoch))
        shuffled = torch.randperm(len(self.classes), generator=generator)
        if BALANCE == "sampler":
            shuffled = self._draw_equally(generator)[shuffled]
        order: list[int] = shuffled.tolist()
        return order

    def batches(self, epoch: int, start: int, views: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from one of them on, with a new view of each image or one of ``views``."""
        order = self.order(epoch)
        parts = [order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE] for batch in range(start, self.num_batches)]
        keys: Any = [[(epoch % views if views else epoch, index) for index in part] for part in parts]
        # A generator of its own: the global one is the model's.
        loader = DataLoader(self.images, batch_sampler=keys, num_workers=self.num_workers, generator=torch.Generator())
        for part, images in zip(parts, loader, strict=True):
            yield normalize(images), self._targets(part)

    def class_weights(self) -> Tensor:
        """Return the weight of each class in the loss, which evens out classes of different size; shape (C,)."""
        counts = torch.zeros(NUM_CLASSES, dtype=torch.float64)
        for classes in self.classes:
            counts[classes] += 1
        if TASK == "multi_label":
            yes = counts.to(torch.float32)
            no = len(self.classes) - yes
            return torch.where((yes > 0) & (no > 0), no / yes.clamp(min=1), 1.0)
        has_images = counts > 0
        weights = torch.where(has_images, counts.sum() / (has_images.sum() * counts.clamp(min=1)), 0)
        return weights.to(torch.float32)

    def _targets(self, indexes: Sequence[int]) -> Tensor:
        if TASK != "multi_label":
            return torch.tensor([self.classes[index][0] for index in indexes])
        targets = torch.zeros(len(indexes), NUM_CLASSES)
        for row, index in zip(targets, indexes, strict=True):
            row[self.classes[index]] = 1
        return targets

    def _draw_equally(self, generator: torch.Generator) -> Tensor:
        labels = torch.tensor([classes[0] for classes in self.classes])
        sizes = torch.bincount(labels)
        members = torch.split(torch.argsort(labels, stable=True), sizes[sizes > 0].tolist())
        each, num_larger = divmod(len(self.classes), len(members))
        is_larger = torch.randperm(len(members), generator=generator) < num_larger
        drawn = []
        for own, extra in zip(members, is_larger.tolist(), strict=True):
            wanted = each + extra
            rounds = [own[torch.randperm(len(own), generator=generator)] for _ in range(-(-wanted // len(own)))]
            drawn.append(torch.cat(rounds)[:wanted])
        return torch.cat(drawn)


def mix(batch: Batch, epoch: int, number: int) -> Batch:
    """Mix the images of a batch, and their classes with them; by a seed of the epoch and the batch."""
    if MIXING == "none":
        return batch
    kind = v2.MixUp(alpha=0.2, num_classes=NUM_CLASSES) if MIXING == "mixup" else v2.CutMix(num_classes=NUM_CLASSES)
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(mixed_seed(SEED, epoch, number, -1))
    try:
        images, shares = kind(*batch)
    finally:
        torch.set_rng_state(state)
    return images, shares


# -- the loss -----------------------------------------------------------------------------------------------------


class Loss:
    """The loss that is minimized, with class weights and smoothed targets where the run has them."""

    def __init__(self, weights: Tensor | None) -> None:
        self.weights = weights
        is_weighted = TASK == "binary" and weights is not None and bool((weights > 0).all())
        self.positive_weight = weights[1] / weights[0] if weights is not None and is_weighted else None

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the images, shape ()."""
        if TASK == "multi_class":
            return cross_entropy(logits, target, weight=self.weights, label_smoothing=LABEL_SMOOTHING)
        if TASK == "binary":
            share = target[:, 1] if target.ndim == 2 else target.float()
            share = share * (1 - LABEL_SMOOTHING) + LABEL_SMOOTHING / 2
            return binary_cross_entropy_with_logits(logits[:, 0].float(), share, pos_weight=self.positive_weight)
        share = target * (1 - LABEL_SMOOTHING) + LABEL_SMOOTHING / 2
        return binary_cross_entropy_with_logits(logits.float(), share, pos_weight=self.weights)

    def weight(self, target: Tensor) -> Tensor | int:
        """Return what the mean is taken over."""
        if TASK != "multi_class" or self.weights is None or target.ndim == 2 or MIXING != "none":
            return len(target)
        return self.weights[target].sum()


# -- what learns, and how fast ------------------------------------------------------------------------------------


class Freezing:
    """What is frozen, by parameter: without a gradient, and in eval mode where all of a layer is."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parameters = dict(model.named_parameters(remove_duplicate=False))
        self.own: dict[str, list[str]] = {}
        for layer, module in model.named_modules():
            names = [f"{layer}.{name}".lstrip(".") for name, _ in module.named_parameters(recurse=False)]
            if names or any(True for _ in module.buffers(recurse=False)):
                # A layer that owns buffers alone stands for itself.
                self.own[layer] = names or [layer]
        self.frozen_since: dict[str, int] = {}
        self.adapting: set[str] = set()

    def atoms(self, names: Sequence[str]) -> list[str]:
        """Return the parameters that layers own, or that are named themselves."""
        return [atom for name in names for atom in self.own.get(name, [name])]

    def layers_of(self, atoms: Sequence[str]) -> list[str]:
        """Return the layers that own any of these."""
        among = set(atoms)
        return [layer for layer, own in self.own.items() if among.intersection(own)]

    def freeze(self, names: Sequence[str], step: int) -> None:
        """Freeze layers or parameters."""
        self.frozen_since.update(dict.fromkeys(self.atoms(names), step))
        self.set_mode()

    def unfreeze(self, names: Sequence[str]) -> dict[str, int]:
        """Unfreeze layers or parameters; returns since which step each was frozen."""
        since = {atom: self.frozen_since.pop(atom) for atom in self.atoms(names)}
        self.set_mode()
        return since

    def set_mode(self) -> None:
        """Put what learns in train mode, and what is frozen in eval mode."""
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(name not in self.frozen_since)
            if name in self.frozen_since:
                parameter.grad = None
        self.model.train()
        for layer, module in self.model.named_modules():
            if layer not in self.adapting and self._is_frozen(layer):
                module.training = False

    def _is_frozen(self, layer: str) -> bool:
        while layer and not self._below(layer):
            layer = layer.rpartition(".")[0]
        below = self._below(layer)
        return bool(below) and self.frozen_since.keys() >= set(below)

    def layers_below(self, layer: str) -> list[str]:
        """Return the layers that own parameters or buffers, at and below one."""
        return [name for name in self.own if not layer or f"{name}.".startswith(f"{layer}.")]

    def _below(self, layer: str) -> list[str]:
        return [atom for name in self.layers_below(layer) for atom in self.own[name]]


class WholeBatches:
    """Has frozen layers take as many images at once as in the run, which computed what they give for whole batches.

    The number of images that a layer takes at once changes its roundings. So a batch of another size goes through such
    a layer in pieces of that many, the last one filled up.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.num_images = self.num_at_once = 1
        self._plain: dict[str, Callable[..., Any]] = {}

    def use_for(self, layers: Sequence[str], below: Callable[[str], list[str]]) -> None:
        """Use it for these layers alone; ``below`` returns the layers with parameters or buffers at and below one."""
        modules = dict(self.model.named_modules())
        for layer, forward in self._plain.items():
            modules[layer].forward = forward
        self._plain = {}
        for layer, module in modules.items():
            is_inside = any(layer.startswith(f"{outer}.") for outer in self._plain)
            if not is_inside and below(layer) and set(layers).issuperset(below(layer)):
                self._plain[layer] = module.forward
                module.forward = partial(self._in_pieces, module.forward)

    def _in_pieces(self, forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
        if self.num_images == self.num_at_once:
            return forward(*given, **named)
        made = []
        for start in range(0, self.num_images, self.num_at_once):
            # What is given twice stays one tensor: attention looks whether its query is its key.
            pieces: dict[int, Tensor] = {}
            take = partial(self._piece, start, pieces)
            made.append(forward(*_each(given, take), **{name: _each(value, take) for name, value in named.items()}))
        return self._joined(made)

    def _piece(self, start: int, pieces: dict[int, Tensor], rows: Tensor) -> Tensor:
        # An image may have several rows: those of its windows, say.
        of_each, rest = divmod(len(rows), self.num_images) if rows.dim() else (0, 1)
        if rest:
            return rows
        if id(rows) not in pieces:
            piece = rows[start * of_each : (start + self.num_at_once) * of_each]
            missing = self.num_at_once * of_each - len(piece)
            filled = torch.cat([piece, piece[-1:].expand(missing, *piece.shape[1:])])
            is_last = rows.dim() == 4 and rows.is_contiguous(memory_format=torch.channels_last)
            pieces[id(rows)] = filled.contiguous(
                memory_format=torch.channels_last if is_last else torch.contiguous_format
            )
        return pieces[id(rows)]

    def _joined(self, made: list[Any]) -> Any:
        first = made[0]
        if isinstance(first, tuple | list):
            return type(first)(self._joined(list(each)) for each in zip(*made, strict=True))
        if not isinstance(first, Tensor) or not first.dim() or len(first) % self.num_at_once:
            return first
        rows = torch.cat(made) if len(made) > 1 else first
        return rows[: len(first) // self.num_at_once * self.num_images]


def _each(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_each(each, change) for each in value)
    return change(value) if isinstance(value, Tensor) else value


def make_optimizer(model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """Make the optimizer with a group for each layer, frozen or not."""
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = [parameter for parameter in module.parameters(recurse=False) if id(parameter) not in seen]
        seen.update(id(parameter) for parameter in own)
        if own:
            groups.append({"params": own, "name": name})
    options: dict[str, Any] = {"lr": RATE, "weight_decay": WEIGHT_DECAY}
    if OPTIMIZER in {"SGD", "RMSprop"}:
        options["momentum"] = MOMENTUM
    if OPTIMIZER == "SGD":
        options["nesterov"] = NESTEROV and MOMENTUM > 0
    if OPTIMIZER != "RMSprop":
        options["fused"] = device.type in {"cpu", "cuda"}
    optimizer: torch.optim.Optimizer = getattr(torch.optim, OPTIMIZER)(groups, **options)
    return optimizer


def even_out_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give those that learn anew a momentum of zero: fused SGD takes all of a group for new, or none."""
    for group in optimizer.param_groups:
        if not (group.get("momentum") and group.get("fused")):
            continue
        learning = [parameter for parameter in group["params"] if parameter.requires_grad]
        new = [p for p in learning if optimizer.state.get(p, {}).get("momentum_buffer") is None]
        if len(new) < len(learning):
            for parameter in new:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


class Rates:
    """The rate of each layer at each step: the run's, by its schedule, the layer's multiplier, and its rise."""

    def __init__(self, steps_per_epoch: int) -> None:
        self.rate = RATE
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = NUM_EPOCHS * steps_per_epoch
        self.multipliers = dict(MULTIPLIERS)
        self.unfrozen_at: dict[str, int] = {}
        self.num_decays = 0

    def set(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the rates for the update that follows ``step`` completed ones."""
        self.unfrozen_at = {layer: since for layer, since in self.unfrozen_at.items() if step < since + RAMP_STEPS}
        for group in optimizer.param_groups:
            rate = self.rate * self.factor(step) * self.multipliers.get(group["name"], 1.0)
            since = self.unfrozen_at.get(group["name"])
            group["lr"] = rate if since is None else rate * (step - since + 1) / RAMP_STEPS

    def factor(self, step: int) -> float:
        """Return what the schedule makes of the rate."""
        if SCHEDULE == "one_cycle":
            top = 0.3 * self.total_steps - 1
            if step <= top:
                return half_cosine(1 / 25, 1.0, step / top)
            return half_cosine(1.0, 1 / 250_000, min((step - top) / max(self.total_steps - 1 - top, 1), 1))
        num_warmup = round(WARMUP_EPOCHS * self.steps_per_epoch)
        if step < num_warmup:
            return (step + 1) / num_warmup
        if SCHEDULE == "cosine":
            num_steps = max(self.total_steps - num_warmup, 1)
            return 0.5 * (1 + math.cos(math.pi * min((step - num_warmup) / num_steps, 1)))
        if SCHEDULE == "step":
            return float(DECAY_FACTOR ** ((step - num_warmup) // (DECAY_EPOCHS * self.steps_per_epoch)))
        return float(DECAY_FACTOR**self.num_decays)


def half_cosine(start: float, end: float, share: float) -> float:
    """Go from start to end as a half cosine."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


# -- the run ------------------------------------------------------------------------------------------------------


class Run:
    """The model, what trains it, and how many updates are complete."""

    def __init__(self, model: nn.Module, data: TrainingData, device: torch.device) -> None:
        self.model, self.data, self.device = model, data, device
        self.step, self.epoch, self.batch, self.parts, self.views = 0, 0, 0, 1, 0
        self.steps_per_epoch = -(-data.num_batches // ACCUMULATE_BATCHES)
        self.loss = Loss(data.class_weights().to(device) if BALANCE == "class_weights" else None)
        self.optimizer = make_optimizer(model, device)
        self.rates = Rates(self.steps_per_epoch)
        self.freezing = Freezing(model)
        self.whole_batches = WholeBatches(model)
        self.freezing.adapting.update(ADAPTING)
        self.freezing.freeze(FROZEN, 0)
        self.changes = list(CHANGES)

    def train(self, num_steps: int, tell: Callable[[int, float], None]) -> None:
        """Make so many updates; ``tell`` gets the number and the loss of each."""
        while self.step < num_steps:
            loaded, views, self.batch = None, 0, 0
            while self.batch < self.data.num_batches and self.step < num_steps:
                self.make_changes()
                if loaded is None or views != self.views:
                    views = self.views
                    loaded = self.data.batches(self.epoch, self.batch, views)
                tell(self.step + 1, self.update(list(islice(loaded, ACCUMULATE_BATCHES))))
            self.epoch += 1

    def update(self, batches: Sequence[Batch]) -> float:
        """Make one update from some batches. Returns the mean loss over their images."""
        self.rates.set(self.optimizer, self.step)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        on_device = [(images.to(self.device), target.to(self.device)) for images, target in batches]
        loss = self._backward(on_device)
        gradients = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        norm = get_total_norm([parameter.grad for parameter in gradients if parameter.grad is not None])
        if CLIP_NORM is not None:
            clip_grads_with_norm_(gradients, CLIP_NORM, norm)
        self.batch += len(batches)
        if torch.isfinite(loss + norm):
            self.optimizer.step()
        else:
            # This update is left out, as it was in the run.
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.float())

    def _backward(self, batches: Sequence[Batch]) -> Tensor:
        weight_of_all = sum(self.loss.weight(target) for _, target in batches)
        loss = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, start=self.batch):
            images, target = mix(batch, self.epoch, number)
            num_parts = max(1, min(self.parts, len(target) // 2))
            for part, of_part in zip(images.tensor_split(num_parts), target.tensor_split(num_parts), strict=True):
                self.whole_batches.num_images = len(part)
                self.whole_batches.num_at_once = -(-min(BATCH_SIZE, len(self.data.classes)) // self.parts)
                with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=PRECISION == "bf16"):
                    part_loss = self.loss(outputs(self.model, part), of_part)
                share = part_loss * (self.loss.weight(of_part) / weight_of_all)
                share.backward()  # type: ignore[no-untyped-call]
                loss = loss + share.detach()
        return loss

    def make_changes(self) -> None:
        """Make the changes whose time has come."""
        while self.changes and self.changes[0][0] <= self.step:
            _, what, value = self.changes.pop(0)
            match what:
                case "freeze":
                    self.freezing.freeze(value, self.step)
                case "unfreeze":
                    self._unfreeze(value)
                case "multiply":
                    layers, multiplier = value
                    self.rates.multipliers.update(dict.fromkeys(layers, multiplier))
                case "rate":
                    self.rates.rate = value
                case "adapting":
                    self.freezing.adapting = set(value)
                    self.freezing.set_mode()
                case "epochs":
                    self.rates.total_steps = value * self.steps_per_epoch
                case "parts":
                    self.parts = value
                case "views":
                    self.views = value
                case "cached":
                    self.whole_batches.use_for(value, self.freezing.layers_below)
                case "decays":
                    self.rates.num_decays = value

    def _unfreeze(self, names: Sequence[str]) -> None:
        for atom, since in self.freezing.unfreeze(names).items():
            is_old = STATE_ON_UNFREEZE == "auto" and self.step - since >= self.steps_per_epoch
            if (STATE_ON_UNFREEZE == "drop" or is_old) and atom in self.freezing.parameters:
                self.optimizer.state.pop(self.freezing.parameters[atom], None)
        even_out_momentum(self.optimizer)
        if self.step and RAMP_STEPS:
            layers = self.freezing.layers_of(self.freezing.atoms(names))
            self.rates.unfrozen_at.update(dict.fromkeys(layers, self.step))


def read_images() -> list[tuple[str, list[int]]]:
    """Return the path below the data's folder, and the class indexes, of each training image."""
    with (FOLDER / "images.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    return [(row["path"], [int(idx) for idx in row["classes"].split()]) for row in rows if row["split"] == "train"]


def read_losses() -> dict[int, float]:
    """Return the run's loss by step."""
    with (FOLDER / "curves.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["step"]): float(row["value"]) for row in csv.DictReader(file) if row["tag"] == "Loss/train"}


def lay_out(model: nn.Module) -> None:
    """Put the channels of a pixel side by side in the weights of convolutions, if the run did."""
    for parameter in model.parameters():
        if CHANNELS_LAST and parameter.dim() == 4:
            wanted = torch.empty_like(parameter.data, memory_format=torch.channels_last)
            parameter.data = wanted.copy_(parameter.data)


def main() -> None:
    """Repeat the run, and say whether its losses are the same."""
    parser = argparse.ArgumentParser(description="Repeat the run that the model comes from.")
    parser.add_argument("--data", type=Path, default=Path(DATA), help="the folder of the images")
    parser.add_argument("--steps", type=int, default=STEPS, help="updates to make")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images")
    parser.add_argument("--device", default=DEVICE)
    parser.add_argument("--save", type=Path, help="write the weights to this file at the end")
    arguments = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    device = torch.device(arguments.device)
    rows = read_images()
    if not (arguments.data / rows[0][0]).is_file():
        parser.error(f"there is no {rows[0][0]} in {arguments.data}: say with --data in which folder the images are")
    model = build_model()
    load_weights(model, FOLDER / "base.pt")
    lay_out(model)
    torch.set_float32_matmul_precision("high" if TF32 else "highest")
    torch.backends.cudnn.allow_tf32 = TF32
    run = Run(model.to(device), TrainingData(rows, arguments.data, arguments.workers), device)
    # What dropout draws from.
    torch.manual_seed(SEED)
    of_run = read_losses()
    differing: list[tuple[int, float]] = []

    def tell(step: int, loss: float) -> None:
        expected = of_run.get(step, loss)
        if loss != expected and not (math.isnan(loss) and math.isnan(expected)):
            differing.append((step, abs(loss - expected)))
        print(f"step {step}: loss {loss!r}")

    run.train(arguments.steps, tell)
    if arguments.save:
        torch.save(model.state_dict(), arguments.save)
    if differing:
        step, difference = differing[0]
        print(f"The losses equal the run's before step {step}; there they differ by {difference:.3g}.")
        if FEATURE_PRECISION == "half" and any(what == "cached" and value for _, what, value in CHANGES):
            print("(The run kept what its frozen layers give in half precision, which this script does not.)")
    else:
        print(f"All {run.step} losses equal the run's.")


if __name__ == "__main__":
    main()
