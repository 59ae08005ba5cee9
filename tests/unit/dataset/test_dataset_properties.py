import random
import string
from collections import Counter
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.buckets import Size, bucket_for, buckets, crop_to
from trainer.dataset.captions import (
    Item,
    caption_of_view,
    captions_of,
    tags_of,
    wildcards_of,
    with_choices,
    with_trigger,
)
from trainer.dataset.encodings import decoded, plain
from trainer.dataset.views import Plan, plan, views_of_step

FEW = settings(max_examples=60, deadline=None)
SIZES = (Size(64, 64), Size(96, 64), Size(64, 96))
words = st.text(string.ascii_lowercase, min_size=1, max_size=5)
tags = st.lists(words, max_size=8, unique=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "cp932", "gb18030")


def choices_of(parts):
    """A wildcard of these, with a comma within."""
    return "{" + ", x|".join(parts) + "}"


def views_of(made, bucket_of, seed):
    return [view for step in range(made.steps) for view in views_of_step(step, made, bucket_of, seed)]


@st.composite
def weighted_plans(draw):
    """A plan of images with weights, some alike, at one to three sizes."""
    weights = draw(st.lists(st.sampled_from([0.1, 1.0, 2.5, 10.0]) | st.floats(0.01, 100), min_size=1, max_size=14))
    sizes = draw(st.integers(0, 2))
    chosen = DatasetSettings(
        views=draw(st.integers(1, 9)),
        batch_size=draw(st.integers(1, 5)),
        accumulation=draw(st.integers(1, 3)),
        max_total_views=draw(st.integers(1, 80)),
        further_resolutions=tuple(range(64, 64 + sizes)),
    )
    made = plan(len(weights), chosen, weights)
    return made, weights, draw(st.lists(st.sampled_from(SIZES), min_size=len(weights) * made.sizes, max_size=50))


@FEW
@given(planned=weighted_plans(), seed=st.integers(0, 2**31 - 1))
def test_over_a_run_every_image_is_seen_as_often_as_its_weight_says_to_within_one(planned, seed):
    made, weights, bucket_of = planned
    assume(len(bucket_of) >= made.images * made.sizes)
    views = views_of(made, bucket_of, seed)
    seen = Counter(view.item // made.sizes for view in views)
    assert len(views) == made.total_views
    for image, weight in enumerate(weights):
        assert abs(seen[image] - made.total_views * weight / sum(weights)) <= 1 + 1e-6
        assert all(abs(seen[image] - seen[other]) <= 1 for other, same in enumerate(weights) if same == weight)
    epochs = sorted((view.item // made.sizes, view.epoch) for view in views)
    assert epochs == [(image, epoch) for image in range(made.images) for epoch in range(seen[image])]


@FEW
@given(planned=weighted_plans(), seed=st.integers(0, 2**31 - 1))
def test_a_steps_views_are_the_same_whatever_was_asked_before(planned, seed):
    made, _, bucket_of = planned
    step = made.steps - 1
    first = views_of_step(step, made, bucket_of, seed)
    views_of(made, bucket_of, seed + 1)
    again = Plan(made.images, made.total_views, made.effective_batch, made.sizes, tuple(made.weights))
    assert views_of_step(step, again, list(bucket_of), seed) == first


@FEW
@given(planned=weighted_plans(), seed=st.integers(0, 2**31 - 1))
def test_an_image_is_shown_at_each_of_its_sizes_in_turn(planned, seed):
    made, _, bucket_of = planned
    seen = Counter(view.item for view in views_of(made, bucket_of, seed))
    for image in range(made.images):
        counts = [seen[image * made.sizes + size] for size in range(made.sizes)]
        assert max(counts) - min(counts) <= 1


@st.composite
def images(draw):
    """Width, height, resolution and step of an image and a model; near the resolution as often as far from it."""
    step = draw(st.sampled_from([4, 8, 16, 32, 64]))
    resolution = draw(st.integers(32, 1100))
    side = st.integers(1, 9000) | st.integers(max(resolution - 80, 1), resolution + 80)
    return draw(side), draw(side), resolution, step


@FEW
@given(image=images())
def test_no_image_is_enlarged_but_to_a_quarter_of_the_area(image):
    width, height, resolution, step = image
    bucket = bucket_for(*image)
    square = max(resolution // step, 1) * step
    assert (bucket.width % step, bucket.height % step) == (0, 0)
    assert bucket.width * bucket.height <= square**2
    least = max(square // 2 // step, 1) * step
    assert (bucket.width <= width and bucket.height <= height) or bucket in buckets(least, step)


@FEW
@given(image=images())
def test_an_image_that_is_large_enough_or_enlarged_has_the_nearest_bucket_of_the_whole_area(image):
    width, height, resolution, step = image
    assert bucket_for(*image, upscale=True) in buckets(resolution, step)
    if min(width, height) >= 2 * max(resolution, step):
        assert bucket_for(*image) == bucket_for(*image, upscale=True)


@FEW
@given(
    image=images(),
    focus=st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    upscale=st.booleans(),
)
def test_a_crop_lies_in_the_image_and_holds_the_focus(image, focus, upscale):
    bucket = bucket_for(*image, upscale=upscale)
    crop = crop_to(*image[:2], bucket, focus)
    assert 0 <= crop.left <= crop.scaled.width - bucket.width
    assert 0 <= crop.top <= crop.scaled.height - bucket.height
    across, down = focus or (0.5, 0.5)
    assert crop.left - 1 <= across * crop.scaled.width <= crop.left + bucket.width + 1
    assert crop.top - 1 <= down * crop.scaled.height <= crop.top + bucket.height + 1


@FEW
@given(tags=st.lists(words, max_size=8), trigger=st.lists(words, min_size=1, max_size=2, unique=True))
def test_the_trigger_word_stands_first_and_each_of_its_words_once(tags, trigger):
    found = tags_of(with_trigger(", ".join(tags), ", ".join(trigger)))
    assert found[: len(trigger)] == trigger
    assert [tag for tag in found[len(trigger) :] if tag in trigger] == []
    assert [tag for tag in found if tag not in trigger] == [tag for tag in tags if tag not in trigger]


@FEW
@given(
    tags=tags,
    trigger=st.sampled_from(["", "sks", "sks, woman"]),
    keep=st.integers(0, 6),
    shuffle=st.booleans(),
    dropout=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 99),
)
def test_kept_tags_stay_in_place_and_the_others_are_some_of_theirs(tags, trigger, keep, shuffle, dropout, seed):
    rules = DatasetSettings(trigger_word=trigger, keep_tags=keep, shuffle_tags=shuffle, tag_dropout=dropout)
    whole = tags_of(with_trigger(", ".join(tags), trigger))
    kept = max(keep, len(tags_of(trigger)))
    for form in captions_of(item(", ".join(tags)), rules, seed):
        found = tags_of(form)
        assert found[:kept] == whole[:kept]
        assert set(found) <= set(whole)
        if dropout == 0:
            assert sorted(found) == sorted(whole)
        if not shuffle:
            assert found == [tag for tag in whole if tag in found]


def item(*captions, name="a.png"):
    first, *others = captions
    return Item(Path(name), first, 64, 64, name, others=tuple(others))


@FEW
@given(
    captions=st.lists(texts, min_size=1, max_size=4),
    epoch=st.integers(0, 500),
    place=st.integers(0, 9),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_view_is_drawn_from_seed_epoch_and_image_alone_among_the_forms_that_are_encoded(captions, epoch, place, seed):
    rules = DatasetSettings(shuffle_tags=True, tag_dropout=0.2, caption_dropout=0.2, flip=True)
    told = item(*captions)
    random.seed(epoch)
    first = caption_of_view(told, place, epoch, rules, seed)
    random.seed(place)
    assert caption_of_view(item(*captions), place, epoch, rules, seed) == first
    forms = captions_of(told, rules, seed)
    assert first[1] in {"", *forms}
    assert len(forms) <= 16 + len(captions)


choices = st.lists(words, min_size=2, max_size=4)


@FEW
@given(before=words, choices=st.lists(choices, max_size=3), seed=st.integers())
def test_wildcards_choose_among_theirs(before, choices, seed):
    caption = " ".join([before, *("{" + "|".join(some) + "}" for some in choices)])
    found = with_choices(caption, random.Random(seed)).split(" ")
    assert found[0] == before
    assert len(found) == 1 + len(choices)
    assert all(word in some for word, some in zip(found[1:], choices, strict=True))


@FEW
@given(caption=st.text("{}|\\ab ,", max_size=40), seed=st.integers(0, 9))
def test_whatever_signs_a_caption_holds_a_choice_comes_back(caption, seed):
    assert len(with_choices(caption, random.Random(seed))) <= len(caption)


@FEW
@given(text=texts, encoding=st.sampled_from(ENCODINGS))
def test_a_text_of_any_encoding_is_read_back_or_told_to_be_a_guess(text, encoding):
    data = text.encode(encoding, errors="ignore")
    marked = encoding in ("utf-8-sig", "utf-16", "utf-32")
    read, guess = decoded(data)
    if marked or (encoding == "utf-8" and "\0" not in text):
        assert guess == ""
        assert read.removeprefix("\ufeff") == text.removeprefix("\ufeff")
    assert guess or plain(read) == plain(data.decode(encoding)) or data.decode() == read


LETTERS = "abc, äöß\u03b1\u03b2\u03b3\u0430\u0431\u0412\u0416"


@FEW
@given(text=st.text(LETTERS, min_size=8), strays=st.lists(st.integers(0, 200), max_size=2))
def test_zeros_that_strayed_between_letters_in_utf_8_change_nothing_else(text, strays):
    for place in strays:
        text = f"{text[:place]}\0{text[place:]}"
    read, guess = decoded(text.encode())
    assert not guess
    assert read == text


@FEW
@given(text=st.text(LETTERS, min_size=2), encoding=st.sampled_from(["utf-16-le", "utf-16-be"]))
def test_alphabets_in_utf_16_without_a_mark_are_read(text, encoding):
    assume(len(set(text) & set("abc, äöß")) > 0)  # a zero, by which it is known
    assert decoded(text.encode(encoding))[0] == text


words_or_wildcards = st.recursive(
    words, lambda inner: st.lists(inner, min_size=2, max_size=3).map(choices_of), max_leaves=8
)


@FEW
@given(parts=st.lists(words_or_wildcards, max_size=5), trigger=words)
def test_tags_and_a_trigger_put_first_leave_wildcards_whole(parts, trigger):
    caption = ", ".join(parts)
    assert tags_of(caption) == parts
    wild = [part for part in parts if "{" in part]
    assert [part for part in tags_of(with_trigger(caption, trigger)) if "{" in part] == wild
    assert wildcards_of(caption) == wild


@FEW
@given(data=st.binary(max_size=80))
def test_any_bytes_are_a_caption_that_can_be_written_on_one_line(data):
    caption = plain(decoded(data)[0])
    assert caption.encode().decode() == caption
    assert caption == " ".join(caption.split())
