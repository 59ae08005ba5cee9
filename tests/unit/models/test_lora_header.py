import pytest
import torch
from safetensors.torch import save_file

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.config import validated
from trainer.contract.settings.learning import AdapterSettings
from trainer.contract.wording import for_console
from trainer.models.lora_header import check_start
from trainer.planning.ready import settled


def lora(path, ranks=(4,), alphas=(2.0,), dtype=torch.float32):
    """A LoRA file of as many layers as there are ranks."""
    tensors = {}
    for number, (rank, alpha) in enumerate(zip(ranks, alphas, strict=True)):
        layer = f"lora_unet_mid_block_attentions_0_transformer_blocks_{number}_attn1_to_q"
        tensors[f"{layer}.alpha"] = torch.tensor(alpha, dtype=dtype)
        tensors[f"{layer}.lora_down.weight"] = torch.zeros(rank, 192, dtype=dtype)  # as wide as pocket
        tensors[f"{layer}.lora_up.weight"] = torch.zeros(192, rank, dtype=dtype)
    save_file(tensors, path)
    return path


def settings(path, rank=4, alpha=2.0):
    return AdapterSettings(rank=rank, alpha=alpha, start_from=str(path))


def test_without_a_file_there_is_nothing_to_check():
    check_start(AdapterSettings())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [2.0, 0.3])
def test_a_file_of_the_same_rank_and_alpha_fits_whatever_its_format(tmp_path, dtype, alpha):
    file = lora(tmp_path / "ana.safetensors", (4, 4), (alpha, alpha), dtype)
    check_start(settings(file, alpha=alpha))


@pytest.mark.parametrize(
    ("wished", "told", "hint", "places"),
    [
        ({"rank": 8}, "has rank 4; the run has rank 8", "--adapter.rank 4", {"adapter.rank"}),
        ({"alpha": 2.1}, "has alpha 2; the run has alpha 2.1", "--adapter.alpha 2", {"adapter.alpha"}),
        (
            {"rank": 8, "alpha": 8.0},
            "has rank 4 and alpha 2; the run has rank 8 and alpha 8",
            "--adapter.rank 4 --adapter.alpha 2",
            {"adapter.rank", "adapter.alpha"},
        ),
    ],
)
def test_another_rank_or_alpha_is_refused_with_what_to_set(tmp_path, wished, told, hint, places):
    with pytest.raises(InvalidSettings) as caught:
        check_start(settings(lora(tmp_path / "ana.safetensors"), **wished))
    assert caught.value.message == f"ana.safetensors {told}."
    assert for_console(caught.value.hint) == f"Set {hint}."
    assert set(caught.value.places) == places


@pytest.mark.parametrize(("ranks", "alphas", "told"), [((4, 8), (2.0, 2.0), "rank"), ((4, 4), (2.0, 4.0), "alpha")])
def test_a_file_of_several_ranks_or_alphas_is_refused_with_a_layer_of_each(tmp_path, ranks, alphas, told):
    low, high = ranks if told == "rank" else alphas
    seen = rf"different {told}, .*: lora_\w+_0_attn1_to_q has {low:g}, lora_\w+_1_attn1_to_q {high:g}\."
    with pytest.raises(InvalidSettings, match=seen):
        check_start(settings(lora(tmp_path / "ana.safetensors", ranks, alphas)))


@pytest.mark.parametrize("data", [b"", b"<!doctype html><title>Log in</title>", b"\x80\x04.", b"\xff" * 40])
def test_a_file_of_another_kind_is_named_with_what_it_is(tmp_path, data):
    (tmp_path / "odd.safetensors").write_bytes(data)
    with pytest.raises(InvalidSettings, match=r"The LoRA file .*odd\.safetensors cannot be used: it ") as caught:
        check_start(settings(tmp_path / "odd.safetensors"))
    assert set(caught.value.places) == {"adapter.start_from"}


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    file = lora(tmp_path / "ana.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InvalidSettings, match="truncated"):
        check_start(settings(file))


def test_a_file_that_is_not_there_is_named_with_its_path(tmp_path):
    with pytest.raises(InvalidSettings) as caught:
        check_start(settings(tmp_path / "gone.safetensors"))
    assert caught.value.message == f"The LoRA file {tmp_path / 'gone.safetensors'} does not exist."


def test_a_run_names_the_file_by_its_full_path_and_is_not_made_if_that_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lora(tmp_path / "ana.safetensors")
    values = {"dataset": {"images": "pictures"}, "adapter": {"rank": 4, "alpha": 2.0, "start_from": "ana.safetensors"}}
    assert settled(validated(values)).adapter.start_from == str(tmp_path / "ana.safetensors")
    values["adapter"]["rank"] = 16
    with pytest.raises(InvalidSettings, match="has rank 4"):
        settled(validated(values))
