"""Frames survive the socket; what is not ours is refused; the state tables are whole."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from trainer.frames import MAX_FRAME_BYTES, ProtocolError, decode_command, decode_event, encode, event_from_json
from trainer.messages.commands import ALLOWED_COMMANDS, AnyCommand, FreezeLayers, OpenRun
from trainer.messages.events import CommandRejected, LogWritten, MetricsLogged
from trainer.messages.run_info import Series
from trainer.messages.states import TRANSITIONS, RunState


def test_a_command_survives_its_frame() -> None:
    command = FreezeLayers(layers=["conv1", ""], command_id="a-1")
    assert decode_command(encode(command, 7)) == (7, command)


def test_nan_and_infinity_survive_the_frame_and_the_folder() -> None:
    event = MetricsLogged(segment=0, series={"Loss/train": Series(steps=[1, 2], values=[math.nan, math.inf])})
    _, decoded = decode_event(encode(event, 1))
    assert isinstance(decoded, MetricsLogged)
    assert math.isnan(decoded.series["Loss/train"].values[0])
    assert decoded.series["Loss/train"].values[1] == math.inf
    assert isinstance(event_from_json(event.model_dump_json()), MetricsLogged)


def test_what_is_no_text_in_a_message_becomes_marks_and_the_rest_stays_as_it_is() -> None:
    event = MetricsLogged(segment=0, series={"\udcff é": Series(steps=[1], values=[math.inf])})
    rejection = CommandRejected(command="CheckData", reason="a\udcff \ud800 ü", command_id="x")
    _, decoded = decode_event(encode(rejection, 1))
    assert decoded == rejection.model_copy(update={"reason": "a\ufffd \ufffd ü"})
    _, metrics = decode_event(encode(event, 1))
    assert isinstance(metrics, MetricsLogged)
    assert [points.values for points in metrics.series.values()] == [[math.inf]]
    command = OpenRun(run_dir="runs/\udcff", command_id="x")
    assert decode_command(encode(command, 1))[1] == command.model_copy(update={"run_dir": "runs/\ufffd"})


def test_a_message_of_what_is_no_plain_value_is_refused() -> None:
    with pytest.raises(ProtocolError, match="LogWritten cannot be written"):
        encode(LogWritten.model_construct(text=object()), 1)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{}",
        b"\x80\x04pickle",
        b'{"v":2,"seq":1,"message":{"kind":"StopRun"}}',
        b'{"v":1,"seq":1,"message":{"kind":"?"}}',
    ],
)
def test_a_frame_that_is_not_ours_is_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_command(frame)


def test_a_frame_has_a_size_limit() -> None:
    with pytest.raises(ProtocolError, match="over the limit"):
        encode(LogWritten(level="info", text="x" * MAX_FRAME_BYTES), 1)


def test_every_command_and_every_state_is_in_the_tables() -> None:
    kinds = {command.__name__ for command in get_args(get_args(AnyCommand)[0])}
    assert set(ALLOWED_COMMANDS) == kinds
    assert set(TRANSITIONS) == set(RunState)
    reached = {RunState.STARTING}
    while True:
        more = reached.union(*(TRANSITIONS[state] for state in reached))
        if more == reached:
            break
        reached = more
    assert reached == set(RunState)
