import gc
import platform
import weakref

import pytest
import torch
from torch import nn

from trainer.engine.frozen.packing import PackedConv2d, lay_out

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available(),
    reason="weights are packed on x86 only",
)


def conv(inside, outside, kernel=3, padding=1, bias=True, dtype=torch.float32, **options):
    torch.manual_seed(0)
    made = nn.Conv2d(inside, outside, kernel, padding=padding, bias=bias, **options)
    return made.to(dtype).requires_grad_(requires_grad=False)


def answers(module, x, grad=None):
    x = x.clone().requires_grad_()
    made = module(x)
    grad = torch.ones_like(made) if grad is None else grad
    return made.detach(), torch.autograd.grad(made, x, grad)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernel, padding", [(3, 1), (1, 0), (5, 2), ((3, 1), (1, 0))])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_convolution_answers_as_the_plain_one(dtype, kernel, padding, bias):
    plain = conv(24, 40, kernel, padding, bias, dtype)
    packed = PackedConv2d(plain)
    x = torch.randn(2, 24, 9, 7).to(dtype, memory_format=torch.channels_last)
    direction = torch.randn(2, 40, 9, 7).to(dtype)
    for ours, theirs in zip(answers(packed, x, direction), answers(plain, x, direction), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_packed_weight_serves_every_size_with_the_same_bits(dtype):
    """Else a resumed run, which sees another size first, would differ from one without a break."""
    plain = conv(32, 64, dtype=dtype)
    sizes = [(1, 4, 4), (4, 4, 4), (1, 32, 16), (2, 5, 64)]
    inputs = [torch.randn(count, 32, height, width).to(dtype) for count, height, width in sizes]
    made = []
    for first in inputs:
        packed = PackedConv2d(plain)
        answers(packed, first)
        made.append([answers(packed, x) for x in inputs])
    for others in made[1:]:
        for one, other in zip(made[0], others, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
    near = {"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    for x, (answer, _) in zip(inputs, made[0], strict=True):
        torch.testing.assert_close(answer, plain(x), **near)


def test_the_plain_weight_is_kept_for_previews_and_given_up_in_the_first_training_step():
    plain = conv(8, 8)
    held = weakref.ref(plain.weight.untyped_storage())
    packed, expected = PackedConv2d(plain), plain(torch.ones(1, 8, 4, 4))
    del plain
    with torch.no_grad():
        torch.testing.assert_close(packed(torch.ones(1, 8, 4, 4)), expected)
    assert held() is not None
    answers(packed, torch.ones(2, 8, 16, 16))
    gc.collect()
    assert held() is None
    torch.testing.assert_close(packed(torch.ones(1, 8, 4, 4)), expected)


def test_an_input_of_another_dtype_is_cast_as_autocast_would():
    packed = PackedConv2d(conv(8, 8, dtype=torch.bfloat16))
    made, back = answers(packed, torch.randn(1, 8, 6, 6))
    assert made.dtype == torch.bfloat16
    assert back.dtype == torch.float32


def test_only_plain_frozen_convolutions_are_packed():
    left = {
        "stride": conv(8, 8, stride=2),
        "grouped": conv(8, 8, groups=2),
        "dilated": conv(8, 8, dilation=2),
        "circular": conv(8, 8, padding_mode="circular"),
        "same": conv(8, 8, padding="same"),
        "trained": conv(8, 8).requires_grad_(requires_grad=True),
        "in_half": conv(8, 8, dtype=torch.float16),
        "base_layer": conv(8, 8),  # peft reads the weight of what it wraps
    }
    model = nn.ModuleDict({**left, "plain": conv(8, 8)})
    assert lay_out(model) == 1
    assert isinstance(model["plain"], PackedConv2d)
    assert model["stride"].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(type(model[name]) is nn.Conv2d for name in left)


def test_elsewhere_nothing_is_packed(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    model = nn.Sequential(conv(8, 8))
    assert lay_out(model) == 0
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
