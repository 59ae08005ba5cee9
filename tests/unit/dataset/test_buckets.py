from collections import Counter

import pytest

from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.buckets import Size, buckets, crop_to, nearest_bucket
from trainer.dataset.views import Plan, View, limit_of, micro_batches, plan, views_of_step

GRIDS = [(512, 64), (1024, 64), (768, 32), (128, 16), (64, 4), (500, 64), (2048, 8)]
TRIO = [Size(832, 1216), Size(1024, 1024), Size(1216, 832)]


@pytest.mark.parametrize(("resolution", "step"), GRIDS)
def test_a_bucket_has_at_most_the_resolutions_area(resolution, step):
    assert max(size.width * size.height for size in buckets(resolution, step)) <= resolution**2


@pytest.mark.parametrize(("resolution", "step"), GRIDS)
def test_a_buckets_sides_are_multiples_of_the_models_step(resolution, step):
    assert {side % step for size in buckets(resolution, step) for side in (size.width, size.height)} == {0}


@pytest.mark.parametrize(("resolution", "step"), GRIDS)
def test_a_buckets_sides_lie_between_half_and_double_the_square(resolution, step):
    square = resolution // step * step
    sides = [side for size in buckets(resolution, step) for side in (size.width, size.height)]
    assert square / 2 <= min(sides) <= max(sides) <= 2 * square


@pytest.mark.parametrize(("resolution", "step"), GRIDS)
def test_the_square_is_always_there(resolution, step):
    square = resolution // step * step
    assert Size(square, square) in buckets(resolution, step)


@pytest.mark.parametrize(("resolution", "step"), GRIDS)
def test_every_bucket_has_its_upright_twin(resolution, step):
    sizes = set(buckets(resolution, step))
    assert {Size(size.height, size.width) for size in sizes} == sizes


@pytest.mark.parametrize(("resolution", "step"), GRIDS)
def test_no_buckets_short_side_could_be_a_step_longer(resolution, step):
    area = (resolution // step * step) ** 2
    for size in buckets(resolution, step):
        short, long = sorted((size.width, size.height))
        assert long * (short + step) > area


def test_a_resolution_below_the_models_step_gives_the_smallest_square():
    assert buckets(32, 64) == [Size(64, 64)]


@pytest.mark.parametrize(
    ("size", "bucket"),
    [
        ((3000, 2000), (1216, 832)),
        ((512, 512), (1024, 1024)),
        ((700, 1000), (832, 1216)),
        ((10_000, 10), (1216, 832)),
        ((10, 10_000), (832, 1216)),
    ],
)
def test_an_image_goes_to_the_bucket_nearest_in_aspect_ratio(size, bucket):
    assert nearest_bucket(*size, TRIO) == Size(*bucket)


def test_of_buckets_equally_near_the_largest_is_taken():
    assert nearest_bucket(100, 100, [Size(64, 64), Size(512, 512), Size(256, 256)]) == Size(512, 512)


def test_width_and_height_are_treated_alike():
    for width in range(50, 800, 37):
        wide = nearest_bucket(width, 300, TRIO)
        assert nearest_bucket(300, width, TRIO) == Size(wide.height, wide.width)


@pytest.mark.parametrize("bucket", TRIO)
@pytest.mark.parametrize("size", [(3000, 2000), (17, 999), (1, 1), (1024, 1024), (1217, 833)])
def test_a_crop_lies_inside_the_scaled_image_and_touches_two_of_its_sides(size, bucket):
    crop = crop_to(*size, bucket)
    spare = (crop.scaled.width - bucket.width, crop.scaled.height - bucket.height)
    assert crop.bucket == bucket
    assert min(spare) == 0
    assert (crop.left, crop.top) == (spare[0] // 2, spare[1] // 2)


@pytest.mark.parametrize("bucket", TRIO)
@pytest.mark.parametrize("size", [(3000, 2000), (640, 480), (333, 777)])
def test_scaling_keeps_an_images_proportions_to_the_pixel(size, bucket):
    scaled = crop_to(*size, bucket).scaled
    scale = max(bucket.width / size[0], bucket.height / size[1])
    assert abs(scaled.width - size[0] * scale) <= 0.5
    assert abs(scaled.height - size[1] * scale) <= 0.5


@pytest.mark.parametrize(
    ("images", "settings", "views", "steps"),
    [
        (10, {"views": 6, "batch_size": 4}, 60, 15),
        (10, {"views": 6, "batch_size": 4, "accumulation": 2}, 60, 8),
        (3, {"views": 10, "min_total_views": 100}, 100, 100),
        (300, {"views": 100, "max_total_views": 2000, "batch_size": 8}, 2000, 250),
        (300, {"views": 100, "max_total_views": 20}, 300, 300),
    ],
    ids=["plain", "accumulated", "few images", "many images", "never under one view"],
)
def test_views_and_steps_follow_from_images_and_settings(images, settings, views, steps):
    made = plan(images, DatasetSettings(**settings))
    assert (made.total_views, made.steps) == (views, steps)
    assert made.views_per_image == views / images


@pytest.mark.parametrize(
    ("images", "settings", "limit"),
    [
        (10, {"views": 6}, None),
        (10, {"views": 10, "min_total_views": 100, "max_total_views": 100}, None),
        (6, {"views": 80, "min_total_views": 2000}, ("dataset.min_total_views", 2000, 480)),
        (300, {"views": 100, "max_total_views": 2000}, ("dataset.max_total_views", 2000, 30_000)),
        (300, {"views": 1, "max_total_views": 20}, None),
        (300, {"views": 2, "max_total_views": 20}, ("dataset.max_total_views", 20, 600)),
    ],
)
def test_the_setting_that_rules_the_views_is_named(images, settings, limit):
    assert limit_of(images, DatasetSettings(**settings)) == limit


def test_every_pass_shows_every_image_once():
    made = Plan(images=7, total_views=28, effective_batch=4)
    views = [view for step in range(made.steps) for view in views_of_step(step, made, [Size(64, 64)] * 7, seed=3)]
    assert Counter(views) == Counter(View(item, epoch) for item in range(7) for epoch in range(4))


def test_the_last_step_shows_only_what_is_left():
    made = Plan(images=5, total_views=10, effective_batch=4)
    assert [len(views_of_step(step, made, [Size(64, 64)] * 5, seed=0)) for step in range(4)] == [4, 4, 2, 0]


def test_another_seed_gives_another_order_and_the_same_seed_the_same():
    made = Plan(images=50, total_views=50, effective_batch=50)
    first, again, other = (views_of_step(0, made, [Size(64, 64)] * 50, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_passes_come_in_different_orders():
    made = Plan(images=50, total_views=100, effective_batch=50)
    first, second = ([v.item for v in views_of_step(step, made, [Size(64, 64)] * 50, seed=0)] for step in range(2))
    assert first != second


def test_images_of_one_bucket_share_a_step_where_their_number_allows_it():
    sizes = [Size(64, 64), Size(64, 32)] * 8
    made = Plan(images=16, total_views=16, effective_batch=4)
    steps = [{sizes[view.item] for view in views_of_step(step, made, sizes, seed=1)} for step in range(4)]
    assert [len(shapes) for shapes in steps] == [1, 1, 1, 1]


def test_a_step_splits_into_passes_of_one_bucket_in_order():
    a, b = Size(64, 64), Size(64, 32)
    assert micro_batches(range(7), [a, b, a, a, b, a, a], 2) == [[0, 2], [3, 5], [6], [1, 4]]


def test_a_process_splits_only_its_own_samples():
    a, b = Size(64, 64), Size(64, 32)
    assert micro_batches([1, 3, 5], [a, b, a, a, b, a], 2) == [[1], [3, 5]]
