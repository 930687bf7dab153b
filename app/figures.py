"""Figures and names as a terminal shows them. The window writes its own, by the user's locale."""

from __future__ import annotations

import math
import shlex
from pathlib import Path


def printable(text: str) -> str:
    """Return text without control characters, which a file's name could use to rewrite the terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def duration(seconds: float) -> str:
    """Return a time span as a person reads it: 0:42, 12:05, 1:02:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short_time(seconds: float) -> str:
    """Return a time span that may be shorter than a second: 0.4 s, from ten seconds on 0:12."""
    return duration(seconds) if seconds >= 9.95 else f"{max(seconds, 0.1):.1f} s"


def size(num_bytes: float) -> str:
    """Return a number of bytes as a person reads it: 950 B, 1.7 MB."""
    if num_bytes < 1000:
        return f"{num_bytes:.0f} B"
    unit = "B"
    for unit in ("kB", "MB", "GB"):  # noqa: B007 (the last one tried is the one to write)
        num_bytes /= 1000
        if num_bytes < 999.95:
            break
    return f"{num_bytes:,.1f} {unit}"


def percent(part: float) -> str:
    """Return a share of 0 to 1 in percent: never "100 %" of what is a little less."""
    return f"{math.floor(1000 * part) / 10:.1f} %"


def count(number: int) -> str:
    """Return a count of parameters as a person reads it: 950, 208 k, 11.7 M."""
    if number < 1000:
        return str(number)
    if number < 999_500:
        return f"{number / 1000:.3g} k"
    return f"{number / 1e6:,.2f} M"


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number of things as a person says it: 1 thread, 2 threads, 1,200 classes."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def shown_path(path: Path) -> str:
    """Return a path as a user would type it in this folder."""
    try:
        path = path.resolve().relative_to(Path.cwd())
    except ValueError:
        path = path.resolve()
    return shlex.quote(str(path))
