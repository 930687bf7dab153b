"""Random sequences of what a person and a plan may do to a run, and what must hold after each of them."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from trainer.config import ConfigError, ModelConfig, OptimizerConfig, PlanPhase, RunConfig, TrainingConfig
from trainer.data.loader import ImageData
from trainer.data.sampler import EpochSampler
from trainer.data.stream import Batch
from trainer.data.transforms import Preprocessing
from trainer.feature_batches import ModelBatch
from trainer.freezing import FreezeError, has_statistics
from trainer.loop import Trainer
from trainer.messages.base import Event
from trainer.messages.changes import FreezeChanged, LayersFrozen, LayersUnfrozen, PhaseBegan, RateMultiplierChanged
from trainer.models import LoadedModel
from trainer.optim import autocast
from trainer.runs import RunFolder

NUM_CLASSES, IMAGE_SIZE, BATCH_SIZE, NUM_IMAGES = 3, 6, 4, 24
# Longer than any sequence, and with a rate that stays large enough for each step to move a 32-bit weight.
NUM_EPOCHS = 100
SLOW_DECAY: dict[str, Any] = {"decay_factor": 0.5, "decay_epochs": 10}
PARAMETERS = ["stem.0.bias", "stem.1.weight", "body.norm.bias", "tied_a.weight", "tied_b.bias", "head.weight"]
PATTERNS = ["*.bias", "*.weight", "*.original?"]
LAYERS = ["stem", "stem.0", "stem.1", "body", "body.conv", "body.norm", "tied_a", "tied_b", "head", "backbone"]


class Net(nn.Module):
    """Has each kind of layer that a freeze has trouble with."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5))
        self.body = nn.ModuleDict({"conv": spectral_norm(nn.Conv2d(4, 4, 3)), "norm": nn.BatchNorm2d(4)})
        self.tied_a, self.tied_b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied_b.weight = self.tied_a.weight
        self.head = nn.Linear(4, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body["norm"](self.body["conv"](self.stem(x))).mean(dim=(2, 3))
        return cast("Tensor", self.head(torch.tanh(self.tied_b(torch.tanh(self.tied_a(x))))))


class RandomStream:
    """Images from a generator, by their keys."""

    def load(self, keys: list[tuple[int, int]]) -> Tensor:
        generators = [torch.Generator().manual_seed(1000 * epoch + index) for epoch, index in keys]
        return torch.stack([torch.rand(3, IMAGE_SIZE, IMAGE_SIZE, generator=generator) for generator in generators])

    def targets(self) -> Tensor:
        return torch.arange(NUM_IMAGES) % NUM_CLASSES

    def batches(self, keys: list[list[tuple[int, int]]], _: object = None) -> Iterator[Batch]:
        return ((self.load(batch), self.targets()[[index for _, index in batch]]) for batch in keys)


class RandomData:
    """What a Trainer asks of its data, from a generator."""

    class_names = ("a", "b", "c")
    class_counts = (NUM_IMAGES // NUM_CLASSES,) * NUM_CLASSES
    num_train = NUM_IMAGES
    num_validation = 0
    num_test = 0
    fingerprint = "random"
    fingerprints = (fingerprint,)
    identities: ClassVar = {"train": "train", "validation": "validation"}
    preprocessing = Preprocessing(IMAGE_SIZE, IMAGE_SIZE)
    sampler = EpochSampler(NUM_IMAGES, BATCH_SIZE, seed=0)
    batches_per_epoch = sampler.num_batches
    train = validation = RandomStream()

    def train_batches(self, epoch: int, start_batch: int = 0, view: int | None = None) -> Iterator[Batch]:
        return self.train.batches(list(self.sampler.batches(epoch, start_batch)))

    def tell_images_per_s(self, epoch: int, rate: float) -> None:
        pass

    def close(self) -> None:
        pass


class Moment(NamedTuple):
    """What was so at a moment to which the run may go back."""

    state: dict[str, Tensor]
    frozen: set[str]
    still: dict[str, list[Tensor]]
    optimizer_state: list[dict[str, Tensor]]
    rates: dict[str, Any]
    adapting: set[str]
    position: tuple[int, int, int]
    rng: Tensor
    begun: list[PlanPhase]


def batch_of_infinities(batch: ModelBatch) -> ModelBatch:
    return replace(batch, inputs=lambda: tuple(each * float("inf") for each in batch.inputs()))


class FreezeMachine(RuleBasedStateMachine):
    """A run, and beside it what is known of it from outside: the bytes that must not change."""

    def __init__(self) -> None:
        super().__init__()
        self.folder_of_runs = tempfile.TemporaryDirectory()
        self.folder: RunFolder | None = None

    @initialize(
        name=st.sampled_from(["SGD", "Adam", "AdamW", "RMSprop"]),
        schedule=st.sampled_from(["constant", "step", "cosine", "one_cycle", "plateau"]),
        precision=st.sampled_from(["fp32", "bf16"]),
        accumulate=st.integers(1, 3),
        ramp_steps=st.sampled_from([0, 3]),
        nesterov=st.booleans(),
        clip_norm=st.sampled_from([None, 0.1]),
        state=st.sampled_from(["auto", "keep", "drop"]),
        frozen=st.sampled_from([[], ["backbone"], ["stem"]]),
    )
    def begin(self, frozen: list[str], precision: str, accumulate: int, state: str, **optimizer: Any) -> None:
        config = RunConfig(
            model=ModelConfig(weights="random", frozen=frozen),
            optimizer=OptimizerConfig(
                rate=0.01, weight_decay=0.1, warmup_epochs=0.5, state_on_unfreeze=state, **SLOW_DECAY, **optimizer
            ),
            training=TrainingConfig(
                epochs=NUM_EPOCHS, batch_size=BATCH_SIZE, precision=precision, accumulate_batches=accumulate
            ),
        )
        self.is_bf16 = precision == "bf16"
        torch.manual_seed(0)
        loaded = LoadedModel(Net(), ["head"], RandomData.preprocessing)
        self.trainer = Trainer(config, loaded, cast("ImageData", RandomData()), torch.device("cpu"), lambda _: None)
        self.folder = RunFolder.create(Path(self.folder_of_runs.name), config)
        self.trainer.begin(self.folder)
        self.trainer.freeze_set.set_mode(training=True)
        self.frozen = self.atoms_of(self.trainer.freeze_set.frozen)
        self.adapting: set[str] = set()
        self.still: dict[str, list[Tensor]] = {}
        self.take_what_is_still()
        self.saved: list[tuple[str, Moment]] = []
        self.before: dict[int, Moment] = {}

    # -- what may happen --------------------------------------------------------------------------------------

    @rule(layer=st.sampled_from(LAYERS + PARAMETERS + PATTERNS))
    def freeze(self, layer: str) -> None:
        before, moment = set(self.trainer.freeze_set.frozen), self.now()
        try:
            event = self.trainer.changes.freeze([layer])
        except FreezeError:
            assert self.trainer.freeze_set.frozen == before
            return
        self.take([event], moment)

    @rule(layer=st.sampled_from(LAYERS + PARAMETERS + PATTERNS))
    def unfreeze(self, layer: str) -> None:
        moment = self.now()
        self.take([self.trainer.changes.unfreeze([layer])], moment)

    @rule(layer=st.sampled_from(["stem", "body.norm", "backbone"]), is_adapting=st.booleans())
    def let_statistics_adapt(self, layer: str, is_adapting: bool) -> None:
        event = self.trainer.changes.set_batchnorm([layer], is_adapting=is_adapting)
        self.adapting = self.adapting.union(event.layers) if is_adapting else self.adapting.difference(event.layers)
        assert set(event.adapting) == self.adapting
        # What its bytes are from here on is another question; that its weights stay is asked of the loop's own proof.
        self.take_what_is_still()

    @rule(layer=st.sampled_from(LAYERS), multiplier=st.sampled_from([0.1, 1.0, 3.0]))
    def change_the_rate(self, layer: str, multiplier: float) -> None:
        moment = self.now()
        self.take([self.trainer.changes.set_rate_multiplier([layer], multiplier)], moment)

    @rule(
        in_steps=st.integers(1, 3),
        layers=st.lists(st.sampled_from(LAYERS + PARAMETERS), min_size=2, max_size=2),
        num_frozen=st.integers(0, 2),
        rates=st.sampled_from([{}, {"body": 0.5}]),
    )
    def plan_a_phase(self, in_steps: int, layers: list[str], num_frozen: int, rates: dict[str, float]) -> None:
        step = self.trainer.step + in_steps
        phase = PlanPhase(step=step, freeze=layers[:num_frozen], unfreeze=layers[num_frozen:], rates=rates)
        before = self.trainer.plan.phases
        try:
            event = self.trainer.changes.set_plan([phase])
        except ConfigError:
            assert self.trainer.plan.phases == before
            return
        assert event.plan == [*before[: event.num_begun], phase]

    @rule(num_steps=st.integers(1, 3))
    def train(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.follow_plan()
            before, statistics = self.parameters(), self.statistics()
            batches = self.next_batches()
            self.trainer.train_step(batches)
            self.check_moved(before)
            self.check_adapted(statistics)

    @rule()
    def train_on_what_is_not_finite(self) -> None:
        before = {name: tensor.clone() for name, tensor in self.trainer.module.state_dict().items()}
        self.trainer.train_step([batch_of_infinities(batch) for batch in self.next_batches()])
        self.check_same(before)

    @rule()
    def evaluate(self) -> None:
        self.trainer.freeze_set.set_mode(training=False)
        before = {name: tensor.clone() for name, tensor in self.trainer.module.state_dict().items()}
        with torch.no_grad():
            self.trainer.module(torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE))
        self.check_same(before)
        self.trainer.freeze_set.set_mode(training=True)

    @rule()
    def put_the_model_in_train_mode_behind_our_back(self) -> None:
        self.trainer.module.train()
        self.trainer.freeze_set.set_mode(training=True)

    @rule()
    def save(self) -> None:
        self.saved.append((self.trainer.save(reason="user").name, self.now()))

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        name, moment = self.saved[data.draw(st.integers(0, len(self.saved) - 1))]
        _, *events = self.trainer.restore(name)
        self.trainer.freeze_set.set_mode(training=True)
        is_at_rest = not any(isinstance(event, PhaseBegan) for event in events)
        self.check_back(moment, is_at_rest=is_at_rest)
        self.take(events, moment)

    @precondition(lambda self: self.rewinds())
    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        rewinds = self.rewinds()
        change = rewinds[data.draw(st.integers(0, len(rewinds) - 1))]
        self.trainer.restoring.rewind(change, None)
        self.trainer.freeze_set.set_mode(training=True)
        self.check_back(self.before[change])
        assert max(self.rewinds(), default=0) < change

    @rule(num_steps=st.integers(1, 2))
    def try_what_is_undone(self, num_steps: int) -> None:
        moment, changes = self.now(), self.rewinds()
        with self.trainer.trial():
            for _ in range(num_steps):
                self.trainer.train_step(self.next_batches())
        self.check_back(moment)
        assert self.rewinds() == changes

    # -- what must hold ---------------------------------------------------------------------------------------

    @invariant()
    def frozen_means_bit_identical(self) -> None:
        if self.folder is None:
            return
        now = self.still_now()
        assert now.keys() == self.still.keys()
        assert {name for name in now if not all(map(torch.equal, now[name], self.still[name]))} == set()
        assert self.frozen == self.trainer.freeze_set.frozen_atoms
        assert self.trainer.freeze_set.find_drifted() == []

    @invariant()
    def the_optimizer_covers_every_parameter_once(self) -> None:
        if self.folder is None:
            return
        covered = [id(p) for group in self.trainer.optimizer.param_groups for p in group["params"]]
        assert sorted(covered) == sorted(id(p) for p in self.trainer.module.parameters())

    @invariant()
    def the_counts_are_the_models(self) -> None:
        if self.folder is None:
            return
        assert self.trainer.freeze_set.num_trainable == self.num_trainable()
        assert self.trainer.summary().num_params == sum(p.numel() for p in self.trainer.module.parameters())

    @invariant()
    def frozen_modules_are_in_eval_mode_and_the_others_are_not(self) -> None:
        if self.folder is None:
            return
        for unit in self.trainer.freeze_set.units:
            is_training = not self.is_wholly_frozen(unit) or unit in self.adapting
            assert self.trainer.module.get_submodule(unit).training == is_training

    def teardown(self) -> None:
        if self.folder is not None:
            self.trainer.close()
            self.folder.close()
        self.folder_of_runs.cleanup()

    # -- what comes of it -------------------------------------------------------------------------------------

    def follow_plan(self) -> None:
        """Have the phases begin whose time has come, as the loop does before a step."""
        if self.trainer.plan.due(self.trainer.epoch, self.trainer.step) is None:
            return
        moment = self.now()
        self.take(self.trainer.changes.follow_plan(), moment)
        assert self.trainer.changes.follow_plan() == []

    def take(self, events: Sequence[Event], before: Moment) -> None:
        """Note what was frozen and unfrozen, and what was so before the first of these changes."""
        first = None
        for event in events:
            if isinstance(event, PhaseBegan) and first is None:
                # A phase stays begun when the run goes back to just before what it changes.
                before = before._replace(begun=event.plan[: event.num_begun])
            elif isinstance(event, LayersFrozen):
                self.frozen |= self.atoms_of(event.layers)
            elif isinstance(event, LayersUnfrozen):
                self.frozen -= self.atoms_of(event.layers)
            if isinstance(event, FreezeChanged | RateMultiplierChanged):
                first = first or event.change
        if first:
            self.before[first] = before
        freezes = [event for event in events if isinstance(event, FreezeChanged)]
        assert not freezes or freezes[-1].num_trainable == self.num_trainable()
        self.take_what_is_still()

    def now(self) -> Moment:
        trainer = self.trainer
        return Moment(
            {name: tensor.clone() for name, tensor in trainer.module.state_dict().items()},
            set(self.frozen),
            dict(self.still),
            self.optimizer_state(),
            trainer.rates.state_dict(),
            set(self.adapting),
            (trainer.step, trainer.epoch, trainer.batch),
            torch.get_rng_state(),
            trainer.plan.phases[: trainer.plan.num_begun],
        )

    def rewinds(self) -> list[int]:
        """Return the changes before which the run can be put back, of those whose moment is known."""
        return [] if self.folder is None else [n for n in self.trainer.restoring.changes if n in self.before]

    def check_back(self, moment: Moment, *, is_at_rest: bool = True) -> None:
        """Check that all is as it was at a moment; ``is_at_rest``: no phase of the plan began at once."""
        self.frozen, self.still, self.adapting = set(moment.frozen), dict(moment.still), set(moment.adapting)
        trainer = self.trainer
        self.check_same(moment.state)
        assert trainer.freeze_set.adapting == self.adapting
        assert (trainer.step, trainer.epoch, trainer.batch) == moment.position
        assert torch.equal(torch.get_rng_state(), moment.rng)
        assert trainer.plan.phases[: len(moment.begun)] == moment.begun
        if not is_at_rest:
            return
        assert trainer.plan.num_begun == len(moment.begun)
        assert trainer.rates.state_dict() == moment.rates
        for ours, theirs in zip(self.optimizer_state(), moment.optimizer_state, strict=True):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)

    # -- looking ----------------------------------------------------------------------------------------------

    def next_batches(self) -> list[ModelBatch]:
        if self.trainer.batch >= self.trainer.data.batches_per_epoch:
            self.trainer.epoch, self.trainer.batch = self.trainer.epoch + 1, 0
            self.trainer.rates.end_epoch(1.0)
        trainer, data = self.trainer, RandomData()
        taken = trainer.take_batches(trainer.features.train_batches(trainer.epoch, trainer.batch))
        # With features or with images, it is the same to the model.
        view = trainer.epoch % trainer.features.views if trainer.features.views else trainer.epoch
        trainer.freeze_set.set_mode(training=False)
        with torch.no_grad(), autocast(trainer.precision, trainer.device):
            for batch, keys in zip(taken, data.sampler.batches(trainer.epoch, trainer.batch), strict=False):
                expected = trainer.module(data.train.load([(view, index) for _, index in keys]))
                assert torch.allclose(batch.model(*batch.inputs()), expected, atol=2e-2 if self.is_bf16 else 1e-5)
        trainer.freeze_set.set_mode(training=True)
        return taken

    def take_what_is_still(self) -> None:
        """Take the bytes of what has become still; of what has been, those of then are what it is held against."""
        self.still = {name: self.still.get(name, tensors) for name, tensors in self.still_now().items()}

    def still_now(self) -> dict[str, list[Tensor]]:
        """Copy what must not change: each frozen parameter, and the buffers of what is wholly frozen."""
        module = self.trainer.module
        still = {name: [p] for name, p in module.named_parameters(remove_duplicate=False) if name in self.frozen}
        for unit, child in module.named_modules():
            if self.is_wholly_frozen(unit) and unit not in self.adapting:
                still[f"buffers of {unit}"] = list(child.buffers(recurse=False))
        return {name: [tensor.detach().clone() for tensor in tensors] for name, tensors in still.items()}

    def atoms_of(self, names: Iterable[str]) -> set[str]:
        """Return the parameters that the names of an event stand for, and the modules that own buffers alone."""
        atoms: set[str] = set()
        parameters = dict(self.trainer.module.named_parameters(remove_duplicate=False))
        for name in names:
            own = [name] if name in parameters else [each for each in parameters if each.rpartition(".")[0] == name]
            atoms.update(own or [name])
        return atoms

    def is_wholly_frozen(self, unit: str) -> bool:
        below = {atom for atom in self.trainer.freeze_set.atoms if f"{atom}.".startswith(f"{unit}." if unit else "")}
        return bool(below) and self.frozen >= below

    def statistics(self) -> dict[str, Tensor]:
        modules = self.trainer.module.named_modules()
        return {name: module.running_mean.clone() for name, module in modules if has_statistics(module)}

    def check_adapted(self, before: dict[str, Tensor]) -> None:
        for unit, mean in self.statistics().items():
            is_still = self.is_wholly_frozen(unit) and unit not in self.adapting
            assert torch.equal(mean, before[unit]) == is_still, unit

    def num_trainable(self) -> int:
        return sum(p.numel() for p in self.trainer.module.parameters() if p.requires_grad)

    def parameters(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.trainer.module.named_parameters()}

    def check_moved(self, before: dict[str, Tensor]) -> None:
        for unit in self.trainer.freeze_set.units:
            module = self.trainer.module.get_submodule(unit)
            own = {f"{unit}.{name}": parameter for name, parameter in module.named_parameters(recurse=False)}
            learning = [name for name in own if name not in self.frozen]
            names = {id(p): name for name, p in self.trainer.module.named_parameters()}
            is_moved = any(not torch.equal(own[name], before[names[id(own[name])]]) for name in learning)
            assert is_moved or not learning, unit

    def check_same(self, before: dict[str, Tensor]) -> None:
        now = self.trainer.module.state_dict()
        assert {name for name, tensor in before.items() if not torch.equal(tensor, now[name])} == set()

    def optimizer_state(self) -> list[dict[str, Tensor]]:
        parameters = itertools.chain.from_iterable(group["params"] for group in self.trainer.optimizer.param_groups)
        return [
            {
                key: torch.as_tensor(value).clone()
                for key, value in self.trainer.optimizer.state.get(p, {}).items()
                if value is not None
            }
            for p in parameters
        ]


# A failing sequence is explained by tracing every line of it, torch's included, which outlasts the test's time limit.
AS_MACHINE = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
TestFreezeMachine = FreezeMachine.TestCase
TestFreezeMachine.settings = settings(AS_MACHINE, max_examples=6, stateful_step_count=18)


@pytest.mark.slow
def test_freeze_machine_at_length() -> None:
    run_state_machine_as_test(FreezeMachine, settings=settings(AS_MACHINE, max_examples=50, stateful_step_count=40))
