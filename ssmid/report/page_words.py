"""Numbers and names as the page says them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from ssmid.distillation.overview import Layer
from ssmid.report.page_svg import scientific


def share(ratio: float) -> str:
    """A relative error.

    >>> share(0.2937), share(0.00123), share(2e-9), share(float("nan")), share(0.0)
    ('29\\xa0%', '0.12\\xa0%', '2·10⁻⁹', '–', '0')
    """
    if not math.isfinite(ratio):
        return "–" if math.isnan(ratio) else "∞"
    if ratio == 0:
        return "0"
    if not 9.5e-5 <= ratio < 100:
        return scientific(ratio)
    return f"{100 * ratio:.0f}\u00a0%" if ratio >= 0.0995 else f"{100 * ratio:.2g}\u00a0%"


def times(ratio: float) -> str:
    """How many times as large.

    >>> times(1.0712), times(128.0), times(float("nan"))
    ('1.07', '128', '–')
    """
    return "–" if not math.isfinite(ratio) else f"{ratio:.3g}" if ratio < 1000 else f"{ratio:,.0f}"


def size(count: float) -> str:
    """So many numbers of four bytes.

    >>> size(16), size(131_072), size(2.1e9)
    ('64\\xa0B', '524\\xa0kB', '8.4\\xa0GB')
    """
    value, units = 4.0 * count, ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f}\u00a0{units[0]}" if units[0] == "B" or value >= 99.95 else f"{value:.3g}\u00a0{units[0]}"


def span(low: float, high: float) -> str:
    """One number, or two ends.

    >>> span(16, 16), span(4, 1600)
    ('16', '4 to 1,600')
    """
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def plural(count: int, one: str, many: str = "") -> str:
    """
    >>> plural(1, "layer"), plural(1536, "filter")
    ('1 layer', '1,536 filters')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def channel(layer: Layer, place: int) -> str:
    """A filter within its layer."""
    index = layer.index(place)
    return f"channel {', '.join(map(str, index))}" if index else "the only filter"


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: int = 1, marked: int | None = None) -> str:
    """A table in a frame that scrolls on its own, so that the page never does; cells are HTML.

    numeric : the first column of numbers   marked : a row that stands out
    """
    head = "".join(f'<th scope="col"{" class=n" if i >= numeric else ""}>{c}</th>' for i, c in enumerate(columns))
    body = []
    for place, row in enumerate(rows):
        cells = "".join(f"<td{' class=n' if i >= numeric else ''}>{c}</td>" for i, c in enumerate(row[1:], 1))
        body.append(f'<tr{" class=now" if place == marked else ""}><th scope="row">{row[0]}</th>{cells}</tr>')
    return (
        f'<h3>{caption}</h3><div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )
