import copy
import functools

import originals
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from trainer.engine.frozen.lean_layers import (
    FrozenConvolution,
    Gate,
    Geglu,
    Normed,
    NormSilu,
    free_convolutions,
    fuse_norms,
)


@functools.cache
def built(which):
    return originals.parts(which, tiny=True)["unet"].requires_grad_(requires_grad=False)


@pytest.fixture
def unet(request):
    """A float32 model, whose forward passes are put back afterwards."""
    yield built(getattr(request, "param", "sd15"))
    for module in built(getattr(request, "param", "sd15")).modules():
        module.__dict__.pop("forward", None)


def answers(unet):
    """Prediction and the gradient for the text, through everything that is frozen."""
    torch.manual_seed(3)
    config = unet.config
    dtype = unet.dtype
    states = torch.randn(2, 77, config.cross_attention_dim).to(dtype).requires_grad_()
    added = {}
    if config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim - 6 * 256
        added = {"text_embeds": torch.randn(2, width).to(dtype), "time_ids": torch.randint(64, (2, 6))}
    noisy = torch.randn(2, 4, 16, 24).to(dtype, memory_format=torch.channels_last)
    made = unet(noisy, torch.tensor([10, 900]), states, added_cond_kwargs=added, return_dict=False)[0]
    return made.detach(), torch.autograd.grad(made.square().mean(), states)[0]


def kept_by(compute, but=()):
    """Bytes kept for the backward pass, without those of the tensors named."""
    ignored, seen = {tensor.data_ptr() for tensor in but}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in ignored:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = compute()
    return sum(seen.values()), made


def assert_alike(made, expected, dtype=torch.float32):
    near = {torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    assert (made - expected).norm() <= near * expected.norm()
    assert made.shape == expected.shape
    assert made.dtype == expected.dtype


def norm_of(channels, groups, dtype):
    norm = nn.GroupNorm(groups, channels).requires_grad_(requires_grad=False)
    nn.init.normal_(norm.weight, 1, 0.2)
    nn.init.normal_(norm.bias, 0, 0.2)
    return norm.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape, groups", [((2, 24, 6, 10), 8), ((1, 32, 1, 2), 8), ((3, 8, 5, 4), 1)])
def test_norm_and_activation_in_one_are_those_one_after_the_other(dtype, layout, shape, groups):
    torch.manual_seed(0)
    norm = norm_of(shape[1], groups, dtype)
    x = torch.randn(shape).to(dtype, memory_format=layout).requires_grad_()
    direction = torch.randn(shape).to(dtype)
    plain, made = F.silu(norm(x)), NormSilu.apply(x, norm.weight, norm.bias, groups, norm.eps)
    assert_alike(made, plain, dtype)
    ours, theirs = (torch.autograd.grad(one, x, direction)[0] for one in (made, plain))
    assert_alike(ours, theirs, dtype)


def test_of_norm_and_activation_the_input_alone_is_kept():
    norm = norm_of(16, 4, torch.float32)
    x = torch.randn(1, 16, 8, 8, requires_grad=True)
    weights = (norm.weight, norm.bias)
    kept, _ = kept_by(lambda: NormSilu.apply(x, *weights, 4, norm.eps), but=weights)
    assert kept == x.numel() * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 1, "bias": False},
        {"kernel_size": (3, 1), "padding": (2, 0), "dilation": (2, 1), "groups": 2},
    ],
)
def test_a_frozen_convolution_answers_as_the_plain_one_and_keeps_nothing(dtype, options):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 12, **options).requires_grad_(requires_grad=False).to(dtype)
    x = torch.randn(2, 8, 9, 7).to(dtype, memory_format=torch.channels_last).requires_grad_()
    plain = conv(x)
    kept, made = kept_by(lambda: FrozenConvolution.apply(x, conv))
    assert kept == 0
    assert torch.equal(made, plain)
    direction = torch.randn(made.shape).to(dtype)
    ours, theirs = (torch.autograd.grad(one, x, direction)[0] for one in (made, plain))
    assert_alike(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gate_answers_as_diffusers_feed_forward_and_keeps_its_projection_alone(dtype):
    torch.manual_seed(0)
    feed_forward = FeedForward(6, activation_fn="geglu").to(dtype).requires_grad_(requires_grad=False)
    first, _, last = feed_forward.net
    x = torch.randn(2, 5, 6).to(dtype).requires_grad_()
    projected = first.proj(x)
    kept, gated = kept_by(lambda: Geglu.apply(projected))
    assert kept == projected.nbytes
    made, plain, direction = last(gated), feed_forward(x), torch.randn(2, 5, 6).to(dtype)
    assert_alike(made, plain, dtype)
    ours, theirs = (torch.autograd.grad(one, x, direction)[0] for one in (made, plain))
    assert_alike(ours, theirs, dtype)


def test_a_gradient_that_others_hold_too_is_not_overwritten():
    projected, direction = torch.randn(3, 8, requires_grad=True), torch.randn(3, 4)
    before = direction.clone()
    torch.autograd.grad(Geglu.apply(projected), projected, direction)
    assert torch.equal(direction, before)


@pytest.mark.parametrize("entry, width", [(Gate(), 16), (Normed(nn.LayerNorm(16).requires_grad_(False)), 16)])
def test_an_entry_gives_its_input_s_gradient_and_its_answer_again(entry, width):
    torch.manual_seed(0)
    kept = torch.randn(5, width, requires_grad=True)
    plain = F.layer_norm(kept, (width,)) if isinstance(entry, Normed) else kept[:, :8] * F.gelu(kept[:, 8:])
    direction = torch.randn(plain.shape)
    gradient, again = entry.back(direction.clone(), kept.detach())
    assert_alike(entry.ahead(kept.detach()), plain.detach())
    assert_alike(again, plain.detach())
    assert_alike(gradient, torch.autograd.grad(plain, kept, direction)[0])


@pytest.mark.parametrize("unet, norms", [("sd15", 45 + 4 * 16), ("sdxl", 35 + 3 * 70 + 11)], indirect=["unet"])
def test_whole_models_answer_as_before_and_keep_less(unet, norms):
    exact, weights = answers(copy.deepcopy(unet).double()), list(unet.parameters())
    before, plain = kept_by(lambda: answers(unet), but=weights)
    assert fuse_norms(unet) == norms
    after_norms, _ = kept_by(lambda: answers(unet), but=weights)
    free_convolutions(unet)
    after_convolutions, made = kept_by(lambda: answers(unet), but=weights)
    assert before > after_norms > after_convolutions
    for ours, theirs, right in zip(made, plain, exact, strict=True):
        assert (theirs - right).norm() <= 1e-4 * right.norm()
        assert (ours - right).norm() <= 2 * (theirs - right).norm()  # as near to float64 as plain layers come


def test_names_stay(unet):
    state, modules = list(unet.state_dict()), [name for name, _ in unet.named_modules()]
    fuse_norms(unet)
    free_convolutions(unet)
    assert list(unet.state_dict()) == state
    assert [name for name, _ in unet.named_modules()] == modules


@pytest.mark.parametrize(
    "unusual",
    [
        {"output_scale_factor": 2.0},
        {"non_linearity": "gelu"},
        {"time_embedding_norm": "scale_shift"},
        {"up": True},
        {"down": True},
        {"temb_channels": None},
        {"skip_time_act": True},
    ],
)
def test_residual_layers_of_another_build_are_left_alone(unusual):
    block = ResnetBlock2D(in_channels=8, groups=4, **{"temb_channels": 16} | unusual)
    assert fuse_norms(block.requires_grad_(requires_grad=False)) == 0
    assert fuse_norms(ResnetBlock2D(in_channels=8, groups=4, temb_channels=16)) == 0  # its norms are trained
    assert "forward" not in block.__dict__


def test_convolutions_that_are_trained_or_carry_an_adapter_are_left_alone():
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base_layer = nn.Conv2d(4, 4, 1).requires_grad_(requires_grad=False)

    assert free_convolutions(nn.Sequential(Adapted(), nn.Conv2d(4, 4, 1))) == 0
    strange = [nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")]
    assert free_convolutions(nn.Sequential(*strange).requires_grad_(requires_grad=False)) == 0
