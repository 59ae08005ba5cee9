"""LoRA files that other programs wrote, judged by their headers, and continued to the bit; every refusal's words."""

import json
import math
import re

import headers
import originals
import pytest
import tiny
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.learning import AdapterSettings
from trainer.contract.wording import for_console
from trainer.engine.adapters.lora import attach
from trainer.engine.adapters.lora_file import put_into
from trainer.models.errors import LoraRefused
from trainer.models.identify import identify
from trainer.models.lora_header import check_start
from trainer.models.lora_keys import key_of
from trainer.models.lora_layers import read_lora
from trainer.models.lora_slots import ALL, key_table

TABLES = {family: json.loads((originals.FIXTURES / f"{family}-keys.json").read_text()) for family in originals.TEXTS}
RANK, ALPHA = 4, 2.0
TRAINS = {"rank": RANK, "alpha": ALPHA, "text_encoder": True}
PARTS = {"unet": "unet", "te1": "text_encoder", "te2": "text_encoder_2"}
QUERY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A tiny model of each family, in one file; made when first asked for, with its layers' shapes."""
    made = {}

    def base(family):
        if family not in made:
            path = tmp_path_factory.mktemp(family) / "base.safetensors"
            model = identify(originals.write_file(path, family, dtype=torch.float32))
            made[family] = model, key_table(model)
        return made[family]

    return base


def layers_of(family, table):
    """A LoRA's numbers by (component, diffusers path): random down and up of all layers that can be trained."""
    rng, made = torch.Generator().manual_seed(3), {}
    shapes = table.slots("attention_mlp", ALL)
    for path, entry in TABLES[family].items():
        if entry["group"] in ("attn", "te"):
            out, into, *kernel = shapes[entry["kohya"]].shape
            part, _, rest = path.partition(".")
            down = torch.randn(RANK, into, *kernel, generator=rng)
            made[PARTS[part], rest] = down, torch.randn(out, RANK, *kernel, generator=rng)
    return made


def kohya(family):
    names = {(PARTS[path.partition(".")[0]], path.partition(".")[2]): e["kohya"] for path, e in TABLES[family].items()}
    return lambda *place: names[place], ".lora_down.weight", ".lora_up.weight"


def dotted(down, up, before="", **prefixes):
    given = {"unet": "unet.", "text_encoder": "text_encoder.", "text_encoder_2": "text_encoder_2.", **prefixes}
    return lambda part, path: f"{before}{given[part]}{path}", down, up


def processors(part, path):
    """diffusers' first form: LoRA layers of attention processors, beside layers as they were added later."""
    path = path.replace("to_out.0", "to_out")
    if match := re.search(r"(.*attn[12])\.(to_\w+)$", path):
        return f"{part}.{match[1]}.processor.{match[2]}_lora"
    return f"{part}.{path}.lora"


def underscored(unet, text, text_2):
    given = {"unet": unet, "text_encoder": text, "text_encoder_2": text_2}
    return lambda part, path: given[part] + path.replace(".", "_"), ".lora_down.weight", ".lora_up.weight"


def original(family, **prefixes):
    """The original layout's block names, joined by dots."""
    ldm = {path.partition(".")[2]: entry["ldm"] for path, entry in TABLES[family].items()}
    given = {"unet": "unet.", "text_encoder": "clip_l.", "text_encoder_2": "clip_g.", **prefixes}
    return (
        lambda part, path: given[part] + (ldm[path] if part == "unet" else path),
        ".lora_down.weight",
        ".lora_up.weight",
    )


def flat(name):
    """Text encoders as transformers 5.6 spells them."""
    return name.replace("text_model.", "").replace("text_model_", "")


FORMS = {
    "kohya": kohya,
    "diffusers names": lambda _: underscored("lora_unet_", "lora_te1_", "lora_te2_"),
    "one te": lambda _: underscored("lora_unet_", "lora_te_", "lora_te2_"),
    "lycoris names": lambda _: underscored("lycoris_", "lora_te_", "lora_te2_"),
    "peft": lambda _: dotted(".lora_A.weight", ".lora_B.weight"),
    "peft with its name": lambda _: dotted(".lora_A.default.weight", ".lora_B.default.weight"),
    "diffusers": lambda _: dotted(".lora.down.weight", ".lora.up.weight"),
    "text layers": lambda _: dotted(".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    "dotted kohya": lambda _: dotted(".lora_down.weight", ".lora_up.weight"),
    "base_model": lambda _: dotted(".lora_A.weight", ".lora_B.weight", "base_model.model."),
    "processors": lambda _: (processors, ".down.weight", ".up.weight"),
    "original": original,
    "ComfyUI": lambda family: original(family, unet="diffusion_model."),
}


def written(path, family, table, form="kohya", dtype=torch.float32, alpha=ALPHA, metadata=None, change=None):
    """A file of that form; `alpha` is a number or a tensor for every layer, or None for none."""
    tensors = {}
    named, down, up = FORMS[form](family)
    for place, (first, second) in layers_of(family, table).items():
        name = named(*place)
        stem = name.removesuffix(".lora") if form == "processors" else name
        tensors[f"{name}{down}"], tensors[f"{name}{up}"] = first.to(dtype), second.to(dtype)
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.as_tensor(alpha).clone()
    if change:
        tensors = change(tensors) or tensors
    save_file(tensors, path, metadata)
    return path


def loaded(model):
    return tiny.load(model.path, objective={"prediction": "epsilon"})


def started(family, bases, file, **settings):
    """The layers of a fresh adapter that a file was put into, as training does it; and what the check said."""
    model, _ = bases(family)
    second = {"text_encoder_2": True} if family == "sdxl" else {}
    chosen = AdapterSettings(**{**TRAINS, **second, **settings, "start_from": str(file)})
    start = check_start(chosen, model)
    live = loaded(model)
    adapter = attach(live, chosen, seed=7)
    assert put_into(adapter, start.file, live.kohya_name) == []
    return adapter.layers, start


def same(layers, family, table, dtype=torch.float32):
    """Whether the live weights are those of the LoRA that the file was made from, to the bit."""
    expected = layers_of(family, table)
    assert len(layers) == len(expected)
    for place, (down, up) in expected.items():
        live = layers[table.kohya_name(*place)]
        assert torch.equal(live.down, down.to(dtype).float()), place
        assert torch.equal(live.up, up.to(dtype).float()), place


@pytest.mark.parametrize("family", originals.TEXTS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_continues_to_the_bit(tmp_path, bases, family, form):
    model, table = bases(family)
    file = written(tmp_path / "ana.safetensors", family, table, form)
    found = read_lora(file)
    second = {"text_encoder_2": True} if family == "sdxl" else {}
    start = check_start(AdapterSettings(**TRAINS, **second, start_from=str(file)), model)
    assert start.file == found
    assert start.fresh == 0
    assert (found.rank, found.alpha) == (RANK, ALPHA)
    names = {table.kohya_name(*place): layer for place, layer in found.layers.items()}
    assert names.keys() == table.slots("attention_mlp", ALL).keys()


@pytest.mark.parametrize(
    ("family", "form"),
    [("sd15", "processors"), ("sd2", "peft"), ("sdxl", "diffusers names"), ("sdxl", "original"), ("sdxl", "peft")],
)
def test_a_model_starts_with_exactly_the_files_numbers(tmp_path, bases, family, form):
    _, table = bases(family)
    file = written(tmp_path / "ana.safetensors", family, table, form)
    same(started(family, bases, file)[0], family, table)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8])
def test_weights_and_alphas_of_every_number_format_are_read_as_they_are(tmp_path, bases, dtype, alpha):
    _, table = bases("sd15")
    file = written(tmp_path / "a.safetensors", "sd15", table, "kohya", dtype, torch.tensor([2], dtype=alpha))
    if (dtype, alpha) in ((torch.float64, torch.int64), (torch.bfloat16, torch.float64), (torch.float16, torch.int32)):
        same(started("sd15", bases, file)[0], "sd15", table, dtype)
    assert read_lora(file).alpha == 2


def test_text_encoders_without_their_upper_level_are_read(tmp_path, bases):
    _, table = bases("sd15")
    bare = lambda tensors: {flat(name): tensor for name, tensor in tensors.items()}  # noqa: E731
    for form in ("kohya", "peft"):
        file = written(tmp_path / f"{form}.safetensors", "sd15", table, form, change=bare)
        assert table.slots("attention_mlp", ALL).keys() == {table.kohya_name(*one) for one in read_lora(file).layers}


def test_matrices_and_small_convolutions_are_the_same_numbers(tmp_path, bases):
    _, table = bases("sd15")

    def turned(tensors):
        """Linear layers as 1x1 convolutions, and the other way round."""
        return {
            name: tensor if not tensor.ndim else tensor.flatten(1) if tensor.ndim == 4 else tensor[..., None, None]
            for name, tensor in tensors.items()
        }

    file = written(tmp_path / "ana.safetensors", "sd15", table, change=turned)
    same(started("sd15", bases, file)[0], "sd15", table)


@pytest.mark.parametrize("form", ["kohya", "peft", "processors"])
def test_a_file_without_alpha_is_as_strong_as_alpha_equal_to_its_rank(tmp_path, bases, form):
    _, table = bases("sd15")
    file = written(tmp_path / "ana.safetensors", "sd15", table, form, alpha=None)
    same(started("sd15", bases, file, alpha=float(RANK))[0], "sd15", table)
    with pytest.raises(InvalidSettings, match=r"ana\.safetensors has alpha 4; the run has alpha 2\."):
        started("sd15", bases, file)


@pytest.mark.parametrize(("rank_stabilized", "alpha"), [(False, 6.0), (True, 12.0)])
def test_alpha_is_what_peft_wrote_into_the_header_or_beside_the_file(tmp_path, bases, rank_stabilized, alpha):
    _, table = bases("sd15")
    told = {"lora_alpha": 6, "use_rslora": rank_stabilized, "alpha_pattern": {}}
    packed = {f"{part}.{name}": value for part in ("unet", "text_encoder") for name, value in told.items()}
    metadata = {"lora_adapter_metadata": json.dumps(packed)}
    within = written(tmp_path / "ana.safetensors", "sd15", table, "peft", alpha=None, metadata=metadata)
    beside = written(tmp_path / "adapter_model.safetensors", "sd15", table, "base_model", alpha=None)
    assert read_lora(beside).alpha == RANK
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    assert [read_lora(file).alpha for file in (within, beside)] == [alpha, alpha]
    (tmp_path / "adapter_config.json").write_text(json.dumps({**told, "alpha_pattern": {"to_q": 8}}))
    with pytest.raises(LoraRefused, match="layers of different alpha"):
        read_lora(beside)


@pytest.mark.parametrize("rank_stabilized", [False, True])
def test_what_diffusers_and_peft_save_themselves_is_continued(tmp_path, bases, rank_stabilized):
    model, table = bases("sd15")
    unet = loaded(model).component("unet")
    made = get_peft_model(unet, LoraConfig(r=RANK, lora_alpha=6, use_rslora=rank_stabilized, target_modules=["to_k"]))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if ".lora_" in name:
                weight.normal_(generator=torch.Generator().manual_seed(len(name)))
    made.save_pretrained(tmp_path / "peft")
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "diffusers",
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(made)),
        unet_lora_adapter_metadata=made.peft_config["default"].to_dict(),
    )
    live = {
        table.kohya_name("unet", path): module for path, module in unet.named_modules() if hasattr(module, "lora_A")
    }
    for file in ("peft/adapter_model.safetensors", "diffusers/pytorch_lora_weights.safetensors"):
        lora, tensors = read_lora(tmp_path / file), load_file(tmp_path / file)
        assert lora.alpha / lora.rank == next(iter(live.values())).scaling["default"]
        assert {table.kohya_name(*place) for place in lora.layers} == live.keys()
        for place, layer in lora.layers.items():
            assert torch.equal(tensors[layer.up], live[table.kohya_name(*place)].lora_B["default"].weight)


@pytest.mark.parametrize("beside", [b"[" * 100_000, b"[1]", b"\xff", b'{"lora_alpha": 1e999}', b'{"lora_alpha": "x"}'])
def test_a_damaged_configuration_beside_a_file_ends_nothing(tmp_path, bases, beside):
    file = written(tmp_path / "adapter_model.safetensors", "sd15", bases("sd15")[1], "base_model", alpha=None)
    (tmp_path / "adapter_config.json").write_bytes(beside)
    if b"1e999" in beside:
        with pytest.raises(LoraRefused, match="which no run can have"):
            check_start(AdapterSettings(start_from=str(file)))
    else:
        assert read_lora(file).alpha == RANK


@pytest.mark.parametrize("family", originals.TEXTS)
def test_the_family_is_told_by_published_widths_whatever_the_names(tmp_path, family):
    entries = [(path, entry) for path, entry in TABLES[family].items() if entry["group"] in ("attn", "te")]
    for number, spelled in enumerate((lambda path, _: path.replace("te1.", "text_encoder."), lambda _, e: e["kohya"])):
        shapes = {}
        for path, entry in entries:
            name = spelled(path.replace("te2.", "text_encoder_2."), entry)
            out, into, *kernel = entry["shape"]
            shapes |= {f"{name}.lora_down.weight": (8, into, *kernel), f"{name}.lora_up.weight": (out, 8)}
        file = read_lora(headers.write(tmp_path / f"{number}.safetensors", shapes))
        assert file.family == family
        assert len(file.layers) == len(entries)
    wanted = {
        "sd15": "SD 1.x LoRA, rank 8, alpha 8, 192 layers of the UNet and 72 layers of the text encoder",
        "sd2": "SD 2.x LoRA, rank 8, alpha 8, 192 layers of the UNet and 138 layers of the text encoder",
        "sdxl": "SDXL LoRA, rank 8, alpha 8, 722 layers of the UNet and 72 layers of the text encoder and 192 "
        "layers of the second text encoder",
    }
    assert file.sentence() == wanted[family]


@pytest.mark.parametrize("layout", ["file", "folder"])
@pytest.mark.parametrize("family", originals.TEXTS)
def test_the_key_table_known_before_loading_is_the_loaded_models(tmp_path, bases, family, layout):
    model, table = bases(family)
    if layout == "folder":
        words = tiny.tokenizer(tmp_path / "words")
        both = {"tokenizer": words, "tokenizer_2": words} if family == "sdxl" else {"tokenizer": words}
        configs = originals.write_folder(tmp_path / "base", family, tokenizers=both)
        model = model.__class__(**{**model.__dict__, "path": configs, "layout": "folder"})
        table = key_table(model)
    live = loaded(bases(family)[0])
    for targets in ("attention", "attention_mlp"):
        for parts in (ALL[:1], ALL if family == "sdxl" else ALL[:2]):
            assert table.slots(targets, parts) == live.lora_slots(targets, parts)
    assert table.layers_per_block == 2


LORA = {f"{QUERY}.lora_down.weight": (4, 8), f"{QUERY}.lora_up.weight": (8, 4)}
FLUX = "was made for FLUX, and this program trains SD 1.x, SD 2.x and SDXL"
KINDS = {
    "loha": ({f"{QUERY}.hada_w1_a": (8, 4)}, "is a LoHa, which cannot be continued"),
    "lokr": ({f"{QUERY}.lokr_w1": (8, 4)}, "is a LoKr, which cannot be continued"),
    "dora": ({**LORA, f"{QUERY}.dora_scale": (1, 8)}, "is a DoRA, which cannot be continued"),
    "peft's dora": ({**LORA, "unet.x.lora_magnitude_vector": (8,)}, "is a DoRA, which cannot be continued"),
    "tucker": ({**LORA, f"{QUERY}.lora_mid.weight": (4, 4, 3, 3)}, "is a LoCon in Tucker form, which cannot be"),
    "glora": ({f"{QUERY}.a1.weight": (8, 4)}, "is a GLoRA, which cannot be continued"),
    "ia3": ({f"{QUERY}.weight": (8,), f"{QUERY}.on_input": ()}, "is an IA3, which cannot be continued"),
    "oft": ({f"{QUERY}.oft_blocks": (4, 8, 8)}, "is an OFT, which cannot be continued"),
    "diff": ({f"{QUERY}.diff": (8, 8)}, "is a full difference (weights instead of a LoRA's two factors), which cannot"),
    "norms": ({**LORA, "lora_unet_norm1.w_norm": (8,)}, "is a LyCORIS file that trains norms, which cannot be"),
    "bias": ({**LORA, "unet.x.lora_B.bias": (8,)}, "is a LoRA with biases, which cannot be continued"),
    "bundle": ({**LORA, "bundle_emb.ana.clip_l": (2, 768)}, "is a LoRA with a textual inversion in it, which cannot"),
    "locon": (
        {**LORA, "lora_unet_conv_in.lora_down.weight": (4, 4, 3, 3), "lora_unet_conv_in.lora_up.weight": (8, 4, 1, 1)},
        "is a LoCon: it changes convolutions or embeddings, lora_unet_conv_in.",
    ),
    "sgm locon": (
        {**LORA, "lora_unet_input_blocks_4_0_in_layers_2.lora_down.weight": (4, 4, 3, 3)},
        "convolutions or embeddings, lora_unet_input_blocks_4_0_in_layers_2.",
    ),
    "flux": ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 3072)}, FLUX),
    "flux peft": ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072)}, FLUX),
    "flux lokr": ({"lora_unet_double_blocks_0_img_attn_qkv.lokr_w1": (4, 4)}, FLUX),
    "sd3": ({"lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight": (4, 8)}, "was made for Stable Diffusion 3,"),
    "sd3 peft": (
        {"transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight": (4, 8)},
        "FLUX or Stable Diffusion",
    ),
    "qwen": ({"transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight": (4, 8)}, "was made for Qwen-Image,"),
    "wan": ({"diffusion_model.blocks.0.self_attn.q.lora_A.weight": (4, 8)}, "was made for another architecture (a"),
    "embedding": ({"emb_params": (2, 768)}, "is no LoRA: it is a textual inversion, a new word for a model"),
    "sdxl embedding": ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "is no LoRA: it is a textual inversion"),
    "controlnet": ({"control_model.input_hint_block.0.weight": (2, 2)}, "is no LoRA: it is a ControlNet"),
    "checkpoint": (headers.sd15(), "is no LoRA: it is a whole base model"),
    "vae": ({"first_stage_model.encoder.conv_in.weight": (2, 2)}, "is no LoRA: it is a VAE alone, one part of a model"),
    "other": ({"x.weight": (2, 2)}, "is no LoRA: its tensors match no supported model"),
    "alone": ({"x.alpha": ()}, "holds a tensor of no layer that can be trained here: x.alpha"),
    "open clip": (
        {"lora_te_resblocks_0_attn.lora_down.weight": (4, 8), "lora_te_resblocks_0_attn.lora_up.weight": (8, 4)},
        "holds a tensor of no layer that can be trained here: lora_te_resblocks_0_attn.lora_down.weight, and 1 more",
    ),
    "half": ({f"{QUERY}.lora_down.weight": (4, 8)}, f"holds half a layer: {QUERY} has no up weight"),
    "other half": ({f"{QUERY}.lora_up.weight": (8, 4)}, f"holds half a layer: {QUERY} has no down weight"),
    "alpha alone": ({**LORA, f"{QUERY[:-1]}k.alpha": ()}, f"holds half a layer: {QUERY[:-1]}k has no down weight"),
    "twice": (
        {
            **LORA,
            f"unet.{QUERY[10:].replace('mid_block_attentions_0_', 'mid_block.attentions.0.')}.lora_A.weight": (4, 8),
        },
        "holds the same layer twice, as ",
    ),
    "unfit": (
        {**LORA, f"{QUERY}.lora_up.weight": (8, 5)},
        f"is damaged: the two weights of {QUERY} do not fit together",
    ),
    "flat": (
        {**LORA, f"{QUERY}.lora_down.weight": (32,)},
        f"is damaged: the two weights of {QUERY} do not fit together",
    ),
    "empty": ({**LORA, f"{QUERY}.lora_down.weight": (0, 8)}, f"is damaged: the two weights of {QUERY} do not fit"),
    "several alphas": ({**LORA, f"{QUERY}.alpha": (2,)}, f"is damaged: {QUERY}.alpha is not one number"),
    "zero alpha": ({**LORA, f"{QUERY}.alpha": ()}, f"is damaged: the alpha of {QUERY} is 0"),
    "long name": ({**LORA, "lora_unet_" + "x" * 100_000: ()}, "x…"),
}


@pytest.mark.parametrize(("shapes", "told"), KINDS.values(), ids=KINDS)
def test_every_other_file_is_named_in_one_sentence(tmp_path, shapes, told):
    file = headers.write(tmp_path / "ana.safetensors", shapes)
    with pytest.raises(LoraRefused) as caught:
        check_start(AdapterSettings(rank=4, alpha=4.0, start_from=str(file)))
    assert caught.value.message.startswith(f"The LoRA file {file} ")
    assert told in caught.value.message
    assert len(caught.value.message) < 600
    assert caught.value.places.keys() == {"adapter.start_from"}
    assert "--adapter.start_from" in for_console(caught.value.hint)
    assert "text_encoder" not in caught.value.hint


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -1.0])
def test_an_alpha_that_is_no_strength_is_refused_with_its_layer(tmp_path, alpha):
    down, up = torch.ones(4, 8), torch.ones(8, 4)
    tensors = {f"{QUERY}.lora_down.weight": down, f"{QUERY}.lora_up.weight": up, f"{QUERY}.alpha": torch.tensor(alpha)}
    save_file(tensors, tmp_path / "ana.safetensors")
    with pytest.raises(LoraRefused, match=f"is damaged: the alpha of {QUERY} is {alpha:g}"):
        read_lora(tmp_path / "ana.safetensors")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8"])
def test_quantized_weights_are_refused_with_what_to_choose(tmp_path, dtype):
    file = headers.write(tmp_path / "ana.safetensors", LORA, dtype)
    with pytest.raises(LoraRefused, match=f"holds {QUERY} in {dtype}, too coarse to train on") as caught:
        read_lora(file)
    assert caught.value.hint.startswith("Choose the same LoRA in fp16, bf16 or fp32.")


def test_a_header_of_100_mb_and_offsets_beyond_the_file_are_refused(tmp_path):
    file = tmp_path / "ana.safetensors"
    with file.open("wb") as opened:
        opened.write((100_000_000).to_bytes(8, "little") + b"{")
        opened.truncate(100_000_100)
    with pytest.raises(LoraRefused, match=r"cannot be used: its header takes 100 MB, more than any model's"):
        read_lora(file)
    entry = {"dtype": "F32", "shape": [4, 8], "data_offsets": [64, 192]}
    headers.assemble(file, json.dumps({f"{QUERY}.lora_down.weight": entry}).encode(), 192)
    with pytest.raises(LoraRefused, match="its header is damaged: its tensors leave a gap"):
        read_lora(file)


def test_nan_in_the_weights_is_refused_with_the_layer_when_they_are_read(tmp_path, bases):
    _, table = bases("sd15")
    name = f"{QUERY}.lora_up.weight"

    def spoilt(tensors):
        tensors[name][0, 0] = math.nan

    file = written(tmp_path / "ana.safetensors", "sd15", table, change=spoilt)
    with pytest.raises(LoraRefused, match=f"is damaged: it holds NaN or infinity in {QUERY}"):
        started("sd15", bases, file)


def test_a_lora_of_another_family_is_refused_before_any_setting_is_blamed(tmp_path, bases):
    model, _ = bases("sd15")
    block = "lora_unet_middle_block_1_transformer_blocks_1_attn2_to_k"
    shapes = {f"{block}.lora_down.weight": (32, 2048), f"{block}.lora_up.weight": (1280, 32)}
    shapes |= {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (32, 1280)}
    shapes |= {"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (5120, 32)}
    file = headers.write(tmp_path / "ana.safetensors", shapes)
    with pytest.raises(LoraRefused, match=r"was made for SDXL; the base model is SD 1\.x\.") as caught:
        check_start(AdapterSettings(start_from=str(file)), model)
    assert "rank" not in caught.value.hint
    assert "text_encoder" not in caught.value.hint


def test_layers_that_the_base_model_lacks_or_has_in_another_size_are_refused(tmp_path, bases):
    model, _ = bases("sd15")
    file = headers.write(tmp_path / "ana.safetensors", LORA)
    with pytest.raises(
        LoraRefused, match=rf"another model: {QUERY} has weights for 8 x 8, the base model's are 64 x 64"
    ):
        check_start(AdapterSettings(rank=4, alpha=4.0, start_from=str(file)), model)
    renamed = {name.replace("blocks_0", "blocks_7"): shape for name, shape in LORA.items()}
    file = headers.write(tmp_path / "ben.safetensors", renamed)
    with pytest.raises(
        LoraRefused, match=r"a layer that this base model does not have: .*blocks\.7\.attn1\.to_q of the UNet"
    ):
        check_start(AdapterSettings(rank=4, alpha=4.0, start_from=str(file)), model)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("settings", "told", "hint", "places"),
    [
        (
            {"text_encoder": False},
            "changes the text encoder too, which the run does not train.",
            "--adapter.text_encoder true",
            {"adapter.text_encoder"},
        ),
        (
            {"targets": "attention"},
            "changes projections and feed-forward layers too; the run trains attention alone.",
            "--adapter.targets attention_mlp",
            {"adapter.targets"},
        ),
        (
            {"rank": 16, "alpha": 8.0, "text_encoder": False},
            "has rank 4 and alpha 2; the run has rank 16 and alpha 8. ana.safetensors changes the text encoder too, "
            "which the run does not train.",
            "--adapter.rank 4 --adapter.alpha 2 --adapter.text_encoder true",
            {"adapter.rank", "adapter.alpha", "adapter.text_encoder"},
        ),
    ],
)
def test_settings_that_train_less_than_the_file_holds_are_named(tmp_path, bases, known, settings, told, hint, places):
    model, table = bases("sd15")
    file = written(tmp_path / "ana.safetensors", "sd15", table)
    with pytest.raises(InvalidSettings) as caught:
        check_start(AdapterSettings(**{**TRAINS, **settings}, start_from=str(file)), model if known else None)
    assert caught.value.message == f"ana.safetensors {told}"
    assert for_console(caught.value.hint) == f"Set {hint}."
    assert set(caught.value.places) == places
    assert caught.value.code == "invalid_settings"


def test_a_rank_that_no_run_can_have_is_not_asked_for(tmp_path):
    shapes = {f"{QUERY}.lora_down.weight": (1, 8), f"{QUERY}.lora_up.weight": (8, 1)}
    with pytest.raises(LoraRefused, match="has rank 1 and alpha 1, which no run can have"):
        check_start(AdapterSettings(start_from=str(headers.write(tmp_path / "ana.safetensors", shapes))))


def test_layers_that_start_fresh_are_counted_before_the_start(tmp_path, bases):
    model, table = bases("sd15")
    attention = lambda tensors: {name: one for name, one in tensors.items() if "unet" in name and "_to_" in name}  # noqa: E731
    file = written(tmp_path / "ana.safetensors", "sd15", table, change=attention)
    start = check_start(AdapterSettings(**{**TRAINS, "text_encoder": False}, start_from=str(file)), model)
    assert (start.fresh, start.trained) == (64, 192)


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_down_blocks_x_attentions_0_proj_in.alpha",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_1.alpha",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn3_to_q.alpha",
        "lora_te_text_model_encoder_layers_0_self_attn_x_proj.alpha",
        "lora_unet_text_model_encoder_layers_0_mlp_fc1.alpha",
        "lora_te3_text_model_encoder_layers_0_mlp_fc1.alpha",
        "mid_block_attentions_0_proj_in.lora_down",
        "",
        ".alpha",
    ],
)
def test_names_beside_the_grammar_belong_to_no_layer(name):
    assert key_of(name) is None
