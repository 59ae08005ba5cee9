import pytest
import tiny
import torch

from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.buckets import Size
from trainer.dataset.captions import Item, captions_of
from trainer.dataset.scan import scan
from trainer.dataset.views import plan
from trainer.engine.data.batches import TextStates, encode_dataset, samples_of_step
from trainer.engine.data.cache import TensorCache


@pytest.fixture(scope="module")
def family(tiny_model):
    return tiny.load(tiny_model)


def encode(family, folder, cache, **settings):
    items, _ = scan(folder)
    return encode_dataset(
        items,
        family,
        DatasetSettings(resolution=64, **settings),
        dtype=torch.float32,
        cache=cache,
        progress=lambda _done, _total: None,
    )


def test_nothing_is_assumed_of_channels_or_size(family):
    assert (family.spec.latent_channels, family.spec.pixels_per_latent, family.spec.bucket_step) == (6, 4, 8)


def test_posteriors_are_scaled_and_of_the_buckets_size(family, images, tmp_path):
    data = encode(family, images, TensorCache(tmp_path))
    for number, bucket in enumerate(data.buckets):
        assert data.posteriors[number, False].mean.shape == (6, bucket.height // 4, bucket.width // 4)
        assert bucket.width > bucket.height  # the images are 80 x 64
    stored = TensorCache(tmp_path)
    assert len(list(stored.folder.iterdir())) == 5


def test_mirrored_images_are_encoded_from_mirrored_pixels(family, images, tmp_path):
    data = encode(family, images, TensorCache(tmp_path), flip=True)
    assert len(data.posteriors) == 10
    assert not torch.equal(data.posteriors[0, True].mean, data.posteriors[0, False].mean)


def test_the_fingerprint_follows_images_and_captions(family, images, tmp_path):
    import shutil

    cache = TensorCache(tmp_path / "cache")
    before = encode(family, images, cache).fingerprint()
    own = shutil.copytree(images, tmp_path / "own")
    assert encode(family, own, cache).fingerprint() == before
    (own / "image 1.txt").write_text("new")
    assert encode(family, own, cache).fingerprint() != before


def test_a_steps_samples_do_not_depend_on_how_it_is_split(family, images, tmp_path):
    data = encode(family, images, TensorCache(tmp_path))
    wide, narrow = DatasetSettings(batch_size=4), DatasetSettings(batch_size=1, accumulation=4)
    for step in range(5):
        drawn = [samples_of_step(step, plan(5, settings), data, settings, 3) for settings in (wide, narrow)]
        assert drawn[0] == drawn[1]


def test_captions_are_dropped_as_often_as_asked(family, images, tmp_path):
    data = encode(family, images, TensorCache(tmp_path))
    settings = DatasetSettings(batch_size=1, views=400, caption_dropout=0.25)
    drawn = [samples_of_step(step, plan(5, settings), data, settings, 1)[0].caption for step in range(2000)]
    assert 0.21 < drawn.count("") / 2000 < 0.29  # four standard errors


def test_mirroring_happens_in_half_of_the_views_and_never_unasked(family, images, tmp_path):
    data = encode(family, images, TensorCache(tmp_path))
    for flip, low, high in ((True, 0.45, 0.55), (False, 0, 0)):
        settings = DatasetSettings(batch_size=1, views=400, flip=flip)
        drawn = [samples_of_step(step, plan(5, settings), data, settings, 1)[0].mirrored for step in range(2000)]
        assert low <= sum(drawn) / 2000 <= high


def test_shuffling_keeps_the_trigger_word_in_front(tmp_path):
    item = Item(tmp_path / "x.png", "one, two, three, four", 64, 64)
    forms = captions_of(item, DatasetSettings(shuffle_tags=True, trigger_word="sks", keep_tags=0), seed=0)
    assert all(form.startswith("sks, ") for form in forms)
    assert {tuple(sorted(form.split(", "))) for form in forms} == {("four", "one", "sks", "three", "two")}
    assert len(set(forms)) > 5


def test_frozen_text_comes_from_the_cache_and_equals_the_encoders_answer(family, tmp_path):
    text = TextStates(family, trained=False)
    text.learn(["ball", ""], torch.float32, TensorCache(tmp_path), lambda *_: None)
    looked_up = text(["ball", "", "ball"], torch.device("cpu")).states
    with torch.no_grad():
        encoded = family.encode_text(family.tokenize(["ball", "", "ball"])).states
    torch.testing.assert_close(looked_up, encoded)
    assert not looked_up.requires_grad


def test_buckets_are_part_of_the_cache_key(family, images, tmp_path):
    cache = TensorCache(tmp_path)
    encode(family, images, cache)
    items, _ = scan(images)
    other = encode_dataset(
        items,
        family,
        DatasetSettings(resolution=96),
        dtype=torch.float32,
        cache=cache,
        progress=lambda *_: None,
    )
    assert len(list(tmp_path.iterdir())) == 10
    assert other.buckets[0] != Size(72, 56)


def test_captions_that_a_kill_kept_from_being_encoded_are_encoded_in_the_same_company(family, tmp_path, monkeypatch):
    captions = [f"{number} " * (number + 1) for number in range(9)]
    encode_text, seen, made = family.encode_text, [], []
    monkeypatch.setattr(family, "encode_text", lambda ids: (seen.append(ids), encode_text(ids))[1])
    for _ in range(2):
        text = TextStates(family, trained=False)
        text.learn(captions, torch.float32, TensorCache(tmp_path), lambda _done, _total: None)
        made.append(text(captions, torch.device("cpu")).states)
        next(tmp_path.iterdir()).unlink()
    assert torch.equal(*seen)
    assert torch.equal(*made)
