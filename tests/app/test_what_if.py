"""The window in which a change is tried from a checkpoint: what it asks, and what it shows of the answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from app import theme
from app.viewmodels.layer_rows import LayerRows
from app.viewmodels.what_if import WhatIfViewModel
from app.views.what_if import WhatIfWindow
from tests.app.conftest import checkpoint
from trainer.config import PlanPhase
from trainer.messages.commands import FreezeLayers, SetBatchNorm, SetRate, SetRateMultiplier, UnfreezeLayers
from trainer.messages.events import PreparationProgressed
from trainer.messages.model_info import LayerInfo, ModelSummary
from trainer.messages.run_info import InForce
from trainer.messages.what_if import ChangeTried, TriedBranch

pytestmark = pytest.mark.window


@pytest.fixture
def asked() -> list:
    """Return what is asked; no process begins, and the tests say what came of it."""
    return []


@pytest.fixture
def summary(summary: ModelSummary) -> ModelSummary:
    """Return a small tree with two BatchNorms, and a layer with a bias."""
    layers = [*summary.layers]
    layers[1] = layers[1].model_copy(update={"own_params": {"weight": 18, "bias": 2}})
    layers[-1] = layers[-1].model_copy(update={"own_params": {"weight": 8, "bias": 2}})
    layers[4:4] = [
        LayerInfo(fqn=f"stage2.{number}", type="BatchNorm2d", num_params=2, is_unit=True, has_statistics=True)
        for number in (1, 2)
    ]
    return summary.model_copy(update={"layers": layers})


@pytest.fixture
def what_if(qapp, run_info, summary, asked, monkeypatch) -> WhatIfViewModel:
    made = WhatIfViewModel()
    rows = LayerRows(summary)
    changed = {"frozen": sorted(rows.atoms_of(["backbone"])), "multipliers": {"fc": 0.5}, "adapting": ["stage2.2"]}
    info = checkpoint(2, 0.5, 0.9).model_copy(update=changed)
    made.open(run_info, info, rows, step_ms=20.0)

    def start(command) -> None:
        asked.append(command)
        made.errand._going = _Nothing()

    monkeypatch.setattr(made.errand, "start", start)
    return made


class _Nothing:
    def end(self) -> None:
        """Be no process that could be ended."""


@pytest.fixture
def main(qtbot, themed) -> QWidget:
    made = QWidget()
    qtbot.addWidget(made)
    return made


@pytest.fixture
def window(main, what_if) -> WhatIfWindow:
    made = WhatIfWindow(what_if, main)
    made.show()
    return made


def branch(loss: float | None, step_ms: float, num_trainable: int) -> TriedBranch:
    validation = {} if loss is None else {"Accuracy/validation": 1 - loss, "Loss/validation": loss}
    steps = [41, 42, 43]
    return TriedBranch(
        steps=steps, losses=[0.9, 0.8, 0.7], validation=validation, step_ms=step_ms, num_trainable=num_trainable
    )


def answer(what_if: WhatIfViewModel, loss: float | None, *notes: str) -> None:
    tried = ChangeTried(
        run_dir="",
        checkpoint="a.pt",
        sentence="conv1 unfrozen",
        first_step=40,
        num_steps=3,
        start={"Accuracy/validation": 0.4, "Loss/validation": 0.6},
        unchanged=branch(0.25, 20.0, 30),
        changed=branch(loss, 36.0, 100),
        notes=list(notes),
    )
    what_if.errand._going = None
    what_if.errand.done.emit(tried)


def choose(window: WhatIfWindow, kind: int, *, layers: str = "", rate: str = "") -> None:
    window.kind.setCurrentIndex(kind)
    window.layers.setEditText(layers)
    (window.multiplier if kind == 3 else window.rate).setText(rate)
    window.run.click()


def test_it_offers_the_models_layers_and_says_how_long_the_steps_take(window: WhatIfWindow, run_info) -> None:
    offered = [window.layers.itemText(row) for row in range(window.layers.count())]
    assert "conv1" in offered
    window.steps.setText("500")
    assert window.steps_note.text() == "about 0:20 of training"
    assert min(50, run_info.steps_per_epoch) == window._what_if.num_steps


@pytest.mark.parametrize(
    ("kind", "layers", "rate", "said"),
    [
        (0, "", "", "Name a layer, or several with commas between them."),
        (0, "conv1, nowhere", "", "The model has no layer nowhere. Choose one from the list."),
        (0, "head", "", "That is trainable at this checkpoint already."),
        (1, "conv1", "", "That is frozen at this checkpoint already."),
        (1, "head", "", "Nothing would be left to train."),
        (2, "", "0", "A number above 0, up to 10."),
        (3, "", "0.1", "Name a layer, or several with commas between them."),
        (3, "head", "0", "A number above 0, up to 1,000."),
        (3, "head", "1001", "A number above 0, up to 1,000."),
        (3, "head", "0.5", "Its rate is multiplied by 0.5 at this checkpoint already."),
        (3, "stage2, conv1", "0.1", "That is frozen at this checkpoint: no rate moves it."),
        (3, "fc.bias", "0.1", "fc.bias is only a part of the layer fc. Name the whole layer."),
        (4, "nowhere", "", "The model has no layer nowhere. Choose one from the list."),
        (4, "conv1", "", "There are no running statistics in that. Name a BatchNorm, or a layer above one."),
        (4, "stage2.2", "", "Its statistics go on at this checkpoint already."),
        (5, "stage2.1", "", "Its statistics are frozen with it at this checkpoint already."),
    ],
)
def test_what_cannot_be_tried_is_said_beside_its_field(window: WhatIfWindow, asked, kind, layers, rate, said) -> None:
    choose(window, kind, layers=layers, rate=rate)
    assert window.value_note.whole_text == said
    assert window.value_note.is_error
    assert window.run.text() == "Run"
    assert asked == []


def test_what_was_wrong_is_not_said_of_what_is_written_instead(window: WhatIfWindow) -> None:
    window.steps.setText("")
    choose(window, 0, layers="nowhere")
    assert window.value_note.is_error
    assert window.steps_note.is_error
    window.layers.setEditText("conv1")
    assert not window.value_note.whole_text
    assert not window.layers.property("invalid")
    assert window.steps_note.is_error
    window.steps.setText("5")
    assert not window.steps_note.is_error


def test_no_curve_runs_through_the_legend_and_an_empty_plot_says_what_comes(
    qtbot, window: WhatIfWindow, what_if
) -> None:
    assert window._hint.isVisible()
    assert not window._legend.isVisible()
    answer(what_if, 0.125)
    assert not window._hint.isVisible()
    assert window._legend.isVisible()
    view, px = window.plot.getViewBox(), 0.0
    for height in (window.minimumHeight(), 900):
        window.resize(window.width(), height)
        qtbot.waitUntil(lambda px=px: view.height() != px)
        px = view.height()
        low, high = view.viewRange()[1]
        assert low < 0.125
        legend_px = window._legend.boundingRect().height()
        assert (high - 0.9) / (high - low) * px > legend_px


@pytest.mark.parametrize(
    ("kind", "layers", "rate", "change"),
    [
        (0, "conv1", "", UnfreezeLayers(layers=["conv1"])),
        (1, "fc.bias", "", FreezeLayers(layers=["fc.bias"])),
        (2, "", "0.02", SetRate(rate=0.02)),
        (3, "head", "2", SetRateMultiplier(layers=["head"], multiplier=2.0)),
        (4, "stage2", "", SetBatchNorm(layers=["stage2"], is_adapting=True)),
        (5, "stage2", "", SetBatchNorm(layers=["stage2"], is_adapting=False)),
    ],
)
def test_run_asks_for_the_change_at_this_checkpoint(
    window: WhatIfWindow, asked, run_info, kind, layers, rate, change
) -> None:
    window.steps.setText("7")
    choose(window, kind, layers=layers, rate=rate)
    (command,) = asked
    assert (command.run_dir, command.checkpoint) == (run_info.run_dir, checkpoint(2, 0.5, 0.9).name)
    assert (command.changes, command.num_steps) == ([change], 7)
    assert window.run.text() == "Cancel"
    assert not window.layers.isEnabled()


@pytest.mark.window
@pytest.mark.qt_log_ignore("This plugin does not support (raise|grabbing the keyboard)")
def test_run_is_pressed_by_a_click_while_the_list_of_layers_is_open(qtbot, window: WhatIfWindow, asked) -> None:
    window.layers.setFocus()
    qtbot.keyClicks(window.layers.lineEdit(), "conv1")
    popup = window.layers.completer().popup()
    qtbot.waitUntil(popup.isVisible)
    on_run = popup.viewport().mapFromGlobal(window.run.mapToGlobal(window.run.rect().center()))
    qtbot.mouseClick(popup, Qt.MouseButton.RightButton, pos=on_run)
    qtbot.waitUntil(lambda: not popup.isVisible())
    qtbot.keyClick(window.layers.lineEdit(), Qt.Key.Key_Backspace)
    qtbot.keyClicks(window.layers.lineEdit(), "1")
    qtbot.waitUntil(popup.isVisible)
    assert not asked, "not by the other button"
    qtbot.mouseClick(popup, Qt.MouseButton.LeftButton, pos=on_run)
    qtbot.waitUntil(lambda: len(asked) == 1)
    assert not popup.isVisible()


def test_it_says_how_far_it_is_and_cancel_ends_it_without_a_word(window: WhatIfWindow, what_if, asked) -> None:
    choose(window, 0, layers="conv1")
    what_if.errand.progressed.emit(PreparationProgressed(what="Steps as it is", done=5, total=20, unit="steps"))
    assert window.sentence.text() == "Steps as it is · 5 of 20 steps"
    assert window.progress.value() == 250
    window.run.click()
    assert not what_if.is_going
    assert (window.run.text(), window.sentence.text()) == ("Run", "")


def test_both_branches_are_drawn_together_with_the_difference_of_the_validation_loss(
    window: WhatIfWindow, what_if, qtbot
) -> None:
    choose(window, 0, layers="conv1")
    answer(what_if, 0.125)
    for curve in (window._unchanged, window._changed):
        assert list(curve.getData()[0]) == [41, 42, 43]
    points = [each.getData() for each in (window._start, window._end_unchanged, window._end_changed)]
    assert [(list(x), list(y)) for x, y in points] == [([40], [0.6]), ([43], [0.25]), ([43], [0.125])]
    assert window._gap.toPlainText() == "−0.1250"
    said = "After 3 steps with conv1 unfrozen, the validation loss is 0.1250 lower. That is one measurement"
    assert window.sentence.text() == f"{said}, with one seed."
    texts = [[cell.text() for cell in cells] for cells in window._cells[1:]]
    assert texts == [
        ["Validation loss", "0.2500", "0.1250", "−0.1250"],
        ["Validation accuracy", "75.0 %", "87.5 %", "+12.5 points"],
        ["Time per step", "20 ms", "36 ms", "× 1.8"],
        ["Trainable parameters", "30", "100", "+70"],
    ]


def test_a_branch_that_ended_before_has_no_point_and_its_sentence_is_told(window: WhatIfWindow, what_if) -> None:
    choose(window, 0, layers="conv1")
    answer(what_if, None, "With the change, the loss was NaN at step 44: that branch ends there.")
    assert "there is nothing to compare" in window.sentence.text()
    assert "that branch ends there" in window.sentence.text()
    assert not window._gap.isVisible()
    assert window._end_changed.getData()[0].size == 0


def test_a_refusal_stands_where_the_verdict_would(window: WhatIfWindow, what_if) -> None:
    choose(window, 0, layers="conv1")
    what_if.errand._going = None
    what_if.errand.failed.emit("The data are not there. Put them back.")
    assert window.sentence.text() == "The data are not there. Put them back."
    assert window.sentence.property("role") == "error"
    assert not window.branch.isEnabled()


def test_the_multiplier_has_a_field_where_it_is_asked_for(window: WhatIfWindow) -> None:
    for kind, has_layers, has_number in ((0, True, False), (2, False, False), (3, True, True), (4, True, False)):
        window.kind.setCurrentIndex(kind)
        assert window.layers.isVisible() is has_layers, kind
        assert window.rate.isVisible() is not has_layers, kind
        assert window.multiplier.isVisible() is has_number, kind
    choose(window, 3, layers="head", rate="none")
    assert window.multiplier.property("invalid")
    assert not window.layers.property("invalid")
    window.multiplier.setText("2")
    assert not window.value_note.whole_text


def test_a_rate_and_statistics_matter_only_where_something_learns_or_is_frozen(what_if, run_info, summary) -> None:
    trainable = checkpoint(1, 0.5, 0.9).model_copy(update={"frozen": [], "adapting": []})
    what_if.open(run_info, trainable, LayerRows(summary), None)
    what_if.start("adapting", "stage2", "", "5")
    assert what_if.wrong == {"layers": "That is trainable at this checkpoint: its statistics go on in any case."}
    # A plan may freeze it within the steps, or unfreeze what is frozen.
    planned = InForce(rate=1e-3, epochs=6, patience=None, plan=[PlanPhase(epoch=2, freeze=["stage2"])])
    run = run_info.model_copy(update={"in_force": planned})
    for kind, info in (("adapting", trainable), ("multiplier", trainable.model_copy(update={"frozen": ["conv1"]}))):
        what_if.open(run, info, LayerRows(summary), None)
        what_if.start(kind, "conv1" if kind == "multiplier" else "stage2", "0.1", "5")
        assert what_if.wrong == {}


@pytest.mark.parametrize(
    ("kind", "layers", "number", "section", "field", "value"),
    [
        (3, "head", "2", "optimizer", "multipliers", {"head": 2.0}),
        # All that there is in the backbone.
        (4, "stage2", "", "model", "adapting", ["backbone"]),
        (5, "stage2", "", "model", "adapting", []),
    ],
)
def test_a_branch_has_the_rate_or_the_statistics_that_were_tried(
    window: WhatIfWindow, what_if, qtbot, summary, kind, layers, number, section, field, value
) -> None:
    choose(window, kind, layers=layers, rate=number)
    answer(what_if, 0.125)
    with qtbot.waitSignal(window.branch_requested) as asked:
        window.branch.click()
    (config,) = asked.args
    assert getattr(getattr(config, section), field) == value
    rows = LayerRows(summary)
    assert rows.atoms_of_set(config.model.frozen) == rows.atoms_of(["backbone"])
    if section == "model":
        assert config.optimizer.multipliers == {"fc": 0.5}


@pytest.mark.parametrize(("kind", "layers", "rate"), [(0, "conv1", ""), (2, "", "0.02")])
def test_a_branch_begins_at_the_checkpoint_with_the_change(
    window: WhatIfWindow, what_if, qtbot, run_info, summary, kind, layers, rate
) -> None:
    choose(window, kind, layers=layers, rate=rate)
    answer(what_if, 0.125)
    with qtbot.waitSignal(window.branch_requested) as asked:
        window.branch.click()
    (config,) = asked.args
    assert config.branch.checkpoint == checkpoint(2, 0.5, 0.9).name
    assert Path(config.branch.run) == Path(run_info.run_dir).absolute()
    rows = LayerRows(summary)
    changed = rows.atoms_of(["conv1"]) if layers else set()
    assert rows.atoms_of(config.model.frozen) == rows.atoms_of(["backbone"]) - changed
    assert config.optimizer.rate == (0.02 if rate else run_info.config.optimizer.rate)


def test_the_curves_follow_the_theme_and_differ_in_more_than_colour(window: WhatIfWindow, what_if, themed) -> None:
    choose(window, 0, layers="conv1")
    answer(what_if, 0.125)
    styles = [curve.opts["pen"].style() for curve in (window._unchanged, window._changed)]
    assert styles[0] != styles[1]
    theme.apply(themed, "dark")
    assert window._unchanged.opts["pen"].color() == QColor(theme.DARK.train)
    assert window._changed.opts["pen"].color() == QColor(theme.DARK.trainable)


def test_it_closes_when_the_run_is_left(window: WhatIfWindow, what_if) -> None:
    choose(window, 0, layers="conv1")
    what_if.leave()
    assert not window.isVisible()
    assert not what_if.is_going


def test_freezing_is_asked_where_nothing_is_frozen(what_if, run_info, summary, asked) -> None:
    what_if.open(run_info, checkpoint(1, 0.5, 0.9).model_copy(update={"frozen": []}), LayerRows(summary), None)
    assert what_if.kind == "freeze"
    assert what_if.forecast("20") == "2 × 20 steps"
    what_if.start("freeze", "conv1", "", "1.5")
    assert what_if.wrong == {"steps": "A whole number from 1 to 1,000,000."}
    what_if.start("freeze", "conv1", "", "5")
    assert asked[0].changes == [FreezeLayers(layers=["conv1"])]
