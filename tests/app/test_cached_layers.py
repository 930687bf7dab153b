"""The line in the tree above which features are computed once: where it stands, what it says, and what ends it."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QEvent, QPoint
from PySide6.QtGui import QColor, QHelpEvent
from PySide6.QtWidgets import QApplication, QToolTip

from app import theme
from app.viewmodels.cached_layers import CachedLayers
from app.viewmodels.layer_rows import BACKBONE_ID, HEAD_ID, LayerRows
from app.viewmodels.layer_tree import LayerTreeViewModel
from app.views.layer_tree import LayerTreeView
from trainer.config import DataConfig, RunConfig, TrainingConfig
from trainer.messages.changes import BatchNormChanged, LayersUnfrozen
from trainer.messages.events import FeaturesCached, ProgressReported
from trainer.messages.model_info import FrozenFeatures, LayerInfo, ModelSummary

# Only the offscreen platform says so, of every window and of a tip.
pytestmark = pytest.mark.qt_log_ignore("This plugin does not support")

UNITS = ["conv1", "stage1.0.conv", "stage1.0.norm", "stage2.0.conv"]
LAYERS = [
    ("", "Net", 0),
    ("conv1", "Conv2d", 10),
    ("relu", "ReLU", 0),
    ("stage1", "Sequential", 0),
    ("stage1.0", "Block", 0),
    ("stage1.0.conv", "Conv2d", 20),
    ("stage1.0.norm", "BatchNorm2d", 4),
    ("stage1.0.relu", "ReLU", 0),
    ("stage2", "Sequential", 0),
    ("stage2.0", "Block", 0),
    ("stage2.0.conv", "Conv2d", 30),
    ("pool", "AvgPool2d", 0),
    ("classifier", "Sequential", 0),
    ("classifier.0", "Dropout", 0),
    ("classifier.1", "Linear", 5),
]


def summary(**more: object) -> ModelSummary:
    """Return a model of two stages, whose head stands behind a dropout in a container of the backbone."""
    layers = [
        LayerInfo(
            fqn=fqn,
            type=kind,
            num_params=sum(n for name, _, n in LAYERS if not fqn or name == fqn or name.startswith(f"{fqn}.")),
            is_unit=own > 0,
            own_params={"weight": own} if own else {},
            is_head=fqn == "classifier.1",
            has_statistics=kind == "BatchNorm2d",
            mult_adds=10 if own else 0,
        )
        for fqn, kind, own in LAYERS
    ]
    return ModelSummary(model="net", layers=layers, frozen=UNITS, num_params=69, num_trainable=5, **more)


def cached(layers: list[str], sentence: str = "backbone", **more: object) -> FeaturesCached:
    values = {
        "views": 1,
        "fixed_views": 1,
        "saved_share": 0.99994,
        "num_bytes": 8_000_000,
        "is_in_memory": True,
        "is_on_disk": True,
        "reason": "",
        "applied_step": 0,
        "segment": 0,
    }
    return FeaturesCached(layers=layers, sentence=sentence, **{**values, **more})


def progress(epoch: int, share: float | None, step_ms: float) -> ProgressReported:
    return ProgressReported(
        epoch=epoch,
        num_epochs=9,
        step=1,
        total_steps=90,
        samples_per_s=1.0,
        seconds_left=None,
        step_ms=step_ms,
        worker_bytes=0,
        cached_share=share,
    )


@pytest.fixture
def tree(qapp: QApplication) -> LayerTreeViewModel:
    made = LayerTreeViewModel()
    made.set_summary(summary())
    return made


@pytest.fixture
def view(qtbot, themed: QApplication, tree: LayerTreeViewModel) -> LayerTreeView:
    made = LayerTreeView(tree)
    qtbot.addWidget(made)
    made.resize(420, 600)
    made.show()
    return made


def row_id(tree: LayerTreeViewModel, fqn: str) -> int:
    return next(row.id for row in tree.rows.in_order() if row.fqn == fqn)


def shown(view: LayerTreeView) -> tuple[str, str] | None:
    """Return the row above the line, and the words on it; None without a line."""
    line = view.tree._cached_line
    row = line._row_above()
    return None if row is None else (row.data(), line._words(row, 0)[0])


def places(view: LayerTreeView, tree: LayerTreeViewModel) -> list[tuple[int, int]]:
    rects = (view.tree.visualRect(view._shown(row.id)) for row in tree.rows.in_order())
    return [(rect.top(), rect.height()) for rect in rects]


# -- where it stands ----------------------------------------------------------------------------------------


@pytest.mark.window
def test_the_line_stands_below_the_last_cached_row_in_sight_and_moves_no_row(view, tree) -> None:
    assert shown(view) is None
    before = places(view, tree)
    tree.show_cached(cached(UNITS))
    # The dropout that follows is not above it: it stands in a container with the head, which learns.
    assert shown(view) == ("pool", "cached above")
    assert places(view, tree) == before
    tree.show_cached(cached(UNITS[:3], "conv1 … stage1"))
    assert shown(view) == ("stage1", "cached above")
    view.tree.expandAll()
    assert shown(view) == ("relu", "cached above")
    view.tree.collapse(view._shown(BACKBONE_ID))
    assert shown(view) == ("backbone", "cached in part")


@pytest.mark.window
def test_a_collapsed_row_that_is_cached_in_part_says_so(view, tree) -> None:
    tree.show_cached(cached(UNITS[:2], "conv1 … stage1.0.conv"))
    assert shown(view) == ("stage1", "cached in part")
    view.tree.expandAll()
    assert shown(view) == ("conv", "cached above")


@pytest.mark.window
def test_a_filter_leaves_the_line_below_the_last_cached_row_that_it_shows(view, tree) -> None:
    tree.show_cached(cached(UNITS[:3], "conv1 … stage1"))
    view.filter_box.setText("conv2d")
    assert shown(view) == ("conv", "cached above")
    rows = [view.tree.visualRect(view._shown(row_id(tree, fqn))).top() for fqn in ("stage1.0.conv", "stage2.0.conv")]
    assert rows[0] < rows[1]


def test_a_dropout_is_above_the_line_only_where_the_layers_around_it_are_frozen_with_it(qapp) -> None:
    def last_above(units: list[str]) -> str:
        entries = [("", 0), ("a", 0), ("a.0", 10), ("a.1", 0), ("a.2", 0), ("a.3", 10), ("a.4", 0), ("head", 5)]
        kinds = {"a.1": "ReLU", "a.2": "Dropout", "a.4": "Dropout"}
        layers = [
            LayerInfo(
                fqn=fqn,
                type=kinds.get(fqn, "Linear" if own else "Sequential"),
                num_params=sum(n for name, n in entries if not fqn or f"{name}.".startswith(f"{fqn}.")),
                is_unit=own > 0,
                own_params={"weight": own} if own else {},
                is_head=fqn == "head",
            )
            for fqn, own in entries
        ]
        rows = LayerRows(ModelSummary(model="net", layers=layers, frozen=units, num_params=25, num_trainable=5))
        layers_above = CachedLayers(rows)
        layers_above.take(cached(units))
        return [row.fqn for row in rows.in_order() if layers_above.is_above(row.id)][-1]

    assert last_above(["a.0"]) == "a.1"
    assert last_above(["a.0", "a.3"]) == "a.4"


def test_what_is_not_cached_above_the_line_is_named(qapp) -> None:
    layers = CachedLayers(LayerRows(summary()))
    layers.take(cached(["conv1", "stage1.0.norm", "stage2.0.conv"]))
    last = next(row.id for row in LayerRows(summary()).in_order() if row.fqn == "stage2.0.conv")
    assert layers.label(last) == "cached above, but not stage1.0.conv"
    assert layers.explanation().endswith("\nNot cached: stage1.0.conv.")


@pytest.mark.window
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_line_is_painted_in_the_cool_colour_between_the_rows(view, tree, qapp, scheme: theme.Scheme) -> None:
    theme.apply(qapp, scheme)
    colors = theme.palette_of(view)

    def ink() -> QColor:
        y = view.tree.visualRect(view._shown(row_id(tree, "stage1"))).bottom() + 1
        picture = view.tree.viewport().grab().toImage()
        ratio = picture.devicePixelRatio()
        return picture.pixelColor(round(4 * ratio), round(y * ratio))

    assert ink() == QColor(colors.panel)
    tree.show_cached(cached(UNITS[:3], "conv1 … stage1"))
    assert ink() == QColor(colors.frozen)


# -- what ends it -------------------------------------------------------------------------------------------


@pytest.mark.window
def test_a_layer_that_is_unfrozen_or_adapts_above_the_line_ends_it_at_once(view, tree) -> None:
    tree.is_live = True
    tree.show_cached(cached(UNITS))
    tree.settle(
        LayersUnfrozen(
            layers=["stage2.0.conv"], frozen=UNITS[:3], num_trainable=35, sentence="", source="user",
            requested_step=1, applied_step=2, segment=0,
        )
    )  # fmt: skip
    assert shown(view) is None
    assert view.tree.accessibleDescription() == ""
    # What the worker caches then is above it again.
    tree.show_cached(cached(UNITS[:3], "conv1 … stage1"))
    assert shown(view) == ("stage1", "cached above")
    tree.settle_batchnorm(
        BatchNormChanged(
            layers=["stage1.0.norm"], adapting=["stage1.0.norm"], is_adapting=True, sentence="", source="user",
            requested_step=3, applied_step=4, segment=0,
        )
    )  # fmt: skip
    assert shown(view) is None


# -- what it says -------------------------------------------------------------------------------------------


@pytest.mark.window
def test_the_line_tells_the_mouse_and_the_screen_reader_what_is_cached(view, tree, qtbot, qapp) -> None:
    tree.show_cached(cached(UNITS, views=4))
    said = (
        "The features of backbone are computed once for each of 4 views of an image and read.\n"
        "They take 8.0 MB in memory and on disk, and save 99.9 % of the forward computing."
    )
    assert view.tree.accessibleDescription() == said
    y = view.tree.visualRect(view._shown(HEAD_ID)).top()
    row_bottom = view.tree.visualRect(view._shown(row_id(tree, "pool"))).bottom() + 1
    assert row_bottom < y, "the dropout's row is between"
    place = QPoint(30, row_bottom + 1)
    viewport = view.tree.viewport()
    qapp.sendEvent(viewport, QHelpEvent(QEvent.Type.ToolTip, place, viewport.mapToGlobal(place)))
    qtbot.waitUntil(lambda: QToolTip.text() == said)
    QToolTip.hideText()
    assert view.tree._cached_line.tip_at(QPoint(30, 20)) == ""
    assert tree.explain(row_id(tree, "stage1")) == "frozen; its features are cached"
    assert tree.explain(HEAD_ID) == "trainable"


@pytest.mark.window
def test_what_only_validation_has_cached_is_called_so_with_the_reason(view, tree) -> None:
    reason = "Each epoch has a new view of each training image, so that only validation's features are kept."
    tree.show_cached(cached(UNITS, views=0, is_on_disk=False, reason=reason))
    assert shown(view) == ("pool", "validation cached above")
    assert view.tree.accessibleDescription().splitlines() == [
        "The features of backbone are, for validation only, computed once and then read.",
        "They take 8.0 MB in memory.",
        reason,
    ]


@pytest.mark.window
def test_a_run_that_caches_nothing_says_why_below_the_tree(view, tree) -> None:
    reason = "No features can be cached: 'conv1' is trainable. Only what is frozen from the beginning on can be."
    tree.show_cached(cached([], "", views=0, num_bytes=0, saved_share=0.0, reason=reason))
    assert shown(view) is None
    assert view.trainable_chip.toolTip().endswith(reason)
    assert view.tree.accessibleDescription() == reason


@pytest.mark.window
def test_a_draft_shows_what_could_be_cached_dimmed(view, tree) -> None:
    features = FrozenFeatures(layers="backbone", units=UNITS, bytes_32=2048, bytes_16=1024, saved_share=0.9)
    tree.set_summary(summary(features=features))
    assert shown(view) == ("pool", "can be cached above")
    assert view.tree.accessibleDescription() == (
        "The features of backbone can be computed once an image and then be read, which saves 90.0 % of the forward "
        "computing. Those of an image take 2.0 kB, or 1.0 kB in 16 bits."
    )
    colors = theme.palette_of(view)
    y = view.tree.visualRect(view._shown(row_id(tree, "pool"))).bottom() + 1
    picture = view.tree.viewport().grab().toImage()
    line = {picture.pixelColor(x, y).name() for x in range(40)}
    assert line == {QColor(colors.dim).name(), QColor(colors.panel).name()}
    # Of other ticks nothing is known until the worker has been asked.
    tree.unfreeze_rows([row_id(tree, "conv1")])
    assert shown(view) is None
    tree.offer_features(FrozenFeatures(reason="No features can be cached: 'conv1' is trainable."))
    assert view.trainable_chip.toolTip().endswith("'conv1' is trainable.")


# -- how far it is ------------------------------------------------------------------------------------------


@pytest.mark.window
def test_the_footer_tells_how_far_the_features_are_and_then_what_they_save(view, tree) -> None:
    tree.is_live = True
    tree.show_cached(cached(UNITS))
    tree.follow(progress(0, 0.629, 31.0))
    assert view.step_label.whole_text == "Step 31 ms · features cached 62 %"
    tree.follow(progress(0, 1.0, 31.0))
    assert view.step_label.whole_text == "Step 31 ms · features cached 100 %", "this epoch computed them"
    tree.follow(progress(1, 1.0, 0.4))
    assert view.step_label.whole_text == "Step 0.4 ms · cached, 31 ms before"
    # What a change would cost is told of steps that compute: it caches other features.
    tree.point_at(row_id(tree, "stage2"))
    assert "stage2 unfrozen: about" in view.step_label.whole_text
    assert tree.forecast is not None
    assert tree.forecast[2] > 31
    tree.show_cached(cached([], "", views=0, reason="No features can be cached: nothing is frozen."))
    tree.follow(progress(1, None, 40.0))
    assert "cached" not in view.step_label.whole_text


@pytest.mark.window
def test_the_footer_tells_which_view_of_the_images_is_being_computed(view, tree) -> None:
    tree.is_live = True
    tree.show_cached(cached(UNITS, views=4))
    for epoch in range(4):
        tree.follow(progress(epoch, 0.5, 31.0))
        assert view.step_label.whole_text == f"Step 31 ms · features cached 50 %, view {epoch + 1} of 4"
    tree.follow(progress(4, 1.0, 0.4))
    assert view.step_label.whole_text == "Step 0.4 ms · cached, 31 ms before"


@pytest.mark.window
def test_features_that_an_earlier_run_has_computed_are_read_from_the_first_epoch_on(view, tree) -> None:
    tree.is_live = True
    tree.show_cached(cached(UNITS))
    tree.follow(progress(0, 1.0, 0.4))
    assert view.step_label.whole_text == "Step 0.4 ms · cached"
    assert tree.forecast is None


@pytest.mark.parametrize(
    ("more", "views"),
    [
        ({}, 2),
        ({"data": DataConfig(augmentation="strong")}, 8),
        ({"data": DataConfig(augmentation="none", views=5)}, 1),
        ({"data": DataConfig(views=3)}, 3),
        ({"data": DataConfig(mixing="mixup")}, 0),
        ({"training": TrainingConfig(feature_cache="off")}, 0),
    ],
)
def test_a_picture_comes_in_the_views_that_a_run_with_what_is_frozen_would_take(tree, more: dict, views: int) -> None:
    config = RunConfig(**more)
    assert tree.cached.views(config) == 0, "it is not known what could be cached"
    tree.offer_features(FrozenFeatures(layers="backbone", units=UNITS, saved_share=0.9))
    assert tree.cached.views(config) == views
    tree.offer_features(FrozenFeatures(layers="conv1", units=UNITS[:1], saved_share=0.09))
    assert tree.cached.views(config) == 0, "a run keeps no features that save so little"
    tree.offer_features(FrozenFeatures(reason="No features can be cached: 'conv1' is trainable."))
    assert tree.cached.views(config) == 0
    tree.show_cached(cached(UNITS, views=7, fixed_views=7))
    assert tree.cached.views(config) == 7, "as the worker says"
