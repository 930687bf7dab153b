"""How much memory there is where a container has less than the machine."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from trainer.available_memory import available_bytes

MB = 1 << 20


def group(folder: Path, limit: str, used: int = 0, cached: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"anon {used - cached}\nactive_file {cached // 2}\ninactive_file {cached // 2}\n"
    )


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own"
    path.write_text("4:memory:/elsewhere\n0::/docker/one\n")
    return path


def test_a_limit_of_a_container_counts_and_what_it_caches_of_files_does_not(tmp_path: Path, own: Path) -> None:
    group(tmp_path / "groups" / "docker" / "one", str(100 * MB), 60 * MB, 20 * MB)
    assert available_bytes(tmp_path / "groups", own) == 60 * MB


def test_the_lowest_limit_on_the_way_up_counts(tmp_path: Path, own: Path) -> None:
    group(tmp_path / "groups" / "docker" / "one", "max", 60 * MB)
    group(tmp_path / "groups" / "docker", str(90 * MB), 80 * MB)
    group(tmp_path / "groups", str(200 * MB), 80 * MB)
    assert available_bytes(tmp_path / "groups", own) == 10 * MB


def test_what_a_container_sees_as_its_own_root_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/\n")
    group(tmp_path / "groups", str(100 * MB), 120 * MB)
    assert available_bytes(tmp_path / "groups", tmp_path / "own") == 0


def test_without_a_limit_it_is_what_the_system_has(tmp_path: Path, own: Path) -> None:
    group(tmp_path / "groups" / "docker" / "one", "max", 60 * MB)
    system = psutil.virtual_memory().available
    for groups, path in ((tmp_path / "groups", own), (tmp_path / "none", tmp_path / "nothing")):
        assert available_bytes(groups, path) == pytest.approx(system, rel=0.2)
