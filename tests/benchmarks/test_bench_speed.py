"""The benchmark's own arithmetic, and that its one command measures what it says, with tiny sizes."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.benchmarks.bench_speed import parse
from tests.benchmarks.speed import growth, training
from tests.benchmarks.speed.images import NUM_CLASSES, make_images
from tests.benchmarks.speed.stopwatch import ALL_EPOCHS, Stopwatch, Times, Turn
from tests.benchmarks.speed.table import NOT_INSTALLED, Line, Table, spread
from tests.benchmarks.speed.turns import FASTAI, LIGHTNING, PLAIN, THAW, Contender


def times_of(*epochs_s: float, start_s: float = 3.0) -> Times:
    ends = [start_s + sum(epochs_s[: number + 1]) for number in range(len(epochs_s))]
    return Times(started_at=0.0, ready_at=start_s, epoch_ends=ends, accuracies=[0.5] * len(ends))


def test_ten_epochs_are_the_measured_ones_or_composed_of_the_first_and_the_median_later_one() -> None:
    composed = [times_of(40.0, 30.0, 32.0), times_of(50.0, 34.0, 36.0)]
    assert training.ten_epochs_s(composed) == pytest.approx([40 + 9 * 33, 50 + 9 * 33])
    assert training.whole_s(composed) == pytest.approx([43 + 9 * 33, 53 + 9 * 33])
    measured = times_of(8.0, *[0.5] * (ALL_EPOCHS - 1))
    assert training.ten_epochs_s([measured]) == pytest.approx([12.5])
    said = training.how_ten({"quick": [measured], "slow": composed})
    assert re.search(r"as measured for quick; .*composed.* for slow", said)


def test_a_peer_that_is_not_installed_is_said_to_be_so_and_the_fastest_other_one_is_compared_with() -> None:
    taken = {THAW.column: [times_of(10.0, 2.0)], PLAIN.column: [times_of(40.0, 40.0)], LIGHTNING.column: []}
    taken[FASTAI.column] = [times_of(60.0, 60.0)]
    line = training.compared("head only", "a later epoch", taken, training.later_epochs_s, "")
    assert line.cells[LIGHTNING.column] == NOT_INSTALLED
    assert line.ratio == "20 × (plain PyTorch)"
    assert not Contender("Nobody", "torch_loop", needs="no_such_package").is_installed


def test_a_turn_goes_on_to_all_epochs_where_the_rest_is_short(tmp_path: Path) -> None:
    def num_epochs(each_s: float) -> int:
        watch = Stopwatch(Turn("", "", str(tmp_path / "times.json"), 0.0, num_epochs=2, rest_s=10.0))
        watch.begin(1.0)
        count = 1
        while watch.end_epoch(0.5, 1.0 + count * each_s):
            count += 1
        return count

    assert num_epochs(30.0) == 2
    assert num_epochs(1.0) == ALL_EPOCHS


def test_the_table_has_in_each_part_only_the_columns_that_it_needs() -> None:
    table = Table(["Thaw", "small", "large"])
    table.lines.append(Line("start", "to the first step", {"Thaw": spread([3.0, 1.0, 2.0])}, goal="within 1 s"))
    table.lines.append(Line("growth", "a step", {"small": spread([1.0], "ms"), "large": spread([1.5], "ms")}, "1.5 ×"))
    table.notes.append("a machine")
    assert "to the first step  2 s (1.5–2.5, n 3)  within 1 s" in table.text()
    assert table.take(is_markdown=True).splitlines() == [
        "| start | Thaw | to reach |",
        "| --- | --- | --- |",
        "| to the first step | 2 s (1.5–2.5, n 3) | within 1 s |",
        "",
        "| growth | small | large | ratio |",
        "| --- | --- | --- | --- |",
        "| a step | 1 ms (n 1) | 1.5 ms (n 1) | 1.5 × |",
        "",
        "- a machine",
    ]
    assert not table.take(is_markdown=True).strip()


def test_images_are_made_once_and_no_other_folder_is_written_to(tmp_path: Path) -> None:
    root = make_images(tmp_path / "images", 50)
    files = sorted(root.rglob("*.jpg"))
    assert len(files) == 50
    assert len(list((root / "val").rglob("*.jpg"))) == 50 // 5
    assert {path.parent.name for path in files} == {f"class_{idx}" for idx in range(NUM_CLASSES)}
    written = [path.stat().st_mtime_ns for path in files]
    make_images(root, 50)
    assert [path.stat().st_mtime_ns for path in files] == written
    with pytest.raises(ValueError, match="other images"):
        make_images(root, 60)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        make_images(tmp_path / "other", 50)


def test_an_unknown_row_is_refused_with_the_rows_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--rows", "head,fast"])
    assert "there is no row fast: choose from head, last" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_command_trains_every_contender_and_prints_one_table() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.bench_speed", "--quick", "--markdown", "--num-images", "100"]
    done = subprocess.run([*command, "--rows", "head,start"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (later,) = (line for line in done.stdout.splitlines() if line.startswith("| a later epoch |"))
    (first_step,) = (line for line in done.stdout.splitlines() if "data never seen" in line and line.startswith("|"))
    for line in (later, first_step):
        assert len(re.findall(r"\d s \(n?", line)) >= 2, line
    for package in ("lightning", "fastai"):
        is_said = f"{package} {NOT_INSTALLED}" in done.stdout
        assert is_said == (find_spec(package) is None)
    assert later.count(NOT_INSTALLED) == sum(find_spec(package) is None for package in ("lightning", "fastai"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_growth_is_measured_for_epochs_layers_images_and_checkpoints(tmp_path: Path) -> None:
    table = Table(["small", "large"])
    sizes = {"epochs": [1, 3], "layers": [10, 40], "images": [100, 1_000], "checkpoints": [2, 20]}
    growth.measure(table, tmp_path, sizes)
    told = table.markdown()
    for words in ("an epoch", "layers 10 → 40", "images 100 → 1,000", "checkpoints 2 → 20"):
        assert words in told
    assert all(re.match(r"-?[\d.,]+ m?s \(", cell) for line in table.lines for cell in line.cells.values()), told
