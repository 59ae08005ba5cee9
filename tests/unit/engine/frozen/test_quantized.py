"""Frozen weights in 8 and 4 bits: how near they are, and that all else goes on as with the dense ones."""

import copy
import weakref

import originals
import pytest
import tiny
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.contract.settings.learning import AdapterSettings
from trainer.engine.adapters.lora import attach
from trainer.engine.families.base import Conditioning
from trainer.engine.frozen.packing import PackedConv2d, lay_out
from trainer.engine.frozen.quantized import NF4, QuantizedWeight, quantize_weight
from trainer.engine.prepare import keep_less

BITS = ("8bit", "4bit")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def held(module, bits):
    """The module with held weights, and a copy of it with the dense weights that they stand for."""
    module.requires_grad_(requires_grad=False)
    dense = copy.deepcopy(module)
    module.weight = nn.Parameter(quantize_weight(module.weight.data, bits), requires_grad=False)
    dense.weight = nn.Parameter(module.weight.dense(), requires_grad=False)
    return module, dense


def saved_by(compute):
    """What autograd keeps."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        made = compute()
    return made, kept


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits, error", [("8bit", 0.007), ("4bit", 0.095)])
@pytest.mark.parametrize("shape", [(320, 1280), (64, 32, 3, 3), (64, 128, 1, 1)])
def test_what_comes_back_is_near(dtype, bits, error, shape):
    torch.manual_seed(0)
    weight = (torch.randn(shape) * 0.03).to(dtype)
    before = weight.clone()
    made = quantize_weight(weight, bits)
    assert (made.shape, made.dtype) == (weight.shape, dtype)
    assert torch.equal(weight, before), "it may lie in a file that is mapped"
    assert (made.dense().float() - weight.float()).norm() <= error * weight.float().norm()
    largest = weight.movedim(1, -1).reshape(-1, 64).abs().amax(1, keepdim=True).expand(-1, 64)
    off = (made.dense() - weight).movedim(1, -1).reshape(-1, 64).abs()
    widest = max(map(float.__sub__, NF4[1:], NF4[:-1])) if bits == "4bit" else 1 / 127
    assert (off.float() <= largest.float() * (widest / 2 + 0.01)).all()


@pytest.mark.parametrize("bits, size", [("8bit", 1.0), ("4bit", 0.5)])
def test_it_takes_its_bits_and_a_scale_for_each_64(bits, size):
    made = quantize_weight(torch.randn(128, 64, dtype=torch.bfloat16), bits)
    assert made.codes.nbytes == 128 * 64 * size
    assert made.scales.nbytes == 128 * 64 / 64 * 2


def test_normalfloats_values_come_back_as_they_are_and_zeros_too():
    values = torch.tensor(NF4).repeat(8, 4)
    assert torch.equal(quantize_weight(values, "4bit").dense(), values)
    for bits in BITS:
        assert torch.equal(quantize_weight(torch.zeros(2, 64), bits).dense(), torch.zeros(2, 64))


def test_others_stay():
    for weight, bits in ((torch.randn(64), "4bit"), (torch.randn(3, 7), "8bit"), (torch.randn(2, 64), "none")):
        assert quantize_weight(weight, bits) is weight


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Linear(64, 96), (2, 5, 64)),
        (nn.Linear(64, 96, bias=False), (7, 64)),
        (nn.Conv2d(32, 64, 3, padding=1), (2, 32, 6, 5)),
        (nn.Conv2d(32, 64, 3, padding=1, stride=2), (1, 32, 8, 8)),
        (nn.Conv2d(64, 64, 1), (1, 64, 4, 4)),
    ],
)
def test_a_layer_answers_and_learns_as_the_dense_one_and_keeps_its_bits_alone(bits, dtype, layer, shape):
    ours, theirs = held(copy.deepcopy(layer).to(dtype), bits)
    x = torch.randn(shape).to(dtype).requires_grad_()
    made, kept = saved_by(lambda: ours(x))
    expected = theirs(x)
    assert torch.equal(made, expected)
    direction = torch.randn_like(made)
    assert torch.equal(*(torch.autograd.grad(one, x, direction)[0] for one in (made, expected)))
    assert all(isinstance(tensor, QuantizedWeight) for tensor in kept if tensor.numel() == ours.weight.numel())


def test_it_moves_with_its_module_and_is_never_packed():
    model = nn.Sequential(held(nn.Conv2d(64, 64, 3, padding=1), "8bit")[0], held(nn.Linear(64, 64), "4bit")[0])
    assert lay_out(model) == 0
    assert not any(isinstance(module, PackedConv2d) for module in model)
    there = model.to("meta")
    assert all(isinstance(layer.weight, QuantizedWeight) and layer.weight.codes.is_meta for layer in there)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(64, 128), (64, 32, 1, 1), (64, 32, 3, 3)])
def test_any_other_operation_sees_the_dense_weight(bits, shape):
    ours = quantize_weight(torch.randn(shape), bits)
    dense = ours.dense()
    for use in (lambda w: w + 1, lambda w: w.reshape(-1), lambda w: w.flatten(1), lambda w: w.double(), torch.norm):
        assert torch.equal(use(ours) + 0, use(dense))
    matrix, plain = ours.flatten(1), dense.flatten(1)
    assert torch.equal(matrix.t() @ plain, plain.t() @ plain)
    assert torch.equal(matrix.t().t() + 0, plain)


def load(base_model, bits, dtype=torch.bfloat16):
    return tiny.load(base_model, dtype, model={"quantize": bits}, objective={"prediction": "epsilon"})


def make_dense(unet):
    """The same UNet with the dense weights that the held ones stand for."""
    for module in unet.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, QuantizedWeight):
            module.weight = nn.Parameter(weight.dense(), requires_grad=False)


def learn(family, fused):
    """Prediction and gradients of the adapter, and what was kept for them."""
    settings = AdapterSettings(rank=4, alpha=2.0)
    adapter = attach(family, settings, seed=1)
    with torch.no_grad():
        for number, live in enumerate(adapter.layers.values()):
            live.up.copy_(torch.randn(live.up.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    if fused:
        keep_less(family, adapter, 0.0, fused)
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(1, 77, family.unet.config.cross_attention_dim, generator=generator).to(family.unet.dtype)
    noisy = torch.randn(1, family.unet.config.in_channels, 8, 8, generator=generator)

    def predicted():
        with torch.autocast("cpu", torch.bfloat16, enabled=family.unet.dtype == torch.bfloat16):
            return family.predict(noisy, torch.tensor([500]), Conditioning(states)).float()

    made, kept = saved_by(predicted)
    grads = torch.autograd.grad(made.square().sum(), adapter.parameters())
    return made.detach(), torch.cat([grad.flatten() for grad in grads]), kept


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("level", ["", "none", "blocks"])
def test_the_whole_model_learns_as_with_the_dense_weights_and_keeps_no_more(tiny_model, bits, dtype, level):
    ours, theirs = load(tiny_model, bits, dtype), load(tiny_model, bits, dtype)
    make_dense(theirs.unet)
    made, gradient, kept = learn(ours, level)
    expected, direction, kept_by_dense = learn(theirs, level)
    assert torch.equal(made, expected)
    assert torch.equal(gradient, direction)
    assert beside_weights(ours.unet, kept) == beside_weights(theirs.unet, kept_by_dense)


def beside_weights(unet, kept):
    """Bytes of the tensors that were kept and are no weights of the model, held or dense."""
    weights = {
        weight.untyped_storage()._cdata for weight in unet.parameters() if not isinstance(weight, QuantizedWeight)
    }
    plain = {
        one.untyped_storage()._cdata: one.untyped_storage() for one in kept if not isinstance(one, QuantizedWeight)
    }
    return sum(storage.nbytes() for key, storage in plain.items() if key not in weights)


class MostBytes(TorchDispatchMode):
    """The most bytes of floats that operations have made and that are there at once."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = set()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        made = op(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if type(tensor) is torch.Tensor and tensor.is_floating_point() and not tensor.is_meta:
                self.enter(tensor.untyped_storage())
        return made

    def enter(self, storage):
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.leave, storage._cdata, storage.nbytes())

    def leave(self, key, size):
        self.known.discard(key)
        self.now -= size


@pytest.fixture(scope="module", params=["sd15", "sd2", "sdxl", "folder"])
def base_model(request, tmp_path_factory, tiny_model):
    if request.param == "folder":
        return tiny_model
    return originals.write_file(tmp_path_factory.mktemp("base") / "model.safetensors", request.param)


@pytest.mark.parametrize("bits", BITS)
def test_it_is_quantized_while_it_is_loaded(base_model, bits):
    unet, dense = load(base_model, bits).unet, dict(load(base_model, "none").unet.named_parameters())
    for name, weight in unet.named_parameters():
        blocks = name.startswith(("down_blocks.", "mid_block.", "up_blocks."))
        assert isinstance(weight, QuantizedWeight) == (blocks and weight.ndim > 1)
        near = weight.dense() if isinstance(weight, QuantizedWeight) else weight
        assert (near - dense[name]).float().norm() <= 0.1 * dense[name].float().norm()


@pytest.mark.parametrize("bits", BITS)
def test_the_dense_weights_are_never_there_together(base_model, bits):
    family = load(base_model, bits)
    with MostBytes() as seen:
        unet = family.unet
    weights = list(unet.parameters())
    sizes = [weight.numel() for weight in weights if isinstance(weight, QuantizedWeight)]
    others = sum(weight.nbytes for weight in weights if not isinstance(weight, QuantizedWeight))
    scales = sum(sizes) / 64 * 2
    moment = 2 + 3 * 4  # bytes a weight while one is quantized: in bf16, and in float32 with what is made of that
    assert seen.most <= others + scales + moment * max(sizes)
    assert moment * max(sizes) < 2 * sum(sizes), "the bound means something"
