"""The run form: what was typed, what is wrong with it, and what was applied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from PySide6.QtCore import QByteArray, QLocale, QRect, Qt
from PySide6.QtWidgets import QApplication, QComboBox, QLabel, QLineEdit, QWidget

from app.viewmodels.plan_text import parse_plan, plan_sentence, plan_text
from app.viewmodels.run_config import COLUMN_FIELDS, FIELDS, SECTIONS, RunConfigViewModel
from app.views.choice_field import ChoiceField
from app.views.run_form import RunForm
from tests.app.conftest import checked
from trainer.config import DataConfig, ModelConfig, OptimizerConfig, PlanPhase, RunConfig, TrainingConfig
from trainer.messages import CommandRejected, DataChecked, ImagePreset, ModelEntry, TableColumns


@pytest.fixture
def run_config(qapp) -> RunConfigViewModel:
    return RunConfigViewModel()


@pytest.fixture
def form(qtbot, themed, run_config: RunConfigViewModel) -> RunForm:
    made = RunForm(run_config)
    qtbot.addWidget(made)
    made._headings["columns"].setChecked(True)
    made._headings["more"].setChecked(True)
    return made


@pytest.fixture
def shown_form(qtbot, form: RunForm) -> Iterator[RunForm]:
    """Return the form on screen, as narrow as the window may make it."""
    window = QWidget()
    form.setParent(window)
    form.resize(272, 700)
    window.resize(form.size())
    with qtbot.waitExposed(window):
        window.show()
    yield form
    form.setParent(None)


def test_a_configuration_comes_back_as_it_was_shown(run_config: RunConfigViewModel) -> None:
    config = RunConfig(
        name="digits",
        data=DataConfig(
            path="digits.zip",
            image_size=48,
            validation_fraction=0.25,
            mean=[0.5, 0.4, 0.3],
            cache_gb=1.5,
            mixing="mixup",
        ),
        model=ModelConfig(name="resnet18", frozen=["conv1", "layer1"]),
        plan=[PlanPhase(epoch=3, unfreeze=["layer4", "layer3"]), PlanPhase(epoch=5, freeze=["layer3"])],
    )
    run_config.show_config(config)
    assert run_config.config() == config


def test_values_of_another_version_fall_back_to_the_defaults(qapp) -> None:
    old = RunConfigViewModel({"optimizer": {"name": "Lion"}})
    assert old.text("optimizer.name") == "AdamW"


@pytest.mark.parametrize(
    ("field", "text", "sentence"),
    [
        ("optimizer.rate", "-1", "Rate is -1.0, but should be greater than 0. Change it."),
        ("optimizer.rate", "fast", "Rate is 'fast', but should be a number"),
        ("training.epochs", "0", "Epochs is '0', but should be greater than or equal to 1"),
        ("training.epochs", "six", "Epochs is 'six', but should be a whole number"),
        ("data.image_size", "4", "Image size is '4', but should be greater than or equal to 8"),
        ("data.mean", "0.5", "Mean is ['0.5'], but should be three numbers, for red, green and blue. Change it."),
        ("data.std", "0.5, x, 0.5", "Deviation is 'x', but should be a number"),
        ("plan", "stage4 later", "Write the plan as"),
        ("plan", "0: +stage4", "should be greater than or equal to 1"),
    ],
)
def test_each_field_says_what_is_wrong_with_it(run_config, field: str, text: str, sentence: str) -> None:
    run_config.set_text(field, text)
    assert sentence in run_config.error(field)
    assert [other for other in FIELDS if run_config.error(other)] == [field]


def test_an_error_goes_when_the_value_is_mended(run_config: RunConfigViewModel) -> None:
    run_config.set_text("optimizer.rate", "0")
    run_config.set_text("optimizer.rate", "1e-4")
    assert run_config.error("optimizer.rate") == ""


def test_start_without_data_names_the_data_field(run_config: RunConfigViewModel) -> None:
    assert run_config.config() is None
    assert run_config.error("data.path") == "Choose a folder, an archive or a table of images."


def test_a_decimal_point_is_one_where_commas_are_written(run_config: RunConfigViewModel) -> None:
    QLocale.setDefault(QLocale(QLocale.Language.German))
    run_config.set_text("data.path", "images")
    run_config.set_text("optimizer.rate", "0.001")
    assert run_config.config().optimizer.rate == 0.001
    run_config.set_text("optimizer.rate", "0,02")
    assert run_config.config().optimizer.rate == 0.02


def test_an_unknown_model_is_told_by_name(run_config: RunConfigViewModel) -> None:
    run_config.offer_models([entry("resnet18")])
    run_config.set_text("model.name", "resnet99")
    assert run_config.error("model.name") == "No model is named resnet99. Choose one from the list."


def test_another_model_begins_with_its_whole_backbone_frozen(run_config: RunConfigViewModel) -> None:
    run_config.frozen = ["layer1"]
    run_config.set_text("model.name", "resnet34")
    assert run_config.frozen == ["backbone"]


def test_a_refusal_stands_beside_its_field(run_config: RunConfigViewModel) -> None:
    refusal = CommandRejected(command="PrepareRun", reason="No such folder: x. Check the path.", field="data.path")
    assert run_config.reject(refusal)
    assert run_config.error("data.path") == "No such folder: x. Check the path."
    assert run_config.reject(CommandRejected(command="CheckData", reason="Empty."))
    assert not run_config.reject(CommandRejected(command="PauseRun", reason="Not now."))


def test_a_scan_is_told_only_for_the_data_on_show(run_config: RunConfigViewModel) -> None:
    run_config.set_text("data.path", "digits")
    counts = {"0": 1000, "1": 797}
    run_config.show_data(checked("other", counts))
    assert run_config.note("data.path") == ""
    run_config.show_data(checked("digits", counts, num_skipped=1))
    assert run_config.note("data.path") == "2 classes · 1,797 train · 2 validation · 1 file skipped"
    assert run_config.note("data.layout") == "found: class folders"
    run_config.set_text("data.path", "letters")
    assert run_config.note("data.path") == run_config.note("data.layout") == ""


def test_only_a_table_has_columns(form: RunForm, run_config) -> None:
    run_config.set_text("data.path", "birds.csv")
    assert form._holders["data.label_column"].isHidden()
    run_config.show_data(checked("birds.csv", {"jay": 5, "owl": 4}, layout="table"))
    assert not form._holders["data.label_column"].isHidden()
    run_config.set_text("data.path", "birds")
    assert form._holders["data.label_column"].isHidden()
    run_config.reject(CommandRejected(command="CheckData", reason="No column is named x.", field="data.label_column"))
    assert not form._holders["data.label_column"].isHidden()


def test_an_empty_field_shows_what_the_weights_want(form: RunForm, run_config) -> None:
    def shown() -> list[str]:
        names = ("data.image_size", "data.resize_size", "data.mean", "data.std")
        return [form._editors[name].placeholderText() for name in names]

    run_config.set_text("model.name", "resnet18")
    assert shown() == ["the weights' own"] * 4
    run_config.offer_models([entry("resnet18")])
    assert shown() == ["224", "256", "0.485, 0.456, 0.406", "0.229, 0.224, 0.225"]
    # The size before the cut follows the image size, as it will in the run.
    run_config.set_text("data.image_size", "112")
    assert shown()[1] == "128"
    run_config.set_text("data.image_size", "48")
    assert shown()[1] == "48"
    run_config.set_text("data.image_size", "wide")
    assert shown()[1] == "256"
    run_config.set_text("model.name", "resnet")
    assert shown() == ["the weights' own"] * 4


def found_in_table(path: str, names: list[str], **taken: str) -> DataChecked:
    event = checked(path, {"jay": 5, "owl": 4}, layout="table")
    columns = TableColumns(names=names, taken=taken)
    return event.model_copy(update={"summary": event.summary.model_copy(update={"columns": columns})})


def test_a_table_offers_its_columns_and_says_which_it_took(form: RunForm, run_config) -> None:
    def shown() -> list[str]:
        return [form._editors[field].lineEdit().placeholderText() for field in COLUMN_FIELDS]

    run_config.set_text("data.path", "birds.csv")
    assert shown() == ["found by its name"] * 3 + ["none"]
    names = ["file", "species", "label", "site"]
    run_config.show_data(found_in_table("birds.csv", names, path_column="file", label_column="label"))
    assert shown() == ["found: file", "found: label", "none", "none"]
    label = form._editors["data.label_column"]
    assert [label.itemText(row) for row in range(label.count())] == names
    assert label.currentText() == ""
    assert label.accessibleDescription() == "found: label"
    label.setCurrentIndex(1)
    assert run_config.text("data.label_column") == "species"
    # What the next check takes is not known yet.
    assert shown() == ["found by its name"] * 3 + ["none"]
    run_config.set_text("data.path", "others.csv")
    assert label.count() == 0


def test_a_table_without_a_column_of_classes_offers_those_that_it_has(form: RunForm, run_config) -> None:
    run_config.set_text("data.path", "birds.csv")
    names = ["file", "species"]
    refusal = CommandRejected(command="CheckData", reason="No.", field="data.label_column", choices=names)
    run_config.reject(refusal)
    label = form._editors["data.label_column"]
    assert [label.itemText(row) for row in range(label.count())] == names
    assert form._hints["data.label_column"].text() == "No."


def test_data_are_looked_through_as_a_run_would_split_them(run_config: RunConfigViewModel) -> None:
    assert run_config.chosen_data() is None
    run_config.set_text("data.path", "birds")
    run_config.set_text("data.validation_fraction", "0.3")
    run_config.set_text("training.seed", "11")
    assert run_config.chosen_data() == (DataConfig(path="birds", validation_fraction=0.3), 11)
    run_config.set_text("data.validation_fraction", "3")
    assert run_config.chosen_data() is None


def test_what_was_applied_stands_beside_what_was_asked_for(run_config: RunConfigViewModel, run_info) -> None:
    run_config.show_run(run_info)
    assert run_config.text("training.precision") == "auto"
    assert run_config.note("training.precision") == "applied: fp32"
    run_config.leave_run()
    assert run_config.note("training.precision") == ""


def test_a_plan_reads_as_it_is_written() -> None:
    plan = parse_plan("3: +stage4, conv5; 5: -stage2")
    assert plan == [
        {"epoch": 3, "freeze": [], "unfreeze": ["stage4", "conv5"]},
        {"epoch": 5, "freeze": ["stage2"], "unfreeze": []},
    ]
    assert plan_text(plan) == "3: +stage4, +conv5; 5: -stage2"
    assert plan_sentence(plan) == "After epoch 3: unfreeze stage4, conv5. After epoch 5: freeze stage2."
    assert parse_plan("") == []


@pytest.mark.window
def test_typing_reaches_the_configuration_and_its_error_shows_below(qtbot, form: RunForm, run_config) -> None:
    rate = form._editors["optimizer.rate"]
    assert isinstance(rate, QLineEdit)
    rate.selectAll()
    qtbot.keyClicks(rate, "9999")
    assert run_config.text("optimizer.rate") == "9999"
    assert not form._hints["optimizer.rate"].isHidden()
    assert rate.property("invalid")
    assert rate.accessibleDescription() == run_config.error("optimizer.rate")


@pytest.mark.window
def test_the_scan_is_asked_for_when_the_typing_rests(qtbot, form: RunForm, run_config) -> None:
    with qtbot.waitSignal(form.data_changed):
        qtbot.keyClicks(form._editors["data.path"], "/data")
    assert run_config.text("data.path") == "/data"
    layout = form._editors["data.layout"]
    with qtbot.waitSignal(form.data_changed):
        layout.setCurrentIndex(layout.findText("file names"))
    assert run_config.text("data.layout") == "file_names"


@pytest.mark.window
def test_offered_models_do_not_change_what_was_typed(form: RunForm, run_config) -> None:
    run_config.set_text("model.name", "my_model")
    run_config.offer_models([entry("resnet18"), entry("vgg11")])
    combo = form._editors["model.name"]
    assert isinstance(combo, QComboBox)
    assert [combo.itemText(row) for row in range(combo.count())] == ["resnet18", "vgg11"]
    assert combo.currentText() == "my_model"
    assert "to be downloaded" in combo.itemData(0, Qt.ItemDataRole.ToolTipRole)


@pytest.mark.window
def test_a_live_run_is_shown_and_not_edited(form: RunForm, run_config, run_info) -> None:
    run_config.show_run(run_info)
    form.set_editable(False)
    assert not form._editors["optimizer.rate"].isEnabled()
    assert form._start.isHidden()
    assert form._hints["training.device"].whole_text == "applied: cpu"


@pytest.mark.window
def test_momentum_is_shown_for_the_optimizer_that_has_it(form: RunForm, run_config) -> None:
    form._headings["optimizer"].setChecked(True)
    shown = {
        "AdamW": [],
        "SGD": ["optimizer.momentum", "optimizer.nesterov"],
        "RMSprop": ["optimizer.momentum"],
    }
    for name, fields in shown.items():
        run_config.set_text("optimizer.name", name)
        of_some = ("optimizer.momentum", "optimizer.nesterov")
        assert [field for field in of_some if not form._holders[field].isHidden()] == fields


@pytest.mark.window
def test_each_schedule_shows_what_it_goes_by(form: RunForm, run_config) -> None:
    form._headings["optimizer"].setChecked(True)
    decay = ["optimizer.decay_factor", "optimizer.decay_epochs"]
    warmup = ["optimizer.warmup_epochs"]
    shown = {
        "constant": warmup, "cosine": warmup, "one_cycle": [], "step": warmup + decay, "plateau": warmup + decay,
    }  # fmt: skip
    for schedule, fields in shown.items():
        run_config.set_text("optimizer.schedule", schedule)
        assert [field for field in warmup + decay if not form._holders[field].isHidden()] == fields


@pytest.mark.window
def test_the_form_offers_every_choice_of_the_configuration(form: RunForm) -> None:
    sections = {"data": DataConfig, "optimizer": OptimizerConfig, "training": TrainingConfig}
    for field, editor in form._editors.items():
        section, _, key = field.partition(".")
        offered = get_args(sections[section].model_fields[key].annotation) if section in sections else ()
        if isinstance(editor, ChoiceField) and offered and all(isinstance(value, str) for value in offered):
            assert {editor.itemData(row) for row in range(editor.count())} == set(offered), field


@pytest.mark.window
def test_a_section_folds_by_click_and_by_key(qtbot, shown_form: RunForm) -> None:
    heading, rate = shown_form._headings["training"], shown_form._editors["optimizer.rate"]
    assert rate.isVisible()
    qtbot.mouseClick(heading, Qt.MouseButton.LeftButton)
    assert not rate.isVisible()
    assert heading.isVisible()
    assert heading.accessibleDescription() == "Section, folded"
    heading.setFocus()
    qtbot.keyClick(heading, Qt.Key.Key_Space)
    assert rate.isVisible()
    assert heading.accessibleDescription() == "Section, unfolded"


@pytest.mark.window
@pytest.mark.parametrize("opened", [[], ["more"], list(SECTIONS)])
def test_folded_sections_come_back_as_they_were(qtbot, form: RunForm, run_config, opened: list[str]) -> None:
    for section, heading in form._headings.items():
        heading.setChecked(section in opened)
    other = RunForm(run_config)
    qtbot.addWidget(other)
    at_first = [section for section, heading in other._headings.items() if heading.isChecked()]
    for damaged in (b"", b"\xff{", b"[1]"):
        other.restore_state(QByteArray(damaged))
        assert [section for section, heading in other._headings.items() if heading.isChecked()] == at_first
    other.restore_state(form.save_state())
    assert [section for section, heading in other._headings.items() if heading.isChecked()] == opened


@pytest.mark.window
def test_every_section_and_field_is_reached_by_tab_in_the_order_shown(shown_form: RunForm) -> None:
    expected = []
    for section, fields in SECTIONS.items():
        expected.append(shown_form._headings[section])
        expected += [shown_form._editors[field] for field in fields]
    chain = [shown_form]
    while (following := chain[-1].nextInFocusChain()) is not shown_form:
        chain.append(following)
    assert [widget for widget in chain if widget in expected] == expected


@pytest.mark.window
def test_an_error_in_a_folded_section_unfolds_it(shown_form: RunForm, run_config) -> None:
    heading = shown_form._headings["images"]
    assert not heading.isChecked()
    run_config.reject(CommandRejected(command="EstimateRun", reason="Too large.", field="data.resize_size"))
    assert heading.isChecked()
    assert shown_form._hints["data.resize_size"].isVisible()
    # The user may fold it again, whatever else is typed.
    heading.setChecked(False)
    run_config.set_text("training.epochs", "3")
    assert not heading.isChecked()


@pytest.mark.window
def test_no_field_moves_as_notes_come_and_go(shown_form: RunForm, run_config, run_info) -> None:
    for heading in shown_form._headings.values():
        heading.setChecked(True)

    def places() -> dict[str, QRect]:
        QApplication.processEvents()
        return {field: holder.geometry() for field, holder in shown_form._holders.items() if holder.isVisible()}

    before = places()
    # The path is set first: what an earlier one had goes with it.
    run_config.set_text("data.path", run_info.config.data.path)
    assert places() == before
    run_config.show_checking()
    assert places() == before
    counts = {f"class {idx}": 10_000 for idx in range(99)}
    run_config.show_data(checked(run_info.config.data.path, counts, num_skipped=9))
    assert places() == before
    run_config.set_text("plan", "1: +conv5, +stage4; 2: +stage3; 3: +stage2; 4: +conv1")
    assert places() == before
    run_config.show_run(run_info)
    shown_form.set_editable(False)
    assert places() == before
    run_config.leave_run()
    assert places() == before


@pytest.mark.window
def test_a_note_that_is_too_long_says_all_in_its_tooltip(shown_form: RunForm, run_config) -> None:
    run_config.set_text("plan", "1: +conv5, +stage4; 2: +stage3; 3: +stage2; 4: +conv1")
    QApplication.processEvents()
    hint = shown_form._hints["plan"]
    assert hint.text().endswith("…")
    assert hint.toolTip() == hint.whole_text == run_config.note("plan")
    assert shown_form._editors["plan"].accessibleDescription() == run_config.note("plan")


@pytest.mark.window
def test_an_error_is_shown_whole(qtbot, shown_form: RunForm, run_config) -> None:
    sentence = "There is no file or folder /home/someone/a/rather/long/way/to/the/data/set. Check the path."
    run_config.reject(CommandRejected(command="CheckData", reason=sentence, field="data.path"))
    hint = shown_form._hints["data.path"]
    assert hint.text() == sentence
    needed = QLabel.heightForWidth(hint, hint.width())
    assert needed > 2 * hint.fontMetrics().lineSpacing()
    qtbot.waitUntil(lambda: hint.height() >= needed)


def entry(name: str) -> ModelEntry:
    images = ImagePreset(image_size=224, resize_size=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return ModelEntry(
        name=name, num_params=11_000_000, accuracy=0.69, size_bytes=46_000_000, is_cached=False, images=images
    )


def test_a_wrong_momentum_does_not_outlive_the_field_that_shows_it() -> None:
    run_config = RunConfigViewModel()
    run_config.set_text("data.path", "digits")
    run_config.set_text("optimizer.name", "SGD")
    run_config.set_text("optimizer.momentum", "much")
    assert run_config.config() is None
    run_config.set_text("optimizer.name", "AdamW")
    config = run_config.config()
    assert config is not None
    assert config.optimizer.momentum == 0.9


def test_what_belongs_to_the_patience_is_asked_for_only_where_there_is_one(run_config: RunConfigViewModel) -> None:
    run_config.set_text("data.path", "images")
    assert not run_config.has_field("training.stop_metric")
    assert run_config.config().training.patience is None
    run_config.set_text("training.patience", "5")
    assert run_config.has_field("training.stop_metric")
    run_config.set_text("training.stop_metric", "accuracy")
    run_config.set_text("training.min_change", "0.01")
    training = run_config.config().training
    assert (training.patience, training.stop_metric, training.min_change) == (5, "accuracy", 0.01)
    run_config.set_text("training.min_change", "-1")
    assert run_config.config() is None
    run_config.set_text("training.patience", "")
    assert run_config.config() is not None
