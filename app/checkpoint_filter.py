"""What is typed to find checkpoints, in the window and in a terminal: words, and numbers that are compared."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from trainer.messages.run_info import CheckpointInfo

SHARES = frozenset({"Accuracy", "Top-5 accuracy"})
"""The metrics that are shown in per cent."""

_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "=": operator.eq
}  # fmt: skip
_SIGN = re.compile("[<>]=?|=")
_ROOM = re.compile(r"\s*([<>]=?|=)\s*")
_PHRASE = re.compile('["“”„]([^"“”]*)(?:["“”]|$)')
"""Between double quotes, also curly ones; the last one may not be typed yet."""

Read = Callable[[CheckpointInfo], float | None]


@dataclass(frozen=True)
class FilterFault:
    """Why a filter cannot be used.

    ``kind`` is "name" for a number that no checkpoint has, "value" for what is no number, "share" for per cents without
    their sign. ``term`` is what was typed, or the part of it up to the number; ``names`` can be compared.
    """

    kind: Literal["name", "value", "share"]
    term: str
    names: list[str]


class CheckpointFilter:
    """Finds checkpoints that have all of some words, or pieces of them, and numbers within bounds.

    "accuracy>0.985 loss<0.5 epoch>=3 pinned": parts apart by spaces, which must all hold. A number goes by the
    beginning of its name. One that a checkpoint has not is within no bounds. Words in double quotes are one phrase:
    "left behind" in them.

    Args:
        text: What was typed.
        tags: The metrics that there are, by tag.
        read_number: Reads a number, or returns None.

    Attributes:
        words: The words and the phrases, in small letters.
        fault: Why nothing is found, None where the text can be read.

    """

    def __init__(self, text: str, tags: Iterable[str], read_number: Callable[[str], float | None]) -> None:
        self._numbers = _numbers(tags)
        self._read_number = read_number
        self._bounds: list[tuple[Read, Callable[[float, float], bool], float]] = []
        self.words: list[str] = []
        self.fault: FilterFault | None = None
        phrases = (" ".join(phrase.casefold().split()) for phrase in _PHRASE.findall(text))
        self.words += [phrase for phrase in phrases if phrase]
        rest = _PHRASE.sub(" ", text)
        for part in _ROOM.sub(r"\1", rest.replace("≥", ">=").replace("≤", "<=")).split():
            if sign := _SIGN.search(part):
                self._compare(part[: sign.start()], sign[0], part[sign.end() :])
            else:
                self.words.append(part.casefold())

    @property
    def is_empty(self) -> bool:
        """Whether every checkpoint is wanted."""
        return not (self.words or self._bounds or self.fault)

    def has_numbers(self, info: CheckpointInfo) -> bool:
        """Tell whether a checkpoint's numbers are within the bounds; where the text cannot be read, none are."""
        if self.fault is not None:
            return False
        for read, holds, bound in self._bounds:
            value = read(info)
            if value is None or not holds(value, bound):
                return False
        return True

    def _compare(self, name: str, sign: str, value: str) -> None:
        typed = _plain(name)
        begun = [each for each in self._numbers if typed and each.startswith(typed)]
        found = [typed] if typed in self._numbers else begun
        number = self._read_number(value.removesuffix("%"))
        if len(found) != 1:
            self._refuse("name", name)
            return
        shown, is_share, read = self._numbers[found[0]]
        if number is None or math.isnan(number):
            self._refuse("value", f"{shown}{sign}")
        elif is_share and not value.endswith("%") and number > 1:
            self._refuse("share", f"{shown}{sign}")
        else:
            self._bounds.append((read, _SIGNS[sign], number / 100 if value.endswith("%") else number))

    def _refuse(self, kind: Literal["name", "value", "share"], term: str) -> None:
        if self.fault is None:
            self.fault = FilterFault(kind, term, [shown for shown, _, _ in self._numbers.values()])


def _numbers(tags: Iterable[str]) -> dict[str, tuple[str, bool, Read]]:
    """Return what can be compared: how its name is shown, whether it is a share, and how it is read."""
    found: dict[str, tuple[str, bool, Read]] = {
        "epoch": ("epoch", False, lambda info: info.epoch),
        "step": ("step", False, lambda info: info.step),
        "loss": ("loss", False, lambda info: info.loss),
        "accuracy": ("accuracy", True, lambda info: info.accuracy),
        "rate": ("rate", False, lambda info: info.rate),
    }
    for tag in tags:
        name = tag.partition("/")[0]
        shown = name.replace(" ", "-") if name.isupper() else name.replace(" ", "-").casefold()
        found.setdefault(_plain(name), (shown, name in SHARES, _of_metric(tag)))
    return found


def _of_metric(tag: str) -> Read:
    return lambda info: info.metrics.get(tag)


def _plain(name: str) -> str:
    """Return a name without what may be written in several ways: "Top-5 accuracy" and "top5_accuracy" are one."""
    return re.sub(r"\W|_", "", name).casefold()
