"""States before changes in files: within their budget, past a full disk, and for the run that a worker left."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.trainer.test_loop import Make, make_trainer, with_training
from tests.trainer.test_rewinds import acting, digest
from trainer.checkpoints import BaseError, CheckpointError, CheckpointStore
from trainer.config import RunConfig, TrainingConfig
from trainer.file_writer import FileWriter
from trainer.loop import RunStopped
from trainer.messages.base import Event
from trainer.messages.changes import RewindUndone, RunRewound
from trainer.messages.events import LogWritten, MetricsLogged, RewindsKept
from trainer.messages.run_info import RewindInfo
from trainer.rewinds import KeptState, RewindError, Rewinds
from trainer.runs import RunFolder

__all__ = ["make_trainer"]

Usage = namedtuple("Usage", ["total", "used", "free"])
NUM_BYTES = 4_000_000


class Bench:
    """The kept states of a run of nothing but numbers, each of four megabytes."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.store = CheckpointStore(folder)
        self.store.write_base({"w": torch.zeros(1)})
        self.events: list[Event] = []
        self.writer = FileWriter("test-writer")

    def open(self, *, memory: float, disk: float) -> Rewinds:
        """Keep as many states in memory, and as many in files."""
        config = TrainingConfig(rewind_gb=memory * NUM_BYTES / 1e9, rewind_disk_gb=disk * 1.01 * NUM_BYTES / 1e9)
        return Rewinds(config, self.folder, self.store, self.writer, self.events.append)

    def keep(self, rewinds: Rewinds, change: int, *, is_at_once: bool = False) -> None:
        content = {"step": change, "model_state_dict": {"w": torch.full((NUM_BYTES // 4,), float(change))}}
        if rewinds.has_room(NUM_BYTES):
            rewinds.keep(KeptState(RewindInfo(change=change, **INFO), content))
        if not is_at_once:
            self.writer.finish()

    def read(self, rewinds: Rewinds) -> dict[int, float]:
        """Read the states that are kept, by their changes."""
        return {c: rewinds.read(rewinds.find(c, None))["model_state_dict"]["w"][-1].item() for c in rewinds.changes}

    def in_memory(self, rewinds: Rewinds) -> list[int]:
        return [change for change in rewinds.changes if rewinds.find(change, None).content is not None]

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.rewinds_dir.glob("*"))

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, LogWritten)]


INFO = {"sentence": "rate 0.01", "source": "user", "step": 1, "resume_from": None}


@pytest.fixture
def bench(tmp_path: Path, small_config: RunConfig) -> Iterator[Bench]:
    with RunFolder.create(tmp_path / "runs", small_config) as folder:
        yield Bench(folder)


def test_what_memory_has_no_room_for_is_in_files_and_the_oldest_leave_both_first(bench: Bench) -> None:
    rewinds = bench.open(memory=1, disk=3)
    for change in range(1, 6):
        bench.keep(rewinds, change)
    assert bench.in_memory(rewinds) == [5]
    assert bench.read(rewinds) == {3: 3.0, 4: 4.0, 5: 5.0}
    assert bench.files == ["before_000003.pt", "before_000004.pt", "before_000005.pt"]
    assert [info.change for info in bench.folder.rewinds()] == [3, 4, 5]
    event = rewinds.event()
    assert (event.changes, event.num_bytes, event.budget_bytes) == ([3, 4, 5], NUM_BYTES, NUM_BYTES)
    assert 3 * NUM_BYTES <= event.disk_bytes <= event.disk_budget_bytes
    assert bench.warnings == []


def test_without_files_the_oldest_leave_memory_first(bench: Bench) -> None:
    rewinds = bench.open(memory=2, disk=0)
    for change in (1, 2, 3):
        bench.keep(rewinds, change)
    event = rewinds.event()
    assert (event.changes, event.num_bytes, event.disk_bytes) == ([2, 3], 2 * NUM_BYTES, 0)
    assert not bench.folder.rewinds_dir.exists()


def test_without_memory_each_is_read_from_its_file_and_one_at_a_time_waits_for_it(bench: Bench) -> None:
    rewinds = bench.open(memory=0, disk=3)
    bench.keep(rewinds, 1)
    with rewinds._lock:
        # The writer cannot have finished with the first while this goes on.
        bench.keep(rewinds, 2, is_at_once=True)
        bench.keep(rewinds, 3, is_at_once=True)
    bench.writer.finish()
    assert bench.in_memory(rewinds) == []
    assert bench.read(rewinds) == {1: 1.0, 2: 2.0}
    (warning,) = bench.warnings
    assert "the one before is still being written" in warning


def fail_with_no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "mkdir", "row"])
def test_a_full_disk_leaves_states_in_memory_and_is_told_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    targets = {"write": (torch, "save"), "fsync": (os, "fsync"), "replace": (Path, "replace"), "mkdir": (Path, "mkdir")}
    rewinds = bench.open(memory=2, disk=9)
    with monkeypatch.context() as patch:
        if call == "row":
            patch.setattr(bench.folder, "keep_rewind", fail_with_no_space)
        else:
            patch.setattr(*targets[call], fail_with_no_space)
        for change in (1, 2, 3):
            bench.keep(rewinds, change)
    assert bench.read(rewinds) == {2: 2.0, 3: 3.0}
    assert bench.files == []
    assert bench.folder.rewinds() == []
    (warning,) = bench.warnings
    assert "No space left on device" in warning
    # There is room again.
    bench.keep(rewinds, 4)
    assert bench.files == ["before_000004.pt"]


def test_near_a_full_disk_nothing_is_written_and_what_memory_cannot_hold_is_not_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 5 * NUM_BYTES))
    rewinds = bench.open(memory=0, disk=9)
    for change in (1, 2):
        bench.keep(rewinds, change)
    assert (rewinds.changes, bench.files) == ([], [])
    (warning,) = bench.warnings
    assert "the disk has 0.02 GB free" in warning
    last = [event for event in bench.events if isinstance(event, RewindsKept)][-1]
    assert (last.changes, last.num_bytes, last.disk_bytes) == ([], 0, 0)


def test_a_damaged_file_is_refused_by_name_and_not_offered_again(bench: Bench) -> None:
    rewinds = bench.open(memory=0, disk=3)
    for change in (1, 2):
        bench.keep(rewinds, change)
    path = bench.folder.rewinds_dir / "before_000001.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"The state before rate 0\.01 is damaged"):
        rewinds.read(rewinds.find(1, None))
    bench.writer.finish()
    assert (rewinds.changes, bench.files) == ([2], ["before_000002.pt"])


def test_without_its_base_no_state_is_read_and_each_is_still_offered(bench: Bench) -> None:
    rewinds = bench.open(memory=1, disk=2)
    for change in (1, 2):
        bench.keep(rewinds, change)
    assert bench.in_memory(rewinds) == [2]
    base = bench.folder.base_path.read_bytes()
    bench.folder.base_path.unlink()
    for change in (1, 2):
        with pytest.raises(BaseError, match=r"base\.pt is missing, .* Put it back from a copy\.$"):
            rewinds.read(rewinds.find(change, None))
    bench.folder.base_path.write_bytes(base)
    assert bench.read(rewinds) == {1: 1, 2: 2}


def test_files_without_a_row_are_deleted_and_rows_without_their_file_are_passed_over(bench: Bench) -> None:
    rewinds = bench.open(memory=0, disk=5)
    for change in (1, 2, 3):
        bench.keep(rewinds, change)
    bench.folder.forget_rewind(1)
    (bench.folder.rewinds_dir / "before_000002.pt").write_bytes(b"cut")
    (bench.folder.rewinds_dir / ".saving-1-before_000004.pt").write_bytes(b"half")
    later = bench.open(memory=0, disk=5)
    later.load()
    assert later.go_to([1, 2, 3])
    assert bench.read(later) == {3: 3.0}
    assert bench.files == ["before_000003.pt"]


def stop() -> None:
    raise RunStopped


def test_a_resumed_run_goes_back_to_the_bit_before_what_led_to_its_checkpoint_and_no_further_change(
    make_trainer: Make, small_config: RunConfig
) -> None:
    first, _ = make_trainer(small_config)
    hashes: list[str] = []

    def change_around_a_save() -> None:
        hashes.append(digest(first))
        first.changes.unfreeze(["conv5"])
        first.save(reason="user")
        first.changes.set_rate(0.02)

    with pytest.raises(RunStopped):
        first.fit(acting(first, (2, lambda: first.changes.set_rate(0.01)), (6, change_around_a_save), (7, stop)))
    assert first.restoring.changes == [1, 2, 3]
    first._writer.finish()
    folder = first._folder

    second, _ = make_trainer(small_config)
    events = second.go_on(folder, folder.checkpoints.resume_point())
    (kept,) = [event for event in events if isinstance(event, RewindsKept)]
    assert (kept.changes, kept.num_bytes, kept.undo_step) == ([1, 2], 0, None)
    second._writer.finish()
    assert kept.disk_bytes == sum(path.stat().st_size for path in folder.rewinds_dir.iterdir())
    rewound, _ = second.restoring.rewind(2, None)
    assert isinstance(rewound, RunRewound)
    assert (rewound.step, rewound.sentence, rewound.rate) == (6, "conv5 unfrozen", 0.01)
    assert digest(second) == hashes[0]
    # It goes on as the first one would have.
    second.fit(lambda: None)
    straight, _ = make_trainer(small_config)
    straight.fit(acting(straight, (2, lambda: straight.changes.set_rate(0.01))))
    assert digest(second) == digest(straight)


def test_a_run_that_begins_anew_or_at_a_checkpoint_of_before_keeps_no_state_of_a_change_after_it(
    make_trainer: Make, small_config: RunConfig
) -> None:
    first, _ = make_trainer(small_config)
    first.changes.set_rate(0.01)
    saved = first.save(reason="user")
    # Gone back behind, and made anew: the checkpoint was saved on a piece that is abandoned.
    first.restoring.rewind(1, None)
    first.changes.set_rate(0.02)
    first._writer.finish()
    for info in (saved, None):
        later, _ = make_trainer(small_config)
        events = later.go_on(first._folder, info)
        later._writer.finish()
        assert not any(event.changes or event.disk_bytes for event in events if isinstance(event, RewindsKept))
        with pytest.raises(RewindError, match="No state is kept"):
            later.restoring.rewind(None, None)
        assert list(first._folder.rewinds_dir.iterdir()) == []
        assert first._folder.rewinds() == []


@pytest.mark.parametrize("rewind_gb", [1.0, 0.0], ids=["in memory", "in a file"])
def test_an_undone_rewind_is_as_if_it_had_never_been(
    make_trainer: Make, small_config: RunConfig, rewind_gb: float
) -> None:
    config = with_training(small_config, rewind_gb=rewind_gb)
    straight, straight_events = make_trainer(config)
    straight.fit(acting(straight, (3, lambda: straight.changes.unfreeze(["conv5"]))))
    trainer, events = make_trainer(config)
    hashes: list[str] = []
    told: list[Event] = []

    def rewind() -> None:
        hashes.append(digest(trainer))
        told.extend(trainer.restoring.rewind(None, None))
        trainer._writer.finish()

    def undo() -> None:
        told.extend(trainer.restoring.undo_rewind())
        trainer._writer.finish()
        assert (digest(trainer), trainer.step) == (hashes.pop(), 6)

    # Twice, so that neither way the kept states are touched.
    trainer.fit(
        acting(
            trainer,
            (3, lambda: (trainer.changes.unfreeze(["conv5"]), trainer._writer.finish())),
            (6, rewind),
            (5, undo),
            (6, rewind),
            (4, undo),
        )
    )
    assert digest(trainer) == digest(straight)
    kept = [event for event in told if isinstance(event, RewindsKept)]
    assert [(event.changes, event.undo_step) for event in kept] == [([], 6), ([1], None)] * 2
    undone = [event for event in told if isinstance(event, RewindUndone)]
    assert [(event.undone_segment, event.undone_step, event.step, event.segment) for event in undone] == [
        (1, 3, 6, 2),
        (3, 3, 6, 4),
    ]
    assert undone[0].frozen == undone[1].frozen == sorted(straight.freeze_set.frozen)
    folder = trainer._folder
    for event in (event for event in events if isinstance(event, MetricsLogged)):
        folder.add_metrics(event.segment, event.series)
    curve = folder.curves()["Loss/train"]
    theirs = [value for e in straight_events if isinstance(e, MetricsLogged) and "Loss/train" in e.series
              for value in e.series["Loss/train"].values]  # fmt: skip
    assert list(curve.steps) == list(range(1, 13))
    assert list(curve.values) == theirs
    assert {segment: list(steps) for segment, (steps, _) in curve.abandoned.items()} == {1: [4, 5], 3: [4]}


def test_rewinds_are_undone_in_turn_until_another_change_is_made(make_trainer: Make, small_config: RunConfig) -> None:
    trainer, _ = make_trainer(small_config)
    folder = trainer._folder
    for rate in (0.01, 0.02, 0.03):
        trainer.changes.set_rate(rate)
    trainer.restoring.rewind(3, None)
    trainer.restoring.rewind(1, None)
    assert trainer.rates.rate == small_config.optimizer.rate
    assert [trainer.restoring.undo_rewind()[1].changes, trainer.rates.rate] == [[1, 2], 0.02]
    assert [trainer.restoring.undo_rewind()[1].changes, trainer.rates.rate] == [[1, 2, 3], 0.03]
    with pytest.raises(RewindError, match="No rewind can be undone"):
        trainer.restoring.undo_rewind()
    trainer.restoring.rewind(2, None)
    trainer._writer.finish()
    assert [info.change for info in folder.rewinds()] == [1, 2, 3]
    trainer.changes.set_rate(0.04)
    with pytest.raises(RewindError, match="No rewind can be undone"):
        trainer.restoring.undo_rewind()
    trainer._writer.finish()
    changes = trainer.restoring.changes
    assert changes[0] == 1
    assert len(changes) == 2
    assert [info.change for info in folder.rewinds()] == changes
    assert len(list(folder.rewinds_dir.iterdir())) == 2


def test_a_killed_run_whose_rewind_was_undone_goes_on_from_its_last_checkpoint(
    make_trainer: Make, small_config: RunConfig
) -> None:
    trainer, _ = make_trainer(small_config)
    trainer.changes.set_rate(0.5)
    saved = trainer.save(reason="user")
    trainer.restoring.rewind(None, None)
    assert trainer._folder.checkpoints.resume_point() is None
    trainer.restoring.undo_rewind()
    assert trainer._folder.checkpoints.resume_point() == saved
