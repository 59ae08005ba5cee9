"""A page killed while somebody types: what was entered before is on disk, and the file is whole."""

import os
import signal
import sys
import time

import pytest
from tally import note

from trainer.contract.home import Home
from trainer.projects.project import Project

FIELDS = ("output.name", "optimizer.learning_rate", "dataset.trigger_word")


def type_in(project: Project, confirmed: int) -> None:
    """Enter counting values until killed; each is confirmed on the pipe once it is kept."""
    number = int(project.read().values.get(FIELDS[0], 0))
    while True:
        number += 1
        project.enter(dict.fromkeys(FIELDS, str(number)))
        os.write(confirmed, number.to_bytes(8, "big"))


def killed_while_typing(project: Project, seconds: float) -> list[str]:
    """Kill one that types after so long; returns what is wrong afterwards."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            type_in(project, writing)
        finally:
            os._exit(1)
    os.close(writing)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        last = int.from_bytes(pipe.read()[-8:], "big")
    found = project.read()
    values = {int(found.values.get(name, 0)) for name in FIELDS}
    wrong = ["the file cannot be read"] if found.unreadable else []
    if len(values) > 1 or min(values) not in (last, last + 1, *([] if last else [*values])):
        wrong.append(f"{last} was confirmed, and {values} are there")
    return wrong


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.faults)])
def test_no_kill_loses_what_was_typed(tmp_path, chance, kills):
    project = Project.create(Home(tmp_path), "Omas Bilder ü")
    wrong = []
    for _ in range(kills):
        wrong += note("killed while typing", killed_while_typing(project, chance.uniform(0.0, 0.06)))
    assert wrong == []
    assert int(project.read().values[FIELDS[0]]) > kills // 4, "they did type"
    project.enter({"output.name": "x"})
    assert [path.name for path in project.path.glob(".*.part")] == [], "nothing half-written stays"
