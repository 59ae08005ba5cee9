"""What a training would run on, told without PyTorch."""

import pytest

from trainer.contract.settings.model import ModelSettings
from trainer.engine.device import choose_device, choose_precision
from trainer.planning import machine
from trainer.planning.machine import machine_for


@pytest.fixture(autouse=True)
def unseen(monkeypatch):
    monkeypatch.setattr(machine, "_seen", {})


def nvidia(monkeypatch, tmp_path, script):
    """A machine with the tool of NVIDIA's driver, that does what the script says, and PyTorch for it."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(machine, "_torch_build", lambda: "cu130")


def test_it_is_the_device_that_the_trainer_chooses_here():
    seen = machine_for(ModelSettings())
    assert seen.device == choose_device("auto")
    assert seen.half == (choose_precision("auto", seen.device) != "fp32")
    assert seen.free > 0


def test_a_card_s_free_memory_is_asked_of_its_driver(monkeypatch, tmp_path):
    nvidia(monkeypatch, tmp_path, "echo 5678")
    assert machine_for(ModelSettings()) == machine.Machine("cuda", 5678 * 2**20, half=True)
    assert machine_for(ModelSettings(device="cpu")).device == "cpu"


@pytest.mark.parametrize("script", ["echo N/A", "exit 9", "true"])
def test_a_driver_that_does_not_answer_is_no_card(monkeypatch, tmp_path, script):
    nvidia(monkeypatch, tmp_path, script)
    assert machine_for(ModelSettings()).device == "cpu"


def test_a_card_that_pytorch_was_not_built_for_is_not_counted_on(monkeypatch, tmp_path):
    nvidia(monkeypatch, tmp_path, "echo 5678")
    monkeypatch.setattr(machine, "_torch_build", lambda: "cpu")
    assert machine_for(ModelSettings()).device == "cpu"


def test_of_two_amd_cards_the_larger_counts(tmp_path):
    for number, (total, used) in enumerate([(2**30, 0), (8 * 2**30, 2**30)]):
        folder = tmp_path / f"card{number}" / "device"
        folder.mkdir(parents=True)
        (folder / "mem_info_vram_total").write_text(f"{total}\n")
        (folder / "mem_info_vram_used").write_text(f"{used}\n")
    assert machine._free_on_amd(tmp_path) == 7 * 2**30
    assert machine._free_on_amd(tmp_path / "none") is None


def test_a_number_format_that_was_chosen_counts():
    assert machine_for(ModelSettings(precision="bf16")).half
    assert not machine_for(ModelSettings(precision="fp32")).half
