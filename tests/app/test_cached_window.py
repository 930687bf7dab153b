"""What is cached, in the whole window: as it happens, as a run is opened, and before one begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt

from app.main_window import MainWindow
from app.viewmodels.log import RESULT, WHAT
from tests.app.conftest import ScriptedClient
from tests.app.test_cached_layers import progress
from tests.app.test_session import write_run
from trainer.client import RunOpened
from trainer.messages.commands import InspectModel
from trainer.messages.events import FeaturesCached, ModelInspected, WorkerAttached
from trainer.messages.model_info import FrozenFeatures, ModelSummary
from trainer.messages.run_info import RunInfo
from trainer.messages.states import RunState
from trainer.runs import RunFolder

pytestmark = pytest.mark.window


@pytest.fixture
def window(qtbot, themed, session, settings) -> MainWindow:
    made = MainWindow(session, settings)
    made.load_views()
    made.resize(1280, 800)
    qtbot.addWidget(made, before_close_func=lambda w: setattr(w, "_is_closing", True))
    made.show()
    return made


@pytest.fixture
def running(qtbot, window: MainWindow, clients, begin_run) -> ScriptedClient:
    clients[0].serve()
    begin_run(clients[0])
    qtbot.waitUntil(lambda: window.session.state is RunState.RUNNING)
    return clients[0]


def answer(client: ScriptedClient, summary: ModelSummary, features: FrozenFeatures) -> None:
    """Answer the last look at a model."""
    summary = summary.model_copy(update={"features": features})
    client.say(ModelInspected(summary=summary, command_id=client.id_of_last("InspectModel"), time=1.0))


def cached_event(*layers: str, applied_step: int = 0) -> FeaturesCached:
    return FeaturesCached(
        layers=list(layers), sentence=" … ".join(layers), views=1, fixed_views=1, saved_share=0.5, num_bytes=8_000_000,
        is_in_memory=True, is_on_disk=False, reason="" if layers else "Nothing is frozen.",
        applied_step=applied_step, segment=0, time=4.0,
    )  # fmt: skip


def test_what_is_cached_is_a_line_of_the_tree_a_row_of_the_log_and_figures_of_the_footer(
    qtbot, window: MainWindow, running: ScriptedClient
) -> None:
    tree, log = window.display.layer_tree, window.display.log
    assert not tree.shows_cached
    running.say(cached_event("conv1", "stage2.0"))
    qtbot.waitUntil(lambda: tree.shows_cached)
    last = [log.index(log.rowCount() - 1, column).data() for column in (WHAT, RESULT)]
    assert last == [
        "Features cached",
        "conv1 … stage2.0 · 1 view · 8.0 MB in memory · 50.0 % of the forward computing saved",
    ]
    running.say(progress(0, 0.5, 31.0))
    qtbot.waitUntil(lambda: window.tree_view.step_label.whole_text == "Step 31 ms · features cached 50 %")
    running.say(progress(1, 1.0, 0.4))
    qtbot.waitUntil(lambda: window.tree_view.step_label.whole_text == "Step 0.4 ms · cached, 31 ms before")
    running.say(cached_event(applied_step=9))
    qtbot.waitUntil(lambda: not tree.shows_cached)
    assert [log.index(log.rowCount() - 1, column).data() for column in (WHAT, RESULT)] == [
        "Features not cached",
        "Nothing is frozen.",
    ]


def test_what_is_cached_comes_back_from_the_runs_folder_and_from_its_worker(
    qtbot, window: MainWindow, clients, tmp_path: Path, run_info: RunInfo
) -> None:
    run_dir = write_run(tmp_path / "runs", run_info)
    with RunFolder(run_dir) as folder:
        folder.add_event(cached_event("conv1"))
        record = folder.read()
    tree = window.display.layer_tree
    window.session.open_run(run_dir)
    qtbot.waitUntil(lambda: window.session.run_dir is not None)
    assert tree.shows_cached
    assert window.tree_view.tree.accessibleDescription().startswith("The features of conv1 are computed once an image")
    attached = WorkerAttached(
        state=RunState.RUNNING, pid=1, torch_version="2", devices=["cpu"], run=run_info, time=5.0,
        features=cached_event("conv1", "stage2.0"),
    )  # fmt: skip
    clients[0].say(RunOpened(record, is_live=True), attached)
    qtbot.waitUntil(lambda: window.session.state is RunState.RUNNING)
    assert window.tree_view.tree.accessibleDescription().startswith("The features of conv1 … stage2.0 are computed")


def test_what_could_be_cached_is_asked_for_anew_when_other_layers_are_ticked(
    qtbot, window: MainWindow, clients, summary: ModelSummary
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: "InspectModel" in clients[0].kinds())
    tree = window.display.layer_tree
    whole = FrozenFeatures(layers="backbone", units=["conv1", "stage2.0"], bytes_32=64, bytes_16=32, saved_share=0.9)
    answer(clients[0], summary, whole)
    qtbot.waitUntil(lambda: tree.shows_cached)
    tree.unfreeze_rows([row.id for row in tree.rows.in_order() if row.fqn == "stage2"])
    assert not tree.shows_cached, "of other ticks, nothing is known yet"
    qtbot.waitUntil(lambda: clients[0].kinds().count("InspectModel") == 2)
    asked = [command for command in clients[0].sent if isinstance(command, InspectModel)][-1]
    assert asked.model.frozen == ["conv1"]
    part = FrozenFeatures(layers="conv1", units=["conv1"], bytes_32=640, bytes_16=320, saved_share=0.2)
    answer(clients[0], summary, part)
    qtbot.waitUntil(lambda: tree.shows_cached)
    assert tree.frozen_layers == ["conv1"]
    assert "features of conv1 can be computed once" in window.tree_view.tree.accessibleDescription()
    # A run that is to cache nothing has no line, and has it back when it is to.
    window.display.run_config.set_text("training.feature_cache", "off")
    assert not tree.shows_cached
    window.display.run_config.set_text("training.feature_cache", "auto")
    assert tree.shows_cached


def test_a_new_run_asks_a_worker_that_is_kept_what_it_could_cache(
    qtbot, window: MainWindow, clients, tmp_path: Path, run_info: RunInfo
) -> None:
    clients[0].serve()
    qtbot.waitUntil(lambda: "InspectModel" in clients[0].kinds())
    window.session.open_run(write_run(tmp_path / "runs", run_info))
    qtbot.waitUntil(lambda: window.session.run_dir is not None)
    num_asked = clients[0].kinds().count("InspectModel")
    qtbot.mouseClick(window.toolbar._new, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: clients[0].kinds().count("InspectModel") == num_asked + 1)
    whole = FrozenFeatures(layers="backbone", units=["conv1", "stage2.0"], bytes_32=64, bytes_16=32, saved_share=0.9)
    answer(clients[0], run_info.summary, whole)
    qtbot.waitUntil(lambda: window.display.layer_tree.shows_cached)
    assert len(clients) == 1
