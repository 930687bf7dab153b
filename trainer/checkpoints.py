"""Checkpoints: plain files that torch.load reads with weights_only=True, written so that no kill can damage one."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import random
import shutil
from collections import OrderedDict
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.durable import sync_folder
from trainer.messages.run_info import CheckpointInfo
from trainer.run_record import RunFolderError
from trainer.runs import RunFolder
from trainer.tensor_bytes import add_to

FORMAT_VERSION = 3
OVERHEAD_BYTES = 1_000_000
"""What a save takes beside its tensors, at most."""
_UNFINISHED = ".saving-"
_ASIDE = ".aside-"


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, read or used, with the sentence for the user."""


class DiskFullError(CheckpointError):
    """A checkpoint that the disk has no room for; it has when ``needed_bytes`` are free."""

    def __init__(self, sentence: str, needed_bytes: int) -> None:
        super().__init__(sentence)
        self.needed_bytes = needed_bytes


class BaseError(CheckpointError):
    """A ``base.pt`` that cannot be read: whatever needs it may be whole."""


class CheckpointStore:
    """A run's checkpoints on disk, compact: each holds the tensors whose bytes differ from ``base.pt``.

    Of the base, a run holds the hashes of its tensors, as they themselves would be a second model in memory. Who only
    reads holds them: the checkpoints that are compared share what they have in common.
    """

    def __init__(self, folder: RunFolder, *, read_only: bool = False) -> None:
        self._folder = folder
        self._is_read_only = read_only
        self._base: dict[str, Tensor] = {}
        self._base_hashes: dict[str, bytes] = {}
        self._base_sha256 = ""
        if read_only:
            # A worker may be writing one of these at this moment.
            return
        end_what_was_cut_off(folder)

    def write_base(self, state: dict[str, Tensor]) -> None:
        """Write ``base.pt``, the model's state_dict at the start of the run.

        Raises:
            CheckpointError: It cannot be written.

        """
        base = OrderedDict((name, tensor.detach().cpu().clone()) for name, tensor in state.items())
        # What torch tells beside the tensors: mnasnet refuses a state_dict that does not say its version.
        base._metadata = getattr(state, "_metadata", None)  # type: ignore[attr-defined]
        _, self._base_sha256 = write_durably(self._folder.base_path, base)
        self._folder.keep_base_sha256(self._base_sha256)
        self._base_hashes = {name: _hash(tensor) for name, tensor in base.items()}

    def read_base(self) -> dict[str, Tensor]:
        """Read ``base.pt``.

        Raises:
            BaseError: It is missing or cannot be read.

        """
        self._check_base()
        return self._read_checked_base()

    def _read_checked_base(self) -> dict[str, Tensor]:
        if self._base:
            return self._base
        try:
            base: dict[str, Tensor] = read_file(self._folder.base_path)
        except CheckpointError as error:
            raise BaseError(str(error)) from error
        if self._is_read_only:
            self._base = base
        elif not self._base_hashes:
            self._base_hashes = {name: _hash(tensor) for name, tensor in base.items()}
        return base

    def _check_base(self) -> None:
        """Look whether ``base.pt`` is whole, and note its SHA-256: who only reads, once."""
        if self._is_read_only and self._base_sha256:
            return
        path = self._folder.base_path
        recorded = self._folder.base_sha256()
        if not recorded:
            # Whatever is there: a run's first step comes after this.
            raise BaseError(
                f"{path.parent.name} was cut off as it began, before its {path.name} was kept: nothing of it was "
                f"trained. Begin a new run with {path.parent / 'run.toml'}."
            )
        if not path.is_file():
            raise BaseError(f"{path} is missing, and every checkpoint of the run needs it. Put it back from a copy.")
        try:
            found = hash_file(path)
        except OSError as error:
            raise BaseError(
                f"Cannot read {path}, which every checkpoint of the run needs: {error.strerror}. Mend that, then try "
                "again."
            ) from error
        if found != recorded:
            raise BaseError(f"{path} is damaged: its bytes changed since the run began. Put it back from a copy.")
        self._base_sha256 = recorded

    def write(self, path: Path, content: dict[str, Any], *, is_whole: bool = False) -> tuple[int, str]:
        """Write what ``read`` reads, durably; of the model, ``content`` has what ``changed`` returned, or all of it.

        Returns the size in bytes and the SHA-256.

        Raises:
            CheckpointError: It cannot be written; nothing that was there before is touched.

        """
        base_sha256 = "" if is_whole else self._base_sha256
        return write_durably(path, {**content, "base_sha256": base_sha256, "format_version": FORMAT_VERSION})

    def hold_name(self, name: str) -> str:
        """Hold a name for a checkpoint that is to be written, by an empty file.

        Returns the name, with a number where a checkpoint of the run has it already, or a file that is not listed.
        Such a file may be on its way to the trash, or out of it: a window puts back what was deleted while the run
        makes the same epoch again.

        Raises:
            CheckpointError: The file cannot be made.

        """
        stem = name.removesuffix(".pt")
        for candidate in chain([name], (f"{stem}_{number}.pt" for number in count(2))):
            if self._folder.checkpoints.has(candidate):
                continue
            path = self._folder.checkpoints_dir / candidate
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            except OSError as error:
                # A disk that lacks room for one more file only, as without inodes, would have room at once.
                is_full = error.errno == errno.ENOSPC
                if is_full and shutil.disk_usage(self._folder.path).free < OVERHEAD_BYTES:
                    raise DiskFullError(_cannot_save(path, error), OVERHEAD_BYTES) from error
                raise CheckpointError(_cannot_save(path, error)) from error
            return candidate
        raise AssertionError("the numbers have no end")

    def let_go(self, name: str) -> None:
        """Hold a name no longer under which nothing was written."""
        path = self._folder.checkpoints_dir / name
        # What cannot be let go is listed nowhere, and the run's next worker tries again.
        with suppress(OSError, RunFolderError):
            if _is_empty(path):
                # First: whatever has the name afterwards must not be taken for what was to be written.
                self._folder.checkpoints.forget_saving(name)
                path.unlink()

    def load(self, info: CheckpointInfo) -> dict[str, Any]:
        """Read a checkpoint, checked against its SHA-256, with ``model_state_dict`` made whole from the base.

        Raises:
            CheckpointError: The file is missing, damaged, of another format, or its base is another.

        """
        return self.read(self._folder.checkpoints_dir / info.name, info.sha256, f"The checkpoint {info.name}")

    def check(self, info: CheckpointInfo) -> None:
        """Look whether a checkpoint could be loaded, without loading its tensors or the base's.

        Raises:
            CheckpointError: As ``load``.

        """
        path = self._folder.checkpoints_dir / info.name
        self._read_changed(path, info.sha256, f"The checkpoint {info.name}", is_mapped=True)

    def read(self, path: Path, sha256: str, what: str) -> dict[str, Any]:
        """Read what ``write`` wrote, as ``load`` does; ``what`` names it in a sentence.

        Raises:
            CheckpointError: The file is missing, damaged, of another format, or its base is another.

        """
        content = self._read_changed(path, sha256, what)
        if content["base_sha256"]:
            content["model_state_dict"] = {**self._read_checked_base(), **content["model_state_dict"]}
        return content

    def _read_changed(self, path: Path, sha256: str, what: str, *, is_mapped: bool = False) -> dict[str, Any]:
        """Read a file that is whole, of this format, and whose base, if it needs one, is there and whole."""
        if not path.is_file():
            raise CheckpointError(f"{what} is missing from {path.parent}. {self._advice_instead_of(path)}")
        if hash_file(path) != sha256:
            raise CheckpointError(
                f"{what} is damaged: its bytes changed since it was saved. {self._advice_instead_of(path)}"
            )
        content = read_file(path, is_mapped=is_mapped)
        if content.get("format_version") != FORMAT_VERSION:
            raise CheckpointError(
                f"{what} has format {content.get('format_version')}, but this Thaw reads format {FORMAT_VERSION}. "
                "Use the version that wrote it."
            )
        if content["base_sha256"]:
            self._check_base()
            if content["base_sha256"] != self._base_sha256:
                raise CheckpointError(
                    f"{self._folder.base_path.name} is not the one that {path.name} was saved with. "
                    "Put it back from a copy."
                )
        return content

    def _advice_instead_of(self, path: Path) -> str:
        rows = self._folder.checkpoints
        if path.parent != self._folder.checkpoints_dir:
            return "Choose another one."
        sound = [info.name for info in rows.listed() if info.name != path.name and not rows.problem_of(info)]
        return f"Choose another one, as {sound[-1]}." if sound else "Choose another one."

    def changed(self, model_state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what of a state_dict differs from the base, on the CPU; there it may be the live tensors."""
        base = self._base_hashes
        changed = (key for key, tensor in model_state.items() if key not in base or base[key] != _hash(tensor))
        return {key: model_state[key].detach().cpu() for key in changed}

    def whole(self, changed: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the whole state_dict of what ``changed`` returned.

        Raises:
            BaseError: ``base.pt`` is missing or cannot be read.

        """
        # Where no base was known, nothing was left out.
        return {**self.read_base(), **changed} if self._base_hashes else dict(changed)


def end_what_was_cut_off(folder: RunFolder) -> None:
    """End the saves and deletions in which a run's worker was killed. For the run's one writer, before it writes.

    Raises:
        RunFolderError: run.db cannot be written.

    """
    for left_over in (*folder.path.glob(f"{_UNFINISHED}*"), *folder.checkpoints_dir.glob(f"{_UNFINISHED}*")):
        # A kill in mid-save left it; it has no name and no row, so nobody can want it. It is in nobody's way either.
        with suppress(OSError):
            left_over.unlink(missing_ok=True)
    for info in folder.checkpoints.half_saved():
        path = folder.checkpoints_dir / info.name
        with suppress(OSError):
            if not path.is_file() or _is_empty(path):
                # Before the name is free: whatever has it afterwards is not what was to be written.
                folder.checkpoints.forget_saving(info.name)
                continue
            # Under its name a file is whole, and no other had that name while it was held.
            sync_folder(path.parent)
            written = {"size_bytes": path.stat().st_size, "sha256": hash_file(path)}
            folder.checkpoints.add(info.model_copy(update=written))
    for aside in folder.checkpoints_dir.glob(f"{_ASIDE}*"):
        _put_back(aside, aside.with_name(aside.name.removeprefix(_ASIDE)))
    for path in folder.checkpoints_dir.glob("*.pt"):
        # What is listed is for the user to see. What cannot be removed is in nobody's way.
        with suppress(OSError):
            if _is_empty(path) and not folder.checkpoints.has(path.name):
                _free_name(path)
    for name in folder.checkpoints.half_deleted():
        with suppress(OSError):
            (folder.checkpoints_dir / name).unlink(missing_ok=True)
            folder.checkpoints.end_deleting([name])


def _free_name(path: Path) -> None:
    """Remove the empty file that held a name, unless a window has put a file into its place at this moment."""
    aside = path.with_name(f"{_ASIDE}{path.name}")
    if aside.exists():
        # It could not be put back, and is not to be written over.
        return
    path.replace(aside)
    if _is_empty(aside):
        aside.unlink()
    else:
        _put_back(aside, path)


def _put_back(aside: Path, path: Path) -> None:
    with suppress(OSError):
        # Over an empty file, too: that holds the name for nobody any more.
        if not path.exists() or _is_empty(path):
            aside.replace(path)


def write_durably(path: Path, payload: object) -> tuple[int, str]:
    """Write with torch.save to a temporary file, flush it to the disk, and rename it. Returns size and SHA-256.

    After a kill at any moment there is either the whole file under its name, or none.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written.

    """
    temporary = path.with_name(f"{_UNFINISHED}{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            torch.save(payload, file)
            file.flush()
            os.fsync(file.fileno())
        size, digest = temporary.stat().st_size, hash_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(_cannot_save(path, error)) from error
    return size, digest


def _cannot_save(path: Path, error: BaseException) -> str:
    return f"Cannot save {path}: {_reason(error)}. Make room or mend the folder, then save again."


def _is_empty(path: Path) -> bool:
    return path.is_file() and not path.stat().st_size


def _reason(error: BaseException) -> str:
    """Say why a file could not be written: torch's writer reports a full disk in its own words, after the disk's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__context__
    return str(error).splitlines()[0]


def read_file(path: Path, *, is_mapped: bool = False) -> dict[str, Any]:
    """Read a file of ours; with ``is_mapped``, of its tensors only what is used. No code in it is ever executed.

    Raises:
        CheckpointError: It is truncated, or holds more than plain values and tensors.

    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", mmap=is_mapped, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"Cannot read {path}: it is damaged or no checkpoint. Choose another one.") from error
    return content


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_to_cpu(value: Any, *, is_fast: bool = False) -> Any:
    """Return a copy of a state, with its tensors on the CPU, that no later step changes.

    Args:
        value: Dicts, lists, tensors and plain values.
        is_fast: Whether a GPU's tensors go into pinned memory, of which a machine has little: for a short while only.

    """
    devices: set[torch.device] = set()

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_cuda and is_fast:
            devices.add(value.device)
            pinned = torch.empty_like(value.detach(), device="cpu", pin_memory=True)
            return pinned.copy_(value.detach(), non_blocking=True)
        if isinstance(value, Tensor):
            return value.detach().to("cpu", copy=True)
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        if isinstance(value, list):
            return [copied(item) for item in value]
        return value

    copy = copied(value)
    for device in devices:
        # The copies overlap, and are whole only now.
        torch.cuda.current_stream(device).synchronize()
    return copy


def size_of(content: Any) -> int:
    """Return the bytes that the tensors of a state take."""
    if isinstance(content, Tensor):
        return content.nbytes
    values = content.values() if isinstance(content, dict) else content if isinstance(content, list | tuple) else ()
    return sum(size_of(item) for item in values)


def seed_generators(seed: int) -> None:
    """Begin the generators whose states a checkpoint keeps, so that two runs alike have equal ones."""
    torch.manual_seed(seed)
    random.seed(seed)


def read_rng(device: torch.device) -> dict[str, Any]:
    """Return the state of every generator that a step may draw from."""
    rng: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if device.type == "cuda":
        rng["cuda"] = torch.cuda.get_rng_state(device)
    return rng


def restore_rng(rng: dict[str, Any], device: torch.device) -> None:
    """Put the generators back to a saved state; those that ``missing_rng`` names go on as they are."""
    if "torch" in rng:
        torch.set_rng_state(rng["torch"])
    if "python" in rng:
        version, internal, gauss = rng["python"]
        random.setstate((version, tuple(internal), gauss))
    if device.type == "cuda" and "cuda" in rng:
        torch.cuda.set_rng_state(rng["cuda"], device)


def missing_rng(rng: dict[str, Any], device: torch.device) -> list[str]:
    """Say of which generators a step may draw, but a saved state has nothing."""
    return [
        f"the state of the generator {name} is not in the checkpoint" for name in read_rng(device) if name not in rng
    ]


def checkpoint_name(model: str, epoch: int, step: int, loss: float | None, accuracy: float | None) -> str:
    """Name a checkpoint's file by model, epoch, validation loss and accuracy; by step where it was not validated."""
    if loss is None or accuracy is None:
        return f"checkpoint_{model}_{epoch:03d}_step{step:06d}.pt"
    return f"checkpoint_{model}_{epoch:03d}_{loss:.4f}_{accuracy:.4f}.pt"


def _hash(tensor: Tensor) -> bytes:
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    add_to(digest, tensor)
    return digest.digest()
