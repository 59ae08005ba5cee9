"""A computer that is short of power or too hot: the run saves, waits, and continues by itself."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from trainer.contract.settings.model import ModelSettings

LOOK_EVERY = 30.0  # seconds
CHARGED = 5  # percent above the limit from which the run continues
COOLED = 10  # °C below the limit at which the run continues
SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "amdgpu")  # of processors and graphics cards
ASKED_SECONDS = 10  # a driver that hangs must not hang the training


@dataclass
class PowerWatch:
    """Checks every `LOOK_EVERY` seconds whether the run must wait for power or cooling."""

    why: str = ""
    _looked: float = float("-inf")

    def look(self, limits: ModelSettings) -> str:
        """Returns why to wait now, or an empty string. A waiting run needs a little more than the limit to continue."""
        if time.monotonic() - self._looked >= LOOK_EVERY:
            self._looked = time.monotonic()
            resting = bool(self.why)
            self.why = weak_battery(limits.battery_limit + resting * CHARGED if limits.battery_limit else 0)
            self.why = self.why or heat(limits.heat_limit - resting * COOLED if limits.heat_limit else 0)
        return self.why


def weak_battery(limit: int) -> str:
    """What is wrong with the battery if it has less than this many percent and nothing charges it; 0: never mind."""
    battery = psutil.sensors_battery() if limit and hasattr(psutil, "sensors_battery") else None
    if battery is None or battery.power_plugged or battery.percent >= limit:
        return ""
    return f"the battery is at {battery.percent:.0f} % and not charged"


def heat(limit: int) -> str:
    """What is too hot, if anything is above this many °C; 0: never mind."""
    hottest = max(temperatures(), default=0.0) if limit else 0.0
    return f"a processor or graphics card has {hottest:.0f} °C" if hottest > limit else ""


def temperatures() -> Iterator[float]:
    """°C of processors and graphics cards, as far as the system and NVIDIA's driver report them."""
    if hasattr(psutil, "sensors_temperatures"):  # Linux and FreeBSD alone
        for chip, sensors in psutil.sensors_temperatures().items():
            if chip in SENSORS:
                yield from (sensor.current for sensor in sensors)
    asking = shutil.which("nvidia-smi")
    if asking is None:
        return
    command = [asking, "--query-gpu=temperature.gpu", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ASKED_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return
    yield from (float(line) for line in answer.stdout.split() if line.isdecimal())
