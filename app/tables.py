"""What the tables of the ``thaw`` command are made of."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from app.figures import printable

_BAR_LETTERS = 30


def new_table(*headers: str) -> Table:
    """Return a table without rows. A header that ends in ">" is that of a column of numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for header in headers:
        # As Text: a class's name is never read as markup.
        name = Text(header.removesuffix(">"))
        table.add_column(name, justify="right" if header.endswith(">") else "left", overflow="fold")
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row; a cell with control characters cannot rewrite the terminal."""
    table.add_row(*(Text(printable(cell)) for cell in cells))


def bar(share: float) -> str:
    """Return a bar of eighths of a letter. One image among thousands still has one to be seen."""
    eighths = max(round(share * _BAR_LETTERS * 8), 1 if share else 0)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
