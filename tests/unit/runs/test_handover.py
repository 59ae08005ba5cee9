import errno
import hashlib
import json
import os
import shutil
import struct
import sys

import pytest

from trainer.contract.errors import ExportError
from trainer.contract.events import EventLog, Lora
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.models import webuis
from trainer.models.webuis import OWN, VARIABLE, Client, find_clients
from trainer.runs.errors import RunMissing
from trainer.runs.folder import RunFolder
from trainer.runs.handover import civitai_text, copy_lora

HEADER = {
    "ss_base_model_version": "sd_v1",
    "ss_num_train_images": "20",
    "ss_tag_frequency": json.dumps({"1_ana": {"ana": 20, "smile": 12, "red hat": 3}}),
    "sshs_model_hash": "ab" * 32,
}
PROGRAMS = {
    "stable-diffusion-webui": ("AUTOMATIC1111", "models/Lora", ["webui.py", "modules/"]),
    "stable-diffusion-webui-forge": ("Forge", "models/Lora", ["webui.py", "modules/", "modules_forge/"]),
    "stable-diffusion-webui-reForge": ("Forge", "models/Lora", ["webui.py", "modules/", "modules_forge/"]),
    "automatic": ("SD.Next", "models/Lora", ["webui.py", "installer.py", "modules/"]),
    "ComfyUI": ("ComfyUI", "models/loras", ["main.py", "nodes.py", "custom_nodes/"]),
    "ComfyUI desktop": ("ComfyUI", "models/loras", ["custom_nodes/", "user/"]),
    "Fooocus": ("Fooocus", "models/loras", ["launch.py", "fooocus_version.py", "modules/"]),
    "invokeai": ("InvokeAI", "autoimport/lora", ["invokeai.yaml"]),
    "StabilityMatrix": ("StabilityMatrix", "Models/Lora", ["Packages/"]),
    "SwarmUI": ("SwarmUI", "Models/Lora", ["launchtools/", "src/"]),
}


@pytest.fixture(autouse=True)
def no_own_folder(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def install(place, loras, entries):
    """A program's folder; gives back its LoRA folder."""
    folder = place / loras
    folder.mkdir(parents=True)
    for entry in entries:
        if entry.endswith("/"):
            (place / entry).mkdir(exist_ok=True)
        else:
            (place / entry).touch()
    return folder


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_found_by_its_folder(tmp_path, program):
    name, loras, entries = PROGRAMS[program]
    folder = install(tmp_path / program, loras, entries)
    assert find_clients([tmp_path]) == [Client(name, folder)]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_lora_folder_without_its_program_is_none(tmp_path, program):
    _, loras, entries = PROGRAMS[program]
    install(tmp_path / program, loras, entries[1:])
    assert find_clients([tmp_path]) == []


def test_a_program_without_a_lora_folder_is_none(tmp_path):
    install(tmp_path / "ComfyUI", "models/checkpoints", ["main.py", "nodes.py"])
    assert find_clients([tmp_path]) == []


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("ComfyUI", True),
        ("Documents/ComfyUI", True),
        ("Desktop/ComfyUI_windows_portable/ComfyUI", True),
        ("Downloads/tools/ComfyUI", True),
        ("pinokio/api/comfy.git/app", True),
        ("a/b/c/ComfyUI", False),
        (".hidden/ComfyUI", False),
        ("node_modules/ComfyUI", False),
    ],
)
def test_programs_are_looked_for_in_the_usual_places_only(tmp_path, place, found):
    install(tmp_path / place, "models/loras", ["main.py", "nodes.py"])
    assert bool(find_clients([tmp_path])) is found


def test_packages_of_stability_matrix_are_found_too(tmp_path):
    data = tmp_path / "StabilityMatrix" / "Data"
    shared = install(data, "Models/Lora", ["Packages/"])
    own = install(data / "Packages" / "ComfyUI", "models/loras", ["main.py", "nodes.py"])
    assert find_clients([tmp_path]) == [Client("StabilityMatrix", shared), Client("ComfyUI", own)]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_one_folder_under_several_names_is_listed_once(tmp_path):
    shared = install(tmp_path / "StabilityMatrix", "Models/Lora", ["Packages/"])
    linked = install(tmp_path / "StabilityMatrix/Packages/ComfyUI", "models/loras", ["main.py", "nodes.py"])
    linked.rmdir()
    linked.symlink_to(shared)
    assert find_clients([tmp_path]) == [Client("StabilityMatrix", shared)]


def test_the_users_own_folders_come_first(tmp_path, monkeypatch):
    one, two = tmp_path / "my loras", tmp_path / "more"
    monkeypatch.setenv(VARIABLE, f"{one}{os.pathsep}{two}{os.pathsep}")
    folder = install(tmp_path / "ComfyUI", "models/loras", ["main.py", "nodes.py"])
    assert find_clients([tmp_path]) == [Client(OWN, one), Client(OWN, two), Client("ComfyUI", folder)]


def test_an_own_folder_that_a_program_has_too_is_listed_once(tmp_path, monkeypatch):
    folder = install(tmp_path / "ComfyUI", "models/loras", ["main.py", "nodes.py"])
    monkeypatch.setenv(VARIABLE, str(folder))
    assert find_clients([tmp_path]) == [Client(OWN, folder)]


def test_a_home_that_is_not_there_holds_nothing(tmp_path):
    assert find_clients([tmp_path / "nobody"]) == []


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path, monkeypatch):
    folder = install(tmp_path / "ComfyUI", "models/loras", ["main.py", "nodes.py"])
    (tmp_path / "private").mkdir()
    scandir = os.scandir

    def refusing(path):
        if path.name == "private":
            raise PermissionError(errno.EACCES, "not for you")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert find_clients([tmp_path]) == [Client("ComfyUI", folder)]


def test_a_search_that_has_no_time_left_ends(tmp_path, monkeypatch):
    install(tmp_path / "ComfyUI", "models/loras", ["main.py", "nodes.py"])
    monkeypatch.setattr(webuis, "SEARCH_SECONDS", 0.0)
    assert find_clients([tmp_path]) == []


def lora_bytes(header=HEADER, body=b"weights"):
    tensor = {"dtype": "U8", "shape": [len(body)], "data_offsets": [0, len(body)]}
    text = json.dumps({"__metadata__": header, "lora": tensor}).encode()
    return struct.pack("<Q", len(text)) + text + body


def make_run(home, **sections):
    """A finished run with a result, its sidecars, and an earlier state."""
    output = {"output": {"name": "ana v1.5"}, "dataset": {"images": "/private/photos", "batch_size": 2}}
    run = RunFolder.create(Home(home), validated({**output, **sections}))
    (run.path / "ana v1.5.json").write_text('{"activation text": "ana"}')
    (run.path / "ana v1.5.preview.png").write_bytes(b"picture")
    with EventLog(run.events_file) as log:
        for step, name in ((400, "ana v1.5-000400"), (1000, "ana v1.5")):
            data = lora_bytes(body=name.encode())
            (run.path / f"{name}.safetensors").write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest()
            log.write(Lora(step=step, file=f"{name}.safetensors", bytes=len(data), sha256=sha256))
    return run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "home")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "models" / "Lora ä"
    made.mkdir(parents=True)
    return made


def names(folder):
    return sorted(path.name for path in folder.iterdir())


FIRST = ["ana v1.5.json", "ana v1.5.preview.png", "ana v1.5.safetensors"]
SECOND = ["ana v1.5-2.json", "ana v1.5-2.preview.png", "ana v1.5-2.safetensors"]


def test_a_lora_is_copied_with_its_sidecars(run, folder):
    copied = copy_lora(run, "ana v1.5.safetensors", folder)
    assert copied == folder / "ana v1.5.safetensors"
    assert names(folder) == FIRST
    assert all((folder / name).read_bytes() == (run.path / name).read_bytes() for name in FIRST)


def test_an_earlier_state_has_no_sidecars(run, folder):
    copy_lora(run, "ana v1.5-000400.safetensors", folder)
    assert names(folder) == ["ana v1.5-000400.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_a_copy_can_be_read_by_other_users(run, folder):
    assert copy_lora(run, "ana v1.5.safetensors", folder).stat().st_mode & 0o044 == 0o044


def test_copying_twice_makes_one_copy_and_leaves_what_a_webui_wrote(run, folder):
    copy_lora(run, "ana v1.5.safetensors", folder)
    (folder / "ana v1.5.json").write_text("edited")
    assert copy_lora(run, "ana v1.5.safetensors", folder) == folder / "ana v1.5.safetensors"
    assert names(folder) == FIRST
    assert (folder / "ana v1.5.json").read_text() == "edited"


def test_beside_another_file_of_that_name_the_copy_is_numbered(run, folder):
    (folder / "ana v1.5.safetensors").write_bytes(b"another")
    assert copy_lora(run, "ana v1.5.safetensors", folder) == folder / "ana v1.5-2.safetensors"
    assert names(folder) == sorted(["ana v1.5.safetensors", *SECOND])
    assert (folder / "ana v1.5.safetensors").read_bytes() == b"another"


def test_a_numbered_copy_is_found_again(run, folder):
    (folder / "ana v1.5.safetensors").write_bytes(b"another")
    first = copy_lora(run, "ana v1.5.safetensors", folder)
    assert copy_lora(run, "ana v1.5.safetensors", folder) == first
    first.write_bytes(b"changed")
    assert copy_lora(run, "ana v1.5.safetensors", folder).name == "ana v1.5-3.safetensors"


def test_a_stray_sidecar_is_not_taken_over(run, folder):
    (folder / "ana v1.5.preview.png").write_bytes(b"another")
    assert copy_lora(run, "ana v1.5.safetensors", folder).name == "ana v1.5-2.safetensors"
    assert (folder / "ana v1.5.preview.png").read_bytes() == b"another"


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOSPC, "No space"), (errno.EROFS, "cannot be written"), (errno.EIO, "could not")]
)
def test_a_copy_that_fails_says_why_and_leaves_nothing(run, folder, monkeypatch, number, word):
    copies = []

    def failing(source, target, _):
        copies.append(target.write(source.read(3)))
        if len(copies) == 3:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shutil, "copyfileobj", failing)
    with pytest.raises(ExportError, match=word) as caught:
        copy_lora(run, "ana v1.5.safetensors", folder)
    assert str(folder) in caught.value.message
    assert names(folder) == []


def test_a_folder_that_is_not_there_is_named(run, tmp_path):
    with pytest.raises(ExportError, match=r"There is no folder .*nowhere"):
        copy_lora(run, "ana v1.5.safetensors", tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["config.toml", "bob.safetensors", "", "samples"])
def test_only_a_runs_lora_files_are_copied(run, folder, file):
    with pytest.raises(ExportError) as caught:
        copy_lora(run, file, folder)
    assert "ana v1.5.safetensors" in caught.value.hint
    assert names(folder) == []


def test_a_file_of_another_place_is_not_copied(run, folder):
    with pytest.raises(RunMissing):
        copy_lora(run, "../../secret.safetensors", folder)


def lines(text):
    return text.splitlines()


@pytest.mark.parametrize(
    ("trained", "said"),
    [
        ({}, "text encoder not trained"),
        ({"text_encoder_2": True}, "second text encoder 5e-05"),
        ({"text_encoder": True, "text_encoder_2": True}, "text encoder and second text encoder 5e-05"),
    ],
)
def test_the_text_names_the_text_encoders_that_were_trained(tmp_path, trained, said):
    made = make_run(tmp_path, adapter=trained, optimizer={"learning_rate": 1e-4, "text_learning_rate": 5e-5})
    assert f"Learning rate: UNet 0.0001, {said}" in lines(civitai_text(made, "ana v1.5.safetensors"))


def test_the_text_tells_how_the_lora_was_made(tmp_path):
    made = make_run(
        tmp_path,
        model={"base_model": "/models/dreamshaper 8"},
        dataset={"images": "/private/photos", "trigger_word": "ana", "batch_size": 2, "accumulation": 2, "flip": True},
        adapter={"rank": 32, "alpha": 16, "text_encoder": True},
        optimizer={"learning_rate": 1e-4, "text_learning_rate": 5e-5},
    )
    text = civitai_text(made, "ana v1.5.safetensors")
    assert lines(text)[:4] == [
        "ana v1.5",
        "Version: ana v1.5, 1000 steps",
        "Base model: SD 1.5, trained on dreamshaper 8",
        "Type: LoRA, style",
    ]
    for line in (
        "Trigger words: ana",
        "Images: 20, each shown about 200 times",
        "Steps: 1000 at batch 2 × 2 (accumulation)",
        "Resolution: 512 px",
        "Rank: 32, alpha: 16",
        "Learning rate: UNet 0.0001, text encoder 5e-05",
        "ana (20), smile (12), red hat (3)",
    ):
        assert line in lines(text)
    assert "images mirrored" in text
    assert lines(text)[-1] == "Trained with Atelier"


def test_the_texts_hashes_are_the_files(run):
    text = civitai_text(run, "ana v1.5.safetensors")
    sha256 = hashlib.sha256((run.path / "ana v1.5.safetensors").read_bytes()).hexdigest().upper()
    assert f"AutoV2: {sha256[:10]}" in lines(text)
    assert f"SHA-256: {sha256}" in lines(text)
    assert "AutoV3: ABABABABABAB" in lines(text)


def test_the_text_of_an_earlier_state_tells_that_states_steps(run):
    text = civitai_text(run, "ana v1.5-000400.safetensors")
    assert "Version: ana v1.5-000400, 400 steps" in lines(text)
    assert "Images: 20, each shown about 40 times" in lines(text)
    assert "<lora:ana v1.5-000400:1>" in text


def test_a_pocket_lora_says_that_it_fits_only_pocket(run):
    text = civitai_text(run, "ana v1.5.safetensors")
    assert "fits only that model" in text
    assert "SD 1.5" not in text


def test_the_text_holds_no_path(tmp_path):
    made = make_run(tmp_path, model={"base_model": str(tmp_path / "base")})
    text = civitai_text(made, "ana v1.5.safetensors")
    assert "private" not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    "data",
    [b"", b"short", lora_bytes({}), lora_bytes({"ss_tag_frequency": "[1]", "ss_num_train_images": "x"}), b"\xff" * 99],
)
def test_a_file_that_says_nothing_of_itself_leaves_those_lines_out(run, data):
    (run.path / "ana v1.5.safetensors").write_bytes(data)
    text = civitai_text(run, "ana v1.5.safetensors")
    assert "Pictures" not in text
    assert "tags" not in text
    assert "Rank: 16, alpha: 8" in lines(text)
    assert "\n\n\n" not in text


def test_a_file_that_was_never_written_has_no_text(run):
    with pytest.raises(ExportError, match=r"no LoRA file bob\.safetensors"):
        civitai_text(run, "bob.safetensors")
