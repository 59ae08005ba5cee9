from itertools import combinations
from pathlib import Path

import corpus
import numpy as np
import pytest
from PIL import Image, ImageOps

from trainer.doctor import duplicates
from trainer.doctor.duplicates import CUTS, NEAR_BITS, ONE, OTHER, TRIED, likeness, near_twins


def seen(image):
    return likeness(image, image.convert("L"))


def sprites(count):
    """Small images that differ in their finest detail alone: every hash is near every other, and every block."""
    rng = np.random.default_rng(0)
    ground = corpus.scene(rng, 0).resize((64, 64))
    return [corpus.grained(ground, rng, 60) for _ in range(count)]


def of_all_pairs(images):
    """The same answer by comparing every pair in every way, for images of which none has two twins."""
    found = set()
    for (kept, one), (path, other) in combinations(images.items(), 2):
        for code, flipped in ((other.code, False), (other.mirrored, True)):
            first, second = duplicates._image(one), duplicates._image(other, flipped)
            ways = [(CUTS[a], CUTS[b]) for a, b in zip(ONE, OTHER, strict=True)]
            if (one.code ^ code).bit_count() <= NEAR_BITS and any(
                duplicates._same(duplicates._middle(first, *a), duplicates._middle(second, *b)) for a, b in ways
            ):
                found.add((path, kept, flipped))
                break
    return found


def test_twins_are_those_that_a_comparison_of_all_pairs_in_all_ways_finds():
    rng = np.random.default_rng(5)
    images = [corpus.scene(rng, number) for number in range(16)]
    images += [corpus.again(image, rng) for image in images[:8]]
    images += [ImageOps.mirror(images[8]), *corpus.series(rng), *sprites(4)]
    images += [Image.new("RGB", (60, 60), grey) for grey in ("#101010", "#181818", "#ff8080")]
    album = {Path(str(number)): seen(image) for number, image in enumerate(images)}
    expected = of_all_pairs(album)
    assert len(expected) >= 9
    assert {(twin.image, twin.kept, twin.mirrored) for twin in near_twins(album)} == expected


def test_every_copy_of_an_image_is_found_however_many_there_are():
    rng = np.random.default_rng(1)
    first = corpus.scene(rng, 0).resize((64, 64))
    album = {Path(f"{number:03}"): seen(corpus.grained(first, rng, 2)) for number in range(300)}
    assert [twin.kept for twin in near_twins(album)] == [Path("000")] * 299


@pytest.mark.parametrize("count", [40, 80])
def test_images_that_are_all_alike_but_for_a_detail_are_compared_no_oftener_than_a_bound_for_each(count, monkeypatch):
    compared = 0
    same = duplicates._same

    def counted(one, other):
        nonlocal compared
        compared += 1
        return same(one, other)

    monkeypatch.setattr(duplicates, "_same", counted)
    assert not near_twins({Path(str(n)): seen(image) for n, image in enumerate(sprites(count))})
    assert compared <= 2 * TRIED * count
