"""Pathfinder: what is drawn beside Pillow, where the dashes lie, and what the label says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage

from ssmid.experiments.tasks import snakes
from ssmid.experiments.tasks.dashes import dash, disk, reduced
from ssmid.experiments.tasks.pathfinder import PATH_X, PATHFINDER_32, Pathfinder
from ssmid.experiments.tasks.snakes import _Canvas, image
from ssmid.experiments.tasks.task import stream


@pytest.mark.parametrize(("size", "smaller"), [(18, 9), (33, 17), (41, 21)])
def test_images_are_reduced_as_pillow_does(size, smaller):
    pillow = pytest.importorskip("PIL.Image")
    drawn = np.random.default_rng(size).integers(0, 256, (size, size), dtype=np.uint8)
    theirs = pillow.fromarray(drawn).resize((smaller, smaller), pillow.Resampling.LANCZOS)
    np.testing.assert_array_equal(reduced(drawn, smaller), np.asarray(theirs))


@pytest.mark.parametrize("degrees", [0, 33, 90, -120, 180])
@pytest.mark.parametrize(("length", "thickness", "margin"), [(2, 0.5, 1), (5, 1.5, 3)])
def test_a_dash_has_its_area_and_direction(degrees, length, thickness, margin):
    made = dash(length, thickness, margin, 2, math.radians(degrees))
    reach = made.line.shape[0] // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    weight = made.line.sum()
    # a line of one fine pixel has the steps of its longer side, however steep it is
    assert 0.8 * thickness * length < weight < 1.25 * thickness * (length + 1.2)
    middle = np.array([(y * made.line).sum(), (x * made.line).sum()]) / weight
    np.testing.assert_allclose(middle, length / 2 * np.array([math.sin(math.radians(degrees)), math.cos(math.radians(degrees))]), atol=0.5)
    # what is well within the margin is in the zone, what is well outside is not
    along = np.clip(x * math.cos(math.radians(degrees)) + y * math.sin(math.radians(degrees)), 0, length)
    distance = np.hypot(x - along * math.cos(math.radians(degrees)), y - along * math.sin(math.radians(degrees)))
    assert made.zone[distance < margin - 0.7].min(initial=1) > 0.8
    assert made.zone[distance > margin + thickness / 2 + 1.6].max(initial=0) < 0.1
    wide = scipy.ndimage.distance_transform_edt(np.pad(made.zone, margin) < 1) <= margin
    np.testing.assert_array_equal(made.around == 1, wide)


def test_a_disk_has_its_area():
    for radius in (1.5, 3.0):
        assert disk(radius, 2).sum() == pytest.approx(math.pi * radius**2, rel=0.1)


@pytest.fixture(params=[PATHFINDER_32, PATH_X], ids=["pathfinder", "path-x"])
def watched(request, monkeypatch):
    """A geometry, and a list that every dash of every snake is added to: canvas, snake, angle before and after, tip."""
    steps = []
    extend = _Canvas._extend

    def watch(canvas, snake, contrast):
        before, tip = snake.angle, snake.tip
        done = extend(canvas, snake, contrast)
        steps.append((canvas, snake, before, snake.angle, tip, snake.tip, done))
        return done

    monkeypatch.setattr(_Canvas, "_extend", watch)
    return request.param, steps


def test_snakes_have_the_published_geometry(watched):
    geometry, steps = watched
    drawn, _ = image(geometry, stream("x", 0, "train", 3))
    assert drawn.shape == (geometry.side, geometry.side)
    assert drawn.dtype == np.uint8
    assert (drawn.min(), drawn.max()) == (0, 255)
    canvas = steps[-1][0]
    mine = [step for step in steps if step[0] is canvas and step[-1]]
    lengths = {}
    for _, snake, before, after, tip, end, _ in mine:
        lengths[id(snake)] = lengths.get(id(snake), 1) + 1
        turn = abs((after - before + math.pi) % (2 * math.pi) - math.pi)
        assert turn * geometry.continuity < math.pi / 2
        assert all(0 <= c < geometry.side for c in end)
        if lengths[id(snake)] > 2:
            # a dash and a gap of two margins; rounding moves either end by up to a pixel each way
            step = geometry.length + 2 * canvas.margin
            assert math.dist(tip, end) < step + 2.9
    assert sorted(lengths.values())[-2:] == [14, 14]
    assert set(lengths.values()) <= {14, *range(2, 5)}
    assert canvas.margin in geometry.margins


def test_the_label_says_whether_the_disks_mark_one_snake(monkeypatch):
    ends = []
    two = _Canvas.two_snakes

    def watch(canvas):
        found = two(canvas)
        if found is not None:
            ends.append(found)
        return found

    monkeypatch.setattr(_Canvas, "two_snakes", watch)
    marks = []
    monkeypatch.setattr(_Canvas, "mark", lambda canvas, point: marks.append(point))
    labels = []
    for i in range(30):
        ends.clear()
        marks.clear()
        _, label = image(PATHFINDER_32, stream("y", 0, "train", i))
        (begins, stops), (first, second) = ends[-1], marks
        assert math.dist(*begins) == pytest.approx(PATHFINDER_32.apart, abs=0.8)
        assert label == (begins.index(first) == stops.index(second))
        labels.append(label)
    assert 5 < sum(labels) < 25


def test_disks_lie_where_they_are_marked_and_nothing_else_is_as_thick(monkeypatch):
    """A dash of Path-X is less than four pixels thick; what an opening with 4 x 4 pixels leaves are the disks."""
    marks = []
    mark = _Canvas.mark
    monkeypatch.setattr(_Canvas, "mark", lambda canvas, point: (marks.append(point), mark(canvas, point)))
    for i in range(2):
        drawn, _ = image(PATH_X, stream("z", 0, "train", i))
        labels, spots = scipy.ndimage.label(scipy.ndimage.grey_opening(drawn, size=4) > 150)
        middles = scipy.ndimage.center_of_mass(labels > 0, labels, range(1, spots + 1))
        assert spots == 2
        for marked in marks[-2:]:
            assert min(math.dist(marked, middle) for middle in middles) < 1.5


def test_statistics_are_those_of_the_published_generator():
    """Figures of 80 images of the published code (commit 7b53886, with the byte rounding of scipy.misc), means and their standard errors.

    20.31 +- .22 mean grey, .1485 +- .0018 of pixels over 30, .0160 +- .0005 over 200, 12.98 +- .34 components over 30.
    """
    images, _ = Pathfinder().images("train", range(40))
    assert images.mean() == pytest.approx(20.31, abs=1.3)
    assert (images > 30).mean() == pytest.approx(0.1485, abs=0.009)
    assert (images > 200).mean() == pytest.approx(0.0160, abs=0.0025)
    components = [scipy.ndimage.label(drawn > 30, structure=np.ones((3, 3)))[1] for drawn in images]
    assert np.mean(components) == pytest.approx(12.98, abs=1.9)


def test_sequences_are_the_pixels_row_by_row():
    task = Pathfinder()
    images, labels = task.images("test", [5, 2])
    batch = task.batch("test", [5, 2])
    np.testing.assert_array_equal(np.rint(batch["inputs"][..., 0] * 255).reshape(2, 32, 32), images)
    np.testing.assert_array_equal(batch["targets"], labels)
    assert (task.length, Pathfinder(PATH_X).length) == (1024, 16_384)
    assert [task.size(split) for split in ("train", "valid", "test")] == [160_000, 20_000, 20_000]


def test_images_are_kept_in_the_folder(tmp_path, monkeypatch):
    stored = Pathfinder(train=6, held_out=2, folder=str(tmp_path))
    stages = []
    stored.prepare(stage=lambda *stage: stages.append(stage))
    assert stages[0] == ("pathfinder-32 train", 6, 6)
    plain = Pathfinder(train=6, held_out=2).batch("train", [5, 1])
    monkeypatch.setattr(snakes, "image", None)
    for key, value in stored.batch("train", [5, 1]).items():
        np.testing.assert_array_equal(value, plain[key])
