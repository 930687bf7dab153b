"""Ask a new worker what it answers before it has a run: models, data, rates, what a run would need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from app.worker_talk import SHUT_DOWN_TIMEOUT_S, RunFailedError, end_worker, lost_sentence, next_event
from trainer.client import ClientEvent, WorkerClient, WorkerLost
from trainer.messages.commands import CheckData, EstimateRun, FindRate, InspectModel, ListModels
from trainer.messages.events import (
    CommandRejected,
    DataChecked,
    ModelInspected,
    ModelsListed,
    RateFound,
    RunEstimated,
    StateChanged,
    WorkerAttached,
)
from trainer.messages.states import RunState

Question = ListModels | InspectModel | CheckData | EstimateRun | FindRate
"""What a worker answers before it has a run."""

Answer = ModelsListed | ModelInspected | DataChecked | RunEstimated | RateFound | CommandRejected


def ask(client: WorkerClient, questions: Sequence[Question], show: Callable[[ClientEvent], None]) -> list[Answer]:
    """Give questions to a new worker, one after the other, show its progress, return the answers, and end the worker.

    A refusal is an answer, too, and the last one: what comes after it is not asked any more.

    Raises:
        RunFailedError: The worker was lost.

    """
    waiting = deque(questions)
    answers: list[Answer] = []
    command_id = None
    timeout_s = 0.0
    try:
        while len(answers) < len(questions):
            event = next_event(client)
            if event is None:
                continue
            show(event)
            if isinstance(event, WorkerLost):
                raise RunFailedError(lost_sentence(event, None))
            is_free = command_id is None and _is_idle(event)
            if isinstance(event, Answer) and event.command_id == command_id:
                answers.append(event)
                is_free = True
                if isinstance(event, CommandRejected):
                    break
            if waiting and is_free:
                command_id = client.send(waiting.popleft())
        timeout_s = SHUT_DOWN_TIMEOUT_S
        return answers
    finally:
        # Without an answer (Ctrl+C in a long scan) there is nothing to wait for.
        end_worker(client, timeout_s)


def _is_idle(event: ClientEvent) -> bool:
    return isinstance(event, StateChanged | WorkerAttached) and event.state is RunState.IDLE
