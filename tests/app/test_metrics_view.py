"""The curves on the screen: when they are drawn, what they show, and what becomes of them in a file."""

from __future__ import annotations

import csv
import math
import sys

import numpy as np
import pytest
from PySide6.QtCore import QLocale, QPointF, QRectF, Qt, QTimer
from PySide6.QtGui import QColor, QImage, QPainter

from app import theme
from app.viewmodels.checkpoint_table import CheckpointItemModel
from app.viewmodels.metric_history import MetricHistory
from app.views.metrics import MetricsView
from app.views.plot_markers import MarkerItem, marker_tooltip
from tests.app.conftest import checkpoint
from trainer.messages.changes import LayersFrozen, LayersUnfrozen
from trainer.messages.events import MetricsLogged
from trainer.messages.run_info import Series

pytestmark = [
    pytest.mark.window,
    # Only the offscreen platform says so, of every window.
    pytest.mark.qt_log_ignore("This plugin does not support propagateSizeHints"),
]


def _log(history, tag, steps, values, *, segment=0):
    points = Series(steps=[int(step) for step in steps], values=[float(value) for value in values])
    history.add(MetricsLogged(segment=segment, series={tag: points}))


def _mark(history, sentence, applied_step, *, kind=LayersUnfrozen):
    history.add_marker(
        kind(
            layers=["stage4"],
            sentence=sentence,
            frozen=[],
            num_trainable=1,
            requested_step=applied_step - 1,
            applied_step=applied_step,
            source="user",
            segment=0,
        )
    )


@pytest.fixture
def history(qapp):
    return MetricHistory()


@pytest.fixture
def checkpoints(qapp):
    return CheckpointItemModel()


@pytest.fixture
def view(history, checkpoints, qtbot):
    shown = MetricsView(history, checkpoints)
    qtbot.addWidget(shown)
    shown.resize(700, 560)
    shown.show()
    qtbot.waitExposed(shown)
    return shown


@pytest.fixture
def trained(view, history, qtbot):
    """Return a view of 184 of 270 steps, drawn."""
    history.set_epochs(45, 270)
    steps = np.arange(1, 185)
    _log(history, "Loss/train", steps, 2.4 * np.exp(-steps / 60) + 0.1)
    _log(history, "Accuracy/train", steps, 1 - 0.9 * np.exp(-steps / 50))
    _log(history, "Loss/validation", [45, 90, 135, 180], [0.93, 0.52, 0.155, 0.33])
    _log(history, "Accuracy/validation", [45, 90, 135, 180], [0.72, 0.88, 0.972, 0.93])
    # The plots are drawn one after the other.
    qtbot.waitUntil(lambda: _drawn(view) == _num_drawn(view.accuracy) == 184)
    return view


def _drawn(view):
    return _num_drawn(view.loss)


def _num_drawn(plot):
    xs, _ = plot._smoothed.getData()
    return 0 if xs is None else len(xs)


def _y_range(plot):
    return plot.view_box.viewRange()[1]


def test_an_empty_view_says_what_fills_it(view, history, qtbot):
    assert view.empty_label.isVisible()
    assert view.empty_label.text() == "The curves appear with the first step. Choose data and press Start."
    _log(history, "Loss/train", [1], [2.0])
    qtbot.waitUntil(view.loss.isVisible)


def test_the_best_of_validation_stands_in_the_header(trained):
    assert trained.loss._header._best.text() == "0.155"
    assert trained.accuracy._header._best.text() == "97.2 %"


def test_many_changes_make_one_repaint(trained, history, qtbot, monkeypatch):
    repaints = []
    monkeypatch.setattr(trained.loss, "redraw", lambda **_: repaints.append(True))
    for step in range(185, 235):
        _log(history, "Loss/train", [step], [0.1])
    assert repaints == []
    qtbot.waitUntil(lambda: bool(repaints))
    assert len(repaints) == 1


def test_the_window_answers_between_the_two_plots(trained, history, qtbot, monkeypatch):
    order = []

    def draw_loss(**_):
        order.append("loss")
        QTimer.singleShot(0, lambda: order.append("an answer"))

    monkeypatch.setattr(trained.loss, "redraw", draw_loss)
    monkeypatch.setattr(trained.accuracy, "redraw", lambda **_: order.append("accuracy"))
    _log(history, "Loss/train", [185], [0.1])
    qtbot.waitUntil(lambda: "accuracy" in order)
    assert order == ["loss", "an answer", "accuracy"]


def test_a_hidden_view_draws_only_when_it_is_shown_again(trained, history, qtbot):
    shown = MetricsView(history, CheckpointItemModel())
    qtbot.addWidget(shown)
    shown.show()
    qtbot.waitUntil(lambda: _drawn(shown) == 184)
    trained.hide()
    # While the one on the screen draws twice, the hidden one has had the time to draw once.
    for steps in (range(185, 192), range(192, 200)):
        _log(history, "Loss/train", steps, np.ones(len(steps)))
        qtbot.waitUntil(lambda last_step=steps[-1]: _drawn(shown) == last_step)
    assert _drawn(trained) == 184
    trained.show()
    qtbot.waitUntil(lambda: _drawn(trained) == 199)


def test_following_shows_the_whole_run_from_the_start(trained):
    first, last = trained.loss.view_box.viewRange()[0]
    assert first == pytest.approx(0, abs=1)
    assert last == pytest.approx(270 * 1.02, abs=1)
    assert _y_range(trained.accuracy)[1] == pytest.approx(102)


def test_the_value_axis_stays_while_the_curve_stays_in_it(trained, history, qtbot):
    before = _y_range(trained.loss)
    _log(history, "Loss/train", range(185, 200), np.full(15, 0.05))
    qtbot.waitUntil(lambda: _drawn(trained) == 199)
    assert _y_range(trained.loss) == before


def test_a_hand_on_the_plot_ends_following(trained, history, qtbot, monkeypatch):
    trained.loss.view_box.scaleBy((0.5, 1))
    trained.loss.view_box.sigRangeChangedManually.emit([True, True])
    assert not trained.follow_button.isChecked()
    zoomed = trained.loss.view_box.viewRange()[0]
    repaints = []
    redraw = trained.loss.redraw
    monkeypatch.setattr(trained.loss, "redraw", lambda **fits: repaints.append(redraw(**fits)))
    _log(history, "Loss/train", [185], [0.1])
    qtbot.waitUntil(lambda: bool(repaints))
    assert trained.loss.view_box.viewRange()[0] == zoomed
    assert trained.accuracy.view_box.viewRange()[0] == pytest.approx(zoomed)
    trained.follow_button.click()
    qtbot.waitUntil(lambda: trained.loss.view_box.viewRange()[0][1] > 270)


def test_fit_shows_what_was_measured(trained):
    trained.fit_button.click()
    assert trained.loss.view_box.viewRange()[0][1] == pytest.approx(184 * 1.02, abs=1)
    assert not trained.follow_button.isChecked()


def test_one_wild_value_does_not_flatten_the_curve(trained, history, qtbot):
    _log(history, "Loss/train", [185, 186], [1e6, math.nan])
    history.set_smoothing(0.0)
    history.set_smoothing(0.9)
    qtbot.waitUntil(lambda: _drawn(trained) == 186)
    assert np.isfinite(_y_range(trained.loss)).all()


def test_a_lost_loss_is_said_in_the_header(trained, history, qtbot):
    _log(history, "Loss/train", [185], [math.nan])
    qtbot.waitUntil(trained.loss._header._problem.isVisible)
    assert trained.loss._header._problem.text() == "train NaN at step 185"


def test_log_leaves_out_what_is_not_positive_and_clamps_the_range(trained, history, qtbot):
    _log(history, "Loss/train", [185, 186], [0.0, -1.0])
    history.set_smoothing(0.0)
    trained.log_button.click()
    qtbot.waitUntil(lambda: _drawn(trained) == 186)
    _, values = trained.loss._smoothed.getData()
    assert np.isnan(values[-2:]).all()
    assert np.isfinite(values[:-2]).all()
    for _ in range(50):
        trained.loss.view_box.scaleBy((1, 10))
    low, high = _y_range(trained.loss)
    assert low >= -30
    assert high <= 30
    assert trained.grab().width() == 700
    trained.log_button.click()
    qtbot.waitUntil(lambda: -2 < _y_range(trained.loss)[0] < _y_range(trained.loss)[1] < 4)


def test_a_log_axis_with_nothing_positive_still_draws(view, history, qtbot):
    _log(history, "Loss/train", range(1, 20), np.zeros(19))
    view.log_button.click()
    qtbot.waitUntil(lambda: _drawn(view) == 19)
    assert np.isfinite(_y_range(view.loss)).all()


def _mark_crowd(trained, history, qtbot):
    for step in (100, 101, 103, 110, 150, 184):
        _mark(history, f"stage{step} unfrozen", step, kind=LayersFrozen if step % 2 else LayersUnfrozen)
    qtbot.waitUntil(lambda: len(trained.loss._marker_items) == 6)
    return trained.loss._marker_items


def test_marker_labels_never_cover_each_other_and_the_latest_keep_their_sentences(trained, history, qtbot):
    items = _mark_crowd(trained, history, qtbot)
    labels = [item.label_rect for item in items if not item.label_rect.isEmpty()]
    assert not any(one.intersects(other) for one in labels for other in labels if one is not other)
    assert max(label.bottom() for label in labels) < 60
    assert [item.label_rect.width() == item.label_width for item in items] == [False] * 4 + [True] * 2
    assert items[0].text == "stage100 unfrozen · step 100"
    assert all(item.label_rect.isEmpty() for item in trained.accuracy._marker_items)
    assert trained.grab().height() == 560


def test_the_marker_under_the_pointer_is_written_out_and_stays_inside_the_plot(trained, history, qtbot):
    items = _mark_crowd(trained, history, qtbot)
    _mark(history, f"{', '.join(f'layer{idx}.conv' for idx in range(30))} frozen", 190)
    qtbot.waitUntil(lambda: len(trained.loss._marker_items) == 7)
    scene, bounds = trained.loss.plot.scene(), QRectF(trained.loss.view_box.rect())
    for item in (trained.loss._marker_items[1], trained.loss._marker_items[-1]):
        before = item.label_rect
        scene.sigMouseMoved.emit(trained.loss.view_box.mapToScene(QPointF(item.x_px, bounds.bottom() - 20)))
        assert item.label_rect.width() == min(item.label_width, bounds.width())
        assert bounds.contains(item.label_rect)
        assert item.zValue() > max(other.zValue() for other in items if other is not item)
        trained.loss.plot.left.emit()
        assert item.label_rect == before


def test_a_marker_of_an_abandoned_piece_is_drawn_once(trained, history):
    for sentence, step in (("stage4 unfrozen", 50), ("conv5 unfrozen", 150)):
        _mark(history, sentence, step)
    for _ in range(2):
        trained.loss.refresh_markers()
    history.restore(100, 1)
    trained.loss.refresh_markers()
    drawn = [item for item in trained.loss.plot.scene().items() if isinstance(item, MarkerItem)]
    assert sorted((item.marker.applied_step, item.marker.is_abandoned) for item in drawn) == [(50, False), (150, True)]


def test_a_markers_tooltip_tells_both_steps_and_is_no_markup(history):
    _mark(history, "<b>layer</b> frozen", 128)
    tip = marker_tooltip(history.markers[0])
    assert "Asked for at step 127, applied at step 128, by hand." in tip
    assert "&lt;b&gt;" in tip


def test_the_crosshair_writes_the_values_at_its_step(trained):
    trained.loss.hovered.emit(100.4)
    header = trained.accuracy._header
    assert header._step.text() == "step 100"
    assert header._validation.text() == "88.0 %"
    assert trained.loss._crosshair.isVisible()
    trained.loss.hovered.emit(None)
    assert header._step.text() == ""
    assert not trained.loss._crosshair.isVisible()


def test_the_pointer_over_one_plot_is_shown_on_both(trained):
    place = trained.loss.view_box.mapViewToScene(QPointF(90, 0.5))
    trained.loss.plot.scene().sigMouseMoved.emit(place)
    assert trained.accuracy._crosshair.isVisible()
    assert trained.accuracy._header._step.text() == "step 90"


def test_no_number_below_the_curve_is_cut_by_the_edge(trained):
    axis = trained.loss._x_axis
    image = QImage(8, 8, QImage.Format.Format_ARGB32)
    last_numbers = set()
    for high in np.linspace(13_600, 14_400, 81):
        trained.loss.view_box.setXRange(0, high)
        painter = QPainter(image)
        _, _, texts = axis.generateDrawSpecs(painter)
        painter.end()
        room = axis.mapRectFromScene(trained.loss.plot.sceneRect())
        assert all(room.left() <= rect.left() and rect.right() <= room.right() for rect, _, _ in texts)
        last_numbers.add(texts[-1][2])
    assert "14,000" in last_numbers, "where there is room for it"
    assert last_numbers != {"14,000"}


def test_the_lower_axis_can_count_epochs(trained):
    trained._epoch_action.trigger()
    ticks = trained.loss._x_axis.tickValues(0, 270, 600)
    (spacing, positions), *_ = ticks
    assert trained.loss._x_axis.tickStrings(positions, trained.loss._x_axis.scale, spacing) == [
        str(epoch) for epoch in range(7)
    ]
    assert trained.unit_button.text() == "Epoch"


def test_low_plots_give_the_room_of_their_axes_titles_to_the_curves(trained, qtbot):
    plot = trained.loss
    axes = [plot.plot.getPlotItem().getAxis(name) for name in ("bottom", "left")]
    assert all(axis.label.isVisible() for axis in axes)
    left_over = plot.plot.height() - plot.view_box.height()
    trained.resize(700, 320)
    qtbot.waitUntil(lambda: not any(axis.label.isVisible() for axis in axes))
    qtbot.waitUntil(lambda: plot.plot.height() - plot.view_box.height() <= left_over - 15)
    plot.set_epochs_shown(10)
    assert not any(axis.label.isVisible() for axis in axes)
    trained.resize(700, 560)
    qtbot.waitUntil(lambda: all(axis.label.isVisible() for axis in axes))


@pytest.mark.parametrize("size_of_step", [1e-4, 0.3, 7.0, 12_000.0])
def test_ticks_are_few_and_round(trained, size_of_step):
    axis = trained.loss._y_axis
    ((spacing, positions),) = axis.tickValues(0, size_of_step, 200)
    assert 2 <= len(positions) <= 8
    texts = axis.tickStrings(positions, 1.0, spacing)
    assert len(set(texts)) == len(texts)


def test_the_slider_smooths(trained, history, qtbot):
    trained.smoothing.setValue(50)
    assert history.smoothing == 0.5
    assert trained._smoothing_value.text() == QLocale().toString(0.5, "f", 2)
    trained.smoothing.setValue(0)
    qtbot.waitUntil(lambda: not trained.loss._raw.isVisible())


def test_what_a_restore_left_behind_stays_on_the_plot(trained, history, qtbot):
    history.restore(150, 1)
    _log(history, "Loss/train", [151, 152], [0.2, 0.2], segment=1)
    qtbot.waitUntil(lambda: _drawn(trained) == 152)
    xs, values = trained.loss._left_train.getData()
    assert xs[0] == 151
    assert np.isfinite(values[:-1]).all()


def test_the_plots_follow_the_theme(trained, qapp):
    style_sheet, palette, style, font = qapp.styleSheet(), qapp.palette(), qapp.style().name(), qapp.font()
    try:
        for scheme, colors in (("dark", theme.DARK), ("light", theme.LIGHT)):
            theme.apply(qapp, scheme)
            qapp.processEvents()
            assert trained.loss._smoothed.opts["pen"].color().name().upper() == colors.train
            assert trained.loss.plot.backgroundBrush().color().name().upper() == colors.panel
    finally:
        qapp.setStyleSheet(style_sheet)
        qapp.setStyle(style)
        qapp.setPalette(palette)
        qapp.setFont(font)


def test_every_point_is_exported(trained, history, qtbot, tmp_path):
    history.restore(180, 1)
    path = tmp_path / "curves.csv"
    trained.export_csv(path)
    qtbot.waitUntil(trained.message.isVisible)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 184 + 8
    assert sum(row["abandoned"] == "1" for row in rows) == 8
    assert trained.message.text() == f"Exported to {path}."
    assert [file.name for file in tmp_path.iterdir()] == ["curves.csv"]


def test_a_picture_is_exported(trained, qtbot, tmp_path):
    path = tmp_path / "curves.png"
    trained.export_png(path)
    qtbot.waitUntil(trained.message.isVisible)
    assert QImage(str(path)).width() > 600


def test_a_file_that_cannot_be_written_gives_a_sentence(trained, qtbot, tmp_path):
    path = tmp_path / "missing" / "curves.csv"
    trained.export_csv(path)
    qtbot.waitUntil(trained.message.isVisible)
    assert trained.message.text() == f"Cannot write {path}: No such file or directory. Choose another folder."
    assert trained.message.property("role") == "error"


def test_repaints_leave_the_references_to_none_alone(trained):
    # PySide6 6.12.0 on Python 3.11 drops one in every virtual call, and aborts after minutes.
    trained.grab()
    before = sys.getrefcount(None)
    for _ in range(200):
        trained._repaint()
        trained.grab()
    assert sys.getrefcount(None) > before - 200


def test_the_tools_are_reached_by_keyboard(trained):
    for tool in (trained.unit_button, trained.smoothing, trained.log_button, trained.fit_button, trained.follow_button):
        assert tool.focusPolicy() & Qt.FocusPolicy.TabFocus


def _offered(view):
    view.choice_menu.aboutToShow.emit()
    return {action.text(): action for action in view.choice_menu.actions()}


def test_the_lower_plot_shows_another_metric_of_validation(trained, history, qtbot):
    assert list(_offered(trained)) == ["Accuracy"]
    _log(history, "F1/validation", [45, 90, 135, 180], [0.7, 0.86, 0.954, 0.92])
    _log(history, "AUROC/validation", [45, 90, 135, 180], [0.9, 0.95, 0.99, 0.98])
    _log(history, "Gradient norm", [1, 2, 3], [4.0, 3.0, 2.0])
    offered = _offered(trained)
    assert list(offered) == ["Accuracy", "F1", "AUROC", "Gradient norm"]
    offered["F1"].trigger()
    assert trained.accuracy._header.title.text() == "F1"
    assert trained.accuracy._header._best.text() == "0.954"
    assert list(trained.accuracy._validation.getData()[1]) == [0.7, 0.86, 0.954, 0.92]
    assert [key.isVisible() for key in trained.accuracy._header._legend] == [False, True]
    assert [action.text() for action in _offered(trained).values() if action.isChecked()] == ["F1"]
    _offered(trained)["Gradient norm"].trigger()
    assert list(trained.accuracy._raw.getData()[1]) == [4.0, 3.0, 2.0]
    assert [key.isVisible() for key in trained.accuracy._header._legend] == [True, False]
    assert trained.accuracy._header._best.text() == ""


def test_a_run_without_the_chosen_metric_is_shown_by_its_accuracy(trained, history, qtbot):
    _log(history, "Top-5 accuracy/validation", [45], [0.9])
    _offered(trained)["Top-5 accuracy"].trigger()
    history.clear()
    _log(history, "Accuracy/validation", [10], [0.5])
    qtbot.waitUntil(lambda: trained.accuracy._header.title.text() == "Accuracy")


def _edge_of(plot, step):
    """Return where the mark of a checkpoint at a step is, in the plot's pixels."""
    box = plot.view_box
    x = box.mapFromView(QPointF(step, 0)).x()
    return box.mapToScene(QPointF(x, box.rect().bottom() - 3))


def test_the_mark_of_a_checkpoint_selects_its_row(trained, checkpoints, qtbot):
    plot = trained.accuracy
    checkpoints.reset([checkpoint(epoch, 0.5, 0.8) for epoch in (1, 2, 3)])
    where = plot.plot.mapFromScene(_edge_of(plot, 90))
    with qtbot.waitSignal(checkpoints.selection_wanted) as wanted:
        qtbot.mouseClick(plot.plot.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert wanted.args == [[checkpoints.present.key("checkpoint_tiny_002.pt")]]
    between = plot.view_box.mapFromScene(_edge_of(plot, 68))
    assert plot._marks.at(between) is None
    plot._marks.point_at(plot.view_box.mapFromScene(_edge_of(plot, 45)))
    assert plot._marks.toolTip() == "Checkpoint of epoch 1, step 45"
    # A restore went back to before it, and its epoch was trained again: the newer one answers.
    checkpoints.add(checkpoint(2, 0.4, 0.9, name="again.pt", saved_at=5000.0))
    assert plot._marks.at(plot.view_box.mapFromScene(_edge_of(plot, 90))).name == "again.pt"


def test_a_selected_row_is_marked_on_the_curves(trained, checkpoints):
    plot = trained.loss
    checkpoints.reset([checkpoint(epoch, 0.5, 0.8) for epoch in (1, 2, 3)])
    before = plot.grab().toImage()
    checkpoints.note_selected([checkpoints.present.key("checkpoint_tiny_002.pt")])
    after = plot.grab().toImage()
    accent = QColor(theme.LIGHT.accent).rgb()
    changed = {
        after.pixel(x, y)
        for x in range(after.width())
        for y in range(after.height())
        if before.pixel(x, y) != after.pixel(x, y)
    }
    assert accent in changed


def test_the_menu_of_a_step_offers_the_nearest_whole_checkpoint(trained, checkpoints, qtbot):
    plot = trained.loss
    at_step = plot.view_box.mapToScene(plot.view_box.mapFromView(QPointF(100, 0.5)))
    assert plot.step_menu(at_step) is None
    checkpoints.reset([checkpoint(epoch, 0.5, 0.8) for epoch in (1, 2, 3)])
    restore, show = plot.step_menu(at_step).actions()
    assert restore.text() == "Restore the nearest checkpoint (epoch 2, step 90)"
    assert not restore.isEnabled()
    with qtbot.waitSignal(checkpoints.selection_wanted) as wanted:
        show.trigger()
    assert wanted.args == [[checkpoints.present.key("checkpoint_tiny_002.pt")]]
    checkpoints.can_restore = True
    checkpoints.show_problems({"checkpoint_tiny_002.pt": "file is missing"})
    restore, _ = plot.step_menu(at_step).actions()
    assert restore.text() == "Restore the nearest checkpoint (epoch 3, step 135)"
    with qtbot.waitSignal(trained.restore_requested) as asked:
        restore.trigger()
    assert asked.args == ["checkpoint_tiny_003.pt"]
