"""The run form: what was typed, what is wrong with it, and what was applied."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QLocale, Qt
from PySide6.QtWidgets import QComboBox, QLineEdit

from app.viewmodels.plan_text import parse_plan, plan_sentence, plan_text
from app.viewmodels.run_config import FIELDS, RunConfigViewModel
from app.views.run_form import RunForm
from tests.app.conftest import checked
from trainer.config import DataConfig, ModelConfig, PlanPhase, RunConfig
from trainer.messages import CommandRejected, ModelEntry


@pytest.fixture
def run_config(qapp) -> RunConfigViewModel:
    return RunConfigViewModel()


@pytest.fixture
def form(qtbot, themed, run_config: RunConfigViewModel) -> RunForm:
    made = RunForm(run_config)
    qtbot.addWidget(made)
    return made


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
    assert form._hints["training.device"].text() == "applied: cpu"


@pytest.mark.window
def test_momentum_is_shown_for_the_optimizer_that_has_it(form: RunForm, run_config) -> None:
    assert form._holders["optimizer.momentum"].isHidden()
    run_config.set_text("optimizer.name", "SGD")
    assert not form._holders["optimizer.momentum"].isHidden()


def entry(name: str) -> ModelEntry:
    return ModelEntry(name=name, num_params=11_000_000, accuracy=0.69, size_bytes=46_000_000, is_cached=False)


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
