"""The plan's phases over the curves."""

from __future__ import annotations

import pytest

from app.viewmodels.plan_timeline import PlanTimeline
from app.views.plan_timeline import PlanTimelineView
from trainer.config import ModelConfig, PlanPhase, RunConfig
from trainer.messages.changes import (
    CheckpointRestored,
    LayersFrozen,
    PhaseBegan,
    PlanChanged,
    RewindUndone,
    RunRewound,
)

PHASES = [
    PlanPhase(epoch=2, unfreeze=["stage4"], rates={"stage4": 0.4}),
    PlanPhase(step=90, unfreeze=["stage3"]),
    PlanPhase(plateau=2, freeze=["head"], unfreeze=["backbone"]),
]
CONFIG = RunConfig(model=ModelConfig(frozen=["backbone"]), plan=PHASES)


def frozen_by(source: str) -> LayersFrozen:
    return LayersFrozen(
        layers=["conv1"], sentence="conv1 frozen", frozen=["conv1"], num_trainable=1, requested_step=3, applied_step=4,
        source=source, segment=0,
    )  # fmt: skip


@pytest.fixture
def timeline() -> PlanTimeline:
    timeline = PlanTimeline()
    timeline.show_plan(CONFIG)
    return timeline


def test_the_phases_stand_in_order_with_the_start_before_them(timeline: PlanTimeline) -> None:
    assert [(stage.when, stage.what) for stage in timeline.stages] == [
        ("start", "backbone frozen"),
        ("epoch 2", "+stage4 ×0.4"),
        ("step 90", "+stage3"),
        ("plateau 2", "+backbone, -head"),
    ]
    assert [stage.is_present for stage in timeline.stages] == [True, False, False, False]


def test_a_run_without_a_plan_shows_nothing(qtbot) -> None:
    timeline = PlanTimeline()
    view = PlanTimelineView(timeline)
    qtbot.addWidget(view)
    timeline.show_plan(RunConfig())
    assert timeline.stages == []
    assert view.isHidden()


def test_the_present_phase_follows_the_worker_and_a_change_by_hand_is_marked_until_the_next(
    timeline: PlanTimeline,
) -> None:
    timeline.begin_phase(PhaseBegan(plan=PHASES, num_begun=1, step=20, segment=0))
    timeline.note_change(frozen_by("plan"))
    assert [(stage.is_past, stage.is_present, stage.is_by_hand) for stage in timeline.stages[:2]] == [
        (True, False, False), (False, True, False),
    ]  # fmt: skip
    timeline.note_change(frozen_by("user"))
    assert timeline.stages[1].is_by_hand
    assert timeline.stages[1].sentence.endswith("Changed by hand since.")
    timeline.begin_phase(PhaseBegan(plan=PHASES, num_begun=2, step=90, segment=0))
    assert not any(stage.is_by_hand for stage in timeline.stages)


def test_a_restore_goes_back_to_the_phase_of_its_checkpoint_and_late_news_of_the_left_piece_is_dropped(
    timeline: PlanTimeline,
) -> None:
    timeline.begin_phase(PhaseBegan(plan=PHASES, num_begun=2, step=90, segment=0))
    timeline.restore(
        CheckpointRestored(
            name="a.pt",
            step=20,
            epoch=1,
            frozen=[],
            num_trainable=1,
            segment=1,
            rate=0.1,
            plan=PHASES,
            num_phases_begun=1,
        )
    )
    timeline.begin_phase(PhaseBegan(plan=PHASES, num_begun=3, step=99, segment=0))
    assert [stage.is_present for stage in timeline.stages] == [False, True, False, False]


def restored(event_type, **values):
    common = {"step": 20, "epoch": 1, "frozen": [], "num_trainable": 1, "segment": 1, "rate": 0.1}
    return event_type(**{**common, **values})


def test_a_state_from_before_there_was_a_plan_shows_none(timeline: PlanTimeline) -> None:
    timeline.restore(restored(CheckpointRestored, name="a.pt"))
    assert timeline.stages == []


def test_before_a_change_of_the_plan_itself_its_phase_is_marked_as_changed_by_hand(timeline: PlanTimeline) -> None:
    timeline.begin_phase(PhaseBegan(plan=PHASES, num_begun=1, step=20, segment=0))
    rewound = {"change": 1, "sentence": "stage4 unfrozen", "plan": PHASES, "num_phases_begun": 1}
    timeline.restore(restored(RunRewound, source="plan", **rewound))
    assert timeline.stages[1].is_present
    assert timeline.stages[1].is_by_hand
    timeline.restore(restored(RunRewound, source="user", **rewound))
    assert not timeline.stages[1].is_by_hand


def test_a_state_that_was_changed_by_hand_is_marked_so_again(timeline: PlanTimeline) -> None:
    timeline.restore(restored(RunRewound, change=1, sentence="conv1 frozen", plan=PHASES))
    assert not timeline.stages[0].is_by_hand
    undone = {"undone_segment": 1, "undone_step": 20, "plan": PHASES}
    timeline.restore(restored(RewindUndone, **undone, is_plan_overridden=True))
    assert timeline.stages[0].is_by_hand


def test_a_changed_plan_replaces_what_is_to_come(timeline: PlanTimeline) -> None:
    plan = [PHASES[0], PlanPhase(epoch=5, unfreeze=["conv5"])]
    timeline.change_plan(PlanChanged(plan=plan, num_begun=1, requested_step=1, applied_step=2, segment=0))
    assert [stage.when for stage in timeline.stages] == ["start", "epoch 2", "epoch 5"]


def test_phases_behind_the_end_of_a_run_that_got_shorter_never_come_until_it_is_longer_again(
    qtbot, timeline: PlanTimeline
) -> None:
    view = PlanTimelineView(timeline)
    qtbot.addWidget(view)
    timeline.set_length(6, 45)
    assert not any(stage.is_never for stage in timeline.stages)
    with qtbot.waitSignal(timeline.changed):
        timeline.set_length(2, 45)
    # A plateau would show in time, but the phase waits for those before it; the present one is begun.
    assert [stage.is_never for stage in timeline.stages] == [False, True, True, True]
    assert timeline.stages[1].sentence.endswith(" It never comes: the run ends before it.")
    assert "3 phase(s) never come" in view.accessibleName()
    timeline.begin_phase(PhaseBegan(plan=PHASES, num_begun=1, step=90, segment=0))
    timeline.note_change(frozen_by("user"))
    assert [stage.is_never for stage in timeline.stages] == [False, False, True, True]
    assert timeline.stages[1].sentence.endswith(" Changed by hand since.")
    timeline.set_length(6, 45)
    assert not any(stage.is_never or "never" in stage.sentence for stage in timeline.stages)
    assert "never" not in view.accessibleName()


def test_phases_that_were_to_come_as_the_patience_ended_the_run_never_come(timeline: PlanTimeline) -> None:
    timeline.begin_phase(PhaseBegan(plan=PHASES, num_begun=1, step=20, segment=0))
    timeline.set_over(True)
    assert [stage.is_never for stage in timeline.stages] == [False, False, True, True]
    assert timeline.stages[1].is_present
    # Trained on, or put back.
    timeline.set_over(False)
    assert not any(stage.is_never for stage in timeline.stages)


def test_a_plateau_that_has_no_epochs_to_show_never_comes(timeline: PlanTimeline) -> None:
    timeline.set_length(4, 45)
    assert not any(stage.is_never for stage in timeline.stages)
    timeline.set_length(3, 45)
    assert [stage.is_never for stage in timeline.stages] == [False, False, False, True]


def test_where_not_all_have_room_the_present_phase_is_among_those_that_do(qtbot, timeline: PlanTimeline) -> None:
    view = PlanTimelineView(timeline)
    qtbot.addWidget(view)
    view.resize(180, view.sizeHint().height())
    view.show()
    for num_begun in range(4):
        if num_begun:
            timeline.begin_phase(PhaseBegan(plan=PHASES, num_begun=num_begun, step=num_begun, segment=0))
        shown = view.shown()
        assert len(shown) == 2
        assert any(stage.is_present for stage, _ in shown)
        assert f"phase {num_begun + 1} of 4" in view.accessibleName()
