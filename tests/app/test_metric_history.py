"""MetricHistory: what is drawn is what was measured, whatever the zoom, the restore or the repeat."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.viewmodels.metric_history import MetricHistory
from app.viewmodels.pyramid import GrowingArray, Pyramid
from app.viewmodels.smoothing import Smoother
from app.viewmodels.trace import Trace
from trainer.lineage import Lineage
from trainer.messages.changes import (
    CheckpointRestored,
    LayersFrozen,
    LayersUnfrozen,
    RateMultiplierChanged,
)
from trainer.messages.events import MetricsLogged
from trainer.messages.run_info import Series
from trainer.run_record import Curve

LOSS = "Loss/train"


def _logged(steps, values, *, tag=LOSS, segment=0):
    return MetricsLogged(segment=segment, series={tag: Series(steps=list(steps), values=list(values))})


def _unfrozen(applied_step, *, segment=0, requested_step=None):
    return LayersUnfrozen(
        layers=["stage4"],
        sentence="stage4 unfrozen",
        frozen=[],
        num_trainable=1,
        requested_step=applied_step if requested_step is None else requested_step,
        applied_step=applied_step,
        source="user",
        segment=segment,
    )


@pytest.fixture
def history(qapp):
    return MetricHistory()


def test_points_come_back_as_they_were_measured(history):
    history.add(_logged([1, 2, 3], [2.0, 1.5, 1.0]))
    points = history.query(LOSS, 0, 10)
    assert points.steps.tolist() == [1, 2, 3]
    assert points.values.tolist() == [2.0, 1.5, 1.0]


def test_a_batch_of_events_emits_one_change_each(history, qtbot):
    emitted = []
    history.changed.connect(lambda: emitted.append(True))
    history.add(_logged(range(1, 500), np.ones(499)))
    assert len(emitted) == 1


def test_events_that_repeat_what_was_read_are_dropped(history):
    lineage = Lineage()
    lineage.begin(1, 1, parent=0)
    measured = {0: (array("q", [1]), array("d", [3.0])), 1: (array("q", [2, 3]), array("d", [2.0, 1.0]))}
    history.set_curves({LOSS: Curve.along(lineage, measured)}, lineage)
    history.add(_logged([1, 2], [9.0, 9.0], segment=0))
    history.add(_logged([2, 3, 4], [9.0, 9.0, 0.5], segment=1))
    assert history.query(LOSS, 0, 10).values.tolist() == [3.0, 2.0, 1.0, 0.5]


def test_a_restore_moves_the_points_after_it_to_an_abandoned_piece(history):
    history.add(_logged([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0]))
    history.add_marker(_unfrozen(1))
    history.add_marker(_unfrozen(3))
    history.restore(2, segment=1)
    history.add(_logged([3, 4], [2.5, 2.4], segment=1))
    history.restore(2, segment=1)
    assert history.query(LOSS, 0, 10).values.tolist() == [4.0, 3.0, 2.5, 2.4]
    left = history.query_abandoned(LOSS, 0, 10)
    # From the point at which it branched off.
    assert left.values[:-1].tolist() == [3.0, 2.0, 1.0]
    assert math.isnan(left.values[-1])
    assert [marker.is_abandoned for marker in history.markers] == [False, True]


def test_a_checkpoint_of_a_piece_that_was_left_is_gone_on_from_there(history):
    """Steps 0 to 100, then on from 40 to 80, then on from a checkpoint of the first piece, at 90."""
    history.add(_logged(range(1, 101), np.zeros(100)))
    for step in (30, 60, 95):
        history.add_marker(_unfrozen(step))
    history.restore(40, segment=1, parent=0)
    history.add(_logged(range(41, 81), np.full(40, 1.0), segment=1))
    history.add_marker(_unfrozen(50, segment=1))
    assert [marker.is_abandoned for marker in history.markers] == [False, True, True, False]
    history.restore(90, segment=2, parent=0)
    history.add(_logged(range(91, 96), np.full(5, 2.0), segment=2))
    line = history.query(LOSS, 0, 200)
    assert line.steps.tolist() == list(range(1, 96))
    assert line.values.tolist() == [0.0] * 90 + [2.0] * 5
    left = [piece.steps.tolist() for piece in history.all_points() if piece.is_abandoned]
    assert left == [list(range(91, 101)), list(range(41, 81))]
    assert [marker.is_abandoned for marker in history.markers] == [False, False, True, True]


def test_a_piece_of_validation_that_was_left_begins_where_it_branched_off(history):
    tag = "Loss/validation"
    history.add(_logged([10, 20, 30, 40], [3.0, 2.0, 1.0, 0.5], tag=tag))
    history.restore(10, segment=1, parent=0)
    history.add(_logged([20], [2.5], tag=tag, segment=1))
    history.restore(10, segment=2, parent=0)
    left = history.query_abandoned(tag, 0, 50)
    assert left.steps.tolist() == [10, 20, 30, 40, 40, 10, 20, 20]
    np.testing.assert_equal(left.values, [3.0, 2.0, 1.0, 0.5, np.nan, 3.0, 2.5, np.nan])
    # Of one that begins to the left of the picture, that place is no neighbour.
    assert history.query_abandoned(tag, 35, 50).steps.tolist()[:2] == [30, 40]


def test_an_undone_rewind_brings_the_curve_and_its_markers_back(history):
    history.add(_logged([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0]))
    history.add_marker(_unfrozen(2).model_copy(update={"change": 1}))
    history.set_rewinds([1])
    history.restore(2, segment=1, change=1)
    history.add(_logged([3], [2.5], segment=1))
    assert [(marker.is_abandoned, marker.can_rewind) for marker in history.markers] == [(True, False)]
    # As it comes, and again with what was read.
    history.restore(4, segment=2, parent=0)
    history.restore(4, segment=2, parent=0)
    history.add(_logged([5], [0.5], segment=2))
    assert history.query(LOSS, 0, 10).values.tolist() == [4.0, 3.0, 2.0, 1.0, 0.5]
    assert history.query_abandoned(LOSS, 0, 10).values[:-1].tolist() == [3.0, 2.5]
    assert [(marker.is_abandoned, marker.can_rewind) for marker in history.markers] == [(False, True)]


def test_markers_offer_their_states_again_once_another_worker_has_the_run(history):
    history.add(_logged([1, 2, 3, 4, 5, 6], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]))
    for step, change in ((2, 1), (3, 2), (5, 3)):
        history.add_marker(_unfrozen(step).model_copy(update={"change": change}))
    history.set_rewinds([1, 2, 3])
    history.set_rewinds([])
    assert not any(marker.can_rewind for marker in history.markers)
    # It goes on from a checkpoint at step 4, and of one state there is no file.
    history.restore(4, segment=1)
    history.set_rewinds([2])
    assert [marker.can_rewind for marker in history.markers] == [False, True, False]
    assert [marker.is_abandoned for marker in history.markers] == [False, False, True]


def test_the_first_points_of_a_new_segment_cut_the_old_one_when_no_restore_was_seen(history):
    history.add(_logged([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0]))
    history.add(_logged([3], [2.5], segment=1))
    assert history.query(LOSS, 0, 10).values.tolist() == [4.0, 3.0, 2.5]


def test_peaks_survive_at_every_zoom(history):
    values = np.ones(200_000)
    values[[7, 123_456, 199_990]] = [50.0, -40.0, 60.0]
    history.add(_logged(range(200_000), values))
    while not history._tags[LOSS].line.is_ready:
        history._advance()
    for start, stop in ((0, 200_000), (100_003, 150_001), (123_455, 124_459)):
        points = history.query(LOSS, start, stop, 1000)
        assert len(points) <= 1010
        shown = values[start:stop]
        inside = (points.steps >= start) & (points.steps < stop)
        assert points.values[inside].max() == shown.max()
        assert points.values[inside].min() == shown.min()


def test_a_query_reads_no_more_for_a_longer_run(history):
    trace = Trace(None)
    trace.append(np.arange(300_000), np.random.default_rng(7).random(300_000))
    trace.advance(300_000)
    assert len(trace.query(0, 300_000, 2000, smoothed=False)) <= 2010
    assert len(trace.query(0, 30_000, 2000, smoothed=False)) <= 2010


def test_nan_leaves_a_gap_and_spoils_no_range(history):
    values = np.linspace(5.0, 1.0, 20_000)
    values[10_000:10_010] = np.nan
    history.add(_logged(range(20_000), values))
    points = history.query(LOSS, 0, 20_000, 1000)
    assert np.isnan(points.values).any()
    assert np.nanmin(points.values) == 1.0
    assert np.nanmax(points.values) == 5.0
    best = history.best(LOSS)
    assert best is not None
    assert best.value == 1.0


def test_a_curve_of_nothing_but_nan_has_no_best(history):
    history.add(_logged(range(5000), np.full(5000, np.nan)))
    assert history.best(LOSS) is None
    assert np.isnan(history.query(LOSS, 0, 5000, 500).values).all()


def test_best_is_the_lowest_loss_and_the_highest_accuracy(history):
    history.add(_logged([45, 90, 135], [0.9, 0.4, 0.5], tag="Loss/validation"))
    history.add(_logged([45, 90, 135], [0.8, 0.9, 0.85], tag="Accuracy/validation"))
    assert history.best("Loss/validation").value == 0.4
    assert history.best("Accuracy/validation").value == 0.9
    assert history.best("Accuracy/validation").step == 90


def test_smoothing_is_the_bias_corrected_average(history):
    values = np.random.default_rng(3).random(1000)
    average, expected = 0.0, []
    for position, value in enumerate(values):
        average = 0.9 * average + 0.1 * value
        expected.append(average / (1 - 0.9 ** (position + 1)))
    history.set_smoothing(0.9)
    for start in range(0, 1000, 37):
        stop = min(start + 37, 1000)
        history.add(_logged(range(start, stop), values[start:stop]))
    np.testing.assert_allclose(history.query(LOSS, 0, 1000, 2000, smoothed=True).values, expected, rtol=1e-9)


def test_smoothing_anew_while_points_arrive_gives_the_same_curve(history, qtbot):
    values = np.random.default_rng(4).random(120_000)
    history.add(_logged(range(60_000), values[:60_000]))
    history.set_smoothing(0.5)
    history.add(_logged(range(60_000, 120_000), values[60_000:]))
    qtbot.waitUntil(lambda: history._tags[LOSS].line.is_ready)
    once = Trace(0.5)
    once.append(np.arange(120_000), values)
    once.advance(120_000)
    np.testing.assert_allclose(
        history.query(LOSS, 0, 120_000, smoothed=True).values, once.query(0, 120_000, 2000, smoothed=True).values
    )


def test_smoothing_goes_on_from_the_restored_step(history):
    values = np.random.default_rng(5).random(100)
    history.add(_logged(range(100), values))
    history.restore(49, segment=1)
    history.add(_logged(range(50, 100), values[50:], segment=1))
    other = MetricHistory()
    other.add(_logged(range(100), values))
    np.testing.assert_allclose(
        history.query(LOSS, 0, 100, smoothed=True).values, other.query(LOSS, 0, 100, smoothed=True).values
    )


def test_validation_is_never_smoothed(history):
    history.add(_logged([1, 2], [4.0, 0.0], tag="Loss/validation"))
    assert history.query("Loss/validation", 0, 9, smoothed=True).values.tolist() == [4.0, 0.0]


def test_another_rate_of_some_layers_is_marked(history):
    changed = RateMultiplierChanged(
        layers=["fc"], multiplier=0.1, sentence="head at rate × 0.1", multipliers={"fc": 0.1}, requested_step=7,
        applied_step=8, source="user", segment=0,
    )  # fmt: skip
    history.add_marker(changed)
    history.add_marker(changed.model_copy(update={"layers": []}))
    (marker,) = history.markers
    assert (marker.sentence, marker.applied_step, marker.kind) == ("head at rate × 0.1", 8, "multiplier")


def test_the_weights_of_a_checkpoint_are_marked_where_they_came_and_leave_no_piece_behind(history):
    history.add(_logged(range(1, 101), np.ones(100)))
    restored = CheckpointRestored(
        name="c.pt", weights_only=True, step=100, epoch=2, frozen=[], num_trainable=1, segment=1, change=4
    )
    history.restore(restored.step, restored.segment)
    history.add_marker(restored)
    history.add_marker(restored.model_copy(update={"weights_only": False}))
    history.add(_logged(range(101, 103), [5.0, 5.0], segment=1))
    (marker,) = history.markers
    assert (marker.sentence, marker.applied_step, marker.kind) == ("weights restored", 100, "weights")
    assert len(history.query(LOSS, 0, 200)) == 102
    assert not len(history.query_abandoned(LOSS, 0, 200))
    history.set_rewinds([4])
    assert history.markers[0].can_rewind
    history.restore(100, segment=2, change=4)
    assert history.markers[0].is_abandoned


def test_a_marker_that_was_read_already_is_dropped(history):
    history.add_marker(_unfrozen(128, requested_step=127))
    history.add_marker(_unfrozen(128, requested_step=127))
    assert len(history.markers) == 1
    assert history.markers[0].kind == "unfreeze"
    history.add_marker(_unfrozen(130).model_copy(update={"layers": []}))
    assert len(history.markers) == 1
    history.add_marker(LayersFrozen(**_unfrozen(140).model_dump(exclude={"kind"})))
    assert history.markers[1].kind == "freeze"


def test_clear_forgets_the_run_and_keeps_the_smoothing(history):
    history.set_smoothing(0.3)
    history.add(_logged([1], [1.0]))
    history.add_marker(_unfrozen(1))
    history.clear()
    assert history.is_empty
    assert not history.markers
    assert history.smoothing == 0.3
    assert history.at(LOSS, 1) is None


def test_the_value_at_a_step_is_the_last_one_measured(history):
    history.add(_logged([45, 90], [0.9, 0.4], tag="Loss/validation"))
    assert history.at("Loss/validation", 100) == (90, 0.4)
    assert history.at("Loss/validation", 89) == (45, 0.9)
    assert history.at("Loss/validation", 1) == (45, 0.9)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.just(math.inf)), min_size=1, max_size=3000),
    pieces=st.integers(1, 7),
    data=st.data(),
)
def test_a_pyramid_written_in_pieces_and_cut_answers_like_the_values(values, pieces, data):
    stored = GrowingArray(np.float64)
    pyramid = Pyramid(stored)
    for piece in np.array_split(np.array(values), pieces):
        stored.write(len(stored), piece)
        pyramid.index_up_to(len(stored))
    size = data.draw(st.integers(1, len(values)))
    stored.truncate(size)
    pyramid.truncate(size)
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    chosen = pyramid.indices(start, stop, 20)
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] == start
    assert chosen[-1] == stop - 1
    shown, drawn = np.array(values[start:stop]), np.array(values)[chosen]
    assert np.isfinite(shown).all() == np.isfinite(drawn).all()
    if np.isfinite(shown).any():
        assert drawn[np.isfinite(drawn)].max() == shown[np.isfinite(shown)].max()
        assert drawn[np.isfinite(drawn)].min() == shown[np.isfinite(shown)].min()


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.99])
def test_a_smoother_passes_over_what_is_not_finite(weight):
    values = np.array([1.0, math.nan, 3.0, math.inf, 2.0])
    smoothed = Smoother(weight).feed(values)
    np.testing.assert_allclose(smoothed[[0, 2, 4]], Smoother(weight).feed(np.array([1.0, 3.0, 2.0])))
    assert np.isnan(smoothed[[1, 3]]).all()
