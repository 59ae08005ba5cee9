"""A base whose blocks lie in system memory: the same to the bit, and two of them at most are on the device."""

import contextlib
import itertools
from types import SimpleNamespace

import pytest
import tiny
import torch
from benchmarks import memory as counts
from benchmarks.counts import Bare
from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.contract.errors import OutOfMemory
from trainer.contract.events import EventLog, Warned, read_events
from trainer.contract.settings.config import validated
from trainer.contract.settings.learning import AdapterSettings
from trainer.engine import savings
from trainer.engine.adapters.lora import attach
from trainer.engine.families.base import Conditioning
from trainer.engine.frozen import streaming
from trainer.engine.frozen.gradient_checkpointing import apply_level
from trainer.engine.frozen.packing import lay_out
from trainer.engine.frozen.quantized import QuantizedWeight, quantize_weight
from trainer.engine.frozen.streaming import Place, StreamedWeight, blocks_of, stream, streamed
from trainer.engine.prepare import keep_less
from trainer.engine.savings import Ladder
from trainer.models.lora_names import kohya_name, unet_slots
from trainer.planning import memory

CPU = torch.device("cpu")
BITS = ("none", "8bit", "4bit")


def built(base_model, streams, bits="none", dtype=torch.bfloat16):
    """A model with an adapter that does something, laid out as for training but not packed, which rounds otherwise."""
    model = {"quantize": bits, "offload": "on" if streams else "off"}
    family = tiny.load(base_model, dtype, model=model, objective={"prediction": "epsilon"})
    return family, adapted(family)


def adapted(family):
    adapter = attach(family, AdapterSettings(rank=4, alpha=2.0), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for live in adapter.layers.values():
            live.up.copy_(torch.randn(live.up.shape, generator=generator) * 0.1)
    family.unet.to(memory_format=torch.channels_last)
    keep_less(family, adapter, 0.0, "none")
    return adapter


def predicted(family, seed=3):
    rng, config = torch.Generator().manual_seed(seed), family.unet.config
    dtype = family.unet.dtype
    text = Conditioning(
        torch.randn(1, 9, config.cross_attention_dim, generator=rng).to(dtype),
    )
    noisy = torch.randn(1, config.in_channels, 16, 16, generator=rng)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        return family.predict(noisy, torch.tensor([500]), text).float()


def learnt(family, adapter, steps=1):
    """Losses and gradients."""
    made = []
    for seed in range(3, 3 + steps):
        loss = predicted(family, seed).square().mean()
        made += [loss.detach(), *torch.autograd.grad(loss, adapter.parameters())]
    return made


def take_back(unet):
    """The level that was applied."""
    unet.disable_gradient_checkpointing()
    for module in unet.modules():
        recomputed = module.__dict__.get("forward")
        if hasattr(recomputed, "plain") and type(recomputed).__name__ == "_Recomputed":
            module.forward = recomputed.plain


def weights_of(unet):
    return [weight for weight in unet.parameters() if isinstance(weight, StreamedWeight)]


def buffers_of(unet):
    (buffers,) = {weight.block.buffers for weight in weights_of(unet)}
    return buffers


@pytest.mark.parametrize("bits, dtype", [*((bits, torch.bfloat16) for bits in BITS), ("none", torch.float32)])
def test_it_learns_the_same_to_the_bit_at_every_level(tiny_model, bits, dtype):
    expected = learnt(*built(tiny_model, False, bits, dtype))
    family, adapter = built(tiny_model, True, bits, dtype)
    assert all(gradient.norm() > 0 for gradient in expected)
    for level in ("none", *memory.LEVELS):  # the first time nobody knows what follows
        apply_level(family.unet, level)
        assert all(map(torch.equal, learnt(family, adapter), expected)), level
        take_back(family.unet)


class OnlyUnet:
    """A small UNet of SDXL's build: linear projections, and several transformer blocks after each residual layer."""

    def __init__(self):
        torch.manual_seed(0)
        self.unet = UNet2DConditionModel(
            layers_per_block=1,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=2,
            norm_num_groups=8,
            use_linear_projection=True,
            transformer_layers_per_block=(1, 2),
        ).requires_grad_(requires_grad=False)

    def component(self, _):
        return self.unet

    def lora_slots(self, targets, _):
        return unet_slots(self.unet.config, targets)

    def kohya_name(self, component, path):
        return kohya_name(component, path)

    def predict(self, noisy, t, text):
        return self.unet(noisy, t, text.states, return_dict=False)[0]


@pytest.mark.parametrize("bits", BITS)
def test_what_the_blocks_weigh_is_streamed_and_the_rest_stays(tiny_model, bits):
    unet = built(tiny_model, True, bits)[0].unet
    for name, weight in unet.named_parameters():
        inside = name.startswith(("down_blocks.", "mid_block.", "up_blocks.")) and "lora_" not in name
        assert isinstance(weight, StreamedWeight) == (inside and weight.ndim > 1), name
        if isinstance(weight, StreamedWeight):
            assert isinstance(weight.stored, QuantizedWeight) == (bits != "none")
            assert not weight.requires_grad


@pytest.mark.parametrize("bits, level", [("none", "none"), ("none", "blocks"), ("4bit", "none")])
def test_nothing_is_kept_for_the_backward_pass_but_where_it_lies(tiny_model, bits, level):
    kept, (family, _) = [], built(tiny_model, True, bits)
    apply_level(family.unet, level)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        predicted(family)
    assert any(isinstance(tensor, StreamedWeight) for tensor in kept)
    plain = {tensor.untyped_storage()._cdata for tensor in kept if not isinstance(tensor, StreamedWeight)}
    assert not plain & {slot.room.untyped_storage()._cdata for slot in buffers_of(family.unet).slots}
    theirs, (dense, _) = [], built(tiny_model, False, bits)
    apply_level(dense.unet, level)
    with torch.autograd.graph.saved_tensors_hooks(lambda one: theirs.append(one) or one, lambda one: one):
        predicted(dense)
    assert len(kept) == len(theirs)
    assert [one.shape for one in kept] == [one.shape for one in theirs]


class Watched:
    """What happens in the buffers, and the most bytes of weights that any module finds there."""

    def __init__(self, unet, monkeypatch):
        self.buffers, self.events, self.most = buffers_of(unet), [], 0
        for name in ("fill", "enter", "leave"):
            self.note(name, monkeypatch)
        for module in unet.modules():
            module.register_forward_hook(self.look)
            if isinstance(module, nn.Linear):
                module.register_full_backward_hook(self.look)

    def note(self, name, monkeypatch):
        plain = getattr(Place, name)

        def noted(slot, *block):
            plain(slot, *block)
            self.events.append((name, slot.block))

        monkeypatch.setattr(Place, name, noted)

    def look(self, *_):
        there = [slot.block for slot in self.buffers.slots if slot.block]
        self.most = max(self.most, sum(len(block.room) for block in there))

    def copies(self):
        """How many blocks were copied, and how many of these only when they were asked for; then it forgets."""
        names = [name for name, _ in self.events]
        late = sum(pair == ("leave", "fill") for pair in itertools.pairwise(names))
        self.events.clear()
        return names.count("fill"), late


@pytest.mark.parametrize("bits, level", [("none", "none"), ("none", "full"), ("8bit", "blocks"), ("4bit", "none")])
def test_two_blocks_are_there_at_most_and_the_next_one_is_copied_ahead(tiny_model, monkeypatch, bits, level):
    family, adapter = built(tiny_model, True, bits)
    apply_level(family.unet, level)
    seen = Watched(family.unet, monkeypatch)
    sizes = [len(block.room) for block in {weight.block for weight in weights_of(family.unet)}]
    turns, passes = len(sizes) - 1, []
    for seed in (3, 4, 5, 6):
        torch.autograd.grad(predicted(family, seed).sum(), adapter.parameters())
        passes.append(seen.copies())
    assert passes[0][1] > 0, "nobody knows the order yet"
    assert passes[2:] == [(2 * (turns - 1), 0)] * 2, "there and back, but for those that are still there at each end"
    rooms = [len(slot.room) for slot in seen.buffers.slots]
    assert rooms == [max(sizes)] * 2
    assert max(sizes) < seen.most
    assert sum(rooms) < sum(sizes) / 2, "the bound means something"


class OnOneDevice(TorchDispatchMode):
    """Refuses operations with or on tensors that lie elsewhere."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        made = op(*args, **(kwargs or {}))
        seen = [leaf for leaf in tree_leaves((args, kwargs, made)) if isinstance(leaf, torch.Tensor)]
        assert all(tensor.is_meta for tensor in seen), op
        return made


@pytest.mark.parametrize("bits, level", [("none", "none"), ("4bit", "full")])
def test_on_another_device_blocks_stay_where_they_are_and_all_is_computed_there(monkeypatch, bits, level):
    family, there = OnlyUnet(), torch.device("meta")
    family.unet.to(torch.bfloat16)
    for owner, name in (place for block in blocks_of(family.unet) for place in streamed(block)):
        setattr(owner, name, nn.Parameter(quantize_weight(getattr(owner, name).data, bits), requires_grad=False))
    stream(blocks_of(family.unet), there)
    family.unet.to(there)
    adapter = adapted(family)
    apply_level(family.unet, level)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such device
    inputs = [torch.randn(shape, device=there, dtype=torch.bfloat16) for shape in ((1, 4, 16, 16), (1, 9, 32))]
    with OnOneDevice():
        made = family.predict(inputs[0], torch.tensor([500], device=there), Conditioning(inputs[1]))
        gradients = torch.autograd.grad(made.float().sum(), adapter.parameters())
    assert all(gradient.is_meta for gradient in gradients)
    assert {weight.device for weight in family.unet.parameters()} == {there}
    for weight in weights_of(family.unet):
        assert (weight.stored.codes if bits == "4bit" else weight.stored).device == CPU


class Lane:
    """A stream of a card without the card: it knows how far each stream was at what it has waited for."""

    def __init__(self):
        self.reached = {self: 0}

    def tick(self):
        self.reached[self] += 1
        return self.reached[self]

    def wait_event(self, mark):
        for lane, place in mark.reached.items():
            self.reached[lane] = max(place, self.reached.get(lane, 0))


class Mark:
    """An event of a card."""

    def record(self, lane):
        lane.tick()
        self.reached = dict(lane.reached)


def on_a_card_without_the_card(monkeypatch):
    """Streams that only keep account; gives back how many copies and reads were found in order."""
    computing, side, copied, read, counted = Lane(), Lane(), {}, {}, {"copies": 0, "reads": 0}
    quantize_weight, fill = streaming.Buffers.hold, Place.fill

    def filled(slot, block):
        fill(slot, block)
        assert side.reached.get(computing, 0) >= read.get(slot, 0), "it is overwritten while it may be read"
        copied[slot] = side.reached[side]
        counted["copies"] += 1

    def held(buffers, block):
        room = quantize_weight(buffers, block)
        (slot,) = [slot for slot in buffers.slots if slot.room is room]
        assert computing.reached.get(side, 0) >= copied[slot], "it is read before it is there"
        read[slot] = computing.tick()
        counted["reads"] += 1
        return room

    monkeypatch.setattr(Place, "fill", filled)
    monkeypatch.setattr(streaming.Buffers, "hold", held)
    monkeypatch.setattr(streaming, "side_stream", lambda _device: side)
    monkeypatch.setattr(torch.cuda, "Event", Mark)
    monkeypatch.setattr(torch.cuda, "stream", lambda _lane: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: computing)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _tensor, _lane: None)
    return counted


@pytest.mark.parametrize("level", ["none", "full"])
def test_on_a_card_copies_and_computing_wait_for_each_other(monkeypatch, level):
    counted, ours, theirs = on_a_card_without_the_card(monkeypatch), OnlyUnet(), OnlyUnet()
    stream(blocks_of(ours.unet), CPU)
    adapter = adapted(ours)
    apply_level(ours.unet, level)
    assert all(map(torch.equal, learnt(ours, adapter, steps=2), learnt(theirs, adapted(theirs), steps=2)))
    assert counted["reads"] > counted["copies"] > 3 * len(list(blocks_of(ours.unet)))


def pair(bits="none"):
    """Two layers that are blocks of their own, and what they weigh."""
    torch.manual_seed(0)
    layers = nn.ModuleList([nn.Linear(64, 128, bias=False), nn.Conv2d(64, 32, 3)])
    for layer in layers:
        layer.weight = nn.Parameter(quantize_weight(layer.weight.data, bits), requires_grad=False)
    dense = [layer.weight.dense() if bits != "none" else layer.weight.data for layer in layers]
    stream([[layer] for layer in layers], CPU)
    return [layer.weight for layer in layers], dense


@pytest.mark.parametrize("bits", BITS)
def test_any_operation_sees_the_dense_weight_and_what_it_answers_stays(bits):
    weights, dense = pair(bits)
    uses = (
        *(lambda w: w + 1, lambda w: w.reshape(-1), lambda w: w.flatten(1), lambda w: w.double(), torch.norm),
        *(lambda w: w[1:3], lambda w: w.transpose(0, 1), lambda w: w.chunk(2)[1], lambda w: w.detach()),
    )
    for use in uses:
        made = [use(weight) for weight in weights]  # the second one takes the first one's place, if it can
        [weight + 0 for weight in weights * 2]
        assert all(torch.equal(ours + 0, use(theirs) + 0) for ours, theirs in zip(made, dense, strict=True))
    both = torch.cat([weight.flatten() for weight in weights])
    assert torch.equal(both, torch.cat([weight.flatten() for weight in dense]))
    assert torch.equal(torch.cat([w.view(-1) for w in pair()[0][:1]] * 2)[:8192], pair()[1][0].view(-1))


@pytest.mark.parametrize("bits", BITS)
def test_it_stays_where_it_is_when_its_module_moves_and_is_never_packed(tiny_model, bits):
    unet = tiny.load(tiny_model, model={"quantize": bits, "offload": "on"}).unet
    before = [weight.block for weight in weights_of(unet)]
    lay_out(unet.to(CPU, torch.float32))
    assert [weight.block for weight in weights_of(unet)] == before


def test_blocks_share_pieces_of_system_memory(tiny_model, monkeypatch):
    monkeypatch.setattr(streaming, "PIECE", 2**17)
    unets = [tiny.load(tiny_model, model={"offload": streams}).unet for streams in ("on", "off")]
    rooms = [block.room for block in dict.fromkeys(weight.block for weight in weights_of(unets[0]))]
    pieces = {room.untyped_storage()._cdata: room.untyped_storage().nbytes() for room in rooms}
    assert 1 < len(pieces) < len(rooms)
    assert max(pieces.values()) <= max(2**17, *map(len, rooms))
    assert all(
        torch.equal(ours + 0, theirs + 0) for ours, theirs in zip(*(unet.parameters() for unet in unets), strict=True)
    )


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_the_planner_knows_the_largest_block_and_that_all_which_can_be_held_is_streamed(family):
    unet = Bare(family).component("unet")
    sizes = list(counts._streamed(unet))
    facts = memory._facts()[family]
    assert (max(sizes), sum(sizes)) == (facts["block"], facts["held"])
    unet.to(torch.bfloat16)
    rooms = [sum(streaming._size(getattr(owner, name)) for owner, name in streamed(block)) for block in blocks_of(unet)]
    foreseen = memory.besides(family, memory.Savings("none", 1, 1, stream=True), "cuda", half=True)
    assert (sum(rooms), max(rooms)) == pytest.approx((foreseen, 2 * facts["block"]), rel=1e-3)
    assert all(streamed(block) for block in blocks_of(unet) if any(list(part.parameters()) for part in block))


def fit(ladder, device, gib, log):
    return ladder.fit(SimpleNamespace(family="sdxl"), torch.device(device), torch.bfloat16, gib * 2**30, log).model


def test_a_run_streams_on_a_card_that_is_too_small_otherwise_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(savings, "unet_numbers", lambda _model: memory._facts()["sdxl"]["unet"])
    config = validated(
        {"dataset": {"resolution": 512}, "model": {"gradient_checkpointing": "none", "quantize": "4bit"}}
    )
    with EventLog(tmp_path / "events.jsonl") as log:
        assert fit(Ladder(config), "cuda", 2, log).offload == "on"
        assert fit(Ladder(config), "cpu", 2, log).offload == "off"
        ladder, models = Ladder(config), []
        models.append(fit(ladder, "cuda", 24, log))
        with pytest.raises(OutOfMemory):
            while True:
                ladder.step_down("for a test", log)
                models.append(fit(ladder, "cuda", 24, log))
    assert [(one.quantize, one.offload) for one in models] == [("4bit", "off"), ("4bit", "on")]
    told = [event.message for event in read_events(tmp_path / "events.jsonl")[0] if isinstance(event, Warned)]
    assert "blocks offloaded to system RAM" in told[0]
    assert told[0].endswith("GiB of system RAM.")
    assert not any("offloaded" in message for message in told[1:-1])
    assert "offloaded" in told[-1]
