"""The run form: what was typed, what is wrong with it, and what was applied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest
from PySide6.QtCore import QByteArray, QLocale, QPoint, QRect, Qt
from PySide6.QtGui import QCursor
from PySide6.QtWidgets import QApplication, QComboBox, QLabel, QLineEdit, QWidget

from app.plan_syntax import parse_plan, plan_text
from app.viewmodels.plan_text import plan_sentence
from app.viewmodels.run_config import RunConfigViewModel
from app.viewmodels.run_fields import COLUMN_FIELDS, FIELDS, SECTIONS
from app.views.choice_field import ChoiceField
from app.views.run_form import RunForm
from tests.app.conftest import checked
from trainer.config import BranchConfig, DataConfig, ModelConfig, OptimizerConfig, PlanPhase, RunConfig, TrainingConfig
from trainer.messages.data_info import TableColumns
from trainer.messages.events import CommandRejected, DataChecked, ModelInspected
from trainer.messages.model_info import ImagePreset, LayerInfo, ModelEntry, ModelSummary, WeightSet, WeightsReport


@pytest.fixture
def run_config(qapp) -> RunConfigViewModel:
    return RunConfigViewModel()


@pytest.fixture
def form(qtbot, themed, run_config: RunConfigViewModel) -> RunForm:
    made = RunForm(run_config)
    qtbot.addWidget(made)
    made._headings["images"].setChecked(True)
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
            views=2,
            mixing="mixup",
            task="binary",
        ),
        model=ModelConfig(
            name="resnet18",
            head="append",
            head_dropout=0.5,
            head_hidden=64,
            frozen=["conv1", "layer1"],
            adapting=["layer?.*.bn1"],
        ),
        training=TrainingConfig(
            label_smoothing=0.1, feature_precision="half", feature_memory_gb=0.5, feature_disk_gb=0
        ),
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
        ("data.std", "0.5, x, 0.5", "Deviation, entry 2 is 'x', but should be a number"),
        ("plan", "stage4 later", "Write the plan as"),
        ("plan", "0: +stage4", "Plan, phase 1: epoch is 0, but should be greater than or equal to 1"),
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


def another_model(*fqns: str, name: str = "resnet34") -> ModelInspected:
    """Return the tree of a model whose layers have parameters, and those named "bn" statistics."""
    layers = [
        LayerInfo(fqn=fqn, type="Any", num_params=10, is_unit=bool(fqn), has_statistics="bn" in fqn)
        for fqn in ("", *fqns)
    ]
    layers.append(LayerInfo(fqn="fc", type="Linear", num_params=10, is_unit=True, is_head=True))
    return ModelInspected(summary=ModelSummary(model=name, layers=layers, frozen=[], num_params=10, num_trainable=10))


def choose_layers(run_config: RunConfigViewModel) -> None:
    run_config.frozen, run_config.adapting = ["layer1", "layer2"], ["bn1", "layer1"]
    run_config.multipliers = {"layer2": 0.5, "layer1": 0.1}


def test_a_branch_does_without_the_file_of_weights_that_its_parent_began_with(run_config: RunConfigViewModel) -> None:
    own = RunConfig(data=DataConfig(path="images"), model=ModelConfig(name="resnet18", weights="gone.pt"))
    branch = BranchConfig(run="runs/parent", checkpoint="last")
    run_config.show_config(own.model_copy(update={"branch": branch}))
    assert run_config.chosen_model()[0].weights == "random"
    assert run_config.config().model.weights == "gone.pt"
    run_config.leave_branch()
    assert run_config.chosen_model()[0].weights == "gone.pt"


def test_another_model_keeps_what_was_chosen_of_layers_that_it_has_and_names_the_others(
    run_config: RunConfigViewModel,
) -> None:
    run_config.set_text("data.path", "images")
    choose_layers(run_config)
    run_config.set_text("model.name", "resnet34")
    started = run_config.config()
    assert (started.model.frozen, started.optimizer.multipliers) == (["backbone"], {}), "before its tree is known"
    assert run_config.chosen_model()[0].frozen == ["backbone"]
    run_config.show_model(another_model("layer1", "layer3"))
    assert (run_config.frozen, run_config.multipliers, run_config.adapting) == (["layer1"], {"layer1": 0.1}, [])
    assert run_config.left_out == "Not in resnet34, so left out: layer2, statistics of bn1, statistics of layer1."
    assert run_config.config().model.frozen == ["layer1"]


def test_another_model_that_has_all_chosen_layers_says_nothing(run_config: RunConfigViewModel) -> None:
    choose_layers(run_config)
    run_config.set_text("model.name", "resnet34")
    run_config.show_model(another_model("bn1", "layer1", "layer1.bn", "layer2"))
    assert run_config.left_out == ""
    assert run_config.frozen == ["layer1", "layer2"]
    assert run_config.multipliers == {"layer2": 0.5, "layer1": 0.1}
    assert run_config.adapting == ["bn1", "layer1"]


def test_a_model_with_none_of_the_frozen_layers_has_its_backbone_frozen_and_says_so(
    run_config: RunConfigViewModel,
) -> None:
    run_config.frozen = ["layer1"]
    run_config.set_text("model.name", "vit_b_16")
    run_config.show_model(another_model("conv_proj", name="vit_b_16"))
    assert run_config.frozen == ["backbone"]
    assert run_config.left_out == "Not in vit_b_16, so left out: layer1. Its backbone is frozen."
    # Where everything was to learn, it does so in another model, too.
    run_config.frozen = []
    run_config.set_text("model.name", "resnet34")
    assert run_config.left_out == ""
    run_config.show_model(another_model("layer1"))
    assert (run_config.frozen, run_config.left_out) == ([], "")


def test_names_in_a_configuration_that_is_loaded_are_left_for_the_worker_to_refuse(
    run_config: RunConfigViewModel,
) -> None:
    run_config.show_config(RunConfig(model=ModelConfig(name="resnet34", frozen=["stem"])))
    assert run_config.chosen_model()[0].frozen == ["stem"]
    run_config.show_model(another_model("layer1"))
    assert (run_config.frozen, run_config.left_out) == (["stem"], "")


def test_a_refusal_stands_beside_its_field(run_config: RunConfigViewModel) -> None:
    refusal = CommandRejected(command="PrepareRun", reason="No such folder: x. Check the path.", field="data.path")
    assert run_config.reject(refusal)
    assert run_config.error("data.path") == "No such folder: x. Check the path."
    assert run_config.reject(CommandRejected(command="CheckData", reason="Empty."))
    assert not run_config.reject(CommandRejected(command="PauseRun", reason="Not now."))


def test_a_refusal_of_several_fields_stands_beside_each_and_leads_to_the_first(run_config: RunConfigViewModel) -> None:
    led_to: list[str] = []
    run_config.refused.connect(led_to.append)
    sentences = {
        "training.device": "No such device.",
        "data.label_column": "No such column.",
        "plan": "The pattern matches no layer.",
    }
    refusal = CommandRejected(
        command="PrepareRun",
        reason="\n".join(sentences.values()),
        field="training.device",
        sentences=sentences,
        choices=["path", "species"],
    )
    assert run_config.reject(refusal)
    assert {field: run_config.error(field) for field in sentences} == sentences
    # In the form's order: the columns stand further down.
    assert led_to == ["plan"]
    assert run_config.found.columns == ["path", "species"]
    # What no field of the form is about has to be told elsewhere.
    several = {"model.frozen": "There is no such layer.", "training.epochs": "Too few."}
    refusal = CommandRejected(command="PrepareRun", reason="Both.", field="model.frozen", sentences=several)
    assert not run_config.reject(refusal)
    assert run_config.error("training.epochs") == "Too few."
    assert led_to[1:] == ["training.epochs"]


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
    assert form._rows["data.label_column"].holder.isHidden()
    run_config.show_data(checked("birds.csv", {"jay": 5, "owl": 4}, layout="table"))
    assert not form._rows["data.label_column"].holder.isHidden()
    run_config.set_text("data.path", "birds")
    assert form._rows["data.label_column"].holder.isHidden()
    run_config.reject(CommandRejected(command="CheckData", reason="No column is named x.", field="data.label_column"))
    assert not form._rows["data.label_column"].holder.isHidden()


def test_an_empty_field_shows_what_the_weights_want(form: RunForm, run_config) -> None:
    def shown() -> list[str]:
        names = ("data.image_size", "data.resize_size", "data.mean", "data.std")
        return [form._rows[name].editor.placeholderText() for name in names]

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


def test_the_form_says_whether_the_weights_are_to_be_downloaded(form: RunForm, run_config, run_info) -> None:
    note = form._rows["model.weights"].note
    run_config.set_text("model.name", "vgg11")
    assert note.whole_text == ""
    here = weight_set("IMAGENET1K_V1", is_cached=True)
    run_config.offer_models([entry("resnet18", here), entry("vgg11", weight_set("IMAGENET1K_V1"))])
    assert note.whole_text.startswith("46.0 MB to be downloaded · ")
    assert form._rows["model.weights"].editor.accessibleDescription() == note.whole_text
    run_config.set_text("model.name", "resnet18")
    assert note.whole_text.startswith("On this disk · ")
    for weights in ("random", "/weights/letters.pt"):
        run_config.set_text("model.weights", weights)
        assert note.whole_text == ""
    # A run that has begun has its weights.
    run_config.offer_models([entry("tiny", weight_set("IMAGENET1K_V1"))])
    run_config.show_run(run_info)
    assert run_config.text("model.weights") == "published"
    assert note.whole_text == ""
    run_config.leave_run()
    assert note.whole_text.startswith("46.0 MB to be downloaded · ")


def found_in_table(path: str, names: list[str], **taken: str) -> DataChecked:
    event = checked(path, {"jay": 5, "owl": 4}, layout="table")
    columns = TableColumns(names=names, taken=taken)
    return event.model_copy(update={"summary": event.summary.model_copy(update={"columns": columns})})


def test_a_table_offers_its_columns_and_says_which_it_took(form: RunForm, run_config) -> None:
    def shown() -> list[str]:
        return [form._rows[field].editor.lineEdit().placeholderText() for field in COLUMN_FIELDS]

    run_config.set_text("data.path", "birds.csv")
    assert shown() == ["found by its name"] * 3 + ["none"]
    names = ["file", "species", "label", "site"]
    run_config.show_data(found_in_table("birds.csv", names, path_column="file", label_column="label"))
    assert shown() == ["found: file", "found: label", "none", "none"]
    label = form._rows["data.label_column"].editor
    assert [label.itemText(row) for row in range(label.count())] == names
    assert label.currentText() == ""
    assert label.accessibleDescription() == "found: label"
    label.setCurrentIndex(1)
    assert run_config.text("data.label_column") == "species"
    # What the next check takes is not known yet.
    assert shown() == ["found by its name"] * 3 + ["none"]
    run_config.set_text("data.path", "others.csv")
    assert label.count() == 0


def test_a_table_says_what_separates_the_classes_of_an_image(form: RunForm, run_config) -> None:
    run_config.set_text("data.path", "scenes.csv")
    note = form._rows["data.label_separator"].note
    assert (note.whole_text, run_config.text("data.label_separator")) == ("", "auto")
    taken = {"path_column": "path", "label_column": "tags", "label_separator": "|"}
    run_config.show_data(found_in_table("scenes.csv", ["path", "tags"], **taken))
    assert note.whole_text == "found: bar"
    run_config.set_text("data.label_separator", "none")
    assert note.whole_text == ""
    run_config.set_text("data.label_separator", "auto")
    run_config.show_data(found_in_table("scenes.csv", ["path", "tags"], path_column="path", label_column="tags"))
    assert note.whole_text == "found: none"


def test_two_possible_separators_are_asked_about_beside_the_field(form: RunForm, run_config) -> None:
    run_config.set_text("data.path", "scenes.csv")
    assert form._rows["data.label_separator"].holder.isHidden()
    refusal = CommandRejected(command="CheckData", reason="Choose one.", field="data.label_separator")
    assert run_config.reject(refusal)
    assert not form._rows["data.label_separator"].holder.isHidden()
    assert form._rows["data.label_separator"].note.text() == "Choose one."
    assert run_config.named_refusal(refusal) == 'Choose one. The field of the form is "Separator".'


SCENES = checked("scenes.csv", {"sea": 5, "sky": 4}, layout="table", is_multi_label=True)


def test_the_task_follows_the_data_until_someone_chooses_it(form: RunForm, run_config) -> None:
    task, note = form._rows["data.task"].editor, form._rows["data.task"].note
    run_config.set_text("data.path", "scenes.csv")
    run_config.show_data(SCENES)
    assert run_config.text("data.task") == task.currentData() == "multi_label"
    assert (task.currentText(), note.whole_text) == ("any of several", "2 outputs, yes or no each.")
    run_config.set_text("data.task", "multi_class")
    assert run_config.error("data.task") == 'Some images have several classes, or none: choose "any of several".'
    assert run_config.config() is None
    run_config.show_data(SCENES)
    assert run_config.text("data.task") == "multi_class", "as it was chosen"
    assert run_config.error("data.task")
    run_config.set_text("data.path", "pets")
    assert not run_config.error("data.task"), "of other data nothing is known yet"
    run_config.set_text("data.task", "multi_label")
    run_config.show_data(checked("pets", {"cat": 5, "dog": 4}))
    assert run_config.error("data.task").startswith('Each image has one class: choose "one of several"')
    run_config.set_text("data.label_separator", ";")
    run_config.show_data(checked("pets", {"cat": 5, "dog": 4}))
    assert (run_config.text("data.task"), run_config.error("data.task")) == ("multi_class", "")
    run_config.set_text("data.task", "binary")
    run_config.set_text("training.seed", "9")
    run_config.show_data(checked("pets", {"cat": 5, "dog": 4}))
    assert run_config.text("data.task") == "binary", "it goes with the data as well"


def test_the_task_of_a_configuration_stays_and_is_found_wrong(run_config) -> None:
    run_config.show_config(RunConfig(data=DataConfig(path="scenes.csv")))
    run_config.show_data(SCENES)
    assert run_config.text("data.task") == "multi_class"
    assert run_config.error("data.task")


def test_images_of_several_classes_are_not_drawn_by_class(run_config) -> None:
    run_config.set_text("data.balance", "sampler")
    run_config.set_text("data.path", "scenes.csv")
    run_config.show_data(SCENES)
    assert run_config.error("data.balance") == "Images have several classes: choose class weights."
    run_config.set_text("data.balance", "class_weights")
    assert run_config.error("data.balance") == ""
    run_config.set_text("data.balance", "sampler")
    run_config.set_text("data.task", "multi_class")
    assert run_config.error("data.balance") == ""


def test_a_table_without_a_column_of_classes_offers_those_that_it_has(form: RunForm, run_config) -> None:
    run_config.set_text("data.path", "birds.csv")
    names = ["file", "species"]
    refusal = CommandRejected(command="CheckData", reason="No.", field="data.label_column", choices=names)
    run_config.reject(refusal)
    label = form._rows["data.label_column"].editor
    assert [label.itemText(row) for row in range(label.count())] == names
    assert form._rows["data.label_column"].note.text() == "No."
    # Where it does not stand beside the field, it names it.
    assert run_config.named_refusal(refusal) == 'No. The field of the form is "Classes in".'
    assert run_config.named_refusal(refusal.model_copy(update={"field": "data.path"})) == "No."


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
    assert parse_plan("4: -*.weight, +*.bias") == [{"epoch": 4, "freeze": ["*.weight"], "unfreeze": ["*.bias"]}]
    plan = parse_plan("3: +stage4, conv5; 5: -stage2")
    assert plan == [
        {"epoch": 3, "freeze": [], "unfreeze": ["stage4", "conv5"]},
        {"epoch": 5, "freeze": ["stage2"], "unfreeze": []},
    ]
    assert plan_text(plan) == "3: +stage4, +conv5; 5: -stage2"
    assert plan_sentence(plan) == "After epoch 3: unfreeze stage4, conv5. After epoch 5: freeze stage2."
    assert parse_plan("") == []


def test_a_plan_with_steps_plateaus_and_rates_reads_as_it_is_written() -> None:
    text = "epoch 2: +layer4 x0.4; step 900: -conv1, =head ×0.1; plateau 2 accuracy: +backbone; plateau 3: +head"
    plan = parse_plan(text)
    assert plan is not None
    assert [PlanPhase.model_validate(phase).start for phase in plan] == [
        "epoch 2", "step 900", "a plateau of 2 epochs", "a plateau of 3 epochs",
    ]  # fmt: skip
    written = "2: +layer4 ×0.4; step 900: -conv1, =head ×0.1; plateau 2 accuracy: +backbone; plateau 3: +head"
    assert plan_text(plan) == written
    assert plan_text([PlanPhase.model_validate(phase).model_dump() for phase in plan]) == written
    assert "After 2 epochs without a higher validation accuracy: unfreeze backbone." in plan_sentence(plan)


@pytest.mark.parametrize(
    "text", ["stage4 later", "3: =head", "step: +head", "epoch 3 loss: +head", "3: +head ×..", "3: -"]
)
def test_what_is_no_plan_is_none(text: str) -> None:
    assert parse_plan(text) is None


@pytest.mark.window
def test_typing_reaches_the_configuration_and_its_error_shows_below(qtbot, form: RunForm, run_config) -> None:
    rate = form._rows["optimizer.rate"].editor
    assert isinstance(rate, QLineEdit)
    rate.selectAll()
    qtbot.keyClicks(rate, "9999")
    assert run_config.text("optimizer.rate") == "9999"
    assert rate.property("invalid")
    qtbot.waitUntil(lambda: not form._rows["optimizer.rate"].note.isHidden())
    assert rate.accessibleDescription() == run_config.error("optimizer.rate")


@pytest.mark.window
def test_the_scan_is_asked_for_when_the_typing_rests(qtbot, form: RunForm, run_config) -> None:
    with qtbot.waitSignal(form.data_changed):
        qtbot.keyClicks(form._rows["data.path"].editor, "/data")
    assert run_config.text("data.path") == "/data"
    layout = form._rows["data.layout"].editor
    with qtbot.waitSignal(form.data_changed):
        layout.setCurrentIndex(layout.findText("file names"))
    assert run_config.text("data.layout") == "file_names"


@pytest.mark.window
def test_offered_models_do_not_change_what_was_typed(form: RunForm, run_config) -> None:
    run_config.set_text("model.name", "my_model")
    run_config.offer_models([entry("resnet18"), entry("vgg11")])
    combo = form._rows["model.name"].editor
    assert isinstance(combo, QComboBox)
    assert [combo.itemText(row) for row in range(combo.count())] == ["resnet18", "vgg11"]
    assert combo.currentText() == "my_model"
    assert "to be downloaded" in combo.itemData(0, Qt.ItemDataRole.ToolTipRole)


@pytest.mark.window
def test_a_live_run_is_shown_and_not_edited(form: RunForm, run_config, run_info) -> None:
    run_config.show_run(run_info)
    form.set_editable(False)
    assert not form._rows["optimizer.rate"].editor.isEnabled()
    assert form._start.isHidden()
    assert form._rows["training.device"].note.whole_text == "applied: cpu"


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
        assert [field for field in of_some if not form._rows[field].holder.isHidden()] == fields


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
        assert [field for field in warmup + decay if not form._rows[field].holder.isHidden()] == fields


@pytest.mark.window
def test_a_plan_is_not_checked_against_the_layers_of_another_model(
    run_config: RunConfigViewModel, summary: ModelSummary
) -> None:
    event = ModelInspected(summary=summary)
    run_config.show_model(event)
    model = ModelConfig(name="another")
    run_config.show_config(RunConfig(model=model, plan=[PlanPhase(epoch=2, unfreeze=["layer4"])]))
    assert run_config.error("plan") == ""
    run_config.config()
    assert run_config.error("plan") == ""


@pytest.mark.window
def test_the_form_offers_every_choice_of_the_configuration(form: RunForm) -> None:
    sections = {"data": DataConfig, "model": ModelConfig, "optimizer": OptimizerConfig, "training": TrainingConfig}
    for field, row in form._rows.items():
        section, _, key = field.partition(".")
        offered = get_args(sections[section].model_fields[key].annotation) if section in sections else ()
        editor = row.editor
        if isinstance(editor, ChoiceField) and offered and all(isinstance(value, str) for value in offered):
            assert {editor.itemData(number) for number in range(editor.count())} == set(offered), field


@pytest.mark.window
def test_a_section_folds_by_click_and_by_key(qtbot, shown_form: RunForm) -> None:
    heading, rate = shown_form._headings["training"], shown_form._rows["optimizer.rate"].editor
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
        expected += [shown_form._rows[field].editor for field in fields]
    chain = [shown_form]
    while (following := chain[-1].nextInFocusChain()) is not shown_form:
        chain.append(following)
    assert [widget for widget in chain if widget in expected] == expected


@pytest.mark.window
def test_an_error_in_a_folded_section_unfolds_it(shown_form: RunForm, run_config) -> None:
    heading = shown_form._headings["optimizer"]
    assert not heading.isChecked()
    run_config.reject(CommandRejected(command="EstimateRun", reason="Too large.", field="optimizer.clip_norm"))
    assert heading.isChecked()
    assert shown_form._rows["optimizer.clip_norm"].note.isVisible()
    # The user may fold it again, whatever else is typed.
    heading.setChecked(False)
    run_config.set_text("training.epochs", "3")
    assert not heading.isChecked()


@pytest.mark.window
def test_no_field_moves_as_notes_come_and_go(qtbot, shown_form: RunForm, run_config, run_info) -> None:
    for heading in shown_form._headings.values():
        heading.setChecked(True)

    def places() -> dict[str, QRect]:
        QApplication.processEvents()
        rows = shown_form._rows.items()
        return {field: row.holder.geometry() for field, row in rows if row.holder.isVisible()}

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
    # Of a run no note will come: the room for one that is not there would be a gap.
    run_config.show_run(run_info)
    shown_form.set_editable(False)
    for field in ("data.layout", "model.weights"):
        qtbot.waitUntil(lambda field=field: places()[field].height() == before["training.epochs"].height())
    assert places()["training.precision"].height() == before["training.precision"].height()
    run_config.leave_run()
    shown_form.set_editable(True)
    qtbot.waitUntil(lambda: places() == before)


@pytest.mark.window
def test_the_example_of_a_plan_names_the_models_own_last_stage(
    qtbot, shown_form: RunForm, run_config, run_info
) -> None:
    run_config.show_model(inspected(is_usable=True, sentence=""))
    assert shown_form._rows["plan"].editor.placeholderText() == "3: +layer4"
    run_config.show_run(run_info)
    # It would read as the run's plan.
    qtbot.waitUntil(lambda: shown_form._rows["plan"].editor.placeholderText() == "")
    run_config.leave_run()
    assert shown_form._rows["plan"].editor.placeholderText() == "3: +stage2"


@pytest.mark.window
def test_of_a_branch_the_weights_are_the_checkpoints_whatever_file_is_named(shown_form: RunForm, run_config) -> None:
    branch = BranchConfig(run="/runs/a", checkpoint="checkpoint_tiny_002.pt")
    run_config.branch = branch
    run_config.show_model(inspected(is_usable=True, sentence="All 336 tensors fit."))
    assert shown_form._rows["model.weights"].note.whole_text == "The checkpoint's are taken."
    run_config.leave_branch()
    assert shown_form._rows["model.weights"].note.whole_text == "All 336 tensors fit."


def test_the_weights_of_a_branch_that_has_begun_are_the_checkpoints(run_config, run_info) -> None:
    branch = BranchConfig(run="/runs/a", checkpoint="checkpoint_tiny_002.pt")
    run_config.show_run(run_info.model_copy(update={"config": run_info.config.model_copy(update={"branch": branch})}))
    assert (run_config.text("model.weights"), run_config.note("model.weights")) == ("the checkpoint's", "")
    run_config.leave_run()
    assert run_config.text("model.weights") == run_info.config.model.weights


@pytest.mark.window
def test_the_plan_has_the_whole_width_of_the_form(shown_form: RunForm) -> None:
    assert shown_form._rows["plan"].editor.width() > 1.2 * shown_form._rows["training.epochs"].editor.width()


@pytest.mark.window
def test_a_note_that_is_too_long_says_all_in_its_tooltip(shown_form: RunForm, run_config) -> None:
    run_config.set_text("plan", "1: +conv5, +stage4; 2: +stage3; 3: +stage2; 4: +conv1")
    QApplication.processEvents()
    hint = shown_form._rows["plan"].note
    assert hint.text().endswith("…")
    assert hint.toolTip() == hint.whole_text == run_config.note("plan")
    assert shown_form._rows["plan"].editor.accessibleDescription() == run_config.note("plan")


LONG_ERROR = (
    "/home/someone/a/rather/long/way/to/the/data holds folders that hold folders of images: cats, dogs, birds and 17 "
    "more. A data set has one level of class folders, or train and val above it. Choose one of these folders."
)


@pytest.mark.window
@pytest.mark.parametrize(
    ("field", "right"), [("data.path", "pets"), ("data.layout", "table"), ("training.epochs", "7")]
)
def test_an_error_is_shown_whole_and_moves_only_what_is_below_it_until_it_is_mended(
    qtbot, shown_form: RunForm, run_config, field: str, right: str
) -> None:
    below, above = shown_form._rows["optimizer.rate"].holder, shown_form._rows[field].label
    QApplication.processEvents()
    before, place = below.y(), above.geometry()
    run_config.reject(CommandRejected(command="EstimateRun", reason=LONG_ERROR, field=field))
    hint = shown_form._rows[field].note
    qtbot.waitUntil(lambda: hint.isVisible() and QLabel.heightForWidth(hint, hint.width()) <= hint.height())
    assert below.y() > before
    assert above.geometry() == place
    assert hint.text().replace("\u200b", "") == LONG_ERROR
    editor = shown_form._rows[field].editor
    assert editor.toolTip() == editor.accessibleDescription() == hint.accessibleName() == LONG_ERROR
    run_config.set_text(field, right)
    qtbot.waitUntil(lambda: below.y() == before)
    assert editor.toolTip() == ""


@pytest.mark.window
def test_an_error_with_a_word_longer_than_a_line_is_broken_within_it(qtbot, shown_form: RunForm, run_config) -> None:
    error = f"/home/{'deeper/' * 20}images holds nothing. Choose another folder."
    run_config.reject(CommandRejected(command="EstimateRun", reason=error, field="data.path"))
    hint = shown_form._rows["data.path"].note
    qtbot.waitUntil(lambda: hint.text().replace("\u200b", "") == error)
    qtbot.waitUntil(lambda: QLabel.heightForWidth(hint, hint.width()) <= hint.height())
    room = QRect(0, 0, hint.width(), 1 << 20)
    needed = hint.fontMetrics().boundingRect(room, int(Qt.TextFlag.TextWordWrap), hint.text())
    assert needed.width() <= hint.width()


@pytest.mark.window
def test_a_short_error_is_shown_whole(qtbot, shown_form: RunForm, run_config) -> None:
    run_config.set_text("training.epochs", "six")
    hint = shown_form._rows["training.epochs"].note
    qtbot.waitUntil(lambda: hint.isVisible() and QLabel.heightForWidth(hint, hint.width()) <= hint.height())
    assert hint.text() == run_config.error("training.epochs")


@pytest.mark.window
def test_nothing_moves_while_someone_types(qtbot, shown_form: RunForm, run_config) -> None:
    epochs, hint = shown_form._rows["training.epochs"].editor, shown_form._rows["training.epochs"].note
    below = shown_form._rows["optimizer.rate"].holder
    QApplication.processEvents()
    before = below.y()
    for keys in ("x", "y"):
        qtbot.keyClicks(epochs, keys)
        QApplication.processEvents()
        # Its frame says so at once, the words below once the typing rests.
        assert epochs.property("invalid")
        assert below.y() == before
    qtbot.waitUntil(lambda: below.y() > before)
    # A layout on a real screen takes more than one turn.
    qtbot.waitUntil(lambda: QLabel.heightForWidth(hint, hint.width()) <= hint.height())
    QApplication.processEvents()
    assert hint.text().startswith("Epochs is '10xy'")
    moved = below.y()
    qtbot.keyClick(epochs, Qt.Key.Key_Backspace)
    qtbot.keyClick(epochs, Qt.Key.Key_Backspace)
    QApplication.processEvents()
    assert not epochs.property("invalid")
    assert below.y() == moved
    qtbot.waitUntil(lambda: below.y() == before)
    # A note has its place already, and is as fast as the keys.
    qtbot.keyClicks(shown_form._rows["plan"].editor, "3: +stage4")
    assert shown_form._rows["plan"].note.text() == "After epoch 3: unfreeze stage4."
    # Start says all of it, rested or not.
    qtbot.keyClicks(epochs, "x")
    assert run_config.config() is None
    assert hint.text().startswith("Epochs is '10x'")


@pytest.mark.window
# The offscreen platform says so of every list that opens.
@pytest.mark.qt_log_ignore("This plugin does not support")
@pytest.mark.parametrize("field", ["optimizer.name", "model.name"])
def test_a_list_leaves_no_frame_where_the_pointer_was(shown_form: RunForm, run_config, field: str) -> None:
    run_config.offer_models([entry("resnet18"), entry("vgg11")])
    choice = shown_form._rows[field].editor
    assert isinstance(choice, ChoiceField)
    # As Qt notes it for a real pointer.
    choice.setAttribute(Qt.WidgetAttribute.WA_UnderMouse)
    choice.showPopup()
    # The pointer goes to the list, and the field hears of that no more.
    QCursor.setPos(shown_form.mapToGlobal(QPoint(2, 2)))
    choice.hidePopup()
    assert not choice.underMouse()
    # Where it still is, the frame stays.
    choice.setAttribute(Qt.WidgetAttribute.WA_UnderMouse)
    choice.showPopup()
    QCursor.setPos(choice.mapToGlobal(choice.rect().center()))
    choice.hidePopup()
    assert choice.underMouse()


def entry(name: str, *sets: WeightSet) -> ModelEntry:
    images = ImagePreset(image_size=224, resize_size=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return ModelEntry(
        name=name,
        num_params=11_000_000,
        accuracy=0.69,
        size_bytes=46_000_000,
        is_cached=False,
        images=images,
        weight_sets=list(sets),
    )


def weight_set(name: str, accuracy: float = 0.69, *, image_size: int = 224, is_cached: bool = False) -> WeightSet:
    images = ImagePreset(image_size=image_size, resize_size=image_size, mean=(0.5,) * 3, std=(0.2,) * 3)
    return WeightSet(name=name, accuracy=accuracy, size_bytes=46_000_000, is_cached=is_cached, images=images)


def offer_weights(run_config: RunConfigViewModel) -> None:
    newer, older = weight_set("IMAGENET1K_V2", 0.8), weight_set("IMAGENET1K_V1", 0.7, image_size=384, is_cached=True)
    run_config.offer_models([entry("vit_b_16", newer, older), entry("vgg16", weight_set("IMAGENET1K_V1"))])
    run_config.set_text("model.name", "vit_b_16")


def test_each_published_set_of_weights_is_offered_with_its_figures(form: RunForm, run_config) -> None:
    offer_weights(run_config)
    weights = form._rows["model.weights"].editor
    assert isinstance(weights, ChoiceField)
    rows = {
        weights.itemText(row): weights.itemData(row, Qt.ItemDataRole.AccessibleDescriptionRole)
        for row in range(weights.count())
    }
    assert rows == {
        "published": "80.0 % · 46.0 MB · to be downloaded · IMAGENET1K_V2",
        "IMAGENET1K_V2": "80.0 % · 46.0 MB · to be downloaded",
        "IMAGENET1K_V1": "70.0 % · 46.0 MB · on this disk",
        "random": "",
    }
    assert run_config.note("model.weights") == "46.0 MB to be downloaded · 80.0 % · IMAGENET1K_V2"
    weights.setCurrentIndex(2)
    assert run_config.text("model.weights") == "IMAGENET1K_V1"
    assert run_config.note("model.weights") == "On this disk · 70.0 % · IMAGENET1K_V1"
    assert form._rows["data.image_size"].editor.placeholderText() == "384", "the images follow the weights"
    run_config.set_text("model.weights", "random")
    assert run_config.note("model.weights") == ""


def test_a_models_row_says_its_parameters_and_whether_it_is_here(form: RunForm, run_config) -> None:
    offer_weights(run_config)
    models = form._rows["model.name"].editor
    notes = [models.itemData(row, Qt.ItemDataRole.AccessibleDescriptionRole) for row in range(2)]
    assert notes == ["on this disk · 11,000,000", "11,000,000"]


@pytest.mark.window
@pytest.mark.qt_log_ignore("This plugin does not support (raise|grabbing the keyboard)")
def test_the_list_that_matches_the_typing_is_wide_enough_for_its_notes(qtbot, shown_form: RunForm, run_config) -> None:
    offer_weights(run_config)
    models = shown_form._rows["model.name"].editor
    assert isinstance(models, ChoiceField)
    models.setFocus()
    models.lineEdit().selectAll()
    qtbot.keyClicks(models.lineEdit(), "gg")
    popup = models.completer().popup()
    qtbot.waitUntil(popup.isVisible)
    assert [popup.model().index(row, 0).data() for row in range(popup.model().rowCount())] == ["vgg16"]
    assert popup.width() >= popup.sizeHintForColumn(0)
    popup.hide()


def test_another_model_lets_go_of_weights_that_it_does_not_have(run_config: RunConfigViewModel) -> None:
    offer_weights(run_config)
    run_config.set_text("model.weights", "IMAGENET1K_V2")
    run_config.set_text("model.name", "vgg16")
    assert run_config.text("model.weights") == "published"
    run_config.set_text("model.weights", "IMAGENET1K_V2")
    sentence = "vgg16 has no published weights IMAGENET1K_V2. Choose others from the list."
    assert run_config.error("model.weights") == sentence
    assert run_config.chosen_model() is None
    run_config.set_text("model.weights", "mine.pt")
    run_config.set_text("model.name", "vit_b_16")
    assert run_config.text("model.weights") == "mine.pt"


def inspected(**report: object) -> ModelInspected:
    layers = [LayerInfo(fqn=fqn, type="Any", num_params=10, is_unit=bool(fqn)) for fqn in ("", "conv1", "layer4")]
    summary = ModelSummary(model="vit_b_16", layers=layers, frozen=[], num_params=20, num_trainable=0)
    return ModelInspected(summary=summary, weights=WeightsReport.model_validate({"path": "w.pt", **report}))


def test_how_a_file_fits_stands_below_it_until_something_else_is_chosen(form: RunForm, run_config) -> None:
    offer_weights(run_config)
    run_config.set_text("model.weights", "w.pt")
    run_config.show_model(inspected(is_usable=True, sentence="All 150 tensors fit."))
    assert form._rows["model.weights"].note.whole_text == "All 150 tensors fit."
    assert not form._rows["model.weights"].editor.property("invalid")
    run_config.set_text("model.head_hidden", "32")
    assert form._rows["model.weights"].note.whole_text == ""
    run_config.show_model(inspected(is_usable=False, sentence="w.pt does not fit vit_b_16."))
    assert form._rows["model.weights"].note.whole_text == "w.pt does not fit vit_b_16."
    assert form._rows["model.weights"].editor.property("invalid")
    run_config.set_text("model.weights", "random")
    assert not form._rows["model.weights"].editor.property("invalid")


def test_the_head_is_chosen_in_the_form(qtbot, form: RunForm, run_config) -> None:
    offer_weights(run_config)
    run_config.frozen = ["head"]
    head = form._rows["model.head"].editor
    with qtbot.waitSignal(form.model_chosen):
        head.setCurrentIndex(head.findText("append a layer"))
    run_config.show_model(another_model("layer1"))
    assert run_config.frozen == ["head"]
    qtbot.keyClicks(form._rows["model.head_hidden"].editor, "64")
    dropout = form._rows["model.head_dropout"].editor
    dropout.selectAll()
    qtbot.keyClicks(dropout, "0.25")
    model, image_size = run_config.chosen_model()
    assert (model.head, model.head_hidden, model.head_dropout, image_size) == ("append", 64, 0.25, None)
    run_config.set_text("model.head_dropout", "1")
    assert "Dropout is 1.0, but should be less than 1" in run_config.error("model.head_dropout")
    run_config.set_text("data.image_size", "96")
    assert run_config.chosen_model() is None
    run_config.set_text("model.head_dropout", "0")
    assert run_config.chosen_model()[1] == 96


def test_what_the_worker_said_of_one_model_does_not_stay_with_another(run_config: RunConfigViewModel) -> None:
    offer_weights(run_config)
    run_config.set_text("data.image_size", "50")
    refusal = "vit_b_16 cannot take images of 50 pixels."
    run_config.reject(CommandRejected(command="InspectModel", reason=refusal, field="data.image_size"))
    assert run_config.error("data.image_size") == refusal
    run_config.set_text("model.name", "vgg16")
    assert run_config.error("data.image_size") == ""


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


def test_a_binary_task_says_which_class_its_one_output_is_for(run_config: RunConfigViewModel) -> None:
    run_config.set_text("data.path", "pets")
    assert (run_config.note("data.task"), run_config.num_outputs) == ("", 10)
    run_config.set_text("data.task", "binary")
    assert run_config.note("data.task") == "The second of two classes is the positive one."
    run_config.show_data(checked("pets", {"cat": 5, "dog": 5}))
    assert (run_config.note("data.task"), run_config.num_outputs) == ("Positive: dog.", 1)
    run_config.set_text("data.path", "birds")
    assert run_config.note("data.task") == "The second of two classes is the positive one."
    run_config.set_text("data.task", "multi_class")
    run_config.show_data(checked("birds", {"crow": 5, "finch": 5, "wren": 5}))
    assert (run_config.note("data.task"), run_config.num_outputs) == ("", 3)


def test_a_binary_task_that_was_refused_is_right_again_with_other_data(run_config: RunConfigViewModel) -> None:
    run_config.set_text("data.path", "birds")
    run_config.set_text("data.task", "binary")
    refusal = CommandRejected(command="EstimateRun", reason="Three classes.", field="data.task", command_id="")
    assert run_config.reject(refusal)
    assert run_config.error("data.task") == "Three classes."
    run_config.set_text("data.path", "pets")
    run_config.show_data(checked("pets", {"cat": 5, "dog": 5}))
    assert run_config.error("data.task") == ""


def test_a_metric_that_the_task_does_not_report_is_refused_beside_the_field(run_config: RunConfigViewModel) -> None:
    field = "checkpoints.best_metric"
    run_config.set_text("data.path", "pets")
    assert run_config.config().checkpoints.best_metric == "auto"
    run_config.set_text(field, "f1")
    assert run_config.config().checkpoints.best_metric == "f1"
    run_config.set_text(field, "mean_ap")
    assert run_config.error(field) == 'Not reported of the task "one of several": choose another.'
    assert run_config.config() is None
    run_config.set_text("data.task", "multi_label")
    assert run_config.error(field) == ""
    run_config.set_text("data.task", "multi_class")
    run_config.set_text(field, "top5_accuracy")
    assert run_config.error(field) == "", "how many classes there are is not known"
    run_config.show_data(checked("pets", dict.fromkeys("abcde", 5)))
    assert run_config.error(field) == "Reported of more than five classes only: choose another."
    run_config.show_data(checked("pets", dict.fromkeys("abcdef", 5)))
    assert run_config.error(field) == ""


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


@pytest.mark.window
def test_the_fields_of_the_feature_cache_say_what_holds_where_they_are_empty_and_matter_only_with_it(
    form: RunForm, run_config
) -> None:
    assert run_config.text("data.views") == ""
    views = form._rows["data.views"].editor
    assert views.placeholderText() == "2"
    run_config.set_text("data.augmentation", "strong")
    assert views.placeholderText() == "8"
    assert "features are computed once for each" in form._rows["data.views"].label.toolTip()
    editors = [form._rows[f"training.feature_{name}_gb"].editor for name in ("memory", "disk")]
    assert [editor.placeholderText() for editor in editors] == ["25 % of what is free", "what the disk can spare"]
    assert form._rows["training.feature_precision"].editor.currentText() == "as computed"
    assert not form._rows["training.feature_disk_gb"].holder.isHidden()
    run_config.set_text("training.feature_cache", "off")
    assert form._rows["training.feature_disk_gb"].holder.isHidden()
    assert not form._rows["training.feature_cache"].holder.isHidden()
    assert run_config.values()["training"]["feature_cache"] == "off"


def test_views_matter_to_augmented_images_alone_and_say_where_they_are_of_no_use(run_config) -> None:
    assert run_config.note("data.views") == ""
    run_config.set_text("data.views", "0")
    assert run_config.note("data.views") == "New views in each epoch."
    run_config.set_text("data.mixing", "mixup")
    assert run_config.note("data.views") == "Not for mixed images."
    run_config.set_text("training.feature_cache", "off")
    assert run_config.note("data.views") == "The feature cache is off."
    run_config.set_text("data.augmentation", "none")
    assert not run_config.has_field("data.views")
