"""The environment in which a worker runs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from trainer.client import KEEP_FREED_MEMORY

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


def num_page_faults(environment: dict[str, str]) -> int:
    others = {name: value for name, value in os.environ.items() if name not in KEEP_FREED_MEMORY}
    said = subprocess.run(
        [sys.executable, "-c", CHURN], env={**others, **environment}, capture_output=True, check=True, text=True
    )
    return int(said.stdout)
