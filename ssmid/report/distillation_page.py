"""The report of a distilled model as one HTML page that needs nothing else: no network, no fonts, no files beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

import ssmid
from ssmid.distillation.overview import Layer, overview, short_names
from ssmid.distillation.result import Distillation
from ssmid.io.files import write_bytes
from ssmid.report import page_charts, page_orders, page_tables
from ssmid.report.page_filters import Filters, before_and_after, drawn
from ssmid.report.page_map import maps
from ssmid.report.page_words import plural, share
from ssmid.report.progress import Stage

_OPEN = 6
"""Layers whose filters are shown at once; of more only the worst are."""


def write_page(
    path: str | os.PathLike[str], layers: Mapping[str, Distillation] | Distillation, *, title: str, metadata: Mapping[str, Any],
    filters: Filters | None = None, stage: Stage | None = None,
) -> None:
    """Writes the report of a distilled model to ``path``, whole or not at all.

    layers : distillations by the names of their layers, or a single one   metadata : what is known of how it was made, by name; may nest
        (a DistilledModel's own will do: its ``layers`` are left out, being told in a table). ``tol`` and ``norm`` among its ``options``
        say which filters missed the tolerance
    filters : ``filters(layer, index)`` gives the taps ``(L,)`` of one filter, index a tuple; asked for the worst and the median filter
        of each layer, and for 32 others (one a layer at least) whose error is followed over the order. Without it filters are drawn
        as they became, not as they were, and other orders are told by their bounds alone. Of coupled channels the index ends with
        output and input, those of the most energy   stage : is told what is being done

    The page holds the errors and orders of all filters as a map, Hankel spectra, the error over the order above its bound, what other
    orders would cost, filters before and after, poles, a table of the layers, special filters, and what the words mean. It is made of
    SVG and text, follows the reader's light or dark theme, fits a phone, prints, and says the same without scripts.
    Raises ValueError for no layers at all, and filters of the wrong length.

    >>> import tempfile, pathlib
    >>> bank = ssmid.distill(ssmid.ImpulseResponse([[1.0, 0.5, 0.25, 0.125]]), 1)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "report.html"
    >>> write_page(path, {"layer": bank}, title="One filter", metadata={"order": 1})
    >>> path.read_text().startswith("<!doctype html>")
    True
    """
    if isinstance(layers, Distillation):
        layers = {"": layers}
    write_bytes(path, page(layers, title, metadata, filters, stage).encode())


def page(
    layers: Mapping[str, Distillation], title: str, metadata: Mapping[str, Any], filters: Filters | None = None, stage: Stage | None = None
) -> str:
    """The HTML that :func:`write_page` writes."""
    options = metadata.get("options") or {}
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    rows, chosen = [], []
    for number, (name, layer) in enumerate(layers.items()):  # once, as a layer may have to be read from the disk
        if stage is not None:
            stage("reading what was distilled", number, len(layers))
        rows += overview({name: layer}, options.get("tol"), options.get("norm") or "l2")
        chosen.append(drawn(rows[-1], layer))
    sample = None if filters is None else page_orders.sampled(rows, filters, stage)
    labels, common = short_names(list(layers))
    all_poles, layer_poles = page_charts.poles(rows, labels)
    return Template(_part("html")).substitute(
        css=_part("css"),
        js=_part("js"),
        version=escape(ssmid.__version__),
        title=escape(title),
        eyebrow=f"Distilled filters{f' of {escape(common)}' if common else ''}",
        verdict=escape(page_tables.verdict(rows)),
        glance=page_tables.glance(rows, labels),
        map_words=_words_of_map(rows),
        maps=maps(rows, labels),
        orders_words=_words_of_orders(sample),
        orders_key=_key_of_orders(sample),
        orders_charts=page_orders.charts(rows, sample),
        orders_tables=page_orders.tables(rows, sample),
        spectra_key=_key_of_spectra(rows),
        spectra=page_charts.spectra(rows, labels),
        filters_words=_words_of_filters(filters is not None),
        filters_key=_key(filters is not None),
        filters=_filters(rows, labels, chosen, filters, stage),
        all_poles=all_poles,
        layer_poles=layer_poles,
        layer_table=page_tables.layer_table(rows, labels),
        special=page_tables.special(rows, labels),
        made=page_tables.made(metadata),
    )


def _part(suffix: str) -> str:
    return files("ssmid").joinpath(f"data/distillation_page.{suffix}").read_text(encoding="utf-8")


def _words_of_map(rows: list[Layer]) -> str:
    orders = {int(order) for layer in rows for order in layer.order[layer.fitted]}
    words = "Where the model resists: bright cells are filters that lose more."
    return f"{words} Every filter has order {orders.pop()}, so there is no map of orders." if len(orders) == 1 else words


def _words_of_orders(sample: page_orders.Sample | None) -> str:
    words = (
        "No recurrence of an order gets below the blue line (Adamjan, Arov and Krein 1971), in Hankel norm relative to the filter. Red is "
        "what was reached: the gap between them is all that another method could still win at this order."
    )
    if sample is None:
        return words
    return (
        f"{words} In l2 norm no such bound is known; green is what balanced truncation leaves of {sample.words}, which refinement only "
        "lowers. How the bounds of that sample fall carries the blue line on, dashed, beyond the orders of this run."
    )


def _key_of_orders(sample: page_orders.Sample | None) -> str:
    names = {"bound": "bound, median of the filters", "band": "eight of ten filters", "reached": "reached, median and eight of ten"}
    if sample is not None:
        names |= {"ahead": "bound, estimated", "truncated": "balanced truncation, of the sample"}
    return _listed(names)


def _key_of_spectra(rows: list[Layer]) -> str:
    names = {"bound": "median of the filters", "band": "eight of ten filters", "cut": "left out at the median order"}
    if any(np.isnan(layer.sigma[layer.fitted]).any() for layer in rows):
        names |= {"ahead": "at most: not known of every filter"}
    return _listed(names)


def _listed(names: dict[str, str]) -> str:
    return "".join(f'<li><i class="k-{kind}"></i>{name}</li>' for kind, name in names.items())


def _words_of_filters(known: bool) -> str:
    which = "The filter with the largest error and the one in the middle, of every layer."
    if not known:
        return f"{which} The filters themselves were not at hand when this page was written: shown is what they became."
    return (
        f"{which} Where many taps share a place on the page the area that they "
        "fill is shown; levels and spectra are root mean squares there."
    )


def _key(known: bool) -> str:
    return _listed({"before": "filter", "after": "recurrence", "residual": "residual"} if known else {"after": "recurrence"})


def _filters(rows: list[Layer], labels: list[str], chosen: list[dict[str, Any]], filters: Filters | None, stage: Stage | None) -> str:
    """The layers one after the other; of many the three with the largest errors are open."""
    worst = [float(layer.l2[layer.ranked()[-1]]) if len(layer.ranked()) else -1.0 for layer in rows]
    shown = sorted(range(len(rows)), key=worst.__getitem__, reverse=True)[: len(rows) if len(rows) <= _OPEN else 3]
    parts = []
    for number, (layer, label) in enumerate(zip(rows, labels, strict=True)):
        if stage is not None:
            stage("drawing filters", number, len(rows))
        facts = f"{plural(layer.count, 'filter')}{f', worst error {share(worst[number])}' if worst[number] >= 0 else ''}"
        charts = before_and_after(layer, label, chosen[number], filters)
        summary = f"<summary>Layer {escape(label)} <span>{facts}</span></summary>"
        parts.append(f'<details id="layer-{number}"{" open" if number in shown else ""}>{summary}{charts}</details>')
    return "".join(parts)
