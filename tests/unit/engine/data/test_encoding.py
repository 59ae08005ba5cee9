import shutil

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.errors import NothingToTrain
from trainer.dataset.scan import scan
from trainer.engine.data import encoding
from trainer.engine.data.batches import encode_dataset
from trainer.engine.data.cache import TensorCache
from trainer.engine.data.encoding import masks_of


@pytest.fixture(scope="module")
def family(tiny_model):
    return tiny.load(tiny_model)


def encode(family, folder, cache, **settings):
    told = []
    data = encode_dataset(
        scan(folder)[0],
        family,
        DatasetSettings(resolution=64, **settings),
        dtype=torch.float32,
        cache=TensorCache(cache),
        progress=lambda done, total: told.append((done, total)),
    )
    return data, told


def test_batches_answer_as_single_images_do(family, images, tmp_path, monkeypatch):
    together, told = encode(family, images, tmp_path / "a", flip=True)
    monkeypatch.setattr(encoding, "BATCH_PX", 1)
    alone, _ = encode(family, images, tmp_path / "b", flip=True)
    assert told[-1] == (5, 5)
    for key, one in together.posteriors.items():
        torch.testing.assert_close(one.mean, alone.posteriors[key].mean, rtol=0, atol=1e-4)
        torch.testing.assert_close(one.std, alone.posteriors[key].std, rtol=0, atol=1e-4)


def test_no_batch_has_more_pixels_than_allowed(family, tmp_path, monkeypatch):
    folder = tiny.images(tmp_path / "many", count=9)
    monkeypatch.setattr(encoding, "BATCH_PX", 4 * 72 * 56)
    seen, whole = [], family.encode_image
    monkeypatch.setattr(family, "encode_image", lambda pixels: (seen.append(len(pixels)), whole(pixels))[1])
    encode(family, folder, tmp_path / "cache")
    assert sum(seen) == 9
    assert 1 < max(seen) <= 4


def test_what_a_kill_kept_from_being_encoded_is_encoded_later_to_the_same_bits(family, images, tmp_path):
    cache = tmp_path / "cache"
    whole, _ = encode(family, images, cache)
    next(cache.iterdir()).unlink()  # alone in its batch it would get other last bits
    later, told = encode(family, images, cache)
    assert told[-1] == (5, 5)
    for key, one in whole.posteriors.items():
        assert torch.equal(one.mean, later.posteriors[key].mean)
        assert torch.equal(one.std, later.posteriors[key].std)


def test_a_step_reads_what_it_shows_and_no_other_image_stays_in_memory(family, images, tmp_path, monkeypatch):
    data, _ = encode(family, images, tmp_path / "cache")
    read, plain = [], TensorCache.recall
    monkeypatch.setattr(TensorCache, "recall", lambda cache, key: read.append(key) or plain(cache, key))
    first = data.posteriors[0, False]
    assert torch.equal(data.posteriors[0, False].mean, first.mean)
    assert not torch.equal(data.posteriors[1, False].mean, first.mean)
    assert (len(read), len(set(read))) == (3, 2)


def test_the_same_image_twice_has_one_posterior(family, tmp_path, monkeypatch):
    folder = tiny.images(tmp_path / "many", count=3)
    shutil.copy(folder / "image 0.png", folder / "twin.png")
    monkeypatch.setattr(encoding, "BATCH_PX", 3 * 72 * 56)  # the twin is in another batch
    data, _ = encode(family, folder, tmp_path / "cache")
    twins = [number for number, item in enumerate(data.items) if item.name in ("image 0.png", "twin.png")]
    assert len({data.digests[number] for number in twins}) == 1
    assert torch.equal(*(data.posteriors[number, False].mean for number in twins))


def test_what_is_in_the_cache_is_not_encoded_again(family, images, tmp_path, monkeypatch):
    first, _ = encode(family, images, tmp_path)
    monkeypatch.setattr(family, "encode_image", lambda _pixels: pytest.fail("encoded again"))
    second, _ = encode(family, images, tmp_path)
    assert all(torch.equal(one.mean, second.posteriors[key].mean) for key, one in first.posteriors.items())


def test_an_image_that_changes_within_a_process_is_encoded_anew(family, images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "own")
    before, _ = encode(family, folder, tmp_path / "cache")
    Image.new("RGB", (80, 64), "navy").save(folder / "image 2.png")
    after, _ = encode(family, folder, tmp_path / "cache")
    changed = [
        number
        for number in range(5)
        if not torch.equal(before.posteriors[number, False].mean, after.posteriors[number, False].mean)
    ]
    assert changed == [2]
    assert before.fingerprint() != after.fingerprint()


def test_images_broken_after_their_header_are_left_out_and_named(family, images, tmp_path):
    folder = shutil.copytree(images, tmp_path / "own")
    whole = (folder / "image 1.png").read_bytes()
    (folder / "image 1.png").write_bytes(whole[: len(whole) // 2])
    data, _ = encode(family, folder, tmp_path / "cache")
    assert [error.path.name for error in data.broken] == ["image 1.png"]
    assert [item.path.name for item in data.items] == [f"image {i}.png" for i in (0, 2, 3, 4)]
    assert {number for number, _ in data.posteriors} == {0, 1, 2, 3}


def test_nothing_but_broken_images_is_an_error(family, tmp_path):
    folder = tiny.images(tmp_path / "own", count=1)
    whole = (folder / "image 0.png").read_bytes()
    (folder / "image 0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(NothingToTrain):
        encode(family, folder, tmp_path / "cache")


def masked_folder(tmp_path):
    """A 160 x 128 image with white at the left of its mask."""
    folder = tiny.images(tmp_path / "masked", count=2, size=(160, 128))
    mask = np.zeros((128, 160), np.uint8)
    mask[:, :80] = 255
    Image.fromarray(mask).save(folder / "image 0.mask.png")
    return folder


def test_a_mask_goes_the_way_of_its_image_and_is_mirrored_with_it(family, tmp_path):
    data, _ = encode(family, masked_folder(tmp_path), tmp_path / "cache", flip=True)
    mask, mirrored = data.posteriors[0, False].mask, data.posteriors[0, True].mask
    assert mask.shape == (1, *data.posteriors[0, False].mean.shape[1:])
    assert torch.equal(mirrored, mask.flip(2))
    third = mask.shape[2] // 3
    assert mask[..., :third].min() > 0.99
    assert mask[..., -third:].max() < 0.01
    assert data.posteriors[1, False].mask is None


def test_a_changed_mask_is_another_data_set(family, tmp_path):
    folder = masked_folder(tmp_path)
    before, _ = encode(family, folder, tmp_path / "cache")
    Image.new("L", (160, 128), "white").save(folder / "image 0.mask.png")
    after, _ = encode(family, folder, tmp_path / "cache")
    assert before.fingerprint() != after.fingerprint()
    assert after.posteriors[0, False].mask.min() == 1


def test_a_mask_of_another_shape_leaves_its_image_out(family, tmp_path):
    folder = masked_folder(tmp_path)
    Image.new("L", (64, 64), "white").save(folder / "image 0.mask.png")
    data, _ = encode(family, folder, tmp_path / "cache")
    assert len(data.items) == 1
    assert "64 x 64" in data.broken[0].cause


def test_transparency_is_a_mask_if_that_is_wished(family, tmp_path):
    folder = tmp_path / "transparent"
    folder.mkdir()
    alpha = np.zeros((64, 64), np.uint8)
    alpha[:32] = 255
    image = Image.new("RGB", (64, 64), "red")
    image.putalpha(Image.fromarray(alpha))
    image.save(folder / "x.png")
    assert encode(family, folder, tmp_path / "cache")[0].posteriors[0, False].mask is None
    mask = encode(family, folder, tmp_path / "cache", alpha_mask=True)[0].posteriors[0, False].mask
    assert mask[0, 0].min() == 1
    assert mask[0, -1].max() == 0


def test_the_background_is_part_of_what_is_encoded(family, tmp_path):
    folder = tmp_path / "transparent"
    folder.mkdir()
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(folder / "x.png")
    white, blue = (encode(family, folder, tmp_path / "cache", background=c)[0] for c in ("#ffffff", "#0000ff"))
    assert not torch.equal(white.posteriors[0, False].mean, blue.posteriors[0, False].mean)


def test_images_without_a_mask_are_learnt_whole_beside_one_that_has_one(family, tmp_path):
    data, _ = encode(family, masked_folder(tmp_path), tmp_path / "cache")
    both = masks_of([data.posteriors[0, False], data.posteriors[1, False]])
    assert both[1].min() == 1
    assert masks_of([data.posteriors[1, False]]) is None
