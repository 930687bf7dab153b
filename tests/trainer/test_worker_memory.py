"""The environment in which a worker runs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.memory import KEEP_FREED_MEMORY, keep_freed_memory

CHURN = """
import resource
for _ in range(40):
    filled = [bytearray(b"x") * 20_000_000 for _ in range(4)]
    del filled
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so eagerly")
def test_memory_that_each_step_takes_and_frees_is_not_given_back_to_the_system() -> None:
    without, kept = num_page_faults({}), num_page_faults(KEEP_FREED_MEMORY)
    assert kept * 4 < without


@pytest.mark.parametrize(
    ("libc", "mmap_threshold"),
    [(("glibc", "2.36"), 2**40), (("glibc", "2.41"), 2**40), (("glibc", "2.31"), 2**25), (("", ""), None)],
)
def test_no_library_is_asked_for_more_than_it_takes(libc: tuple[str, str], mmap_threshold: int | None) -> None:
    said = keep_freed_memory(libc).get("MALLOC_MMAP_THRESHOLD_")
    assert said == (None if mmap_threshold is None else str(mmap_threshold))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so eagerly")
def test_what_was_freed_can_be_given_back_to_be_measured() -> None:
    script = """
import psutil
from trainer.memory import give_memory_back
before = psutil.Process().memory_info().rss
blocks = [bytearray(b"x") * 5_000_000 for _ in range(20)]
del blocks
kept = psutil.Process().memory_info().rss
give_memory_back()
print(kept - before, psutil.Process().memory_info().rss - before)
"""
    environment = {**os.environ, **KEEP_FREED_MEMORY, "PYTHONPATH": str(Path(__file__).parents[2])}
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True, text=True)
    kept, left = map(int, said.stdout.split())
    assert kept > 80_000_000
    assert left < 20_000_000


def num_page_faults(environment: dict[str, str]) -> int:
    others = {name: value for name, value in os.environ.items() if name not in KEEP_FREED_MEMORY}
    said = subprocess.run(
        [sys.executable, "-c", CHURN], env={**others, **environment}, capture_output=True, check=True, text=True
    )
    return int(said.stdout)
