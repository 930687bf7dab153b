"""Rows of a SQLite table, written many at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from itertools import chain, islice

ROWS_AT_ONCE = 64


def insert_rows(database: sqlite3.Connection, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Insert rows, many by one statement: ``executemany`` makes a statement of each row, and takes up to twice as long.

    And beside a thread that trains, each statement makes that one wait.

    Args:
        database: Where to.
        statement: "INSERT INTO table", with the names of the columns where the rows do not have all.
        rows: The values of each.

    """
    remaining = iter(rows)
    while some := list(islice(remaining, ROWS_AT_ONCE)):
        places = ", ".join([f"({', '.join('?' * len(some[0]))})"] * len(some))
        database.execute(f"{statement} VALUES {places}", list(chain.from_iterable(some)))
