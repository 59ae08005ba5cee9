"""A computer short of power or too hot: the run saves, waits, and goes on by itself."""

from types import SimpleNamespace

import psutil
import pytest

from trainer.__main__ import main
from trainer.contract.events import Checkpoint, RunFinished, Step, Warned, read_events
from trainer.contract.settings.model import ModelSettings
from trainer.engine import loop
from trainer.engine.watch import power
from trainer.engine.watch.power import PowerWatch, heat, temperatures, weak_battery


def battery(percent, plugged=False):
    return SimpleNamespace(percent=percent, power_plugged=plugged, secsleft=100)


def events(run, kind):
    return [event for event in read_events(run.events_file)[0] if isinstance(event, kind)]


@pytest.fixture
def sensors(monkeypatch):
    """What the system's sensors say; no NVIDIA driver."""
    told = {"battery": None, "heat": {}}
    monkeypatch.setattr(psutil, "sensors_battery", lambda: told["battery"], raising=False)
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: told["heat"], raising=False)
    monkeypatch.setattr(power.shutil, "which", lambda _: None)
    return told


@pytest.mark.parametrize(
    "seen, weak",
    [
        (None, False),
        (battery(9), True),
        (battery(10), False),
        (battery(3, plugged=True), False),
        (battery(3, None), True),
    ],
)
def test_a_weak_battery_is_one_that_nothing_charges(sensors, seen, weak):
    sensors["battery"] = seen
    assert bool(weak_battery(10)) is weak
    assert not weak_battery(0)


def test_heat_is_that_of_processors_and_cards(sensors):
    sensors["heat"] = {
        "k10temp": [SimpleNamespace(current=71.0)],
        "amdgpu": [SimpleNamespace(current=96.4)],
        "nvme": [SimpleNamespace(current=120.0)],
    }
    assert heat(95) == "a processor or graphics card has 96 °C"
    assert not heat(97)
    assert not heat(0)


@pytest.mark.usefixtures("sensors")
def test_nvidias_driver_is_asked_and_may_be_broken(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setattr(power.shutil, "which", lambda _: str(tool))
    assert list(temperatures()) == [], "it cannot be started"
    tool.write_text("#!/bin/sh\nprintf '61\\n[N/A]\\n83\\n'\n")
    tool.chmod(0o755)
    assert list(temperatures()) == [61.0, 83.0]


def test_a_rest_ends_only_somewhat_beyond_the_limit(sensors, monkeypatch):
    monkeypatch.setattr(power, "LOOK_EVERY", 0.0)
    seen, limits = PowerWatch(), ModelSettings(battery_limit=10, heat_limit=0)
    told = []
    for percent in (11, 9, 11, 14, 15, 11, 9):
        sensors["battery"] = battery(percent)
        told.append(bool(seen.look(limits)))
    assert told == [False, True, True, True, False, False, True]


def test_sensors_are_read_seldom(sensors):
    seen, limits = PowerWatch(), ModelSettings(battery_limit=50)
    assert not seen.look(limits)
    sensors["battery"] = battery(1)
    assert not seen.look(limits)


@pytest.mark.parametrize("ending", ["charged", "stop"])
def test_the_run_saves_and_waits(new_run, sensors, monkeypatch, ending):
    run = new_run(output={"checkpoint_every": 1000})
    monkeypatch.setattr(power, "LOOK_EVERY", 0.0)
    waits = []

    def sleep(_seconds):
        waits.append(len(events(run, Step)))
        if len(waits) == 3 and ending == "charged":
            sensors["battery"] = battery(9, plugged=True)
        elif len(waits) == 3:
            run.request("stop")

    monkeypatch.setattr(loop.time, "sleep", sleep)
    updates = loop.update

    def draining(training, step):
        if step == 2:
            sensors["battery"] = battery(9)
        return updates(training, step)

    monkeypatch.setattr(loop, "update", draining)
    assert main([str(run.path)]) == 0
    assert waits == [3, 3, 3], "no step while it rests"
    (warning,) = [event for event in events(run, Warned) if event.code == "resting"]
    assert "the battery is at 9 % and not charged" in warning.message
    assert events(run, Checkpoint)[0].step == 3
    assert events(run, RunFinished)[0].reason == ("completed" if ending == "charged" else "stopped")
