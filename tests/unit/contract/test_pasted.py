"""Whatever a person pastes as a path or a name is understood, or refused in a sentence; and nothing real is renamed."""

import json
import sys
import unicodedata
from pathlib import Path

import pytest
from tiny import images

from app.desk.images import dataset_link
from app.kit.form import config_of, shown
from app.kit.rows import SETTINGS
from trainer.captioning.catalogue import caption_settings
from trainer.console.flags import given
from trainer.console.main import main, parsed
from trainer.contract.errors import FileExists, InvalidSettings
from trainer.contract.home import Home, user_path
from trainer.contract.pasted import host_of, pasted, pasted_model
from trainer.contract.presets import load_preset, save_preset
from trainer.contract.settings.config import validated
from trainer.models.lookup import resolved
from trainer.models.webuis import find_clients
from trainer.runs.folder import RunFolder

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other paths")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "my photos (1)"
    made.mkdir()
    return made


AROUND = [
    *(
        '"{}"',
        "'{}'",
        "`{}`",
        "„{}“",
        "“{}”",
        "”{}”",
        "\u2018{}\u2019",
        "\u201a{}\u2018",
        "«{}»",
        "»{}«",
        "\u2039{}\u203a",
        "「{}」",
        "<{}>",
    ),
    *("  {} ", "{}\n", "{}\r\n", "\t{}", '"{}" ', "\"'{}'\"", '"{}', '{}"', "& '{}'"),
    *("\u202a{}", "\ufeff{}", "\u200b{}\u200b", "\u200e{}\u202c", "\u2066{}\u2069", "\xa0{}\xa0", '\u202a"{}"\u202c'),
    *("file://{}", "file://localhost{}", "file:{}", "FILE://{}", "<file://{}>", '"file://{}"\n'),
]


@POSIX
@pytest.mark.parametrize("form", AROUND)
def test_what_is_around_a_pasted_path_is_no_part_of_it(folder, form):
    assert user_path(form.format(folder)) == folder


@POSIX
def test_what_other_programs_make_of_a_path_is_understood(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    odd = folder / "50%20off & ä's"
    odd.mkdir()
    here = str(odd)
    assert user_path(odd.as_uri()) == odd
    assert user_path(str(folder).replace(" ", "%20")) == folder  # copied from a browser's bar, without its beginning
    assert user_path(here.replace(" ", "\\ ").replace("(", "\\(").replace(")", "\\)").replace("&", "\\&")) == odd
    assert user_path(unicodedata.normalize("NFD", here)) == odd
    assert user_path(here.replace("photos", "pho\u200btos")) == odd
    assert user_path(here.replace(" ", "\xa0")) == odd
    assert user_path('"~/my photos (1)"') == user_path("$HOME/my photos (1)") == folder
    monkeypatch.chdir(folder.parent)
    assert user_path("my photos (1)\\50%20off & ä's").samefile(odd)


@POSIX
@pytest.mark.parametrize(
    "name", ['"mira"', "'n'", "\u202aold", "a%20b", r"a\ b", " mira ", "file:", "<new>", "C:\\mira"]
)
def test_what_really_has_such_a_name_keeps_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    (tmp_path / "mira").mkdir(exist_ok=True)
    assert user_path(name) == Path(name)
    assert validated({"dataset": {"images": name}}).dataset.images == name


ELSEWHERE = {
    r"D:\train\new": "a path of Windows",
    "file:///C:/Users/me/My%20Photos": "a path of Windows",
    r"\\nas\photos\ana": "a path of Windows",
    "file://nas/photos/ana": "a path of Windows",
    "smb://nas/photos": "an address on the network",
    "https://example.org/ana.zip": "a web address",
    "https://civitai.com/models/101055/sdxl": "Civitai",
    "https://huggingface.co/datasets/ana/photos": "Hugging Face hub",
}


@POSIX
@pytest.mark.parametrize("text", ELSEWHERE)
def test_what_lies_elsewhere_is_refused_in_a_sentence_that_says_so(text):
    with pytest.raises(InvalidSettings, match=ELSEWHERE[text]) as refused:
        user_path(f'"{text}"\n')
    assert refused.value.hint


@POSIX
def test_a_windows_path_is_named_as_wsl_shows_it(monkeypatch):
    monkeypatch.setattr("trainer.contract.pasted.os.path.lexists", lambda text: text == "/mnt/d/train/new")
    with pytest.raises(InvalidSettings) as refused:
        user_path("D:\\train\\new")
    assert refused.value.hint == "Give it as /mnt/d/train/new."


HUB = "stabilityai/sd-turbo"


@pytest.mark.parametrize(
    "address",
    [
        *(f"https://huggingface.co/{HUB}", f"https://huggingface.co/{HUB}/", f"https://huggingface.co/{HUB}/tree/main"),
        *(f"http://hf.co/{HUB}?library=diffusers", f"huggingface.co/{HUB}#usage", f"www.huggingface.co/{HUB}"),
        *(f"hf:{HUB}", f"hf://{HUB}", f"https://hf-mirror.com/{HUB}", f"https://huggingface.co/{HUB}.git"),
        *(f'"https://huggingface.co/{HUB}"', f"<https://huggingface.co/{HUB}>\n", f"\u200b{HUB} ", f"'{HUB}'"),
        f"https://huggingface.co/{HUB}/blob/main/README.md",
    ],
)
def test_an_address_of_the_hub_is_the_model_it_names(address):
    assert resolved(address) == HUB
    assert validated({"model": {"base_model": address}}).model.base_model == HUB


@pytest.mark.parametrize("kind", ["resolve", "blob"])
def test_an_address_of_a_file_on_the_hub_is_that_file(kind):
    address = f"https://huggingface.co/{HUB}/{kind}/main/sub/v1%20full.safetensors?download=true"
    assert pasted_model(address) == f"{HUB}/sub/v1 full.safetensors"


@pytest.mark.parametrize(
    "address",
    [
        f"https://huggingface.co/{HUB}/tree/fp16",  # the main state would be trained instead
        f"https://huggingface.co/{HUB}/resolve/refs%2Fpr%2F1/a.safetensors",
        *("https://huggingface.co/spaces/ana/demo", "https://huggingface.co/ana", "hf.co/datasets/ana/photos"),
        *(
            "https://civitai.com/models/101055",
            "civitai.com/api/download/models/128078",
            "https://civitai.green/models/1",
        ),
        *("urn:air:sdxl:checkpoint:civitai:101055@128078", "https://example.org/model.safetensors"),
    ],
)
def test_an_address_that_names_no_model_we_fetch_is_refused_in_a_sentence(address):
    with pytest.raises(InvalidSettings, match=r"address of|web address"):
        resolved(address)


def test_a_host_is_read_from_an_address():
    assert host_of("http://192.168.1.5:29500/") == host_of(' "192.168.1.5:29500"\n') == "192.168.1.5:29500"
    assert host_of("[::1]") == "[::1]"


@POSIX
def test_every_setting_that_is_a_path_is_read_so(folder):
    written = f'\u202a"file://{str(folder).replace(" ", "%20")}"\n'
    config = validated(
        {
            "dataset": {"images": written, "captions": written, "concepts": [written, {"images": written}]},
            "model": {"base_model": written, "vae": written},
            "adapter": {"start_from": written},
        }
    )
    concepts = [concept.images for concept in config.dataset.concepts]
    assert {config.dataset.images, config.dataset.captions, *concepts} == {str(folder)}
    assert {config.model.base_model, config.model.vae, config.adapter.start_from} == {str(folder)}
    assert caption_settings({"folder": written, "model": f"https://hf.co/{HUB}"}).folder == str(folder)


@POSIX
def test_every_flag_that_takes_a_path_is_read_so(folder, monkeypatch, tmp_path):
    written = f"'{folder}'\n"
    for words, places in {
        ("train", "--home", written, "--config", written): ("home", "config"),
        ("doctor", written, "--home", written): ("doctor", "home"),
        ("export-dataset", written, "--to", written): ("export_dataset", "to"),
        ("convert", written, written): ("source", "target"),
        ("--doctor", written): ("doctor",),
        ("--export-dataset", written): ("export_dataset",),
    }.items():
        _, flags = parsed(words)
        assert [flags[place] for place in places] == [folder] * len(places)
    assert parsed(["strength", "run", '"a.safetensors"'])[1]["file"] == "a.safetensors"
    assert parsed(["--preset", "'pocket-style'"])[1]["preset"] == "pocket-style"
    monkeypatch.setenv("ATELIER_HOME", written)
    monkeypatch.setenv("ATELIER_LORA_FOLDER", written)
    assert Home.find().root == folder
    assert find_clients([tmp_path / "nobody"])[0].lora_folder == folder


@POSIX
def test_a_run_is_found_by_its_pasted_folder(tmp_path):
    run = RunFolder.create(Home(tmp_path / "my home"), validated({}))
    for written in (f'"{run.path}"', run.path.as_uri(), str(run.path).replace(" ", "\\ "), f"'{run.path.name}'\n"):
        assert RunFolder.find(Home(tmp_path / "my home"), written) == run


@POSIX
def test_the_train_page_links_to_the_pasted_folder(folder):
    values = {"dataset.images": f'"{folder}"', "dataset.trigger_word": "", "dataset.resolution": 512}
    assert "my+photos" in dataset_link(values, "pocket-style")


@POSIX
def test_the_console_trains_on_what_was_pasted(tmp_path, capsys):
    pictures = images(tmp_path / "my photos", 3)
    home = f"file://{tmp_path}/my%20home"
    flags = ["--preset", "pocket-style", "--images", f"'{pictures}'", "--home", home, "--base-model", '"pocket"']
    assert main([*flags, "--check"]) == 0
    assert main(["export-dataset", f'"{pictures}"', "--to", f"file://{tmp_path}/a%20copy", "--home", home]) == 0
    assert len(list((tmp_path / "a copy").glob("*.png"))) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a copy", "my photos"]  # nothing of another name
    assert main([*flags[:3], "https://example.org/photos", "--check"]) == 2
    assert "is a web address" in capsys.readouterr().out


def test_a_text_of_nothing_but_quotes_is_empty():
    assert pasted('""') == pasted(" \u200b ") == pasted("''\n") == ""


@pytest.mark.parametrize("place", ["model.base_model", "dataset.concepts"])
def test_what_must_not_be_empty_is_not_empty_after_reading_either(place):
    section, name = place.split(".")
    with pytest.raises(InvalidSettings, match="at least 1 character"):
        validated({section: {name: ['""'] if name == "concepts" else '""'}})


NAMES = {
    **dict.fromkeys(["mira.safetensors", "mira.CKPT", "mira.pt", "mira.pth", "mira.bin", "mira.SafeTensors"], "mira"),
    **dict.fromkeys(["mira.safetensors.safetensors", "mira.", "mira. ", "mira .safetensors.", '"mira"\n'], "mira"),
    **{"mira.v1": "mira.v1", "mira.v1.safetensors": "mira.v1", "mira.safetensors-2": "mira.safetensors-2", " ": ""},
    f"{'x' * 75}.safetensors": "x" * 75,
}
NO_NAMES = [
    *("...", ".safetensors", ". .", "../mira.safetensors", "loras/mira", r"C:\loras\mira.safetensors", "mira?"),
    *("con.safetensors", "NUL.", "com¹.ckpt", "CONIN$.pt", "lpt9 .safetensors", "aux.v2.safetensors"),
]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_file_is_one_without_its_ending(tmp_path, name):
    assert validated({"output": {"name": name}}).output.name == NAMES[name]
    file = tmp_path / "mine.toml"
    file.write_text(f"output = {{name = {json.dumps(name)}}}", encoding="utf-8")
    _, flags = parsed(["--config", str(file)])
    assert given(flags, Home(tmp_path))[0].output.name == NAMES[name]
    assert given({"name": name}, Home(tmp_path))[0].output.name == NAMES[name]
    on_page = {place: shown(info, info.default) for place, info in SETTINGS.items()} | {"output.name": name}
    assert config_of(on_page, "", "style").output.name == NAMES[name]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_can_be_no_files_name_is_refused_at_its_setting(name):
    with pytest.raises(InvalidSettings) as refused:
        validated({"output": {"name": name}})
    assert "output.name" in refused.value.places


def test_a_preset_is_named_without_its_ending_too(tmp_path):
    made = save_preset(tmp_path, "oil.toml", validated({}), "")
    assert (made.name, made.path) == ("oil", tmp_path / "oil.toml")
    assert load_preset('"oil.toml"', tmp_path) == load_preset("oil", tmp_path) == made
    for name in ("oil.TOML.", "oil."):
        with pytest.raises(FileExists):
            save_preset(tmp_path, name, validated({}), "")
    with pytest.raises(InvalidSettings, match="cannot be the name"):
        save_preset(tmp_path, "pocket-style.toml", validated({}), "")
    (tmp_path / "a.toml.toml").write_text("", encoding="utf-8")  # an older version's
    assert load_preset("a.toml", tmp_path).path == tmp_path / "a.toml.toml"
