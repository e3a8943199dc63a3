"""Small pieces of the document: sections, tables that scroll by keyboard, figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

__all__ = ["figure", "section", "table"]

_NUMERIC = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?%?")


def section(key: str, title: str, body: str) -> str:
    """Wrap a section under its heading."""
    return f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(title)}</h2>\n{body}</section>'


def figure(title: str, chart: str) -> str:
    """Wrap a chart under its title."""
    return f"<figure><figcaption>{escape(title)}</figcaption>{chart}</figure>"


def table(
    caption: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    header_column: bool = False,
    align_numbers: bool = True,
) -> str:
    """Write a table; it scrolls sideways where the screen is narrow, also by keyboard.

    Parameters
    ----------
    header_column:
        The first cell of each row is its header.
    align_numbers:
        Set columns of numbers to the right; not where rows are facts of different kinds.
    """
    numeric = [
        bool(rows)
        and align_numbers
        and all(_NUMERIC.fullmatch(row[at]) or not row[at] for row in rows)
        and any(row[at] for row in rows)
        for at in range(len(headers))
    ]
    head = "".join(
        f'<th scope="col"{_class(numeric[at])}>{escape(text) or "&nbsp;"}</th>' if text else "<td></td>"
        for at, text in enumerate(headers)
    )
    body = []
    for row in rows:
        cells = [
            f'<th scope="row">{escape(text)}</th>'
            if header_column and at == 0
            else f"<td{_class(numeric[at], wide=len(text) > 48)}>{escape(text)}</td>"
            for at, text in enumerate(row)
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    label = escape(caption, quote=True)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{label}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _class(numeric: bool, *, wide: bool = False) -> str:
    return ' class="n"' if numeric else ' class="wide"' if wide else ""
