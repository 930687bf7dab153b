"""What is wrong with a run's configuration, field by field. Imports nothing heavy, as decoding processes load it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence


class ConfigError(ValueError):
    """A configuration that cannot be used.

    ``field`` is the dotted name of the first field at fault, "" for the whole; ``sentences`` has what is wrong with
    each field; ``choices`` is what the field could be instead, if that is known.
    """

    def __init__(
        self,
        message: str,
        field: str = "",
        sentences: Mapping[str, str] | None = None,
        choices: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.field = field
        self.sentences = {field: message} if sentences is None else dict(sentences)
        self.choices = list(choices)


class Faults:
    """Collects what is wrong with a configuration, so that all of it can be said at once."""

    def __init__(self) -> None:
        self._errors: list[ValueError] = []

    def __bool__(self) -> bool:
        return bool(self._errors)

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Keep what is wrong with one field, and go on to the next ones."""
        try:
            yield
        except ValueError as error:
            self._errors.append(error)

    def tell(self) -> None:
        """Say all that was found, if anything was.

        Raises:
            ValueError: What was found: as it was if that is one thing, else a ConfigError with a line for each.

        """
        if len(self._errors) == 1:
            raise self._errors[0]
        sentences: dict[str, str] = {}
        choices: list[str] = []
        for error in self._errors:
            of_fields = error.sentences if isinstance(error, ConfigError) else {"": str(error)}
            for field, sentence in of_fields.items():
                # Where a field was asked for twice, what is wrong with it was said the first time.
                sentences.setdefault(field, sentence)
            choices = choices or getattr(error, "choices", [])
        if sentences:
            raise ConfigError("\n".join(sentences.values()), next(iter(sentences)), sentences, choices)
