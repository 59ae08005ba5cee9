"""The style axis on real images: nine icon sets, each with the base's images of the same concepts."""

import itertools

import numpy as np
import pytest
from PIL import Image

from assets.pocket.build.style import StyleAxis
from assets.pocket.build.styles import FIT_COUNT, FIXTURES, HELD_OUT_COUNT

SIDE = 64
DISTINCT = ("3d", "duotone", "line", "monochrome", "openmoji", "silhouette", "sketch")
ALIKE = ("blob", "flat")  # emoji in the colors of the base's: one image alone hardly shows which it is


def images(style):
    """The style's images to fit on and held out, and the base's."""
    with Image.open(FIXTURES / f"{style}.webp") as sheet:
        row, base = (
            [sheet.crop((column * SIDE, y, (column + 1) * SIDE, y + SIDE)) for column in range(sheet.width // SIDE)]
            for y in (0, SIDE)
        )
    assert len(row) == FIT_COUNT + HELD_OUT_COUNT
    return row[:FIT_COUNT], row[FIT_COUNT:], base[:FIT_COUNT], base[FIT_COUNT:]


def nearer(style):
    """Share of pairs that lie nearer in the same style than with the same content, among those held out."""
    fitted, real, base_fitted, base = images(style)
    axis = StyleAxis.fit(fitted, base_fitted)
    here, there = axis.places(real), axis.places(base)
    return np.mean(
        [
            abs(own[i] - own[j]) < abs(own[i] - other[i])
            for own, other in ((here, there), (there, here))
            for i, j in itertools.permutations(range(HELD_OUT_COUNT), 2)
        ]
    )


@pytest.mark.parametrize("style", DISTINCT)
def test_the_same_style_is_nearer_than_the_same_content(style):
    assert nearer(style) >= 0.95


@pytest.mark.parametrize("style", DISTINCT + ALIKE)
def test_of_a_set_the_style_is_seen(style):
    """A mean over a dozen images tells even styles apart that single images do not."""
    fitted, real, base_fitted, base = images(style)
    axis = StyleAxis.fit(fitted, base_fitted)
    assert axis.progress(base, base, real) == 0
    assert axis.progress(base, real, real) == pytest.approx(1)
    mixed = [*real[::2], *base[1::2]]
    assert 0.25 < axis.progress(base, mixed, real) < 0.75
    error = np.sqrt((axis.places(real).var() + axis.places(base).var()) / HELD_OUT_COUNT)
    assert axis.places(real).mean() - axis.places(base).mean() > 3 * error


def test_an_axis_of_another_style_is_blind_to_it():
    fitted, real, base_fitted, base = images("3d")
    own = StyleAxis.fit(fitted, base_fitted)
    other = StyleAxis.fit(images("line")[0], images("line")[2])
    gaps = [
        abs(axis.places(real).mean() - axis.places(base).mean()) / (axis.places(real).std() + axis.places(base).std())
        for axis in (own, other)
    ]
    assert gaps[0] > 2 * gaps[1]
