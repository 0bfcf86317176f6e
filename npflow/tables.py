"""A table that prints as text in a terminal, and shows as HTML in a notebook."""

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """A table that prints as text, and shows as HTML in a notebook.

    Attributes
    ----------
    title : str
        The line above it.
    columns : tuple of str
    rows : tuple of tuple
        Numbers stand at the right of their column, text at the left.
    """

    title: str
    columns: tuple
    rows: tuple

    def __str__(self):
        lines = [self.columns, *([_written(cell) for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines)]
        right = [any(_is_number(row[place]) for row in self.rows) for place in range(len(self.columns))]
        aligned = (
            "  ".join(
                f"{cell:{'>' if side else '<'}{width}}" for cell, side, width in zip(line, right, widths)
            )
            for line in lines
        )
        return "\n".join([self.title, *(line.rstrip() for line in aligned)])

    __repr__ = __str__

    def _repr_html_(self):
        head = "".join(f"<th style='text-align: left'>{escape(column)}</th>" for column in self.columns)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in self.rows)
        return (
            f"<table><caption style='caption-side: top; text-align: left'>{escape(self.title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def _cell(value):
    side = "right" if _is_number(value) else "left"
    return f"<td style='text-align: {side}; white-space: pre-wrap'>{escape(_written(value))}</td>"


def _is_number(value):
    return isinstance(value, (int, float))


def _written(value):
    return f"{value:,}" if isinstance(value, int) else str(value)
