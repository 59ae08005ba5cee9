import json
import struct

import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trainer.contract.errors import FileExists, ProofFailed
from trainer.contract.settings.learning import AdapterSettings
from trainer.engine.adapters.lora import attach
from trainer.engine.adapters.lora_file import body_hash, client_delta, export, file_tensors, serialise, verify
from trainer.engine.families.base import Conditioning
from trainer.models.errors import UnsupportedModel
from trainer.models.lora_names import kohya_name


def load(tiny_model, dtype=torch.float32):
    return tiny.load(tiny_model, dtype)


@pytest.fixture
def family(tiny_model):
    return load(tiny_model)


@pytest.fixture
def adapter(family):
    made = attach(family, AdapterSettings(rank=4, alpha=2.0, text_encoder=True), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for live in made.layers.values():
            live.up.copy_(torch.randn(live.up.shape, generator=generator) * 0.1)
    return made


@pytest.mark.parametrize("text_encoder", [True, False])
@pytest.mark.parametrize("targets", ["attention", "attention_mlp"])
def test_exactly_the_key_tables_layers_are_attached(tiny_model, targets, text_encoder):
    family = load(tiny_model)
    adapter = attach(family, AdapterSettings(rank=2, targets=targets, text_encoder=text_encoder), seed=0)
    components = ["unet", "text_encoder"] if text_encoder else ["unet"]
    assert list(adapter.layers) == list(family.lora_slots(targets, components))
    assert (len(adapter.groups()) == 2) == text_encoder


def test_lora_weights_are_float32_and_alone_trained_on_a_bf16_base(tiny_model):
    family = load(tiny_model, torch.bfloat16)
    adapter = attach(family, AdapterSettings(rank=2, text_encoder=True), seed=0)
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}
    assert family.unet.conv_in.weight.dtype == torch.bfloat16
    trained = [p for m in (family.unet, family.text_encoders[0]) for p in m.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in adapter.parameters()}


def test_a_fresh_adapter_changes_nothing(family):
    fresh = attach(family, AdapterSettings(rank=4), seed=1)
    assert all(live.delta().abs().max() == 0 for live in fresh.layers.values())


def test_a_layer_the_libraries_renamed_is_an_error_not_a_silent_loss(family):
    family.unet.mid_block.attentions[0].proj_input = family.unet.mid_block.attentions[0].proj_in
    del family.unet.mid_block.attentions[0].proj_in
    with pytest.raises(UnsupportedModel, match="lora_unet_mid_block_attentions_0_proj_in"):
        attach(family, AdapterSettings(rank=2), seed=0)


def test_switched_off_the_base_answers_as_it_was_and_then_the_adapter_again(tiny_model, family, adapter):
    shape = (2, family.spec.latent_channels, 8, 8)
    noisy, t = torch.randn(shape, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 900])
    said = Conditioning(family.encode_text(family.tokenize(["a ball", "a box"])).states.detach())
    base = load(tiny_model)
    expected = base.predict(noisy, t, said).detach()
    with_it = family.predict(noisy, t, said).detach()
    with torch.no_grad(), adapter.switched_off():
        assert torch.equal(family.predict(noisy, t, said), expected)
    assert torch.equal(family.predict(noisy, t, said).detach(), with_it)
    assert not torch.equal(with_it, expected)
    assert all(parameter.requires_grad for parameter in adapter.parameters())


def test_state_and_restore_are_inverse(adapter):
    state = {name: tensor.clone() for name, tensor in adapter.state().items()}
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.zero_()
    adapter.restore(state)
    assert all(torch.equal(adapter.state()[name], tensor) for name, tensor in state.items())


def test_the_file_holds_three_tensors_a_layer_one_alpha_and_nothing_else(tmp_path, adapter):
    made = export(tmp_path / "x.safetensors", adapter, "fp16", {})
    tensors = load_file(made.path)
    assert len(tensors) == 3 * len(adapter.layers)
    alphas = [tensor for name, tensor in tensors.items() if name.endswith(".alpha")]
    assert {(alpha.dtype, alpha.shape, float(alpha)) for alpha in alphas} == {(torch.float32, (), 2.0)}
    weights = {tensor.dtype for name, tensor in tensors.items() if name.endswith(".weight")}
    assert weights == {torch.float16}
    assert all(name.count(".") <= 2 for name in tensors)


def test_convolutions_stay_four_dimensional_and_linear_layers_two(tmp_path, adapter):
    tensors = load_file(export(tmp_path / "x.safetensors", adapter, "fp32", {}).path)
    for name, live in adapter.layers.items():
        assert tensors[f"{name}.lora_down.weight"].ndim == len(live.slot.shape)
        assert tensors[f"{name}.lora_up.weight"].ndim == len(live.slot.shape)


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-6), ("fp16", 1e-3), ("bf16", 1e-2)])
def test_a_clients_weight_update_is_the_live_one(tmp_path, adapter, dtype, tolerance):
    tensors = load_file(export(tmp_path / "x.safetensors", adapter, dtype, {}).path)
    for name, live in adapter.layers.items():
        down, up, alpha = (tensors[f"{name}.{leaf}"] for leaf in ("lora_down.weight", "lora_up.weight", "alpha"))
        error = (client_delta(down, up, alpha) - live.delta()).norm() / live.delta().norm()
        assert error < tolerance


def test_a_layers_own_scaling_is_folded_so_that_alpha_stays_uniform(tmp_path, adapter):
    name, live = next(iter(adapter.layers.items()))
    live.layer.scaling["default"] *= 3.0
    tensors = load_file(export(tmp_path / "x.safetensors", adapter, "fp32", {}).path)
    assert float(tensors[f"{name}.alpha"]) == 2.0
    down, up = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]
    torch.testing.assert_close(client_delta(down, up, tensors[f"{name}.alpha"]), live.delta())


def test_the_tiny_values_of_the_first_steps_pass_the_proof(tmp_path, adapter):
    with torch.no_grad():
        for live in adapter.layers.values():
            live.up.copy_(torch.randn(live.up.shape, generator=torch.Generator().manual_seed(0)) * 1e-6)
    assert export(tmp_path / "x.safetensors", adapter, "fp16", {}).bytes


def test_the_hashes_are_those_of_the_bytes_after_the_header(tmp_path, adapter):
    made = export(tmp_path / "x.safetensors", adapter, "fp16", {"ss_output_name": "x"})
    data = made.path.read_bytes()
    with safe_open(made.path, "pt") as file:
        metadata = file.metadata()
    (size,) = struct.unpack("<Q", data[:8])
    assert json.loads(data[8 : 8 + size])["__metadata__"] == metadata
    assert metadata["sshs_model_hash"] == body_hash(data)
    assert metadata["modelspec.hash_sha256"] == "0x" + body_hash(data)


def corrupt(adapter, change):
    """The adapter's file tensors with one thing changed, as bytes."""
    tensors = file_tensors(adapter, torch.float16)
    return serialise(change(tensors) or tensors, {})


def rename(tensors, old, new):
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


def wrong_alpha(tensors):
    for name in tensors:
        if name.endswith(".alpha"):
            tensors[name] = torch.tensor(4.0)


def one_wrong_alpha(tensors):
    tensors[next(name for name in tensors if name.endswith(".alpha"))] = torch.tensor(4.0)


def not_finite(tensors):
    tensors[next(name for name in tensors if "lora_up" in name)][0] = float("nan")


def lost_layer(tensors):
    first = next(iter(tensors)).split(".")[0]
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{first}.")}


def foreign_tensor(tensors):
    tensors["extra.weight"] = torch.zeros(1)


def flattened_convolution(tensors):
    for name in tensors:
        if "proj_in" in name and name.endswith("weight"):
            tensors[name] = tensors[name].flatten(1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (wrong_alpha, "off by 100"),
        (one_wrong_alpha, "off by 100"),
        (lambda tensors: rename(tensors, "lora_te_text_model_", "lora_te_"), "key table"),
        (lambda tensors: rename(tensors, "lora_te_", "lora_te1_"), "key table"),
        (not_finite, "not finite"),
        (lost_layer, "key table"),
        (foreign_tensor, "key table"),
        (flattened_convolution, "shape"),
    ],
    ids=["alpha", "one alpha", "flat te", "te1", "nan", "lost", "foreign", "2d conv"],
)
def test_the_proof_catches(tmp_path, adapter, change, reason):
    file = tmp_path / "bad.safetensors"
    file.write_bytes(corrupt(adapter, change))
    with pytest.raises(ProofFailed, match=reason):
        verify(file, adapter, "fp16")


def test_the_proof_catches_a_hash_of_something_else(tmp_path, adapter):
    file = tmp_path / "bad.safetensors"
    save_file(file_tensors(adapter, torch.float16), file, {"sshs_model_hash": "0" * 64})
    with pytest.raises(ProofFailed, match="sshs_model_hash"):
        verify(file, adapter, "fp16")


def test_an_adapter_that_is_not_finite_is_never_written(tmp_path, adapter):
    with torch.no_grad():
        next(iter(adapter.layers.values())).up.fill_(float("inf"))
    with pytest.raises(ProofFailed):
        export(tmp_path / "x.safetensors", adapter, "fp32", {})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_never_overwritten(tmp_path, adapter):
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"precious")
    with pytest.raises(FileExists):
        export(file, adapter, "fp16", {})
    assert file.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [file]


def test_names_in_the_file_are_those_of_the_live_modules(family, adapter):
    for component in ("unet", "text_encoder"):
        for path, module in family.component(component).named_modules():
            if hasattr(module, "lora_A"):
                assert kohya_name(component, path) in adapter.layers


def test_dropout_is_active_in_training_and_silent_in_previews(family):
    adapter = attach(family, AdapterSettings(rank=4, dropout=0.5), seed=0)
    live = next(iter(adapter.layers.values()))
    with torch.no_grad():
        live.up.normal_()
    given = torch.randn(1, *([live.slot.shape[1]] if len(live.slot.shape) == 2 else [live.slot.shape[1], 4, 4]))
    assert not torch.equal(live.layer(given), live.layer(given))
    adapter.use_dropout(wanted=False)
    assert torch.equal(live.layer(given), live.layer(given))
