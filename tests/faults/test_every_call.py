"""Every write, flush and rename of a save and of run.db fails once, or for good, or is the last thing a worker does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from trainer.config import RunConfig, config_to_toml

HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux") or shutil.which("cc") is None, reason="needs LD_PRELOAD and a C compiler"
    ),
]


def fail_each_call(mode: str, config: RunConfig, folder: Path, script: str = "saver") -> list[dict[str, Any]]:
    """Save, or what ``script`` does, under a file system whose first call fails, whose second …: what became of it."""
    library = folder / "failing_calls.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "failing_calls.c", "-ldl"], check=True)
    config_path = folder / "config.toml"
    config_path.write_text(config_to_toml(config))
    work = folder / "work"
    work.mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{script}", library, config_path, work, mode],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(HERE.parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("mode", ["once", "full"])
def test_a_save_of_which_any_call_fails_says_so_loses_nothing_and_is_made_again(
    small_config: RunConfig, tmp_path: Path, mode: str
) -> None:
    attempts = fail_each_call(mode, small_config, tmp_path)
    *failed, without = attempts
    assert {"open", "write", "fsync", "rename"} <= {attempt["last"].rstrip("64") for attempt in failed}
    assert (without["said"], without["steps"]) == ("", [1, 2])
    for attempt in attempts:
        assert attempt["are_whole"], attempt
        assert attempt["steps"][:2] == [1, 2], attempt
        assert attempt["resumed_at"] == 2, attempt
        assert attempt["unlisted"] == [], attempt
    reason = {"once": "Input/output error", "full": "No space left on device"}[mode]
    in_files = [attempt["said"] for attempt in failed if attempt["said"].startswith("Cannot save ")]
    in_db = [attempt["said"] for attempt in failed if attempt["said"].startswith("Cannot write ")]
    assert all(f"pt: {reason}. Make room" in said for said in in_files)
    assert all("run.db: " in said and "Make room" in said for said in in_db)
    assert len(in_files) > 10
    assert len(in_db) > 10
    # SQLite does without its folder's flush; all else is told.
    assert [attempt["last"] for attempt in failed if not attempt["said"]] in ([], ["fdatasync"])


def test_a_worker_that_is_killed_at_any_call_of_a_save_leaves_a_run_that_goes_on(
    small_config: RunConfig, tmp_path: Path
) -> None:
    *killed, without = fail_each_call("kill", small_config, tmp_path)
    assert all(attempt["was_killed"] for attempt in killed)
    assert not without["was_killed"]
    for attempt in (*killed, without):
        assert attempt["are_whole"], attempt
        assert attempt["steps"] in ([1], [1, 2]), attempt
        assert attempt["resumed_at"] == attempt["steps"][-1], attempt
        assert attempt["unlisted"] == [], attempt
    # The checkpoint is listed from some call on, and stays so.
    listed = [len(attempt["steps"]) for attempt in killed]
    assert listed == sorted(listed)
    assert Counter(listed).keys() == {1, 2}


def test_events_of_which_any_write_fails_once_are_all_kept_in_order_and_none_twice(
    small_config: RunConfig, tmp_path: Path
) -> None:
    attempts = fail_each_call("once", small_config, tmp_path, "keeper")
    assert len(attempts) > 10
    for attempt in attempts:
        assert attempt["texts"] == ["0", "1", "2", "3"], attempt
        assert attempt["steps"] == [0, 1, 2, 3], attempt


def test_events_on_a_disk_that_is_full_from_any_write_on_are_kept_up_to_that(
    small_config: RunConfig, tmp_path: Path
) -> None:
    attempts = fail_each_call("full", small_config, tmp_path, "keeper")
    for attempt in attempts:
        texts, steps = attempt["texts"], attempt["steps"]
        assert texts == ["0", "1", "2", "3"][: len(texts)], attempt
        assert steps == [0, 1, 2, 3][: len(steps)], attempt
        assert len(texts) - len(steps) in (0, 1), attempt
    num_kept = [len(attempt["texts"]) + len(attempt["steps"]) for attempt in attempts]
    assert num_kept == sorted(num_kept)
    assert (num_kept[0], num_kept[-1]) == (0, 8)
