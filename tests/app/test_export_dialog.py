"""Export in the window: what is chosen, what is replaced only when allowed, and what becomes of a closed dialog."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PySide6.QtWidgets import QLabel

from app.main_window import MainWindow
from app.viewmodels.export import SHARED_AS, ExportTarget, ExportViewModel
from app.views.export_dialog import ExportDialog
from tests.app.conftest import checkpoint
from tests.trainer.recorded_runs import record_small_run

# The offscreen platform says so of every window of a fixed size.
pytestmark = [pytest.mark.window, pytest.mark.qt_log_ignore("propagateSizeHints")]


@pytest.fixture
def export(qtbot, tmp_path: Path):
    """Return an export of epoch 5 of a run whose folder is not there."""
    (tmp_path / "runs").mkdir()
    made = ExportViewModel("")
    made.choose(ExportTarget(tmp_path / "runs" / "of-digits", "digits", checkpoint(5, 0.5, 0.9)))
    yield made
    made.close()


@pytest.fixture
def dialog(qtbot, themed, export) -> ExportDialog:
    made = ExportDialog(export, None)
    qtbot.addWidget(made)
    made.show()
    return made


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_small_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def window(qtbot, themed, session, settings, clients, run_dir) -> MainWindow:
    """Return a window with a real run on display."""
    made = MainWindow(session, settings)
    made.load_views()
    qtbot.addWidget(made, before_close_func=lambda w: setattr(w, "_is_closing", True))
    made.show()
    clients[0].serve()
    session.open_run(run_dir)
    qtbot.waitUntil(lambda: made.display.checkpoints.rowCount() == 1)
    return made


def open_dialog(window: MainWindow) -> ExportDialog:
    window.checkpoints_view._export.trigger()
    return window.findChildren(ExportDialog)[-1]


def texts(dialog: ExportDialog) -> list[str]:
    return [label.text() for label in dialog.outcome.findChildren(QLabel)]


def test_a_name_is_offered_beside_the_run_and_ends_as_its_format_does(export, tmp_path) -> None:
    names = {}
    for choice in SHARED_AS:
        export.share_as(choice)
        names[choice] = export.to
    stem = str(tmp_path / "runs" / "of-digits_epoch-5")
    assert names == {
        "pt": f"{stem}.pt",
        "course": f"{stem}.pt",
        "pickle": f"{stem}.pt",
        "safetensors": f"{stem}.safetensors",
        "onnx": f"{stem}.onnx",
        "pt2": f"{stem}.pt2",
        "bundle": stem,
        "archive": f"{stem}.zip",
    }
    export.write_to("mine.zip")
    export.share_as("onnx")
    assert export.to == "mine.onnx"


def test_what_is_there_is_replaced_only_when_that_is_allowed(qtbot, export, dialog, tmp_path) -> None:
    qtbot.waitUntil(dialog.begin.isEnabled)
    assert not dialog.may_replace.isVisible()
    (tmp_path / "runs" / "taken.pt.json").write_text("mine", encoding="utf-8")
    export.write_to("taken.pt")
    assert not dialog.begin.isEnabled(), "nobody has looked yet"
    qtbot.waitUntil(dialog.may_replace.isVisible)
    assert dialog.may_replace.text() == "Replace taken.pt.json, which is there already"
    assert not dialog.begin.isEnabled()
    dialog.may_replace.click()
    assert dialog.begin.isEnabled()
    export.write_to("free.pt")
    qtbot.waitUntil(dialog.begin.isEnabled)
    assert not dialog.may_replace.isVisible()
    assert not export.may_replace, "it was allowed for another file"


@pytest.mark.parametrize(
    ("choice", "name", "sentence"),
    [
        ("onnx", "model.pt", "A file of the format onnx ends in .onnx, but model.pt does not. Choose another name."),
        ("archive", "bundle", "A bundle in one file ends in .zip, but bundle does not. Choose another name."),
        ("bundle", "a.zip", "a.zip is the name of a file. Choose another name for the bundle's folder."),
    ],
)
def test_a_name_that_does_not_fit_is_refused_beside_it(qtbot, export, dialog, choice, name, sentence) -> None:
    export.share_as(choice)
    export.write_to(name)
    qtbot.waitUntil(dialog.begin.isEnabled)
    dialog.begin.click()
    assert dialog.refusal.whole_text == sentence
    assert dialog.to.property("invalid")
    assert not export.is_going


def test_a_folder_that_is_not_there_is_told_beside_the_file_before_anything_begins(
    qtbot, export, dialog, tmp_path
) -> None:
    export.write_to(str(tmp_path / "gone" / "a.pt"))
    said = f"There is no folder {tmp_path / 'gone'}. Make it first, or choose another place."
    qtbot.waitUntil(lambda: dialog.refusal.whole_text == said)
    assert not dialog.begin.isEnabled()
    assert dialog.to.property("invalid")
    (tmp_path / "gone").mkdir()
    export.look_again()
    qtbot.waitUntil(dialog.begin.isEnabled)
    assert not dialog.refusal.whole_text
    assert not dialog.to.property("invalid")


@pytest.mark.parametrize("choice", ["pt", "bundle", "archive"])
@pytest.mark.parametrize("typed", ["/", "..", "."])
def test_a_path_that_ends_in_no_name_is_told_beside_it_before_anything_begins(
    qtbot, export, dialog, choice, typed
) -> None:
    export.share_as(choice)
    dialog.to.selectAll()
    qtbot.keyClicks(dialog.to, typed)
    assert export.to == typed
    assert dialog.refusal.whole_text == f"The path {typed} ends in no name of a file or bundle. Add one to it."
    assert dialog.to.property("invalid")
    assert not dialog.begin.isEnabled()
    assert not dialog.may_replace.isVisible()
    qtbot.keyClicks(dialog.to, "/free.zip" if choice == "archive" else "/free.pt")
    assert dialog.refusal.whole_text == ""
    dialog.to.clear()
    assert (dialog.refusal.whole_text, dialog.begin.isEnabled()) == ("", False)


def test_the_format_that_is_code_says_so_in_red(export, dialog) -> None:
    dialog.shared_as.setCurrentIndex(SHARED_AS.index("pickle"))
    dialog.shared_as.activated.emit(SHARED_AS.index("pickle"))
    assert "executes code" in dialog._sentence.text()
    assert dialog._sentence.property("role") == "error"
    export.share_as("safetensors")
    assert dialog._sentence.property("role") == "note"


@pytest.mark.slow
def test_a_refusal_stands_in_the_dialog_and_another_try_is_free(qtbot, export, dialog) -> None:
    qtbot.waitUntil(dialog.begin.isEnabled)
    dialog.begin.click()
    assert dialog.stop.isVisible()
    assert not dialog.begin.isVisible()
    qtbot.waitUntil(lambda: "is not a run of Thaw" in dialog.refusal.whole_text, timeout=60_000)
    assert not dialog.to.property("invalid")
    qtbot.waitUntil(dialog.begin.isVisible, timeout=60_000)
    assert not dialog.stop.isVisible()


@pytest.mark.slow
def test_a_checkpoint_is_exported_and_its_files_and_parity_are_shown(qtbot, window, tmp_path, settings) -> None:
    dialog = open_dialog(window)
    assert dialog._title.whole_text == "Epoch 1 · step 4 of small"
    window.display.export.write_to(str(tmp_path / "shared.pt"))
    qtbot.waitUntil(dialog.begin.isEnabled)
    dialog.begin.click()
    qtbot.waitUntil(lambda: dialog.show_folder.isVisible(), timeout=120_000)
    said = texts(dialog)
    assert f"Exported to {tmp_path / 'shared.pt'}" in said
    assert "shared.pt.json" in said
    assert any("validation images" in text for text in said)
    assert json.loads((tmp_path / "shared.pt.json").read_text(encoding="utf-8"))["model"]
    assert settings.export_folder == str(tmp_path)
    assert "is exported" not in window.notice.text, "it is told where it was asked for"


@pytest.mark.slow
def test_an_export_whose_dialog_is_closed_goes_on_and_is_told(qtbot, window, tmp_path) -> None:
    dialog = open_dialog(window)
    window.display.export.write_to(str(tmp_path / "later.pt"))
    qtbot.waitUntil(dialog.begin.isEnabled)
    dialog.begin.click()
    dialog.reject()
    assert "goes on" in window.notice.text
    assert open_dialog(window).stop.isVisible(), "one at a time: it is shown again"
    window.findChildren(ExportDialog)[-1].reject()
    qtbot.waitUntil(lambda: "is exported to" in window.notice.text, timeout=120_000)
    assert (tmp_path / "later.pt").is_file()


@pytest.mark.slow
def test_a_cancelled_export_leaves_nothing(qtbot, window, tmp_path) -> None:
    dialog = open_dialog(window)
    window.display.export.write_to(str(tmp_path / "never.pt"))
    qtbot.waitUntil(dialog.begin.isEnabled)
    dialog.begin.click()
    qtbot.waitUntil(lambda: window.display.export.progress[0] == "Loading PyTorch …")
    dialog.stop.click()
    qtbot.waitUntil(dialog.begin.isVisible)
    qtbot.waitUntil(lambda: not list(tmp_path.glob("*never*")) and not list(tmp_path.glob(".thaw-export*")))
