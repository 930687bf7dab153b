"""What came of verifying a resume, in the words of the window."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, QLocale

from app.viewmodels.quantities import count_text
from trainer.messages.replay import Replay, StepDifference


def replay_text(replay: Replay) -> str:
    """Say whether the steps after a checkpoint were the same again, and if not, from which on, by how much and why."""
    causes = "; ".join(replay.causes)
    if replay.difference is None:
        exact = _tr("{} resumes exactly: the {} steps after step {}, made again, are equal to the bit.").format(
            replay.checkpoint, count_text(replay.num_steps), count_text(replay.first_step)
        )
        if replay.later:
            exact += " " + _tr("So are the weights of {}.").format(replay.later)
        return f"{exact} {_tr('That is so although: {}.').format(causes)}" if causes else exact
    said = _tr("{} does not resume exactly: step {} differs, number {} of {} that were made again. {}").format(
        replay.checkpoint,
        count_text(replay.difference.step),
        count_text(replay.difference.step - replay.first_step),
        count_text(replay.num_steps),
        _difference_text(replay.difference),
    )
    if causes:
        return f"{said} {_tr('Likely cause: {}.').format(causes)}"
    return f"{said} {_tr('Nothing is known to have changed since: please report this defect of Thaw.')}"


def _difference_text(difference: StepDifference) -> str:
    if difference.recorded is None or difference.replayed is None:
        return _tr("The weights {} differ by up to {}.").format(difference.what, _exact(difference.difference, 3))
    return _tr("{} was {} and is {}.").format(
        difference.what, _exact(difference.recorded, 9), _exact(difference.replayed, 9)
    )


def _exact(value: float, digits: int) -> str:
    # Nine digits tell any two float32 apart.
    return QLocale().toString(value, "g", digits)


def _tr(text: str) -> str:
    return QCoreApplication.translate("Replay", text)
