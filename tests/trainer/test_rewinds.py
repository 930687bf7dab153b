"""Rewinding: back to the state before a change, to the bit, and only as long as it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import torch

from tests.trainer.test_loop import Make, make_trainer, with_data, with_optimizer, with_plan, with_training
from trainer.config import PlanPhase, RunConfig
from trainer.loop import Trainer
from trainer.messages.base import Event
from trainer.messages.changes import CheckpointRestored, LayersUnfrozen, RateChanged, RunRewound, StateRestored
from trainer.messages.events import CheckpointSaved, LogWritten, MetricsLogged, RewindsKept
from trainer.rewinds import RewindError

__all__ = ["make_trainer"]


def digest(trainer: Trainer) -> str:
    """Hash the weights, the buffers and the optimizer's state."""
    found = hashlib.sha256()
    tensors = list(trainer.module.state_dict().items())
    for number, state in sorted(trainer.optimizer.state_dict()["state"].items()):
        tensors += [(f"{number} {key}", value) for key, value in sorted(state.items())]
    for name, tensor in tensors:
        found.update(name.encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def acting(trainer: Trainer, *acts: tuple[int, Callable[[], object]]) -> Callable[[], None]:
    """Do each of these once, in this order, at its step."""
    left = list(acts)

    def between_steps() -> None:
        while left and trainer.step == left[0][0]:
            left.pop(0)[1]()

    return between_steps


CHANGES: dict[str, Callable[[Trainer], Event]] = {
    "unfreeze": lambda trainer: trainer.changes.unfreeze(["stage4"]),
    "freeze": lambda trainer: trainer.changes.freeze(["conv5"]),
    "rate": lambda trainer: trainer.changes.set_rate(0.05),
    "multiplier": lambda trainer: trainer.changes.set_rate_multiplier(["head"], 0.1),
}


@pytest.mark.parametrize(
    ("change", "optimizer", "rewind_gb"),
    [
        pytest.param(CHANGES["unfreeze"], "AdamW", 1.0, id="unfreeze"),
        pytest.param(CHANGES["unfreeze"], "AdamW", 0.0, id="unfreeze, from a file"),
        pytest.param(CHANGES["freeze"], "AdamW", 1.0, id="freeze", marks=pytest.mark.slow),
        pytest.param(CHANGES["rate"], "AdamW", 1.0, id="rate"),
        pytest.param(CHANGES["multiplier"], "AdamW", 1.0, id="multiplier", marks=pytest.mark.slow),
        pytest.param(CHANGES["unfreeze"], "SGD", 1.0, id="unfreeze under momentum", marks=pytest.mark.slow),
        pytest.param(
            CHANGES["unfreeze"], "SGD", 0.0, id="unfreeze under momentum, from a file", marks=pytest.mark.slow
        ),
    ],
)
def test_a_rewound_run_ends_as_the_run_that_never_changed(
    make_trainer: Make, small_config: RunConfig, change: Callable[[Trainer], Event], optimizer: str, rewind_gb: float
) -> None:
    """In mid-epoch, with augmentation, mixing and BatchNorm that adapts."""
    model = small_config.model.model_copy(update={"frozen": ["conv1", "stage2", "stage3", "stage4"]})
    config = with_data(small_config, mixing="mixup", augmentation="standard").model_copy(update={"model": model})
    config = with_training(with_optimizer(config, name=optimizer, schedule="cosine"), epochs=2, rewind_gb=rewind_gb)
    straight, straight_events = make_trainer(config)
    at_change: list[str] = []
    straight.fit(acting(straight, (5, lambda: at_change.append(digest(straight)))))

    trainer, events = make_trainer(config)
    told: list[Event] = []

    def rewind() -> None:
        trainer._writer.finish()
        assert (trainer.restoring._rewinds.find(None, None).content is None) == (rewind_gb == 0)
        assert digest(trainer) != at_change[0]
        told.extend(trainer.restoring.rewind(None, None))
        assert (digest(trainer), trainer.step, trainer.epoch, trainer.batch) == (at_change[0], 5, 1, 1)
        assert trainer.freeze_set.describe(trainer.freeze_set.frozen) == "conv1, stage2, stage3, stage4"
        assert trainer.rates.rate == config.optimizer.rate

    made: list[Event] = []
    trainer.fit(acting(trainer, (5, lambda: made.append(change(trainer))), (7, rewind)))
    assert digest(trainer) == digest(straight)
    rewound, kept = told
    assert isinstance(rewound, RunRewound)
    assert (rewound.change, rewound.step, rewound.epoch, rewound.segment) == (made[0].change, 5, 1, 1)
    assert isinstance(kept, RewindsKept)
    assert (kept.changes, kept.undo_step) == ([], 7)
    # The abandoned piece stays, and the run's own line is the straight run's.
    folder = trainer._folder
    for event in (event for event in events if isinstance(event, MetricsLogged)):
        folder.add_metrics(event.segment, event.series)
    curve = folder.curves()["Loss/train"]
    assert list(curve.steps) == list(range(1, 9))
    assert [list(steps) for steps, _ in curve.abandoned.values()] == [[6, 7]]
    theirs = [value for e in straight_events if isinstance(e, MetricsLogged) and "Loss/train" in e.series
              for value in e.series["Loss/train"].values]  # fmt: skip
    assert list(curve.values) == theirs


def test_a_run_that_went_back_and_restores_what_it_had_left_goes_on_from_there(
    make_trainer: Make, small_config: RunConfig
) -> None:
    """To a checkpoint, to one of the piece that was left by that, before a change in there, and forth again."""
    trainer, events = make_trainer(small_config)
    names: list[str] = []
    told: list[Event] = []

    def save() -> None:
        names.append(trainer.save(reason="user").name)

    trainer.fit(
        acting(
            trainer,
            (2, save),
            (5, lambda: trainer.changes.set_rate(0.02)),
            (6, save),
            (7, lambda: told.extend(trainer.restore(names[0]))),
            (4, lambda: told.extend(trainer.restore(names[1]))),
            (8, lambda: told.extend(trainer.restoring.rewind(1, None))),
            (9, lambda: told.extend(trainer.restoring.undo_rewind())),
        )
    )
    gone = [event for event in told if isinstance(event, StateRestored)]
    assert [(event.step, event.segment, event.parent) for event in gone] == [(2, 1, 0), (6, 2, 0), (5, 3, 0), (8, 4, 2)]
    folder = trainer._folder
    for event in (event for event in events if isinstance(event, MetricsLogged)):
        folder.add_metrics(event.segment, event.series)
    curve = folder.curves()["Loss/train"]
    assert list(curve.steps) == list(range(1, 13))
    assert curve.num_points == {0: 6, 2: 2, 4: 4}
    left = {segment: list(steps) for segment, (steps, _) in curve.abandoned.items()}
    assert left == {0: [7], 1: [3, 4], 3: [6, 7, 8, 9]}


def test_a_run_goes_back_before_any_change_that_is_kept_and_forgets_the_later_ones(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, events = make_trainer(with_training(small_config, rewind_disk_gb=0.0))
    trainer.freeze_set.set_mode(training=True)
    changes = [
        trainer.changes.set_rate(0.01),
        trainer.changes.unfreeze(["conv5"]),
        trainer.changes.set_rate(0.02),
        trainer.changes.set_rate(0.02),
    ]
    assert [event.change for event in changes] == [1, 2, 3, 0]
    kept = [event for event in events if isinstance(event, RewindsKept)]
    assert [event.changes for event in kept] == [[1], [1, 2], [1, 2, 3]]
    assert kept[-1].budget_bytes == 1_000_000_000
    rewound, kept_now = trainer.restoring.rewind(2, None)
    assert isinstance(rewound, RunRewound)
    assert (rewound.sentence, rewound.rate, kept_now.changes) == ("conv5 unfrozen", 0.01, [1])
    with pytest.raises(RewindError, match=r"What is: before the change at step 0 \(rate 0\.01\)"):
        trainer.restoring.rewind(3, None)
    # The rewind has a number too.
    assert trainer.changes.set_rate(0.5).change == 5
    trainer.restoring.rewind(None, 0)
    assert trainer.rates.rate == small_config.optimizer.rate
    with pytest.raises(RewindError, match="No state is kept"):
        trainer.restoring.rewind(None, None)


def test_the_plans_change_can_be_gone_back_before_and_is_not_made_again(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, events = make_trainer(with_plan(small_config, PlanPhase(epoch=1, unfreeze=["conv5"])))
    trainer.fit(acting(trainer, (6, lambda: events.extend(trainer.restoring.rewind(None, 4)))))
    assert [event.applied_step for event in events if isinstance(event, LayersUnfrozen)] == [4]
    assert trainer.freeze_set.describe(trainer.freeze_set.frozen) == "backbone"
    assert [e.checkpoint.epoch for e in events if isinstance(e, CheckpointSaved)] == [1, 2, 3]


def test_every_state_that_is_put_back_tells_whether_the_plans_phase_was_changed_by_hand(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, events = make_trainer(with_plan(small_config, PlanPhase(epoch=1, unfreeze=["conv5"])))
    trainer.changes.unfreeze(["stage4"])
    trainer.changes.set_rate(0.02)
    (before_rate, _), (undone, _) = trainer.restoring.rewind(None, None), trainer.restoring.undo_rewind()
    assert before_rate.is_plan_overridden
    assert undone.is_plan_overridden
    name = trainer.save(reason="user").name
    (before_freeze, _) = trainer.restoring.rewind(1, None)
    assert not before_freeze.is_plan_overridden
    (checkpoint, *_) = trainer.restoring.put_checkpoint_back(name)
    assert checkpoint.is_plan_overridden
    trainer.fit(acting(trainer, (6, lambda: events.extend(trainer.restoring.put_weights_back(name)))))
    # By then the next phase had begun.
    (weights,) = [event for event in events if isinstance(event, CheckpointRestored)]
    assert not weights.is_plan_overridden


def test_a_killed_run_that_was_rewound_goes_on_from_the_checkpoint_before_the_change(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, _ = make_trainer(small_config)
    first = trainer.save(reason="user")
    trainer.changes.set_rate(0.5)
    trainer.save(reason="user")
    trainer.restoring.rewind(None, None)
    assert trainer._folder.checkpoints.resume_point() == first


def test_numbers_of_changes_rise_over_a_resume(make_trainer: Make, small_config: RunConfig) -> None:
    first, _ = make_trainer(small_config)
    for rate in (0.1, 0.2):
        first._folder.add_event(first.changes.set_rate(rate))
    info = first.save(reason="user")
    second, _ = make_trainer(small_config)
    second.go_on(first._folder, info)
    event = second.changes.set_rate(0.3)
    assert isinstance(event, RateChanged)
    assert event.change == 3


def test_a_state_that_is_too_large_is_not_kept_and_that_is_told(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, events = make_trainer(with_training(small_config, rewind_gb=1e-9, rewind_disk_gb=1e-9))
    trainer.changes.set_rate(0.01)
    trainer.changes.set_rate(0.02)
    (warning,) = [event.text for event in events if isinstance(event, LogWritten)]
    assert warning.startswith("The state before a change is not kept for a rewind: it takes ")
    assert not [event for event in events if isinstance(event, RewindsKept)]


def test_what_changes_nothing_copies_no_state(
    make_trainer: Make, small_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, events = make_trainer(small_config)
    monkeypatch.setattr(trainer.restoring, "_present_state", lambda: pytest.fail("the state was copied"))
    assert trainer.changes.freeze(["conv1"]).layers == []
    assert trainer.changes.unfreeze(["head"]).layers == []
    assert trainer.changes.set_rate_multiplier(["head"], 1.0).layers == []
    assert not [event for event in events if isinstance(event, RewindsKept)]


@pytest.mark.parametrize("rewind_gb", [1.0, 0.0], ids=["in memory", "in a file"])
def test_an_undone_restore_is_as_if_it_had_never_been(
    make_trainer: Make, small_config: RunConfig, rewind_gb: float
) -> None:
    config = with_training(small_config, rewind_gb=rewind_gb)
    names: list[str] = []
    hashes: list[str] = []
    told: list[Event] = []

    def save(trainer: Trainer) -> None:
        names.append(trainer.save(reason="user").name)

    def restore(trainer: Trainer) -> None:
        trainer.changes.set_rate(0.02)
        hashes.append(digest(trainer))
        told.extend(trainer.restore(names[0]))
        trainer._writer.finish()
        assert trainer.step == 2

    def undo(trainer: Trainer) -> None:
        told.extend(trainer.restoring.undo_rewind())
        assert (digest(trainer), trainer.step, trainer.rates.rate) == (hashes[0], 6, 0.02)

    straight, _ = make_trainer(config)
    straight.fit(acting(straight, (2, lambda: save(straight)), (6, lambda: straight.changes.set_rate(0.02))))
    names.clear()
    trainer, _ = make_trainer(config)
    trainer.fit(acting(trainer, (2, lambda: save(trainer)), (6, lambda: restore(trainer)), (4, lambda: undo(trainer))))
    assert digest(trainer) == digest(straight)
    assert [event.undo_step for event in told if isinstance(event, RewindsKept)] == [6, None]
    listed = trainer._folder.checkpoints.listed()
    assert trainer._folder.checkpoints.left_behind(listed) == set()


def test_a_restore_forgets_the_states_that_lie_after_it(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, events = make_trainer(with_training(small_config, rewind_disk_gb=0.0))
    names: list[str] = []
    trainer.fit(
        acting(
            trainer,
            (2, lambda: trainer.changes.set_rate(0.01)),
            (3, lambda: names.append(trainer.save(reason="user").name)),
            (6, lambda: trainer.changes.set_rate(0.02)),
            (7, lambda: events.extend(trainer.restore(names[0]))),
        )
    )
    assert [event.changes for event in events if isinstance(event, RewindsKept)] == [[1], [1, 2], [1]]


@pytest.mark.parametrize("has_phase_here", [False, True])
def test_a_restore_tells_last_whether_it_can_be_undone(
    make_trainer: Make, small_config: RunConfig, has_phase_here: bool
) -> None:
    config = with_training(small_config, epochs=3, rewind_gb=1.0)
    if has_phase_here:
        model = config.model.model_copy(update={"frozen": ["conv1", "stage2", "stage3", "stage4"]})
        config = config.model_copy(update={"model": model, "plan": [PlanPhase(epoch=1, unfreeze=["stage4"])]})
    trainer, _ = make_trainer(config)
    told: list[RewindsKept] = []

    def restore() -> None:
        assert trainer._folder is not None
        events = trainer.restore(trainer._folder.checkpoints.listed()[0].name)
        told.extend(event for event in events if isinstance(event, RewindsKept))

    trainer.fit(acting(trainer, (6, restore)))
    (kept,) = told
    # The phase that begins where the checkpoint was saved is a change since.
    assert kept.undo_step == (None if has_phase_here else 6)
