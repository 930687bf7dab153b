"""Sharing a checkpoint as a file: each format, loaded again as others would, computes what the run's model does."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from tests.conftest import make_images
from tests.trainer.recorded_runs import record_run
from trainer.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from trainer.export import formats
from trainer.export.checkpoint_export import export
from trainer.export.formats import DESCRIPTION_FILE, FORMATS, Format
from trainer.export.shared_model import ExportError, read_shared_model
from trainer.messages.export import CheckpointExported, ExportCheckpoint, ExportFormat, format_of
from trainer.models import build_model, list_models, with_version
from trainer.runs import RunFolder

SAID = {"model", "task", "class_names", "preprocessing", "input", "output", "metrics", "versions", "step"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one epoch, whose head is appended: the model that is least like a stock one."""
    folder = tmp_path_factory.mktemp("run")
    config = RunConfig(
        name="small",
        data=DataConfig(path=str(make_images(folder / "images")), image_size=32, validation_fraction=0.25),
        model=ModelConfig(name="shufflenet_v2_x0_5", weights="random", head="append", head_hidden=4, head_dropout=0.5),
        training=TrainingConfig(epochs=1, batch_size=8, device="cpu", num_threads=1),
    )
    return record_run(config, folder / "runs")


@pytest.fixture(scope="module")
def images_and_outputs(run_dir: Path) -> tuple[Tensor, Tensor]:
    """Return five images, and what the run's own model computes of them."""
    with RunFolder(run_dir, read_only=True) as folder:
        module = read_shared_model(folder, "last").module
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return images, module(images)


def shared(
    run_dir: Path, to: Path, chosen: ExportFormat | None = None, *, overwrite: bool = False
) -> CheckpointExported:
    command = ExportCheckpoint(
        run_dir=str(run_dir), checkpoint="last", to=str(to), format=chosen, overwrite=overwrite, command_id="7"
    )
    return export(command, lambda *_: None)


def described(to: Path) -> dict[str, object]:
    """Return what the JSON file beside an exported one says, which is said of each."""
    values: dict[str, object] = json.loads(to.with_name(f"{to.name}.json").read_text())
    assert values.keys() >= SAID | {"parity", "sha256", "about"}
    assert values["class_names"] == ["class_0", "class_1", "class_2"]
    return values


def plain_model() -> nn.Module:
    """Return the model as anyone would build it."""
    model = torchvision.models.shufflenet_v2_x0_5(weights=None)
    model.appended = nn.Sequential(nn.Dropout(), nn.Linear(1000, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 3))
    return model.eval()


def plain_outputs(state: dict[str, Tensor], images: Tensor) -> Tensor:
    model = plain_model()
    model.load_state_dict(state)
    with torch.no_grad():
        outputs: Tensor = model.appended(model(images))
    return outputs


def test_bare_state_dict_loads_into_the_stock_model(run_dir, tmp_path, images_and_outputs):
    images, outputs = images_and_outputs
    exported = shared(run_dir, tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert torch.equal(plain_outputs(state, images), outputs)
    assert exported.files == {name: (tmp_path / name).stat().st_size for name in ("model.pt", "model.pt.json")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "model.pt.json"]
    assert (exported.parity.largest_difference, exported.parity.tolerance) == (0, 0)
    assert (exported.parity.num_images, exported.parity.is_on_random_images) == (9, False)
    assert exported.command_id == "7"
    assert described(tmp_path / "model.pt")["format"] == "pt"


def test_course_dict_holds_all_its_keys_in_one_file(run_dir, tmp_path, images_and_outputs):
    images, outputs = images_and_outputs
    shared(run_dir, tmp_path / "model.pt", "course")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert content.keys() >= {"epoch", "model_state_dict", "optimizer_state_dict", "loss"} | SAID
    assert torch.equal(plain_outputs(content["model_state_dict"], images), outputs)
    assert (content["epoch"], content["loss"]) == (1, content["metrics"]["Loss/validation"])
    # Its groups are a layer each, so that the optimizer of who goes on needs as many.
    assert {group["name"] for group in content["optimizer_state_dict"]["param_groups"]} >= {"fc", "appended.1"}
    described(tmp_path / "model.pt")


def test_safetensors_says_what_it_is_in_its_header(run_dir, tmp_path, images_and_outputs):
    images, outputs = images_and_outputs
    shared(run_dir, tmp_path / "model.safetensors")
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert torch.equal(plain_outputs(state, images), outputs)
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        header = {key: value if key == "format" else json.loads(value) for key, value in file.metadata().items()}
    assert header["class_names"] == ["class_0", "class_1", "class_2"]
    assert header["preprocessing"]["image_size"] == 32
    assert header["versions"]["torch"] == str(torch.__version__)
    assert header["metrics"] == described(tmp_path / "model.safetensors")["metrics"]


@pytest.mark.slow
def test_whole_model_is_marked_as_code_and_loads_where_there_is_no_thaw(run_dir, tmp_path, images_and_outputs):
    images, outputs = images_and_outputs
    shared(run_dir, tmp_path / "model.pkl", "pickle")
    assert "executes code" in str(described(tmp_path / "model.pkl")["about"])
    torch.save(images, tmp_path / "images.pt")
    script = (
        "import importlib.util, sys, torch, torchvision\n"
        "assert importlib.util.find_spec('trainer') is None\n"
        "model = torch.load('model.pkl', weights_only=False)\n"
        "assert not model.training and not model[0].training\n"
        "torch.save(model(torch.load('images.pt')).detach(), 'outputs.pt')\n"
    )
    # Isolated, and without what an editable install would put on the path.
    site = next(path for path in sys.path if path.endswith("site-packages"))
    script = f"import sys; sys.path.append({site!r})\n{script}"
    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True, cwd=tmp_path)
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), outputs)


@pytest.mark.slow
def test_onnx_takes_any_number_of_images_and_describes_itself(run_dir, tmp_path, images_and_outputs):
    images, outputs = images_and_outputs
    exported = shared(run_dir, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    for number in (5, 1, 3):
        (found,) = session.run(["logits"], {"images": images[:number].numpy()})
        np.testing.assert_allclose(found, outputs[:number].numpy(), atol=1e-5)
    graph = onnx.load(tmp_path / "model.onnx")
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    properties = {each.key: json.loads(each.value) for each in graph.metadata_props if each.key in SAID}
    assert properties["class_names"] == ["class_0", "class_1", "class_2"]
    assert properties["preprocessing"] == described(tmp_path / "model.onnx")["preprocessing"]
    assert 0 <= exported.parity.largest_difference <= exported.parity.tolerance == pytest.approx(1e-4)


@pytest.mark.slow
def test_pt2_takes_any_number_of_images_and_describes_itself(run_dir, tmp_path, images_and_outputs):
    images, outputs = images_and_outputs
    shared(run_dir, tmp_path / "model.pt2")
    extra = {DESCRIPTION_FILE: ""}
    module = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    for number in (5, 1, 3):
        assert torch.allclose(module(images[:number]), outputs[:number], atol=1e-5)
    assert json.loads(extra[DESCRIPTION_FILE])["class_names"] == ["class_0", "class_1", "class_2"]
    described(tmp_path / "model.pt2")


def test_what_is_not_the_same_is_refused_and_not_left_behind(run_dir, tmp_path, monkeypatch):
    def write_other_weights(model, path, _):
        state = model.module.state_dict()
        torch.save({**state, "fc.bias": state["fc.bias"] + 1e-6}, path)

    monkeypatch.setitem(FORMATS, "pt", Format(write_other_weights, FORMATS["pt"].read))
    with pytest.raises(ExportError, match=r"^model\.pt was not kept: its outputs differ by up to .* Choose another"):
        shared(run_dir, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_lack_a_tensor_are_refused(run_dir, tmp_path, monkeypatch):
    def write_less(model, path, _):
        state = model.module.state_dict()
        safetensors.torch.save_file({key: tensor for key, tensor in state.items() if key != "fc.bias"}, path)

    monkeypatch.setitem(FORMATS, "safetensors", Format(write_less, FORMATS["safetensors"].read))
    with pytest.raises(ExportError, match=r"model\.safetensors was not kept: it cannot be loaded again \(.*fc\.bias"):
        shared(run_dir, tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_computes_nan_is_refused(run_dir, tmp_path, monkeypatch):
    with RunFolder(run_dir, read_only=True) as folder:
        model = read_shared_model(folder, "last")
    model.module.get_submodule("appended.4").bias.data.fill_(torch.nan)
    monkeypatch.setattr("trainer.export.checkpoint_export.read_shared_model", lambda *_: model)
    with pytest.raises(ExportError, match="NaN or infinite"):
        shared(run_dir, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_parity_is_checked_on_random_images_where_the_data_are_gone_and_says_so(run_dir, tmp_path):
    images = run_dir.parent.parent / "images"
    images.rename(images.with_name("elsewhere"))
    try:
        exported = shared(run_dir, tmp_path / "model.pt")
    finally:
        images.with_name("elsewhere").rename(images)
    assert exported.parity.is_on_random_images
    said = described(tmp_path / "model.pt")["parity"]
    assert said["is_on_random_images"] is True
    assert said["sentence"].endswith("on 2 random images: none of the run's own can be read.")


def test_nothing_is_written_over_unless_that_is_allowed(run_dir, tmp_path):
    (tmp_path / "model.pt").write_text("mine")
    with pytest.raises(ExportError, match=r"model\.pt is there already"):
        shared(run_dir, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_text() == "mine"
    shared(run_dir, tmp_path / "model.pt", overwrite=True)
    assert "fc.weight" in torch.load(tmp_path / "model.pt", weights_only=True)
    # What stands beside it counts as well.
    (tmp_path / "other.pt.json").write_text("mine")
    with pytest.raises(ExportError, match=r"other\.pt\.json is there already"):
        shared(run_dir, tmp_path / "other.pt")
    assert not (tmp_path / "other.pt").exists()


def test_a_full_disk_is_a_sentence_and_leaves_nothing(run_dir, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(FORMATS, "pt", Format(fail, FORMATS["pt"].read))
    with pytest.raises(ExportError, match=r"Cannot write .*model\.pt: No space left on device\. Make room"):
        shared(run_dir, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []
    # It is said before anything is read.
    monkeypatch.setattr("trainer.export.checkpoint_export.read_shared_model", fail)
    with pytest.raises(ExportError, match="There is no folder"):
        shared(run_dir, tmp_path / "nowhere" / "model.pt")


def test_a_model_that_an_exporter_gives_up_is_a_sentence(run_dir, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("No conversion of aten.strange.\n" + "And many lines more.\n" * 50)

    monkeypatch.setitem(FORMATS, "pt", Format(fail, FORMATS["pt"].read))
    with pytest.raises(
        ExportError,
        match=r"^model\.pt could not be written \(No conversion of aten\.strange\. And .{,200}\)\. Make room",
    ):
        shared(run_dir, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_onnx_without_its_packages_says_what_to_install(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "ONNX_PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(ExportError, match=r'ONNX needs no_such_package, .* pip install "thaw-studio\[export\]"'):
        shared(run_dir, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "chosen", "found"),
    [
        ("a.pt", None, "pt"),
        ("a.PTH", None, "pt"),
        ("a.pt", "course", "course"),
        ("a.pkl", None, "pickle"),
        ("a.onnx", "onnx", "onnx"),
        ("a.pt2", None, "pt2"),
    ],
)
def test_ending_or_choice_says_the_format(name, chosen, found):
    assert format_of(name, chosen) == found


@pytest.mark.parametrize(("name", "chosen"), [("a.h5", None), ("a", None), ("a.pt", "onnx"), ("a.zip", None)])
def test_ending_that_says_no_format_or_another_one_is_refused(name, chosen):
    with pytest.raises(ValueError, match=r"says no format\. Choose one of \.pt|ends in \.onnx, but a\.pt does not"):
        format_of(name, chosen)


@pytest.mark.parametrize("is_bundle", [False, True])
@pytest.mark.parametrize("to", ["/", ".", "", "..", "/a/.."])
def test_a_path_that_ends_in_no_name_is_nowhere_to_write(to, is_bundle):
    command = ExportCheckpoint(run_dir="/r", checkpoint="last", to=to, is_bundle=is_bundle)
    with pytest.raises(ValueError, match=r"^The path .* ends in no name of a file or bundle\. Add one to it\.$"):
        _ = command.places


def test_a_damaged_or_unknown_checkpoint_is_refused_by_name(run_dir, tmp_path):
    copied = shutil.copytree(run_dir, tmp_path / "copy")
    (checkpoint,) = (copied / "checkpoints").iterdir()
    os.truncate(checkpoint, 100)
    with pytest.raises(ValueError, match="is damaged"):
        shared(copied, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="no checkpoint named 'epoch9'"):
        export(ExportCheckpoint(run_dir=str(run_dir), checkpoint="epoch9", to=str(tmp_path / "a.pt")), lambda *_: None)


def test_export_touches_nothing_of_a_live_run(run_dir, tmp_path):
    # What a worker is writing at this moment.
    unfinished = run_dir / "checkpoints" / ".saving-1-checkpoint.pt"
    unfinished.write_bytes(b"half")
    files = [path for path in run_dir.rglob("*") if path.is_file() and "run.db" not in path.name]
    before = {path: path.stat().st_mtime_ns for path in files}
    shared(run_dir, tmp_path / "model.pt")
    assert before == {path: path.stat().st_mtime_ns for path in files}
    unfinished.unlink()


@pytest.mark.slow
def test_a_model_of_every_family_loads_again_from_its_weights_and_as_plain_pytorch(tmp_path):
    for name in smallest_of_each_family():
        loaded = build_model(ModelConfig(name=name, weights="random"), 3, 7, None, lambda *_: None, lambda: None)
        module, path = loaded.module.eval(), tmp_path / "model.pt"
        size = loaded.preprocessing.image_size
        torch.save(module, path)
        read = FORMATS["pickle"].read(None, path)
        images = torch.randn(1, 3, size, size)
        with torch.no_grad():
            outputs = module(images)
            assert torch.equal(read(images), outputs), name
            # As a compact checkpoint keeps it: without what torch tells beside the tensors.
            again = copy.deepcopy(module)
            again.load_state_dict(with_version(again, dict(module.state_dict())))
            assert torch.equal(again(images), outputs), name


def smallest_of_each_family() -> list[str]:
    by_family: dict[str, list[tuple[int, str]]] = {}
    for entry in list_models():
        family = torchvision.models.get_model_builder(entry.name).__module__
        by_family.setdefault(family, []).append((entry.num_params, entry.name))
    return [min(entries)[1] for entries in by_family.values()]
