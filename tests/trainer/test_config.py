"""A configuration survives TOML, and a bad field is named in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.config import (
    ConfigError,
    PlanPhase,
    RunConfig,
    config_from_dict,
    config_to_toml,
    load_config,
    resolve_paths,
)


def test_a_configuration_reads_back_as_it_was_written(tmp_path: Path, small_config: RunConfig) -> None:
    optimizer = small_config.optimizer.model_copy(update={"multipliers": {"stage4.0": 0.1, "": 2.0}})
    plan = [PlanPhase(epoch=2, unfreeze=["stage4"])]
    config = small_config.model_copy(update={"plan": plan, "optimizer": optimizer})
    path = tmp_path / "run.toml"
    path.write_text(config_to_toml(config), encoding="utf-8")
    assert load_config(path) == config


def test_relative_paths_are_taken_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('[data]\npath = "pets"\n[model]\nweights = "letters.pt"\n')
    config = load_config(path)
    assert config.data.path == str(tmp_path / "pets")
    assert config.model.weights == str(tmp_path / "letters.pt")


@pytest.mark.parametrize(
    ("path", "title"), [("a/leaves_v1.5", "leaves_v1.5"), ("digits.zip", "digits"), ("a.tar.GZ", "a"), ("", "run")]
)
def test_a_run_without_a_name_takes_its_datas(path: str, title: str) -> None:
    assert config_from_dict({"data": {"path": path}}).title == title


def test_a_home_of_nobody_is_left_for_whoever_opens_it() -> None:
    config = config_from_dict({"data": {"path": "~nobody-of-that-name/pets"}})
    assert resolve_paths(config, Path("/")).data.path == "~nobody-of-that-name/pets"


@pytest.mark.parametrize("word", ["published", "random", "IMAGENET1K_V2", "IMAGENET1K_SWAG_E2E_V1"])
def test_a_kind_of_weights_is_no_path(tmp_path: Path, word: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'[model]\nweights = "{word}"\n')
    assert load_config(path).model.weights == word


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"training": {"epochs": "ten"}}, "training.epochs", "is 'ten', but should be a whole number. Change it."),
        ({"training": {"epochs": 1.5}}, "training.epochs", "a whole number"),
        ({"optimizer": {"rate": "x"}}, "optimizer.rate", "is 'x', but should be a number. Change it."),
        ({"name": "x" * 200}, "name", "…, but should be at most 80 characters long"),
        ({"data": 3}, "data", "is 3, but should be a section with fields"),
        ({"training": {"epochs": 0}}, "training.epochs", "greater than or equal to 1"),
        ({"training": {"epochz": 1}}, "training.epochz", "not a field"),
        ({"optimizer": {"name": "Lion"}}, "optimizer.name", "'SGD', 'Adam', 'AdamW' or 'RMSprop'"),
        ({"optimizer": {"rate": -1}}, "optimizer.rate", "greater than 0"),
        ({"optimizer": {"rate": float("nan")}}, "optimizer.rate", "is nan, but should be a number. Change it."),
        ({"data": {"validation_fraction": 1.0}}, "data.validation_fraction", "less than 1"),
        ({"optimizer": {"multipliers": {"fc": 0}}}, "optimizer.multipliers.fc", "greater than 0"),
        ({"optimizer": {"multipliers": {"fc": 2000}}}, "optimizer.multipliers.fc", "less than or equal to 1000"),
        ({"plan": [{"epoch": 1}]}, "plan.0", "layers to freeze or to unfreeze"),
    ],
)
def test_a_bad_field_is_named_with_its_value_and_what_it_should_be(values: dict, field: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict(values, "run.toml")
    assert caught.value.field == field
    assert words in str(caught.value)
    assert str(caught.value).startswith("run.toml: ")
    assert "\n" not in str(caught.value)


def test_every_bad_field_is_named_at_once() -> None:
    values = {"training": {"epochs": "ten", "seeed": 1}, "optimizer": {"rate": 0}, "data": {"mean": ["a", "b", 0.5]}}
    with pytest.raises(ConfigError) as caught:
        config_from_dict(values, "run.toml")
    fields = ["data.mean.0", "data.mean.1", "optimizer.rate", "training.epochs", "training.seeed"]
    assert list(caught.value.sentences) == fields
    assert caught.value.field == fields[0]
    lines = str(caught.value).splitlines()
    assert [line.removeprefix("run.toml: ").partition(" is ")[0] for line in lines] == [
        "data.mean, entry 1", "data.mean, entry 2", *fields[2:]
    ]  # fmt: skip
    assert lines[3] == "run.toml: training.epochs is 'ten', but should be a whole number. Change it."


def test_a_field_of_a_phase_of_the_plan_is_named_by_the_phase_as_people_count() -> None:
    phases = [
        {"epoch": 0, "unfreeze": ["layer4"]},
        {"step": 9, "rates": {"layer3.0": 0}},
        {"step": 9, "epoch": 1, "freeze": ["fc"]},
        {"step": 9, "unfreeze": [1], "epok": 2},
    ]
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"plan": phases}, "run.toml")
    assert caught.value.sentences == {
        "plan.0.epoch": "run.toml: plan, phase 1: epoch is 0, but should be greater than or equal to 1. Change it.",
        "plan.1.rates.layer3.0": "run.toml: plan, phase 2: rates.layer3.0 is 0, but should be greater than 0. "
        "Change it.",
        "plan.2": "run.toml: plan, phase 3: a phase of the plan needs one of epoch, step and plateau.",
        "plan.3.unfreeze.0": "run.toml: plan, phase 4: unfreeze, entry 1 is 1, but should be a valid string. "
        "Change it.",
        "plan.3.epok": "run.toml: plan, phase 4: epok is not a field of a run. Remove it or mend its name.",
    }


def test_a_file_that_is_no_toml_or_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    with pytest.raises(ConfigError, match="Cannot read the configuration"):
        load_config(path)
    path.write_text("[data\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(path)


def test_every_field_says_what_it_means() -> None:
    for section in (RunConfig.model_fields[name].annotation for name in ("data", "model", "optimizer", "training")):
        assert section is not None
        for name, field in section.model_fields.items():
            assert field.description, name


@pytest.mark.parametrize(
    ("section", "name", "meant"),
    [
        ("training", "batchsize", "Did you mean training.batch_size?"),
        ("model", "task", "Did you mean data.task?"),
        ("training", "moonphase", "Remove it or mend its name."),
    ],
)
def test_a_field_that_there_is_not_is_answered_with_the_one_that_was_meant(section: str, name: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict({section: {name: 1}})
    assert str(caught.value) == f"{section}.{name} is not a field of a run. {meant}"


def test_a_section_that_there_is_not_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"^trainning is not a field of a run\. Did you mean training\?$"):
        config_from_dict({"trainning": {"epochs": 1}})
