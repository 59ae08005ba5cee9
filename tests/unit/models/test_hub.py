import json
import shutil
import socket
import subprocess
import sys
from collections import namedtuple

import hub_server
import pytest
from huggingface_hub import constants, scan_cache_dir, snapshot_download

from trainer.contract.errors import InvalidSettings
from trainer.models import hub as hub_module
from trainer.models.hub import cached_models, fetch, is_hub_name, local_folder, look
from trainer.models.hub_errors import (
    DamagedDownload,
    HubOffline,
    HubRefused,
    HubUnreachable,
    NoModelInRepository,
    NoRoom,
    NotOnTheHub,
)

NAME = "ana/small-model"
HALF = b"half" * 1000
FULL = b"full" * 2000
SD = {
    **hub_server.small_model(FULL),
    "vae/diffusion_pytorch_model.fp16.safetensors": HALF,
    "unet/diffusion_pytorch_model.safetensors": FULL + b"unet",
}
NEVER = {
    "README.md": b"a model",
    "ana.ckpt": FULL,
    "ana-pruned.safetensors": FULL + b"single",
    "safety_checker/model.safetensors": FULL,
    "safety_checker/config.json": b"{}",
    "feature_extractor/preprocessor_config.json": b"{}",
    "text_encoder/pytorch_model.bin": FULL,
    "text_encoder/flax_model.msgpack": FULL,
    "vae/diffusion_pytorch_model.onnx": FULL,
    "vae/diffusion_pytorch_model.bin": FULL,
    "unet/diffusion_pytorch_model.non_ema.safetensors": FULL,
    "unet/diffusion_pytorch_model.bin.index.json": b"{}",
    "unet/openvino_model.xml": FULL,
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_server.instead(tmp_path, monkeypatch) as server:
        yield server


def get(name):
    """Download; gives back where it lies and all that was told on the way."""
    told = []
    return fetch(look(name), lambda done, total: told.append((done, total))), told


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("runwayml/stable-diffusion-v1-5", True),
        ("OnomaAIResearch/Illustrious-xl-early-release-v0", True),
        ("a/b", True),
        ("a/b_c.d-e", True),
        ("owner/name/file.safetensors", True),
        ("owner/name/folder/one--file.safetensors", True),
        ("pocket", False),
        ("owner", False),
        ("", False),
        ("owner/", False),
        ("/owner/name", False),
        ("./owner/name", False),
        ("../name", False),
        ("~/models", False),
        ("~ana/models", False),
        ("C:/models", False),
        ("C:\\models", False),
        ("owner\\name", False),
        ("owner/na--me", False),
        ("owner/na..me", False),
        ("owner/-name", False),
        ("owner/name.", False),
        ("owner/name.git", False),
        ("owner/name/", False),
        ("owner/name/file.ckpt", False),
        ("owner/name/../file.safetensors", False),
        ("owner/my model", False),
        ("owner/modèle", False),
        (f"a/{'b' * 50}-" * 1000, False),
    ],
)
def test_a_hub_name_is_told_from_a_path(text, is_one):
    assert is_hub_name(text) is is_one


def test_what_lies_on_this_computer_is_no_hub_name(tmp_path, monkeypatch):
    (tmp_path / "models" / "ana").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_name("models/ana")
    assert is_hub_name("models/ben")


def test_of_a_diffusers_repository_only_what_training_needs_is_taken(hub):
    hub.add(NAME, {**SD, **NEVER})
    wanted = look(NAME)
    assert set(wanted.files) == SD.keys() - {"vae/diffusion_pytorch_model.safetensors"}
    assert wanted.bytes == wanted.missing_bytes == sum(len(SD[file]) for file in wanted.files)
    assert wanted.revision == hub.repositories[NAME].commit
    assert hub.sent == []


def test_weights_in_pieces_come_with_their_index(hub):
    pieces = {f"unet/diffusion_pytorch_model-0000{i}-of-00002.safetensors": FULL for i in (1, 2)}
    index = {"unet/diffusion_pytorch_model.safetensors.index.json": b"{}"}
    whole = {path: content for path, content in SD.items() if path != "unet/diffusion_pytorch_model.safetensors"}
    hub.add(NAME, {**whole, **pieces, **index})
    assert set(look(NAME).files) >= pieces.keys() | index.keys()


def test_half_precision_in_pieces_is_preferred_to_one_full_file(hub):
    pieces = {f"text_encoder/model.fp16-0000{i}-of-00002.safetensors": HALF for i in (1, 2)}
    indexes = {f"text_encoder/model.safetensors.index{half}.json": b"{}" for half in ("", ".fp16")}
    hub.add(NAME, {**SD, **pieces, **indexes})
    taken = {file for file in look(NAME).files if file.startswith("text_encoder/")}
    assert taken == {*pieces, "text_encoder/config.json", "text_encoder/model.safetensors.index.fp16.json"}


def test_a_second_text_encoder_comes_with_its_tokenizer(hub):
    second = {
        "text_encoder_2/config.json": b"{}",
        "text_encoder_2/model.safetensors": FULL,
        "tokenizer_2/tokenizer.json": b"{}",
    }
    hub.add(NAME, {**SD, **second})
    assert set(look(NAME).files) > second.keys()


def test_a_repository_with_one_file_gives_that_file(hub):
    hub.add(NAME, {"README.md": b"x", "ana.safetensors": FULL, "ana.ckpt": FULL})
    path, _ = get(NAME)
    assert path.name == "ana.safetensors"
    assert path.read_bytes() == FULL
    assert local_folder(NAME) == path


def test_where_the_folders_hold_no_safetensors_the_one_file_is_taken(hub):
    pickled = {path.replace(".safetensors", ".bin"): content for path, content in SD.items()}
    hub.add(NAME, {**pickled, "ana.safetensors": FULL})
    assert look(NAME).files == ("ana.safetensors",)


def test_of_several_files_the_user_names_one(hub):
    hub.add(NAME, {f"model-{letter}.safetensors": FULL for letter in "abcdefg"})
    with pytest.raises(InvalidSettings) as told:
        look(NAME)
    assert told.value.message.startswith(f"{NAME} holds several models: model-a.safetensors,")
    assert told.value.message.endswith("model-e.safetensors and 2 more.")
    assert told.value.hint == f"Write which one, as {NAME}/model-a.safetensors."
    path, _ = get(f"{NAME}/model-c.safetensors")
    assert path.name == "model-c.safetensors"
    assert local_folder(f"{NAME}/model-c.safetensors") == path
    assert local_folder(f"{NAME}/model-d.safetensors") is None
    second, _ = get(f"{NAME}/model-d.safetensors")
    assert list(cached_models()) == [(f"{NAME}/{one.name}", one) for one in (path, second)]


@pytest.mark.parametrize("files", [{"README.md": b"x"}, {"ana.ckpt": FULL}, {"model_index.json": b"{}", "a.bin": FULL}])
def test_a_repository_without_a_readable_model_is_told(hub, files):
    hub.add(NAME, files)
    with pytest.raises(NoModelInRepository, match=r"ana/small-model holds no Stable Diffusion model as \.safetensors"):
        look(NAME)


def test_a_download_gives_the_folder_and_tells_its_progress(hub):
    hub.add(NAME, {**SD, **NEVER})
    wanted = look(NAME)
    assert local_folder(NAME) is None
    folder, told = get(NAME)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == set(wanted.files)
    assert all((folder / file).read_bytes() == SD[file] for file in wanted.files)
    assert told[0] == (0, wanted.bytes)
    assert told[-1] == (wanted.bytes, wanted.bytes)
    assert told == sorted(told)
    assert local_folder(NAME) == folder
    assert look(NAME).missing_bytes == 0
    assert list(cached_models()) == [(NAME, folder)]


def test_what_is_there_is_not_asked_for_again(hub):
    hub.add(NAME, SD)
    wanted = look(NAME)
    first, _ = get(NAME)
    hub.requests.clear()
    assert fetch(wanted, lambda *_: None) == first
    assert local_folder(NAME) == first
    assert hub.requests == []


def test_a_newer_state_takes_over_the_files_that_stayed_the_same(hub):
    hub.add(NAME, SD)
    first, _ = get(NAME)
    hub.add(NAME, {**SD, "unet/config.json": b'{"in_channels": 4, "new": true}'})
    assert look(NAME).missing_bytes == len(b'{"in_channels": 4, "new": true}')
    hub.sent.clear()
    second, _ = get(NAME)
    assert first != second
    assert [file for file, _ in hub.sent] == ["unet/config.json"]
    assert (second / "unet/diffusion_pytorch_model.safetensors").read_bytes() == FULL + b"unet"


def test_the_hubs_own_client_finds_what_was_fetched_and_the_other_way_round(hub, monkeypatch):
    hub.add(NAME, SD)
    folder, _ = get(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert snapshot_download(NAME) == str(folder)
    [scanned] = scan_cache_dir(constants.HF_HUB_CACHE).repos
    assert scanned.repo_id == NAME
    assert not scan_cache_dir(constants.HF_HUB_CACHE).warnings
    shutil.rmtree(constants.HF_HUB_CACHE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    blobs = hub_module._storage(NAME) / "blobs"
    for content in {FULL, FULL + b"unet", HALF}:
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / hub_server.sha256(content)).write_bytes(content)
    hub.sent.clear()
    assert get(NAME)[0] == folder
    assert not [file for file, _ in hub.sent if file.endswith(".safetensors")]


def test_a_broken_transfer_goes_on_where_it_was(hub):
    hub.add(NAME, {"ana.safetensors": FULL})
    hub.cut_after = [len(FULL) // 2, 1000]
    path, told = get(NAME)
    assert path.read_bytes() == FULL
    assert [one["range"] for one in hub.transfers("ana.safetensors")] == [
        "bytes=0-",
        f"bytes={len(FULL) // 2}-",
        f"bytes={len(FULL) // 2 + 1000}-",
    ]
    assert told == sorted(told)


def test_a_download_that_was_given_up_goes_on_in_the_next_attempt(hub):
    hub.add(NAME, {"ana.safetensors": FULL})
    hub.cut_after = [3000, 0, 0, 0]
    with pytest.raises(HubUnreachable) as told:
        get(NAME)
    assert "what has arrived is kept" in told.value.hint
    assert local_folder(NAME) is None
    assert look(NAME).missing_bytes == len(FULL) - 3000
    hub.cut_after.clear()
    path, told = get(NAME)
    assert told[0] == (3000, len(FULL))
    assert hub.transfers("ana.safetensors")[-1]["range"] == "bytes=3000-"
    assert path.read_bytes() == FULL


def test_a_download_can_be_stopped_from_its_progress(hub):
    hub.add(NAME, {"ana.safetensors": FULL})

    def stop(done, _total):
        if done >= 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(look(NAME), stop)
    assert 2000 <= len(FULL) - look(NAME).missing_bytes < len(FULL)
    assert get(NAME)[0].read_bytes() == FULL


def test_a_server_that_always_sends_the_whole_file_is_understood(hub):
    hub.add(NAME, {"ana.safetensors": FULL})
    hub.cut_after, hub.ignore_ranges = [3000], True
    path, told = get(NAME)
    assert path.read_bytes() == FULL
    assert told[-1] == (len(FULL), len(FULL))
    assert max(done for done, _ in told) == len(FULL)


@pytest.mark.parametrize("content", [FULL, b"small"], ids=["large", "small"])
def test_content_other_than_announced_is_thrown_away(hub, content):
    hub.add(NAME, {"ana.safetensors": content})
    large = len(content) >= hub_server.LARGE
    hub.announce["ana.safetensors"] = hub_server.sha256(HALF) if large else hub_server.git_hash(HALF)
    with pytest.raises(DamagedDownload, match=r"ana\.safetensors of ana/small-model arrived damaged"):
        get(NAME)
    assert look(NAME).missing_bytes == len(content)
    assert local_folder(NAME) is None


def test_where_no_links_can_be_made_the_files_themselves_lie_in_the_folder(hub, monkeypatch):
    def refusing(*_):
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr("pathlib.Path.symlink_to", refusing)
    hub.add(NAME, SD)
    folder, _ = get(NAME)
    assert local_folder(NAME) == folder
    assert look(NAME).missing_bytes == 0
    assert (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes() == FULL + b"unet"


@pytest.mark.parametrize(
    "file",
    ["unet/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json", "vae/config.json", "model_index.json"],
)
def test_a_folder_with_a_file_missing_is_not_whole(hub, file):
    hub.add(NAME, SD)
    folder, _ = get(NAME)
    (folder / file).unlink()
    assert local_folder(NAME) is None
    assert list(cached_models()) == []
    assert get(NAME)[0] == folder
    assert local_folder(NAME) == folder


def test_a_part_that_the_index_names_and_the_folder_lacks_is_missing(hub):
    index = {"_class_name": "X", "text_encoder_2": ["transformers", "CLIP"], "image_encoder": [None, None]}
    hub.add(NAME, {**SD, "model_index.json": json.dumps(index).encode()})
    folder, _ = get(NAME)
    assert local_folder(NAME) is None
    (folder / "model_index.json").write_text(json.dumps({**index, "text_encoder_2": [None, None]}))
    assert local_folder(NAME) == folder


def test_offline_the_cache_is_used_and_nothing_else(hub, monkeypatch):
    hub.add(NAME, SD)
    wanted = look(NAME)
    folder, _ = get(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert local_folder(NAME) == folder
    shutil.rmtree(constants.HF_HUB_CACHE)
    for ask in (lambda: look(NAME), lambda: fetch(wanted, lambda *_: None)):
        with pytest.raises(HubOffline, match=r"HF_HUB_OFFLINE is set and ana/small-model is not in the cache"):
            ask()
    assert hub.requests == []


@pytest.mark.usefixtures("hub")
def test_without_a_network_the_error_says_so(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(HubUnreachable, match=r"could not be reached for ana/small-model: .*[Cc]onnect"):
        look(NAME)


@pytest.mark.parametrize(
    ("status", "error"), [(404, NotOnTheHub), (401, HubRefused), (403, HubRefused), (503, HubUnreachable)]
)
def test_each_answer_of_the_hub_has_its_error(hub, status, error):
    hub.refuse = status
    with pytest.raises(error) as told:
        look(NAME)
    assert NAME in told.value.message


def test_a_name_that_does_not_exist_is_told(hub):
    with pytest.raises(NotOnTheHub, match=r"No model ana/nothing on the Hugging Face hub"):
        look("ana/nothing")
    hub.add(NAME, SD)
    with pytest.raises(NotOnTheHub):
        look(f"{NAME}/other.safetensors")


def test_a_gated_model_asks_for_its_licence_before_the_download_and_opens_to_a_token(hub, monkeypatch):
    hub.add(NAME, SD, gated="auto", token="hf_right")
    with pytest.raises(HubRefused) as told:
        look(NAME)
    assert told.value.hint == (
        "Accept the license on https://huggingface.co/ana/small-model and set HF_TOKEN to your access token."
    )
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    folder, _ = get(NAME)
    assert local_folder(NAME) == folder
    # The host that large files come from is another one, and must not learn the token
    assert "authorization" in hub.transfers("unet/config.json")[0]
    assert "authorization" not in hub.transfers("unet/diffusion_pytorch_model.safetensors")[0]


def test_a_model_that_does_not_fit_on_the_disk_is_refused_before_the_first_byte(hub, monkeypatch):
    hub.add(NAME, SD)
    disk = namedtuple("Disk", "total used free")(10**6, 10**6, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    with pytest.raises(NoRoom, match=r"needs .* more, but .* has 1 kB free"):
        get(NAME)
    assert hub.sent == []


def test_files_that_would_lie_outside_the_folder_are_not_taken(hub):
    hub.add(NAME, {**SD, "unet/..\\..\\evil.json": b"{}", "unet/../../evil.txt": b"x"})
    assert set(look(NAME).files) <= SD.keys()


def test_the_hub_is_told_nothing_about_this_computer(hub):
    hub.add(NAME, SD)
    get(NAME)
    assert {path.split("/")[1] for _, path, _ in hub.requests} == {"api", "ana", "cdn"}
    assert not [path for _, path, _ in hub.requests if "agent" in path or "telemetry" in path]
    assert not [1 for _, _, headers in hub.requests if "torch" in headers.get("user-agent", "")]


def test_importing_the_module_loads_neither_torch_nor_the_hubs_client():
    code = "import sys, trainer.models.hub; assert not {'torch', 'huggingface_hub', 'httpx2'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
