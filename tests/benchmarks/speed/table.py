"""The table of figures: medians with their quartiles side by side, as text or as Markdown."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path

import psutil

NOT_INSTALLED = "not installed"
PACKAGES = ("torch", "torchvision", "pillow", "PySide6_Essentials", "lightning", "fastai")


@dataclass(frozen=True)
class Line:
    """One thing that was measured.

    Attributes:
        part: The part of the table that it stands in, which has the columns that its lines need.
        what: What it is.
        cells: What there is of it, by column.
        ratio: How they compare.
        goal: What was to be reached.

    """

    part: str
    what: str
    cells: Mapping[str, str]
    ratio: str = ""
    goal: str = ""


@dataclass
class Table:
    """Lines in parts, one below the other, printed as they are measured; ``notes`` stand at the end."""

    columns: Sequence[str]
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, *, is_markdown: bool) -> str:
        """Return what was measured since this was last asked for."""
        told = self.markdown() if is_markdown else self.text()
        self.lines, self.notes = [], []
        return told

    def text(self) -> str:
        """Return the table for a terminal."""
        told = []
        for rows in self._parts():
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            rule = ["─" * width for width in widths]
            told += [
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                for row in (rows[0], rule, *rows[1:])
            ]
            told.append("")
        return "\n".join([*told, *self.notes, ""])

    def markdown(self) -> str:
        """Return the table for a document."""
        told = []
        for header, *rows in self._parts():
            rule = ["---"] * len(header)
            told += [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]
            told.append("")
        return "\n".join([*told, *(f"- {note}" for note in self.notes), ""])

    def _parts(self) -> Iterator[list[list[str]]]:
        for part, grouped in groupby(self.lines, key=lambda line: line.part):
            lines = list(grouped)
            used = [column for column in self.columns if any(column in line.cells for line in lines)]
            header = [part, *used]
            rows = [[line.what, *(line.cells.get(column, "–") for column in used)] for line in lines]
            for name, said in (("ratio", [line.ratio for line in lines]), ("to reach", [line.goal for line in lines])):
                if any(said):
                    header.append(name)
                    rows = [[*row, text] for row, text in zip(rows, said, strict=True)]
            yield [header, *rows]


def spread(values: Sequence[float], unit: str = "s") -> str:
    """Return the median and, of several values, the quartiles and how many there are: "33.1 s (32.8–33.9, n 5)"."""
    median = statistics.median(values)
    if len(values) < 2:
        return f"{number(median)} {unit} (n 1)"
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{number(median)} {unit} ({number(low)}–{number(high)}, n {len(values)})"


def number(value: float) -> str:
    """Return three digits of a number, and all of a larger one."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def times(value: float) -> str:
    """Return a ratio as text."""
    return f"{number(value)} ×"


def machine() -> str:
    """Say on what was measured: processor, cores, memory, system and versions."""
    installed = []
    for package in PACKAGES:
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            installed.append(f"{package} {NOT_INSTALLED}")
    return (
        f"{_processor()}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}; Python {platform.python_version()}, "
        f"{', '.join(installed)}"
    )


def load() -> str:
    """Return how many processes wanted a core, over the last 1, 5 and 15 minutes."""
    return ", ".join(f"{each:.1f}" for each in psutil.getloadavg())


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
