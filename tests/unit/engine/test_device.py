from types import SimpleNamespace

import psutil
import pytest
import torch

from trainer.contract.errors import InvalidSettings
from trainer.engine.device import choose_device, choose_precision, free_bytes, memory_gib


def test_half_precision_on_a_cpu_is_refused_with_what_to_do():
    with pytest.raises(InvalidSettings) as caught:
        choose_precision("fp16", "cpu")
    assert "bf16" in caught.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InvalidSettings, match="cuda"):
        choose_device("cuda")


def test_the_automatic_choice_exists():
    device = choose_device("auto")
    assert choose_precision("auto", device) in ("fp32", "bf16", "fp16")


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp16")])
def test_a_card_that_only_imitates_bf16_computes_in_fp16(monkeypatch, native, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert choose_precision("auto", "cuda") == chosen


@pytest.mark.parametrize(("new_enough", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_a_mac_computes_in_bf16_where_its_system_can(monkeypatch, new_enough, chosen):
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: new_enough)
    assert choose_precision("auto", "mps") == chosen


def test_memory_grows_with_what_is_held():
    before = memory_gib(torch.device("cpu"))
    held = torch.ones(2**26)  # 0.25 GiB
    assert memory_gib(torch.device("cpu")) - before == pytest.approx(0.25, abs=0.05)
    del held


def test_the_processes_of_a_computer_share_its_memory(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * 2**30))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert free_bytes(torch.device("cpu")) == 8 * 2**30
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes(torch.device("cpu")) == 2 * 2**30
