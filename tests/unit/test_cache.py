import pytest
import torch

from trainer.data.cache import TensorCache, digest, module_digest


def test_a_tensor_is_made_once_and_then_read(tmp_path):
    cache, made = TensorCache(tmp_path), []

    def make():
        made.append(1)
        return {"x": torch.arange(3.0)}

    first, second = cache.get("key", make), cache.get("key", make)
    assert torch.equal(first["x"], second["x"])
    assert len(made) == 1


def test_a_damaged_entry_is_made_again(tmp_path):
    (tmp_path / "key.safetensors").write_bytes(b"torn")
    assert torch.equal(TensorCache(tmp_path).get("key", lambda: {"x": torch.ones(2)})["x"], torch.ones(2))
    again = TensorCache(tmp_path).get("key", lambda: pytest.fail("was not stored"))
    assert torch.equal(again["x"], torch.ones(2))


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
