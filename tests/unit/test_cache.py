import pytest
import torch

from trainer.data.cache import TensorCache, digest, folder_digest


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


def test_a_models_digest_follows_its_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    before = folder_digest(tmp_path)
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    (copy / "config.json").write_text("{}")
    (copy / "model.safetensors").write_bytes(b"two")
    assert folder_digest(copy) != before
