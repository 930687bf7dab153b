"""What the window's tests share: a worker that only says what the test tells it to, and a whole window around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QLocale, QSettings, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget

from app import theme
from app.session import TrainingSession
from app.settings import Settings
from trainer.client import ClientEvent
from trainer.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from trainer.messages.base import Command
from trainer.messages.data_info import DataSummary
from trainer.messages.events import DataChecked, RunPrepared, StateChanged, WorkerAttached
from trainer.messages.model_info import LayerInfo, ModelSummary
from trainer.messages.run_info import CheckpointInfo, RunInfo
from trainer.messages.states import RunState


def checked(
    path: str,
    counts: dict[str, int],
    *,
    num_skipped: int = 0,
    layout: str = "class_folders",
    is_multi_label: bool = False,
    command_id: str = "",
) -> DataChecked:
    """Return what a scan found: ``counts`` of the train images of each class, and one validation image in each."""
    splits = {"train": list(counts.values()), "validation": [1] * len(counts)}
    summary = DataSummary(layout=layout, class_names=list(counts), counts=splits, num_skipped=num_skipped)
    summary = summary.model_copy(update={"is_multi_label": is_multi_label})
    return DataChecked(path=path, summary=summary, report_path="", command_id=command_id)


@pytest.fixture(autouse=True)
def _no_key_stays_pressed() -> Iterator[None]:
    """Release what a test leaves pressed: Qt takes Ctrl for held after a key with it, until the next key."""
    yield
    if QApplication.instance() is not None and QApplication.keyboardModifiers() != Qt.KeyboardModifier.NoModifier:
        widget = QWidget()
        widget.show()
        QTest.keyClick(widget, Qt.Key.Key_Home)
        widget.deleteLater()


class ScriptedClient:
    """Stands where a WorkerClient does: the test puts in events and reads the commands."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.is_closed = False
        self._events: list[ClientEvent] = []

    def say(self, *events: ClientEvent) -> None:
        self._events.extend(events)

    def serve(self) -> None:
        """Become idle, as a fresh worker does."""
        self.say(
            WorkerAttached(state=RunState.STARTING, pid=1, torch_version="2", devices=["cpu"], time=1.0),
            StateChanged(state=RunState.IDLE, time=1.0),
        )

    def id_of_last(self, kind: str) -> str:
        return [command.command_id for command in self.sent if type(command).__name__ == kind][-1]

    def kinds(self) -> list[str]:
        return [type(command).__name__ for command in self.sent]

    def drain(self, max_events: int = 500) -> list[ClientEvent]:
        drained, self._events = self._events[:max_events], self._events[max_events:]
        return drained

    def send(self, command: Command) -> str:
        self.sent.append(command)
        return command.command_id

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(autouse=True)
def _american_numbers() -> Iterator[None]:
    QLocale.setDefault(QLocale(QLocale.Language.English, QLocale.Country.UnitedStates))
    yield
    QLocale.setDefault(QLocale.system())


@pytest.fixture
def clients() -> list[ScriptedClient]:
    """Return the workers that the session has started, in that order."""
    return []


@pytest.fixture
def start_client(clients: list[ScriptedClient]) -> Callable[[], ScriptedClient]:
    def start() -> ScriptedClient:
        clients.append(ScriptedClient())
        return clients[-1]

    return start


@pytest.fixture
def session(
    qapp: QApplication, tmp_path: Path, start_client: Callable[[], ScriptedClient]
) -> Iterator[TrainingSession]:
    made = TrainingSession(tmp_path / "runs", start_worker=start_client)  # type: ignore[arg-type]
    yield made
    made.detach()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat))


@pytest.fixture
def themed(qapp: QApplication) -> Iterator[QApplication]:
    """Return the application in the light theme."""
    theme.apply(qapp, "light")
    yield qapp
    qapp.setStyleSheet("")


@pytest.fixture
def summary() -> ModelSummary:
    """Return a small tree: a backbone of two layers with parameters, and a head."""
    return ModelSummary(
        model="tiny",
        layers=[
            LayerInfo(fqn="", type="Tiny", num_params=130, is_unit=False),
            LayerInfo(fqn="conv1", type="Conv2d", num_params=20, is_unit=True),
            LayerInfo(fqn="stage2", type="Sequential", num_params=100, is_unit=False),
            LayerInfo(fqn="stage2.0", type="Conv2d", num_params=100, is_unit=True),
            LayerInfo(fqn="fc", type="Linear", num_params=10, is_unit=True, is_head=True),
        ],
        frozen=["conv1", "stage2.0"],
        num_params=130,
        num_trainable=10,
    )


@pytest.fixture
def run_info(tmp_path: Path, summary: ModelSummary) -> RunInfo:
    config = RunConfig(
        name="digits",
        data=DataConfig(path=str(tmp_path / "digits")),
        model=ModelConfig(name="tiny"),
        training=TrainingConfig(epochs=6),
    )
    return RunInfo(
        run_dir=str(tmp_path / "runs" / "2026-11-20_153012_digits-tiny"),
        config=config,
        summary=summary,
        class_names=["0", "1"],
        num_train=1437,
        num_validation=360,
        num_skipped=0,
        steps_per_epoch=45,
        total_steps=270,
        device="cpu",
        precision="fp32",
        num_threads=2,
        image_size=48,
    )


@pytest.fixture
def begin_run(run_info: RunInfo) -> Callable[[ScriptedClient], None]:
    """Let a worker tell how a run begins, up to RUNNING."""

    def begin(client: ScriptedClient) -> None:
        client.say(
            StateChanged(state=RunState.PREPARING, time=2.0),
            RunPrepared(run=run_info, step=0, epoch=0, time=3.0),
            StateChanged(state=RunState.READY, time=3.0),
            StateChanged(state=RunState.RUNNING, time=3.0),
        )

    return begin


def checkpoint(
    epoch: int, loss: float | None, accuracy: float | None, saved_at: float | None = None, **more: object
) -> CheckpointInfo:
    """Return a row of the checkpoint table."""
    values: dict[str, object] = {
        "name": f"checkpoint_tiny_{epoch:03}.pt",
        "epoch": epoch,
        "step": 45 * epoch,
        "loss": loss,
        "accuracy": accuracy,
        "frozen": ["conv1"],
        "frozen_summary": "conv1",
        "size_bytes": 840_000,
        "sha256": "0" * 64,
        "saved_at": 1000.0 + epoch if saved_at is None else saved_at,
        "reason": "epoch",
        "segment": 0,
        **more,
    }
    return CheckpointInfo.model_validate(values)
