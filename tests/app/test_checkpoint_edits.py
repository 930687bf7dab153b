"""Pins, notes and deletions in the window: by the worker that has the run, else in its folder, and the trash."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from PySide6.QtCore import QPointF, Qt

from app import checkpoint_edits, deletions
from app.deletions import Deletion
from app.main_window import MainWindow
from app.run_display import RunDisplay
from app.session import TrainingSession
from app.trash import move_to_trash
from tests.app.conftest import checkpoint
from tests.app.test_session import write_run
from trainer.checkpoint_list import change_list_of_ended
from trainer.messages.commands import DeleteCheckpoints, PutCheckpointsBack
from trainer.messages.events import (
    CheckpointEdited,
    CheckpointSaved,
    CheckpointsDeleted,
    CheckpointsPutBack,
    CommandRejected,
)
from trainer.messages.run_info import CheckpointInfo
from trainer.messages.states import RunState
from trainer.runs import RunFolder


@pytest.fixture(autouse=True)
def trash(tmp_path: Path, monkeypatch) -> Path:
    """Return a trash of its own, empty, which is there before any run is opened."""
    made = tmp_path / "data"
    made.mkdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(made))
    return made / "Trash"


@pytest.fixture
def no_trash(monkeypatch) -> None:
    def refuse(path: Path) -> Path:
        raise OSError(0, "the system's trash does not take it", str(path))

    monkeypatch.setattr("app.trash.move_to_trash", refuse)


@pytest.fixture
def display(session, settings) -> RunDisplay:
    return RunDisplay(session, settings)


@pytest.fixture
def ended(qtbot, session, display, clients, tmp_path: Path, run_info) -> Path:
    """Return a run without a worker, of three checkpoints, that is on display."""
    path = write_run(tmp_path / "runs", run_info)
    with RunFolder(path) as folder:
        for epoch in (1, 2, 3):
            folder.checkpoints.add(write_file(path, epoch))
    clients[0].serve()
    session.open_run(path)
    qtbot.waitUntil(lambda: display.checkpoints.rowCount() == 3)
    return path


@pytest.fixture
def live(qtbot, session, display, clients, begin_run, run_info) -> Path:
    """Return a run that a worker trains, of two checkpoints."""
    path = Path(run_info.run_dir)
    (path / "checkpoints").mkdir(parents=True)
    clients[0].serve()
    begin_run(clients[0])
    clients[0].say(*(CheckpointSaved(checkpoint=write_file(path, epoch), time=4.0) for epoch in (1, 2)))
    qtbot.waitUntil(lambda: display.checkpoints.rowCount() == 2)
    clients[0].sent.clear()
    return path


def write_file(path: Path, epoch: int) -> CheckpointInfo:
    content = b"x" * 10 * epoch
    sha256 = hashlib.sha256(content).hexdigest()
    info = checkpoint(epoch, 0.5, 0.9, size_bytes=len(content), sha256=sha256)
    (path / "checkpoints" / info.name).write_bytes(content)
    return info


def name_of(epoch: int) -> str:
    return checkpoint(epoch, 0.5, 0.9).name


def files(path: Path) -> list[str]:
    return sorted(each.name for each in (path / "checkpoints").iterdir())


def shown(display: RunDisplay) -> list[str]:
    return [info.name for info in display.checkpoints.present.infos]


def test_marks_of_an_ended_run_are_kept_in_its_folder(qtbot, display, ended: Path) -> None:
    display.edits.edit([name_of(1), name_of(2)], is_pinned=True)
    display.edits.edit([name_of(1)], label="figure 3", note="before the warm-up")
    qtbot.waitUntil(lambda: display.checkpoints.present.info(name_of(1)).label == "figure 3")
    qtbot.waitUntil(lambda: all(display.checkpoints.present.info(name_of(epoch)).is_pinned for epoch in (1, 2)))
    with RunFolder(ended, read_only=True) as folder:
        kept = folder.checkpoints.find(name_of(1))
    assert (kept.is_pinned, kept.label, kept.note) == (True, "figure 3", "before the warm-up")


def test_deleted_checkpoints_lie_in_the_trash_and_come_back(qtbot, display, ended: Path, trash: Path) -> None:
    with qtbot.waitSignal(display.edits.deleted) as told:
        display.edits.delete([name_of(1), name_of(3)])
    deletion = told.args[0]
    assert isinstance(deletion, Deletion)
    assert (deletion.names, deletion.freed_bytes) == ([name_of(1), name_of(3)], 40)
    assert shown(display) == files(ended) == [name_of(2)]
    assert len(list((trash / "files").iterdir())) == 2
    assert display.edits.can_undo
    display.edits.undo()
    qtbot.waitUntil(lambda: len(shown(display)) == 3)
    assert shown(display) == files(ended) == [name_of(epoch) for epoch in (1, 2, 3)]
    assert not display.edits.can_undo
    assert not [*(trash / "files").iterdir(), *(trash / "info").iterdir()], "nothing is left of them there"
    with RunFolder(ended, read_only=True) as folder:
        assert [info.name for info in folder.checkpoints.listed()] == shown(display)


def test_an_undone_deletion_is_listed_again_though_another_run_is_on_display_by_now(
    qtbot, session, display, ended: Path, trash: Path, tmp_path: Path, run_info, monkeypatch: pytest.MonkeyPatch
) -> None:
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete([name_of(1)])
    is_left, take_out = threading.Event(), checkpoint_edits.trash.take_out

    def take_out_later(*args: Path) -> None:
        assert is_left.wait(timeout=30)
        take_out(*args)

    monkeypatch.setattr(checkpoint_edits.trash, "take_out", take_out_later)
    display.edits.undo()
    other = write_run(tmp_path / "others", run_info)
    session.open_run(other)
    qtbot.waitUntil(lambda: session.run_dir == other)
    is_left.set()

    def listed() -> list[str]:
        with RunFolder(ended, read_only=True) as folder:
            return [info.name for info in folder.checkpoints.listed()]

    qtbot.waitUntil(lambda: listed() == files(ended) == [name_of(epoch) for epoch in (1, 2, 3)])
    assert len(shown(display)) == 1, "the other run's"


def test_a_deletion_is_undone_when_its_run_is_opened_again(
    qtbot, session, display, ended: Path, trash: Path, tmp_path: Path, run_info
) -> None:
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete([name_of(1)])
    other = write_run(tmp_path / "others", run_info)
    session.open_run(other)
    qtbot.waitUntil(lambda: session.run_dir == other and len(shown(display)) == 1)
    assert not display.edits.can_undo
    session.open_run(ended)
    qtbot.waitUntil(lambda: session.run_dir == ended and len(shown(display)) == 2)
    qtbot.waitUntil(lambda: display.edits.can_undo)
    display.edits.undo()
    qtbot.waitUntil(lambda: len(shown(display)) == 3)
    assert files(ended) == [name_of(epoch) for epoch in (1, 2, 3)]


@pytest.fixture
def open_later(qtbot, qapp, tmp_path: Path, start_client, settings) -> Iterator[Callable[[Path], RunDisplay]]:
    """Open a run in a window that is started anew."""
    displays: list[tuple[TrainingSession, RunDisplay]] = []

    def open_anew(path: Path) -> RunDisplay:
        made = TrainingSession(tmp_path / "runs", start_worker=start_client)
        later = RunDisplay(made, settings)
        displays.append((made, later))
        made.open_run(path)
        qtbot.waitUntil(lambda: later.checkpoints.present.path in later.edits._deletions)
        return later

    yield open_anew
    for made, later in displays:
        later.close()
        made.detach()


def kept_rows(trash: Path) -> list[tuple[str, bool]]:
    """Return what is kept of deletions: the names of the files, and whether they are known to be in the trash."""
    with closing(sqlite3.connect(trash.parent / "thaw" / "deleted.db")) as database:
        rows = database.execute("SELECT path, trashed FROM deleted ORDER BY rowid").fetchall()
    return [(Path(os.fsdecode(path)).name, trashed is not None) for path, trashed in rows]


def all_epochs() -> list[str]:
    return [name_of(epoch) for epoch in (1, 2, 3)]


def test_deletions_are_undone_in_a_window_that_was_started_later(
    qtbot, display, ended: Path, trash: Path, open_later: Callable[[Path], RunDisplay]
) -> None:
    for epoch in (1, 2):
        with qtbot.waitSignal(display.edits.deleted):
            display.edits.delete([name_of(epoch)])
    later = open_later(ended)
    assert shown(later) == [name_of(3)]
    later.edits.undo()
    qtbot.waitUntil(lambda: shown(later) == files(ended) == [name_of(2), name_of(3)])
    later.edits.close()
    last = open_later(ended)
    assert last.edits.can_undo, "of the other one"
    last.edits.undo()
    qtbot.waitUntil(lambda: shown(last) == files(ended) == all_epochs())
    qtbot.waitUntil(lambda: not kept_rows(trash))
    assert not open_later(ended).edits.can_undo


def test_a_deletion_is_undone_by_another_path_to_the_run(
    qtbot, session, display, ended: Path, trash: Path, tmp_path: Path, open_later: Callable[[Path], RunDisplay]
) -> None:
    (tmp_path / "scratch").symlink_to(ended.parent)
    alias = tmp_path / "scratch" / ended.name
    session.open_run(alias)
    qtbot.waitUntil(lambda: display.checkpoints.present.path == alias)
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete([name_of(1)])
    later = open_later(ended)
    assert later.edits.can_undo
    later.edits.undo()
    qtbot.waitUntil(lambda: shown(later) == files(ended) == all_epochs())


def test_a_later_window_offers_nothing_of_a_trash_that_was_emptied(
    qtbot, display, ended: Path, trash: Path, open_later: Callable[[Path], RunDisplay]
) -> None:
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete([name_of(1), name_of(2)])
    # The trash has its name for another file by now.
    (trash / "files" / name_of(1)).write_bytes(b"another file")
    later = open_later(ended)
    assert kept_rows(trash) == [(name_of(2), True)]
    later.edits.undo()
    qtbot.waitUntil(lambda: shown(later) == files(ended) == [name_of(2), name_of(3)])
    qtbot.waitUntil(lambda: not kept_rows(trash))
    assert not later.edits.can_undo


def test_what_a_killed_window_had_not_moved_to_the_trash_is_listed_again(
    qtbot, ended: Path, trash: Path, open_later: Callable[[Path], RunDisplay]
) -> None:
    with RunFolder(ended, read_only=True) as folder:
        infos = folder.checkpoints.listed()
    trash.mkdir()
    deletion_id = deletions.begin_deletion(ended, infos)
    change_list_of_ended(ended, DeleteCheckpoints(names=all_epochs()), lambda path: None)
    moved = move_to_trash(ended / "checkpoints" / name_of(1))
    deletions.note_trashed(deletion_id, ended, infos[0], moved)
    later = open_later(ended)
    qtbot.waitUntil(lambda: shown(later) == files(ended) == [name_of(2), name_of(3)])
    qtbot.waitUntil(lambda: kept_rows(trash) == [(name_of(1), True)])
    later.edits.undo()
    qtbot.waitUntil(lambda: sorted(shown(later)) == files(ended) == all_epochs())
    with RunFolder(ended, read_only=True) as folder:
        assert len(folder.checkpoints.listed()) == 3


def test_a_name_that_a_run_holds_for_what_it_saves_is_not_what_a_killed_window_left(ended: Path, trash: Path) -> None:
    with RunFolder(ended, read_only=True) as folder:
        infos = folder.checkpoints.listed()
    trash.mkdir()
    deletion_id = deletions.begin_deletion(ended, infos[:1])
    path = ended / "checkpoints" / name_of(1)
    trashed = move_to_trash(path)
    deletions.note_trashed(deletion_id, ended, infos[0], trashed)
    path.touch()
    found, left = deletions.read_deletions(ended)
    assert left == []
    assert [deletion.names for deletion in found] == [[name_of(1)]]
    # Nor where the trash was emptied: there is nothing to list again.
    trashed.unlink()
    assert deletions.read_deletions(ended) == ([], [])


def test_what_another_window_is_about_to_move_to_the_trash_is_left_to_it(
    qtbot, ended: Path, trash: Path, open_later: Callable[[Path], RunDisplay]
) -> None:
    with RunFolder(ended, read_only=True) as folder:
        infos = folder.checkpoints.listed()
    deletions.begin_deletion(ended, infos[:2])
    change_list_of_ended(ended, DeleteCheckpoints(names=[info.name for info in infos[:2]]), lambda path: None)
    other = psutil.Process().parent()
    assert other is not None
    with closing(sqlite3.connect(trash.parent / "thaw" / "deleted.db")) as database, database:
        database.execute("UPDATE deleted SET pid = ?, begun_at = ?", (other.pid, other.create_time()))
    later = open_later(ended)
    later.edits.close()
    assert shown(later) == [name_of(3)]
    assert [name for name, _ in kept_rows(trash)] == all_epochs()[:2]


def test_what_cannot_be_taken_out_of_the_trash_can_be_undone_still(
    qtbot, display, ended: Path, trash: Path, monkeypatch
) -> None:
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete(all_epochs())
    take_out = checkpoint_edits.trash.take_out

    def fail_twice(trashed: Path, path: Path) -> None:
        if path.name in all_epochs()[:2]:
            raise PermissionError(13, "Permission denied", str(path))
        take_out(trashed, path)

    with monkeypatch.context() as patch, qtbot.waitSignal(display.edits.refused) as told:
        patch.setattr(checkpoint_edits.trash, "take_out", fail_twice)
        display.edits.undo()
    assert told.args == [
        f"Cannot put {name_of(1)} back: Permission denied. Look for it in the trash. 1 more did not come back either."
    ]
    qtbot.waitUntil(lambda: shown(display) == [name_of(3)])
    assert display.edits.can_undo
    display.edits.undo()
    qtbot.waitUntil(lambda: shown(display) == files(ended) == all_epochs())


def test_a_checkpoint_whose_name_a_newer_one_has_comes_back_beside_it(
    qtbot, display, ended: Path, trash: Path, open_later: Callable[[Path], RunDisplay]
) -> None:
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete([name_of(1), name_of(2)])
    with RunFolder(ended) as folder:
        # A run that was put back, and makes the epoch again, comes to the same loss and accuracy.
        folder.checkpoints.add(write_file(ended, 1))
    beside = name_of(1).replace(".pt", "_2.pt")
    later = open_later(ended)
    assert kept_rows(trash) == [(name_of(1), True), (name_of(2), True)], "nothing is forgotten"
    later.edits.undo()
    qtbot.waitUntil(lambda: sorted(shown(later)) == files(ended) == sorted([*all_epochs(), beside]))
    qtbot.waitUntil(lambda: not kept_rows(trash))
    assert not later.edits.can_undo
    with RunFolder(ended, read_only=True) as folder:
        assert folder.checkpoints.find(beside).epoch == 1


def test_of_two_that_were_deleted_by_one_name_each_comes_back(
    qtbot, display, ended: Path, trash: Path, open_later: Callable[[Path], RunDisplay]
) -> None:
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete([name_of(1)])
    with RunFolder(ended) as folder:
        folder.checkpoints.add(write_file(ended, 1))
    second = open_later(ended)
    with qtbot.waitSignal(second.edits.deleted):
        second.edits.delete([name_of(1)])
    second.edits.undo()
    qtbot.waitUntil(lambda: sorted(shown(second)) == files(ended) == all_epochs())
    qtbot.waitUntil(lambda: kept_rows(trash) == [(name_of(1), True)])
    last = open_later(ended)
    last.edits.undo()
    beside = name_of(1).replace(".pt", "_2.pt")
    qtbot.waitUntil(lambda: sorted(shown(last)) == files(ended) == sorted([*all_epochs(), beside]))
    qtbot.waitUntil(lambda: not kept_rows(trash))


def test_what_another_run_has_in_the_trash_by_the_same_name_is_left_there(
    qtbot, display, ended: Path, trash: Path
) -> None:
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete([name_of(1)])
    (trash / "files" / name_of(1)).write_bytes(b"y" * 10)
    with qtbot.waitSignal(display.edits.refused) as told:
        display.edits.undo()
    assert "the trash has another file by its name" in told.args[0]
    assert (trash / "files" / name_of(1)).read_bytes() == b"y" * 10
    assert files(ended) == [name_of(2), name_of(3)]


def test_one_that_came_back_by_another_name_is_listed_by_the_next_window_if_this_one_is_killed(
    qtbot, display, ended: Path, trash: Path, open_later: Callable[[Path], RunDisplay], monkeypatch
) -> None:
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete([name_of(1)])
    with RunFolder(ended) as folder:
        folder.checkpoints.add(write_file(ended, 1))
    monkeypatch.setattr(display.edits, "_put_back", lambda *_: None)
    display.edits.undo()
    beside = name_of(1).replace(".pt", "_2.pt")
    qtbot.waitUntil(lambda: files(ended) == sorted([*all_epochs(), beside]))
    later = open_later(ended)
    qtbot.waitUntil(lambda: sorted(shown(later)) == files(ended))


def test_what_a_worker_refuses_to_delete_is_kept_no_longer(qtbot, display, clients, live: Path, trash: Path) -> None:
    worker = clients[0]
    display.edits.delete([name_of(1)])
    qtbot.waitUntil(lambda: "DeleteCheckpoints" in worker.kinds())
    assert kept_rows(trash) == [(name_of(1), False)]
    command_id = worker.id_of_last("DeleteCheckpoints")
    worker.say(CommandRejected(command_id=command_id, command="DeleteCheckpoints", reason="It is pinned.", time=6.0))
    qtbot.waitUntil(lambda: not kept_rows(trash))
    assert len(files(live)) == 2


def test_what_a_worker_does_not_list_again_is_listed_when_the_run_is_opened_next(
    qtbot, display, clients, live: Path, trash: Path
) -> None:
    worker = clients[0]
    display.edits.delete([name_of(1)])
    qtbot.waitUntil(lambda: "DeleteCheckpoints" in worker.kinds())
    with qtbot.waitSignal(display.edits.deleted):
        command_id = worker.id_of_last("DeleteCheckpoints")
        worker.say(CheckpointsDeleted(names=[name_of(1)], freed_bytes=10, command_id=command_id, time=6.0))
    display.edits.undo()
    qtbot.waitUntil(lambda: "PutCheckpointsBack" in worker.kinds())
    assert len(files(live)) == 2, "it is out of the trash"
    _, left = deletions.read_deletions(live)
    assert [each.info.name for each in left] == [name_of(1)]


def test_a_record_that_cannot_be_kept_is_told_and_the_deletion_is_undone_in_this_window(
    qtbot, display, ended: Path, trash: Path
) -> None:
    record = trash.parent / "thaw" / "deleted.db"
    # What was deleted before is read as the run is opened, which makes the folder.
    qtbot.waitUntil(lambda: ended in display.edits._deletions)
    record.write_bytes(b"no database" * 100)
    with qtbot.waitSignal(display.edits.deleted) as told:
        display.edits.delete([name_of(1)])
    assert told.args[0].kept.startswith(f"Cannot keep in {record} what is deleted: ")
    assert shown(display) == files(ended) == [name_of(2), name_of(3)]
    display.edits.undo()
    qtbot.waitUntil(lambda: shown(display) == files(ended) == all_epochs())


def test_deletions_are_undone_one_after_the_other(qtbot, display, ended: Path, trash: Path) -> None:
    for epoch in (1, 2):
        with qtbot.waitSignal(display.edits.deleted):
            display.edits.delete([name_of(epoch)])
    display.edits.undo()
    qtbot.waitUntil(lambda: shown(display) == [name_of(2), name_of(3)])
    display.edits.undo()
    qtbot.waitUntil(lambda: len(shown(display)) == 3)
    assert not display.edits.can_undo


def test_those_that_are_listed_again_in_several_answers_are_told_at_once(
    qtbot, display, ended: Path, trash: Path, monkeypatch
) -> None:
    monkeypatch.setattr(checkpoint_edits, "_MOST_AT_ONCE", 2)
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete(all_epochs())
    selected: list[list[str]] = []
    display.checkpoints.selection_wanted.connect(lambda keys: selected.append([key.name for key in keys]))
    display.edits.undo()
    qtbot.waitUntil(lambda: bool(selected))
    assert selected == [all_epochs()]
    assert sorted(shown(display)) == all_epochs()


def test_one_that_cannot_be_listed_again_is_told_and_holds_up_no_other(
    qtbot, display, ended: Path, trash: Path, monkeypatch
) -> None:
    # It is changed between the look at it and its way back.
    monkeypatch.setattr(checkpoint_edits, "has_bytes", lambda *_: True)
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete([name_of(1), name_of(2)])
    (trash / "files" / name_of(1)).write_bytes(b"another file")
    with qtbot.waitSignal(display.edits.refused) as told:
        display.edits.undo()
    assert told.args[0].startswith(f"Cannot list again: {name_of(1)} (")
    qtbot.waitUntil(lambda: shown(display) == [name_of(2), name_of(3)])


def test_an_emptied_trash_is_told_when_a_deletion_is_undone(qtbot, display, ended: Path, trash: Path) -> None:
    with qtbot.waitSignal(display.edits.deleted):
        display.edits.delete([name_of(1)])
    for file in (trash / "files").iterdir():
        file.unlink()
    with qtbot.waitSignal(display.edits.refused) as told:
        display.edits.undo()
    assert told.args == [f"Cannot put {name_of(1)} back: the trash was emptied. Look for it in the trash."]
    assert len(shown(display)) == 2


def test_where_the_one_to_go_on_from_is_deleted_the_one_before_it_is_marked(
    qtbot, session, display, clients, tmp_path: Path, run_info, trash: Path
) -> None:
    path = write_run(tmp_path / "runs", run_info)
    with RunFolder(path) as folder:
        for epoch in (1, 2, 3):
            folder.checkpoints.add(write_file(path, epoch))
        folder.begin_segment(90, name_of(2), 9.0)
    clients[0].serve()
    session.open_run(path)

    def marked() -> list[str]:
        run = display.checkpoints.present
        return [info.name for info in run.infos if "resume point" in run.tags_of(info)]

    qtbot.waitUntil(lambda: marked() == [name_of(2)])
    display.edits.delete([name_of(2)])
    qtbot.waitUntil(lambda: marked() == [name_of(1)])


@pytest.mark.usefixtures("no_trash")
def test_without_a_trash_the_user_is_asked_before_anything_is_deleted(qtbot, display, ended: Path) -> None:
    with qtbot.waitSignal(display.edits.confirmation_needed) as asked:
        display.edits.delete([name_of(1)])
    assert asked.args == [[name_of(1)]]
    assert files(ended) == [name_of(epoch) for epoch in (1, 2, 3)], "and nothing else lies there"
    with qtbot.waitSignal(display.edits.deleted) as told:
        display.edits.delete_for_good([name_of(1)])
    assert told.args[0].trashed == []
    assert not display.edits.can_undo
    assert shown(display) == files(ended) == [name_of(2), name_of(3)]


def test_a_pinned_checkpoint_is_not_deleted(qtbot, display, ended: Path, trash: Path) -> None:
    display.edits.edit([name_of(2)], is_pinned=True)
    qtbot.waitUntil(lambda: display.checkpoints.present.info(name_of(2)).is_pinned)
    with qtbot.waitSignal(display.edits.refused) as told:
        display.edits.delete([name_of(2)])
    assert "is pinned" in told.args[0]
    assert len(shown(display)) == len(files(ended)) == 3
    with qtbot.waitSignal(display.edits.deleted) as told:
        display.edits.delete([name_of(1), name_of(2)])
    assert told.args[0].names == [name_of(1)]
    assert told.args[0].kept == f"{name_of(2)} stays: it is pinned."


def test_of_a_live_run_the_worker_decides_and_the_window_moves_the_files(
    qtbot, display, clients, live: Path, trash: Path
) -> None:
    worker = clients[0]
    display.edits.edit([name_of(1)], is_pinned=True)
    assert worker.kinds() == ["EditCheckpoint"]
    pinned = display.checkpoints.present.info(name_of(1)).model_copy(update={"is_pinned": True})
    worker.say(CheckpointEdited(checkpoint=pinned, command_id=worker.id_of_last("EditCheckpoint"), time=5.0))
    qtbot.waitUntil(lambda: display.checkpoints.present.info(name_of(1)).is_pinned)
    display.edits.delete([name_of(1), name_of(2)])
    qtbot.waitUntil(lambda: "DeleteCheckpoints" in worker.kinds())
    assert worker.sent[-1].leaves_files
    assert len(files(live)) == 2, "until the worker has agreed"
    deleted = CheckpointsDeleted(names=[name_of(1)], freed_bytes=10, kept="The other stays.", time=6.0)
    with qtbot.waitSignal(display.edits.deleted) as told:
        worker.say(deleted.model_copy(update={"command_id": worker.id_of_last("DeleteCheckpoints")}))
    assert (told.args[0].names, told.args[0].kept) == ([name_of(1)], "The other stays.")
    assert shown(display) == files(live) == [name_of(2)]
    assert len(list((trash / "files").iterdir())) == 1
    display.edits.undo()
    qtbot.waitUntil(lambda: "PutCheckpointsBack" in worker.kinds())
    assert worker.sent[-1] == PutCheckpointsBack(checkpoints=[pinned], command_id=worker.sent[-1].command_id)
    assert len(files(live)) == 2
    said = []
    display.edits.refused.connect(said.append)
    back = CheckpointsPutBack(checkpoints=[pinned], problem="Another cannot be listed again.", time=7.0)
    worker.say(back, back.model_copy(update={"command_id": worker.sent[-1].command_id}))
    qtbot.waitUntil(lambda: bool(said))
    assert shown(display) == [name_of(1), name_of(2)]
    assert said == [back.problem], "that of what another window asked for is told there"


def test_what_a_worker_deletes_for_good_is_told_with_what_could_not_be(qtbot, display, clients, live: Path) -> None:
    worker = clients[0]
    for problem in ("", "Cannot delete it."):
        display.edits.delete_for_good([name_of(1)])
        assert not worker.sent[-1].leaves_files
        event = CheckpointsDeleted(names=[name_of(1)], freed_bytes=10, problem=problem, time=6.0)
        with qtbot.waitSignal(display.edits.refused if problem else display.edits.deleted) as told:
            worker.say(event.model_copy(update={"command_id": worker.id_of_last("DeleteCheckpoints")}))
        assert told.args == ([problem] if problem else [Deletion([name_of(1)], 10, [])])


def test_what_another_window_deletes_leaves_the_list_and_no_undo(qtbot, display, clients, live: Path) -> None:
    clients[0].say(CheckpointsDeleted(names=[name_of(1)], freed_bytes=10, command_id="another's", time=6.0))
    qtbot.waitUntil(lambda: shown(display) == [name_of(2)])
    assert not display.edits.can_undo
    assert display.status.state is RunState.RUNNING


def test_chosen_columns_are_remembered(display, session, settings) -> None:
    display.checkpoints.choose_column("rate", True)
    display.checkpoints.choose_column("size", False)
    assert RunDisplay(session, settings).checkpoints.columns == {"rate": True, "size": False}
    display.checkpoints.forget_columns()
    assert RunDisplay(session, settings).checkpoints.columns == {}


@pytest.mark.window
@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_a_deletion_is_undone_from_its_notice_or_with_a_key(
    qtbot, themed, session, settings, clients, tmp_path: Path, run_info, trash: Path
) -> None:
    path = write_run(tmp_path / "runs", run_info)
    with RunFolder(path) as folder:
        for epoch in (1, 2, 3):
            folder.checkpoints.add(write_file(path, epoch))
    window = MainWindow(session, settings)
    qtbot.addWidget(window)
    window.load_views()
    window.show()
    clients[0].serve()
    session.open_run(path)
    view, checkpoints = window.checkpoints_view, window.display.checkpoints
    qtbot.waitUntil(lambda: checkpoints.rowCount() == 3)
    window.activateWindow()
    view._table.setFocus()
    qtbot.waitUntil(view._table.hasFocus)
    for undo in ("key", "menu", "button"):
        assert not view._put_back.isEnabled()
        view._table.selectAll()
        qtbot.keyClick(view._table, Qt.Key.Key_Delete)
        qtbot.waitUntil(lambda: window.notice.text == "Moved to the trash: 3 checkpoints with the best one, 60 B.")
        assert not files(path)
        if undo == "key":
            qtbot.keyClick(view._table, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
        elif undo == "menu":
            view._put_back.trigger()
        else:
            qtbot.mouseClick(window.notice._buttons[0], Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: checkpoints.rowCount() == 3)
        assert window.notice.text == ""
        assert len(files(path)) == 3
        qtbot.waitUntil(lambda: len(view._table.selected_keys) == 3)
        view._table.clearSelection()


@pytest.mark.window
@pytest.mark.qt_log_ignore("propagateSizeHints")
def test_a_mark_on_the_curves_raises_the_table_and_the_menu_there_restores(
    qtbot, themed, session, settings, clients, tmp_path: Path, run_info
) -> None:
    path = write_run(tmp_path / "runs", run_info)
    with RunFolder(path) as folder:
        for epoch in (1, 2, 3):
            folder.checkpoints.add(write_file(path, epoch))
    window = MainWindow(session, settings)
    qtbot.addWidget(window)
    window.load_views()
    window.show()
    clients[0].serve()
    session.open_run(path)
    qtbot.waitUntil(lambda: window.display.checkpoints.rowCount() == 3)
    window.tabs.setCurrentWidget(window.log_view)
    plot = window.metrics_view.loss
    box = plot.view_box
    assert window.checkpoints_view.selected_name == name_of(3)
    window.display.checkpoints.selection_wanted.emit([window.display.checkpoints.present.key(name_of(1))])
    assert window.tabs.currentWidget() is window.checkpoints_view
    assert window.checkpoints_view.selected_name == name_of(1)
    at_step = box.mapToScene(box.mapFromView(QPointF(1, box.viewRange()[1][1] / 2)))
    restore = plot.step_menu(at_step).actions()[0]
    assert restore.text() == "Restore the nearest checkpoint (epoch 1, step 45)"
    restore.trigger()
    qtbot.waitUntil(lambda: "OpenRun" in clients[0].kinds())
    assert (clients[0].sent[-1].checkpoint, clients[0].sent[-1].start) == (name_of(1), False)
