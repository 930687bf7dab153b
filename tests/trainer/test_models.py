"""Models: every torchvision classifier gets its head, weights come from files and servers, bad ones get sentences."""

from __future__ import annotations

import argparse
import copy
import hashlib
import math
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from trainer import models
from trainer.config import ModelConfig
from trainer.freezing import FreezeSet
from trainer.messages.model_info import ImagePreset, MisshapenTensor, WeightsReport
from trainer.models import (
    GivenWeights,
    LoadedModel,
    ModelError,
    build_model,
    compare_weights,
    inspect,
    layer_tree,
    list_models,
    preprocessing_of,
    read_weights,
)

ALL = torchvision.models.list_models(module=torchvision.models)
SMALL = "shufflenet_v2_x0_5"


def built(name: str = SMALL, weights: str = "random", num_classes: int = 5, **options: Any) -> LoadedModel:
    values = {"seed": 3, "image_size": None, "on_progress": lambda *_: None, "check_cancelled": lambda: None, **options}
    head = {key: values.pop(key) for key in list(values) if key.startswith("head")}
    config = ModelConfig.model_validate({"name": name, "weights": weights, **head})
    return build_model(config, num_classes, **values)


def sentence(name: str = SMALL, weights: str = "random", field: str = "model.weights", **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        built(name, weights, **options)
    text = str(caught.value)
    assert caught.value.field == field
    assert "\n" not in text
    assert text[-1] in ".?"
    return text


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


# -- architectures --------------------------------------------------------------------------------------------


ONE_PER_FAMILY = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5",
    "mobilenet_v2", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "vgg11", "vit_b_16",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ONE_PER_FAMILY else pytest.mark.slow) for name in ALL]
)
def test_every_model_gets_its_one_head_in_either_habit(name: str) -> None:
    keys: dict[str, set[str]] = {}
    for options in ({"head": "append"}, {"head_hidden": 6, "head_dropout": 0.5}):
        module, head = inspect(ModelConfig.model_validate({"name": name, **options}), num_classes=7)
        assert len(head) == 1
        assert {tensor.device.type for tensor in [*module.parameters(), *module.buffers()]} == {"meta"}
        keys[head[0]] = {key for key in module.state_dict() if not key.startswith(f"{head[0]}.")}
        tree = layer_tree(module, head)
        assert (tree[0].fqn, tree[0].num_params) == ("", sum(p.numel() for p in module.parameters()))
        assert [info.fqn for info in tree if info.is_head] == head
        names = [info.fqn for info in tree]
        assert all(fqn.rpartition(".")[0] in names[:position] for position, fqn in enumerate(names) if fqn)
        assert [atom for info in tree for atom in info.atoms] == FreezeSet(module, head).atoms
        assert sum(number for info in tree for number in info.own_params.values()) == tree[0].num_params
        units = {info.fqn for info in tree if info.is_unit}
        assert {key.rpartition(".")[0] for key in module.state_dict()} <= units
        size = preprocessing_of(ModelConfig(name=name), None).image_size
        with torch.no_grad():
            outputs = module.eval()(torch.empty(2, 3, size, size, device="meta"))
        assert outputs.shape == (2, 7)
    stock, backbone = keys.values()
    (replaced,) = set(keys) - {"appended"}
    assert {key for key in stock if not key.startswith(f"{replaced}.")} == backbone
    assert {key.rpartition(".")[0] for key in stock - backbone} == {replaced}


@pytest.mark.parametrize("name", [SMALL, "squeezenet1_1"])
def test_an_appended_head_takes_what_the_stock_model_returns(name: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    module = built(name, head="append", head_hidden=6, head_dropout=0.5).module.eval()
    stock = torchvision.models.get_model(name)
    stock.load_state_dict({key: value for key, value in module.state_dict().items() if "appended" not in key})
    with torch.no_grad():
        assert torch.equal(module(images), module.appended(stock.eval()(images)))
        # As anyone would write it without Thaw.
        plain = nn.Sequential(nn.Dropout(0.5), nn.Linear(1000, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 5))
        stock.appended = plain
        stock.load_state_dict(module.state_dict())
        stock.eval()
        assert torch.equal(copy.deepcopy(module)(images), stock.appended(stock(images)))


def test_the_words_for_the_parts_hold_whatever_the_head_is() -> None:
    for options in ({}, {"head": "append"}, {"head_hidden": 6, "head_dropout": 0.5}):
        loaded = built(**options)
        freeze_set = FreezeSet(loaded.module, loaded.head)
        own = [unit for unit in freeze_set.units if unit.startswith(loaded.head[0])]
        assert freeze_set.resolve_units(["head"]) == own
        assert freeze_set.freeze(["backbone"]) == [unit for unit in freeze_set.units if unit not in own]
        assert freeze_set.num_trainable == sum(
            p.numel() for p in loaded.module.get_submodule(loaded.head[0]).parameters()
        )


def test_a_layer_that_is_named_head_is_not_taken_for_an_appended_head() -> None:
    module, head = inspect(ModelConfig(name="swin_t", head="append"))
    freeze_set = FreezeSet(module, head)
    assert freeze_set.resolve_units(["head"]) == ["head"]
    assert freeze_set.resolve_units(["appended"]) == ["appended"]
    assert "head" in freeze_set.resolve_units(["backbone"])
    assert freeze_set.describe(["head"]) == "head"
    assert freeze_set.describe(["appended"]) == "appended"


@pytest.mark.parametrize("name", [SMALL, "squeezenet1_1", "mnasnet0_5"])
def test_the_new_head_decides_the_outputs_and_the_keys_stay_the_stock_ones(name: str) -> None:
    loaded = built(name)
    with torch.no_grad():
        assert loaded.module.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 5)
    assert set(loaded.module.state_dict()) == set(torchvision.models.get_model(name).state_dict())


def test_building_follows_the_seed_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = built(), built(), built(seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    for key, value in first.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[key])
    assert not torch.equal(first.module.fc.weight, other.module.fc.weight)
    appended = built(head="append").module.appended.weight
    assert torch.equal(appended, built(head="append").module.appended.weight)
    assert not torch.equal(appended, built(head="append", seed=4).module.appended.weight)


def test_models_are_listed_with_published_figures(hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / "resnet18-f37072fd.pth").write_bytes(b"")
    entries = {entry.name: entry for entry in list_models()}
    assert list(entries) == ALL
    assert entries["resnet18"].num_params == 11_689_512
    assert entries["resnet18"].accuracy == pytest.approx(0.69758)
    assert entries["resnet18"].size_bytes == pytest.approx(46_830_571, rel=1e-3)
    assert entries["resnet18"].is_cached
    assert not entries["resnet34"].is_cached


@pytest.mark.parametrize("image_size", [None, 48, 112, 288])
def test_a_listed_model_says_how_a_run_will_prepare_its_images(image_size: int | None) -> None:
    images = {entry.name: entry.images for entry in list_models()}
    assert (images["efficientnet_v2_m"].image_size, images["efficientnet_v2_l"].mean) == (480, (0.5, 0.5, 0.5))
    said = images[SMALL] if image_size is None else images[SMALL].resized_to(image_size)
    applied = built(image_size=image_size).preprocessing
    assert said == ImagePreset(
        image_size=applied.image_size, resize_size=applied.resize_size, mean=applied.mean, std=applied.std
    )


def test_a_model_lists_all_its_published_weights_the_default_ones_first(hub: Path) -> None:
    hub.mkdir(parents=True)
    (hub / "resnet50-0676ba61.pth").write_bytes(b"")
    entries = {entry.name: entry for entry in list_models()}
    newer, older = entries["resnet50"].weight_sets
    assert (newer.name, older.name) == ("IMAGENET1K_V2", "IMAGENET1K_V1")
    assert (newer.accuracy, older.accuracy) == pytest.approx((0.80858, 0.76130))
    assert (newer.images.resize_size, older.images.resize_size) == (232, 256)
    assert (newer.is_cached, older.is_cached) == (False, True)
    assert entries["resnet50"].weight_set("published") == newer
    assert entries["resnet50"].weight_set("IMAGENET1K_V1") == older
    swag = [each.name for each in entries["vit_b_16"].weight_sets]
    assert swag == ["IMAGENET1K_V1", "IMAGENET1K_SWAG_E2E_V1", "IMAGENET1K_SWAG_LINEAR_V1"]
    assert [each.name for each in entries["vgg16"].weight_sets] == ["IMAGENET1K_V1"], "the other ones cannot classify"
    for entry in entries.values():
        default = entry.weight_sets[0]
        assert (entry.accuracy, entry.size_bytes, entry.images) == (
            default.accuracy,
            default.size_bytes,
            default.images,
        )


def test_images_are_prepared_as_the_chosen_weights_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    own = preprocessing_of(ModelConfig(name="vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1"), None)
    assert (own.image_size, own.interpolation) == (384, "bicubic")
    for weights in ("published", "random", "file.pt"):
        assert preprocessing_of(ModelConfig(name="vit_b_16", weights=weights), None).image_size == 224
    # A resume, or a trial, needs the shapes of the chosen weights without the weights.
    monkeypatch.setattr(models, "fetch_published", None)
    loaded = built("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", with_weights=False)
    assert loaded.preprocessing == own
    assert loaded.module.state_dict()["encoder.pos_embedding"].shape == (1, 577, 768)


def test_weights_that_a_model_does_not_have_are_refused_with_those_it_has() -> None:
    assert sentence("resnet18", "IMAGENET1K_V2") == (
        "resnet18 has no published weights IMAGENET1K_V2. Choose one of IMAGENET1K_V1."
    )
    assert "Choose one of IMAGENET1K_V1." in sentence("vgg16", "IMAGENET1K_FEATURES")


def test_an_unknown_model_is_refused_with_close_names() -> None:
    assert "Did you mean resnet50" in sentence("resnet5", field="model.name")
    assert "`thaw models` lists them." in sentence("zzz", field="model.name")
    assert 'no torchvision classification model "quantized_resnet18"' in sentence(
        "quantized_resnet18", field="model.name"
    )
    with pytest.raises(ModelError, match="ResNet-18"):
        inspect(ModelConfig(name="ResNet-18"))


# -- preprocessing --------------------------------------------------------------------------------------------


def test_preprocessing_is_that_of_the_published_weights() -> None:
    own = built("efficientnet_v2_s").preprocessing
    assert (own.image_size, own.resize_size, own.interpolation) == (384, 384, "bilinear")
    half = built(image_size=112).preprocessing
    assert (half.image_size, half.resize_size) == (112, 128)
    small = built(image_size=48).preprocessing
    assert (small.image_size, small.resize_size, small.mean) == (48, 48, (0.485, 0.456, 0.406))


@pytest.mark.parametrize(("name", "image_size"), [("inception_v3", 32), ("vit_b_32", 50), ("maxvit_t", 64)])
def test_an_image_size_that_the_model_cannot_take_is_refused(name: str, image_size: int) -> None:
    text = sentence(name, image_size=image_size, field="data.image_size")
    assert f"{name} cannot take images of {image_size} pixels" in text
    assert "Leave the image size empty for its own" in text


# -- files ----------------------------------------------------------------------------------------------------


def saved(tmp_path: Path, form: str) -> Path:
    state = built(num_classes=9, seed=8).module.state_dict()
    if form == "safetensors":
        safetensors.torch.save_file(state, tmp_path / "w.safetensors")
        return tmp_path / "w.safetensors"
    content: object = {
        "bare": state,
        "checkpoint": {"model_state_dict": state, "epoch": 3, "loss": 0.5},
        "parallel": {"state_dict": OrderedDict((f"module.{key}", value) for key, value in state.items())},
    }[form]
    torch.save(content, tmp_path / "w.pt")
    return tmp_path / "w.pt"


@pytest.mark.parametrize("form", ["bare", "checkpoint", "parallel", "safetensors"])
def test_weights_come_back_from_a_file_except_a_head_of_another_shape(tmp_path: Path, form: str) -> None:
    path = saved(tmp_path, form)
    expected = built(num_classes=9, seed=8).module.state_dict()
    before = torch.get_rng_state()
    loaded = built(weights=str(path)).module.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    for key, value in expected.items():
        if not key.startswith("fc."):
            assert torch.equal(loaded[key], value), key
    assert loaded["fc.weight"].shape == (5, 1024)
    assert torch.equal(loaded["fc.weight"], built().module.fc.weight), "the head is drawn from the seed alone"
    same_classes = built(weights=str(path), num_classes=9).module.state_dict()
    assert torch.equal(same_classes["fc.weight"], expected["fc.weight"])
    assert read_weights(path).keys() == expected.keys()


def lightning(state: dict[str, torch.Tensor], prefix: str, **others: object) -> dict[str, object]:
    """Return what Lightning saves of a module that holds a model and a weighted loss."""
    inner = OrderedDict((f"{prefix}{key}", value) for key, value in state.items())
    return {
        "epoch": 4,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict({"criterion.weight": torch.ones(9), **inner}),
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(0.2)}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
        "hyper_parameters": {"lr": 0.1, "name": SMALL},
        **others,
    }


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "model.module.", "my_own_name."])
def test_a_lightning_file_gives_its_model_under_whatever_name_and_says_what_is_left_out(
    tmp_path: Path, prefix: str
) -> None:
    expected = built(num_classes=9, seed=8).module.state_dict()
    torch.save(lightning(expected, prefix), tmp_path / "last.ckpt")
    loaded = built(weights=str(tmp_path / "last.ckpt"), num_classes=9)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in loaded.module.state_dict().items())
    assert loaded.report is not None
    assert loaded.report.sentence.endswith("the head's too. 1 of the file that are not of the model are left out.")


def test_a_lightning_file_with_a_head_of_its_own_beside_the_backbone_gets_a_new_one(tmp_path: Path) -> None:
    state = built(num_classes=9, seed=8).module.state_dict()
    backbone = {key: value for key, value in state.items() if not key.startswith("fc.")}
    torch.save(lightning(backbone, "backbone.", head=torch.zeros(3)), tmp_path / "last.ckpt")
    report = compared(tmp_path / "last.ckpt")
    assert report.is_usable, report.sentence
    assert report.is_head_new
    assert report.num_fitting == len(backbone)


def test_a_lightning_file_of_another_model_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    torch.save(lightning(built("resnet18", seed=8).module.state_dict(), "model."), tmp_path / "other.ckpt")
    report = compared(tmp_path / "other.ckpt")
    assert not report.is_usable
    assert "missing in the file" in report.sentence
    assert "Choose the model that it was saved from" in report.sentence


@pytest.mark.parametrize("name", ["model_best.pth.tar", "pytorch_model.bin", "checkpoint.pt"])
def test_a_file_of_timms_own_script_is_read_with_the_options_of_its_command_line(tmp_path: Path, name: str) -> None:
    expected = built(num_classes=9, seed=8).module.state_dict()
    content = {
        "epoch": 7,
        "arch": SMALL,
        "state_dict": expected,
        "optimizer": {"state": {}, "param_groups": []},
        "version": 2,
        "args": argparse.Namespace(lr=0.1, model=SMALL, betas=[0.9, 0.999]),
        "metric": 91.2,
    }
    torch.save(content, tmp_path / name)
    loaded = built(weights=str(tmp_path / name), num_classes=9).module.state_dict()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in loaded.items())


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_whole_model_and_a_program_are_named_with_the_way_to_save_them_anew(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    whole = sentence(weights=str(tmp_path / "model.pt"))
    assert "never run here (torch.nn.modules.linear.Linear). Where it was made, save its weights with" in whole
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "script.pt")
    program = sentence(weights=str(tmp_path / "script.pt"))
    assert "holds a TorchScript program" in program
    assert "torch.save(torch.jit.load(path).state_dict(), …)" in program


@pytest.mark.parametrize("name", ["densenet121", "mnasnet0_5", "vit_b_32"])
def test_old_names_in_published_files_are_understood(name: str, tmp_path: Path) -> None:
    state = built(name, seed=8).module.state_dict()
    old = OrderedDict()
    for key, value in state.items():
        if "num_batches_tracked" in key:
            continue
        for new_name, old_name in (("norm1", "norm.1"), ("conv2", "conv.2"), ("mlp.0", "mlp.linear_1")):
            if "denselayer" in key or "mlp" in key:
                key = key.replace(f".{new_name}.", f".{old_name}.")
        old[key] = value
    torch.save(old, tmp_path / "w.pth")
    loaded = built(name, str(tmp_path / "w.pth")).module.state_dict()
    for key, value in state.items():
        assert torch.equal(loaded[key], value), key


def test_auxiliary_heads_in_a_file_are_left_out(tmp_path: Path) -> None:
    state = dict(built("googlenet", seed=8).module.state_dict())
    torch.save({**state, "aux1.fc2.weight": torch.zeros(1000, 1024)}, tmp_path / "w.pt")
    loaded = built("googlenet", str(tmp_path / "w.pt")).module
    assert torch.equal(loaded.conv1.conv.weight, state["conv1.conv.weight"])
    assert loaded.transform_input


def test_a_vision_transformer_takes_another_image_size(tmp_path: Path) -> None:
    torch.save(built("vit_b_32", seed=8).module.state_dict(), tmp_path / "w.pt")
    loaded = built("vit_b_32", str(tmp_path / "w.pt"), image_size=64).module
    with torch.no_grad():
        assert loaded.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_an_appended_head_keeps_the_last_layer_of_the_file(tmp_path: Path) -> None:
    stock = built(num_classes=1000, seed=8).module.state_dict()
    torch.save(stock, tmp_path / "stock.pt")
    loaded = built(weights=str(tmp_path / "stock.pt"), head="append").module.state_dict()
    for key, value in stock.items():
        assert torch.equal(loaded[key], value), key
    torch.save(loaded, tmp_path / "own.pt")
    again = built(weights=str(tmp_path / "own.pt"), head="append", seed=5).module.state_dict()
    assert torch.equal(again["appended.weight"], loaded["appended.weight"])
    torch.save(built().module.state_dict(), tmp_path / "replaced.pt")
    text = sentence(weights=str(tmp_path / "replaced.pt"), head="append")
    assert text.endswith("Choose the model that it was saved from, or replace the last layer.")


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w18.pt")
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "w34.pt")
    text = sentence(weights=str(tmp_path / "w18.pt"))
    assert f"{tmp_path / 'w18.pt'} does not fit {SMALL}" in text
    assert "conv1.0.weight" in text
    assert "more tensors missing in the file" in text
    assert "unknown to the model" in sentence("resnet18", str(tmp_path / "w34.pt"))
    assert "differ in shape ((64," in sentence("resnet50", str(tmp_path / "w34.pt"))


def compared(path: Path, name: str = SMALL, **options: Any) -> WeightsReport:
    report = compare_weights(ModelConfig.model_validate({"name": name, "weights": str(path), **options}), 5, None)
    assert report is not None
    return report


def test_a_file_is_compared_with_its_model_before_it_is_used(tmp_path: Path) -> None:
    state = built(num_classes=9, seed=8).module.state_dict()
    torch.save(state, tmp_path / "w.pt")
    report = compared(tmp_path / "w.pt")
    assert report == WeightsReport(
        path=str(tmp_path / "w.pt"),
        is_usable=True,
        sentence=f"All {len(state) - 2} tensors fit; the head begins anew.",
        num_fitting=len(state) - 2,
    )
    same = compare_weights(ModelConfig(name=SMALL, weights=str(tmp_path / "w.pt")), 9, None)
    assert same is not None
    assert (same.sentence, same.is_head_new) == (f"All {len(state)} tensors fit, the head's too.", False)
    assert compare_weights(ModelConfig(name=SMALL, weights="random"), 9, None) is None


def test_every_tensor_that_does_not_fit_is_told(tmp_path: Path) -> None:
    state = dict(built(seed=8).module.state_dict())
    # torch itself makes up for a num_batches_tracked that is not there.
    gone = [key for key in state if key.startswith("conv5.") and "num_batches" not in key]
    for key in gone:
        del state[key]
    state["conv1.0.weight"] = torch.zeros(9, 3, 3, 3)
    extra = {f"extra.{number}": torch.zeros(1) for number in range(5)}
    torch.save({**state, **extra}, tmp_path / "w.pt")
    report = compared(tmp_path / "w.pt")
    assert not report.is_usable
    assert (report.missing, report.unexpected) == (gone, list(extra))
    assert report.misshapen == [MisshapenTensor(key="conv1.0.weight", in_file=[9, 3, 3, 3], in_model=[24, 3, 3, 3])]
    assert report.num_fitting == len(state) - 1
    assert report.sentence == sentence(weights=str(tmp_path / "w.pt"))
    for words in ("conv1.0.weight differ in shape ((9, 3, 3, 3)", "missing in the file", "and 2 more tensors unknown"):
        assert words in report.sentence


@pytest.mark.parametrize("name", ["densenet121", "mnasnet0_5", "vit_b_32", "googlenet"])
def test_a_comparison_says_what_a_run_would_find(name: str, tmp_path: Path) -> None:
    state = built(name, seed=8).module.state_dict()
    old = {
        key.replace("mlp.0", "mlp.linear_1").replace("norm1.", "norm.1."): value
        for key, value in state.items()
        if "num_batches" not in key
    }
    torch.save(old, tmp_path / "w.pt")
    report = compared(tmp_path / "w.pt", name)
    assert report.is_usable, report.sentence
    assert report.num_fitting == len(old)


def test_a_file_that_cannot_be_read_is_told_in_the_comparison(tmp_path: Path) -> None:
    report = compared(tmp_path / "gone.pt")
    assert not report.is_usable
    assert report.sentence == f"There is no weights file {tmp_path / 'gone.pt'}. Check the path, or choose random."


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_file_with_code_in_it_is_refused_and_the_code_not_run(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    torch.save({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    for name in ("model.pt", "evil.pt"):
        assert "holds a whole pickled model or other code, which is never run" in sentence(weights=str(tmp_path / name))
    assert not (tmp_path / "ran").exists()


def test_files_that_hold_no_weights_get_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    (tmp_path / "w.onnx").write_text("x")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save({"base_sha256": "ab", "model_state_dict": {"fc.bias": torch.zeros(5)}}, tmp_path / "compact.pt")
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "empty.pt").touch()
    (tmp_path / "empty.safetensors").touch()
    torch.save({"fc.bias": torch.zeros(5)}, tmp_path / "protocol.pt", pickle_protocol=4)
    whole_zip = saved(tmp_path, "bare").read_bytes()
    write_with_other_byte(tmp_path / "encrypted.pt", 8, 1, whole_zip)
    for method in (8, 12, 14, 99):
        write_with_other_byte(tmp_path / f"packed_{method}.pt", 10, method, whole_zip)
    with zipfile.ZipFile(tmp_path / "images.pt", "w") as archive:
        archive.writestr("images/1.jpg", b"x")
    for name, whole in {
        "cut.pt": saved(tmp_path, "bare").read_bytes(),
        "cut.safetensors": saved(tmp_path, "safetensors").read_bytes(),
        "old.pt": saved_without_zip(tmp_path).read_bytes(),
    }.items():
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        (tmp_path / f"short_{name}").write_bytes(whole[:20])
    for name, words in {
        "gone.pt": "There is no weights file",
        "folder.pt": "is a folder, not a file of weights",
        "empty.pt": "Cannot read weights from {}: it is empty. Copy or export it again.",
        "empty.safetensors": "Cannot read weights from {}: it is empty. Copy or export it again.",
        "text.pt": "Cannot read weights from {}: it is no checkpoint of PyTorch, neither a zip nor a pickle",
        "images.pt": "Cannot read weights from {}: it is a zip of other files",
        "protocol.pt": "Cannot read weights from {}: it is whole, but pickled in a way that is not read here",
        "encrypted.pt": "Cannot read weights from {}: it is cut off or damaged. Copy or export it again.",
        **dict.fromkeys(
            (f"packed_{method}.pt" for method in (8, 12, 14, 99)),
            "Cannot read weights from {}: it is cut off or damaged. Copy or export it again.",
        ),
        "cut.pt": "Cannot read weights from {}: it is cut off or damaged. Copy or export it again.",
        "short_cut.pt": "Cannot read weights from {}: it is cut off or damaged. Copy or export it again.",
        "old.pt": "Cannot read weights from {}: it is cut off or damaged. Copy or export it again.",
        "short_old.pt": "Cannot read weights from {}: it is cut off or damaged. Copy or export it again.",
        "text.safetensors": "Cannot read weights from {}: it is no file of safetensors",
        "cut.safetensors": "Cannot read weights from {}: it is cut off or damaged. Copy or export it again.",
        "short_cut.safetensors": "Cannot read weights from {}: it is cut off or damaged. Copy or export it again.",
        "w.onnx": "choose one that ends in .pt, .pth or .safetensors",
        "epoch.pt": "holds no state_dict",
        "tensor.pt": "holds no state_dict",
        "compact.pt": "is a compact checkpoint",
    }.items():
        text = sentence(weights=str(tmp_path / name))
        assert words.format(tmp_path / name) in text
        assert str(tmp_path / name) in text


def test_a_byte_that_changed_in_a_tensor_is_noticed_where_the_file_has_checksums(tmp_path: Path) -> None:
    state = built(num_classes=9, seed=8).module.state_dict()
    flipped, unchecked = tmp_path / "flipped.pt", tmp_path / "unchecked.pt"
    torch.save(state, flipped)
    content = bytearray(flipped.read_bytes())
    place = content.index(state["conv5.0.weight"].numpy().tobytes()) + 1000
    content[place] ^= 0xFF
    flipped.write_bytes(content)
    assert sentence(weights=str(flipped)) == (
        f"Cannot read weights from {flipped}: it is cut off or damaged. Copy or export it again."
    )
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, unchecked)
    finally:
        torch.serialization.set_crc32_options(True)
    assert compared(unchecked).is_usable
    # Without its tensors' bytes, which are written afterwards.
    with torch.serialization.skip_data():
        torch.save({"fc.bias": torch.zeros(9)}, unchecked)
    assert "damaged" not in sentence(weights=str(unchecked))


def write_with_other_byte(path: Path, offset: int, value: int, whole: bytes) -> None:
    """Write a zip whose first entry has another byte at an offset of its record in the directory."""
    damaged = bytearray(whole)
    damaged[whole.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(damaged)


def saved_without_zip(tmp_path: Path) -> Path:
    state = built(num_classes=9, seed=8).module.state_dict()
    torch.save(state, tmp_path / "whole_old.pt", _use_new_zipfile_serialization=False)
    return tmp_path / "whole_old.pt"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_with_values_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    state = dict(built(num_classes=9, seed=8).module.state_dict())
    state["conv5.0.weight"][3, 2] = value
    torch.save(state, path)
    one = f"{path} has NaN or infinity in its tensor conv5.0.weight, from which nothing can learn."
    assert sentence(weights=str(path)).startswith(one)
    state["conv1.1.running_var"][0] = value
    torch.save(state, path)
    several = f"{path} has NaN or infinity in 2 of its tensors, the first of them conv1.1.running_var, from which"
    report = compared(path)
    assert not report.is_usable
    assert report.sentence.startswith(several)
    assert report.sentence == sentence(weights=str(path))


def test_what_is_left_out_of_a_file_may_be_of_any_value(tmp_path: Path) -> None:
    state = dict(built(num_classes=9, seed=8).module.state_dict())
    # The head of another task.
    state["fc.weight"][0] = math.nan
    torch.save(state, tmp_path / "w.pt")
    assert compared(tmp_path / "w.pt").is_usable
    assert sentence(weights=str(tmp_path / "w.pt"), num_classes=9).startswith(f"{tmp_path / 'w.pt'} has NaN or")


def test_weights_that_are_given_are_taken_as_they_are(tmp_path: Path) -> None:
    state = built(seed=8).module.state_dict()
    state["conv5.0.weight"][3, 2] = math.nan
    module = built(given=GivenWeights(state, "a checkpoint of a run")).module
    assert module.state_dict()["conv5.0.weight"].isnan().any()


# -- published weights ----------------------------------------------------------------------------------------


class Server(SimpleHTTPRequestHandler):
    """Serves files, as Python's own server does. What a test may ask of it besides is set on the class."""

    has_ranges = True
    sends_at_most: int | None = None
    asked: ClassVar[list[str | None]] = []

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.asked.append(asked)
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.has_ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.sends_at_most])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder in place of torch's download server; the model's file is named by the test."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setattr(Server, "has_ranges", True)
    monkeypatch.setattr(Server, "sends_at_most", None)
    monkeypatch.setattr(Server, "asked", [])
    serving = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(folder)))
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    publish(monkeypatch, f"http://127.0.0.1:{serving.server_port}")
    yield folder
    serving.shutdown()
    thread.join()
    serving.server_close()


def publish(monkeypatch: pytest.MonkeyPatch, address: str, prefix: str | None = None) -> None:
    class Weights:
        name = "IMAGENET1K_V1"

        @property
        def url(self) -> str:
            return f"{address}/{SMALL}-{prefix or right_prefix()}.pth"

        def transforms(self) -> Any:
            return torchvision.models.get_model_weights(SMALL).DEFAULT.transforms()

    monkeypatch.setattr(models, "_published_weights", lambda _: [Weights()])
    monkeypatch.setenv("no_proxy", "127.0.0.1")


_content: list[bytes] = []


def content(tmp_path: Path) -> bytes:
    if not _content:
        torch.save(built(num_classes=1000, seed=8).module.state_dict(), tmp_path / "published.pth")
        _content.append((tmp_path / "published.pth").read_bytes())
    return _content[0]


def right_prefix() -> str:
    return hashlib.sha256(_content[0]).hexdigest()[:8]


def test_published_weights_are_downloaded_once_with_progress(tmp_path: Path, hub: Path, server: Path) -> None:
    published = content(tmp_path)
    file = server / f"{SMALL}-{right_prefix()}.pth"
    file.write_bytes(published)
    calls: list[tuple[str, int, int, str]] = []
    loaded = built(weights="published", on_progress=lambda *call: calls.append(call)).module
    assert calls[-1] == (f"Downloading {SMALL}", len(published), len(published), "bytes")
    assert torch.equal(loaded.conv1[0].weight, built(num_classes=1000, seed=8).module.conv1[0].weight)
    assert [path.name for path in hub.iterdir()] == [file.name]
    file.unlink()
    calls.clear()
    built(weights="published", on_progress=lambda *call: calls.append(call))
    assert calls == []


def test_a_damaged_download_is_refused_and_leaves_nothing_behind(tmp_path: Path, hub: Path, server: Path) -> None:
    published = content(tmp_path)
    (server / f"{SMALL}-{right_prefix()}.pth").write_bytes(published[:-1])
    assert "is damaged: its SHA-256 is not the one in its name" in sentence(weights="published")
    assert list(hub.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_refused_and_kept(tmp_path: Path, hub: Path, server: Path) -> None:
    published = content(tmp_path)
    hub.mkdir(parents=True)
    cached = hub / f"{SMALL}-{right_prefix()}.pth"
    cached.write_bytes(published[:-1])
    assert f"{cached} is not the published file of {SMALL}" in sentence(weights="published")
    assert cached.read_bytes() == published[:-1]


KEPT = f"What came of {SMALL} is kept: the next download goes on from there."


class CancelledError(Exception):
    pass


def cancel_after(num_calls: int) -> Callable[[], None]:
    calls = iter(range(num_calls))

    def cancel() -> None:
        if next(calls, None) is None:
            raise CancelledError

    return cancel


def serve_published(tmp_path: Path, server: Path) -> Path:
    published = content(tmp_path)
    file = server / f"{SMALL}-{right_prefix()}.pth"
    file.write_bytes(published)
    return file


def test_a_download_that_is_cancelled_before_anything_came_leaves_nothing(
    tmp_path: Path, hub: Path, server: Path
) -> None:
    serve_published(tmp_path, server)
    with pytest.raises(CancelledError) as caught:
        built(weights="published", check_cancelled=cancel_after(0))
    assert list(hub.iterdir()) == []
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_cancelled_download_is_gone_on_with(
    has_ranges: bool, tmp_path: Path, hub: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "has_ranges", has_ranges)
    file = serve_published(tmp_path, server)
    size = file.stat().st_size
    with pytest.raises(CancelledError) as caught:
        built(weights="published", check_cancelled=cancel_after(3))
    assert caught.value.__notes__ == [KEPT]
    (left,) = hub.iterdir()
    num_kept = left.stat().st_size
    assert left.name == f"{file.name}.partial"
    assert left.read_bytes() == file.read_bytes()[:num_kept]
    assert 0 < num_kept < size
    calls: list[tuple[str, int, int, str]] = []
    built(weights="published", on_progress=lambda *call: calls.append(call))
    assert Server.asked == [None, f"bytes={num_kept}-"]
    assert (calls[0][1] > num_kept) is has_ranges
    assert calls[-1] == (f"Downloading {SMALL}", size, size, "bytes")
    assert [(path.name, path.read_bytes()) for path in hub.iterdir()] == [(file.name, file.read_bytes())]


def test_a_download_whose_connection_ends_early_is_kept_and_told(
    tmp_path: Path, hub: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = serve_published(tmp_path, server)
    monkeypatch.setattr(Server, "sends_at_most", 1000)
    with pytest.raises(ModelError) as caught:
        built(weights="published")
    assert f"(the connection ended after 1,000 of {file.stat().st_size:,} bytes)" in str(caught.value)
    assert caught.value.__notes__ == [KEPT]
    monkeypatch.setattr(Server, "sends_at_most", None)
    built(weights="published")
    assert Server.asked == [None, "bytes=1000-"]
    assert [path.name for path in hub.iterdir()] == [file.name]


def test_what_a_killed_process_left_is_taken_and_what_a_living_one_writes_is_not(
    tmp_path: Path, hub: Path, server: Path
) -> None:
    file = serve_published(tmp_path, server)
    hub.mkdir(parents=True)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (hub / f"{file.name}.{os.getppid()}.partial").write_bytes(file.read_bytes()[:9000])
    (hub / f"{file.name}.{ended.pid}.partial").write_bytes(file.read_bytes()[:5000])
    built(weights="published")
    assert Server.asked == ["bytes=5000-"]
    assert {path.name for path in hub.iterdir()} == {file.name, f"{file.name}.{os.getppid()}.partial"}


@pytest.mark.parametrize("num_extra", [0, 10])
def test_a_partial_file_that_is_as_long_as_the_whole_ends_well(
    num_extra: int, tmp_path: Path, hub: Path, server: Path
) -> None:
    file = serve_published(tmp_path, server)
    hub.mkdir(parents=True)
    (hub / f"{file.name}.partial").write_bytes(file.read_bytes() + b"x" * num_extra)
    built(weights="published")
    assert len(Server.asked) == (2 if num_extra else 1)
    assert [(path.name, path.read_bytes()) for path in hub.iterdir()] == [(file.name, file.read_bytes())]


def test_a_damaged_partial_file_is_found_by_its_hash_and_removed(tmp_path: Path, hub: Path, server: Path) -> None:
    file = serve_published(tmp_path, server)
    hub.mkdir(parents=True)
    (hub / f"{file.name}.partial").write_bytes(b"x" * 1000)
    assert "is damaged: its SHA-256 is not the one in its name" in sentence(weights="published")
    assert list(hub.iterdir()) == []
    built(weights="published")


def test_a_server_without_the_file_is_told(tmp_path: Path, server: Path) -> None:
    content(tmp_path)
    assert f"Cannot download the weights of {SMALL} (File not found)" in sentence(weights="published")


def test_without_a_network_the_sentence_says_where_to_put_the_file(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    publish(monkeypatch, f"http://127.0.0.1:{port}", prefix="0123abcd")
    text = sentence(weights="published")
    name = f"{SMALL}-0123abcd.pth"
    assert text == (
        f"Cannot download the weights of {SMALL} ([Errno 111] Connection refused). Connect to the network; or fetch "
        f"http://127.0.0.1:{port}/{name} on another machine and put it at {hub / name}; or choose local or random "
        "weights."
    )
    assert list(hub.iterdir()) == []


def test_a_cache_folder_that_cannot_be_written_is_told(tmp_path: Path, hub: Path, server: Path) -> None:
    content(tmp_path)
    hub.parent.mkdir()
    hub.write_text("a file is in the way")
    assert "Cannot keep the weights of" in sentence(weights="published")
