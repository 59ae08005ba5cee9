import copy

import pytest
import tiny
import torch

from trainer.adapters import attach
from trainer.contract.settings import AdapterSettings
from trainer.families.base import Conditioning
from trainer.fused import LoraFunction, fuse


def make(tiny_model, dtype=torch.bfloat16):
    family = tiny.load(tiny_model, dtype)
    adapter = attach(family, AdapterSettings(rank=4, alpha=2.0, text_encoder=True), seed=1)
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
    assert fuse(adapter, dropout=0.0) == len(adapter.layers)
    made, own_gradient = predict(family, adapter)
    assert (made - expected).norm() <= 0.02 * expected.norm()
    assert (own_gradient - gradient).norm() <= 0.05 * gradient.norm()  # both round to bf16, at different places


def test_switched_off_it_is_the_base(tiny_model):
    family, adapter = make(tiny_model)
    bare = tiny.load(tiny_model, torch.bfloat16)
    fuse(adapter, dropout=0.0)
    states = torch.randn(1, 77, family.unet.config.cross_attention_dim).to(torch.bfloat16)
    noisy, t = torch.randn(1, family.unet.config.in_channels, 8, 8).to(torch.bfloat16), torch.tensor([500])
    with torch.no_grad(), adapter.switched_off():
        off = family.predict(noisy, t, Conditioning(states))
    assert torch.equal(off, bare.predict(noisy, t, Conditioning(states)))


def test_in_float32_and_with_dropout_peft_computes(tiny_model):
    _, adapter = make(tiny_model, torch.float32)
    assert fuse(adapter, dropout=0.0) == 0
    _, adapter = make(tiny_model)
    before = copy.copy(adapter.layers)
    assert fuse(adapter, dropout=0.1) == 0
    assert all("forward" not in live.layer.__dict__ for live in before.values())
