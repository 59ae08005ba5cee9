import os
import shutil

import pytest
import torch

from trainer.engine.data import cache as cache_module
from trainer.engine.data.cache import TensorCache
from trainer.engine.digests import digest, module_digest
from trainer.engine.errors import EntryGone


def test_a_tensor_is_made_once_and_then_read(tmp_path):
    cache, made = TensorCache(tmp_path), []

    def make():
        made.append(1)
        return {"x": torch.arange(3.0)}

    first, second = cache.get("key", make), cache.get("key", make)
    assert torch.equal(first["x"], second["x"])
    assert len(made) == 1


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "checksum"])
def test_a_damaged_entry_is_made_again(tmp_path, damage):
    cache = TensorCache(tmp_path)
    cache.write("key", {"x": torch.arange(100.0)})
    (path,) = tmp_path.iterdir()
    entry = bytearray(path.read_bytes())
    entry[0 if damage == "checksum" else -10] ^= 1
    path.write_bytes({"torn": entry[:-50], "empty": b""}.get(damage, entry))
    assert cache.read("key") is None
    assert torch.equal(cache.get("key", lambda: {"x": torch.ones(2)})["x"], torch.ones(2))
    assert torch.equal(cache.get("key", lambda: pytest.fail("was not stored"))["x"], torch.ones(2))


def test_beyond_the_limit_what_lay_unused_longest_goes_and_what_is_used_stays(tmp_path):
    caches = [TensorCache(tmp_path / family) for family in ("sd15", "sdxl")]
    for age, (cache, key) in enumerate(
        [(caches[0], "a" * 64), (caches[1], "b" * 64), (caches[0], "c" * 64), (caches[1], "d" * 64)]
    ):
        cache.write(key, {"x": torch.zeros(250)})
        os.utime(cache.folder / f"{key}.entry", (1000 + age, 1000 + age))
    fresh = TensorCache(tmp_path / "sd15")
    assert fresh.read("a" * 64) is not None  # used now, so it is the newest
    os.utime(tmp_path / "sd15" / f"{'a' * 64}.entry", (1, 1))  # even if its time cannot be noted
    fresh.trim(2500 / 2**30)
    assert sorted(path.stem[0] for path in tmp_path.rglob("*.entry")) == ["a", "d"]
    fresh.trim(1e-9)
    assert [path.stem[0] for path in tmp_path.rglob("*.entry")] == ["a"]


def test_only_what_is_named_as_an_entry_is_ever_deleted(tmp_path):
    cache = TensorCache(tmp_path / "cache" / "sd15")
    cache.write("a" * 64, {"x": torch.zeros(250)})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache" / "linked").symlink_to(tmp_path / "elsewhere")
    theirs = ["cache/page.html", "cache/sd15/notes.entry", f"cache/{'b' * 64}", f"elsewhere/{'c' * 64}.entry"]
    for name in theirs:
        (tmp_path / name).write_text("mine")
    (tmp_path / "cache" / f"{'d' * 64}.entry").symlink_to(tmp_path / theirs[-1])
    TensorCache(tmp_path / "cache" / "sdxl").trim(1e-12)
    assert not (tmp_path / "cache" / "sd15" / f"{'a' * 64}.entry").exists()
    assert [(tmp_path / name).read_text() for name in theirs] == ["mine"] * 4


def test_without_a_limit_nothing_goes(tmp_path):
    TensorCache(tmp_path / "sd15").write("a", {"x": torch.zeros(250)})
    TensorCache(tmp_path / "sdxl").trim(0)
    assert list(tmp_path.rglob("*.entry"))


def test_a_process_that_does_not_write_leaves_no_file(tmp_path):
    TensorCache(tmp_path / "cache", writes=False).get("key", lambda: {"x": torch.ones(2)})
    assert not (tmp_path / "cache").exists()


def test_keys_differ_whenever_a_part_does():
    assert len({digest("a", "b"), digest("ab"), digest("a", "b", ""), digest("b", "a")}) == 4


def test_a_modules_digest_follows_its_weights_and_not_how_they_lie_in_memory():
    convolution = torch.nn.Conv2d(3, 4, 3)
    before = module_digest(convolution)
    assert module_digest(convolution.to(memory_format=torch.channels_last)) == before
    with torch.no_grad():
        convolution.weight[1, 2, 0, 1] += 1
    changed = module_digest(convolution)
    assert changed != before
    assert module_digest(convolution.bfloat16()) not in (before, changed)


def filled(folder, count=8, numbers=1000):
    cache = TensorCache(folder)
    for number in range(count):
        cache.write(f"{number}", {"x": torch.full((numbers,), float(number))})
    return cache


def test_of_what_is_recalled_no_more_than_the_limit_stays_in_memory_and_the_oldest_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "KEPT_BYTES", 3 * 4000)
    cache = filled(tmp_path)
    cache.read_ahead([f"{number}" for number in range(8)])
    for _ in range(2):
        for number in range(8):
            assert cache.recall(f"{number}")["x"][0] == number
    shutil.rmtree(tmp_path)
    for number in (5, 6, 7):
        assert cache.recall(f"{number}")["x"][0] == number
    for number in range(5):
        with pytest.raises(EntryGone, match=f"{number}.entry"):
            cache.recall(f"{number}")


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("damage", ["deleted", "flipped", "cut"])
def test_an_entry_that_was_lost_meanwhile_is_named(tmp_path, damage, ahead):
    cache, path = filled(tmp_path), tmp_path / "3.entry"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flipped" else data[:100])
    if ahead:
        cache.read_ahead(["3"])
    with pytest.raises(EntryGone, match="was deleted or damaged"):
        cache.recall("3")


def test_what_a_process_may_not_write_it_recalls_all_the_same(tmp_path):
    cache = TensorCache(tmp_path / "cache", writes=False)
    cache.write("key", {"x": torch.ones(2)})
    assert torch.equal(cache.recall("key")["x"], torch.ones(2))
    assert cache.read("key") is not None
