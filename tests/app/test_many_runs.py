"""The checkpoint table over several runs: read from their folders, keyed by run and name, changed only in one's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QAbstractItemModelTester
from PySide6.QtWidgets import QApplication

from app.main_window import MainWindow
from app.viewmodels.checkpoint_columns import EPOCH, LOSS, PARENT, RUN, TAGS
from app.viewmodels.checkpoint_order import CheckpointSortModel
from app.viewmodels.checkpoint_run import CheckpointKey
from app.viewmodels.checkpoint_table import CheckpointItemModel
from tests.app.conftest import checkpoint
from tests.app.test_session import write_run
from trainer.config import BranchConfig, RunConfig
from trainer.messages.events import CheckpointSaved, RunPrepared
from trainer.messages.run_info import RunInfo
from trainer.run_list import read_checkpoints
from trainer.runs import RunFolder


def write_family(runs_dir: Path, run_info: RunInfo) -> dict[str, Path]:
    """Write a run of two checkpoints, a branch of it, a branch of that, and a stranger; of each, a file each."""
    made: dict[str, Path] = {}
    for name, parent in (("root", ""), ("branch", "root"), ("twig", "branch"), ("stranger", "")):
        config = run_info.config.model_copy(update={"name": name})
        if parent:
            branch = BranchConfig(run=str(made[parent]), checkpoint="checkpoint_tiny_001.pt")
            config = config.model_copy(update={"branch": branch})
        made[name] = write_run(runs_dir, run_info.model_copy(update={"config": config}))
    with RunFolder(made["root"]) as folder:
        folder.checkpoints.add(checkpoint(2, 0.1, 0.95))
    for path in made.values():
        with RunFolder(path) as folder:
            for info in folder.checkpoints.listed():
                (folder.checkpoints_dir / info.name).write_bytes(b"x" * info.size_bytes)
    return made


@pytest.fixture
def family(tmp_path: Path, run_info: RunInfo) -> dict[str, Path]:
    return write_family(tmp_path / "runs", run_info)


@pytest.fixture
def many(qapp, tmp_path: Path, family: dict[str, Path]) -> CheckpointItemModel:
    """Return the family's checkpoints, of which the branch is on display."""
    made = CheckpointItemModel()
    made.tester = QAbstractItemModelTester(made, QAbstractItemModelTester.FailureReportingMode.Fatal)
    readings = read_checkpoints(tmp_path / "runs")
    (own,) = (reading for reading in readings if reading.path == family["branch"])
    made.reset(own.checkpoints, own.path, own.config)
    made.show_others(readings)
    return made


def runs(model, column: int = RUN) -> list[str]:
    return [model.index(row, column).data().partition(" ")[0] for row in range(model.rowCount())]


def test_each_run_has_its_own_best_and_last_and_says_whose_branch_it_is(many) -> None:
    shown = CheckpointSortModel(many)
    shown.sort(RUN, Qt.SortOrder.AscendingOrder)
    named = {
        (name, shown.index(row, EPOCH).data()): shown.index(row, TAGS).data() for row, name in enumerate(runs(shown))
    }
    assert named == {
        ("branch", "1"): "best, last",
        ("root", "1"): "",
        ("root", "2"): "best, last",
        ("stranger", "1"): "best, last",
        ("twig", "1"): "best, last",
    }
    stars = sum(shown.standing(row).is_best for row in range(5))
    assert stars == 4
    origins = [shown.index(row, PARENT).data() for row in range(5)]
    assert sorted(origins) == ["branch-tiny, checkpoint_tiny_001.pt", "root-tiny, checkpoint_tiny_001.pt", *["–"] * 3]
    many.show_others([])
    assert not many.has_values(RUN)
    assert not many.has_values(PARENT)


def test_rows_of_one_name_are_told_apart_by_their_runs(many, family) -> None:
    name = "checkpoint_tiny_001.pt"
    keys = {run: CheckpointKey(path, name) for run, path in family.items()}
    assert {run: many.run_of(key).path for run, key in keys.items()} == family
    many.remove([name])
    assert many.checkpoint(keys["branch"]) is None
    assert many.checkpoint(keys["root"]) is not None


def test_saves_of_the_present_run_arrive_while_others_are_shown(many, family: dict[str, Path]) -> None:
    shown = CheckpointSortModel(many)
    shown.tester = QAbstractItemModelTester(shown, QAbstractItemModelTester.FailureReportingMode.Fatal)
    shown.group_by_run(True)
    shown.sort(LOSS, Qt.SortOrder.AscendingOrder)
    many.add(checkpoint(3, 0.3, 0.5))
    many.add(checkpoint(4, None, None))
    assert runs(shown)[:3] == ["branch"] * 3
    assert [shown.index(row, EPOCH).data() for row in range(3)] == ["3", "1", "4"]
    # Folders are named by the second in which a run began, and then by the run.
    newest_first = sorted(("twig", "stranger"), key=family.__getitem__, reverse=True)
    assert runs(shown)[3:] == [*newest_first, "root", "root"]
    assert [row for row in range(shown.rowCount()) if shown.begins_group(row)] == [3, 4, 5]
    shown.sort(LOSS, Qt.SortOrder.DescendingOrder)
    assert [shown.index(row, EPOCH).data() for row in range(3)] == ["1", "3", "4"], "no value comes last in its group"
    shown.group_by_run(False)
    assert not any(map(shown.begins_group, range(shown.rowCount())))


def test_each_run_says_from_which_checkpoint_it_would_go_on(many, family, tmp_path) -> None:
    with RunFolder(family["root"]) as folder:
        folder.begin_segment(45, "checkpoint_tiny_001.pt", 9.0)
    many.show_others(read_checkpoints(tmp_path / "runs"))
    root = CheckpointKey(family["root"], "checkpoint_tiny_001.pt")
    assert many.index(many.row_of(root), TAGS).data() == "resume point"
    assert many.index(many.row_of(root) + 1, TAGS).data() == "best, last, left behind"


def test_the_filter_goes_over_all_runs_and_their_names(many) -> None:
    shown = CheckpointSortModel(many)
    shown.set_filter("stranger best")
    assert runs(shown) == ["stranger"]
    shown.set_filter("root best")
    assert sorted(runs(shown)) == ["branch", "root"], "a branch has its parent's name"
    shown.set_filter("tiny_001")
    assert len(runs(shown)) == 4


def test_the_same_reading_again_leaves_the_table_alone(qtbot, many, tmp_path, family) -> None:
    with qtbot.assertNotEmitted(many.modelReset):
        many.show_others(read_checkpoints(tmp_path / "runs"))
    with RunFolder(family["root"]) as folder:
        folder.checkpoints.change(checkpoint(2, 0.1, 0.95, label="figure 3"))
    with qtbot.waitSignal(many.modelReset):
        many.show_others(read_checkpoints(tmp_path / "runs"))
    assert many.checkpoint(CheckpointKey(family["root"], "checkpoint_tiny_002.pt")).label == "figure 3"


@pytest.fixture
def window(qtbot, themed, session, settings, clients, family) -> MainWindow:
    """Return a window with the branch on display."""
    made = MainWindow(session, settings)
    made.load_views()
    made.resize(1280, 800)
    qtbot.addWidget(made, before_close_func=lambda w: setattr(w, "_is_closing", True))
    made.show()
    clients[0].serve()
    session.open_run(family["branch"])
    qtbot.waitUntil(lambda: made.display.checkpoints.rowCount() == 1)
    return made


def choose(window: MainWindow, scope: str) -> None:
    window.checkpoints_view.scope.choices[scope].trigger()


def select(window: MainWindow, path: Path) -> None:
    window.checkpoints_view._table.select_keys([CheckpointKey(path, "checkpoint_tiny_001.pt")])


@pytest.mark.window
def test_the_scope_is_this_run_then_its_relatives_then_all_runs(qtbot, window) -> None:
    table = window.display.checkpoints
    choose(window, "lineage")
    qtbot.waitUntil(lambda: sorted(set(runs(table))) == ["branch", "root", "twig"])
    choose(window, "all")
    qtbot.waitUntil(lambda: table.rowCount() == 5)
    assert not window.checkpoints_view._table.isColumnHidden(RUN)
    choose(window, "run")
    assert table.rowCount() == 1
    assert window.checkpoints_view._table.isColumnHidden(RUN)


@pytest.mark.window
def test_what_would_change_another_run_is_off_and_says_why(qtbot, window, family, tmp_path) -> None:
    view = window.checkpoints_view
    choose(window, "all")
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() == 5)
    select(window, family["branch"])
    assert view._pin.isEnabled()
    assert view._resume.isEnabled()
    assert not view._open.isEnabled()
    select(window, family["stranger"])
    off = (view._restore, view._resume, view._restore_weights, view._verify, view._pin, view._mark, view._delete)
    for each in off:
        assert not each.isEnabled()
        assert "Open this run first" in each.toolTip()
    for each in (view._branch, view._export, view._copy, view._show, view._open):
        assert each.isEnabled()
    assert window.display.details.details.differences == [
        "of another run: " + window.display.checkpoints.run_of(view.selected_key).title
    ]
    view._open.trigger()
    qtbot.waitUntil(lambda: window.session.run_dir == family["stranger"])
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() == 5)
    select(window, family["stranger"])
    assert view._pin.isEnabled()
    assert "Open this run" not in view._restore.toolTip()


@pytest.mark.window
def test_a_branch_of_another_run_begins_from_that_runs_configuration(qtbot, window, family) -> None:
    choose(window, "all")
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() == 5)
    select(window, family["stranger"])
    window.checkpoints_view._branch.trigger()
    qtbot.waitUntil(lambda: window.session.run_dir is None)
    config = window.display.run_config.values()
    assert config["name"] == "stranger"
    assert config["branch"]["run"] == str(family["stranger"])


@pytest.mark.window
def test_a_damaged_run_is_told_once_and_a_deleted_one_leaves_the_table(qtbot, window, family, monkeypatch) -> None:
    (family["twig"] / "run.db").write_bytes(b"no database" * 100)
    told = []
    window.display.told.connect(lambda sentence, _: told.append(sentence))
    choose(window, "all")
    qtbot.waitUntil(lambda: sorted(set(runs(window.display.checkpoints))) == ["branch", "root", "stranger"])
    shutil.rmtree(family["stranger"])
    window.checkpoints_view.others_wanted.emit()
    qtbot.waitUntil(lambda: sorted(set(runs(window.display.checkpoints))) == ["branch", "root"])
    assert len(told) == 1
    assert str(family["twig"] / "run.db") in told[0]


@pytest.mark.window
def test_the_selection_stays_as_others_come_and_live_saves_arrive(
    qtbot, window, family, session, clients, run_info, begin_run
) -> None:
    choose(window, "all")
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() == 5)
    view = window.checkpoints_view
    key = CheckpointKey(family["root"], "checkpoint_tiny_001.pt")
    window.display.checkpoints.selection_wanted.emit([key])
    assert view.selected_key == key
    assert view.selected_name is None, "it is not of the run on display"
    session.checkpoint_saved.emit(CheckpointSaved(checkpoint=checkpoint(7, 0.2, 0.9)))
    assert window.display.checkpoints.rowCount() == 6
    assert view.selected_key == key


def test_relatives_are_those_above_and_the_branches(family, tmp_path) -> None:
    def names(path: Path) -> set[str]:
        return {reading.config.name for reading in read_checkpoints(tmp_path / "runs", path)}

    assert names(family["root"]) == {"root", "branch", "twig"}
    assert names(family["twig"]) == {"root", "branch", "twig"}
    assert names(family["stranger"]) == {"stranger"}


def test_a_reading_says_what_is_wrong_with_each_file(family, tmp_path) -> None:
    (family["root"] / "checkpoints" / "checkpoint_tiny_002.pt").unlink()
    (found,) = (each for each in read_checkpoints(tmp_path / "runs") if each.path == family["root"])
    assert found.problems == {"checkpoint_tiny_002.pt": "file is missing"}
    assert isinstance(found.config, RunConfig)


@pytest.mark.window
@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_the_table_stays_where_it_was_scrolled_to_as_other_runs_go_on(qtbot, window, family) -> None:
    with RunFolder(family["root"]) as folder:
        for epoch in range(3, 40):
            folder.checkpoints.add(checkpoint(epoch, 0.5, 0.5))
    choose(window, "all")
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() == 42)
    bar = window.checkpoints_view._table.verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 200)
    bar.setValue(200)
    with RunFolder(family["root"]) as folder:
        folder.checkpoints.change(checkpoint(2, 0.1, 0.95, label="figure 3"))
    with qtbot.waitSignal(window.display.checkpoints.modelReset):
        window.checkpoints_view.others_wanted.emit()
    QApplication.processEvents()
    assert bar.value() == 200


@pytest.mark.window
def test_a_run_that_is_opened_through_a_link_is_listed_once_and_stays_as_it_is_resumed(
    qtbot, window, family, session, tmp_path, run_info
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "runs")
    session.open_run(link / family["root"].name)
    qtbot.waitUntil(lambda: session.run_dir == link / family["root"].name)
    choose(window, "all")
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() == 5)
    resumed = run_info.model_copy(update={"run_dir": str(family["root"].resolve())})
    session.run_prepared.emit(RunPrepared(run=resumed, step=90, epoch=2))
    assert len(window.display.checkpoints.present.infos) == 2
    assert window.display.checkpoints.rowCount() == 5
