"""Messages as bytes: JSON frames with a version and a sequence number, capped in size. Nothing is ever unpickled."""

from __future__ import annotations

import json
import re
from typing import Literal

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from trainer.messages.base import Command, Event
from trainer.messages.commands import AnyCommand
from trainer.messages.events import AnyEvent

PROTOCOL_VERSION = 1
MAX_FRAME_BYTES = 8 * 1024 * 1024


class _CommandFrame(BaseModel):
    v: Literal[1]
    seq: int
    message: AnyCommand


class _EventFrame(BaseModel):
    v: Literal[1]
    seq: int
    message: AnyEvent


_EVENT: TypeAdapter[AnyEvent] = TypeAdapter(AnyEvent)

_NO_TEXT = re.compile("[\ud800-\udfff]")
"""What Python makes of bytes in a name that are no UTF-8: JSON cannot hold it."""


class ProtocolError(ValueError):
    """A frame that is no message of ours: another version, or damaged."""


def encode(message: Command | Event, seq: int) -> bytes:
    """Write a message as a frame: JSON bytes with the protocol's version and a sequence number.

    Raises:
        ProtocolError: The frame would be larger than MAX_FRAME_BYTES (what is large belongs in a file), or as for
            ``as_json``.

    """
    frame = f'{{"v":{PROTOCOL_VERSION},"seq":{seq},"message":{as_json(message)}}}'.encode()
    if len(frame) > MAX_FRAME_BYTES:
        raise ProtocolError(f"{type(message).__name__} takes {len(frame)} bytes, over the limit of {MAX_FRAME_BYTES}.")
    return frame


def as_json(message: Command | Event) -> str:
    """Write a message as JSON. What is no text in it, as a file's name on Linux need not be, becomes replacement marks.

    Raises:
        ProtocolError: It holds what is no plain value.

    """
    try:
        return message.model_dump_json()
    except PydanticSerializationError:
        # Pydantic has no setting for it. Metrics come often, a name that is no text hardly ever.
        pass
    try:
        values = message.model_dump(mode="json")
    except PydanticSerializationError as error:
        raise ProtocolError(f"{type(message).__name__} cannot be written as JSON: {error}.") from error
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", json.dumps(values, ensure_ascii=False))


def decode_command(frame: bytes) -> tuple[int, AnyCommand]:
    """Read a frame that holds a command. Returns its sequence number and the command.

    Raises:
        ProtocolError: The frame is none of ours.

    """
    try:
        decoded = _CommandFrame.model_validate_json(frame)
    except ValidationError as error:
        raise ProtocolError(_first_error(error)) from error
    return decoded.seq, decoded.message


def decode_event(frame: bytes) -> tuple[int, AnyEvent]:
    """Read a frame that holds an event. Returns its sequence number and the event.

    Raises:
        ProtocolError: The frame is none of ours.

    """
    try:
        decoded = _EventFrame.model_validate_json(frame)
    except ValidationError as error:
        raise ProtocolError(_first_error(error)) from error
    return decoded.seq, decoded.message


def event_from_json(body: str) -> AnyEvent:
    """Read an event as run.db keeps it.

    Raises:
        ProtocolError: It is none of ours.

    """
    try:
        return _EVENT.validate_json(body)
    except ValidationError as error:
        raise ProtocolError(_first_error(error)) from error


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"Not a message of protocol version {PROTOCOL_VERSION}: {where}: {first['msg']}."
