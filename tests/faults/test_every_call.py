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


def fail_each_call(mode: str, config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    """Save under a file system whose first call fails, whose second call fails …: what became of each run."""
    library = folder / "failing_calls.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "failing_calls.c", "-ldl"], check=True)
    config_path = folder / "config.toml"
    config_path.write_text(config_to_toml(config))
    work = folder / "work"
    work.mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.saver", library, config_path, work, mode],
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
