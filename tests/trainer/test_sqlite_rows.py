"""Rows of a SQLite table, many by one statement."""

from __future__ import annotations

import sqlite3

import pytest

from trainer.sqlite_rows import ROWS_AT_ONCE, insert_rows


@pytest.mark.parametrize("num_rows", [0, 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 3 * ROWS_AT_ONCE - 1])
def test_all_rows_are_written_in_their_order(num_rows: int) -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, size REAL DEFAULT 0.5)")
    insert_rows(database, "INSERT INTO things (id, name)", ((number, f"thing {number}") for number in range(num_rows)))
    found = database.execute("SELECT id, name, size FROM things ORDER BY rowid").fetchall()
    assert found == [(number, f"thing {number}", 0.5) for number in range(num_rows)]
    database.close()


def test_of_two_rows_with_one_key_the_later_one_stays() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT)")
    insert_rows(database, "INSERT OR REPLACE INTO things", [(1, "first"), (2, "other"), (1, "second")])
    assert database.execute("SELECT * FROM things ORDER BY id").fetchall() == [(1, "second"), (2, "other")]
    database.close()
