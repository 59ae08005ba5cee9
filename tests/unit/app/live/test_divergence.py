"""A training that made the base model worse says so on the page too, however much was said since."""

import pytest

from app.live.monitor import Watches
from app.live.parts import notices
from app.runs.cards import card, look
from trainer.contract.events import EventLog, RunFinished, Warned
from trainer.contract.settings.config import validated
from trainer.runs.folder import RunFolder

DIVERGED = Warned(code="diverged", message="The training <b> has diverged.", hint="Start again.")
OTHERS = [Warned(code="slow", message=f"Warning {number}.", hint="Wait.") for number in range(5)]


@pytest.fixture
def drawn(home):
    """Makes a completed run with these warnings; returns what Live and Runs show of it."""

    def make(warned):
        run = RunFolder.create(home, validated({"output": {"name": "ana"}}))
        with EventLog(run.events_file) as log:
            for event in [*warned, RunFinished(reason="completed", step=9, seconds=9.0)]:
                log.write(event)
        watches = Watches()
        return notices(watches.whole(run), "en"), card(look(run, watches), "en")

    return make


@pytest.mark.parametrize("warned", [[DIVERGED], [DIVERGED, *OTHERS], [*OTHERS, DIVERGED]])
def test_live_and_the_card_of_the_run_say_so(drawn, warned):
    for html in drawn(warned):
        assert html.count("The training &lt;b&gt; has diverged.") == 1


def test_without_it_neither_does(drawn):
    live, of_run = drawn(OTHERS)
    assert "diverged" not in live + of_run
    assert "Warning 4." in live
