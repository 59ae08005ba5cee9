import json
import sys
from pathlib import Path

import headers
import pytest
from huggingface_hub import constants

from trainer.models import installed, webuis
from trainer.models.installed import HUB, MODELS, find_models
from trainer.models.webuis import LAYOUTS

links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
PROGRAMS = {layout.name: layout for layout in LAYOUTS}
LORA = {"lora_unet_mid_block.lora_down.weight": (8, 1280), "lora_unet_mid_block.lora_up.weight": (1280, 8)}


@pytest.fixture(autouse=True)
def nothing_of_this_computer(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv(webuis.VARIABLE, raising=False)
    monkeypatch.delenv("INVOKEAI_ROOT", raising=False)


def install(home, program):
    """A program's folder with an empty LoRA folder; gives back where it keeps models."""
    layout = PROGRAMS[program]
    for entry in (layout.loras, *layout.markers, MODELS[program][0]):
        (home / program / entry).mkdir(parents=True, exist_ok=True)
    return home / program / MODELS[program][0]


def in_hub_cache(name, commit="c" * 40):
    """The snapshot folder of a model in the hub's cache."""
    storage = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    (storage / "snapshots" / commit).mkdir(parents=True)
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text(commit)
    return storage / "snapshots" / commit


def folder_model(path):
    made = headers.folder(path, {})
    (made / "tokenizer" / "tokenizer.json").write_text("{}")
    return made


def names(models):
    return [one.name for one in models]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_models_of_each_program_are_found(tmp_path, program):
    file = headers.write(install(tmp_path, program) / "ana.safetensors", headers.sd15())
    [one] = find_models([tmp_path])
    assert (one.path, one.where, one.name) == (file, program, "ana")
    assert (one.model.path, one.model.family) == (file, "sd15")


def test_each_place_is_told_from_a_lora_folder_two_folders_in():
    assert all(len(Path(layout.loras).parts) == 2 for layout in LAYOUTS)


@pytest.mark.parametrize("place", ["models/sdxl/main/dreams", "models/f3a9-22"])
def test_invokeai_without_a_lora_folder_is_found_where_it_installs_itself(tmp_path, monkeypatch, place):
    folder_model(tmp_path / "invokeai" / place / "ana")
    assert names(find_models([tmp_path])) == ["ana"]
    monkeypatch.setenv("INVOKEAI_ROOT", str(tmp_path / "invokeai"))
    assert names(find_models([tmp_path / "nobody"])) == ["ana"]


def test_folders_and_files_in_subfolders_are_found_and_nothing_else(tmp_path):
    models = install(tmp_path, "ComfyUI")
    headers.write(models / "anime" / "new" / "ben.SAFETENSORS", headers.sd15())
    folder_model(models / "whole")
    headers.write(models / "lora.safetensors", LORA)
    headers.write(models / "vae.safetensors", headers.vae())
    headers.write(models / ".trash" / "old.safetensors", headers.sd15())
    headers.write(models / "1/2/3/4/5/deep.safetensors", headers.sd15())
    (models / "broken.safetensors").write_bytes(b"no")
    (models / "ana.ckpt").write_bytes(b"PK")
    assert [(one.name, one.model.layout) for one in find_models([tmp_path])] == [("ben", "file"), ("whole", "folder")]


def test_models_come_by_family_then_by_name(tmp_path):
    models = install(tmp_path, "Fooocus")
    kinds = {"b": headers.sdxl(), "A": headers.sdxl(), "c": headers.sd15(), "d": headers.sd2()}
    for name, shapes in kinds.items():
        headers.write(models / f"{name}.safetensors", shapes)
    assert [(one.model.family, one.name) for one in find_models([tmp_path])] == [
        ("sd15", "c"),
        ("sd2", "d"),
        ("sdxl", "A"),
        ("sdxl", "b"),
    ]


def test_whole_models_of_the_hubs_cache_are_found_under_their_names(tmp_path):
    folder_model(in_hub_cache("ana/whole"))
    folder_model(in_hub_cache("ana/half")).joinpath("unet", "model.safetensors").unlink()
    headers.write(in_hub_cache("ana/single") / "xl.safetensors", headers.sdxl())
    several = in_hub_cache("ana/several")
    for version in ("v1", "v2"):
        headers.write(several / f"{version}.safetensors", headers.sd15())
    headers.write(in_hub_cache("ana/language-model") / "model.safetensors", {"lm_head.weight": (10, 10)})
    (Path(constants.HF_HUB_CACHE) / "models--ana--broken-off" / "snapshots").mkdir(parents=True)
    models = find_models([tmp_path])
    assert {one.where for one in models} == {HUB}
    assert names(models) == ["ana/several/v1.safetensors", "ana/several/v2.safetensors", "ana/whole", "ana/single"]


@links
def test_one_model_in_several_programs_is_listed_once(tmp_path):
    shared = install(tmp_path, "StabilityMatrix")
    headers.write(shared / "ana.safetensors", headers.sd15())
    linked = install(tmp_path / "StabilityMatrix" / "Packages", "ComfyUI")
    linked.rmdir()
    linked.symlink_to(shared)
    assert [(one.where, one.name) for one in find_models([tmp_path])] == [("StabilityMatrix", "ana")]


@links
def test_links_are_followed_once_and_not_in_circles(tmp_path):
    models, elsewhere = install(tmp_path, "ComfyUI"), tmp_path / "disk" / "models"
    headers.write(elsewhere / "near.safetensors", headers.sd15())
    headers.write(tmp_path / "far" / "far.safetensors", headers.sd15())
    (elsewhere / "further").symlink_to(tmp_path / "far")
    (elsewhere / "back").symlink_to(models)
    (models / "linked").symlink_to(elsewhere)
    (models / "circle").symlink_to(models / "circle")
    (models / "gone.safetensors").symlink_to(tmp_path / "gone")
    assert names(find_models([tmp_path])) == ["near"]


def test_no_more_than_a_set_number_of_files_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(installed, "MOST", 3)
    models = install(tmp_path, "ComfyUI")
    for number in range(5):
        headers.write(models / f"{number}.safetensors", headers.sd15())
    assert names(find_models([tmp_path])) == ["0", "1", "2"]


def test_a_computer_without_any_model_has_none(tmp_path):
    assert find_models([tmp_path / "nobody"]) == []


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path, monkeypatch):
    models = install(tmp_path, "ComfyUI")
    headers.write(models / "private" / "secret.safetensors", headers.sd15())
    headers.write(models / "public" / "ana.safetensors", headers.sd15())
    scandir = installed.os.scandir

    def refusing(path):
        if Path(path).name == "private":
            raise PermissionError("not for you")
        return scandir(path)

    monkeypatch.setattr(installed.os, "scandir", refusing)
    assert names(find_models([tmp_path])) == ["ana"]


def test_what_the_index_of_a_cached_folder_names_must_be_there(tmp_path):
    folder = folder_model(in_hub_cache("ana/xl"))
    (folder / "model_index.json").write_text(json.dumps({"text_encoder_2": ["transformers", "X"]}))
    assert find_models([tmp_path]) == []
