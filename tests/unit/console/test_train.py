"""What the console says once a training has ended."""

import pytest

from trainer.console import progress, train
from trainer.console.screen import Screen
from trainer.contract.events import EventLog, RunFinished, Warned
from trainer.contract.settings.config import validated
from trainer.runs.folder import RunFolder
from trainer.runs.process import Group

DIVERGED = Warned(code="diverged", message="The training has diverged.", hint="Start again.")
OTHERS = [Warned(code="slow", message=f"Warning {number}.", hint="Wait.") for number in range(5)]


@pytest.mark.parametrize(("warned", "times"), [([DIVERGED, *OTHERS], 1), (OTHERS, 0)])
def test_a_completed_training_that_diverged_says_so_beside_its_result(home, monkeypatch, capsys, warned, times):
    run = RunFolder.create(home, validated({"output": {"name": "ana"}}))
    with EventLog(run.events_file) as log:
        for event in [*warned, RunFinished(reason="completed", step=9, seconds=9.0)]:
            log.write(event)
    monkeypatch.setattr(progress, "follow", lambda *_args, **_named: 0)  # it has ended, and shown its events
    assert train.follow(run, Group(), Screen()) == 0
    said = capsys.readouterr().out.partition("Completed at step 9")[2]
    assert said.count("The training has diverged.") == said.count("Start again.") == times
