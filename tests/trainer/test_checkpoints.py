"""A checkpoint's files are checked before anything of them is used, and each one that is at fault is named."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trainer import checkpoints
from trainer.checkpoints import BaseError, CheckpointError, CheckpointStore, hash_file, read_rng
from trainer.config import RunConfig
from trainer.messages.run_info import CheckpointInfo
from trainer.runs import RunFolder

NAME = "checkpoint_tiny_001_step000004.pt"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """Return a run with a base of two tensors, and a checkpoint that has changed one of them."""
    with RunFolder.create(tmp_path / "runs", RunConfig(name="tiny")) as folder:
        store = CheckpointStore(folder)
        store.write_base(state(0.0))
        saved = {**content(), "model_state_dict": store.changed(state(1.0))}
        listed(folder, *store.write(folder.checkpoints_dir / NAME, saved))
        yield folder


def state(bias: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(1000.0), "bias": torch.full((3,), bias)}


def content() -> dict[str, object]:
    return {"step": 4, "epoch": 1, "rng": read_rng(torch.device("cpu"))}


def listed(folder: RunFolder, size_bytes: int, sha256: str) -> None:
    folder.checkpoints.add(
        CheckpointInfo(
            name=NAME, epoch=1, step=4, loss=None, accuracy=None, frozen=[], frozen_summary="", size_bytes=size_bytes,
            sha256=sha256, saved_at=1.0, reason="user", segment=0,
        )
    )  # fmt: skip


def relist(folder: RunFolder) -> None:
    """List the file as it is now: as one that was damaged before its sum was taken."""
    path = folder.checkpoints_dir / NAME
    listed(folder, path.stat().st_size, hash_file(path))


def load(folder: RunFolder) -> dict:
    return CheckpointStore(folder).load(folder.checkpoints.find(NAME))


def flip_a_bit(path: Path, place: float) -> None:
    read = bytearray(path.read_bytes())
    read[int(place * (len(read) - 1))] ^= 1
    path.write_bytes(bytes(read))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def write_other_base(folder: RunFolder) -> None:
    CheckpointStore(folder).write_base(state(2.0))


def write_another_format(folder: RunFolder) -> None:
    path = folder.checkpoints_dir / NAME
    torch.save({**torch.load(path, weights_only=True), "format_version": 2}, path)
    relist(folder)


def write_code(folder: RunFolder) -> None:
    torch.save(torch.nn.Linear(2, 2), folder.checkpoints_dir / NAME)
    relist(folder)


def test_what_was_saved_is_loaded_whole(folder: RunFolder) -> None:
    loaded = load(folder)
    assert loaded["model_state_dict"].keys() == {"weight", "bias"}
    assert torch.equal(loaded["model_state_dict"]["bias"], torch.ones(3))
    assert set(torch.load(folder.checkpoints_dir / NAME, weights_only=True)["model_state_dict"]) == {"bias"}


def test_of_the_base_no_second_model_is_held(tmp_path: Path) -> None:
    def tensors() -> int:
        return sum(type(each) is Tensor and each.shape == (12_347,) for each in gc.get_objects())

    weight = torch.randn(12_347)
    with RunFolder.create(tmp_path, RunConfig(name="tiny")) as folder:
        store = CheckpointStore(folder)
        store.write_base({"weight": weight})
        assert tensors() == 1
        assert store.changed({"weight": weight}) == {}
        assert torch.equal(store.whole({})["weight"], weight)
        weight[-1] = -weight[-1]
        assert store.changed({"weight": weight}).keys() == {"weight"}
        assert store.changed({"weight": weight.view(1, -1)}).keys() == {"weight"}, "of another shape"
        assert tensors() == 1


def test_without_a_known_base_all_is_kept_and_none_is_needed(folder: RunFolder) -> None:
    folder.base_path.unlink()
    store = CheckpointStore(folder)
    whole = store.changed(state(3.0))
    assert whole.keys() == state(3.0).keys()
    assert store.whole(whole).keys() == whole.keys()


@pytest.mark.parametrize("fault", [OSError(5, "Input/output error"), MemoryError("can't allocate memory")])
def test_a_base_that_cannot_be_read_is_told_as_that(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    store = CheckpointStore(folder)

    def fail(*_: object, **__: object) -> None:
        raise fault if isinstance(fault, OSError) else RuntimeError(*fault.args)

    if isinstance(fault, OSError):
        monkeypatch.setattr(checkpoints, "hash_file", fail)
    else:
        monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(BaseError, match=r"^Cannot read .*base\.pt.*\.$"):
        store.read_base()


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_flipped_bit_anywhere_in_a_file_is_refused_by_its_name(folder: RunFolder, place: float) -> None:
    flip_a_bit(folder.checkpoints_dir / NAME, place)
    with pytest.raises(CheckpointError, match=f"^The checkpoint {NAME} is damaged: its bytes changed since"):
        load(folder)
    flip_a_bit(folder.checkpoints_dir / NAME, place)
    flip_a_bit(folder.base_path, place)
    with pytest.raises(CheckpointError, match=r"base\.pt is damaged: its bytes changed since the run began"):
        load(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: cut(folder.checkpoints_dir / NAME), f"The checkpoint {NAME} is damaged"),
        (lambda folder: cut(folder.base_path), "base.pt is damaged"),
        (lambda folder: (folder.checkpoints_dir / NAME).unlink(), f"The checkpoint {NAME} is missing from "),
        (lambda folder: folder.base_path.unlink(), "base.pt is missing, and every checkpoint of the run needs it"),
        (write_other_base, f"base.pt is not the one that {NAME} was saved with"),
        (write_another_format, f"The checkpoint {NAME} has format 2, but this Thaw reads format 3. Use the version"),
        (write_code, f"{NAME}: it is damaged or no checkpoint"),
    ],
    ids=["cut", "base cut", "missing", "base missing", "another base", "another format", "code"],
)
def test_a_file_that_is_not_what_it_should_be_is_refused_by_its_name(
    folder: RunFolder, spoil: Callable[[RunFolder], None], said: str
) -> None:
    spoil(folder)
    with pytest.raises(CheckpointError) as refused:
        load(folder)
    assert said in str(refused.value)
    (sentence,) = str(refused.value).splitlines()
    assert sentence.endswith(".")
    # A verification looks at files that it does not load: it must not pass where a resume would refuse.
    with pytest.raises(CheckpointError) as refused:
        CheckpointStore(folder).check(folder.checkpoints.find(NAME))
    assert str(refused.value) == sentence


def test_the_newest_other_checkpoint_with_a_whole_file_is_named_instead(folder: RunFolder) -> None:
    for number in (1, 2, 3):
        path = folder.checkpoints_dir / f"c{number}.pt"
        path.write_bytes(b"x" * number)
        info = folder.checkpoints.find(NAME).model_copy(update={"name": path.name, "size_bytes": number})
        folder.checkpoints.add(info.model_copy(update={"saved_at": float(number)}))
    (folder.checkpoints_dir / "c3.pt").unlink()
    cut(folder.checkpoints_dir / NAME)
    with pytest.raises(CheckpointError, match=r"is damaged: .* Choose another one, as c2\.pt\.$"):
        load(folder)


def test_nothing_of_a_file_is_read_before_its_sum_is_checked(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    monkeypatch.setattr(checkpoints, "read_file", lambda path, **_: read.append(path))
    flip_a_bit(folder.checkpoints_dir / NAME, 0.5)
    with pytest.raises(CheckpointError, match="is damaged"):
        load(folder)
    flip_a_bit(folder.base_path, 0.5)
    with pytest.raises(CheckpointError, match="is damaged"):
        CheckpointStore(folder).read_base()
    assert read == []


@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_run_that_was_cut_off_before_its_base_was_kept_says_that_nothing_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_renamed: bool
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(*((RunFolder, "keep_base_sha256") if is_renamed else (Path, "replace")), die)
    with RunFolder.create(tmp_path, RunConfig(name="tiny")) as folder:
        with pytest.raises(Killed):
            CheckpointStore(folder).write_base(state(0.0))
        assert folder.base_path.exists() == is_renamed
        with pytest.raises(CheckpointError, match=r"was cut off as it began, .* Begin a new run with .*run\.toml\.$"):
            CheckpointStore(folder).read_base()


def test_two_runs_of_one_seed_begin_with_equal_generators() -> None:
    states = []
    for _ in range(2):
        checkpoints.seed_generators(5)
        states.append(read_rng(torch.device("cpu")))
        torch.rand(3)
    assert states[0]["python"] == states[1]["python"]
    assert torch.equal(states[0]["torch"], states[1]["torch"])


def test_a_generator_without_a_saved_state_is_named_and_the_others_come_back() -> None:
    device = torch.device("cpu")
    checkpoints.seed_generators(5)
    saved = read_rng(device)
    drawn = torch.rand(3)
    del saved["python"]
    checkpoints.restore_rng(saved, device)
    assert torch.equal(torch.rand(3), drawn)
    assert checkpoints.missing_rng(saved, device) == ["the state of the generator python is not in the checkpoint"]
