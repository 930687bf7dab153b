"""The layer tree: what a toggle asks for, what pending and applied look like, and that the keyboard can do it all."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QEvent, QItemSelectionModel, QLocale, QPoint, Qt
from PySide6.QtTest import QAbstractItemModelTester, QTest
from PySide6.QtWidgets import QApplication, QLineEdit

from app import theme
from app.viewmodels.freeze_presets import Preset
from app.viewmodels.frozen_layers import LayerState
from app.viewmodels.layer_rows import BACKBONE_ID, HEAD_ID, LayerRows
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.viewmodels.layer_tree_item_model import ROW_ID_ROLE, Column, LayerFilter, LayerTreeItemModel
from app.viewmodels.step_cost import StepCost
from app.views.layer_delegate import check_box_rect
from app.views.layer_tree import LayerTreeView
from trainer.messages.changes import (
    BatchNormChanged,
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    RateMultiplierChanged,
)
from trainer.messages.events import FreezeVerified, LayerStatsReported
from trainer.messages.model_info import LayerInfo, ModelSummary

# Only the offscreen platform says so, of every window.
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support propagateSizeHints")

ALL_FROZEN = "Cannot freeze every layer: nothing would be left to train. Leave the head unfrozen."


def _summary(entries, frozen=()):
    """Make a summary from (fqn, type, own parameters[, "head"]); what owns some is a unit."""
    layers = []
    for fqn, kind, own, *marks in entries:
        below = sum(other for name, _, other, *_ in entries if not fqn or name == fqn or name.startswith(f"{fqn}."))
        layers.append(
            LayerInfo(
                fqn=fqn,
                type=kind,
                num_params=below,
                is_unit=own > 0,
                own_params=_own_params(kind, own),
                is_head="head" in marks,
                has_statistics="BatchNorm" in kind,
            )
        )
    number_of = {fqn: own for fqn, _, own, *_ in entries}
    total = sum(number_of.values())
    return ModelSummary(
        model="net",
        layers=layers,
        frozen=list(frozen),
        num_params=total,
        num_trainable=total - sum(number_of[unit] for unit in frozen),
    )


def _own_params(kind, own):
    if not own:
        return {}
    if kind in {"Net", "Encoder"}:
        return {"token": own}
    num_biases = own // 2 if "BatchNorm" in kind else own // 10 if kind == "Linear" else 0
    return {"weight": own - num_biases, **({"bias": num_biases} if num_biases else {})}


STAGED = [
    ("", "Net", 0),
    ("conv1", "Sequential", 0),
    ("conv1.0", "Conv2d", 600),
    ("conv1.1", "BatchNorm2d", 48),
    ("maxpool", "MaxPool2d", 0),
    ("stage1", "Sequential", 0),
    ("stage1.0", "Block", 0),
    ("stage1.0.conv", "Conv2d", 1000),
    ("stage1.0.relu", "ReLU", 0),
    ("stage2", "Sequential", 0),
    ("stage2.0", "Block", 0),
    ("stage2.0.conv", "Conv2d", 2000),
    ("conv5", "Sequential", 0),
    ("conv5.0", "Conv2d", 300),
    ("fc", "Linear", 100, "head"),
]
# The head stands inside a container of the backbone, as in mobilenet; the root owns a parameter, as in ViT.
NESTED = [
    ("", "Net", 7),
    ("features", "Sequential", 0),
    ("features.0", "Block", 0),
    ("features.0.conv", "Sequential", 0),
    ("features.0.conv.0", "Conv2d", 10),
    ("features.1", "Block", 0),
    ("features.1.conv", "Sequential", 0),
    ("features.1.conv.0", "Conv2d", 20),
    ("classifier", "Sequential", 0),
    ("classifier.0", "Linear", 50),
    ("classifier.1", "Dropout", 0),
    ("classifier.3", "Linear", 30, "head"),
]
BACKBONE_UNITS = ["conv1.0", "conv1.1", "stage1.0.conv", "stage2.0.conv", "conv5.0"]


@pytest.fixture
def tree(qapp):
    model = LayerTreeViewModel()
    model.set_summary(_summary(STAGED, BACKBONE_UNITS))
    return model


@pytest.fixture
def live(tree):
    tree.is_live = True
    tree.asked = []
    tree.freeze_requested.connect(lambda names: tree.asked.append(("freeze", names)))
    tree.unfreeze_requested.connect(lambda names: tree.asked.append(("unfreeze", names)))
    tree.multiply_requested.connect(lambda names, number: tree.asked.append((number, names)))
    return tree


def _id(tree, fqn):
    return next(row.id for row in tree.rows.in_order() if row.fqn == fqn)


def _changed(kind, layers, frozen, *, command_id="", applied_step=128, requested_step=127):
    return kind(
        command_id=command_id,
        layers=layers,
        sentence="changed",
        frozen=frozen,
        num_trainable=2100,
        requested_step=requested_step,
        applied_step=applied_step,
        source="user",
        segment=0,
    )


def test_backbone_and_head_are_the_two_top_rows(tree):
    tops = [tree.rows[row_id] for row_id in tree.rows[0].children]
    assert [(row.name, row.type, row.num_params) for row in tops] == [
        ("backbone", "Net", 3948),
        ("head · fc", "Linear", 100),
    ]
    assert [tree.rows[row_id].name for row_id in tops[0].children] == ["conv1", "maxpool", "stage1", "stage2", "conv5"]


def test_a_head_inside_a_container_is_taken_out_of_it(qapp):
    tree = LayerTreeViewModel()
    tree.set_summary(_summary(NESTED))
    classifier = tree.rows[_id(tree, "classifier")]
    assert [tree.rows[child].name for child in classifier.children] == ["0", "1"]
    assert classifier.num_params == 50
    assert classifier.command_names == ["classifier.0"]
    assert tree.rows[HEAD_ID].name == "head · classifier.3"
    assert [tree.rows[child].name for child in tree.rows[BACKBONE_ID].children] == ["token", "features", "classifier"]


def test_a_container_of_nothing_but_the_head_is_no_row(qapp):
    tree = LayerTreeViewModel()
    tree.set_summary(
        _summary(
            [("", "Net", 0), ("conv", "Conv2d", 5), ("heads", "Sequential", 0), ("heads.head", "Linear", 3, "head")]
        )
    )
    assert [tree.rows[child].name for child in tree.rows[BACKBONE_ID].children] == ["conv"]


def test_a_layer_named_head_and_an_appended_head_are_told_apart(qapp):
    tree = LayerTreeViewModel()
    layers = [("", "Swin", 0), ("norm", "LayerNorm", 5), ("head", "Linear", 7), ("appended", "Linear", 3, "head")]
    tree.set_summary(_summary(layers, frozen=["head"]))
    assert tree.frozen.state_of(HEAD_ID) is LayerState.TRAINABLE
    assert tree.frozen_layers == ["head"]
    tree.toggle([HEAD_ID])
    tree.toggle([next(row.id for row in tree.rows.in_order(BACKBONE_ID) if row.fqn == "head")])
    assert tree.frozen_layers == ["appended"]
    assert tree.rows.units_of(["head", "norm"]) == {"head", "norm"}


def test_a_rows_state_comes_from_the_units_below_it(tree):
    tree.unfreeze_rows([_id(tree, "conv1.1")])
    states = {row.fqn: tree.frozen.state_of(row.id) for row in tree.rows.in_order()}
    assert states["backbone"] is LayerState.PARTLY
    assert states["conv1"] is LayerState.PARTLY
    assert states["conv1.0"] is LayerState.FROZEN
    assert states["conv1.1"] is LayerState.TRAINABLE
    assert states["stage1.0.relu"] is LayerState.FROZEN
    assert states["maxpool"] is LayerState.NOTHING
    assert states["head"] is LayerState.TRAINABLE


def test_before_a_run_a_toggle_changes_the_set_at_once(tree):
    tree.toggle([_id(tree, "stage2"), _id(tree, "conv5")])
    assert tree.frozen_layers == ["conv1", "stage1"]
    assert tree.num_trainable == 2400
    tree.toggle([_id(tree, "stage2"), _id(tree, "conv5")])
    assert tree.frozen_layers == ["backbone"]


def test_during_a_run_a_toggle_asks_by_the_fewest_names_and_shows_pending(live):
    live.toggle([_id(live, "stage2")])
    assert live.asked == [("unfreeze", ["stage2"])]
    live.mark_pending("c1", ["stage2"])
    assert live.is_pending(_id(live, "stage2.0.conv"))
    assert not live.is_pending(_id(live, "stage1"))
    assert live.frozen.state_of(_id(live, "stage2")) is LayerState.FROZEN
    left = [unit for unit in BACKBONE_UNITS if unit != "stage2.0.conv"]
    live.settle(_changed(LayersUnfrozen, ["stage2.0.conv"], left, command_id="c1"))
    assert not live.is_pending(_id(live, "stage2"))
    assert live.frozen.state_of(_id(live, "stage2")) is LayerState.TRAINABLE
    assert live.explain(_id(live, "stage2")) == "trainable since step 128, asked at 127"
    assert live.num_trainable == 2100


@pytest.mark.parametrize(("row", "name"), [(BACKBONE_ID, "backbone"), (HEAD_ID, "head")])
def test_the_top_rows_go_by_their_own_names(live, row, name):
    live.settle(_changed(LayersUnfrozen, [], []))
    live.freeze_rows([row])
    assert live.asked == [("freeze", [name])]


def test_a_rejected_request_goes_back_with_its_sentence(live, qtbot):
    live.toggle([_id(live, "stage2")])
    live.mark_pending("c1", ["stage2"])
    with qtbot.waitSignal(live.message_changed):
        live.reject("c1", "The run is over. Resume it first.")
    assert live.message == "The run is over. Resume it first."
    assert not live.is_pending(_id(live, "stage2"))
    assert live.frozen.state_of(_id(live, "stage2")) is LayerState.FROZEN


def test_a_rejection_of_something_else_changes_nothing(live):
    live.toggle([_id(live, "stage2")])
    live.mark_pending("c1", ["stage2"])
    live.reject("other", "No.")
    assert live.is_pending(_id(live, "stage2"))
    assert live.message == ""


def test_an_event_of_the_plan_leaves_what_is_asked_for_pending(live):
    live.toggle([_id(live, "stage2")])
    live.mark_pending("c1", ["stage2"])
    live.settle(_changed(LayersUnfrozen, ["conv5.0"], BACKBONE_UNITS[:4]))
    assert live.is_pending(_id(live, "stage2"))
    live.settle(_changed(LayersUnfrozen, ["stage2.0.conv"], BACKBONE_UNITS[:3], command_id="from a shell"))
    assert not live.is_pending(_id(live, "stage2"))


def test_the_end_of_the_run_leaves_nothing_pending(live):
    live.toggle([_id(live, "stage2")])
    live.mark_pending("c1", ["stage2"])
    live.is_live = False
    assert not live.is_pending(_id(live, "stage2"))


@pytest.mark.parametrize("is_live", [False, True])
def test_freezing_everything_is_refused_at_once(live, is_live):
    live.is_live = is_live
    live.freeze_rows([HEAD_ID])
    assert live.message == ALL_FROZEN
    assert live.asked == []
    assert live.frozen.state_of(HEAD_ID) is LayerState.TRAINABLE


def test_freezing_everything_in_two_requests_is_refused_too(live):
    live.settle(_changed(LayersUnfrozen, [], []))
    live.freeze_rows([BACKBONE_ID])
    live.mark_pending("c1", ["backbone"])
    live.freeze_rows([HEAD_ID])
    assert live.message == ALL_FROZEN
    assert live.asked == [("freeze", ["backbone"])]


def test_presets_name_the_freeze_set_and_make_it(tree):
    assert tree.preset is Preset.HEAD_ONLY
    tree.apply_preset(Preset.LAST_STAGE)
    assert tree.frozen_layers == ["conv1", "stage1"]
    assert tree.preset is Preset.LAST_STAGE
    tree.apply_preset(Preset.EVERYTHING)
    assert tree.frozen_layers == []
    tree.freeze_rows([_id(tree, "conv5")])
    assert tree.preset is Preset.CUSTOM


def test_a_preset_unfreezes_before_it_freezes(live):
    live.settle(_changed(LayersFrozen, ["fc"], ["stage2.0.conv", "fc"]))
    live.apply_preset(Preset.HEAD_ONLY)
    assert live.asked == [("unfreeze", ["head"]), ("freeze", ["backbone"])]


def test_the_last_stage_is_found_inside_a_container(qapp):
    tree = LayerTreeViewModel()
    tree.set_summary(_summary(NESTED))
    tree.apply_preset(Preset.LAST_STAGE)
    assert tree.frozen_layers == ["token", "features.0"]


def test_what_a_container_owns_itself_has_a_row_to_be_ticked_and_a_rate(live):
    live.set_summary(_summary(NESTED))
    token = _id(live, "token")
    assert (live.rows[token].type, live.rows[token].num_params, live.rates.text(token)) == ("Parameter", 7, "×1")
    live.freeze_rows([token])
    assert live.asked == [("freeze", ["token"])]
    live.mark_pending("c1", ["token"])
    assert live.is_pending(token)
    live.settle(_changed(LayersFrozen, [""], [""], command_id="c1"))
    assert live.frozen.state_of(token) is LayerState.FROZEN
    assert live.frozen.state_of(BACKBONE_ID) is LayerState.PARTLY
    assert live.explain(token) == "frozen since step 128, asked at 127"
    live.multiply_rows([token], "0.1")
    assert live.asked[1:] == [(0.1, ["token"])]
    live.settle_multiplier(_multiplied([""], 0.1))
    assert live.rates.by_name() == {"token": 0.1}


def test_a_layer_is_partly_frozen_when_its_bias_learns_alone_and_a_click_freezes_the_rest(live):
    live.settle(_changed(LayersFrozen, ["conv1.1.weight"], ["conv1.0", "conv1.1.weight"]))
    norm = _id(live, "conv1.1")
    assert live.frozen.state_of(norm) is LayerState.PARTLY
    assert live.explain(norm) == "weight frozen, bias trainable; its statistics go on until all of it is frozen"
    assert live.explain(_id(live, "conv1")) == "1 of 2 layers with parameters are frozen, 1 more in part"
    live.toggle([norm])
    assert live.asked == [("freeze", ["conv1.1"])]
    live.settle(_changed(LayersFrozen, ["conv1.1.bias"], ["conv1.0", "conv1.1"]))
    assert live.frozen.state_of(norm) is LayerState.FROZEN


def test_the_biases_alone_train_beside_the_head(tree):
    tree.apply_preset(Preset.BIASES)
    assert tree.frozen_layers == ["conv1.0", "conv1.1.weight", "stage1", "stage2", "conv5"]
    assert tree.preset is Preset.BIASES
    assert tree.num_trainable == 24 + 100
    tree.show_draft(tree.summary, tree.frozen_layers)
    assert (tree.preset, tree.num_trainable) == (Preset.BIASES, 124)
    tree.freeze_biases()
    assert tree.frozen_layers == ["backbone", "fc.bias"]
    tree.unfreeze_biases()
    assert tree.preset is Preset.BIASES


def test_a_preset_for_the_biases_is_offered_where_the_backbone_has_some(tree):
    assert tree.has_preset(Preset.BIASES)
    tree.set_summary(_summary([("", "Net", 0), ("conv", "Conv2d", 5), ("fc", "Linear", 30, "head")]))
    assert not tree.has_preset(Preset.BIASES)


def test_a_draft_takes_patterns_as_the_worker_does(tree):
    tree.show_draft(_summary(STAGED), ["*.bias", "stage?"])
    assert tree.frozen_layers == ["conv1.1.bias", "stage1", "stage2", "fc.bias"]


def test_freeze_up_to_here_and_unfreeze_from_here(tree):
    tree.apply_preset(Preset.EVERYTHING)
    tree.freeze_up_to(_id(tree, "stage1"))
    assert tree.frozen_layers == ["conv1", "stage1"]
    tree.unfreeze_from(_id(tree, "stage1"))
    assert tree.frozen_layers == ["conv1"]


def test_training_only_this_freezes_all_else(tree):
    tree.train_only([_id(tree, "stage2"), _id(tree, "conv1.1")])
    assert tree.frozen_layers == ["conv1.0", "stage1", "conv5", "head"]


def test_an_inversion_swaps_what_is_frozen_and_what_learns(tree):
    tree.invert()
    assert tree.frozen_layers == ["head"]
    tree.invert()
    assert tree.frozen_layers == ["backbone"]
    tree.apply_preset(Preset.EVERYTHING)
    tree.invert()
    assert tree.message == ALL_FROZEN
    assert tree.frozen_layers == []


def test_all_layers_of_a_type_are_frozen_and_unfrozen_together(tree):
    tree.unfreeze_type("Block")
    assert tree.frozen_layers == ["conv1", "conv5"]
    tree.apply_preset(Preset.EVERYTHING)
    tree.freeze_type("BatchNorm2d")
    assert tree.frozen_layers == ["conv1.1"]


def test_the_norm_layers_alone_train_beside_the_head(tree):
    tree.apply_preset(Preset.NORMS)
    assert tree.frozen_layers == ["conv1.0", "stage1", "stage2", "conv5"]
    assert tree.preset is Preset.NORMS
    assert tree.has_preset(Preset.NORMS)
    tree.set_summary(_summary(NESTED))
    assert not tree.has_preset(Preset.NORMS)
    tree.apply_preset(Preset.HEAD_ONLY)
    assert tree.preset is Preset.HEAD_ONLY


def test_a_frozen_layer_behind_one_that_learns_says_what_little_is_saved(tree, qtbot):
    view = LayerTreeView(tree)
    qtbot.addWidget(view)
    assert tree.explain(_id(tree, "stage2")) == "frozen"
    assert tree.frozen.num_behind_trainable == 0
    assert view.trainable_chip.toolTip() == "Parameters that the optimizer moves."
    tree.unfreeze_rows([_id(tree, "stage1")])
    assert tree.explain(_id(tree, "conv1")) == "frozen"
    behind = "frozen; a layer before it learns, so only its weights' gradient is saved"
    assert tree.explain(_id(tree, "stage2")) == behind
    assert tree.explain(_id(tree, "stage1")) == "trainable"
    assert tree.frozen.num_behind_trainable == 2
    assert "2 frozen layers have one before them that learns" in view.trainable_chip.toolTip()


def test_the_same_model_keeps_its_rows(tree, qtbot):
    with qtbot.assertNotEmitted(tree.rows_reset):
        tree.set_summary(_summary(STAGED, ["conv1.0"]))
    assert tree.frozen_layers == ["conv1.0"]


def test_a_configurations_names_are_taken_as_the_set_too(tree):
    tree.set_summary(_summary(STAGED).model_copy(update={"frozen": ["stage1", "conv1"]}))
    assert tree.frozen_layers == ["conv1", "stage1"]


def test_a_restore_brings_its_freeze_set(live):
    live.toggle([_id(live, "stage2")])
    live.restore(CheckpointRestored(name="c", step=45, epoch=1, frozen=["conv1.0"], num_trainable=3448, segment=1))
    assert live.frozen_layers == ["conv1.0"]
    assert live.num_trainable == 3448
    assert not live.is_pending(_id(live, "stage2"))


def test_the_item_model_keeps_qts_rules(tree):
    item_model = LayerTreeItemModel(tree)
    fatal = QAbstractItemModelTester.FailureReportingMode.Fatal
    first = QAbstractItemModelTester(item_model, fatal)
    filtered = LayerFilter(item_model)
    second = QAbstractItemModelTester(filtered, fatal)
    tree.toggle([_id(tree, "stage2")])
    filtered.set_text("conv")
    tree.set_summary(_summary(NESTED))
    filtered.set_text("")
    tree.set_summary(None)
    assert item_model.rowCount() == 0
    assert first.model() is item_model
    assert second.model() is filtered


def test_check_marks_follow_the_state(tree):
    item_model = LayerTreeItemModel(tree)
    role = Qt.ItemDataRole.CheckStateRole
    tree.unfreeze_rows([_id(tree, "stage2")])
    assert item_model.index_of(BACKBONE_ID).data(role) == Qt.CheckState.PartiallyChecked
    assert item_model.index_of(HEAD_ID).data(role) == Qt.CheckState.Unchecked
    assert item_model.index_of(_id(tree, "conv1")).data(role) == Qt.CheckState.Checked
    assert item_model.index_of(_id(tree, "maxpool")).data(role) is None
    assert item_model.setData(item_model.index_of(BACKBONE_ID), Qt.CheckState.Checked, role)
    assert tree.frozen_layers == ["backbone"]


def _multiplied(layers, multiplier, *, command_id=""):
    return RateMultiplierChanged(
        command_id=command_id, layers=layers, multiplier=multiplier, sentence="changed",
        multipliers=dict.fromkeys(layers, multiplier), requested_step=127, applied_step=128, source="user", segment=0,
    )  # fmt: skip


def test_before_a_run_a_typed_multiplier_is_taken_at_once(tree, qtbot):
    with qtbot.waitSignal(tree.multipliers_changed):
        tree.multiply_rows([_id(tree, "stage1"), _id(tree, "conv1")], "×0.38")
    assert tree.rates.by_name() == {"conv1": 0.38, "stage1": 0.38}
    texts = {row.fqn: tree.rates.text(row.id) for row in tree.rows.in_order()}
    assert (texts["stage1.0"], texts["stage2"], texts["backbone"]) == ("×0.38", "×1", "mixed")
    assert texts["maxpool"] == ""
    tree.multiply_rows([BACKBONE_ID], "1")
    assert tree.rates.by_name() == {}


@pytest.mark.parametrize(
    ("text", "multiplier"), [("0,5", 0.5), ("×0,001", 0.001), ("2,25", 2.25), ("1,000", 1000.0), ("0.5", 0.5)]
)
def test_a_comma_is_a_decimal_point_where_nothing_else_can_be_meant(tree, text, multiplier):
    tree.multiply_rows([_id(tree, "stage1")], text)
    assert tree.rates.by_name() == {"stage1": multiplier}


def test_a_comma_is_a_decimal_point_where_the_locale_writes_so(tree):
    QLocale.setDefault(QLocale(QLocale.Language.German))
    for text, multiplier in (("0,5", 0.5), ("2,500", 2.5), ("0.001", 0.001)):
        tree.multiply_rows([_id(tree, "stage1")], text)
        assert tree.rates.by_name() == {"stage1": multiplier}


@pytest.mark.parametrize("text", ["", "0", "-1", "1001", "fast", "nan", "1,5,2"])
def test_what_is_no_multiplier_is_refused_with_what_to_type(tree, text):
    tree.multiply_rows([_id(tree, "stage1")], text)
    assert "Type a number above 0, up to 1,000" in tree.message
    assert tree.rates.by_name() == {}


def test_during_a_run_a_multiplier_is_asked_for_and_the_old_one_shown_until_it_is_applied(live):
    stage2 = _id(live, "stage2")
    live.multiply_rows([stage2], "0.1")
    assert live.asked == [(0.1, ["stage2"])]
    live.mark_multiplying("c1", ["stage2"])
    assert (live.rates.text(stage2), live.rates.is_pending(stage2)) == ("×1", True)
    assert not live.rates.is_pending(_id(live, "stage1"))
    live.settle_multiplier(_multiplied(["stage2.0.conv"], 0.1, command_id="c1"))
    assert (live.rates.text(stage2), live.rates.is_pending(stage2)) == ("×0.1", False)
    live.multiply_rows([stage2], "0.1")
    assert len(live.asked) == 1
    live.multiply_rows([stage2], "0.5")
    live.mark_multiplying("c2", ["stage2"])
    live.multiply_rows([stage2], "0.1")
    assert live.asked[1:] == [(0.5, ["stage2"]), (0.1, ["stage2"])]
    live.reject("c2", "No.")
    assert (live.rates.text(stage2), live.rates.is_pending(stage2), live.message) == ("×0.1", False, "No.")


def test_a_draft_and_a_restore_bring_their_multipliers(live):
    live.show_draft(_summary(STAGED), [], {"backbone": 0.5, "conv5": 2.0})
    assert live.rates.text(_id(live, "conv5")) == "×2"
    assert live.rates.text(_id(live, "stage1")) == "×0.5"
    restored = CheckpointRestored(name="c", step=45, epoch=1, frozen=[], num_trainable=4048, segment=1)
    live.restore(restored.model_copy(update={"multipliers": {"fc": 3.0}}))
    assert live.rates.by_name() == {"head": 3.0}


STATS = LayerStatsReported(
    step=200, segment=0, layers=["stage1.0.conv", "stage2.0.conv", "fc"], gradient_norms=[3.0, 4.0, 0.5],
    update_norms=[0.003, 0.004, 1.0], weight_norms=[3.0, 4.0, 1.0],
)  # fmt: skip


def test_a_rows_gradient_and_update_come_from_the_layers_below_it_that_learned(live):
    live.settle(_changed(LayersUnfrozen, ["stage1.0.conv", "stage2.0.conv"], ["conv1.0", "conv1.1", "conv5.0"]))
    live.show_stats(STATS)
    assert live.stats.of(_id(live, "stage1")).update_ratio == pytest.approx(1e-3)
    assert live.stats.of(BACKBONE_ID).gradient_norm == pytest.approx(5.0)
    assert live.stats.of(BACKBONE_ID).update_ratio == pytest.approx(1e-3)
    assert live.stats.of(_id(live, "conv1")) is None
    item_model = LayerTreeItemModel(live)
    assert item_model.cells(BACKBONE_ID, [Column.UPDATE])[0].bar == pytest.approx(0.6)
    assert item_model.cells(HEAD_ID, [Column.UPDATE])[0].bar == 1.0
    assert item_model.cells(_id(live, "conv1"), [Column.UPDATE])[0].bar is None
    assert item_model.index_of(BACKBONE_ID, Column.GRADIENT).data() == "5"
    spoken = item_model.index_of(BACKBONE_ID, Column.UPDATE).data(Qt.ItemDataRole.AccessibleTextRole)
    assert spoken == "gradient norm 5, weights changed by 0.001 of their norm, in update 200"
    live.settle(_changed(LayersFrozen, ["stage2.0.conv"], BACKBONE_UNITS[:2] + BACKBONE_UNITS[3:]))
    assert live.stats.of(_id(live, "stage2")) is None
    assert live.stats.of(BACKBONE_ID).gradient_norm == pytest.approx(3.0)
    live.restore(CheckpointRestored(name="c", step=45, epoch=1, frozen=[], num_trainable=4048, segment=1))
    assert live.stats.of(BACKBONE_ID) is None


def test_a_frozen_row_says_that_it_did_not_drift_once_that_was_proven(live):
    conv1 = _id(live, "conv1")
    item_model = LayerTreeItemModel(live)
    index = item_model.index_of(conv1, Column.UPDATE)
    assert index.data() == ""
    live.verify(FreezeVerified(step=10, num_verified=5, drifted=[]))
    assert index.data() == "0 drift"
    assert live.frozen.drift_text(HEAD_ID) == ""
    live.verify(FreezeVerified(step=20, num_verified=5, drifted=["conv1.0"]))
    assert (index.data(), item_model.cells(conv1, [Column.UPDATE])[0].has_drifted) == ("drifted", True)
    assert live.frozen.drift_text(_id(live, "stage1")) == "0 drift"


def test_what_was_measured_and_proven_in_a_run_goes_with_it(live, qtbot):
    live.verify(FreezeVerified(step=10, num_verified=5, drifted=[]))
    live.show_stats(STATS)
    with qtbot.waitSignal(live.measures_changed):
        live.leave_run()
    assert not any(live.frozen.drift_text(row.id) or live.stats.of(row.id) for row in live.rows.in_order())


def test_statistics_that_adapt_are_asked_for_and_told(live):
    conv1, conv = _id(live, "conv1"), _id(live, "conv1.0")
    asked = []
    live.batchnorm_requested.connect(lambda layers, is_adapting: asked.append((layers, is_adapting)))
    assert (live.frozen.has_statistics(conv1), live.frozen.has_statistics(conv)) == (True, False)
    live.set_adapting([conv1, conv], True)
    assert asked == [(["conv1.1"], True)]
    live.mark_pending("c1", ["conv1.1"])
    assert live.is_pending(_id(live, "conv1.1"))
    live.settle_batchnorm(
        BatchNormChanged(
            command_id="c1", layers=["conv1.1"], is_adapting=True, sentence="changed", adapting=["conv1.1"],
            requested_step=7, applied_step=8, source="user", segment=0,
        )
    )  # fmt: skip
    assert live.frozen.is_adapting(conv1)
    assert not live.is_pending(_id(live, "conv1.1"))
    assert live.explain(conv1) == "weights frozen, statistics adapting"
    live.verify(FreezeVerified(step=10, num_verified=5, drifted=[], num_adapting=1))
    assert (live.frozen.drift_text(conv1), live.frozen.drift_text(conv)) == ("adapting", "0 drift")
    live.settle(_changed(LayersUnfrozen, ["conv1.0", "conv1.1"], BACKBONE_UNITS[2:]))
    assert live.explain(conv1) == "trainable since step 128, asked at 127"
    live.is_live, live.is_closed = False, True
    live.set_adapting([conv1], False)
    assert live.message == "The run is not training. Resume it to change what statistics do, or begin a new run."
    assert len(asked) == 1
    assert live.frozen.is_adapting(conv1)


def test_before_a_run_it_is_chosen_whose_statistics_adapt(tree, qtbot):
    conv1 = _id(tree, "conv1")
    with qtbot.waitSignal(tree.adapting_layers_changed):
        tree.set_adapting([conv1, _id(tree, "stage1")], True)
    # Of all that the backbone has of statistics.
    assert tree.adapting_layers == ["backbone"]
    assert (tree.explain(conv1), tree.frozen.drift_text(conv1)) == ("weights frozen, statistics adapting", "adapting")
    with qtbot.waitSignal(tree.adapting_layers_changed):
        tree.set_adapting([conv1], False)
    assert tree.adapting_layers == []
    assert tree.explain(conv1) == "frozen"


def test_a_draft_shows_whose_statistics_a_configuration_lets_adapt(tree):
    summary = tree.summary
    tree.show_draft(summary, ["backbone"], adapting=["*.1", "stage1"])
    assert tree.adapting_layers == ["backbone"]
    assert tree.frozen.is_adapting(_id(tree, "conv1.1"))
    assert tree.are_adapting(["conv1"])
    tree.show_draft(summary, ["backbone"])
    assert not tree.frozen.is_adapting(_id(tree, "conv1.1"))


def _shown(model, parent=None):
    parent = model.index(-1, -1) if parent is None else parent
    names = []
    for row in range(model.rowCount(parent)):
        index = model.index(row, 0, parent)
        names += [index.data(), *_shown(model, index)]
    return names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stage1", ["backbone", "stage1", "0", "conv", "relu"]),
        ("batchnorm", ["backbone", "conv1", "1"]),
        ("trainable", ["backbone", "stage2", "0", "conv", "head · fc"]),
        ("trainable linear", ["head · fc"]),
        ("nothing like it", []),
    ],
)
def test_the_filter_finds_by_name_type_and_state(tree, text, expected):
    tree.unfreeze_rows([_id(tree, "stage2")])
    filtered = LayerFilter(LayerTreeItemModel(tree))
    filtered.set_text(text)
    assert _shown(filtered) == expected


# -- the view ---------------------------------------------------------------------------------------------------


@pytest.fixture
def view(tree, qtbot):
    shown = LayerTreeView(tree)
    qtbot.addWidget(shown)
    shown.resize(400, 600)
    shown.show()
    return shown


@pytest.mark.window
def test_many_rows_are_toggled_from_the_keyboard_alone(view, tree):
    view.tree.setFocus()
    view.select([_id(tree, "stage2")])
    QTest.keyClick(view.tree, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    QTest.keyClick(view.tree, Qt.Key.Key_Space)
    assert tree.frozen_layers == ["conv1", "stage1"]
    QTest.keyClick(view.tree, Qt.Key.Key_Space)
    assert tree.frozen_layers == ["backbone"]


@pytest.mark.window
def test_a_multiplier_is_typed_for_all_that_is_selected_from_the_keyboard_alone(view, tree, qtbot):
    view.tree.setFocus()
    view.select([_id(tree, "stage1"), _id(tree, "stage2")])
    QTest.keyClick(view.tree, Qt.Key.Key_F2)
    editor = view.tree.findChild(QLineEdit)
    assert editor.text() == "1"
    QTest.keyClicks(editor, "0.25")
    QTest.keyClick(editor, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: tree.rates.by_name() == {"stage1": 0.25, "stage2": 0.25})
    cell = view.filter.mapFromSource(view.item_model.index_of(_id(tree, "stage1"), Column.MULTIPLIER))
    assert cell.data() == "×0.25"
    assert cell.data(Qt.ItemDataRole.AccessibleTextRole) == "learns at 0.25 times the run's rate"


@pytest.mark.window
def test_a_click_on_the_check_box_toggles_its_row_only(view, tree):
    view.tree.selectionModel().select(
        view.filter.index(1, 0), QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
    )
    cell = view.tree.visualRect(view.filter.mapFromSource(view.item_model.index_of(_id(tree, "conv5"))))
    place = check_box_rect(cell).center().toPoint()
    QTest.mouseClick(view.tree.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert tree.frozen_layers == ["conv1", "stage1", "stage2"]
    QTest.mouseClick(view.tree.viewport(), Qt.MouseButton.LeftButton, pos=place + QPoint(60, 0))
    assert tree.frozen_layers == ["conv1", "stage1", "stage2"]


@pytest.mark.window
def test_the_biases_are_steered_from_the_menus_which_say_what_becomes_of_statistics(view, tree):
    presets = {action.text(): action for action in view.preset_button.menu().actions()}
    presets["Biases only (BitFit)"].trigger()
    assert tree.preset is Preset.BIASES
    assert view.preset_button.text() == "Biases only (BitFit)"
    assert "statistics of norm layers go on" in presets["Biases only (BitFit)"].toolTip()
    menu = {action.text(): action for action in view.make_menu().actions()}
    menu["Freeze all biases"].trigger()
    assert tree.frozen_layers == ["backbone", "fc.bias"]
    menu["Unfreeze all biases"].trigger()
    assert tree.preset is Preset.BIASES


@pytest.mark.window
def test_the_footer_tells_counts_drift_and_step_time(view, tree):
    assert view.trainable_chip.text().endswith("trainable")
    assert view.drift_chip.isHidden()
    tree.verify(FreezeVerified(step=10, num_verified=5, drifted=[]))
    assert view.drift_chip.text() == "0 drift"
    tree.verify(FreezeVerified(step=20, num_verified=5, drifted=["conv1.0"]))
    assert view.drift_chip.property("tone") == "danger"
    tree.is_live = True
    tree.set_step_ms(14.2)
    assert view.step_label.text() == "Step 14 ms"


@pytest.mark.window
def test_a_refusal_stands_under_the_tree(view, tree):
    tree.freeze_rows([HEAD_ID])
    assert view.message.isVisible()
    assert view.message.text() == ALL_FROZEN
    tree.toggle([_id(tree, "conv5")])
    assert not view.message.isVisible()


@pytest.mark.window
def test_the_menu_acts_on_the_selection(view, tree, qtbot):
    view.select([_id(tree, "conv1.1")])
    actions = {action.text(): action for action in view.make_menu().actions()}
    actions["Unfreeze all BatchNorm2d"].trigger()
    assert tree.frozen_layers == ["conv1.0", "stage1", "stage2", "conv5"]
    actions["Train only this"].trigger()
    assert tree.frozen_layers == ["conv1.0", "stage1", "stage2", "conv5", "head"]
    actions["Invert"].trigger()
    assert tree.frozen_layers == ["conv1.1"]
    tree.apply_preset(Preset.HEAD_ONLY)
    view.select([_id(tree, "stage1")])
    actions = {action.text(): action for action in view.make_menu().actions()}
    actions["Unfreeze from here"].trigger()
    assert tree.frozen_layers == ["conv1"]
    actions["Freeze up to here"].trigger()
    assert tree.frozen_layers == ["conv1", "stage1"]
    assert not actions["Statistics adapt while frozen"].isEnabled(), "stage1 has none"
    view.select([_id(tree, "conv1")])
    actions = {action.text(): action for action in view.make_menu().actions()}
    actions["Statistics adapt while frozen"].trigger()
    assert tree.adapting_layers == ["backbone"]
    tree.set_adapting([_id(tree, "conv1")], False)
    tree.is_live = True
    view.select([_id(tree, "conv1"), _id(tree, "stage1")])
    actions = {action.text(): action for action in view.make_menu().actions()}
    with qtbot.waitSignal(tree.batchnorm_requested) as asked:
        actions["Statistics adapt while frozen"].trigger()
    assert asked.args == [["conv1.1"], True]


@pytest.mark.window
def test_the_tree_opens_to_a_depth(view, tree):
    def expanded():
        rows = [row for row in tree.rows.in_order() if row.id and row.children]
        return {row.fqn for row in rows if view.tree.isExpanded(view._shown(row.id))}

    (depths,) = [action.menu() for action in view.make_menu().actions() if action.text() == "Expand to depth"]
    depths.actions()[1].trigger()
    assert expanded() == {"backbone", "conv1", "stage1", "stage2", "conv5"}
    depths.actions()[0].trigger()
    assert expanded() == {"backbone"}


def _columns(view):
    return {column.name for column in Column if not view.tree.isColumnHidden(column)}


@pytest.mark.window
def test_columns_are_shown_where_there_is_room_unless_they_were_chosen(view, tree, qtbot):
    view.resize(280, 600)
    qtbot.waitUntil(lambda: _columns(view) == {"LAYER", "PARAMS", "STATE"})
    view.resize(900, 600)
    qtbot.waitUntil(lambda: _columns(view) == {column.name for column in Column})
    actions = {action.text(): action for action in view.make_column_menu(view).actions()}
    actions["Gradient"].trigger()
    assert tree.columns == {"gradient": False}
    view.resize(280, 600)
    qtbot.waitUntil(lambda: "TYPE" not in _columns(view))
    actions["Rate"].trigger()
    actions["Type"].trigger()
    actions["Type"].trigger()
    assert "TYPE" in _columns(view)
    view.resize(900, 600)
    qtbot.waitUntil(lambda: "SHAPE" in _columns(view))
    assert "GRADIENT" not in _columns(view)
    actions["By the room there is"].trigger()
    assert (tree.columns, _columns(view)) == ({}, {column.name for column in Column})


def test_every_cell_says_what_it_holds(tree):
    item_model = LayerTreeItemModel(tree)
    tree.rows[_id(tree, "stage1")].output_shape = [64, 56, 56]
    for row in tree.rows.in_order():
        for column in Column:
            spoken = item_model.index_of(row.id, column).data(Qt.ItemDataRole.AccessibleTextRole)
            assert spoken or not row.id, (row.fqn, column)
    shape = item_model.index_of(_id(tree, "stage1"), Column.SHAPE)
    assert (shape.data(), shape.data(Qt.ItemDataRole.AccessibleTextRole)) == ("64 × 56 × 56", "output 64 by 56 by 56")


@pytest.mark.window
def test_a_change_in_the_worker_repaints_the_rows(view, tree, qtbot):
    QApplication.processEvents()
    before = view.tree.viewport().grab().toImage()
    tree.settle(_changed(LayersUnfrozen, ["conv5.0"], BACKBONE_UNITS[:4]))
    qtbot.waitUntil(lambda: view.tree.viewport().grab().toImage() != before)
    updated = []
    view.tree.viewport().update = lambda: updated.append(True)
    tree.settle(_changed(LayersFrozen, ["conv5.0"], BACKBONE_UNITS))
    assert updated


@pytest.mark.window
def test_the_row_under_the_mouse_is_marked_also_after_scrolling(view, tree, qtbot):
    rows = view.tree
    view.resize(500, 300)
    rows.expandAll()
    rows.clearSelection()

    def marked():
        image = rows.viewport().grab().toImage()
        x, colors = image.width() - 2, {}
        for row in tree.rows.in_order():
            place = rows.visualRect(view._shown(row.id)).center()
            if row.id and rows.viewport().rect().contains(place):
                colors[row.id] = image.pixelColor(x, place.y()).name()
        return [row_id for row_id, color in colors.items() if color == rows.colors.background.lower()]

    place = rows.visualRect(view._shown(_id(tree, "maxpool"))).center()
    QTest.mouseMove(rows.viewport(), place + QPoint(5, 0))
    QTest.mouseMove(rows.viewport(), place)
    qtbot.waitUntil(lambda: marked() == [_id(tree, "maxpool")])
    rows.verticalScrollBar().setValue(rows.verticalScrollBar().value() + 2 * rows.visualRect(view._shown(1)).height())
    below = tree.rows[int(rows.indexAt(place).data(ROW_ID_ROLE))].id
    assert below != _id(tree, "maxpool")
    qtbot.waitUntil(lambda: marked() == [below])
    QApplication.sendEvent(rows, QEvent(QEvent.Type.Leave))
    qtbot.waitUntil(lambda: marked() == [])


@pytest.mark.window
def test_an_empty_tree_says_what_fills_it(qtbot):
    shown = LayerTreeView(LayerTreeViewModel())
    qtbot.addWidget(shown)
    assert shown._stack.currentIndex() == 0
    assert not shown.preset_button.isEnabled()


@pytest.mark.window
def test_the_tree_follows_the_theme(view, qapp):
    before = view.grab().toImage()
    style_sheet, palette, style, font = qapp.styleSheet(), qapp.palette(), qapp.style().name(), qapp.font()
    try:
        theme.apply(qapp, "dark")
        QApplication.processEvents()
        assert view._delegate.colors == theme.DARK
        assert view.grab().toImage() != before
    finally:
        qapp.setStyleSheet(style_sheet)
        qapp.setStyle(style)
        qapp.setPalette(palette)
        qapp.setFont(font)


@pytest.mark.window
def test_a_thousand_rows_are_all_shown(qtbot):
    entries = [("", "Net", 0)]
    for stage in range(10):
        entries.append((f"stage{stage}", "Sequential", 0))
        for block in range(10):
            entries.append((f"stage{stage}.{block}", "Block", 0))
            entries += [(f"stage{stage}.{block}.conv{conv}", "Conv2d", 9) for conv in range(9)]
    summary = _summary([*entries, ("fc", "Linear", 5, "head")])
    tree = LayerTreeViewModel()
    shown = LayerTreeView(tree)
    qtbot.addWidget(shown)
    shown.resize(400, 600)
    shown.show()
    tree.set_summary(summary)
    shown.tree.expandAll()
    assert len(tree.rows) > 1000
    assert shown.filter.index(0, Column.PARAMS).data()


def _with_costs(summary):
    """Give each unit as many multiply-adds as it has parameters, and what is above it their sum."""
    layers = [layer.model_copy(update={"mult_adds": layer.num_params}) for layer in summary.layers]
    return summary.model_copy(update={"layers": layers})


def test_a_steps_cost_counts_the_way_back_to_the_first_layer_that_learns(qapp) -> None:
    entries = [("", "Net", 0), ("a", "Conv2d", 10), ("b", "Linear", 20), ("c", "Conv2d", 5, "head")]
    summary = _with_costs(_summary(entries))
    cost = StepCost(LayerRows(summary), summary)
    # Forward 35; back through b and c where a learns, through c where b does; the weights of what learns.
    assert cost.of({"a.weight", "b.weight", "b.bias"}) == 35 + 5
    assert cost.of({"a.weight"}) == 35 + 5 + 25
    assert cost.of({"b.weight", "b.bias"}) == 35 + 25 + 15
    # The weight's gradient is saved where the bias alone learns, and not the way back to it.
    assert cost.of({"a.weight", "b.weight"}) == 35 + 5 + 5
    assert cost.of(set()) == 35 + 25 + 35
    assert StepCost(LayerRows(_summary(entries)), _summary(entries)).of(set()) == 0


def test_the_footer_tells_what_a_change_would_save_and_then_what_it_did(qtbot, qapp) -> None:
    entries = [("", "Net", 0), ("a", "Conv2d", 10), ("b", "Conv2d", 20), ("c", "Linear", 5, "head")]
    tree = LayerTreeViewModel()
    tree.set_summary(_with_costs(_summary(entries, ["a", "b"])))
    view = LayerTreeView(tree)
    qtbot.addWidget(view)
    view.resize(700, 400)
    view.show()
    assert view.step_label.isHidden()
    tree.is_live = True
    tree.set_step_ms(40.0)
    view.select([_id(tree, "b")])
    assert view.step_label.whole_text == "Step 40 ms · b unfrozen: about 65 ms"
    view.select([HEAD_ID])
    # All would be frozen then, which is refused.
    assert view.step_label.whole_text == "Step 40 ms"
    tree.settle(_changed(LayersUnfrozen, ["b"], ["a"]))
    assert view.step_label.whole_text == "Step not measured yet, 65 ms predicted"
    tree.set_step_ms(61.0)
    view.select([_id(tree, "b")])
    assert view.step_label.whole_text == "Step 61 ms, 65 ms predicted · b frozen: about 38 ms"
    tree.forget_step_ms()
    assert view.step_label.whole_text == "Step not measured yet"
    tree.is_live = False
    assert view.step_label.isHidden()


@pytest.mark.window
def test_two_quick_clicks_on_a_check_box_are_two_clicks(view, tree) -> None:
    row = _id(tree, "stage2")
    index = view.filter.mapFromSource(view.item_model.index_of(row))
    view.tree.scrollTo(index)
    place = check_box_rect(view.tree.visualRect(index)).center().toPoint()
    is_expanded, before = view.tree.isExpanded(index), tree.frozen_layers
    seen = []
    tree.frozen_layers_changed.connect(lambda: seen.append(tree.frozen_layers))
    QTest.mouseClick(view.tree.viewport(), Qt.MouseButton.LeftButton, pos=place)
    QTest.mouseDClick(view.tree.viewport(), Qt.MouseButton.LeftButton, pos=place)
    QTest.mouseRelease(view.tree.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert len(seen) == 2
    assert (tree.frozen_layers, view.tree.isExpanded(index)) == (before, is_expanded)


@pytest.mark.window
def test_the_menu_offers_to_freeze_only_what_learns_and_to_unfreeze_only_what_is_frozen(view, tree):
    tree.unfreeze_rows([_id(tree, "conv1")])
    for names, offered in (
        (["conv1"], (True, False)),
        (["stage1"], (False, True)),
        (["conv1", "stage1"], (True, True)),
    ):
        view.select([_id(tree, name) for name in names])
        actions = {action.text(): action for action in view.make_menu().actions()}
        assert (actions["Freeze"].isEnabled(), actions["Unfreeze"].isEnabled()) == offered
