import functools
from contextlib import contextmanager

import originals
import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock

from trainer.contract.settings.learning import AdapterSettings
from trainer.engine.adapters.lora import attach
from trainer.engine.frozen.gradient_checkpointing import apply_level
from trainer.models.lora_names import kohya_name, unet_slots

LEVELS = ["feed_forward", "blocks", "full"]


class OnlyUnet:
    """The part of a family that attaching needs."""

    def __init__(self, which):
        self.unet = originals.parts(which, tiny=True)["unet"].requires_grad_(requires_grad=False)

    def component(self, _):
        return self.unet

    def lora_slots(self, targets, _):
        return unet_slots(self.unet.config, targets)

    def kohya_name(self, component, path):
        return kohya_name(component, path)


@functools.cache
def built(which):
    """One float32 model with an adapter that does something, and dropout; slow to make, so shared."""
    family = OnlyUnet(which)
    adapter = attach(family, AdapterSettings(rank=4, alpha=2.0, dropout=0.3), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for live in adapter.layers.values():
            live.up.copy_(torch.randn(live.up.shape, generator=generator) * 0.1)
    return family.unet, adapter


@contextmanager
def at(level, which="sd15", dropout=False):
    """The model with a level, which is taken back afterwards."""
    unet, adapter = built(which)
    adapter.use_dropout(dropout)
    apply_level(unet, level)
    try:
        yield unet, adapter
    finally:
        unet.disable_gradient_checkpointing()
        for module in unet.modules():
            module.__dict__.pop("forward", None)


def loss_of(unet, seed=3):
    torch.manual_seed(seed)
    config = unet.config
    states = torch.randn(2, 77, config.cross_attention_dim)
    added = {"text_embeds": torch.randn(2, config.projection_class_embeddings_input_dim - 6 * 256)} if _xl(unet) else {}
    added |= {"time_ids": torch.randint(64, (2, 6))} if _xl(unet) else {}
    noisy, t = torch.randn(2, 4, 16, 16), torch.tensor([10, 900])
    torch.manual_seed(seed + 1)  # as the loop does, for dropout
    answer = unet(noisy, t, states, added_cond_kwargs=added, return_dict=False)[0]
    return answer.square().mean()


def _xl(unet):
    return unet.config.addition_embed_type == "text_time"


def learned(unet, adapter, seed=3):
    loss = loss_of(unet, seed)
    return [loss.detach(), *torch.autograd.grad(loss, adapter.parameters())]


def saved_bytes(unet):
    seen = {}

    def keep(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(unet)
    return sum(seen.values())


@pytest.mark.parametrize("which", ["sd15", "sdxl"])
@pytest.mark.parametrize("dropout", [False, True])
def test_every_level_has_the_same_loss_and_gradients_to_the_bit(which, dropout):
    with at("none", which, dropout) as model:
        plain = learned(*model)
    assert all(gradient.norm() > 0 for gradient in plain)
    for level in LEVELS:
        with at(level, which, dropout) as model:
            assert all(map(torch.equal, learned(*model), plain)), level


def test_the_next_random_number_is_the_same_whatever_was_recomputed():
    drawn = set()
    for level in ["none", *LEVELS]:
        with at(level, dropout=True) as model:
            learned(*model)
        drawn.add(float(torch.rand(())))
    assert len(drawn) == 1


def test_each_level_keeps_less_than_the_one_before():
    kept = []
    for level in ["none", *LEVELS]:
        with at(level) as (unet, _):
            kept.append(saved_bytes(unet))
    assert kept == sorted(set(kept), reverse=True)


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_recomputed_or_kept_while_gradients_are_off(level):
    with at("none") as (unet, _), torch.no_grad():
        plain = loss_of(unet)
    calls = []
    with at(level) as (unet, _), torch.no_grad():
        norms = [block.norm3 for block in unet.modules() if isinstance(block, BasicTransformerBlock)]
        hooks = [norm.register_forward_hook(lambda *_: calls.append(1)) for norm in norms]
        assert saved_bytes(unet) == 0
        assert torch.equal(loss_of(unet), plain)
    for hook in hooks:
        hook.remove()
    assert len(calls) == 2 * len(norms)


@pytest.mark.parametrize("level", LEVELS)
def test_names_modules_and_their_mode_stay(level):
    with at("none") as (unet, _):
        state, modules = list(unet.state_dict()), [name for name, _ in unet.named_modules()]
    with at(level) as (unet, _):
        assert list(unet.state_dict()) == state
        assert [name for name, _ in unet.named_modules()] == modules
        assert not unet.training


def test_none_leaves_every_forward_pass_alone():
    with at("none") as (unet, _):
        assert not any("forward" in module.__dict__ for module in unet.modules())


def test_two_passes_before_one_backward_pass_do_not_mix():
    sums, grads = [], []
    for level in ("none", "blocks"):
        with at(level) as (unet, adapter):
            both = loss_of(unet, 3) + loss_of(unet, 5)
            grads.append(torch.autograd.grad(both, adapter.parameters()))
            sums.append(both.detach())
    assert torch.equal(*sums)
    assert all(map(torch.equal, *grads))
