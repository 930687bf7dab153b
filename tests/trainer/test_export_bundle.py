"""The bundle of a checkpoint: its scripts repeat the prediction and the run where there is no Thaw, to the bit."""

from __future__ import annotations

import ast
import json
import re
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.densenet import _DenseLayer

from tests.conftest import make_images, make_label_table
from tests.trainer.recorded_runs import Steering, record_run
from trainer.config import DataConfig, ModelConfig, OptimizerConfig, PlanPhase, RunConfig, TrainingConfig
from trainer.data.transforms import validation_transform
from trainer.export.checkpoint_export import export
from trainer.export.model_card import change_sentences
from trainer.export.recipe import predict_script
from trainer.export.shared_model import ExportError, read_shared_model
from trainer.messages.changes import LayersUnfrozen, TrainingChanged
from trainer.messages.events import FeaturesCached
from trainer.messages.export import CheckpointExported, ExportCheckpoint
from trainer.metrics import TRAIN_LOSS
from trainer.runs import RunFolder

NUM_STEPS = 100
# Layers of its last block take lists of what those before them gave.
DENSENET_STEM = [
    *("features.conv0", "features.norm0", "features.denseblock[123]", "features.transition[123]"),
    "features.denseblock4.denselayer[1-8]",
]
FILES = {
    *("README.md", "base.pt", "class_names.json", "curves.csv", "curves.png", "environment.json", "images.csv"),
    *("metrics.json", "model.json", "model.pt", "model.safetensors", "predict.py", "run.toml", "train.py"),
}


def bundled(run_dir: Path, to: Path, checkpoint: str = "last", *, overwrite: bool = False) -> CheckpointExported:
    command = ExportCheckpoint(
        run_dir=str(run_dir), checkpoint=checkpoint, to=str(to), is_bundle=True, overwrite=overwrite
    )
    return export(command, lambda *_: None)


def run_script(bundle: Path, name: str, *arguments: str) -> str:
    """Run a script of a bundle in an interpreter that finds nothing of ours. Returns what it printed."""
    site = next(path for path in sys.path if path.endswith("site-packages"))
    code = (
        f"import sys, runpy, importlib.util; sys.path += [{site!r}, {str(bundle)!r}]\n"
        "assert importlib.util.find_spec('trainer') is None\n"
        f"sys.argv[0] = {name!r}\n"
        f"runpy.run_path({str(bundle / name)!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=bundle)
    assert result.returncode == 0, result.stderr
    return result.stdout


def losses_of(printed: str) -> dict[int, float]:
    lines = (line.removeprefix("step ").split(": loss ") for line in printed.splitlines() if line.startswith("step "))
    return {int(step): float(loss) for step, loss in lines}


def assert_repeats(run_dir: Path, bundle: Path, checkpoint: str = "last", *arguments: str) -> None:
    """Check that train.py makes the run's losses, and ends at the checkpoint's weights, to the bit."""
    printed = run_script(bundle, "train.py", "--save", "reproduced.pt", *arguments)
    with RunFolder(run_dir, read_only=True) as folder:
        info = folder.checkpoints.find(checkpoint)
        curve = folder.curves(info.segment)[TRAIN_LOSS]
        expected = dict(zip(curve.steps, curve.values, strict=True))
        state = read_shared_model(folder, checkpoint).module.state_dict()
    losses = losses_of(printed)
    assert losses.keys() == set(range(1, info.step + 1))
    assert losses == {step: expected[step] for step in losses}
    assert f"All {info.step} losses equal the run's." in printed
    reproduced = torch.load(bundle / "reproduced.pt", weights_only=True)
    different = [key for key, tensor in state.items() if not torch.equal(tensor, reproduced[key])]
    assert different == []


def small(path: Path, **sections: dict[str, object]) -> RunConfig:
    """Return a run of 100 steps and a few more, on images of 32 pixels."""
    values: dict[str, dict[str, object]] = {
        "data": {"path": str(path), "image_size": 32, "validation_fraction": 0.25},
        "model": {"name": "shufflenet_v2_x0_5", "weights": "random"},
        "optimizer": {},
        "training": {"epochs": 35, "batch_size": 9, "device": "cpu", "num_threads": 1},
    }
    for name, fields in sections.items():
        if name != "plan":
            values[name] |= fields
    return RunConfig(
        name="small",
        data=DataConfig.model_validate(values["data"]),
        model=ModelConfig.model_validate(values["model"]),
        optimizer=OptimizerConfig.model_validate(values["optimizer"]),
        training=TrainingConfig.model_validate(values["training"]),
        plan=sections.get("plan", []),
    )


@pytest.fixture(scope="module")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one epoch."""
    folder = tmp_path_factory.mktemp("run")
    return record_run(small(make_images(folder / "images"), training={"epochs": 1}), folder / "runs")


def test_bundle_holds_all_that_is_needed_and_says_what_it_is(short_run, tmp_path):
    exported = bundled(short_run, tmp_path / "bundle")
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == FILES == exported.files.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (exported.notes, exported.parity.largest_difference) == ([], 0)
    said = json.loads((tmp_path / "bundle" / "model.json").read_text())
    assert said["parity"]["sentence"].endswith("equal the run's to the bit, on 9 validation images.")
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "![Loss and accuracy by step](curves.png)" in card
    assert "frozen at first: backbone." in card
    for name in FILES - {"README.md"}:
        assert f"`{name}`" in card
    with Image.open(tmp_path / "bundle" / "curves.png") as picture:
        assert len(picture.convert("RGB").getcolors(1_000_000) or []) > 20
    assert json.loads((tmp_path / "bundle" / "class_names.json").read_text()) == ["class_0", "class_1", "class_2"]


def test_bundle_comes_as_one_zip_too(short_run, tmp_path):
    exported = bundled(short_run, tmp_path / "shared.zip")
    assert exported.files == {"shared.zip": (tmp_path / "shared.zip").stat().st_size}
    with zipfile.ZipFile(tmp_path / "shared.zip") as archive:
        assert set(archive.namelist()) == {f"shared/{name}" for name in FILES}
        assert archive.testzip() is None


def test_a_folder_with_anything_else_in_it_is_never_replaced(short_run, tmp_path, monkeypatch):
    bundle = tmp_path / "bundle"
    bundled(short_run, bundle)
    with pytest.raises(ExportError, match=r"bundle is there already"):
        bundled(short_run, bundle)
    (bundle / "README.md").write_text("old")
    bundled(short_run, bundle, overwrite=True)
    assert (bundle / "README.md").read_text().startswith("# small")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("trainer.export.bundle.put_in_place", fail)
        with pytest.raises(ExportError, match="No space left"):
            bundled(short_run, bundle, overwrite=True)
    assert {path.name for path in bundle.iterdir()} == FILES
    (bundle / "thesis.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"thesis\.txt in it, which is of no bundle, and would be lost"):
        bundled(short_run, bundle, overwrite=True)
    assert (bundle / "thesis.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_card_says_in_words_what_changed_and_nothing_that_did_not():
    def cached(step: int, layers: list[str], sentence: str = "", fixed_views: int = 1) -> FeaturesCached:
        return FeaturesCached(
            layers=layers, sentence=sentence, views=1, fixed_views=fixed_views, saved_share=0.5, num_bytes=1,
            is_in_memory=True, is_on_disk=False, reason="", applied_step=step, segment=0,
        )  # fmt: skip

    def longer(step: int, **values: int | None) -> TrainingChanged:
        same = {"epochs": 30, "before_epochs": 30, "patience": None, "before_patience": None}
        more = {"total_steps": 9, "requested_step": step, "applied_step": step, "segment": 0}
        return TrainingChanged.model_validate({**same, **more, **values})

    changes = [
        cached(0, ["conv1", "conv5"], "backbone", fixed_views=4),
        cached(100, ["conv1", "conv5"], "backbone", fixed_views=4),
        LayersUnfrozen(
            layers=["conv5"], sentence="conv5 unfrozen", frozen=["conv1"], num_trainable=1, requested_step=276,
            applied_step=276, source="plan", segment=0,
        ),
        cached(276, ["conv1"], "conv1", fixed_views=4),
        longer(690, epochs=930),
        longer(700),
        longer(1_200, patience=5, batch_parts=2),
        longer(1_201, batch_parts=1, before_batch_parts=2),
        cached(1_300, [], fixed_views=0),
    ]  # fmt: skip
    assert change_sentences(changes) == [
        "from the start: features of backbone cached, each training image in 4 fixed views in turn",
        "after step 276: conv5 unfrozen, by the plan",
        "after step 276: features of conv1 cached",
        "after step 690: 930 epochs, 30 before",
        "after step 1,200: patience 5, off before; batches in 2 parts",
        "after step 1,201: batches whole again",
        "after step 1,300: no features cached, each training image in a new view in each epoch",
    ]
    assert change_sentences([cached(0, [])]) == []
    assert change_sentences([cached(0, ["conv1"], "conv1")]) == ["from the start: features of conv1 cached"]


def test_bundle_without_the_order_of_the_images_says_that_it_cannot_repeat_the_run(short_run, tmp_path):
    split = short_run / "split.csv"
    kept = split.read_bytes()
    split.write_bytes(b"\n".join(kept.splitlines()[:-8]) + b"\n")
    try:
        exported = bundled(short_run, tmp_path / "bundle")
    finally:
        split.write_bytes(kept)
    (note,) = exported.notes
    assert note.startswith("train.py is left out: the run's data changed")
    assert note in (tmp_path / "bundle" / "README.md").read_text()
    missing = FILES - {path.name for path in (tmp_path / "bundle").iterdir()}
    assert missing == {"train.py", "base.pt", "images.csv"}


def test_names_of_classes_are_data_and_never_code(short_run):
    with RunFolder(short_run, read_only=True) as folder:
        model = read_shared_model(folder, "last")
    names = ['"]; raise SystemExit #', "# --- end\n", "\\"]
    model.class_names[:] = names
    tree = ast.parse(predict_script(model))
    (found,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "CLASS_NAMES"
    ]
    assert ast.literal_eval(found) == names


def test_scripts_read_every_kind_of_image_as_the_run_does(short_run, tmp_path):
    bundled(short_run, tmp_path / "bundle")
    script = runpy.run_path(str(tmp_path / "bundle" / "predict.py"))
    with RunFolder(short_run, read_only=True) as folder:
        transform = validation_transform(read_shared_model(folder, "last").preprocessing)
    values = np.random.default_rng(2).integers(0, 256, (512, 768, 4), dtype=np.uint8)
    values[..., :3] = values[::64, ::64, :3].repeat(64, 0).repeat(64, 1)
    picture = Image.fromarray(values)
    turned = Image.Exif()
    turned[0x0112] = 6
    images: dict[str, Callable[[Path], None]] = {
        "large.jpg": lambda path: picture.convert("RGB").save(path, exif=turned),
        "cmyk.jpg": lambda path: picture.convert("CMYK").save(path),
        "transparent.png": picture.save,
        "palette.gif": lambda path: picture.convert("P").save(path, transparency=3),
        "deep.png": lambda path: Image.fromarray(values[..., 0].astype(np.uint16) * 200).save(path),
        "float.tiff": lambda path: Image.fromarray(values[..., 0].astype(np.float32) * 3 - 50).save(path),
        "grey.png": lambda path: picture.convert("L").save(path),
    }
    for name, save in images.items():
        save(tmp_path / name)
        fitted = script["make_fit"]()(script["load_rgb"](tmp_path / name))
        assert torch.equal(fitted, transform.read(str(tmp_path / name))), name
        assert torch.equal(script["normalize"](fitted), transform.normalize(fitted))


@pytest.mark.slow
def test_predict_script_says_what_the_run_measured(short_run, tmp_path):
    bundle = tmp_path / "bundle"
    bundled(short_run, bundle)
    folder = next(iter(short_run.parents[1].glob("images/class_1")))
    printed = run_script(bundle, "predict.py", str(folder / "000.png"), str(folder / "001.png"), "--top", "2")
    lines = printed.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(folder / "000.png"), str(folder / "001.png")]
    assert all(line.count("%") == 2 and "class_" in line for line in lines)


def test_predict_script_tells_what_is_no_image_and_goes_on(short_run, tmp_path, capsys, monkeypatch):
    bundle = tmp_path / "bundle"
    bundled(short_run, bundle)
    inside, empty, text, cut = tmp_path / "im" / "in", tmp_path / "empty", tmp_path / "text.png", tmp_path / "cut.png"
    inside.mkdir(parents=True)
    empty.mkdir()
    image = (next(iter(short_run.parents[1].glob("images/class_1"))) / "000.png").read_bytes()
    (inside / "a.PNG").write_bytes(image)
    (inside / "labels.csv").write_text("no image")
    text.write_text("no image")
    cut.write_bytes(image[:-100])
    given = [text, cut, tmp_path / "missing.png", empty, inside.parent]
    monkeypatch.setattr("sys.argv", ["predict.py", *map(str, given)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(bundle / "predict.py"), run_name="__main__")
    told, said = capsys.readouterr()
    assert ended.value.code == 1
    assert said.splitlines()[0] == f"{text}: it is not an image that can be read here"
    assert said.splitlines()[1].startswith(f"{cut}: it cannot be read (")
    assert said.splitlines()[2:] == [
        f"{tmp_path / 'missing.png'}: there is no such file",
        f"{empty}: there is no image in this folder",
    ]
    (line,) = told.splitlines()
    assert line.startswith(f"{inside / 'a.PNG'}: class_")


def unfreeze_and_slow_down(trainer):
    return [trainer.changes.unfreeze(["stage4"]), trainer.changes.set_rate(5e-4)]


class SelfAttention(nn.MultiheadAttention):
    """Goes another way, with other roundings, where its tensors are only equal."""

    def forward(self, query, key, value, **options):
        assert query is key is value
        return super().forward(query, key, value, **options)


class Mixed(nn.Module):
    """Layers of all kinds: of lists, of one tensor given three times, of several rows an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, 8, 3), _DenseLayer(11, 8, 2, 0.0)
        self.attention = SelfAttention(8, 2, batch_first=True)
        self.rows, self.head = nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.dense([self.conv(images), images[:, :, 1:-1, 1:-1]]).flatten(2).transpose(1, 2)
        tokens, _ = self.attention(tokens, tokens, value=tokens, need_weights=False)
        return self.head(self.rows(tokens.reshape(-1, 8)).reshape(len(images), -1, 4).mean(1))


@pytest.mark.parametrize("is_last", [False, True])
def test_train_script_computes_cached_layers_for_as_many_images_at_once_as_the_run(
    is_last, short_run, tmp_path, monkeypatch
):
    bundled(short_run, tmp_path / "bundle")
    monkeypatch.syspath_prepend(tmp_path / "bundle")
    try:
        script = runpy.run_path(str(tmp_path / "bundle" / "train.py"))
    finally:
        sys.modules.pop("predict", None)
    model = Mixed().eval().requires_grad_(False)
    images = torch.randn(5, 3, 10, 10)
    if is_last:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    plain = model(images)
    whole = script["WholeBatches"](model)
    below = script["Freezing"](model).layers_below
    whole.use_for([layer for layer in below("") if layer != "head"], below)
    for num_at_once, pieces in ((8, [[0, 1, 2, 3, 4, 4, 4, 4]]), (2, [[0, 1], [2, 3], [4, 4]]), (5, [[0, 1, 2, 3, 4]])):
        whole.num_images, whole.num_at_once = num_at_once, num_at_once
        expected = torch.cat([model(images[piece]) for piece in pieces])[:5]
        whole.num_images = 5
        assert torch.equal(model(images), expected)
    whole.use_for([], below)
    assert torch.equal(model(images), plain)


@pytest.mark.slow
@pytest.mark.parametrize("model", [{}, {"name": "densenet121", "frozen": DENSENET_STEM}])
def test_train_script_repeats_a_run_whose_last_batches_were_smaller_and_cached(model, tmp_path):
    config = small(make_images(tmp_path / "images"), model=model, training={"batch_size": 8, "epochs": 16})
    run_dir = record_run(config, tmp_path / "runs")
    bundled(run_dir, tmp_path / "bundle")
    assert re.search(r"'cached',\s+\['", (tmp_path / "bundle" / "train.py").read_text())
    printed = run_script(tmp_path / "bundle", "train.py", "--steps", "60")
    assert "All 60 losses equal the run's.\n" in printed


def freeze_biases(trainer):
    return trainer.changes.freeze(["stage4.*.bias"])


@pytest.mark.slow
def test_train_script_repeats_a_run_with_its_plan_and_what_a_person_changed(tmp_path):
    plan = [PlanPhase(step=10, unfreeze=["conv5"], rates={"conv5": 0.5}), PlanPhase(epoch=20, freeze=["conv5"])]
    config = small(make_images(tmp_path / "images"), plan=plan)
    steering: Steering = {37: unfreeze_and_slow_down, 61: freeze_biases}
    run_dir = record_run(config, tmp_path / "runs", steering)
    bundled(run_dir, tmp_path / "bundle")
    with RunFolder(run_dir, read_only=True) as folder:
        assert folder.checkpoints.find("last").step > NUM_STEPS
    # Where the data lie elsewhere by now, and are loaded by other processes.
    (tmp_path / "images").rename(tmp_path / "moved")
    assert_repeats(run_dir, tmp_path / "bundle", "last", "--data", str(tmp_path / "moved"), "--workers", "1")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixed", "labels", "binary", "dropout"])
def test_train_script_repeats_whatever_a_run_can_be_configured_with(kind, tmp_path):
    configs: dict[str, Callable[[], RunConfig]] = {
        "mixed": lambda: small(
            make_images(tmp_path / "images", size=40),
            data={"augmentation": "standard", "mixing": "mixup", "balance": "class_weights", "resize_size": 36},
            model={"batchnorm": "adapting"},
            optimizer={
                **{"name": "SGD", "nesterov": True, "clip_norm": 0.5, "schedule": "cosine", "warmup_epochs": 1.5},
                **{"state_on_unfreeze": "keep", "ramp_steps": 7, "rate": 0.05},
            },
            training={"label_smoothing": 0.1, "accumulate_batches": 2, "batch_size": 5, "epochs": 34},
            plan=[PlanPhase(epoch=3, unfreeze=["stage4"]), PlanPhase(plateau=1, freeze=["stage4"])],
        ),
        "labels": lambda: small(
            make_label_table(tmp_path / "images"),
            data={"task": "multi_label", "augmentation": "strong", "balance": "class_weights", "mixing": "cutmix"},
            model={"frozen": []},
            optimizer={"name": "RMSprop", "schedule": "one_cycle", "rate": 1e-4},
            training={"epochs": 26},
        ),
        "binary": lambda: small(
            make_images(tmp_path / "images", num_classes=2, num_per_class=18),
            data={"task": "binary", "augmentation": "none", "balance": "sampler"},
            optimizer={"name": "Adam", "schedule": "plateau", "decay_epochs": 1, "multipliers": {"fc": 2.0}},
            training={"precision": "bf16", "label_smoothing": 0.05},
        ),
        "dropout": lambda: small(
            make_images(tmp_path / "images"),
            model={
                **{"head": "append", "head_hidden": 8, "head_dropout": 0.5},
                **{"frozen": ["backbone"], "adapting": ["stage3"]},
            },
            optimizer={"schedule": "step", "decay_epochs": 5},
            training={"batch_size": 13, "epochs": 51},
            data={"balance": "class_weights"},
        ),
    }
    run_dir = record_run(configs[kind](), tmp_path / "runs")
    bundled(run_dir, tmp_path / "bundle")
    with RunFolder(run_dir, read_only=True) as folder:
        assert folder.checkpoints.find("last").step >= NUM_STEPS
    assert_repeats(run_dir, tmp_path / "bundle")


@pytest.mark.slow
def test_train_script_follows_the_line_of_a_run_that_went_back(tmp_path):
    config = small(make_images(tmp_path / "images"), training={"epochs": 6})

    def rewind(trainer):
        go = trainer.restoring
        return [*go.rewind(None, 9), *go.undo_rewind(), *go.rewind(None, 9), *slow_down(trainer)]

    def slow_down(trainer):
        return [trainer.changes.set_rate(2e-4)]

    def undo_rewind(trainer):
        return [*trainer.restoring.rewind(None, 13), *trainer.restoring.undo_rewind()]

    def undo_restore(trainer):
        return [*trainer.restore("1"), *trainer.restoring.undo_rewind()]

    def restore(trainer):
        first = trainer._folder.checkpoints.listed()[0]
        return [*trainer.restore(first.name), trainer.changes.unfreeze(["stage4"])]

    steering: Steering = {
        9: lambda trainer: trainer.changes.unfreeze(["conv5"]),
        11: rewind,
        13: lambda trainer: [trainer.changes.set_rate(3e-4)],
        15: lambda trainer: [*undo_rewind(trainer), *undo_restore(trainer)],
        17: lambda trainer: [*trainer.changes.change_training(7, None, 2), trainer.changes.freeze(["fc.bias"])],
        19: restore,
    }
    run_dir = record_run(config, tmp_path / "runs", steering)
    bundled(run_dir, tmp_path / "bundle")
    assert_repeats(run_dir, tmp_path / "bundle")
    # One that the restore has left behind is on a line of its own.
    with RunFolder(run_dir, read_only=True) as folder:
        last = folder.checkpoints.find("last")
        behind = max(
            (info for info in folder.checkpoints.listed() if info.segment == last.segment - 1),
            key=lambda info: info.step,
        )
    bundled(run_dir, tmp_path / "behind", behind.name)
    assert_repeats(run_dir, tmp_path / "behind", behind.name)


def test_a_run_that_took_the_weights_of_a_checkpoint_in_between_gets_no_script_that_would_not_repeat_it(tmp_path):
    config = small(make_images(tmp_path / "images"), training={"epochs": 1})

    def restore(trainer):
        saved = trainer.save(reason="user")
        return trainer.restore(saved.name, weights_only=True)

    exported = bundled(record_run(config, tmp_path / "runs", {1: restore}), tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "train.py").exists()
    assert any("went on from the weights of checkpoint_" in note for note in exported.notes)
