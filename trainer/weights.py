"""Weights: published ones from torch's own cache or the network, and local files. No code in a file is ever run."""

from __future__ import annotations

import argparse
import contextlib
import errno
import glob
import hashlib
import lzma
import os
import pickle
import re
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from trainer.config_error import ConfigError

TIMEOUT_S = 20.0
STATE_DICT_KEYS = ("model_state_dict", "state_dict", "model", "model_state", "net", "weights")
PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pth.tar", ".pt.tar")
"""Of files that torch.save wrote: a course's or timm's, Lightning's, Hugging Face's, and those of older examples."""
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every key."""

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_ZIP_START = b"PK\x03\x04"
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickled number with which torch.save begins where it writes no zip, as before PyTorch 1.6."""
_SAFETENSORS_HEADER = slice(8, 9)
"""Where the header's first brace is, after its length."""
_CHUNK_BYTES = 256 * 1024

Progress = Callable[[str, int, int, str], None]
"""Called with (what, done, total, unit), as in the event PreparationProgressed."""


class ModelError(ConfigError):
    """A model or weights that cannot be used."""

    def __init__(self, message: str, field: str = "model.weights") -> None:
        super().__init__(message, field)


def cached_path(url: str) -> Path:
    """Return where torch.hub keeps, or would keep, the file of this address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urllib.parse.urlparse(url).path).name


def fetch_published(url: str, model: str, on_progress: Progress, check_cancelled: Callable[[], None]) -> Path:
    """Return the cached file of published weights, downloading it first when it is missing.

    The name carries the first digits of the file's SHA-256, which are checked for a cached file too. A download that
    was interrupted is gone on with where the server can do that; the error that interrupts one has a note that says so.

    Raises:
        ModelError: There is no network, the server refuses, the disk is full, or the file is damaged.

    """
    path = cached_path(url)
    try:
        if not path.is_file():
            _download_into(path, url, model, on_progress, check_cancelled)
        elif not _has_right_hash(path, path.name):
            raise ModelError(
                f"{path} is not the published file of {model}: its SHA-256 is not the one in its name. "
                f"Delete it, and it is downloaded again from {url}."
            )
    except OSError as error:
        raise ModelError(
            f"Cannot keep the weights of {model} at {path}: {error.strerror or error}. Check the disk's space and the "
            "folder's permissions, or set TORCH_HOME to another folder."
        ) from error
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state_dict from a .safetensors file or one that torch.save wrote, on the CPU.

    A dict with the state_dict under one of STATE_DICT_KEYS is looked into, and the prefixes of DistributedDataParallel
    and torch.compile are taken off.

    Raises:
        ModelError: There is no such file, or no weights can be read from it without running code.

    """
    if path.is_dir():
        raise ModelError(
            f"{path} is a folder, not a file of weights. Choose the file in it that ends in .pt, .pth or .safetensors."
        )
    if not path.is_file():
        raise ModelError(f"There is no weights file {path}. Check the path, or choose random.")
    name = path.name.lower()
    if name.endswith(".safetensors"):
        return _without_prefix(_read_safetensors(path))
    if not name.endswith(PICKLE_SUFFIXES):
        raise ModelError(
            f"{path} is no weights file that can be read here: choose one that ends in .pt, .pth or .safetensors, or "
            "in .ckpt, .bin or .pth.tar."
        )
    return _without_prefix(_state_dict(path, _read_pickle(path)))


def _download_into(
    path: Path, url: str, model: str, on_progress: Progress, check_cancelled: Callable[[], None]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _take_partial(path)
    try:
        with partial.open("ab") as file:
            done = file.tell()
            for position, chunk, total in _chunks(url, path, model, done):
                check_cancelled()
                if position != done:
                    file.truncate(position)
                done = position + file.write(chunk)
                on_progress(f"Downloading {model}", done, total, "bytes")
            file.flush()
            os.fsync(file.fileno())
        if not _has_right_hash(partial, path.name):
            partial.unlink()
            raise ModelError(
                f"The download of {model} from {url} is damaged: its SHA-256 is not the one in its name. Try again, "
                f"or fetch it elsewhere and put it at {path}."
            )
        partial.replace(path)
    except BaseException as error:
        if _leave_partial(path, partial):
            error.add_note(f"What came of {model} is kept: the next download goes on from there.")
        raise


def _take_partial(path: Path) -> Path:
    """Return the file that this process downloads into: what an earlier download left of it, or a new one.

    A process has its id in the file's name, so that no other one writes into it. A rename takes it over: only one
    process succeeds in that.
    """
    own = path.with_name(f"{path.name}.{os.getpid()}.partial")
    left = [
        file for file in path.parent.glob(f"{glob.escape(path.name)}*.partial") if not _has_living_owner(file, path)
    ]
    for file in sorted(left, key=_size, reverse=True):
        with contextlib.suppress(FileNotFoundError):
            # Another process took it, or it is done.
            file.replace(own)
            break
    return own


def _leave_partial(path: Path, own: Path) -> bool:
    """Leave what came so far to whoever downloads next. Returns whether there is anything."""
    left = path.with_name(f"{path.name}.partial")
    if _size(own) <= _size(left):
        own.unlink(missing_ok=True)
    else:
        own.replace(left)
    return left.is_file()


def _has_living_owner(partial: Path, path: Path) -> bool:
    owner = partial.name.removeprefix(path.name).removesuffix(".partial").removeprefix(".")
    return owner.isdecimal() and int(owner) != os.getpid() and psutil.pid_exists(int(owner))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _chunks(url: str, path: Path, model: str, start: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield a download from byte ``start`` on, or from 0 where the server cannot go on there.

    Each chunk comes with its position and the size of the whole, 0 if that is not told. Network errors are put in words
    for the user.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            position = _first_byte(response, start)
            total = position + int(response.headers.get("Content-Length") or -position)
            while chunk := response.read(_CHUNK_BYTES):
                yield position, chunk, total
                position += len(chunk)
            if position < total:
                raise HTTPException(f"the connection ended after {position:,} of {total:,} bytes")
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is the server's answer, with an open socket
            if start and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                # There is no more of it, so what is here is the whole, or no part of it at all.
                if error.headers.get("Content-Range") != f"bytes */{start}":
                    yield from _chunks(url, path, model, 0)
                return
        reason = getattr(error, "reason", None) or error
        raise ModelError(
            f"Cannot download the weights of {model} ({reason}). Connect to the network; or fetch {url} on another "
            f"machine and put it at {path}; or choose local or random weights."
        ) from error


def _first_byte(response: HTTPResponse, start: int) -> int:
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return 0
    told = response.headers.get("Content-Range", "")
    if not told.startswith(f"bytes {start}-"):
        raise HTTPException(f"the server sent another part than was asked for: {told or 'it does not say which'}")
    return start


def _has_right_hash(path: Path, name: str) -> bool:
    match = re.search(r"-([a-f0-9]{8,})\.", name)
    if match is None:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(match[1])


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    start = _first_bytes(path)
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        is_of_format = start[_SAFETENSORS_HEADER] == b"{"
        raise (_damaged(path) if is_of_format else _of_no_format(path, "no file of safetensors")) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def _read_pickle(path: Path) -> Any:
    start = _first_bytes(path)
    try:
        # The options of a command line, as timm keeps them: plain values, but of a class that torch does not know.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        text = str(error)
        if "TorchScript" in text:
            raise ModelError(
                f"{path} holds a TorchScript program, which is code and never run here. Save its weights with "
                "torch.save(torch.jit.load(path).state_dict(), …) and choose that file."
            ) from error
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in text:
            found = _GLOBAL.search(text)
            raise ModelError(
                f"{path} holds a whole pickled model or other code, which is never run here"
                f"{f' ({found[1]})' if found else ''}. Where it was made, save its weights with "
                "torch.save(model.state_dict(), …) and choose that file."
            ) from error
        # torch opens a zip that is cut off at a negative place, which the system calls an invalid argument.
        is_of_machine = isinstance(error, OSError) and error.errno != errno.EINVAL
        if is_of_machine or isinstance(error, MemoryError) or "allocate" in text:
            raise _unreadable(path, error) from error
        # Whatever else torch says of it is about its own insides, or advises to switch the protection off.
        raise _misread(path, start) from error
    # torch reads a zip without looking at its checksums.
    if start.startswith(_ZIP_START) and (fault := _fault_of_zip(path)) is not None:
        raise fault
    return content


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY_START))
    except OSError as error:
        raise _unreadable(path, error) from error
    if not start:
        raise ModelError(f"Cannot read weights from {path}: it is empty. Copy or export it again.")
    return start


def _misread(path: Path, start: bytes) -> ModelError:
    """Say what is wrong with a file that torch.load cannot read, by what it begins with."""
    if start.startswith(_ZIP_START):
        return _misread_zip(path)
    if _LEGACY_START.startswith(start[: len(_LEGACY_START)]):
        return _damaged(path)
    return _of_no_format(path, "no checkpoint of PyTorch, neither a zip nor a pickle that torch.save wrote")


def _misread_zip(path: Path) -> ModelError:
    return _fault_of_zip(path) or ModelError(
        f"Cannot read weights from {path}: it is whole, but pickled in a way that is not read here. Save its weights "
        "again with torch.save(model.state_dict(), …), without pickle_protocol."
    )


def _fault_of_zip(path: Path) -> ModelError | None:
    """Look whether a zip is of torch, and its bytes are those of its checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                return _of_no_format(path, "a zip of other files")
            if _has_checksums(archive) and (wrong := archive.testzip()) is not None and archive.getinfo(wrong).CRC:
                return _damaged(path)
    except OSError as error:
        # Of damaged bytes, bz2 says so without a number.
        return _damaged(path) if error.errno is None else _unreadable(path, error)
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, lzma.LZMAError, zlib.error):
        # A flipped bit may also make it encrypted, or packed in another way, or in one that there is not.
        return _damaged(path)
    return None


def _has_checksums(archive: zipfile.ZipFile) -> bool:
    """Tell whether torch wrote checksums: with its ``set_crc32_options(False)`` no entry's is right."""
    version = next((name for name in archive.namelist() if name.endswith("/version")), None)
    if version is None:
        return False
    try:
        archive.read(version)
    except zipfile.BadZipFile:
        return False
    return True


def _damaged(path: Path) -> ModelError:
    return ModelError(f"Cannot read weights from {path}: it is cut off or damaged. Copy or export it again.")


def _of_no_format(path: Path, what: str) -> ModelError:
    return ModelError(f"Cannot read weights from {path}: it is {what}. Choose another file, or export it again.")


def _unreadable(path: Path, error: Exception) -> ModelError:
    told = error.strerror if isinstance(error, OSError) else ""
    reason = told or (str(error).splitlines() or [""])[0].strip(" .") or type(error).__name__
    return ModelError(f"Cannot read weights from {path}: {reason}. Mend that, or choose another file.")


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, dict):
        if content.get("base_sha256"):
            raise ModelError(
                f"{path} is a compact checkpoint: it holds only what differs from its run's base.pt. Branch from "
                "it, or export it and choose the exported file."
            )
        for key in STATE_DICT_KEYS:
            if isinstance(content.get(key), dict):
                content = content[key]
                break
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise ModelError(
        f"{path} holds no state_dict, bare or under one of {', '.join(STATE_DICT_KEYS)}. Save one with "
        "torch.save(model.state_dict(), …)."
    )


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPER_PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
