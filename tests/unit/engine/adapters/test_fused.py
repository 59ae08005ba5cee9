import copy

import pytest
import tiny
import torch

from trainer.contract.settings.learning import AdapterSettings
from trainer.engine.adapters.fused import LoraFunction, fuse, fuse_entries
from trainer.engine.adapters.lora import attach
from trainer.engine.families.base import Conditioning
from trainer.engine.frozen.gradient_checkpointing import apply_level
from trainer.engine.frozen.lean_layers import Gate, Normed, free_convolutions, fuse_norms


def make(tiny_model, dtype=torch.bfloat16, **settings):
    family = tiny.load(tiny_model, dtype)
    adapter = attach(family, AdapterSettings(rank=4, alpha=2.0, text_encoder=True, **settings), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for live in adapter.layers.values():
            live.up.copy_(torch.randn(live.up.shape, generator=generator) * 0.1)
    return family, adapter


def predict(family, adapter):
    torch.manual_seed(3)
    text = family.encode_text(family.tokenize(["a red apple"]))
    with torch.autocast("cpu", torch.bfloat16):
        made = family.predict(torch.randn(1, family.unet.config.in_channels, 8, 8), torch.tensor([500]), text)
    grads = torch.autograd.grad(made.float().square().sum(), adapter.parameters())
    return made.detach().float(), torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize("bias", [True, False])
def test_the_function_is_peft_s_formula_in_float32_to_one_millionth(bias):
    torch.manual_seed(0)
    x = torch.randn(12, 20, requires_grad=True)
    weight, offset = torch.randn(30, 20), torch.randn(30) if bias else None
    down, up = torch.randn(4, 20, requires_grad=True), torch.randn(30, 4, requires_grad=True)
    inputs, direction = (x, down, up), torch.randn(12, 30)
    plain = torch.nn.functional.linear(x, weight, offset) + (x @ down.t()) @ up.t() * 0.7
    fused = LoraFunction.apply(x, weight, offset, down, up, 0.7)
    torch.testing.assert_close(fused, plain, rtol=1e-6, atol=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(fused, inputs, direction), torch.autograd.grad(plain, inputs, direction), strict=True
    ):
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


def test_no_gradient_is_made_for_an_input_that_needs_none():
    down, up = torch.randn(2, 5, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    LoraFunction.apply(torch.randn(3, 5), torch.randn(6, 5), None, down, up, 1.0).sum().backward()
    assert down.grad is not None
    assert up.grad is not None


def test_the_whole_model_predicts_and_learns_as_with_peft(tiny_model):
    family, adapter = make(tiny_model)
    expected, gradient = predict(family, adapter)
    assert fuse(family, adapter, dropout=0.0) == len(adapter.layers)
    for fuse_more in (lambda _: 0, fuse_entries, fuse_norms, free_convolutions):
        fuse_more(family.unet)
        made, own_gradient = predict(family, adapter)
        assert (made - expected).norm() <= 0.02 * expected.norm()
        assert (own_gradient - gradient).norm() <= 0.05 * gradient.norm()  # both round to bf16, at different places


@pytest.mark.parametrize("level", ["feed_forward", "blocks", "full"])
def test_what_is_recomputed_is_the_same_to_the_bit(tiny_model, level):
    made = []
    for chosen in ("none", level):
        family, adapter = all_fused(tiny_model)
        fuse_norms(family.unet)
        free_convolutions(family.unet)
        apply_level(family.unet, chosen)
        made.append(predict(family, adapter))
    assert all(map(torch.equal, *made))


def test_switched_off_it_is_the_base(tiny_model):
    family, adapter = make(tiny_model)
    bare = tiny.load(tiny_model, torch.bfloat16)
    fuse(family, adapter, dropout=0.0)
    fuse_entries(family.unet)
    states = torch.randn(1, 77, family.unet.config.cross_attention_dim).to(torch.bfloat16)
    noisy, t = torch.randn(1, family.unet.config.in_channels, 8, 8).to(torch.bfloat16), torch.tensor([500])
    with torch.no_grad(), adapter.switched_off():
        off = family.predict(noisy, t, Conditioning(states))
    assert torch.equal(off, bare.predict(noisy, t, Conditioning(states)))


def test_in_float32_and_with_dropout_peft_computes(tiny_model):
    family, adapter = make(tiny_model, torch.float32)
    assert fuse(family, adapter, dropout=0.0) == 0
    family, adapter = make(tiny_model)
    before = copy.copy(adapter.layers)
    assert fuse(family, adapter, dropout=0.1) == 0
    assert all("forward" not in live.layer.__dict__ for live in before.values())


@pytest.mark.parametrize("entry", [Gate(), Normed(torch.nn.LayerNorm(40).requires_grad_(requires_grad=False))])
@pytest.mark.parametrize("learns", [True, False])
def test_with_an_entry_gradients_are_those_of_both_in_a_row(entry, learns):
    torch.manual_seed(0)
    kept = torch.randn(12, 40, requires_grad=learns)
    inside = entry.ahead(kept).shape[1]
    weight = torch.randn(30, inside)
    down, up = torch.randn(4, inside, requires_grad=True), torch.randn(30, 4, requires_grad=True)
    value, gate = kept.chunk(2, dim=1)
    normed = torch.nn.functional.layer_norm(kept, (40,))
    x = value * torch.nn.functional.gelu(gate) if isinstance(entry, Gate) else normed
    plain = x @ weight.t() + (x @ down.t()) @ up.t() * 0.7
    fused = LoraFunction.apply(kept, weight, None, down, up, 0.7, entry)
    torch.testing.assert_close(fused, plain, rtol=1e-6, atol=1e-5)
    inputs, direction = (kept, down, up) if learns else (down, up), torch.randn(12, 30)
    for ours, theirs in zip(
        torch.autograd.grad(fused, inputs, direction), torch.autograd.grad(plain, inputs, direction), strict=True
    ):
        assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


def states_of(family):
    return torch.randn(1, 77, family.unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(4))


def answer(family):
    noisy = torch.ones(1, family.unet.config.in_channels, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        return family.predict(noisy, torch.tensor([500]), Conditioning(states_of(family).bfloat16())).float()


def all_fused(tiny_model):
    family, adapter = make(tiny_model)
    fuse(family, adapter, dropout=0.0)
    fuse_entries(family.unet)
    return family, adapter


def optimized(adapter):
    for parameter in adapter.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(adapter.parameters(), lr=0.1, fused=True).step()


def put_back(adapter):
    adapter.restore({name: value + 0.1 for name, value in adapter.state().items()})


@torch.no_grad()
def one_layer_changed(adapter):
    live = adapter.layers["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q"]
    live.up.mul_(5)


@pytest.mark.parametrize("change", [optimized, put_back, one_layer_changed])
def test_changed_weights_are_used_at_once(tiny_model, change):
    family, adapter = all_fused(tiny_model)
    with torch.no_grad():
        before = answer(family)
    change(adapter)
    with torch.no_grad():
        after = answer(family)
    fresh, other = all_fused(tiny_model)
    other.restore(adapter.state())
    with torch.no_grad():
        assert torch.equal(after, answer(fresh))
    assert not torch.equal(after, before)


def test_strength_changes_at_once_and_back(tiny_model):
    family, adapter = all_fused(tiny_model)
    with torch.no_grad():
        whole = answer(family)
        with adapter.scaled(0.0):
            nothing = answer(family)
        with adapter.switched_off():
            off = answer(family)
        assert torch.equal(answer(family), whole)
    assert not torch.equal(nothing, whole)
    torch.testing.assert_close(nothing, off, rtol=0.05, atol=0.05)


def test_a_preview_before_a_step_takes_no_gradients_away(tiny_model):
    family, adapter = all_fused(tiny_model)
    with torch.no_grad():
        answer(family)
    answer(family).sum().backward()
    assert all(live.up.grad.norm() > 0 for live in adapter.layers.values() if live.slot.component == "unet")


def test_gradients_arrive_in_float32_shaped_as_their_weights_and_add_up_over_passes(tiny_model):
    family, adapter = all_fused(tiny_model)
    answer(family).sum().backward()
    trained = adapter.groups()["unet"]
    once = [parameter.grad.clone() for parameter in trained]
    assert all(grad.dtype == torch.float32 and grad.shape == p.shape for grad, p in zip(once, trained, strict=True))
    answer(family).sum().backward()
    for parameter, grad in zip(trained, once, strict=True):
        torch.testing.assert_close(parameter.grad, 2 * grad)
    assert all(parameter.grad is None for parameter in adapter.groups()["text_encoder"])  # they were not used


def test_names_stay(tiny_model):
    family, adapter = make(tiny_model)
    state, modules = list(family.unet.state_dict()), [name for name, _ in family.unet.named_modules()]
    fuse(family, adapter, dropout=0.0)
    assert fuse_entries(family.unet) == 4 * 4  # norms before projection, query and feed-forward layer, and its gate
    assert list(family.unet.state_dict()) == state
    assert [name for name, _ in family.unet.named_modules()] == modules


def test_where_layers_carry_no_fused_adapter_norms_stay_and_gates_keep_their_projection(tiny_model):
    family, adapter = make(tiny_model, targets="attention")
    fuse(family, adapter, dropout=0.0)
    assert fuse_entries(family.unet) == 2 * 4
    family, adapter = make(tiny_model, torch.float32)
    plain, gradient = predict(family, adapter)
    assert fuse_entries(family.unet) == 4
    made, own_gradient = predict(family, adapter)
    torch.testing.assert_close(made, plain)
    torch.testing.assert_close(own_gradient, gradient)
