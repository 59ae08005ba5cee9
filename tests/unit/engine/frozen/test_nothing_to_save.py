"""A memory saving that finds nothing to act on is refused instead of silently saving nothing."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trainer.contract.errors import TrainerError
from trainer.engine.adapters.lora import Adapter
from trainer.engine.errors import NothingToSave
from trainer.engine.families.parts import Storage, _fill_unet
from trainer.engine.frozen.gradient_checkpointing import apply_level
from trainer.engine.frozen.streaming import blocks_of, stream
from trainer.engine.prepare import keep_less

CPU = torch.device("cpu")


def transformer():
    """A frozen transformer that is not built from diffusers' blocks."""
    layer = nn.TransformerEncoderLayer(d_model=64, nhead=4, dim_feedforward=128, batch_first=True)
    return nn.TransformerEncoder(layer, num_layers=2).requires_grad_(requires_grad=False)


@pytest.mark.parametrize("level", ["feed_forward", "blocks", "full"])
def test_gradient_checkpointing_needs_blocks_it_can_recompute(level):
    with pytest.raises(NothingToSave) as refused:
        apply_level(transformer(), level)
    assert level in refused.value.message
    assert "--model.gradient_checkpointing none" in console_hint(refused.value)


def test_without_gradient_checkpointing_any_model_will_do():
    assert apply_level(transformer(), "none") == 0


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_quantization_needs_weights_it_can_quantize(bits):
    model = transformer()
    with pytest.raises(NothingToSave) as refused:
        _fill_unet(model, dict(model.state_dict()), Storage(torch.float32, bits))
    assert bits in refused.value.message
    assert "--model.quantize none" in console_hint(refused.value)


def test_offloading_needs_blocks():
    with pytest.raises(NothingToSave) as refused:
        stream(blocks_of(transformer()), CPU)
    assert "--model.offload off" in console_hint(refused.value)


@pytest.mark.parametrize("model, lacks", [(transformer(), "norms"), (nn.Conv2d(4, 4, 3), "norms")])
def test_lean_layers_need_norms_convolutions_and_blocks_of_a_known_kind(model, lacks):
    family = SimpleNamespace(component=lambda _name: model)
    with pytest.raises(NothingToSave, match=lacks) as refused:
        keep_less(family, Adapter({}, rank=4, alpha=4.0), 0.0, "none")
    assert isinstance(refused.value, TrainerError)
    assert refused.value.code == "nothing_to_save"


def console_hint(error):
    """The hint as the console shows it."""
    return str(TrainerError(error.hint, ""))
