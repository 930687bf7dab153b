"""A window that followed a run live and one that reads its folder show the same line, whatever was restored."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.viewmodels.metric_history import MetricHistory
from trainer.config import RunConfig
from trainer.messages.changes import LayersFrozen, RunRewound
from trainer.messages.events import MetricsLogged
from trainer.messages.run_info import Series
from trainer.runs import RunFolder

LOSS, VALIDATION = "Loss/train", "Loss/validation"
EPOCH = 3

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("train"), st.integers(1, 8)),
        st.tuples(st.just("save"), st.just(0)),
        st.tuples(st.just("freeze"), st.just(0)),
        st.tuples(st.just("validate"), st.just(0)),
        st.tuples(st.just("restore"), st.integers(0, 20)),
        st.tuples(st.just("rewind"), st.integers(0, 20)),
    ),
    min_size=1,
    max_size=25,
)


class Run:
    """A run that trains and restores, kept in a folder and told to a history; it knows by itself which line is its."""

    def __init__(self, folder: RunFolder, history: MetricHistory) -> None:
        self.folder, self.history = folder, history
        self.step, self.segment, self.num_changes = 0, 0, 0
        # What a checkpoint, or the state before a change, would bring back of the curve.
        self.line: dict[str, list[tuple[int, float]]] = {LOSS: [], VALIDATION: []}
        self.changes: list[int] = []
        self.states = [self._state(None)]
        folder.begin_segment(0, None, 0.0)

    def _state(self, change):
        return self.step, self.segment, {tag: list(line) for tag, line in self.line.items()}, list(self.changes), change

    def train(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.step += 1
            self._measure(LOSS)
            if self.step % EPOCH == 0:
                self._measure(VALIDATION)

    def validate(self, _: int) -> None:
        self._measure(VALIDATION)

    def _measure(self, tag: str) -> None:
        # The value names the piece: the same step of another one is another point.
        point = self.step, self.step + self.segment / 100
        event = MetricsLogged(segment=self.segment, series={tag: Series(steps=[point[0]], values=[point[1]])})
        self.folder.add_metrics(event.segment, event.series)
        self.history.add(event)
        # A state that was kept at this very step, before its validation, is what was validated.
        kept = [state[2] for state in self.states if state[:2] == (self.step, self.segment)]
        for line in (self.line, *kept):
            # What was measured first of a step counts.
            if not line[tag] or line[tag][-1][0] < self.step:
                line[tag].append(point)

    def save(self, _: int) -> None:
        self.states.append(self._state(None))

    def freeze(self, _: int) -> None:
        self.num_changes += 1
        self.states.append(self._state(self.num_changes))
        self.changes.append(self.num_changes)
        where = {"requested_step": self.step, "applied_step": self.step, "segment": self.segment}
        event = LayersFrozen(
            layers=["fc"], sentence="fc frozen", frozen=["fc"], num_trainable=1, source="user",
            change=self.num_changes, **where,
        )  # fmt: skip
        self.folder.add_event(event)
        self.history.add_marker(event)

    def restore(self, which: int) -> None:
        saved = [state for state in self.states if state[-1] is None]
        self._go_to(saved[which % len(saved)], None)

    def rewind(self, which: int) -> None:
        before_changes = [state for state in self.states if state[-1] in self.changes]
        if before_changes:
            state = before_changes[which % len(before_changes)]
            self._go_to(state, state[-1])

    def _go_to(self, state, change: int | None) -> None:
        self.step, parent, line, self.changes = state[0], state[1], state[2], list(state[3])
        self.line = {tag: list(points) for tag, points in line.items()}
        self.segment = self.folder.begin_segment(self.step, None, 0.0, parent)
        if change is not None:
            self.folder.add_event(
                RunRewound(
                    change=change, sentence="fc frozen", step=self.step, epoch=0, frozen=[], num_trainable=1,
                    segment=self.segment, parent=parent,
                )
            )  # fmt: skip
        self.history.restore(self.step, self.segment, parent, change)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_live_and_from_the_folder_the_line_is_that_of_the_state(
    qapp, tmp_path_factory, small_config: RunConfig, actions: list[tuple[str, int]]
) -> None:
    live, read = MetricHistory(), MetricHistory()
    with RunFolder.create(tmp_path_factory.mktemp("runs"), small_config) as folder:
        run = Run(folder, live)
        for action, number in actions:
            getattr(run, action)(number)
        record = folder.read()
    read.set_curves(record.curves, record.lineage)
    for event in record.freeze_events:
        read.add_marker(event)
    assert shown(live) == shown(read)
    for tag, line in run.line.items():
        points = live.query(tag, 0, 10_000)
        assert list(zip(points.steps.tolist(), points.values.tolist(), strict=True)) == line
    on_line = [marker.change for marker in live.markers if not marker.is_abandoned]
    assert set(on_line) >= set(run.changes)
    # At the step of a checkpoint, only its file could tell what was changed before it was saved.
    assert all(change in run.changes or at_a_fork(live, change, run) for change in on_line)


def at_a_fork(history: MetricHistory, change: int, run: Run) -> bool:
    (marker,) = (each for each in history.markers if each.change == change)
    return any(state[0] == marker.applied_step and state[-1] is None for state in run.states)


def shown(history: MetricHistory) -> object:
    pieces = [(p.tag, p.is_abandoned, p.steps.tolist(), p.values.tolist()) for p in history.all_points()]
    left = [history.query_abandoned(tag, 0, 10_000) for tag in (LOSS, VALIDATION)]
    drawn = [(points.steps.tolist(), np.nan_to_num(points.values, nan=-1.0).tolist()) for points in left]
    return pieces, drawn, [(marker.change, marker.is_abandoned) for marker in history.markers]
