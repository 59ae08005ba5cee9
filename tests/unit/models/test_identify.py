import json
import math
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.headers import SD2_MARKER, assemble, clip_l, folder, open_clip, sd2, sd15, sdxl, unet, vae, write
from trainer.contract.home import POCKET
from trainer.contract.wording import for_console
from trainer.models.errors import BaseModelMissing, NotABaseModel
from trainer.models.headers import read_header, read_numbers
from trainer.models.identify import BaseModel, identify

MARKS = {"v_pred": (0,), "ztsnr": (0,)}


def spread(sigma, dtype="F16"):
    """320 numbers of this standard deviation, as the bytes of SD 2's telling tensor."""
    numbers = [sigma, -sigma] * 160
    if dtype == "BF16":
        return b"".join(struct.pack("<f", number)[2:] for number in numbers)
    return struct.pack(f"<320{'e' if dtype == 'F16' else 'f'}", *numbers)


def said(**facts):
    return {f"modelspec.{key}": value for key, value in facts.items()}


# name, tensors, metadata, number format -> family, prediction, zero terminal SNR, px, CLIP skip, variant
MODELS = [
    ("v1-5-pruned-emaonly", sd15(), {}, "F32", ("sd15", "epsilon", False, 512, 0, "")),
    (
        "flat-text-encoder",
        {name.replace("r.text_model.", "r."): one for name, one in sd15().items()},
        {},
        "F16",
        "sd15",
    ),
    ("with-ema", sd15() | {"model_ema.decay": ()}, {}, "F16", "sd15"),
    ("kept-clip-buffers", sd15() | {"alphas_cumprod": (1000,), "betas": (1000,)}, {}, "F16", "sd15"),
    ("anything-v3", sd15(), {}, "F16", ("sd15", "epsilon", False, 512, 2, "")),
    ("AbyssOrangeMix2", sd15(), {}, "F16", ("sd15", "epsilon", False, 512, 2, "")),
    ("anything-v3", sd15(), said(encoder_layer="1"), "F16", ("sd15", "epsilon", False, 512, 0, "")),
    ("mine", sd15(), said(encoder_layer="2"), "F16", ("sd15", "epsilon", False, 512, 2, "")),
    ("mine", sd15(), {"ss_clip_skip": "2"}, "F16", ("sd15", "epsilon", False, 512, 2, "")),
    ("mine", sd15(), said(title="Counterfeit V3"), "F16", ("sd15", "epsilon", False, 512, 2, "")),
    ("mine", sd15(), said(resolution="768x768"), "F16", ("sd15", "epsilon", False, 768, 0, "")),
    ("mine", sd15(), said(resolution="about 9x9"), "F16", "sd15"),
    ("easyfluff-v-pred", sd15(), {}, "F16", ("sd15", None, False, 512, 0, "")),
    ("mine", sd15(), said(prediction_type="v"), "F16", ("sd15", "v_prediction", False, 512, 0, "")),
    ("mine", sd15() | MARKS, {}, "F16", ("sd15", "v_prediction", True, 512, 0, "")),
    ("pony-of-sd15", sd15(), {}, "F16", "sd15"),
    ("sd_xl_base_1.0", sdxl(), {}, "F16", ("sdxl", "epsilon", False, 1024, 0, "")),
    ("sd_xl_base_1.0", sdxl(), said(architecture="stable-diffusion-xl-v1-base"), "BF16", "sdxl"),
    ("animagine-xl-4.0", sdxl(), {}, "F16", ("sdxl", "epsilon", False, 1024, 0, "")),
    ("ponyDiffusionV6XL", sdxl(), {}, "F16", ("sdxl", "epsilon", False, 1024, 0, "Pony")),
    ("Illustrious-XL-v1.0", sdxl(), {}, "F16", ("sdxl", "epsilon", False, 1024, 0, "Illustrious")),
    ("mine", sdxl(), said(title="My Illustrious merge"), "F16", ("sdxl", "epsilon", False, 1024, 0, "Illustrious")),
    ("anything-xl", sdxl(), {}, "F16", ("sdxl", "epsilon", False, 1024, 0, "")),
    ("NoobAI-XL-v1.1", sdxl(), {}, "F16", ("sdxl", "epsilon", False, 1024, 0, "NoobAI")),
    ("NoobAI-XL-Vpred-v1.0", sdxl() | MARKS, {}, "F16", ("sdxl", "v_prediction", True, 1024, 0, "NoobAI")),
    ("noobai_vPred_merge", sdxl(), {}, "F16", ("sdxl", None, False, 1024, 0, "NoobAI")),
    ("a v-prediction merge", sdxl(), {}, "F16", ("sdxl", None, False, 1024, 0, "")),
    ("a v_pred merge", sdxl(), said(prediction_type="epsilon"), "F16", ("sdxl", "epsilon", False, 1024, 0, "")),
    ("vpred by comfy", sdxl(), said(predict_key="epsilon"), "F16", ("sdxl", None, False, 1024, 0, "")),
    ("mine", sdxl(), said(predict_key="v"), "F16", ("sdxl", "v_prediction", False, 1024, 0, "")),
    ("mine", sdxl() | MARKS, said(prediction_type="epsilon"), "F16", ("sdxl", "v_prediction", True, 1024, 0, "")),
    ("mine", sdxl() | {"v_pred": (0,)}, {}, "F16", ("sdxl", "v_prediction", False, 1024, 0, "")),
    ("mine", sdxl() | {"ztsnr": (0,)}, {}, "F16", ("sdxl", None, True, 1024, 0, "")),
    (
        "mine",
        sdxl(),
        {"ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"},
        "F16",
        ("sdxl", "v_prediction", True, 1024, 0, ""),
    ),
    ("512-base-ema", sd2(), {}, 0.05, ("sd2", "epsilon", False, 512, 0, "")),
    ("v2-1_768-ema-pruned", sd2(), {}, 0.12, ("sd2", "v_prediction", False, 768, 0, "")),
    ("v2-1_768-bf16", sd2(), {}, (0.12, "BF16"), ("sd2", "v_prediction", False, 768, 0, "")),
    ("v2-1_768-fp32", sd2(), {}, (0.12, "F32"), ("sd2", "v_prediction", False, 768, 0, "")),
    ("near-the-threshold", sd2(), {}, 0.0901, ("sd2", None, False, 512, 0, "")),
    ("all-zeros", sd2(), {}, "F16", ("sd2", None, False, 512, 0, "")),
    ("random", sd2(), {}, 1.0, ("sd2", None, False, 512, 0, "")),
    ("fresh", sd2(), {}, 0.02, ("sd2", None, False, 512, 0, "")),
    ("infinite", sd2(), {}, math.inf, ("sd2", None, False, 512, 0, "")),
    ("telling-tensor-huge", sd2() | {SD2_MARKER: (9000, 9000)}, {}, "F16", ("sd2", None, False, 512, 0, "")),
    (
        "declared",
        sd2(),
        said(architecture="stable-diffusion-v2-768-v"),
        "F16",
        ("sd2", "v_prediction", False, 768, 0, ""),
    ),
    ("declared", sd2(), {"ss_base_model_version": "sd_v2"}, "F16", ("sd2", "epsilon", False, 512, 0, "")),
    ("agreeing", sd2(), said(prediction_type="epsilon"), 0.05, ("sd2", "epsilon", False, 512, 0, "")),
    ("contradictory", sd2(), said(prediction_type="epsilon"), 0.12, ("sd2", None, False, 512, 0, "")),
    ("anything-v2", sd2() | MARKS, {}, 0.05, ("sd2", "v_prediction", True, 768, 0, "")),
]
DTYPES = {"F16": "fp16", "BF16": "bf16", "F32": "fp32"}


@pytest.mark.parametrize(
    ("name", "tensors", "metadata", "weights", "expected"),
    MODELS,
    ids=[f"{n}-{row[0]}" for n, row in enumerate(MODELS)],
)
def test_a_base_model_is_recognised_by_its_header(tmp_path, name, tensors, metadata, weights, expected):
    dtype, values = (weights, {}) if isinstance(weights, str) else ("F16", {})
    if not isinstance(weights, str):
        sigma, dtype = weights if isinstance(weights, tuple) else (weights, "F16")
        values = {SD2_MARKER: spread(sigma, dtype)}
    path = write(tmp_path / f"{name}.safetensors", tensors, dtype, metadata, values=values)
    if isinstance(expected, str):  # nothing special about it
        expected = (expected, "epsilon", False, {"sd15": 512, "sdxl": 1024}[expected], 0, "")
    assert identify(path) == BaseModel(path, "file", *expected, bytes=path.stat().st_size, dtype=DTYPES[dtype])


def test_unusual_widths_do_not_matter(tmp_path):
    narrow = {name: tuple(min(side, 32) for side in shape) for name, shape in sdxl().items()}
    assert identify(write(tmp_path / "tiny.safetensors", narrow)).family == "sdxl"


def test_the_format_is_that_of_most_weights(tmp_path):
    mixed = write(tmp_path / "a.safetensors", sd15(), dtypes=dict.fromkeys(vae(), "F32"))
    assert identify(mixed).dtype == "fp16"


def test_the_format_is_that_of_the_unet_however_large_the_other_parts_are(tmp_path):
    others = dict.fromkeys([name for name in sdxl() if not name.startswith("model.diffusion_model.")], "F64")
    path = write(tmp_path / "a.safetensors", sdxl(), dtypes=others)
    assert identify(path).dtype == "fp16"


def lora(down, up):
    return {f"lora_unet_down_blocks_0_attentions_0_proj_in.{part}": (16, 320) for part in (down, up, "alpha")}


DIT = "model.diffusion_model."
DIFFUSERS_UNET = {"conv_in.weight": (320, 4, 3, 3), "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3)}
REFINER = unet(1280, deep=True) | vae() | open_clip(1280, "conditioner.embedders.0.model.")
# what, tensors -> a word of what it is said to be
OTHERS = [
    ("kohya lora", lora("lora_down.weight", "lora_up.weight"), "LoRA"),
    ("peft lora", {"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": (16, 320)}, "LoRA"),
    ("diffusers lora", {"unet.down_blocks.0.attentions.0.proj_in.lora.down.weight": (16, 320)}, "LoRA"),
    ("loha", lora("hada_w1_a", "hada_w1_b"), "LoHa"),
    ("lokr", lora("lokr_w1", "lokr_w2_a"), "LoKr"),
    ("embedding", {"emb_params": (8, 768)}, "textual inversion"),
    ("sdxl embedding", {"clip_l": (8, 768), "clip_g": (8, 1280)}, "textual inversion"),
    ("diffusers embedding", {"<cat-toy>": (1, 768)}, "textual inversion"),
    ("old embedding", {"string_to_param.*": (8, 768)}, "textual inversion"),
    ("hypernetwork", {"768.0.linear.0.weight": (1536, 768), "768.1.linear.0.weight": (1536, 768)}, "hypernetwork"),
    ("controlnet", {"control_model.input_hint_block.0.weight": (16, 3, 3, 3)}, "ControlNet"),
    ("controlnet with its model", sd15() | {"control_model.zero_convs.0.0.weight": (320, 320, 1, 1)}, "ControlNet"),
    ("bare controlnet", {"input_hint_block.0.weight": (16, 3, 3, 3)}, "ControlNet"),
    (
        "diffusers controlnet",
        DIFFUSERS_UNET | {"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)},
        "ControlNet",
    ),
    ("ip adapter", {"image_proj.proj.weight": (3072, 1024), "ip_adapter.1.to_k_ip.weight": (320, 768)}, "IP-Adapter"),
    ("motion", {"down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight": (320, 320)}, "motion module"),
    ("sd3", {f"{DIT}joint_blocks.0.context_block.attn.qkv.weight": (4608, 1536)} | vae(), "Stable Diffusion 3"),
    ("flux", {"double_blocks.0.img_attn.qkv.weight": (9216, 3072)}, "FLUX"),
    ("flux all in one", {f"{DIT}double_blocks.0.img_attn.qkv.weight": (9216, 3072)}, "FLUX"),
    ("diffusers flux", {"single_transformer_blocks.0.attn.to_q.weight": (3072, 3072)}, "FLUX"),
    ("pixart", {"adaln_single.linear.weight": (6912, 1152)}, "another architecture"),
    ("lumina", {f"{DIT}cap_embedder.0.weight": (2304,)}, "another architecture"),
    ("qwen image", {"transformer_blocks.0.img_mod.1.weight": (18432, 3072)}, "another architecture"),
    ("wan", {"blocks.0.self_attn.q.weight": (1536, 1536)}, "another architecture"),
    ("unheard-of", {f"{DIT}brand.new.weight": (8, 8)}, "another architecture"),
    ("cascade", {"clip_txt_mapper.weight": (2048, 1280), "down_blocks.0.0.channelwise.0.weight": (8, 8)}, "Cascade"),
    ("svd", unet(1024) | vae() | {f"{DIT}input_blocks.1.0.time_stack.in_layers.0.weight": (320,)}, "video"),
    ("playground 2.5", sdxl() | {"edm_mean": (4,), "edm_std": (4,)}, "EDM"),
    ("cosxl", sdxl() | {"edm_vpred.sigma_max": ()}, "EDM"),
    ("refiner", REFINER, "refiner"),
    ("unclip", sd2() | {f"{DIT}label_emb.0.0.weight": (1280, 2048)}, "unCLIP"),
    (
        "ssd-1b",
        {name: shape for name, shape in sdxl().items() if "transformer_blocks.9" not in name},
        "distilled",
    ),
    ("sd15 inpainting", sd15(9), "inpainting"),
    ("sd2 inpainting", sd2(9), "inpainting"),
    ("sdxl inpainting", sdxl(9), "inpainting"),
    ("pix2pix", sd15(8), "InstructPix2Pix"),
    ("depth", sd2(5), "depth"),
    ("x4 upscaler", sd2(7), "upscaler"),
    ("odd channels", sd15(6), "reads 6 channels, its VAE makes 4"),
    ("vae", vae(""), "VAE"),
    ("vae of a checkpoint", vae(), "VAE"),
    ("diffusers vae", {"encoder.down_blocks.0.resnets.0.conv1.weight": (128, 128, 3, 3)}, "VAE"),
    ("clip", clip_l("text_model."), "text encoder"),
    ("flat clip", {"encoder.layers.0.self_attn.q_proj.weight": (768, 768)}, "text encoder"),
    ("clip of a checkpoint", clip_l(), "text encoder"),
    ("open clip", open_clip(1280, ""), "text encoder"),
    ("t5", {"encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096), "shared.weight": (32128, 4096)}, "text"),
    ("clip vision", {"vision_model.embeddings.patch_embedding.weight": (1024, 3, 14, 14)}, "image encoder"),
    ("diffusers unet", DIFFUSERS_UNET, "one part of a model"),
    ("bare unet", {name.removeprefix(DIT): shape for name, shape in unet(768).items()}, "without text encoder and VAE"),
    ("unet only", unet(768), "no text encoder and no VAE"),
    ("no vae", unet(768) | clip_l(), "no VAE"),
    ("no text encoder", unet(768) | vae(), "no text encoder"),
    ("no unet", vae() | clip_l(), "no UNet"),
    ("half an sdxl", unet(2048, deep=True) | vae() | open_clip(1280, "conditioner.embedders.1.model."), "CLIP-L"),
    ("alt diffusion", unet(768) | vae() | {"cond_stage_model.roberta.pooler.weight": (8, 8)}, "unknown kind"),
    ("esrgan", {"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)}, "upscaler"),
    ("real esrgan", {"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (32, 64, 3, 3)}, "upscaler"),
    ("bitsandbytes", sd15() | {f"{DIT}time_embed.0.weight.quant_state.bitsandbytes__nf4": (90,)}, "quantized"),
    ("scaled fp8", sdxl() | {"scaled_fp8": (2,)}, "fp8"),
    ("no tensors", {}, "no weights"),
    ("something else", {"weight": (3, 3)}, "match no supported model"),
]


@pytest.mark.parametrize(("tensors", "word"), [row[1:] for row in OTHERS], ids=[row[0] for row in OTHERS])
def test_what_is_no_base_model_is_called_by_its_name(tmp_path, tensors, word):
    with pytest.raises(NotABaseModel) as refused:
        identify(write(tmp_path / "a.safetensors", tensors))
    assert word in refused.value.message
    assert refused.value.hint.startswith("Choose ")


@pytest.mark.parametrize(("dtype", "word"), [("F8_E4M3", "fp8"), ("F8_E5M2", "fp8"), ("I8", "quantized")])
def test_coarse_weights_are_refused_though_a_part_is_fine(tmp_path, dtype, word):
    path = write(tmp_path / "a.safetensors", sdxl(), dtype, dtypes=dict.fromkeys(vae(), "F32"))
    with pytest.raises(NotABaseModel, match=word) as refused:
        identify(path)
    assert "fp16" in refused.value.hint


TEXT_TIME = {"addition_embed_type": "text_time", "use_linear_projection": True, "sample_size": 128}
V = {"prediction_type": "v_prediction"}


def test_the_built_in_model_is_a_small_sd1_that_predicts_velocity():
    model = identify(POCKET)
    assert (model.layout, model.family, model.prediction, model.default_size) == ("folder", "sd15", "v_prediction", 64)
    assert model.dtype == "fp16"
    assert model.bytes == sum(
        file.stat().st_size
        for part in ("unet", "vae", "text_encoder")
        for file in (POCKET / part).glob("*.safetensors")
    )


@pytest.mark.parametrize(
    ("name", "config", "scheduler", "expected"),
    [
        ("sd15", {}, {}, ("sd15", "epsilon", False, 512, 0, "")),
        ("anything-v5", {}, {"prediction_type": "epsilon"}, ("sd15", "epsilon", False, 512, 2, "")),
        ("sd2", {"use_linear_projection": True}, {}, ("sd2", "epsilon", False, 512, 0, "")),
        ("sd2", {"use_linear_projection": True, "sample_size": 96}, V, ("sd2", "v_prediction", False, 768, 0, "")),
        ("sdxl", TEXT_TIME, {}, ("sdxl", "epsilon", False, 1024, 0, "")),
        (
            "noobai-vpred",
            TEXT_TIME,
            V | {"rescale_betas_zero_snr": True},
            ("sdxl", "v_prediction", True, 1024, 0, "NoobAI"),
        ),
        ("noobai-vpred", TEXT_TIME | {"sample_size": None}, {}, ("sdxl", "epsilon", False, 1024, 0, "NoobAI")),
        ("models--a--pony/snapshots/0f3b", TEXT_TIME, {}, ("sdxl", "epsilon", False, 1024, 0, "Pony")),
    ],
)
def test_a_folder_is_recognised_by_its_configurations(tmp_path, name, config, scheduler, expected):
    path = folder(tmp_path / name, config, second="addition_embed_type" in config, scheduler=scheduler)
    weights = sum(file.stat().st_size for file in path.rglob("*.safetensors"))
    assert identify(path) == BaseModel(path, "folder", *expected, bytes=weights, dtype="fp16")


def test_of_two_sets_of_weights_the_plain_one_counts(tmp_path):
    path = folder(tmp_path / "a", {})
    plain = read_header(path / "unet" / "model.safetensors").tensors
    write(path / "unet" / "model.fp16.safetensors", {name: entry.shape for name, entry in plain.items()})
    write(path / "unet" / "model.safetensors", {**dict.fromkeys(plain, (1,)), "more": (99, 99)})
    before = identify(path).bytes
    (path / "unet" / "model.safetensors").unlink()
    assert identify(path).bytes < before


@pytest.mark.parametrize(
    ("config", "others", "words"),
    [
        ({"in_channels": 9}, {}, "inpainting"),
        ({"in_channels": 8}, {}, "InstructPix2Pix"),
        ({"_class_name": "UNetSpatioTemporalConditionModel"}, {}, "UNetSpatioTemporalConditionModel"),
        (TEXT_TIME, {}, "no text_encoder_2, tokenizer_2"),
        ({}, {"scheduler": {"prediction_type": "sample"}}, "sample"),
        ({}, {"scheduler": {"_class_name": "EDMDPMSolverMultistepScheduler"}}, "EDM"),
        ({}, {"text_encoder": {"model_type": "roberta_series"}}, "unknown kind"),
    ],
)
def test_a_folder_of_another_kind_is_refused(tmp_path, config, others, words):
    with pytest.raises(NotABaseModel, match=words):
        identify(folder(tmp_path / "a", config, **others))


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        (["vae"], "it has no vae"),
        (["vae", "scheduler"], "it has no vae, scheduler"),
        (["vae/config.json"], "it has no vae/config.json"),
        (["unet/config.json"], "it has no unet folder, being a StableDiffusionPipeline"),
        (["text_encoder/model.safetensors"], "its text_encoder has no .safetensors file"),
        (["text_encoder", "tokenizer"], "it has no text_encoder, tokenizer"),
    ],
)
def test_missing_parts_of_a_folder_are_named(tmp_path, gone, words):
    path = folder(tmp_path / "a", {})
    for name in gone:
        shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink()
    with pytest.raises(NotABaseModel, match=words):
        identify(path)


def test_the_refiner_as_a_folder_is_called_so(tmp_path):
    path = folder(tmp_path / "a", TEXT_TIME, second=True)
    shutil.rmtree(path / "text_encoder")
    with pytest.raises(NotABaseModel, match="refiner"):
        identify(path)


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "[" * 100_000, '{"in_channels": ' + "9" * 5000 + "}"])
def test_a_damaged_configuration_is_named(tmp_path, text):
    path = folder(tmp_path / "a", {})
    (path / "unet" / "config.json").write_text(text)
    with pytest.raises(NotABaseModel, match=r"its unet/config.json is damaged"):
        identify(path)


def test_a_folder_of_single_files_names_three_of_them(tmp_path):
    for name in "abcde":
        write(tmp_path / f"{name}.safetensors", sd15())
    with pytest.raises(NotABaseModel, match=r"\(a.safetensors, b.safetensors, c.safetensors and 2 more\)") as refused:
        identify(tmp_path)
    assert refused.value.hint == "Choose one of the files in it."


def test_other_folders_are_told_apart(tmp_path):
    with pytest.raises(NotABaseModel, match="it holds no model"):
        identify(tmp_path)
    with pytest.raises(NotABaseModel, match="one part of a model"):
        identify(folder(tmp_path / "whole", {}) / "unet")
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(NotABaseModel, match="FluxPipeline"):
        identify(tmp_path)


def test_nothing_at_the_path_is_told_apart_from_something_else(tmp_path):
    for path in (tmp_path / "none", Path("a\0b")):
        with pytest.raises(BaseModelMissing):
            identify(path)
        with pytest.raises(BaseModelMissing):
            read_header(path)
    with pytest.raises(NotABaseModel, match="not a file"):
        read_header(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="Windows takes such paths for missing")
def test_what_cannot_be_opened_or_never_ends_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / ("x" * 5000), "cannot be read"), (tmp_path / "pipe", "not a file")):
        with pytest.raises(NotABaseModel, match=words):
            identify(path)


def entry(shape=(2,), dtype="F16", begin=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def header_of(*fields, data_bytes=4):
    text = "{" + ", ".join(json.dumps(f"t{n}") + ": " + json.dumps(field) for n, field in enumerate(fields)) + "}"
    return lambda path: assemble(path, text.encode(), data_bytes)


def raw(data, sparse=0):
    def made(path):
        path.write_bytes(data)
        if sparse:
            with path.open("rb+") as file:
                file.truncate(sparse)

    return made


def pickled(path):
    path.write_bytes(pickle.dumps({"state_dict": {}}, protocol=2))


def torch_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")


def plain_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.safetensors", b"")


def cut(path):
    write(path, sd15())
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 1)


def cut_in_header(path):
    write(path, sd15())
    with path.open("rb+") as file:
        file.truncate(100)


def longer(path):
    write(path, sd15())
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size + 1)


TWICE = b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": {}}'
BROKEN = [
    ("empty", raw(b""), "empty", "again"),
    ("zeros of a download", raw(b"", 1 << 20), "zeros", "again"),
    ("a few bytes", raw(b"abc"), "does not begin", "Choose"),
    ("cut", cut, "truncated: ", "again"),
    ("cut in its header", cut_in_header, "truncated inside its header", "again"),
    ("longer than it says", longer, "follow its last tensor", "again"),
    ("header of 10 GB", raw(struct.pack("<Q", 10**10) + b"{"), "it claims 10.0 GB", "again"),
    ("header of 2^64", raw(struct.pack("<Q", 2**64 - 1) + b"{"), "damaged", "again"),
    ("header of 90 MB", raw(struct.pack("<Q", 9 * 10**7) + b"{", 10**8), "its header takes 90.0 MB", "again"),
    ("not json", lambda path: assemble(path, b"{nonsense", 0), "not JSON", "again"),
    ("not utf-8", lambda path: assemble(path, b'{"\xff": 1}', 0), "not JSON", "again"),
    ("deep", lambda path: assemble(path, b'{"a":' + b"[" * 200_000, 0), "not JSON", "again"),
    ("endless number", lambda path: assemble(path, b'{"a":' + b"9" * 9000 + b"}", 0), "damaged", "again"),
    ("many commas", lambda path: assemble(path, b'{"a":[' + b"1," * 600_000 + b"1]}", 0), "more than any", "again"),
    ("twice the same name", lambda path: assemble(path, TWICE, 1), "twice", "again"),
    ("metadata of numbers", lambda path: assemble(path, b'{"__metadata__": {"a": 1}}', 0), "metadata", "again"),
    ("metadata is a list", lambda path: assemble(path, b'{"__metadata__": []}', 0), "metadata", "again"),
    ("entry is a number", header_of(7), "not a tensor's", "again"),
    ("entry lacks its place", header_of({"dtype": "F16", "shape": [2]}), "not a tensor's", "again"),
    ("nine dimensions", header_of(entry((1,) * 9)), "not a tensor's", "again"),
    ("negative size", header_of(entry((-2,))), "not a number", "again"),
    ("size true", header_of(entry((True,), "U8", 0, 1)), "not a number", "again"),
    ("size of a fraction", header_of(entry((2.0,))), "not a number", "again"),
    ("size past 2^63", header_of(entry((2**64, 0), "U8", 0, 0)), "not a number", "again"),
    ("unknown format", header_of(entry(dtype="F17")), "unknown number format", "again"),
    ("format is a list", header_of(entry(dtype=["F16"])), "unknown number format", "again"),
    ("too few bytes", header_of(entry((3,))), "do not match", "again"),
    ("end before begin", header_of(entry((0,), begin=4, end=0)), "do not match", "again"),
    ("overlap", header_of(entry(), entry(begin=2, end=6), data_bytes=6), "overlap", "again"),
    ("gap", header_of(entry(), entry(begin=6, end=10), data_bytes=10), "leave a gap", "again"),
    ("past the end", header_of(entry((2**40,), end=2**41)), "truncated", "again"),
    ("web page", raw(b"\n<!DOCTYPE html><html><head><title>Log in"), "web page", "logged in"),
    ("message", raw(b'{"error": "Unauthorized"}'), "message", "logged in"),
    ("pickle", pickled, "pickled", "python launch.py convert"),
    ("checkpoint", torch_zip, "pickled", "python launch.py convert"),
    ("gguf", raw(b"GGUF\x03\0\0\0\0\0\0\0", 1 << 20), "GGUF", "fp16"),
    ("lfs", raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a"), "LFS", "git lfs pull"),
    ("7z", raw(b"7z\xbc\xaf\x27\x1c and more"), "archive", "Unpack"),
    ("png", raw(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "image", "Choose"),
]


@pytest.mark.parametrize(("make", "seen", "hint"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_file_is_explained_in_a_sentence_and_costs_no_memory(tmp_path, make, seen, hint):
    path = tmp_path / "model.safetensors"
    make(path)
    tracemalloc.start()
    try:
        with pytest.raises(NotABaseModel) as refused:
            identify(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen in refused.value.message
    assert hint in for_console(refused.value.hint)
    assert "\n" not in refused.value.message
    assert peak < 8 << 20


def test_a_checkpoint_by_its_name_and_any_other_archive_are_told_apart(tmp_path):
    for name, words in (("model.zip", "packed archive"), ("model.ckpt", "pickled")):
        plain_zip(tmp_path / name)
        with pytest.raises(NotABaseModel, match=words):
            identify(tmp_path / name)


def test_a_header_whose_length_looks_like_a_pickle_is_still_a_header(tmp_path):
    pad = json.dumps({"t": entry()}).encode().ljust(0x280)  # its first two bytes are a pickle's
    assert list(read_header(assemble(tmp_path / "a.safetensors", pad, 4)).tensors) == ["t"]


def test_what_safetensors_itself_writes_is_read(tmp_path):
    numpy = pytest.importorskip("numpy")
    from safetensors.numpy import save_file

    path = tmp_path / "a.safetensors"
    save_file({"b": numpy.float32([1.5, -2.0]), "a": numpy.zeros((0, 3), "int8")}, path, {"title": "Bär"})
    header = read_header(path)
    assert header.metadata == {"title": "Bär"}
    assert {name: (one.dtype, one.shape) for name, one in header.tensors.items()} == {
        "a": ("I8", (0, 3)),
        "b": ("F32", (2,)),
    }
    assert read_numbers(header, "b") == (1.5, -2.0)
    assert read_numbers(header, "a") == read_numbers(header, "none") == ()


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (
            BaseModel(Path("a"), "file", "sdxl", "epsilon", False, 1024, 0, "Illustrious", 6_938_000_000, "fp16"),
            "SDXL (Illustrious), predicts noise, 1024 px, fp16, 6.9 GB",
        ),
        (
            BaseModel(Path("a"), "file", "sdxl", "v_prediction", True, 1024, 0, "NoobAI", 7_100_000_000, "bf16"),
            "SDXL (NoobAI), predicts velocity with zero terminal SNR, 1024 px, bf16, 7.1 GB",
        ),
        (
            BaseModel(Path("a"), "file", "sd2", None, False, 512, 0, "", 5_214_000_000, "fp32"),
            "SD 2.x, not sure whether it predicts noise or velocity, 512 px, fp32, 5.2 GB",
        ),
        (
            BaseModel(Path("a"), "folder", "sd15", "epsilon", False, 512, 2, "", 2_130_000_000, "fp16"),
            "SD 1.x, predicts noise, CLIP skip 2, 512 px, fp16, 2.1 GB",
        ),
    ],
)
def test_a_model_is_told_in_a_line(model, sentence):
    assert model.sentence() == sentence


def only_our_errors(path):
    try:
        assert isinstance(identify(path), BaseModel)
    except (NotABaseModel, BaseModelMissing) as error:
        assert error.message
        assert error.hint


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
MANY = settings(max_examples=150, deadline=None)


@MANY
@given(data=st.binary(max_size=300))
def test_no_bytes_raise_anything_but_our_errors(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "a.safetensors"
    path.write_bytes(data)
    only_our_errors(path)
    assemble(path, b"{" + data, 20)
    only_our_errors(path)


@MANY
@given(data=st.data())
def test_no_change_of_a_header_raises_anything_but_our_errors(tmp_path_factory, data):
    path = write(
        tmp_path_factory.mktemp("changed") / "a.safetensors", data.draw(st.sampled_from([sd15(), sd2(), sdxl()]))
    )
    with path.open("rb") as file:  # the header alone: what follows is a gigabyte of holes
        length = file.read(8)
        header = file.read(int.from_bytes(length, "little"))
    data_bytes = path.stat().st_size - 8 - len(header)
    fields = json.loads(header)
    name = data.draw(st.sampled_from(sorted(fields)))
    change = data.draw(st.sampled_from(["entry", "dtype", "shape", "data_offsets", "name", "metadata", "bytes"]))
    if change == "bytes":
        place = data.draw(st.integers(0, len(header) - 1))
        assemble(path, header[:place] + data.draw(st.binary(min_size=1, max_size=3)) + header[place:], data_bytes)
        return only_our_errors(path)
    if change == "name":
        fields[data.draw(st.text(max_size=20))] = fields.pop(name)
    elif change == "metadata":
        fields["__metadata__"] = data.draw(ANYTHING)
    elif change == "entry":
        fields[name] = data.draw(ANYTHING)
    else:
        fields[name][change] = data.draw(ANYTHING | st.lists(st.integers(-1, 2**70), max_size=4))
    assemble(path, json.dumps(fields).encode(), data_bytes)
    return only_our_errors(path)


@MANY
@given(
    part=st.sampled_from(["unet", "vae", "scheduler", "text_encoder"]), config=ANYTHING, key=st.text(), data=st.data()
)
def test_no_configuration_raises_anything_but_our_errors(tmp_path_factory, part, config, key, data):
    path = folder(tmp_path_factory.mktemp("folder") / "a", {})
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    known = ["in_channels", "sample_size", "block_out_channels", "prediction_type", "_class_name", "model_type"]
    told = data.draw(st.dictionaries(st.sampled_from(known) | st.just(key), ANYTHING, max_size=4) | st.just(config))
    (path / part / name).write_text(json.dumps(told), encoding="utf-8")
    only_our_errors(path)
