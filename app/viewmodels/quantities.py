"""Numbers as a person reads them: sizes, durations, shares and counts, in the user's locale."""

from __future__ import annotations

import datetime
import math
import re

from PySide6.QtCore import QCoreApplication, QDateTime, QLocale

MISSING = "–"
_MAY_BE_GROUPED = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")


def count_text(count: int) -> str:
    """Write a count with its thousands apart: "352,042"."""
    return QLocale().toString(count)


def size_text(num_bytes: float) -> str:
    """Write a size in decimal units: "1.7 MB", "80 GB"."""
    value, unit = float(num_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    decimals = 0 if unit == "B" or value >= 100 else 1 if value >= 10 else 2
    if unit == "GB" and value >= 10:
        decimals = 0
    elif unit != "B" and value >= 1 and decimals == 2:
        decimals = 1
    return f"{QLocale().toString(value, 'f', decimals)} {unit}"


def part_text(part_bytes: float, whole_bytes: float) -> str:
    """Write a size and the whole that it is a part of, in one unit where both have it: "1.2 of 3.4 GB"."""
    part, whole = size_text(part_bytes), size_text(whole_bytes)
    unit = whole.rpartition(" ")[2]
    return QCoreApplication.translate("Quantities", "{} of {}").format(part.removesuffix(f" {unit}"), whole)


def number_text(value: float | None, decimals: int) -> str:
    """Write a measured number with a fixed number of decimals; a dash where there is none, "NaN" where it is none."""
    if value is None:
        return MISSING
    return QLocale().toString(value, "f", decimals) if math.isfinite(value) else "NaN"


def read_number(text: str) -> float | None:
    """Read a number as it was typed, None if it is none.

    A point is a decimal point first: German would read "0.001" as 1. A comma is one where the locale writes so, and
    where nothing else can be meant: "0,5", but not "1,000".
    """
    digits = text.strip()
    try:
        return float(digits if _MAY_BE_GROUPED.fullmatch(digits) else digits.replace(",", ".", 1))
    except ValueError:
        number, is_number = QLocale().toDouble(digits)
        return number if is_number else None


def rate_text(rate: float) -> str:
    """Return a learning rate with up to four digits that count: "0.0005", "1e-06"."""
    return QLocale().toString(rate, "g", 4)


def measure_text(value: float) -> str:
    """Write a measured number of any size with two digits that count: "0.83", "1.2e-05"."""
    if math.isinf(value):
        return "∞"
    return "NaN" if math.isnan(value) else QLocale().toString(value, "g", 2)


def percent_text(share: float | None) -> str:
    """Write a share from 0 to 1 as "97.2 %"; a dash where there is none."""
    if share is None or not math.isfinite(share):
        return MISSING
    return f"{QLocale().toString(share * 100, 'f', 1)} %"


def signed_text(text: str, value: float) -> str:
    """Put the sign of a difference before its size: "+0.5", "−0.5"; none before 0, or before what is no number."""
    return f"+{text}" if value > 0 else f"−{text}" if value < 0 else text


def milliseconds_text(milliseconds: float) -> str:
    """Write a short time as "31 ms", below ten as "3.1 ms"."""
    return f"{QLocale().toString(milliseconds, 'f', 0 if milliseconds >= 10 else 1)} ms"


def duration_text(seconds: float) -> str:
    """Write a duration as "0:42", "12:05" or "1:02:05"."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short_time_text(seconds: float) -> str:
    """Write a duration that may be shorter than a second: "0.4 s", from ten seconds on "0:12"."""
    if seconds >= 9.95:
        return duration_text(seconds)
    return f"{QLocale().toString(max(seconds, 0.1), 'f', 1)} s"


def ago_text(seconds: float) -> str:
    """Say how long ago something was: "just now", "12 s ago", "3 min ago", "2 h ago", "5 d ago"."""
    if seconds < 2:
        return QCoreApplication.translate("Quantities", "just now")
    if seconds < 100:
        return QCoreApplication.translate("Quantities", "{} s ago").format(count_text(int(seconds)))
    if seconds < 100 * 60:
        return QCoreApplication.translate("Quantities", "{} min ago").format(count_text(int(seconds / 60)))
    if seconds < 48 * 3600:
        return QCoreApplication.translate("Quantities", "{} h ago").format(count_text(int(seconds / 3600)))
    return QCoreApplication.translate("Quantities", "{} d ago").format(count_text(int(seconds / 86400)))


def moment_text(unix_time: float) -> str:
    """Write a moment in full, for a tooltip."""
    moment = QDateTime.fromSecsSinceEpoch(int(unix_time))
    return QLocale().toString(moment, QLocale.FormatType.LongFormat)


def clock_text(unix_time: float) -> str:
    """Write the time of day with seconds, "15:30:12", which sorts and aligns in a log."""
    return f"{datetime.datetime.fromtimestamp(unix_time):%H:%M:%S}"


def time_text(unix_time: float) -> str:
    """Write the time of day to the second: it tells runs of one name apart."""
    return f"{datetime.datetime.fromtimestamp(unix_time):%H:%M:%S}"


def day_text(unix_time: float) -> str:
    """Write the day and the time of day, for a list of runs."""
    return f"{datetime.datetime.fromtimestamp(unix_time):%Y-%m-%d %H:%M}"
