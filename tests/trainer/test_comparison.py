"""Comparing checkpoints: distances against hand-made tensors, and all of it for runs that are trained here."""

from __future__ import annotations

import math
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import make_images
from tests.trainer.recorded_runs import record_run
from trainer import layer_distances
from trainer.comparison import compare
from trainer.config import (
    CheckpointsConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PlanPhase,
    RunConfig,
    TrainingConfig,
    config_to_toml,
)
from trainer.freezing import FreezeSet
from trainer.layer_distances import LayerDistances, LayerWeights
from trainer.messages.comparison import CheckpointPlace, CheckpointsCompared, CompareCheckpoints, ComparedLayer
from trainer.messages.model_info import LayerInfo
from trainer.models import inspect
from trainer.runs import RunFolder

# -- distances ----------------------------------------------------------------------------------------------------

LAYERS = [
    LayerInfo(fqn="", type="Tiny", num_params=5, is_unit=False),
    LayerInfo(fqn="block", type="Sequential", num_params=3, is_unit=False),
    LayerInfo(fqn="block.0", type="Conv", num_params=2, is_unit=True, own_params={"weight": 2}),
    LayerInfo(fqn="block.1", type="BatchNorm", num_params=1, is_unit=True, own_params={"weight": 1}),
    LayerInfo(fqn="fc", type="Linear", num_params=2, is_unit=True, own_params={"weight": 2}),
]


def state(conv: list[float], norm: float, fc: list[float], mean: float = 0.0) -> dict[str, Tensor]:
    return {
        "block.0.weight": torch.tensor([conv]),
        "block.1.weight": torch.tensor([norm]),
        "block.1.running_mean": torch.tensor([mean]),
        "block.1.num_batches_tracked": torch.tensor(int(mean)),
        "fc.weight": torch.tensor([fc]),
    }


def weights(tensors: dict[str, Tensor], frozen: list[str] | None = None) -> LayerWeights:
    return LayerWeights(LAYERS, frozen or [], tensors)


def distances(first: LayerWeights, *others: LayerWeights) -> dict[str, ComparedLayer]:
    found = LayerDistances(first)
    for other in others:
        assert found.add(other) == []
    return {row.fqn: row for row in found.rows()}


def test_a_distance_is_the_norm_of_the_difference_and_a_parents_the_root_of_the_sum_of_squares() -> None:
    rows = distances(weights(state([3, 0], 4, [1, 1])), weights(state([3, 4], 4, [1, -1])))
    conv, norm, block, fc, whole = (rows[fqn].distances[0] for fqn in ("block.0", "block.1", "block", "fc", ""))
    assert (conv.distance, conv.relative, conv.cosine) == (4, pytest.approx(4 / 3), pytest.approx(3 / 5))
    assert (norm.distance, norm.relative, norm.cosine, norm.is_equal) == (0, 0, 1, True)
    # The first is (3, 0, 4), the other (3, 4, 4).
    assert (rows["block"].norm, rows["block"].num_values) == (5, 3)
    assert (block.distance, block.relative) == (4, pytest.approx(4 / 5))
    assert block.cosine == pytest.approx(25 / (5 * math.sqrt(41)))
    assert (fc.distance, fc.cosine) == (2, 0)
    assert whole.distance == pytest.approx(math.sqrt(4**2 + 2**2))
    assert not whole.is_equal


def test_each_of_several_is_compared_with_the_first() -> None:
    first, near, far = (weights(state([1, 0], 1, [value, 0])) for value in (1.0, 2.0, 5.0))
    found = [distance.distance for distance in distances(first, near, far)["fc"].distances if distance]
    assert found == [1, 4]


def test_the_cosine_of_equal_tensors_is_exactly_1_whatever_they_hold() -> None:
    generator = torch.Generator().manual_seed(1)
    for scale in (1e-30, 0.1, 1.0, 3e18):
        values = (torch.randn(2, generator=generator) * scale).tolist()
        rows = distances(weights(state(values, scale, values)), weights(state(values, scale, values)))
        assert {row.distances[0].cosine for row in rows.values() if row.distances[0]} == {1.0}
    zero = distances(weights(state([0, 0], 1, [1, 1])), weights(state([0, 0], 1, [1, 1])))["block.0"].distances[0]
    assert (zero.relative, zero.cosine) == (0, 1)


def test_of_weights_that_were_all_0_there_is_no_angle_and_no_finite_ratio() -> None:
    found = distances(weights(state([0, 0], 1, [1, 1])), weights(state([3, 4], 1, [1, 1])))["block.0"].distances[0]
    assert (found.distance, found.relative, found.cosine) == (5, math.inf, None)


def test_a_tensor_is_taken_in_parts_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = (weights(state(conv, 2, [3, 4])) for conv in ([1.0, 2.0], [5.0, -1.0]))
    whole = distances(first, other)
    monkeypatch.setattr(layer_distances, "_VALUES_AT_ONCE", 1)
    assert distances(first, other) == whole


def test_other_statistics_alone_are_no_distance_but_not_equal_either() -> None:
    rows = distances(weights(state([1, 1], 1, [1, 1])), weights(state([1, 1], 1, [1, 1], mean=3)))
    assert [(row.fqn, row.distances[0].is_equal, row.distances[0].distance) for row in rows.values()] == [
        ("", False, 0),
        ("block", False, 0),
        ("block.0", True, 0),
        ("block.1", False, 0),
        ("fc", True, 0),
    ]


def test_a_weight_that_is_no_number_is_told_and_no_distance_hides_it() -> None:
    for value in (math.nan, math.inf):
        broken = weights(state([1, value], 1, [1, 1]))
        assert broken.not_finite() == ["block.0.weight"]
        for first, other in ((broken, weights(state([1, 1], 1, [1, 1]))), (broken, broken)):
            rows = distances(first, other)
            assert all(math.isnan(rows[fqn].distances[0].distance) for fqn in ("", "block", "block.0"))
            assert rows["fc"].distances[0].distance == 0
    assert weights(state([1, 1], 1, [1, 1], mean=1)).not_finite() == []


def test_a_layer_is_frozen_where_all_below_it_is() -> None:
    first, other = weights(state([1, 1], 1, [1, 1]), ["block.0", "block.1.weight"]), weights(state([1, 1], 1, [1, 1]))
    rows = distances(first, other)
    assert [fqn for fqn, row in rows.items() if row.is_frozen] == ["block", "block.0", "block.1"]
    assert not any(row.distances[0].is_frozen for row in rows.values())


def test_layers_of_another_shape_or_of_one_model_alone_are_told_and_the_others_compared() -> None:
    others = [*LAYERS[:3], LayerInfo(fqn="head", type="Linear", num_params=1, is_unit=True, own_params={"bias": 1})]
    tensors = {"block.0.weight": torch.ones(2, 1), "head.bias": torch.ones(1)}
    found = LayerDistances(weights(state([3, 0], 4, [1, 1])))
    assert found.add(LayerWeights(others, [], tensors)) == [
        "block.0: 2 × 1, in the first 1 × 2",
        "block.1: only in the first",
        "fc: only in the first",
        "head: not in the first",
    ]
    assert [row.distances for row in found.rows()] == [[None]] * 5
    tensors = {"block.0.weight": torch.tensor([[3.0, 1.0]]), "head.bias": torch.ones(1)}
    found = LayerDistances(weights(state([3, 0], 4, [1, 1])))
    found.add(LayerWeights(others, [], tensors))
    rows = {row.fqn: row for row in found.rows()}
    assert rows["block"].distances[0].num_compared == 2 < rows["block"].num_values
    assert rows["block"].distances[0].distance == 1


# -- runs ---------------------------------------------------------------------------------------------------------


def config_of(folder: Path, **model: object) -> RunConfig:
    return RunConfig(
        name="small",
        data=DataConfig(path=str(folder / "images"), image_size=32, validation_fraction=0.25),
        model=ModelConfig.model_validate({"name": "shufflenet_v2_x0_5", "weights": "random", **model}),
        optimizer=OptimizerConfig(rate=1e-3),
        training=TrainingConfig(epochs=3, batch_size=8, device="cpu", num_threads=1),
        checkpoints=CheckpointsConfig(),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    make_images(folder / "images")
    return folder


@pytest.fixture(scope="module")
def run_dir(folder: Path) -> Path:
    """Return a run of three epochs: stage2 is frozen in the second one, and conv1 is from the start."""

    def freeze(trainer):
        return trainer.changes.freeze(["stage2"])

    return record_run(config_of(folder, frozen=["conv1"]), folder / "runs", {5: freeze})


def compared(*places: tuple[Path, str], with_confusion: bool = True) -> CheckpointsCompared:
    command = CompareCheckpoints(
        checkpoints=[CheckpointPlace(run_dir=str(run_dir), checkpoint=name) for run_dir, name in places],
        with_confusion=with_confusion,
        command_id="5",
    )
    return compare(command, lambda *_: None)


def names_of(run_dir: Path) -> list[str]:
    with RunFolder(run_dir, read_only=True) as run:
        return [info.name for info in run.checkpoints.listed()]


def forget_matrices(run_dir: Path) -> None:
    with closing(sqlite3.connect(run_dir / "run.db")) as db, db:
        db.execute("DELETE FROM meta WHERE key GLOB 'confusion *'")


def test_checkpoints_of_a_run_differ_in_what_was_trained_between_them(run_dir: Path) -> None:
    first, *others = names_of(run_dir)
    found = compared((run_dir, first), *((run_dir, name) for name in others), with_confusion=False)
    assert found.command_id == "5"
    assert [each.title for each in found.checkpoints] == ["epoch 1", "epoch 2", "epoch 3"]
    rows = {row.fqn: row for row in found.layers}
    with RunFolder(run_dir, read_only=True) as run:
        states = [
            torch.load(run.checkpoints_dir / name, weights_only=True)["model_state_dict"] for name in names_of(run_dir)
        ]
    apart = math.dist(states[0]["fc.weight"].flatten().tolist(), states[1]["fc.weight"].flatten().tolist())
    bias = math.dist(states[0]["fc.bias"].tolist(), states[1]["fc.bias"].tolist())
    assert rows["fc"].distances[0].distance == pytest.approx(math.hypot(apart, bias), rel=1e-6)
    assert 0.9 < rows["fc"].distances[0].cosine < 1
    for fqn in ("conv1", "conv1.0", "conv1.1"):
        assert rows[fqn].is_frozen
        assert [(each.distance, each.cosine, each.is_equal, each.is_frozen) for each in rows[fqn].distances] == [
            (0, 1, True, True)
        ] * 2
    stage2 = rows["stage2"]
    assert (stage2.is_frozen, [each.is_frozen for each in stage2.distances]) == (False, [True, True])
    assert not any(each.unmatched or each.not_finite for each in found.checkpoints)
    assert {each.name: each.values for each in found.settings} == {
        "checkpoint.frozen": ["conv1", *["conv1, stage2"] * 2],
    }


def test_a_matrix_that_is_not_kept_any_more_is_computed_as_the_run_did(run_dir: Path, folder: Path) -> None:
    last = names_of(run_dir)[-1]
    with RunFolder(run_dir, read_only=True) as run:
        kept = run.checkpoints.confusion("latest")
        assert kept.checkpoint == last
    copy = folder / "copies" / run_dir.name
    shutil.copytree(run_dir, copy)
    forget_matrices(copy)
    said = []
    command = CompareCheckpoints(
        checkpoints=[CheckpointPlace(run_dir=str(copy), checkpoint=name) for name in names_of(copy)[-2:]]
    )
    confusion = compare(command, lambda *progress: said.append(progress)).confusion
    assert confusion.problems == ["", ""]
    counts = confusion.matrices[1]
    assert counts is not None
    num_classes = len(confusion.class_names)
    assert {divmod(cell, num_classes): count for cell, count in zip(counts.cells, counts.counts, strict=True)} == {
        (row, column): count for row, line in enumerate(kept.counts) for column, count in enumerate(line) if count
    }
    assert ("Evaluating epoch 3", 9, 9, "images") in said
    kept_now = compared((run_dir, last), (run_dir, last)).confusion
    assert kept_now.matrices == [counts, counts]


def test_without_the_images_only_the_confusion_is_missing_and_says_why(run_dir: Path, folder: Path, tmp_path) -> None:
    copy = tmp_path / run_dir.name
    shutil.copytree(run_dir, copy)
    forget_matrices(copy)
    toml = (copy / "run.toml").read_text().replace(str(folder / "images"), str(tmp_path / "gone"))
    (copy / "run.toml").write_text(toml)
    found = compared(*((copy, name) for name in names_of(copy)[:2]))
    assert found.layers
    assert found.confusion.matrices == [None, None]
    assert f"cannot be evaluated: there are no images at {tmp_path / 'gone'} any more" in found.confusion.problems[0]
    alone = compared(*((copy, name) for name in names_of(copy)[:2]), with_confusion=False)
    assert "is not kept any more, and was not computed" in alone.confusion.problems[0]


def test_of_two_models_the_layers_that_match_are_compared_and_the_others_named(run_dir: Path, folder: Path) -> None:
    config = config_of(folder, head_hidden=4)
    other = record_run(
        config.model_copy(
            update={
                "optimizer": OptimizerConfig(rate=1e-2),
                "training": config.training.model_copy(update={"epochs": 1}),
            }
        ),
        folder / "runs",
    )
    found = compared((run_dir, "last"), (other, "last"), with_confusion=False)
    assert [each.title for each in found.checkpoints] == [
        f"{run_dir.name.split('_')[1]}, epoch 3",
        f"{other.name.split('_')[1]}, epoch 1",
    ]
    assert found.checkpoints[1].unmatched == [
        "fc: Sequential, in the first Linear",
        "fc.0: not in the first",
        "fc.2: not in the first",
    ]
    rows = {row.fqn: row for row in found.layers}
    assert rows["fc"].distances == [None]
    assert rows["stage4"].distances[0].num_compared == rows["stage4"].num_values
    assert rows[""].distances[0].num_compared < rows[""].num_values
    settings = {each.name: each.values for each in found.settings}
    assert settings["optimizer.rate"] == [1e-3, 1e-2]
    assert settings["model.head_hidden"] == [None, 4]


def test_what_was_changed_in_mid_run_is_as_it_was_when_each_checkpoint_was_saved(folder: Path) -> None:
    phase = PlanPhase(epoch=2, unfreeze=["conv5"])

    def change(trainer):
        changes = trainer.changes
        return [*changes.change_training(3, 2, 2), changes.set_rate(2e-3), changes.set_plan([phase])]

    config = config_of(folder)
    config = config.model_copy(update={"training": config.training.model_copy(update={"epochs": 2})})
    changed = record_run(config, folder / "runs", {5: change})
    found = compared(*((changed, name) for name in names_of(changed)), with_confusion=False)
    settings = {each.name: each.values for each in found.settings}
    assert settings.pop("checkpoint.rate") == [1e-3, 2e-3, 2e-3]
    assert settings.pop("checkpoint.frozen") == ["backbone", "backbone", "conv1, stage2, stage3, stage4"]
    # The phase that has begun by the third one is a phase all the same.
    assert settings == {
        "optimizer.rate": [1e-3, 2e-3, 2e-3],
        "training.epochs": [2, 3, 3],
        "training.patience": [None, 2, 2],
        "training.batch_parts": [1, 2, 2],
        "plan": [[], *[[phase.model_dump(mode="json")]] * 2],
    }


def test_what_is_frozen_adapts_or_has_a_rate_of_its_own_is_the_same_however_it_is_named(
    run_dir: Path, folder: Path
) -> None:
    first, other = (folder / name / run_dir.name for name in ("by_name", "by_unit"))
    units = FreezeSet(*inspect(ModelConfig(name="shufflenet_v2_x0_5")))
    layers = units.units_of(units.resolve(["backbone"]))
    named = ModelConfig(name="shufflenet_v2_x0_5", weights="random", batchnorm="adapting")
    spelled = named.model_copy(
        update={"frozen": layers[::-1], "batchnorm": "frozen", "adapting": units.units_with_statistics}
    )
    rates = OptimizerConfig(rate=1e-3, multipliers={"stage4": 0.5, "conv1": 1.0})
    by_unit = dict.fromkeys(units.units_of(units.resolve(["stage4"])), 0.5)
    spelled_rates = OptimizerConfig(rate=1e-3, multipliers=by_unit)
    for copy, model, optimizer in ((first, named, rates), (other, spelled, spelled_rates)):
        shutil.copytree(run_dir, copy)
        config = config_of(folder).model_copy(update={"model": model, "optimizer": optimizer})
        (copy / "run.toml").write_text(config_to_toml(config))
    assert compared((first, "last"), (other, "last"), with_confusion=False).settings == []
    found = compared((first, "last"), (run_dir, "last"), with_confusion=False).settings
    assert {each.name: each.values for each in found} == {
        "model.frozen": [["backbone"], ["conv1"]],
        "model.batchnorm": ["adapting", "frozen"],
        "optimizer.multipliers.stage4": [0.5, None],
    }


def test_runs_of_the_same_model_and_data_are_told_apart_by_their_folders(run_dir: Path, tmp_path: Path) -> None:
    date, _, rest = run_dir.name.split("_", 2)
    copies = [tmp_path / f"{date}_{clock}_{rest}" for clock in ("020544", "020756")]
    for copy in copies:
        shutil.copytree(run_dir, copy)
    found = compared(*((copy, "last") for copy in copies), with_confusion=False)
    assert [each.title for each in found.checkpoints] == ["020544, epoch 3", "020756, epoch 3"]
    same_name = tmp_path / "elsewhere" / copies[0].name
    shutil.copytree(run_dir, same_name)
    found = compared((copies[0], "last"), (same_name, "last"), with_confusion=False)
    assert [each.title for each in found.checkpoints] == [f"{copies[0]}, epoch 3", f"{same_name}, epoch 3"]


def test_a_damaged_checkpoint_is_refused_by_name(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / run_dir.name
    shutil.copytree(run_dir, copy)
    name = names_of(copy)[0]
    content = bytearray((copy / "checkpoints" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "checkpoints" / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        compared((copy, names_of(copy)[1]), (copy, name))
