import pytest

from trainer.engine.fingerprint import changes, sampled

BEFORE = {
    "picture": {"a.png": "1", "b.png": "2", "c.png": "3"},
    "caption": {"a.png": "1", "b.png": "2", "c.png": "3"},
    "mask": {"a.png": "", "b.png": "5", "c.png": ""},
    "cut": {"a.png": "1", "b.png": "1", "c.png": "1"},
    "model": {"the base model": "7"},
    "setting": {"adapter.rank": "4", "model.seed": "42"},
}


def now(**kinds):
    return {kind: {**BEFORE[kind], **kinds.get(kind, {})} for kind in BEFORE}


def without(name):
    return {
        kind: {one: value for one, value in values.items() if kind in ("model", "setting") or one != name}
        for kind, values in BEFORE.items()
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, []),
        ({"picture": {"b.png": "9"}}, ["b.png changed"]),
        ({"caption": {"a.png": "8", "c.png": "9"}}, ["the caption of a.png and 1 more changed"]),
        ({"mask": {"c.png": "9"}}, ["the mask of c.png changed"]),
        ({"cut": {"a.png": "2"}}, ["size, cut or weight of a.png changed"]),
        ({"picture": {"d.png": "9"}, "caption": {"d.png": "9"}}, ["d.png is new"]),
        ({"model": {"the base model": "8"}}, ["the base model changed"]),
        (
            {"setting": {"adapter.rank": "8", "model.seed": "1"}},
            ["adapter.rank was 4 and is 8", "model.seed was 42 and is 1"],
        ),
        ({"setting": {"adapter.later": "1"}}, []),  # a setting that was not there yet
    ],
)
def test_what_is_another_is_named(changed, told):
    assert changes(BEFORE, now(**changed)) == told


def test_of_an_image_that_is_gone_nothing_else_is_told():
    assert changes(BEFORE, without("b.png")) == ["b.png is gone"]


def test_a_file_of_other_weights_has_another_digest_and_a_copy_the_same(tmp_path):
    data = bytes(range(256)) * 40_000  # 10 MB: a tenth of it is read
    files = [tmp_path / name for name in ("a", "copy", "others", "longer")]
    for file, content in zip(files, (data, data, bytes(255 - byte for byte in data), data + b"\0"), strict=True):
        file.write_bytes(content)
    digests = [sampled(file) for file in files]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
