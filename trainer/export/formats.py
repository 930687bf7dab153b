"""The formats that a model is written in, each with what reads it again; nothing that reads executes a file's code."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from trainer.checkpoints import hash_file
from trainer.export.parity import Forward, Progress, compare
from trainer.export.shared_model import INPUT_NAME, OUTPUT_NAME, ExportError, SharedModel
from trainer.messages.export import FORMAT_SENTENCES, ExportFormat, Parity
from trainer.models import with_version, without_our_code

GRAPH_SHARE = 1e-4
"""What the outputs of a compiled graph may differ by, as a share of the largest: it adds up in another order. Weights
that are read again make the same outputs to the bit."""

DESCRIPTION_FILE = "description.json"
"""Where a .pt2 file has its description, among its extra files."""

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MAX_ONNX_BYTES = 2**31 - 2**20
"""A file of ONNX is one protobuf message, and these end at two gigabytes."""

_LONGEST_REASON = 200

_OF_PICKLES = frozenset({"torch", "torchvision", "collections", "functools", "builtins"})
"""The packages whose names a pickled model may hold: what plain PyTorch has."""


@dataclass(frozen=True)
class Format:
    """How a format is written and read again.

    Attributes:
        write: Writes a model, with its description inside where the format can hold one.
        read: Returns what the file computes.
        share: What its outputs may differ by, as a share of the largest.

    """

    write: Callable[[SharedModel, Path, dict[str, Any]], None]
    read: Callable[[SharedModel, Path], Forward]
    share: float = 0.0


def _write_weights(model: SharedModel, path: Path, _: dict[str, Any]) -> None:
    torch.save(model.module.state_dict(), path)


def _read_weights(model: SharedModel, path: Path) -> Forward:
    return _with_weights(model, torch.load(path, weights_only=True))


def _write_course(model: SharedModel, path: Path, description: dict[str, Any]) -> None:
    payload = {
        "epoch": model.checkpoint.epoch,
        "model_state_dict": model.module.state_dict(),
        "optimizer_state_dict": model.optimizer_state,
        "loss": model.checkpoint.loss,
    }
    torch.save({**description, **payload}, path)


def _read_course(model: SharedModel, path: Path) -> Forward:
    return _with_weights(model, torch.load(path, weights_only=True)["model_state_dict"])


def _write_safetensors(model: SharedModel, path: Path, description: dict[str, Any]) -> None:
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in model.module.state_dict().items()}
    header = {key: json.dumps(value, ensure_ascii=False) for key, value in description.items()}
    # Its own save_file makes one that nobody else may read.
    path.write_bytes(safetensors.torch.save(tensors, {"format": "pt", **header}))


def _read_safetensors(model: SharedModel, path: Path) -> Forward:
    return _with_weights(model, safetensors.torch.load_file(path))


def _write_pickle(model: SharedModel, path: Path, _: dict[str, Any]) -> None:
    torch.save(without_our_code(model.module).eval(), path)


def _read_pickle(_: SharedModel, path: Path) -> Forward:
    """Read a pickled model without executing anything but the classes that it is said to need, all of PyTorch."""
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    ours = [name for name in names if name.partition(".")[0] not in _OF_PICKLES]
    if ours:
        raise ExportError(
            f"The pickled model would need {', '.join(ours)}, which plain PyTorch does not have. Choose another format."
        )
    with torch.serialization.safe_globals([_found(name) for name in names]):
        module: nn.Module = torch.load(path, weights_only=True)
    return module.eval()


def _write_onnx(model: SharedModel, path: Path, description: dict[str, Any]) -> None:
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"ONNX needs {', '.join(missing)}, which this Python does not have: "
            'pip install "thaw-studio[export]". Or choose another format.'
        )
    num_bytes = sum(tensor.nbytes for tensor in model.module.state_dict().values())
    if num_bytes > MAX_ONNX_BYTES:
        raise ExportError(
            f"The weights take {num_bytes / 1e9:.3g} GB, and a file of ONNX holds no more than 2. Choose .safetensors "
            "or .pt2."
        )
    with torch.no_grad():
        program = torch.onnx.export(
            model.module,
            (_example(model),),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=_any_batch(),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for key, value in description.items():
        program.model.metadata_props[key] = json.dumps(value, ensure_ascii=False)
    program.save(str(path), external_data=False)


def _read_onnx(_: SharedModel, path: Path) -> Forward:
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT_NAME], {INPUT_NAME: images.numpy()})[0])


def _write_pt2(model: SharedModel, path: Path, description: dict[str, Any]) -> None:
    with torch.no_grad():
        program = torch.export.export(model.module, (_example(model),), dynamic_shapes=_any_batch())
    extra = {DESCRIPTION_FILE: json.dumps(description, ensure_ascii=False)}
    torch.export.save(program, str(path), extra_files=extra)


def _read_pt2(_: SharedModel, path: Path) -> Forward:
    return torch.export.load(str(path)).module()


FORMATS: dict[ExportFormat, Format] = {
    "pt": Format(_write_weights, _read_weights),
    "course": Format(_write_course, _read_course),
    "pickle": Format(_write_pickle, _read_pickle),
    "safetensors": Format(_write_safetensors, _read_safetensors),
    "onnx": Format(_write_onnx, _read_onnx, GRAPH_SHARE),
    "pt2": Format(_write_pt2, _read_pt2, GRAPH_SHARE),
}


def write_checked(
    model: SharedModel, name: ExportFormat, path: Path, images: Tensor, is_random: bool, on_progress: Progress
) -> tuple[dict[str, Any], Parity]:
    """Write a model in a format and compare what the file computes. Returns its whole description, and the parity.

    Raises:
        ExportError: It cannot be written so, or is not the same.

    """
    kind = FORMATS[name]
    description = {"format": name, "about": FORMAT_SENTENCES[name], **model.description()}
    on_progress(f"Writing {path.name}", 0, 0, "")
    with _in_words(f"{path.name} could not be written", "Make room if the disk is full, or choose another format"):
        kind.write(model, path, description)
    on_progress(f"Comparing {path.name} with the run", 0, 0, "")
    with _in_words(f"{path.name} was not kept: it cannot be loaded again", "Choose another format, and report this"):
        parity = compare(model.module, kind.read(model, path), images, is_random, kind.share, path.name)
    said = {
        **description,
        "parity": {**parity.model_dump(), "sentence": parity.sentence},
        "size_bytes": path.stat().st_size,
        "sha256": hash_file(path),
    }
    return said, parity


@contextmanager
def _in_words(what: str, advice: str) -> Iterator[None]:
    """Put what torch's exporters raise, which is anything, into a sentence; of a full disk it is a RuntimeError."""
    try:
        yield
    except (ExportError, OSError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).strip(" .") or type(error).__name__
        raise ExportError(f"{what} ({reason[:_LONGEST_REASON]}). {advice}.") from error


def _with_weights(model: SharedModel, state: dict[str, Tensor]) -> Forward:
    # Strict: whatever the file lacks is an error, and nothing of the copied weights is left.
    module = copy.deepcopy(model.module)
    module.load_state_dict(with_version(module, state))
    return module.eval()


def _example(model: SharedModel) -> Tensor:
    # Of one image, a graph would be for single ones alone.
    size = model.preprocessing.image_size
    return torch.zeros(2, 3, size, size)


def _any_batch() -> Any:
    return ({0: torch.export.Dim("batch", min=1)},)


def _found(name: str) -> Any:
    """Return the class or function of this qualified name."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
