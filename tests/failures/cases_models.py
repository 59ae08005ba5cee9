"""What goes wrong with base models, those of the hub, LoRA files, and checkpoints that are converted."""

from __future__ import annotations

import zipfile

import headers
import hub_server
import torch
from safetensors.torch import save_file

import trainer.tools.convert
from failures.book import case
from failures.scene import copied
from trainer.models import hub as hub_module

NAME = "ana/small-model"
CONTENT = b"full" * 2000
SD = hub_server.small_model(CONTENT)


def chosen(scene, content=None, shapes=None, name="model.safetensors", dtype="F16"):
    """What is said of a file that is chosen as the base model."""
    path = scene.folder / "models" / name
    path.parent.mkdir()
    if shapes is not None:
        headers.write(path, shapes, dtype)
    else:
        path.write_bytes(content)
    return scene.refused(preset="sd15-style", model__base_model=path)


@case("model", "base_model_missing")
def a_model_that_is_not_there(scene):
    return scene.refused(model__base_model=scene.folder / "models" / "model.safetensors")


@case("settings", "invalid_settings")
def an_address_of_civitai_instead_of_a_model(scene):
    return scene.refused(model__base_model="https://civitai.com/models/101055")


@case("settings", "invalid_settings")
def an_address_of_the_hub_that_names_another_state(scene):
    return scene.refused(model__base_model=f"https://huggingface.co/{NAME}/tree/fp16")


@case("model", "not_a_base_model")
def a_web_page_instead_of_a_model(scene):
    return chosen(scene, b"<!DOCTYPE html><html><head><title>Log in")


@case("model", "not_a_base_model")
def an_empty_file(scene):
    return chosen(scene, b"")


@case("model", "not_a_base_model")
def a_model_that_was_cut_short(scene):
    path = headers.write(scene.folder / "models" / "model.safetensors", headers.sd15())
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)
    return scene.refused(preset="sd15-style", model__base_model=path)


@case("model", "not_a_base_model")
def a_damaged_header(scene):
    path = headers.assemble(scene.folder / "models" / "model.safetensors", b"{nonsense", 0)
    return scene.refused(preset="sd15-style", model__base_model=path)


@case("model", "not_a_base_model")
def a_pickled_model(scene):
    path = scene.folder / "models" / "model.ckpt"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    return scene.refused(preset="sd15-style", model__base_model=path)


@case("model", "not_a_base_model")
def a_quantised_model(scene):
    return chosen(scene, b"GGUF\x03\0\0\0\0\0\0\0", name="model.gguf")


@case("model", "not_a_base_model")
def a_model_in_fp8(scene):
    return chosen(scene, shapes=headers.sdxl(), dtype="F8_E4M3")


@case("model", "not_a_base_model")
def a_lora_instead_of_a_model(scene):
    layer = "lora_unet_down_blocks_0_attentions_0_proj_in"
    return chosen(scene, shapes={f"{layer}.lora_down.weight": (8, 320), f"{layer}.lora_up.weight": (320, 8)})


@case("model", "not_a_base_model")
def a_model_for_inpainting(scene):
    return chosen(scene, shapes=headers.sd15(9))


@case("model", "not_a_base_model")
def a_vae_alone(scene):
    return chosen(scene, shapes=headers.vae(""))


@case("model", "not_a_base_model")
def a_note_in_the_files_place(scene):
    return chosen(scene, b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a")


@case("model", "unsupported_model", trains=True)
def libraries_that_name_their_layers_otherwise(scene):
    from trainer.engine.adapters import lora

    scene.patch.setattr(lora, "_attach_to", lambda *_: {})
    return scene.train(scene.new_run(), "unsupported_model")


@case("model", "non_finite_latents", trains=True)
def a_vae_that_overflows(scene):
    from trainer.engine.families.unet import StableDiffusion

    plain = StableDiffusion.encode_image

    def spoilt(family, pixels):
        made = plain(family, pixels)
        made.mean[:] = float("nan")
        return made

    scene.patch.setattr(StableDiffusion, "encode_image", spoilt)
    return scene.train(scene.new_run(), "non_finite_latents")


@case("model", "lora_refused")
def a_lora_to_go_on_from_that_is_not_there(scene):
    return scene.refused(adapter__start_from=scene.folder / "loras" / "ana.safetensors")


@case("model", "lora_refused")
def a_lora_of_another_kind_to_go_on_from(scene):
    layer, file = "lora_unet_mid_block_attentions_0_proj_in", scene.folder / "loras" / "ana.safetensors"
    headers.write(file, {f"{layer}.{leaf}": (8, 8) for leaf in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")})
    return scene.refused(adapter__start_from=file)


@case("model", "lora_refused")
def a_lora_of_another_model_to_go_on_from(scene):
    block = "lora_unet_mid_block_attentions_0_transformer_blocks_0"
    shapes = {"attn2_to_k.lora_down.weight": (16, 2048), "attn2_to_k.lora_up.weight": (1280, 16)}
    file = headers.write(scene.folder / "loras" / "ana.safetensors", {f"{block}_{n}": s for n, s in shapes.items()})
    return scene.refused(adapter__start_from=file)


@case("model", "lora_refused", trains=True)
def a_lora_to_go_on_from_with_values_that_are_not_numbers(scene):
    layer, file = "lora_unet_mid_block_attentions_0_proj_in", scene.folder / "loras" / "ana.safetensors"
    file.parent.mkdir()
    tensors = {"lora_down.weight": torch.full((4, 64), torch.nan), "lora_up.weight": torch.ones(64, 4)}
    tensors["alpha"] = torch.tensor(2.0)
    save_file({f"{layer}.{name}": tensor for name, tensor in tensors.items()}, file)
    return scene.train(scene.new_run(adapter={"start_from": str(file)}), "lora_refused")


def fetched(scene, code, files=None, **properties):
    """A training whose base model is one of the hub."""
    with hub_server.instead(scene.folder, scene.patch) as hub:
        if files is not None:
            hub.add(NAME, files, **properties.pop("repository", {}))
        for name, value in properties.items():
            setattr(hub, name, value)
        return scene.train(scene.new_run(model={"base_model": NAME}), code)


@case("hub", "not_on_the_hub")
def a_model_that_the_hub_does_not_have(scene):
    return fetched(scene, "not_on_the_hub")


@case("hub", "hub_refused")
def a_model_whose_licence_was_not_accepted(scene):
    return fetched(scene, "hub_refused", SD, repository={"gated": "manual", "token": "hf_x"})


@case("hub", "hub_unreachable")
def a_hub_that_does_not_answer(scene):
    return fetched(scene, "hub_unreachable", SD, refuse=503)


@case("hub", "hub_offline")
def a_model_that_is_not_here_while_offline(scene):
    from huggingface_hub import constants

    with hub_server.instead(scene.folder, scene.patch):
        scene.patch.setattr(constants, "HF_HUB_OFFLINE", True)
        return scene.train(scene.new_run(model={"base_model": NAME}), "hub_offline")


@case("hub", "no_model_in_repository")
def a_repository_without_a_model(scene):
    return fetched(scene, "no_model_in_repository", {"README.md": b"a model", "ana.ckpt": CONTENT})


@case("hub", "no_room")
def a_disk_without_room_for_a_model(scene):
    from collections import namedtuple
    from types import SimpleNamespace

    usage = namedtuple("usage", "total used free")
    small = SimpleNamespace(disk_usage=lambda _: usage(10**9, 10**9, 2000))
    scene.patch.setattr(hub_module, "shutil", small)
    scene.patch.setattr("trainer.models.hub_errors.shutil", small)
    return fetched(scene, "no_room", SD)


@case("hub", "damaged_download")
def a_download_that_arrives_damaged(scene):
    return fetched(scene, "damaged_download", SD, announce={"unet/diffusion_pytorch_model.safetensors": "0" * 64})


def converted(scene, held, *more):
    path = scene.folder / "models" / "model.ckpt"
    path.parent.mkdir()
    if isinstance(held, bytes):
        path.write_bytes(held)
    else:
        torch.save(held, path)
    target = more[0] if more else path.with_suffix(".safetensors")
    return scene.console(path, target, main=trainer.tools.convert.main)


@case("model", "not_numbers", trains=True)
def a_base_model_that_holds_nan(scene):
    from safetensors.torch import load_file, save_file

    model = copied(scene.new_run().config().model.base_model, scene.folder / "merge")
    (file,) = (model / "text_encoder").glob("*.safetensors")
    tensors = load_file(file)
    first = min(name for name in tensors if name.endswith("fc1.weight"))
    tensors[first][0, 0] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    return scene.train(scene.new_run(model={"base_model": str(model)}), "not_numbers")


@case("runs", "conversion_refused")
def a_checkpoint_that_is_none(scene):
    return converted(scene, b"hello")


@case("runs", "conversion_refused")
def a_checkpoint_that_could_run_a_program(scene):
    return converted(scene, {"state_dict": {"a": torch.ones(1)}, "loader": zipfile.ZipFile})


@case("runs", "conversion_refused")
def a_checkpoint_without_weights(scene):
    return converted(scene, {"epoch": 1})


@case("runs", "file_exists")
def a_conversion_whose_result_is_there_already(scene):
    (scene.folder / "there.safetensors").touch()
    return converted(scene, {"a": torch.ones(1)}, scene.folder / "there.safetensors")
