"""Undo and redo: of what people changed, in this window or another, and never ahead of the worker."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from PySide6.QtWidgets import QApplication

from app.viewmodels.change_history import ChangeHistory
from trainer.messages.base import Command
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    RateChanged,
    RateMultiplierChanged,
    RewindUndone,
    RunRewound,
    StateRestored,
)
from trainer.messages.commands import (
    FreezeLayers,
    Rewind,
    SetBatchNorm,
    SetRate,
    SetRateMultiplier,
    UnfreezeLayers,
)
from trainer.messages.events import AnyEvent


class Bench:
    """A history, the commands that it sends, and a worker that answers when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self._ids = map(str, itertools.count(1))
        self.history = ChangeHistory(self.send)

    def send(self, command: Command) -> str:
        command = command.model_copy(update={"command_id": next(self._ids)})
        self.sent.append(command)
        self.history.note(command)
        return command.command_id

    def ask(self, *commands: Command) -> None:
        """Ask for these in one go."""
        for command in commands:
            self.send(command)
        QApplication.processEvents()

    def answer(self, command: Command | None = None, **changes: object) -> None:
        self.history.take(event_of(command or self.sent[-1], **changes))


def event_of(command: Command, **changes: object) -> AnyEvent:
    if isinstance(command, SetRate):
        values = {"rate": command.rate, "before": 0.001, "requested_step": 1, "applied_step": 1, "segment": 0}
        return RateChanged.model_validate({**values, "command_id": command.command_id, **changes})
    kind, verb = (LayersFrozen, "frozen") if isinstance(command, FreezeLayers) else (LayersUnfrozen, "unfrozen")
    assert isinstance(command, FreezeLayers | UnfreezeLayers)
    values = {
        "layers": command.layers,
        "sentence": f"{', '.join(command.layers)} {verb}",
        "frozen": [],
        "num_trainable": 1,
        "requested_step": 1,
        "applied_step": 1,
        "source": "user",
        "segment": 0,
        "command_id": command.command_id,
    }
    return kind.model_validate({**values, **changes})


@pytest.fixture
def bench(qapp: QApplication) -> Iterator[Bench]:
    return Bench()


def test_a_rate_multiplier_is_undone_to_what_each_layer_had_before(bench: Bench) -> None:
    bench.ask(SetRateMultiplier(layers=["stage4"], multiplier=0.5))
    event = RateMultiplierChanged(
        layers=["stage4.0", "stage4.1", "stage4.2"], before=[1.0, 0.1, 1.0], multiplier=0.5, multipliers={},
        sentence="stage4 at rate × 0.5", requested_step=1, applied_step=1, source="user", segment=0,
        command_id=bench.sent[-1].command_id,
    )  # fmt: skip
    bench.history.take(event)
    assert bench.history.undo_text == "stage4 at rate × 0.5"
    bench.history.undo()
    undo = bench.sent[-2:]
    assert [(command.layers, command.multiplier, command.is_exact) for command in undo] == [
        (["stage4.0", "stage4.2"], 1.0, True), (["stage4.1"], 0.1, True),
    ]  # fmt: skip
    for command in undo:
        assert not bench.history.can_redo
        bench.history.take(event.model_copy(update={"command_id": command.command_id}))
    bench.history.redo()
    assert bench.sent[-1].layers == ["stage4.0", "stage4.1", "stage4.2"]
    assert bench.sent[-1].multiplier == 0.5


def test_a_freeze_is_undone_by_unfreezing_exactly_the_units_that_it_froze(bench: Bench) -> None:
    bench.ask(FreezeLayers(layers=["stage2"]))
    assert not bench.history.can_undo
    bench.answer(layers=["stage2.0", "stage2.1"], sentence="stage2 frozen")
    assert (bench.history.can_undo, bench.history.undo_text) == (True, "stage2 frozen")
    bench.history.undo()
    command = bench.sent[-1]
    assert isinstance(command, UnfreezeLayers)
    assert (command.layers, command.is_exact) == (["stage2.0", "stage2.1"], True)
    # It is under way, and neither done nor undone.
    assert (bench.history.can_undo, bench.history.can_redo) == (False, False)
    bench.answer()
    assert (bench.history.can_undo, bench.history.redo_text) == (False, "stage2 frozen")
    bench.history.redo()
    command = bench.sent[-1]
    assert isinstance(command, FreezeLayers)
    assert (command.layers, command.is_exact) == (["stage2.0", "stage2.1"], True)
    bench.answer()
    assert (bench.history.undo_text, bench.history.can_redo) == ("stage2 frozen", False)


def test_a_rate_is_undone_by_the_rate_before(bench: Bench) -> None:
    bench.ask(SetRate(rate=0.01))
    bench.answer()
    assert bench.history.undo_text == "rate 0.01"
    bench.history.undo()
    assert bench.sent[-1].rate == 0.001
    bench.answer(before=0.01)
    bench.history.redo()
    assert bench.sent[-1].rate == 0.01


def test_what_was_asked_for_in_one_go_is_undone_in_one_go_backwards(bench: Bench) -> None:
    bench.ask(UnfreezeLayers(layers=["a"]), FreezeLayers(layers=["b"]))
    unfreeze, freeze = bench.sent
    bench.answer(unfreeze)
    bench.answer(freeze)
    bench.ask(SetRate(rate=0.5))
    bench.answer()
    bench.history.undo()
    bench.answer(before=0.5)
    assert bench.history.undo_text == "a unfrozen, b frozen"
    bench.history.undo()
    first, second = bench.sent[-2:]
    assert (first.kind, first.layers, second.kind, second.layers) == ("UnfreezeLayers", ["b"], "FreezeLayers", ["a"])
    bench.answer(first)
    assert bench.history.undo_text == "a unfrozen, b frozen"
    bench.answer(second)
    assert (bench.history.undo_text, bench.history.redo_text) == ("", "a unfrozen, b frozen")


def test_what_the_plan_or_the_advisor_changes_is_not_undone_and_what_changed_nothing_neither(bench: Bench) -> None:
    bench.history.take(event_of(FreezeLayers(layers=["a"]), source="plan"))
    bench.history.take(event_of(UnfreezeLayers(layers=["a"]), source="advisor"))
    bench.ask(FreezeLayers(layers=["b"]))
    bench.answer(layers=[])
    assert not bench.history.can_undo


def test_the_newest_change_of_another_client_is_undone_first_to_what_was_just_before_it(bench: Bench) -> None:
    bench.ask(SetRate(rate=0.01))
    bench.answer()
    bench.history.undo()
    bench.answer(before=0.01)
    bench.history.redo()
    bench.answer()
    bench.history.take(event_of(SetRate(rate=0.5), before=0.01, command_id="another window's"))
    bench.history.take(event_of(UnfreezeLayers(layers=["a"]), command_id="a shell's"))
    assert (bench.history.undo_text, bench.history.redo_text) == ("a unfrozen", "")
    bench.history.undo()
    assert (bench.sent[-1].kind, bench.sent[-1].layers) == ("FreezeLayers", ["a"])
    bench.answer()
    bench.history.undo()
    assert bench.sent[-1].rate == 0.01
    bench.answer(before=0.5)
    bench.history.undo()
    assert bench.sent[-1].rate == 0.001


def test_a_multiplier_of_an_earlier_thaw_that_does_not_say_what_was_before_is_not_undone(bench: Bench) -> None:
    event = RateMultiplierChanged(
        layers=["stage4"], multiplier=0.5, multipliers={}, sentence="stage4 at rate × 0.5", requested_step=1,
        applied_step=1, source="user", segment=0,
    )  # fmt: skip
    bench.history.take(event)
    assert not bench.history.can_undo


def test_a_refused_undo_stays_to_be_tried_again(bench: Bench) -> None:
    bench.ask(UnfreezeLayers(layers=["head"]))
    bench.answer()
    bench.history.undo()
    bench.history.refuse(bench.sent[-1].command_id)
    assert (bench.history.undo_text, bench.history.can_undo) == ("head unfrozen", True)
    assert not bench.history.can_redo


def test_a_new_change_ends_what_could_be_done_again(bench: Bench) -> None:
    bench.ask(SetRate(rate=0.01))
    bench.answer()
    bench.history.undo()
    undo = bench.sent[-1]
    bench.ask(FreezeLayers(layers=["a"]))
    bench.answer(undo, before=0.01)
    assert bench.history.redo_text == "rate 0.01"
    bench.answer(bench.sent[-1])
    assert (bench.history.redo_text, bench.history.undo_text) == ("", "a frozen")


def test_a_change_that_settles_while_an_undo_is_under_way_stays_done(bench: Bench) -> None:
    bench.ask(SetRate(rate=0.01))
    bench.answer()
    bench.ask(FreezeLayers(layers=["a"]))
    freeze = bench.sent[-1]
    bench.history.undo()
    undo = bench.sent[-1]
    bench.answer(freeze)
    bench.answer(undo, before=0.01)
    assert (bench.history.undo_text, bench.history.redo_text) == ("a frozen", "rate 0.01")


def put_back(kind: type[StateRestored], segment: int, **values: object) -> StateRestored:
    common = {"step": 1, "epoch": 1, "frozen": [], "num_trainable": 1, "segment": segment}
    return kind.model_validate({**common, **values})


@pytest.mark.parametrize("is_other_run", [False, True])
def test_another_state_or_run_has_no_changes_to_undo(bench: Bench, is_other_run: bool) -> None:
    bench.ask(SetRate(rate=0.01))
    bench.answer()
    if is_other_run:
        bench.history.clear()
    else:
        bench.history.restore(put_back(CheckpointRestored, 1, name="a.pt"))
    assert not bench.history.can_undo


def test_the_weights_alone_of_a_checkpoint_leave_the_changes_to_be_undone(bench: Bench) -> None:
    bench.ask(SetRate(rate=0.01))
    bench.answer()
    bench.history.restore(put_back(CheckpointRestored, 1, name="a.pt", weights_only=True))
    assert bench.history.undo_text == "rate 0.01"


def test_restored_weights_are_undone_by_a_rewind_as_long_as_the_state_before_them_is_kept(bench: Bench) -> None:
    bench.ask(SetRate(rate=0.01))
    bench.answer(change=3)
    bench.history.restore(put_back(CheckpointRestored, 1, name="a.pt", weights_only=True, change=5, step=1200))
    assert bench.history.undo_text == "rate 0.01"
    bench.history.offer_rewinds([3, 5], None)
    assert bench.history.undo_text == "weights restored, back to step 1,200"
    bench.history.undo()
    assert bench.sent[-1] == Rewind(change=5, command_id=bench.sent[-1].command_id)
    assert not bench.history.can_undo, "while it is under way"
    bench.history.restore(put_back(RunRewound, 2, change=5, sentence="weights restored"))
    assert (bench.history.undo_text, bench.history.can_undo) == ("rate 0.01", True)


def test_after_a_rewind_statistics_that_were_let_adapt_before_it_are_undone_first(bench: Bench) -> None:
    bench.ask(FreezeLayers(layers=["a"]))
    bench.answer(change=2)
    bench.history.take(
        BatchNormChanged(
            layers=["a"], is_adapting=True, sentence="a adapting", adapting=["a"], requested_step=1, applied_step=1,
            source="user", segment=0,
        )
    )  # fmt: skip
    bench.ask(FreezeLayers(layers=["b"]))
    bench.answer(change=3)
    bench.history.restore(put_back(RunRewound, 1, change=3, sentence=""))
    assert bench.history.undo_text == "a adapting"
    bench.history.restore(put_back(RewindUndone, 2, undone_segment=1, undone_step=1))
    bench.history.restore(put_back(RunRewound, 3, change=2, sentence=""))
    assert bench.history.undo_text == ""


def test_what_was_half_undone_where_a_rewind_goes_is_not_offered(bench: Bench) -> None:
    bench.ask(FreezeLayers(layers=["a"]), UnfreezeLayers(layers=["b"]))
    for number, command in enumerate(bench.sent, 2):
        bench.answer(command, change=number)
    bench.history.undo()
    for number, command in enumerate(bench.sent[2:], 4):
        bench.answer(command, change=number)
    bench.history.restore(put_back(RunRewound, 1, change=5, sentence=""))
    assert bench.history.undo_text == ""


def test_after_a_rewind_what_was_in_force_before_it_can_be_undone_still(bench: Bench) -> None:
    for number, layer in enumerate("abc", 2):
        bench.ask(FreezeLayers(layers=[layer]))
        bench.answer(change=number)
    bench.history.undo()
    bench.answer(change=9)

    def texts(change: int) -> list[str]:
        bench.history.restore(put_back(RunRewound, 1, change=change, sentence=""))
        done = [action.text for action in bench.history._done]
        bench.history.restore(put_back(RewindUndone, 2, undone_segment=1, undone_step=1))
        return done

    assert texts(9) == ["a frozen", "b frozen", "c frozen"], "before c was unfrozen again"
    assert texts(4) == ["a frozen", "b frozen"], "before c was frozen"
    assert texts(10) == ["a frozen", "b frozen"]
    assert texts(2) == []
    assert (bench.history.undo_text, bench.history.redo_text) == ("b frozen", "c frozen")
    bench.history.redo()
    bench.answer(change=12)
    assert texts(11) == ["a frozen", "b frozen"], "before c was frozen again"


def test_an_undone_rewind_or_restore_leaves_what_could_be_undone_and_done_again_before_it(
    bench: Bench,
) -> None:
    for number, layer in enumerate("ab", 1):
        bench.ask(FreezeLayers(layers=[layer]))
        bench.answer(change=number)
    bench.history.undo()
    bench.answer(change=3)
    bench.history.restore(put_back(RunRewound, 1, change=1, sentence="a frozen"))
    assert (bench.history.undo_text, bench.history.redo_text) == ("", "")
    bench.history.restore(put_back(CheckpointRestored, 2, name="a.pt"))
    bench.history.offer_rewinds([], 9)
    assert (bench.history.undo_text, bench.history.redo_text) == ("epoch 1 restored, back to step 9", "")
    bench.history.undo()
    bench.history.restore(put_back(RewindUndone, 3, undone_segment=2, undone_step=1))
    assert (bench.history.undo_text, bench.history.redo_text) == ("", "step 9, as before the run went back")
    bench.history.redo()
    bench.history.restore(put_back(RewindUndone, 4, undone_segment=1, undone_step=1))
    assert [command.kind for command in bench.sent[-2:]] == ["Rewind", "Rewind"]
    bench.history.offer_rewinds([], None)
    assert (bench.history.undo_text, bench.history.redo_text) == ("a frozen", "b frozen")
    assert bench.history.can_undo
    bench.history.undo()
    assert (bench.sent[-1].kind, bench.sent[-1].layers) == ("UnfreezeLayers", ["a"])


def test_a_window_that_comes_later_can_undo_what_the_first_one_can(bench: Bench) -> None:
    """After a rewind that was undone, another that was not, and weights that were restored in between."""
    frozen = [
        event_of(FreezeLayers(layers=[layer], command_id=layer), change=number) for number, layer in enumerate("ab", 1)
    ]
    later = [
        event_of(FreezeLayers(layers=[layer], command_id=layer), segment=segment, change=number)
        for layer, segment, number in (("c", 2, 7), ("d", 3, 9))
    ]
    log = [
        *frozen,
        put_back(RunRewound, 1, change=2, sentence="b frozen"),
        put_back(RewindUndone, 2, undone_segment=1, undone_step=1),
        later[0],
        put_back(CheckpointRestored, 3, name="a.pt", weights_only=True),
        later[1],
    ]
    for event in log:
        (bench.history.restore if isinstance(event, StateRestored) else bench.history.take)(event)
    second = Bench()
    second.history.open_run(log)
    texts = []
    for each in (bench, second):
        each.history.restore(put_back(RunRewound, 4, change=9, sentence="d frozen"))
        assert each.history.undo_text == "c frozen"
        each.history.restore(put_back(RewindUndone, 5, undone_segment=4, undone_step=1))
        texts.append([action.text for action in each.history._done])
    assert texts == [["a frozen", "b frozen", "c frozen", "d frozen"]] * 2


def test_a_run_that_was_begun_anew_has_none_of_the_changes_before_to_undo(bench: Bench) -> None:
    first, second = (event_of(FreezeLayers(layers=[layer]), segment=segment) for segment, layer in enumerate("ab"))
    bench.history.open_run([first, second])
    assert bench.history.undo_text == "b frozen"
    bench.history.undo()
    assert [command.layers for command in bench.sent] == [["b"]]


def test_statistics_that_were_let_adapt_are_frozen_again_by_an_undo(bench: Bench) -> None:
    bench.ask(SetBatchNorm(layers=["stage3"], is_adapting=True))
    event = BatchNormChanged(
        layers=["stage3.0.bn"], is_adapting=True, sentence="statistics of stage3.0.bn adapt when frozen",
        adapting=["stage2.0.bn", "stage3.0.bn"], requested_step=1, applied_step=1, source="user", segment=0,
        command_id=bench.sent[-1].command_id,
    )  # fmt: skip
    bench.history.take(event)
    assert bench.history.undo_text == event.sentence
    bench.history.undo()
    assert (bench.sent[-1].layers, bench.sent[-1].is_adapting) == (["stage3.0.bn"], False)
    bench.history.take(event.model_copy(update={"command_id": bench.sent[-1].command_id, "is_adapting": False}))
    bench.history.redo()
    assert (bench.sent[-1].layers, bench.sent[-1].is_adapting) == (["stage3.0.bn"], True)
