"""The console as a user types it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import headers
import hub_server
import psutil
import pytest

from trainer.console import main as console
from trainer.contract.home import Home
from trainer.contract.presets import FOLDER, list_presets, save_preset
from trainer.contract.settings.config import validated
from trainer.runs.folder import RunFolder
from trainer.runs.queue import Queue

CHECKOUT = Path(__file__).parents[2]


def command(*arguments):
    return [sys.executable, "-m", "trainer.console.main", *map(str, arguments)]


def environment(**extra):
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "200", **extra}


def cli(*arguments, cwd=CHECKOUT, **extra):
    done = subprocess.run(
        command(*arguments), cwd=cwd, env=environment(**extra), capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def flags(tiny_model, tmp_path):
    return [
        "--preset", "pocket-style", "--base-model", tiny_model, "--name", "mein löra", "--home", tmp_path / "heim",
        "--dataset.resolution", "64", "--dataset.batch_size", "2", "--preview.steps", "2", "--model.precision", "fp32",
        "--model.device", "cpu",
    ]  # fmt: skip


def test_a_training_from_a_relative_folder_with_space_and_umlaut(flags, images, tmp_path):
    shutil.copytree(images, tmp_path / "Bilder für mich")
    code, output = cli(*flags, "--images", "Bilder für mich", "--dataset.views", "2", cwd=tmp_path)
    assert code == 0, output
    assert "5 images × 2 views = 5 steps at batch 2" in output
    (run,) = RunFolder.all(Home(tmp_path / "heim"))
    for name in ("mein löra.safetensors", "before-after.png"):
        assert (run.path / name).exists()
        assert str(run.path / name) in output
    assert "fits only the model" in output


def test_check_shows_every_setting_with_its_origin_and_trains_nothing(flags, images, tmp_path):
    code, output = cli(*flags, "--images", images, "--adapter.rank", "8", "--check")
    assert code == 0
    lines = [line.rstrip() for line in output.splitlines() if "." in line.partition(" ")[0]]
    origins = {line.split()[0]: line.rpartition("  ")[2].strip() for line in lines}
    assert origins["adapter.rank"] == "flag"
    assert origins["adapter.alpha"] == "preset pocket-style"
    assert origins["adapter.dropout"] == "default"
    assert not (tmp_path / "heim").exists()


def test_list_presets_names_all_with_their_intent():
    code, output = cli("--list-presets")
    assert code == 0
    for preset in (CHECKOUT / "presets").glob("*.toml"):
        assert preset.stem in output


def test_an_own_preset_is_listed_beside_the_others_and_can_be_used(flags, images, tmp_path):
    home = Home(tmp_path / "heim")
    save_preset(home.presets, "Mein Stil", validated({"adapter": {"rank": 24}}), "Mine.")
    code, output = cli("--list-presets", "--home", home.root)
    assert code == 0
    assert {"pocket-style", "Mein Stil"} <= {line.split("  ")[0] for line in output.splitlines()}
    code, output = cli(*flags, "--preset", "Mein Stil", "--images", images, "--check")
    assert code == 0
    assert re.search(r"adapter\.rank +24 +preset Mein Stil", output)


def test_a_queued_run_waits_while_another_is_trained(flags, images, tmp_path):
    home = Home(tmp_path / "heim")
    RunFolder.create(home, validated({})).record(psutil.Process())  # this very test stands for a trainer
    code, output = cli(*flags, "--images", images, "--queue")
    assert code == 0, output
    assert "waits as number 1" in output
    (waiting,) = Queue(home).waiting()
    assert waiting.config().output.name == "mein löra"
    assert waiting.status() == "waiting"


@pytest.mark.parametrize("preset", list_presets(FOLDER)[0], ids=lambda preset: preset.name)
def test_every_shipped_preset_passes_check(preset, images, tmp_path, capsys):
    tensors = {"sd2": headers.sd2, "sdxl": headers.sdxl}.get(preset.values["model"].get("family"), headers.sd15)()
    told = {"modelspec.prediction_type": "v"} if "sd2" in preset.name else None
    base = headers.write(tmp_path / "base.safetensors", tensors, metadata=told)
    given = ["--preset", preset.name, "--images", str(images), "--base-model", str(base), "--check"]
    assert console.main(given) == 0, capsys.readouterr().out


def test_models_lists_those_on_this_computer_with_what_each_is_and_where(tmp_path):
    for entry in ("models/Lora", "modules_forge", "models/Stable-diffusion"):
        (tmp_path / "forge" / entry).mkdir(parents=True)
    (tmp_path / "forge" / "webui.py").touch()
    ours = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "HF_HOME": str(tmp_path / "hub")}
    code, output = cli("--models", **ours)
    assert code == 0
    assert str(tmp_path) not in output
    file = headers.write(tmp_path / "forge/models/Stable-diffusion/[pony] ä.safetensors", headers.sdxl())
    code, output = cli("--models", **ours)
    assert code == 0
    assert "[pony] ä  SDXL (Pony), predicts noise, 1024 px, fp16" in output
    assert f"Forge: {file}" in output


def test_the_plan_says_what_the_base_model_is(flags, images, tiny_model):
    code, output = cli(*flags, "--images", images, "--check")
    assert code == 0
    assert f"Base model: {tiny_model}: SD 1.x, predicts" in output


def test_of_a_model_of_the_hub_the_plan_says_how_much_is_to_be_fetched(flags, images, tmp_path):
    given = (*flags, "--images", images, "--base-model", "ana/small-model", "--check")
    with hub_server.serve() as hub:
        hub.add("ana/small-model", {"ana.safetensors": bytes(20_000)})
        online = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        code, output = cli(*given, **online)
        assert code == 0, output
        assert "Base model: ana/small-model: 20 kB will be downloaded first." in output
        assert hub.sent == []
        code, output = cli(*given, **{**online, "HF_HUB_OFFLINE": "1"})
    assert code == 0, output
    assert "Note: HF_HUB_OFFLINE is set and ana/small-model is not in the cache" in output


def test_no_run_is_made_with_a_base_model_of_another_kind(flags, images, tmp_path):
    base = headers.write(tmp_path / "ana.safetensors", headers.sdxl())
    code, output = cli(*flags, "--images", images, "--base-model", base, "--model.family", "sd15")
    assert code == 2
    assert "ana.safetensors is SDXL; these settings are made for SD 1.x." in output
    code, output = cli(*flags, "--images", images, "--base-model", "no-model-of-this-name")
    assert code == 2
    assert "(base_model_missing)" in output
    assert not (tmp_path / "heim").exists()


def test_help_is_grouped_and_complete():
    code, output = cli("train", "--help")
    assert code == 0
    for word in ("--resume", "dataset:", "--adapter.rank N", "--objective.min_snr_gamma"):
        assert word in output


@pytest.mark.parametrize(
    ("arguments", "code_word", "seen"),
    [
        (["--preset", "no-such"], "unknown_preset", "no-such"),
        (["--preset", "pocket-style", "--adapter.rank", "1"], "invalid_settings", "1"),
        (["--preset", "pocket-style", "--adapter.rnk", "8"], "invalid_settings", "--adapter.rnk"),
        (["--preset", "pocket-style", "--images", "/no/such"], "folder_missing", "/no/such"),
        (["--resume", "nothing-here"], "run_missing", "nothing-here"),
        ([], "invalid_settings", "preset"),
        (["--config", "/no/such.toml"], "invalid_settings", "/no/such.toml"),
    ],
)
def test_a_mistake_is_told_with_the_value_seen_and_what_to_do(arguments, code_word, seen):
    code, output = cli(*arguments)
    assert code == 2
    assert f"({code_word})" in output
    assert seen in output
    assert "→" in output
    assert "Traceback" not in output


def test_ctrl_c_stops_and_saves_and_resume_ends_the_run(flags, images, tmp_path):
    home = Home(tmp_path / "heim")
    child = subprocess.Popen(
        command(*flags, "--images", images, "--dataset.views", "50"),
        cwd=CHECKOUT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while not (RunFolder.all(home) and RunFolder.all(home)[0].view().steps):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 0, output
    (run,) = RunFolder.all(home)
    assert run.status() == "stopped"
    assert f"--resume {run.path.name}" in output
    code, output = cli("--resume", run.path.name, "--home", home.root)
    assert code == 0
    assert "Resumed at step" in output
    assert run.status() == "completed"
    assert (run.path / "mein löra.safetensors").exists()


@pytest.mark.parametrize(("form", "command"), [("--list-presets", "presets"), ("--models", "models")])
def test_a_list_is_the_same_in_both_forms(form, command, tmp_path):
    ours = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "HF_HOME": str(tmp_path / "hub")}
    assert cli(form, **ours) == cli(command, **ours)


def test_a_strength_strip_that_cannot_be_made_says_why(tmp_path):
    run = RunFolder.create(Home(tmp_path / "mein Heim ä"), validated({}))
    code, output = cli("strength", run.path.name, "none.safetensors", "--home", tmp_path / "mein Heim ä")
    assert code == 2
    assert 'has no LoRA file called "none.safetensors"' in output
    assert str(run.log_file) in output
