"""The page of a distilled model: it is one well-formed file that asks nothing of anyone, says what the certificates say, and is looked at
in a real browser."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest

import ssmid
from ssmid import Certificate, Distillation, ImpulseResponse, Modal
from ssmid.distillation.bank import KINDS
from ssmid.distillation.overview import overview
from ssmid.report import page_orders, page_svg
from ssmid.report.distillation_page import page, write_page
from ssmid.report.page_svg import Scale

VOID = {"meta", "link", "br", "img", "input", "hr"}
TAPS, ORDER = 96, 4


def _filters(rng: np.random.Generator, count: int) -> np.ndarray:
    """Decaying oscillations in a little noise."""
    t = np.arange(TAPS)
    decay, angle, phase = rng.uniform(0.8, 0.97, (count, 3)), rng.uniform(0, 3, (count, 3)), rng.uniform(0, 6, (count, 3))
    modes = decay[..., None] ** t * np.cos(angle[..., None] * t + phase[..., None])
    return modes.sum(1) + 0.05 * rng.standard_normal((count, TAPS)) * 0.97**t


@pytest.fixture(scope="module")
def taps() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(20261122)
    odd = _filters(rng, 8)
    odd[1, 5] = np.nan
    odd[2] = 0
    odd[3] = 0
    odd[3, 0] = 2.0
    odd[4] = 0.5
    odd[5, 1:21] = 0
    odd[6] *= 1e30
    return {"net.0.filter": _filters(rng, 6).reshape(2, 3, TAPS), "net.1.filter": odd}


@pytest.fixture(scope="module")
def model(taps) -> dict[str, Distillation]:
    return {name: ssmid.distill(array, ORDER) for name, array in taps.items()}


@pytest.fixture(scope="module")
def text(model, taps) -> str:
    return page(model, "Two layers", {"options": {"order": ORDER}}, lambda layer, index: taps[layer][index])


class Parsed(HTMLParser):
    """Elements with their attributes and text, and whether every tag that was opened was closed."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, list[str]]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        words: list[str] = []
        self.elements.append((tag, dict(attrs), words))
        if tag not in VOID:
            self.open.append((tag, words))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, words in self.open:
            words.append(data)

    def all(self, tag: str, **wanted: str) -> list[tuple[dict[str, str | None], str]]:
        found = [(attrs, "".join(words)) for name, attrs, words in self.elements if name == tag]
        return [(a, w) for a, w in found if all(a.get(key.rstrip("_")) == value for key, value in wanted.items())]


def rows_of(source: str, title: str) -> list[list[str]]:
    """The cells of the table under a title."""
    start = source.index(f"<h3>{title}</h3>")
    body = source[source.index("<tbody>", start) : source.index("</tbody>", start)]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in body.split("<tr")[1:]]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell)).replace("\xa0", " ") for cell in row] for row in rows]


# ---------------------------------------------------------------- one sound file


def test_it_is_well_formed_and_refers_to_nothing_outside(text):
    parsed = Parsed(text)
    assert not parsed.open
    names = [attrs["id"] for _, attrs, _ in parsed.elements if "id" in attrs]
    assert len(names) == len(set(names))
    for tag, attrs, _ in parsed.elements:
        for key in ("href", "src", "srcset", "action", "data", "poster"):
            link = attrs.get(key)
            assert link is None or link.startswith("data:") or link[1:] in names, f"{tag} {key}={link}"
    assert "://" not in re.sub(r"base64,[\w+/=]*", "", text)
    assert "@import" not in text
    assert not re.search(r"url\((?!data:)", text)


def test_everything_drawn_has_words_for_those_who_cannot_see_it(text):
    parsed = Parsed(text)
    assert parsed.all("html")[0][0]["lang"] == "en"
    assert all(attrs.get("alt") for attrs, _ in parsed.all("img"))
    drawings = parsed.all("svg")
    assert len(drawings) > 10
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs, _ in drawings)
    labels = {attrs["for"] for attrs, _ in parsed.all("label")}
    assert labels == {attrs["id"] for attrs, _ in parsed.all("input")}
    levels = [int(tag[1]) for tag, _, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1
    assert all(attrs["scope"] in ("col", "row") for attrs, _ in parsed.all("th"))


def test_numbers_that_are_not_are_never_drawn(text):
    for tag, attrs, _ in Parsed(text).elements:
        if tag in ("path", "line", "rect", "circle", "text", "svg"):
            assert not re.search("nan|inf", " ".join(str(attrs.get(k)) for k in attrs if k not in ("aria-label", "class")))


def test_names_and_metadata_are_text_and_not_markup(model, taps):
    name = 'a<script>alert("1")</script>&'
    metadata = {"file <i>": "</script><!--", "nested": {"deep_key": [1, 2.5], "none": None}, "long": "x" * 9999, "layers": {"a": {"b": 1}}}
    made = page({name: model["net.0.filter"]}, "T<b>&", metadata)
    parsed = Parsed(made)
    assert not parsed.open
    assert len(parsed.all("script")) == 2
    assert parsed.all("h1")[0][1] == "T<b>&"
    assert [words for _, words in parsed.all("dt")[-11:-8]] == ["file <i>", "nested, deep key", "long"]
    assert "</script><!--" in [words for _, words in parsed.all("dd")]
    assert "1, 2.5" in [words for _, words in parsed.all("dd")]
    assert max(len(words) for _, words in parsed.all("dd")) < 1000
    (cells,) = [words for attrs, words in parsed.all("script") if attrs.get("id") == "cells"]
    assert json.loads(cells)[0]["layer"] == name


# ---------------------------------------------------------------- what it says


def test_at_a_glance(text, model):
    cards = dict(re.findall(r"<dt>([^<]*)</dt><dd><b>([^<]*)</b>", text))
    orders = np.concatenate([np.broadcast_to(d.order, d.converged.shape).ravel() for d in model.values()])
    fitted = np.concatenate([~np.isin(d.certificate.kind, (1, 2, 3)).ravel() for d in model.values()])
    errors = np.concatenate([d.certificate.l2.ravel() for d in model.values()])[fitted]
    assert cards["Filters"] == "14"
    assert fitted.sum() == 11
    assert cards["State of a sequence"] == f"{4 * orders[fitted].sum()}\xa0B"
    assert cards["Median error"] == f"{100 * np.median(errors):.2g}\xa0%"
    assert cards["Worst error"] == f"{100 * errors.max():.0f}\xa0%"
    ratio = np.concatenate([d.certificate.ratio.ravel() for d in model.values()])[fitted]
    assert cards["Above the best possible"] == f"{np.nanmedian(ratio):.3g}×"


def test_the_map_shows_every_filter(text, model):
    (cells,) = [words for attrs, words in Parsed(text).all("script") if attrs.get("id") == "cells"]
    for said, distillation in zip(json.loads(cells), model.values(), strict=True):
        error = distillation.certificate.l2.ravel()
        assert said["shape"] == list(distillation.converged.shape)
        for value, known in zip(said["l2"], error, strict=True):
            assert (value is None and np.isnan(known)) or value == pytest.approx(known, rel=5e-3)
        assert {int(i): kind for i, kind in said["kind"].items()} == {
            i: KINDS[k] for i, k in enumerate(distillation.certificate.kind.ravel()) if k
        }
    pictures = [attrs for attrs, _ in Parsed(text).all("img")]
    names = re.findall(r"<figcaption><strong>(Error|Order|Distance[^<]*)</strong>", text)
    assert len(pictures) == 2 * len(names)
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(pictures[1]["src"].partition("base64,")[2])))
    assert pixels.shape[:2] == (1, 8)
    assert [bool(np.ptp(pixels[0, i, :3]) < 0.01) for i in range(8)] == [False, True, True, True, False, False, False, False]  # grey
    errors = model["net.1.filter"].certificate.l2
    others = [0, 4, 5, 6, 7]
    brightness = pixels[0, others, :3] @ [0.299, 0.587, 0.114]
    np.testing.assert_array_equal(np.argsort(brightness), np.argsort(errors[others]))  # viridis rises in brightness


def test_many_channels_share_cells_and_the_worst_is_seen():
    many = _repeated(ssmid.distill(_filters(np.random.default_rng(0), 5), 2), 3000)
    said = json.loads(re.search(r'id="cells">(.*?)</script>', page({"a": many}, "", {})).group(1))[0]
    assert len(said["l2"]) == 1000
    groups = many.certificate.l2.reshape(1000, 3)
    np.testing.assert_allclose(said["l2"], groups.max(1), rtol=5e-3)
    np.testing.assert_array_equal(said["place"], groups.argmax(1) + 3 * np.arange(1000))


def test_special_filters_are_named(text):
    found = dict(re.findall(r"<dt>([^<:]*): \d+</dt><dd>[^<]*<br><span>([^<]*)</span>", text))
    expected = {"not finite": "1", "zero": "2", "tap 0 only": "3", "constant": "4", "delayed": "5 (20 taps)", "extreme scale": "6"}
    assert {kind: found[kind] for kind in expected} == {kind: f"layer 1: {place}" for kind, place in expected.items()}


def test_those_that_did_not_converge_are_counted_and_named(model):
    one = model["net.0.filter"]
    converged = np.ones((2, 3), bool)
    converged[1, 2] = False
    stopped = dataclasses.replace(one, converged=converged, certificate=dataclasses.replace(one.certificate, converged=converged))
    made = page({"a": stopped}, "", {})
    assert "<dt>Not converged</dt><dd><b>1</b>" in made
    assert "not converged: 1</dt>" in made
    assert "layer a: 1, 2</span>" in made


def test_those_over_the_tolerance_are_not_said_to_have_been_stopped(model):
    one = model["net.0.filter"]
    tol = float(np.median(one.certificate.l2))
    converged = one.certificate.l2 <= tol
    missed = dataclasses.replace(one, converged=converged, certificate=dataclasses.replace(one.certificate, converged=converged))
    made = page({"a": missed}, "", {"options": {"tol": tol, "norm": "l2"}})
    count = int((~converged).sum())
    assert f"<dt>Tolerance missed</dt><dd><b>{count}</b>" in made
    assert "<dt>Not converged</dt><dd><b>0</b>" in made
    assert f"<dt>tolerance missed: {count}</dt>" in made
    assert "<dt>not converged" not in made


def test_bounds_that_are_not_known_of_all_filters(model):
    """A bank filled up with NaN: curves go on as what they are at most, and nothing falls to zero."""
    one = model["net.0.filter"]
    sigma = np.concatenate([one.certificate.sigma, 0.5 * one.certificate.sigma[..., -1:], 0.25 * one.certificate.sigma[..., -1:]], axis=-1)
    sigma[0, :, -2:] = np.nan
    made = page({"a": dataclasses.replace(one, certificate=dataclasses.replace(one.certificate, sigma=sigma))}, "", {})
    assert 'class="bound ahead"' in made
    assert "at most: not known of every filter" in made
    assert "no recurrence gets below 0," not in made
    assert rows_of(made, "The same order for every filter")[-1][3:5] == ["–", "–"]
    assert "at most: not known" not in page({"a": one}, "", {})


def test_every_layer_has_its_row(text, model):
    rows = rows_of(text, "Every layer")
    assert [row[0] for row in rows] == ["0", "1"]
    first = model["net.0.filter"].certificate
    assert rows[0][1:6] == ["6", "96", str(ORDER), f"{4 * 6 * 95 / 1000:.3g} kB", f"{4 * 6 * ORDER} B"]
    assert rows[0][6] == f"{100 * np.median(first.l2):.2g} %"
    worst = np.unravel_index(first.l2.argmax(), (2, 3))
    assert rows[0][9] == f"{worst[0]}, {worst[1]}"
    assert rows[0][10:12] == [f"{np.nanmedian(first.ratio):.3g}", f"{np.nanmax(first.ratio):.3g}"]


# ---------------------------------------------------------------- other orders


def test_the_bound_over_the_order_is_that_of_the_certificates(text, model):
    sigma = np.concatenate([d.certificate.sigma.reshape(-1, d.certificate.sigma.shape[-1]) for d in model.values()])
    kind = np.concatenate([d.certificate.kind.ravel() for d in model.values()])
    sigma = sigma[~np.isin(kind, (1, 2, 3))]
    bound = np.median(sigma / sigma[:, :1], axis=0)
    said = re.findall(r"order (\d+): no recurrence gets below ([\d.]+)\xa0%, in the median", text)
    assert [int(order) for order, _ in said] == list(range(len(bound)))
    np.testing.assert_allclose([float(share) / 100 for _, share in said], bound, rtol=6e-2)
    rows = rows_of(text, "The same order for every filter")
    (now,) = [row for row in rows if row[0] == str(ORDER)]
    assert now[1:3] == [f"{4 * 11 * ORDER} B", "1×"]
    assert float(now[3].rstrip(" %")) / 100 == pytest.approx(bound[ORDER], rel=6e-2)
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "6", "8"]
    assert float(rows[-1][1].split()[0]) == 4 * 11 * 8


def test_curves_of_the_sample_are_those_of_balanced_truncation(model, taps):
    layers = overview(model)
    sample = page_orders.sampled(layers, lambda layer, index: taps[layer][index])
    assert sample is not None
    assert len(sample.l2) == 11  # all of a small model
    assert sample.stands_for.sum() == pytest.approx(11)
    ordinary = layers[0].ranked()
    h = taps["net.0.filter"].reshape(-1, TAPS)[ordinary[0]]
    fit = ssmid.balanced_truncation(ImpulseResponse(np.r_[0.0, h[1:]]), 3)
    error = ssmid.impulse_response(fit.system, 4 * TAPS).taps[1:] - np.r_[h[1:], np.zeros(3 * TAPS)]
    # the subspace is loose, and what rings on counts by a bound: near, and never below
    assert sample.l2[0, 3] == pytest.approx(np.linalg.norm(error) / np.linalg.norm(h[1:]), rel=0.05)
    assert (np.diff(sample.bound) <= 0).all()


def test_the_least_orders_for_an_error(rng):
    l2 = np.sort(rng.uniform(0.005, 1, (9, 6)))[:, ::-1]
    sample = page_orders.Sample(np.full(9, 2.0), l2, l2)
    source = page_orders._by_error(sample, 50)
    for row in rows_of(source, "What a tighter or a looser l2 error would take"):
        tol = float(row[0].rstrip(" %")) / 100
        least = [next((r for r, e in enumerate(curve) if e <= tol), 6) for curve in l2]
        known = sum(curve[-1] <= tol for curve in l2)
        at_least = "" if known == 9 else "≥ "
        assert row[1].removeprefix("≥ ") == str(int(np.median(least)))
        assert row[2] == f"{at_least}{max(least)}"
        assert row[3] == f"{at_least}{8 * sum(least)} B"
        assert row[5] == ("all" if known == 9 else f"{known} of 9")


def test_without_filters_bounds_alone_are_told(model):
    made = page(model, "", {})
    assert "were not at hand" in made
    assert 'class="after' in made
    assert 'class="before' not in made
    assert 'class="truncated' not in made
    assert "The least orders that any method needs for a Hankel error" in made
    assert rows_of(made, "The same order for every filter")[-1][3] == "–"


# ---------------------------------------------------------------- filters before and after


def test_only_what_is_shown_is_read(model, taps):
    asked = []

    def filters(layer, index):
        asked.append((layer, index))
        return taps[layer][index]

    page(model, "", {}, filters)
    assert all(isinstance(index, tuple) for _, index in asked)
    worst = {name: np.nanargmax(np.where(np.isin(d.certificate.kind, (1, 2, 3)), np.nan, d.certificate.l2)) for name, d in model.items()}
    for name, place in worst.items():
        assert (name, np.unravel_index(place, model[name].converged.shape)) in asked
    many = _repeated(model["net.0.filter"], 4000)
    asked.clear()
    page({f"net.{i}.filter": many for i in range(2)}, "", {}, lambda layer, index: asked.append(index) or taps["net.0.filter"][0, 0])
    assert len(asked) <= 2 * 2 + 32


def test_curves_are_the_taps(model, taps):
    """The drawing of a short filter read back: places on the page are an affine image of its taps."""
    made = page({"net.0.filter": model["net.0.filter"]}, "", {}, lambda layer, index: taps[layer][index])
    first = made[made.index('<svg class="amplitude"') :]
    paths = {kind: re.search(rf'class="{kind}" d="([^"]*)"', first).group(1) for kind in ("before", "after", "residual")}
    read = {kind: np.array(_points(path)) for kind, path in paths.items()}
    certificate = model["net.0.filter"].certificate
    place = np.unravel_index(certificate.l2.argmax(), (2, 3))
    before = taps["net.0.filter"][place][1:]
    arrays = {k: np.asarray(v)[place] for k, v in model["net.0.filter"].system.broadcast_arrays().items()}
    after = np.array([np.real(arrays["residues"] @ arrays["poles"] ** t) for t in range(TAPS - 1)])
    count = len(read["before"]) - 1  # beyond, several taps share a place
    assert count > 30
    slope, _ = np.polyfit(before[:count], read["before"][:count, 1], 1)
    for kind, values in (("before", before), ("after", after), ("residual", before - after)):
        places = read[kind][:count, 1]
        offset = np.median(places - slope * values[:count])  # the residual stands lower, in the same units
        np.testing.assert_allclose(places, slope * values[:count] + offset, atol=0.11)
    assert read["residual"][:, 1].min() > max(read[kind][:, 1].max() for kind in ("before", "after"))
    across = 44 + 308 * np.log(np.arange(1, 96)) / np.log(95)
    np.testing.assert_allclose(read["before"][:count, 0], across[:count], atol=0.06)


def _points(path: str) -> list[tuple[float, float]]:
    """Absolute places of a path of one moveto and relative lines."""
    numbers = [float(n) for n in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", path)]
    places = np.cumsum(np.reshape(numbers, (-1, 2)), axis=0)
    return [tuple(p) for p in places]


def test_an_extreme_scale_is_drawn_in_a_unit_of_its_own(model, taps):
    one = {name: np.asarray(a)[6] for name, a in model["net.1.filter"].system.broadcast_arrays().items()}
    certificate = Certificate(**{
        f.name: np.asarray(getattr(model["net.1.filter"].certificate, f.name))[6] for f in dataclasses.fields(Certificate)
    })
    for scale in (1.0, 1e270, 1e-300):
        h = taps["net.1.filter"][6] * scale
        system = Modal(one["poles"], one["residues"] * scale, one["feedthrough"] * scale)
        single = dataclasses.replace(
            model["net.1.filter"], system=system, order=ORDER, certificate=certificate, converged=np.array(True), condition=np.array(1.0)
        )
        made = page({"a": single}, "", {}, lambda layer, index, h=h: h)
        assert re.search(r"amplitude \(× 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+\)", made)
        assert not Parsed(made).open


def test_taps_of_another_length_are_refused(model, taps):
    with pytest.raises(ValueError, match=r"filters: expected 96 taps of layer net.0.filter, got 95"):
        page({"net.0.filter": model["net.0.filter"]}, "", {}, lambda layer, index: taps[layer][index][:-1])


# ---------------------------------------------------------------- shapes, kinds, sizes


def _repeated(distillation: Distillation, count: int) -> Distillation:
    """A bank of ``count`` filters from those of a smaller one, with errors that differ."""
    pick = np.arange(count) % distillation.converged.size

    def many(array):
        array = np.asarray(array)
        return array.reshape(distillation.converged.size, *array.shape[distillation.converged.ndim :])[pick]

    fields = {f.name: many(getattr(distillation.certificate, f.name)) for f in dataclasses.fields(Certificate)}
    fields["l2"] = fields["l2"] * np.random.default_rng(1).uniform(0.5, 1.0, count)
    system = Modal(**{name: many(array) for name, array in distillation.system.broadcast_arrays().items()})
    certificate = Certificate(**fields)
    flags = {"converged": certificate.converged, "condition": np.ones(count)}
    return dataclasses.replace(distillation, system=system, certificate=certificate, **flags)


def test_a_large_model_stays_small(taps, tmp_path):
    layer = _repeated(ssmid.distill(_filters(np.random.default_rng(0), 40), 16), 2048)
    orders = np.random.default_rng(2).integers(4, 17, 2048)
    layer = dataclasses.replace(layer, order=orders)
    path = tmp_path / "report.html"
    layers = {f"layers.{i}.mixer": layer for i in range(24)}
    write_page(path, layers, title="Large", metadata={}, filters=lambda layer, index: taps["net.0.filter"][0, 0])
    assert path.stat().st_size < 4_000_000
    text = path.read_text()
    assert not Parsed(text).open
    assert text.count("<details") == 24
    assert text.count("<details id=") - text.count(" open>") == 21
    assert ">4 to 16</b>" in text


@pytest.mark.parametrize("count", [3, 60])
def test_long_names_stay_within_a_phone(model, tmp_path, count):
    if BROWSER is None:
        pytest.skip("needs chromium (Debian: apt install chromium)")
    names = [f"{'encoder' if i % 2 else 'a_decoder_with_a_long_name'}.{i}.{'operator' if i % 3 else 'mixer'}_of_{i}" for i in range(count)]
    made = page(dict.fromkeys(names, model["net.1.filter"]), "a_checkpoint_with_a_very_long_name_and_no_spaces_in_it.safetensors", {})
    said, _ = browse(tmp_path, made, 390, 1200)
    assert said["wide"] <= 390


def test_torch_and_numpy_make_the_same_page(model, taps):
    torch = pytest.importorskip("torch")
    one = model["net.0.filter"]

    def tensors(thing):
        arrays = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing)}
        return {k: torch.asarray(v.copy()) if isinstance(v, np.ndarray) and k not in ("kind", "delay") else v for k, v in arrays.items()}

    system = Modal(*(torch.asarray(np.array(a)) for a in (one.system.poles, one.system.residues, one.system.feedthrough)))
    other = dataclasses.replace(one, **{**tensors(one), "system": system, "certificate": Certificate(**tensors(one.certificate))})
    h = taps["net.0.filter"]
    assert page({"a": one}, "", {}, lambda n, i: h[i]) == page({"a": other}, "", {}, lambda n, i: torch.asarray(h[i]))


@pytest.mark.parametrize(
    "h",
    [
        np.full((3, 8), np.nan),
        np.zeros((2, 8)),
        np.array([1.0, 0.5, 0.25, 0.125]),
        np.ones((1, 1)),
        np.array([[0.0, 1.0, 0.5], [1.0, -2.0, 1.0]]),
    ],
    ids=["nothing finite", "zero", "a single filter", "one tap", "three taps"],
)
def test_edges(h):
    bank = ssmid.distill(h, 1)
    for filters in (None, lambda layer, index: h[index]):
        parsed = Parsed(page({"": bank, "other": bank}, "Edges", {}, filters))
        assert not parsed.open


def test_a_single_filter_is_spoken_of_as_one(taps):
    h = taps["net.0.filter"][0, 0]
    made = page({"": ssmid.distill(h, 2)}, "One", {}, lambda layer, index: h)
    words = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", made)).split())
    assert "1 long convolution became a recurrence that keeps" in words
    assert "with an error of" in words
    assert "The filter the only filter, order 2: error" in words
    for plain in ("Median error", "Worst error", "half of them", "Worst channel", "eight of ten filters 0"):
        assert plain not in words, plain
    assert '<g class="single">' in made


@pytest.mark.parametrize("filters", [False, True])
def test_a_layer_of_order_zero_and_an_unstable_one(filters):
    """Noise may be worth no state; a model may have no result."""
    h = np.random.default_rng(0).standard_normal((3, 40))
    nothing = ssmid.distill(h, np.zeros(3, int), method="balanced")
    made = page({"": nothing}, "None", {}, (lambda layer, index: h[index]) if filters else None)
    assert not Parsed(made).open
    unstable = ssmid.distill(Modal([[0.5, 1.5], [0.5, 0.2]], np.ones((2, 2))), 1)
    made = page({"": unstable}, "Unstable", {}, (lambda layer, index: np.asarray(0.5 ** np.arange(unstable.length))) if filters else None)
    assert "unstable: 1" in made


def test_a_filter_of_which_no_hankel_value_is_known(model, taps):
    one = model["net.0.filter"]
    sigma = one.certificate.sigma.copy()
    sigma[0, 1] = np.nan
    lacking = dataclasses.replace(one, certificate=dataclasses.replace(one.certificate, sigma=sigma))
    made = page({"net.0.filter": lacking}, "", {}, lambda layer, index: taps[layer][index])
    assert "the Hankel values of some filters are not known" in made
    assert rows_of(made, "The same order for every filter")[0][3:5] == ["–", "–"]


def test_a_layer_without_filters(model, taps):
    one = model["net.0.filter"]
    fields = {f.name: np.asarray(getattr(one.certificate, f.name)).reshape(6, -1)[:0] for f in dataclasses.fields(Certificate)}
    fields = {name: array if name == "sigma" else array[:, 0] for name, array in fields.items()}
    system = Modal(np.zeros((0, ORDER)), np.zeros((0, ORDER)), np.zeros(0))
    none = dataclasses.replace(one, system=system, certificate=Certificate(**fields), converged=fields["converged"], condition=np.zeros(0))
    made = page({"net.0.filter": one, "net.1.filter": none}, "", {}, lambda layer, index: taps[layer][index])
    assert not Parsed(made).open
    assert rows_of(made, "Every layer")[1][:4] == ["1", "0", "96", "0"]


def test_a_single_bank_and_no_layers(model, taps, tmp_path):
    h = taps["net.1.filter"]
    write_page(tmp_path / "a.html", model["net.1.filter"], title="One", metadata={}, filters=lambda layer, index: h[index])
    assert "Layer all" in (tmp_path / "a.html").read_text()
    with pytest.raises(ValueError, match="layers: expected at least one, got none"):
        write_page(tmp_path / "b.html", {}, title="None", metadata={})
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]


# ---------------------------------------------------------------- the pieces


def test_ticks_are_round_and_inside():
    assert [name for _, name in Scale(-0.3, 1.1, 0, 100).ticks(4)] == ["0.0", "0.5", "1.0"]
    assert [name for _, name in Scale(1e-7, 1.0, 0, 70, log=True).ticks(4)] == ["10⁻⁶", "10⁻⁴", "0.01", "1"]
    assert [name for _, name in Scale(0.02, 0.5, 0, 70, log=True).ticks()] == ["0.02", "0.05", "0.1", "0.2", "0.5"]
    places = [place for place, _ in Scale(0.01, 100.0, 10, 50, log=True).ticks(5)]
    np.testing.assert_allclose(places, [10, 20, 30, 40, 50])


def test_columns_hold_what_falls_into_them(rng):
    x = np.sort(rng.uniform(0, 100, 400))
    values = rng.standard_normal(400)
    edges = np.linspace(x[0], x[-1], 31)
    places, low, high = page_svg.envelope(x, values, 30)
    again, mean = page_svg.averaged(x, values, 30)
    column = np.minimum(np.searchsorted(edges, x, side="right") - 1, 29)
    for k, i in enumerate(np.unique(column)):
        part = values[column == i]
        assert (low[k], high[k]) == (part.min(), part.max())
        assert mean[k] == pytest.approx(np.sqrt(np.mean(part**2)))
        assert places[k] == again[k] == pytest.approx(x[column == i].mean())


def test_paths_break_where_nothing_is_known():
    nan = np.nan
    drawn = page_svg.line(np.arange(6.0), np.array([1.0, 2.0, nan, 3.0, nan, 4.5]), "a")
    assert drawn == '<path class="a" d="M0 1l1 1M3 3h0M5 4.5h0"/>'


# ---------------------------------------------------------------- in a browser

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium (Debian: apt install chromium)")
FRAME = '<!doctype html><body style="margin:0"><iframe srcdoc="{source}" style="border:0;width:{width}px;height:{height}px"></iframe>'
PROBE = """<script>addEventListener("load", () => {
  const readout = document.getElementById("readout"), rows = document.querySelector(".rows");
  const img = document.querySelectorAll(".rows img")[1];
  const said = {wide: document.documentElement.scrollWidth, window: innerWidth, dark: matchMedia("(prefers-color-scheme: dark)").matches};
  said.hint = readout.textContent;
  const box = img.getBoundingClientRect();
  const at = share => ({clientX: box.left + share * box.width, clientY: box.top + 1, bubbles: true});
  img.dispatchEvent(new PointerEvent("pointermove", at(0.06)));
  said.pointer = readout.textContent;
  rows.dispatchEvent(new PointerEvent("pointerleave"));
  said.after = readout.textContent;
  rows.focus();
  for (const key of ["ArrowUp", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight"])
    rows.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
  said.keys = readout.textContent;
  rows.blur();
  const shown = kind => getComputedStyle(document.querySelector("svg." + kind)).display;
  said.before = [shown("amplitude"), shown("level")];
  document.getElementById("as-level").click();
  said.toggled = [shown("amplitude"), shown("level")];
  document.getElementById("as-amplitude").click();
  const small = [...document.querySelectorAll("svg text")].filter(t => t.checkVisibility()).map(t => {
    const scale = t.getBoundingClientRect().height / t.getBBox().height;
    return scale * parseFloat(getComputedStyle(t).fontSize);
  });
  said.text = Math.min(...small);
  parent.document.documentElement.dataset.said = JSON.stringify(said);
})</script></body>"""


def browse(folder: Path, source: str, width: int, height: int, *, dark: bool = False, script: bool = True) -> tuple[dict, np.ndarray]:
    """What the page says of itself in a window of ``width``, and what is seen: ``(height, width, 3)``. No error may be said on the console.

    A narrow page stands in a frame, because the window of a browser itself is never narrower than 500 pixels.
    """
    source = source.replace("</body>", PROBE) if script else source.replace("script-src 'unsafe-inline'", "script-src 'none'")
    file = folder / f"{width}-{script}.html"
    file.write_text(source if width >= 500 else FRAME.format(width=width, height=height, source=html.escape(source)))
    options = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
        "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", f"--window-size={max(width, 500)},{height}",
        "--virtual-time-budget=3000", "--run-all-compositor-stages-before-draw",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        "--dump-dom", f"--screenshot={file.with_suffix('.png')}", file.as_uri(),
    ]  # fmt: skip
    run = subprocess.run([str(BROWSER), *options], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    complaints = [line for line in run.stderr.splitlines() if "CONSOLE" in line and (script or "Content Security Policy" not in line)]
    assert not complaints
    said = re.search(r'<html [^>]*data-said="([^"]*)"', run.stdout)
    assert (said is not None) is script
    pixels = matplotlib.image.imread(file.with_suffix(".png"))[:height, :width, :3]
    return json.loads(html.unescape(said.group(1))) if said else {}, pixels


@in_a_browser
@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)], ids=["desktop, light", "phone, dark"])
def test_it_is_looked_at_in_a_browser(text, model, tmp_path, width, dark):
    said, pixels = browse(tmp_path, text, width, 2400, dark=dark)
    assert said["window"] == width
    assert said["wide"] <= width
    assert said["dark"] is dark
    assert bool(np.median(pixels) < 0.2) is dark
    drawn = np.abs(pixels - np.median(pixels, axis=(0, 1))).max(-1) > 0.1
    assert 0.02 < drawn.mean() < 0.6  # neither blank nor covered
    assert drawn.reshape(24, 100, -1).any(axis=(1, 2)).mean() > 0.9  # from top to bottom
    assert len(np.unique((255 * pixels[::5, ::5]).astype(int).reshape(-1, 3), axis=0)) > 100
    certificate = model["net.1.filter"].certificate
    assert said["pointer"].startswith(f"Layer 1, channel 0: error {100 * certificate.l2[0]:.2g} %, order {ORDER}")
    assert said["after"] == said["hint"]
    assert said["keys"].startswith("Layer 0, channel 1, 1: error")
    assert said["before"] == ["block", "none"]
    assert said["toggled"] == ["none", "block"]
    assert said["text"] >= 8


@in_a_browser
def test_it_says_the_same_without_scripts(text, tmp_path):
    _, pixels = browse(tmp_path, text, 1440, 2400, script=False)
    _, scripted = browse(tmp_path, text, 1440, 2400)
    assert (np.abs(pixels - scripted).max(-1) > 0.02).mean() < 1e-3
