"""What every test shares: small real data, and settings that keep a test's files in its own folder."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
# Small networks, and several processes at once: with as many threads each as there are cores they wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image

from trainer.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainingConfig


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep caches, settings and runs of a test (and of the worker that it starts) away from the user's."""
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("THAW_RUNS", str(home / "runs"))


def make_images(root: Path, num_classes: int = 3, num_per_class: int = 12, size: int = 16) -> Path:
    """Write class folders of PNG files that a network can tell apart: each class has a bar at its own height."""
    generator = np.random.default_rng(0)
    for class_idx in range(num_classes):
        folder = root / f"class_{class_idx}"
        folder.mkdir(parents=True)
        for number in range(num_per_class):
            pixels = generator.integers(0, 60, (size, size, 3), dtype=np.uint8)
            top = class_idx * size // num_classes
            pixels[top : top + size // num_classes] += 150
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return root


def make_label_table(root: Path, num_images: int = 48, size: int = 16, num_classes: int = 3) -> Path:
    """Write a table of PNG files with any number of labels each: for every label, a bar at a height of its own."""
    generator = np.random.default_rng(1)
    names = [f"bar_{class_idx}" for class_idx in range(num_classes)]
    root.mkdir(parents=True)
    rows = ["path,label"]
    for number in range(num_images):
        pixels = generator.integers(0, 60, (size, size, 3), dtype=np.uint8)
        shown = [number >> class_idx & 1 for class_idx in range(num_classes)]
        for class_idx, is_shown in enumerate(shown):
            pixels[class_idx * size // num_classes : (class_idx + 1) * size // num_classes] += 150 * is_shown
        Image.fromarray(pixels).save(root / f"{number:03d}.png")
        rows.append(
            f"{number:03d}.png,{';'.join(name for name, is_shown in zip(names, shown, strict=True) if is_shown)}"
        )
    (root / "labels.csv").write_text("\n".join(rows))
    return root / "labels.csv"


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Return a folder of three classes with twelve 16 px images each."""
    return make_images(tmp_path / "images")


@pytest.fixture
def small_config(image_folder: Path) -> RunConfig:
    """Return a run that takes a second: a stock network with BatchNorm on tiny images."""
    return RunConfig(
        name="small",
        data=DataConfig(path=str(image_folder), image_size=32, validation_fraction=0.25),
        model=ModelConfig(name="shufflenet_v2_x0_5", weights="random"),
        optimizer=OptimizerConfig(rate=1e-3),
        # What is measured may be another form in a run alike.
        training=TrainingConfig(
            epochs=3, batch_size=8, device="cpu", num_threads=1, precision="fp32", channels_last="off"
        ),
    )
