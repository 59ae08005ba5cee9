"""What is given as settings and is none of ours: other programs' files, files of no text, paths of Windows."""

import json
import os
import struct

import pytest

from trainer.console.flags import given
from trainer.console.main import parser_of
from trainer.contract.errors import InvalidSettings, UnknownPreset
from trainer.contract.foreign import ForeignFile
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, import_preset, list_presets
from trainer.contract.settings.config import validated
from trainer.contract.toml import read_settings, to_toml
from trainer.contract.wording import for_console

# Excerpts as these programs write them
THEIRS = {
    "kohya_ss.json": (
        "kohya_ss",
        '{"LoRA_type": "Standard", "epoch": 10, "max_resolution": "512,512", "network_dim": 16, "sdxl": false}',
    ),
    "kohya_ss-old.json": (
        "kohya_ss",
        '{\n  "epoch": 10,\n  "network_dim": 16,\n  "stop_text_encoder_training": 0,\n  "v2": false\n}',
    ),
    "sd-scripts.toml": (
        "sd-scripts (kohya)",
        'pretrained_model_name_or_path = "model.safetensors"\nnetwork_module = "networks.lora"\nnetwork_dim = 16\n',
    ),
    "sd-scripts-sections.toml": (
        "sd-scripts (kohya)",
        '[model]\nv2 = false\n[dataset_arguments]\ntrain_data_dir = "./train"\nresolution = "512,512"\n',
    ),
    "with-a-path.toml": (
        "sd-scripts (kohya)",
        'pretrained_model_name_or_path = "D:\\models\\sd.safetensors"\nnetwork_module = "networks.lora"\n',
    ),
    "dataset.toml": (
        "sd-scripts (kohya)",
        "[general]\ncaption_extension = '.txt'\n[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'a'\n",
    ),
    "lora-scripts.toml": (
        "lora-scripts",
        'model_train_type = "sd-lora"\npretrained_model_name_or_path = "./sd-models/model.safetensors"\n',
    ),
    "lora-scripts-preset.toml": (
        "lora-scripts",
        '# 模板显示的信息\n[metadata]\nname = "中分辨率训练"\nauthor = "秋叶"\n[data]\nresolution = "768,768"\n',
    ),
    "onetrainer.json": (
        "OneTrainer",
        '{"__version": 6, "training_method": "LORA", "model_type": "STABLE_DIFFUSION_15", "lora_rank": 16}',
    ),
    "ai-toolkit.yaml": (
        "ai-toolkit",
        "---\njob: extension\nconfig:\n  # folder\n  name: mine\n  process:\n    - type: 'sd_trainer'\n",
    ),
    "simpletuner.json": (
        "SimpleTuner",
        '{"data_backend_config": "config/multidatabackend.json", "model_family": "sdxl", "model_type": "lora"}',
    ),
    "simpletuner-dashed.json": (
        "SimpleTuner",
        '{\n    "--data_backend_config": "config/multidatabackend.json",\n    "--model_type": "lora"\n}',
    ),
    "multidatabackend.json": ("SimpleTuner", '[{"id": "a", "instance_data_dir": "x", "caption_strategy": "textfile"}]'),
    "diffusion-pipe.toml": (
        "diffusion-pipe",
        "dataset = 'dataset.toml'\nmicro_batch_size_per_gpu = 1\n[model]\ntype = 'sdxl'\n[adapter]\nrank = 32\n",
    ),
    "model_index.json": ("diffusers", '{"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.31.0"}'),
    "accelerate.yaml": ("Accelerate", "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\n"),
    "adapter_config.json": ("PEFT", '{"peft_type": "LORA", "r": 16}'),
    "config.json": (
        "AUTOMATIC1111",
        '{"samples_save": true, "sd_model_checkpoint": "v1-5-pruned-emaonly.safetensors"}',
    ),
    "ui-config.json": ("AUTOMATIC1111", '{"txt2img/Prompt/visible": true, "txt2img/Prompt/value": ""}'),
    "styles.csv": ("AUTOMATIC1111", "name,prompt,negative_prompt\nOil,oil painting,\n"),
    "workflow.json": ("ComfyUI", '{"last_node_id": 9, "nodes": [], "links": []}'),
}


def refusal(file, *more):
    with pytest.raises(InvalidSettings) as refused:
        given(parser_of("train").flags([*more, "--config", str(file)]), Home(file.parent))
    return refused.value


@pytest.mark.parametrize("name", THEIRS)
def test_the_file_of_another_program_is_called_that_wherever_it_is_given(tmp_path, name):
    program, text = THEIRS[name]
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ForeignFile) as as_preset:
        given({"preset": str(file)}, Home(tmp_path))
    with pytest.raises(ForeignFile) as imported:
        import_preset(tmp_path / "own", file)
    for error in (refusal(file), as_preset.value, imported.value):
        assert error.code == "foreign_file"
        assert program in error.message
        assert str(file) in error.message
        assert "(it has " in error.message
        assert "--dataset.images, --model.base_model, --output.name" in for_console(error.hint)
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("name", ["kohya_ss.json", "sd-scripts.toml", "ai-toolkit.yaml"])
@pytest.mark.parametrize("coding", ["utf-16", "utf-8-sig"])
def test_a_file_that_windows_wrote_is_recognized_too(tmp_path, name, coding):
    program, text = THEIRS[name]
    (tmp_path / name).write_text(text.replace("\n", "\r\n"), encoding=coding)
    assert program in refusal(tmp_path / name).message


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_settings_are_read_in_the_encodings_that_windows_writes(tmp_path, coding):
    file = tmp_path / "mine.toml"
    file.write_bytes('[output]\r\nname = "mära"\r\n'.encode(coding))
    config, _ = given(parser_of("train").flags(["--config", str(file)]), Home(tmp_path))
    assert config.output.name == "mära"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_no_settings_of_ours_are_taken_for_anothers(tmp_path, path):
    read_settings(path)
    file = tmp_path / "config.toml"
    theirs = {"base_model": r"D:\models\new.safetensors"}
    shown = {"prompts": ["line\nnext\tone", 'a "b:\\n" sign', "a:\n\b"]}
    file.write_text(to_toml(validated({"model": theirs, "preview": shown})), encoding="utf-8")
    assert read_settings(file)["preview"]["prompts"] == shown["prompts"]


def test_a_misspelt_section_is_still_told_as_one(tmp_path):
    (tmp_path / "mine.toml").write_text("[adaptor]\nrank = 4\n")
    assert "adaptor" in refusal(tmp_path / "mine.toml").message
    assert refusal(tmp_path / "mine.toml").code == "invalid_settings"


def safetensors(names):
    header = json.dumps({name: {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]} for name in names}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(2)


@pytest.mark.parametrize(
    ("content", "kind", "helps"),
    [
        (safetensors(["lora_unet_mid.lora_down.weight"]), "a LoRA file", "--adapter.start_from"),
        (safetensors(["model.diffusion_model.x"]), "a model file", "--model.base_model"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "an image", "Start from a preset"),
        (b"PK\x03\x04" + bytes(20), "a packed archive", "Start from a preset"),
        (bytes(range(256)), "a binary file", "Start from a preset"),
        ("[adapter]\nrank = 4\n".encode("utf-16-le"), "a binary file", "TOML file"),
        (b'{"rank": 16}', "a JSON file", "TOML file"),
        (b'[{"rank": 16}]', "a JSON file", "TOML file"),
    ],
)
def test_a_file_without_settings_is_told_as_what_it_is(tmp_path, content, kind, helps):
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    error = refusal(file)
    assert error.code == "foreign_file"
    assert f"{file} is {kind}" in error.message
    assert helps in for_console(error.hint)
    _, broken = list_presets(tmp_path)
    assert [kind in one.message for one in broken] == [True]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"rank = 4\n" * 1_000_000, "more than 4.2 MB"),
        (b"# ok\nname = 'm\xe4ra'\n", "line 2 has the byte 0xe4"),
        (b"x = " + b"[" * 200_000, "cannot be read"),
        (b"{" * 200_000, "a JSON file"),
        (b"rank: 16\n", "cannot be read"),
    ],
)
def test_a_file_that_is_too_large_too_deep_or_in_another_encoding_is_told_in_a_sentence(tmp_path, content, told):
    (tmp_path / "mine.toml").write_bytes(content)
    assert told in refusal(tmp_path / "mine.toml").message


def test_of_a_large_file_only_a_beginning_is_read(tmp_path):
    file = tmp_path / "mine.toml"
    with file.open("wb") as out:
        out.truncate(1 << 40)
    assert "a binary file" in refusal(file).message


@pytest.mark.parametrize(
    ("written", "single", "slashes"),
    [
        (r"D:\train\new", r"'D:\train\new'", '"D:/train/new"'),  # TOML reads a tab and a line end
        (r"D:\photos\ana", r"'D:\photos\ana'", '"D:/photos/ana"'),  # which no TOML can be
        (r"C:\Users\ana", r"'C:\Users\ana'", '"C:/Users/ana"'),
        (r"D:\\photos\new", r"'D:\photos\new'", '"D:/photos/new"'),
        (r"\\nas\bilder", r"'\\nas\bilder'", '"//nas/bilder"'),
        (r"..\new", r"'..\new'", '"../new"'),
        (r"models\base", r"'models\base'", '"models/base"'),
        (r"photos\new", r"'photos\new'", '"photos/new"'),
        ("D:\\new\\", r"'D:\new\'", '"D:/new/"'),
    ],
)
def test_a_path_of_windows_in_double_quotes_is_told_with_the_two_ways_to_write_it(tmp_path, written, single, slashes):
    file = tmp_path / "mine.toml"
    file.write_text(f'[dataset]\nresolution = 512\nimages = "{written}"\n', encoding="utf-8")
    error = refusal(file)
    assert f'"{written}' in error.message
    assert f"single quotes, {single}" in error.hint
    assert f"forward slashes, {slashes}" in error.hint
    file.write_text(f"[dataset]\nimages = {single}\n", encoding="utf-8")
    assert read_settings(file)["dataset"]["images"] == single.strip("'")
    file.write_text(f"[dataset]\nimages = {slashes}\n", encoding="utf-8")
    assert read_settings(file)["dataset"]["images"] == slashes.strip('"')


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("/home/ana/photos", "/home/ana/photos"),
        ("D:\\train\\new", "D:\\train\\new"),
        ("“/home/ana/photos”", "/home/ana/photos"),
        ("~/my photos  ", "~/my photos"),
    ],
)
def test_a_text_without_straight_quotes_is_told_with_the_way_to_write_it(tmp_path, written, meant):
    file = tmp_path / "mine.toml"
    file.write_text(f"[dataset]\nresolution = 512\nimages = {written}\n", encoding="utf-8")
    assert refusal(file).hint == f"Write it as images = '{meant}'."
    file.write_text(f"[dataset]\nimages = '{meant}'\n", encoding="utf-8")
    assert read_settings(file)["dataset"]["images"] == meant


@pytest.mark.parametrize("line", ["flip = True", "rank = 16 px", "images = ", "prompts = [bell]", "images: x"])
def test_what_is_no_text_is_not_told_to_be_one(tmp_path, line):
    (tmp_path / "mine.toml").write_text(line, encoding="utf-8")
    assert "straight quotes" not in refusal(tmp_path / "mine.toml").message


@pytest.mark.parametrize(
    "line",
    [
        r'images = "D:\\train\\new"',
        r"images = 'D:\train\new'",
        r"""images = 'D:\a "D:\new" b'""",
        '# not "D:\\train\\new"\nimages = "x"',
        'images = "x" # not "D:\\train\\new"',
    ],
)
def test_a_path_of_windows_that_toml_reads_as_it_is_meant_is_taken(tmp_path, line):
    file = tmp_path / "mine.toml"
    file.write_text(f"[dataset]\n{line}\n", encoding="utf-8")
    assert set(read_settings(file)["dataset"]["images"]) & {"\t", "\n"} == set()


def test_settings_given_as_a_preset_are_told_where_to_give_them(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text("[adapter]\nrank = 4\n")
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "mine.toml"), f".{os.sep}mine.toml"):
        with pytest.raises(InvalidSettings) as refused:
            given({"preset": name}, Home(tmp_path))
        assert "is a file" in refused.value.message
        assert "--config" in for_console(refused.value.hint)
    for name in ("nowhere.toml", "a" * 5000, "nul\0"):
        with pytest.raises(UnknownPreset):
            given({"preset": name}, Home(tmp_path))
