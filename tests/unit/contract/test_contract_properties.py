import string
from collections import Counter
from types import UnionType
from typing import Annotated, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.contract.events import EventLog, Lora, Phase, Sample, Warned, read_events
from trainer.contract.pasted import pasted, pasted_model
from trainer.contract.presets import overlay
from trainer.contract.settings.config import SECTIONS, TrainConfig, validated
from trainer.contract.settings.dataset import Concept, DatasetSettings
from trainer.contract.settings.fields import WINDOWS_DEVICES
from trainer.contract.toml import flat, read_toml, to_toml
from trainer.dataset.buckets import Size, buckets, crop_to, nearest_bucket
from trainer.dataset.captions import shuffled, with_trigger
from trainer.dataset.views import micro_batches, plan, views_of_step

FEW = settings(max_examples=50, deadline=None)
SIZES = (Size(64, 64), Size(96, 64), Size(64, 96))

# Any text Unicode has, without the halves of surrogate pairs, which no file can hold.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
paths = texts.map(pasted)  # as they are once they were read
models = texts.map(pasted_model)
# Where a range depends on another setting, one that is always allowed.
TOGETHER = {
    "dataset": {
        "images": paths,
        "captions": paths,
        "min_total_views": st.integers(1, 1000),
        "max_total_views": st.integers(1000, 1_000_000),
        "resolution": st.integers(512, 2048),
        "background": st.from_regex(r"#[0-9a-fA-F]{6}", fullmatch=True),
        "prior_preservation": st.just(value=False),  # it needs a trigger word or a prompt
        "further_resolutions": st.lists(st.integers(32, 511), max_size=3).map(tuple),
    },
    "objective": {
        "zero_terminal_snr": st.sampled_from(["auto", "off"]),
        "min_timestep": st.integers(0, 500),
        "max_timestep": st.integers(501, 1000),
        "keep_from_timestep": st.integers(501, 1000),
    },
    "model": {"base_model": models.filter(bool), "vae": paths},
    "adapter": {"start_from": paths},
    "concept": {"images": paths.filter(bool), "captions": paths},
    "output": {
        "name": st.text(string.ascii_letters + "äéß猫0123456789-_#='()", max_size=40).filter(
            lambda name: name.upper() not in WINDOWS_DEVICES
        )
    },
}


def values_of(annotation, schema):
    """Values that a setting of this type and JSON schema allows."""
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is tuple:
        inner = get_args(annotation)[0]
        return st.lists(values_of(inner, schema.get("items", {})), max_size=3).map(tuple)
    if isinstance(annotation, UnionType):
        (kind,) = (schema for schema in schema["anyOf"] if schema.get("type") != "null")
        return st.none() | values_of(get_args(annotation)[0], kind)
    if get_origin(annotation) is Annotated:
        return values_of(get_args(annotation)[0], schema)
    if annotation is Concept:
        return concepts()
    if annotation is float:
        open_ends = {"exclude_min": "exclusiveMinimum" in schema, "exclude_max": "exclusiveMaximum" in schema}
        return st.floats(low, high, allow_infinity=False, **open_ends)
    if step := schema.get("multipleOf"):
        return st.integers(low // step, high // step).map(lambda count: count * step)
    return {bool: st.booleans(), int: st.integers(low, high), str: texts}[annotation]


def section_values(section, model):
    """Some of a section's settings, by name."""
    schemas = model.model_json_schema()["properties"]
    each = {name: values_of(field.annotation, schemas[name]) for name, field in model.model_fields.items()}
    return st.fixed_dictionaries({}, optional=each | TOGETHER.get(section, {}))


def concepts():
    """Folders with rules of their own."""
    return section_values("concept", Concept).map(lambda values: Concept(**{"images": "x", **values}))


# Some allowed settings, as a preset or a command line gives them.
layers = st.fixed_dictionaries({section: section_values(section, model) for section, model in SECTIONS.items()})
events = st.one_of(
    st.builds(Phase, name=st.sampled_from(["load", "encode", "train"]), done=st.integers(0, 99), total=st.just(99)),
    st.builds(Warned, code=texts, message=texts, hint=texts),
    st.builds(Sample, step=st.integers(0, 99), index=st.just(0), prompt=texts, seed=st.just(1), file=texts),
    st.builds(Lora, step=st.integers(0, 99), file=texts, bytes=st.integers(0, 2**53), sha256=texts),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


@FEW
@given(values=layers)
def test_settings_come_back_from_their_file_unchanged(values, folder):
    config = validated(values)
    path = folder / "config.toml"
    path.write_bytes(to_toml(config).encode())
    assert validated(read_toml(path)) == config


@settings(max_examples=300, deadline=None)
@given(text=texts | st.text(r"""file:/\"'<> %20~a.hf.co#C""", max_size=20))
def test_a_pasted_text_that_was_read_stays_as_it_is(text):
    assert pasted(pasted(text)) == pasted(text)
    assert pasted_model(pasted_model(text)) == pasted_model(text)


@FEW
@given(stack=st.lists(layers, max_size=4))
def test_every_value_of_an_overlay_is_the_strongest_layers_or_the_default(stack):
    named = {f"layer {number}": values for number, values in enumerate(stack)}
    config, origins = overlay(named)
    expected = {place: ("default", value) for place, value in flat(TrainConfig()).items()}
    for layer, values in named.items():
        expected |= {f"{s}.{name}": (layer, value) for s, part in values.items() for name, value in part.items()}
    assert {place: (origins[place], value) for place, value in flat(config).items()} == expected


@FEW
@given(
    written=st.lists(events, min_size=1, max_size=6),
    added=st.lists(events, min_size=1, max_size=3),
    line=st.integers(0, 5),
    lacking=st.integers(0, 300),
)
def test_an_event_log_survives_any_cut(written, added, line, lacking, folder):
    path = folder / "events.jsonl"
    path.unlink(missing_ok=True)
    with EventLog(path) as log:
        for event in written:
            log.write(event)
    before, _, _ = read_events(path)
    whole = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    cut = max(ends[line % len(ends)] - lacking, 0)
    path.write_bytes(whole[:cut])

    left, cursor, damaged = read_events(path)
    assert left == before[: whole[:cut].count(b"\n")]
    assert (cursor <= cut, damaged) == (True, 0)

    with EventLog(path) as log:
        for event in added:
            log.write(event)
    after, _, damaged = read_events(path)
    kept = len(after) - len(added)
    assert after[:kept] == before[:kept]
    assert kept >= len(left)
    assert [event.seq for event in after] == list(range(len(after)))
    assert [event.model_copy(update={"seq": -1, "t": 0.0}) for event in after[kept:]] == added
    assert damaged <= 1


@FEW
@given(junk=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=4))
def test_junk_between_events_hides_none_of_them(junk, folder):
    path = folder / "junk.jsonl"
    path.unlink(missing_ok=True)
    for number, line in enumerate(junk):
        with EventLog(path) as log:
            log.write(Phase(name="train", done=number, total=9))
        with path.open("ab") as file:
            file.write(line + b"\n")
    assert [event.done for event in read_events(path)[0]] == list(range(len(junk)))


@st.composite
def plans(draw):
    """A data set's plan and the bucket of each of its images."""
    bucket_of = draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=12))
    low, high = sorted(draw(st.tuples(st.integers(1, 60), st.integers(1, 60))))
    chosen = DatasetSettings(
        views=draw(st.integers(1, 6)),
        min_total_views=low,
        max_total_views=high,
        batch_size=draw(st.integers(1, 5)),
        accumulation=draw(st.integers(1, 3)),
    )
    return plan(len(bucket_of), chosen), bucket_of


@FEW
@given(planned=plans(), seed=st.integers(0, 2**31 - 1))
def test_over_a_run_every_image_is_seen_equally_often_and_the_total_is_exact(planned, seed):
    made, bucket_of = planned
    views = [view for step in range(made.steps) for view in views_of_step(step, made, bucket_of, seed)]
    seen = Counter(view.item for view in views)
    assert len(views) == made.total_views
    assert set(seen) == set(range(made.images))
    assert max(seen.values()) - min(seen.values()) <= 1
    assert sorted((v.item, v.epoch) for v in views) == [(i, e) for i in range(made.images) for e in range(seen[i])]


@FEW
@given(planned=plans(), seed=st.integers(0, 2**31 - 1))
def test_every_step_but_the_last_sees_a_full_batch(planned, seed):
    made, bucket_of = planned
    lengths = [len(views_of_step(step, made, bucket_of, seed)) for step in range(made.steps)]
    assert lengths[:-1] == [made.effective_batch] * (made.steps - 1)
    assert 1 <= lengths[-1] <= made.effective_batch


@FEW
@given(
    bucket_of=st.lists(st.sampled_from(SIZES), min_size=1, max_size=30),
    batch_size=st.integers(1, 6),
    processes=st.integers(1, 3),
)
def test_passes_hold_each_sample_once_in_groups_of_one_bucket(bucket_of, batch_size, processes):
    for process in range(processes):
        mine = range(process, len(bucket_of), processes)
        passes = micro_batches(mine, bucket_of, batch_size)
        assert sorted(place for group in passes for place in group) == list(mine)
        assert all(1 <= len(group) <= batch_size for group in passes)
        assert all(len({bucket_of[place] for place in group}) == 1 for group in passes)


@FEW
@given(
    bucket_of=st.lists(st.sampled_from(SIZES), min_size=1, max_size=20),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 1000),
)
def test_a_step_sees_the_same_samples_however_its_batch_is_split(bucket_of, shape, seed):
    batch_size, accumulation = shape
    at_once = plan(len(bucket_of), DatasetSettings(views=3, batch_size=batch_size * accumulation))
    split = plan(len(bucket_of), DatasetSettings(views=3, batch_size=batch_size, accumulation=accumulation))
    for step in range(at_once.steps):
        assert views_of_step(step, split, bucket_of, seed) == views_of_step(step, at_once, bucket_of, seed)


@FEW
@given(
    resolution=st.integers(32, 1024),
    step=st.sampled_from([4, 8, 16, 32, 64]),
    width=st.integers(1, 9000),
    height=st.integers(1, 9000),
)
def test_any_image_finds_a_bucket_and_a_crop_that_lies_inside_it(resolution, step, width, height):
    sizes = buckets(resolution, step)
    crop = crop_to(width, height, nearest_bucket(width, height, sizes))
    assert crop.bucket in sizes
    assert crop.bucket.width * crop.bucket.height <= max(resolution, step) ** 2
    assert 0 <= crop.left <= crop.scaled.width - crop.bucket.width
    assert 0 <= crop.top <= crop.scaled.height - crop.bucket.height


tags = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=4), max_size=8)


@FEW
@given(tags=tags, keep=st.integers(0, 10), seed=st.integers())
def test_a_shuffled_caption_has_the_same_tags(tags, keep, seed):
    found = shuffled(", ".join(tags), keep, seed)
    assert sorted(filter(None, found.split(", "))) == sorted(tags)


@FEW
@given(tags=tags, trigger=st.text(string.ascii_lowercase, min_size=1, max_size=4))
def test_a_trigger_word_comes_first_and_loses_no_other_tag(tags, trigger):
    found = with_trigger(", ".join(tags), trigger).split(", ")
    assert found[0] == trigger
    assert set(found) == {trigger, *tags}
