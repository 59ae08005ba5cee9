import math

import numpy as np
import pytest
import tiny
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from trainer.contract.settings.config import validated
from trainer.contract.settings.learning import AdapterSettings
from trainer.engine import previews
from trainer.engine.adapters.fused import fuse
from trainer.engine.adapters.lora import attach
from trainer.engine.adapters.lora_file import client_delta, export, put_into
from trainer.engine.data.cache import TensorCache
from trainer.engine.device import make_accelerator
from trainer.engine.families.base import Conditioning
from trainer.engine.prepare import add_adapter, learn_text
from trainer.engine.previews import Renderer, render_strip
from trainer.engine.strength_strip import generate, lora_file, main
from trainer.models.errors import LoraRefused
from trainer.models.lora_layers import read_lora
from trainer.models.lora_names import kohya_name
from trainer.runs import process
from trainer.runs.errors import RunBusy, RunError, RunMissing
from trainer.runs.sheets import STRENGTHS


def load(tiny_model, dtype=torch.float32):
    return tiny.load(tiny_model, dtype)


def learnt(adapter, seed=2, size=0.1):
    """The adapter with an update that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for live in adapter.layers.values():
            live.up.copy_(torch.randn(live.up.shape, generator=generator) * size)
    return adapter


def make(family, rank=4, alpha=2.0, seed=1):
    return learnt(attach(family, AdapterSettings(rank=rank, alpha=alpha, text_encoder=True), seed))


@pytest.fixture(params=["peft", "fused"])
def model(request, tiny_model):
    """A family with an adapter, by either way of computing."""
    fused = request.param == "fused"
    family = load(tiny_model, torch.bfloat16 if fused else torch.float32)
    adapter = make(family)
    if fused:
        assert fuse(family, adapter, dropout=0.0)
    return family, adapter


@torch.no_grad()
def answer(family):
    """What the model predicts for a fixed question."""
    states = torch.randn(1, 77, family.unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(0))
    noisy = torch.randn(1, family.spec.latent_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    told = Conditioning(states.to(family.unet.dtype))
    return family.predict(noisy.to(family.unet.dtype), torch.tensor([500]), told).float()


def distance(one, other):
    """How far two answers lie apart, as a share of the second."""
    return float((one - other).norm() / other.norm())


def test_at_strength_0_the_adapter_is_as_if_switched_off(model):
    family, adapter = model
    with adapter.switched_off():
        base = answer(family)
    with adapter.scaled(0.0):
        assert distance(answer(family), base) < 0.02, "no more than bfloat16 rounds, where it is summed otherwise"
    assert distance(answer(family), base) > 0.1


def test_at_strength_1_nothing_changes(model):
    family, adapter = model
    plain = answer(family)
    with adapter.scaled(1.0):
        assert torch.equal(answer(family), plain)


def test_every_layers_update_is_multiplied_and_nested_strengths_multiply(model):
    _, adapter = model
    before = {name: live.delta() for name, live in adapter.layers.items()}
    with adapter.scaled(0.5), adapter.scaled(2.5):
        for name, live in adapter.layers.items():
            torch.testing.assert_close(live.delta(), 1.25 * before[name])


def test_after_a_failure_the_adapter_has_its_own_strength_again(model):
    family, adapter = model
    plain = answer(family)
    with pytest.raises(RuntimeError), adapter.scaled(0.0):
        raise RuntimeError
    assert torch.equal(answer(family), plain)


def put(adapter, file):
    return put_into(adapter, read_lora(file), kohya_name)


def test_a_files_weights_come_back_into_another_adapter(tmp_path, tiny_model):
    source, target = make(load(tiny_model)), make(load(tiny_model), seed=9)
    put(target, export(tmp_path / "x.safetensors", source, "fp32", {}).path)
    assert all(torch.equal(target.state()[name], tensor) for name, tensor in source.state().items())


def test_a_file_of_another_alpha_is_as_strong_as_a_client_makes_it(tmp_path, tiny_model):
    file = export(tmp_path / "x.safetensors", make(load(tiny_model), alpha=3.0), "fp32", {}).path
    adapter = make(load(tiny_model), alpha=2.0)
    put(adapter, file)
    tensors = load_file(file)
    for name, live in adapter.layers.items():
        written = [tensors[f"{name}.{leaf}"] for leaf in ("lora_down.weight", "lora_up.weight", "alpha")]
        torch.testing.assert_close(live.delta(), client_delta(*written))


def test_a_file_of_another_rank_is_refused(tmp_path, tiny_model):
    file = export(tmp_path / "wide.safetensors", make(load(tiny_model), rank=8), "fp16", {}).path
    with pytest.raises(LoraRefused, match=r"wide\.safetensors has rank 8, the layers here 4"):
        put(make(load(tiny_model)), file)


def test_layers_that_a_file_lacks_are_named_and_stay_as_they_were(tmp_path, tiny_model):
    file = export(tmp_path / "x.safetensors", make(load(tiny_model)), "fp32", {}).path
    adapter = make(load(tiny_model), seed=9)
    first, before = next(iter(adapter.layers)), {name: live.delta() for name, live in adapter.layers.items()}
    save_file({name: tensor for name, tensor in load_file(file).items() if first not in name}, file)
    assert put(adapter, file) == [first]
    assert [name for name, live in adapter.layers.items() if torch.equal(live.delta(), before[name])] == [first]


@pytest.mark.parametrize(
    ("foreign", "told"),
    [
        ("lora_unet_conv_in.lora_down.weight", "is a LoCon: it changes convolutions or embeddings, lora_unet_conv_in"),
        ("conv_in.weight", "holds a tensor of no layer that can be trained here: conv_in.weight"),
    ],
)
def test_a_file_with_another_layer_is_refused(tmp_path, tiny_model, foreign, told):
    adapter = make(load(tiny_model))
    tensors = load_file(export(tmp_path / "x.safetensors", adapter, "fp16", {}).path)
    save_file({**tensors, foreign: torch.zeros(4, 4)}, tmp_path / "more.safetensors")
    with pytest.raises(LoraRefused, match=f"more.safetensors {told}"):
        put(adapter, tmp_path / "more.safetensors")


def test_a_layer_of_which_a_part_is_missing_is_refused(tmp_path, tiny_model):
    adapter = make(load(tiny_model))
    tensors = load_file(export(tmp_path / "x.safetensors", adapter, "fp16", {}).path)
    part = f"{next(iter(adapter.layers))}.lora_up.weight"
    tensors.pop(part)
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(LoraRefused, match=f"holds half a layer: {part.partition('.')[0]} has no up weight"):
        put(adapter, tmp_path / "less.safetensors")


@pytest.mark.parametrize("leaf", ["alpha", "lora_down.weight", "lora_up.weight"])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_file_with_numbers_that_are_none_is_refused(tmp_path, tiny_model, leaf, number):
    file = export(tmp_path / "x.safetensors", make(load(tiny_model)), "fp32", {}).path
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith(leaf))
    tensors[name].reshape(-1)[0] = number
    save_file(tensors, file)
    with pytest.raises(LoraRefused, match=f"is damaged: .*{name.partition('.')[0]}"):
        put(make(load(tiny_model)), file)


def test_a_file_with_several_alphas_for_one_layer_is_refused(tmp_path, tiny_model):
    file = export(tmp_path / "x.safetensors", make(load(tiny_model)), "fp32", {}).path
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("alpha"))
    save_file({**tensors, name: tensors[name].repeat(2)}, file)
    with pytest.raises(LoraRefused, match=f"is damaged: {name} is not one number"):
        put(make(load(tiny_model)), file)


def test_what_is_no_safetensors_file_is_refused(tmp_path, tiny_model):
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04 no header")
    with pytest.raises(LoraRefused, match=r"x.safetensors cannot be used: it is a pickled checkpoint"):
        put(make(load(tiny_model)), tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "name",
    ["missing.safetensors", "../outside.safetensors", "checkpoints/x.safetensors", "config.toml", "", ".safetensors"],
)
def test_only_plain_names_of_lora_files_are_taken(new_run, name):
    run = new_run()
    for file in (run.path.parent / "outside.safetensors", run.checkpoints / "x.safetensors"):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
    with pytest.raises(RunError, match=f'has no LoRA file called "{name}"'):
        lora_file(run, name)


def test_an_absolute_path_is_not_taken_even_of_the_runs_own_file(new_run):
    run = new_run()
    own = run.path / "ana.safetensors"
    own.write_bytes(b"")
    assert lora_file(run, own.name) == own.resolve()
    with pytest.raises(RunError):
        lora_file(run, str(own))


def test_a_link_that_leads_out_of_the_run_is_not_taken(new_run):
    run = new_run()
    (run.path.parent / "outside.safetensors").write_bytes(b"")
    try:
        (run.path / "link.safetensors").symlink_to(run.path.parent / "outside.safetensors")
    except OSError:
        pytest.skip("links need a privilege here")
    with pytest.raises(RunMissing):
        lora_file(run, "link.safetensors")


def test_a_run_that_has_drawn_nothing_and_has_no_prompts_is_told_so(new_run):
    run = new_run(preview={"prompts": []})
    (run.path / "ana.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match="has no previews"):
        generate(run, "ana.safetensors")


def test_a_refusal_is_one_line_with_what_to_do_and_exit_code_2(new_run, capsys):
    run = new_run()
    assert main([str(run.path), "missing.safetensors"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert '"missing.safetensors"' in said.err
    assert "Choose one" in said.err
    assert main([str(run.path.parent / "no such run"), "ana.safetensors"]) == 2


def test_while_the_run_is_trained_no_second_model_is_loaded(new_run):
    run = new_run()
    run.claim()
    with pytest.raises(RunBusy):
        process.generate_strip(run, "ana.safetensors")
    assert not run.log_file.exists()


def painter(tiny_model, tmp_path, prompts, text_encoder=False, precision="fp32", guidance_scale=1.0):
    """A painter of a fresh model, and the adapter that it shows."""
    config = validated(
        {
            "model": {"base_model": str(tiny_model), "precision": precision, "device": "cpu"},
            "dataset": {"resolution": 64},
            "adapter": {"rank": 4, "alpha": 2.0, "text_encoder": text_encoder},
            "preview": {"steps": 2, "guidance_scale": guidance_scale},
        }
    )
    AcceleratorState._reset_state()  # it knows one precision for the whole process
    accelerator, dtype = make_accelerator(config.model)
    family = load(tiny_model, dtype)
    text = learn_text(
        family, config, prompts, dtype=dtype, cache=TensorCache(tmp_path / "cache"), progress=lambda _done, _all: None
    )
    adapter = add_adapter(family, config)
    adapter.use_dropout(wanted=False)
    return Renderer(config, family, text, tuple(prompts), accelerator), adapter


@pytest.mark.parametrize(("at_once", "told"), [(64, [0]), (4, [0, 4]), (1, [0, 1, 2, 3, 4, 5])])
def test_a_strip_shows_the_first_prompt_and_counts_its_images(tiny_model, tmp_path, monkeypatch, at_once, told):
    monkeypatch.setattr(previews, "TOGETHER", at_once * 64 * 64)
    seen = []
    drawer, adapter = painter(tiny_model, tmp_path, ["ball", "box", "hat"])
    render_strip(drawer, adapter, tmp_path / "x.png", lambda done, total: seen.append((done, total)) or True)
    assert seen == [(done, 6) for done in told]
    assert (tmp_path / "x.png").is_file()


def test_a_strip_called_off_leaves_the_one_that_was_there(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(previews, "TOGETHER", 64 * 64)
    drawer, adapter = painter(tiny_model, tmp_path, ["ball"])
    (tmp_path / "x.png").write_bytes(b"old")
    render_strip(drawer, adapter, tmp_path / "x.png", lambda done, _total: done < 2)
    assert (tmp_path / "x.png").read_bytes() == b"old"
    assert all(live.scaling == 0.5 for live in adapter.layers.values())


def pixels(image):
    return np.asarray(image, np.int16)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("text_encoder", [False, True])
def test_at_every_strength_together_is_what_it_is_alone(tiny_model, tmp_path, scale, precision, text_encoder):
    """In bfloat16 the layers are fused, and a batch of another size rounds otherwise."""
    drawer, adapter = painter(tiny_model, tmp_path, ["ball", "box"], text_encoder, precision, scale)
    learnt(adapter, size=1.0)
    chosen = [(index, strength) for index in (1, 0) for strength in STRENGTHS]
    together = drawer.paint_at(adapter, chosen)
    for (index, strength), image in zip(chosen, together, strict=True):
        with adapter.scaled(strength):
            (alone,) = drawer.paint(index)
        off = np.abs(pixels(image) - pixels(alone))
        assert (off.max() <= 1) if precision == "fp32" else (off.mean() < 4), (index, strength, off.mean(), off.max())
    assert len({image.tobytes() for image in together}) == len(chosen)


def test_without_prompts_there_is_no_strip(tiny_model, tmp_path):
    drawer, adapter = painter(tiny_model, tmp_path, [])
    render_strip(drawer, adapter, tmp_path / "x.png", lambda _done, _total: True)
    assert not (tmp_path / "x.png").exists()


def test_what_the_text_encoder_learnt_is_drawn_at_the_strength_too(tiny_model, tmp_path):
    drawer, adapter = painter(tiny_model, tmp_path, ["ball"], text_encoder=True)
    base = drawer.paint(0)[0].tobytes()
    learnt(adapter, size=1.0)
    with torch.no_grad():
        for live in adapter.layers.values():
            if live.slot.component == "unet":
                live.up.zero_()
    with adapter.scaled(0.0):
        assert drawer.paint(0)[0].tobytes() == base
    with adapter.scaled(0.5):
        half = drawer.paint(0)[0].tobytes()
    assert len({base, half, drawer.paint(0)[0].tobytes()}) == 3
    assert math.isclose(next(iter(adapter.layers.values())).scaling, 0.5)
