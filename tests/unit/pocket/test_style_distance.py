"""The style distance on real images: 16 concepts, each in Noto, Fluent and OpenMoji, none used in the fit."""

import itertools

import numpy as np
import pytest
from PIL import Image

from assets.pocket.build.demos import STYLE_MEASURE
from assets.pocket.build.style import FIXTURE, place, style_distance

STYLES = ("noto", "fluent", "openmoji")
SIDE = 64


@pytest.fixture(scope="module")
def images():
    with Image.open(FIXTURE) as sheet:
        return {
            style: [
                sheet.crop((column * SIDE, row * SIDE, (column + 1) * SIDE, (row + 1) * SIDE))
                for column in range(len(STYLE_MEASURE))
            ]
            for row, style in enumerate(STYLES)
        }


def test_the_same_style_with_other_content_is_nearer_than_the_same_content_in_another_style(images):
    places = {style: np.stack([place(image) for image in group]) for style, group in images.items()}
    nearer = []
    for base in ("noto", "fluent"):
        for anchor, other in ((base, "openmoji"), ("openmoji", base)):
            for i, j in itertools.permutations(range(len(STYLE_MEASURE)), 2):
                same_style = np.linalg.norm(places[anchor][i] - places[anchor][j])
                same_content = np.linalg.norm(places[anchor][i] - places[other][i])
                nearer.append(same_style < same_content)
    assert len(nearer) == 4 * 16 * 15
    assert np.mean(nearer) >= 0.95


def test_a_style_is_nearest_to_itself(images):
    half = len(STYLE_MEASURE) // 2
    for style in ("noto", "fluent"):
        own = style_distance(images["openmoji"][:half], images["openmoji"][half:])
        assert own < 0.5 * style_distance(images["openmoji"][:half], images[style][half:])
