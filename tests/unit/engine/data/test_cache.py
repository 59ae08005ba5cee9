import os

import pytest
import torch

from trainer.engine.data.cache import TensorCache
from trainer.engine.digests import digest, module_digest


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
