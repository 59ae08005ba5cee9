"""What a LoRA file tells, and the version without chosen tags that is handed over in its place."""

import hashlib
import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trainer.contract.errors import ExportError
from trainer.contract.events import EventLog, Lora
from trainer.contract.home import Home
from trainer.contract.ours import NotOurs
from trainer.contract.settings.config import validated
from trainer.models.errors import NotABaseModel
from trainer.runs.errors import RunMissing
from trainer.runs.folder import RunFolder
from trainer.runs.handover import civitai_text, copy_lora
from trainer.runs.told import FOLDER, for_others, strike, tags_in, told

TAGS = {"1_ana": {"ana4t": 20, "smile": 12, "müller": 3}, "1_ben": {"smile": 2, "<b>hat</b>": 1}}
SAID = {
    "ss_tag_frequency": json.dumps(TAGS, ensure_ascii=False),
    "modelspec.title": "ana",
    "modelspec.trigger_phrase": "ana4t",
    "ss_sd_model_name": "base.safetensors",
    "ss_vae_name": "None",
    "ss_training_started_at": "1700000000.5",
    "ss_num_train_images": "20",
    "ss_training_comment": "Trained with Atelier; continued from Müller.safetensors",
    "sshs_model_hash": "ab" * 32,
    "ss_base_model_version": "sd_v1",
}


@pytest.fixture
def run(tmp_path):
    run = RunFolder.create(Home(tmp_path / "Häuser"), validated({"output": {"name": "ana"}}))
    save_file({"lora_unet_x.alpha": torch.tensor(3.0), "b": torch.randn(5, 7)}, run.path / "ana.safetensors", SAID)
    data = (run.path / "ana.safetensors").read_bytes()
    with EventLog(run.events_file) as log:
        log.write(Lora(step=3, file="ana.safetensors", bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
    return run


def metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_names_and_tags_are_told_and_what_says_nothing_is_not(run):
    said = told(run.path / "ana.safetensors")
    assert said.tags == {"ana4t": 20, "smile": 14, "müller": 3, "<b>hat</b>": 1}
    assert said.names["comment"].endswith("Müller.safetensors")
    assert said.names["trigger"] == "ana4t"
    assert said.names["time"].startswith("2023-11-1")
    assert "vae" not in said.names


@pytest.mark.parametrize("struck", [["müller"], ["smile", "<b>hat</b>"], ["ana4t"]])
def test_the_version_to_hand_over_lacks_these_tags_and_nothing_else(run, struck):
    original = run.path / "ana.safetensors"
    before = original.read_bytes()
    version = strike(run, "ana.safetensors", struck)
    assert version == for_others(run, "ana.safetensors")
    assert version != original
    assert original.read_bytes() == before
    ours, theirs = metadata(original), metadata(version)
    assert {**ours, "ss_tag_frequency": ""} == {**theirs, "ss_tag_frequency": ""}
    assert tags_in(theirs) == {tag: times for tag, times in tags_in(ours).items() if tag not in struck}
    assert not any(tag.encode() in version.read_bytes() for tag in struck if tag != "ana4t")
    some, others = load_file(original), load_file(version)
    assert some.keys() == others.keys()
    assert all(some[name].equal(others[name]) for name in some)
    start = [8 + int.from_bytes(path.read_bytes()[:8], "little") for path in (original, version)]
    assert original.read_bytes()[start[0] :] == version.read_bytes()[start[1] :]
    assert start[1] % 8 == 0


def test_struck_no_more_it_is_the_file_itself(run):
    strike(run, "ana.safetensors", ["smile"])
    assert strike(run, "ana.safetensors", []) == run.path / "ana.safetensors"
    assert list((run.path / FOLDER).iterdir()) == []
    assert strike(run, "ana.safetensors", ["no tag of it"]) == for_others(run, "ana.safetensors")


def test_a_file_that_was_written_since_is_not_handed_over_in_its_earlier_version(run):
    version = strike(run, "ana.safetensors", ["smile"])
    later = version.stat().st_mtime_ns + 10**9
    os.utime(run.path / "ana.safetensors", ns=(later, later))
    assert for_others(run, "ana.safetensors") == run.path / "ana.safetensors"


def test_copy_and_civitai_text_use_the_version(run, tmp_path):
    webui = tmp_path / "webui"
    webui.mkdir()
    version = strike(run, "ana.safetensors", ["müller"])
    copied = copy_lora(run, "ana.safetensors", webui)
    assert copied == webui / "ana.safetensors"
    assert copied.read_bytes() == version.read_bytes()
    text = civitai_text(run, "ana.safetensors")
    assert "müller" not in text
    assert "smile (14)" in text
    assert hashlib.sha256(version.read_bytes()).hexdigest().upper() in text
    assert copy_lora(run, "ana.safetensors", webui) == copied  # it is there already
    strike(run, "ana.safetensors", [])
    assert copy_lora(run, "ana.safetensors", webui) == webui / "ana-2.safetensors"
    assert "müller" in civitai_text(run, "ana.safetensors")


@pytest.mark.parametrize("file", ["bob.safetensors", "../x.safetensors", "config.toml", "handover/ana.safetensors", ""])
def test_another_file_is_none_of_the_runs_loras(run, file):
    for act in (lambda: for_others(run, file), lambda: strike(run, file, ["smile"])):
        with pytest.raises((ExportError, RunMissing)):
            act()


def test_a_link_in_the_versions_folder_is_refused(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run.path / FOLDER).symlink_to(tmp_path / "elsewhere")
    for act in (lambda: strike(run, "ana.safetensors", ["smile"]), lambda: for_others(run, "ana.safetensors")):
        with pytest.raises(NotOurs):
            act()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("tags", ["", "[]", "3", '{"a": 3}', '{"a": {"b": "c"}}', "{", "[" * 9999])
def test_tags_that_cannot_be_read_are_none(run, tags):
    file = run.path / "ana.safetensors"
    save_file({"b": torch.zeros(2)}, file, {"ss_tag_frequency": tags})
    assert told(file).tags == {}
    assert strike(run, "ana.safetensors", ["b"]) == file


def test_what_is_no_lora_is_named(run):
    (run.path / "ana.safetensors").write_bytes(b"nothing")
    with pytest.raises(NotABaseModel):
        strike(run, "ana.safetensors", ["smile"])
