"""Measurements that are run by hand can be begun: nobody notices otherwise until figures are wanted."""

import math
import sys

import pytest
from accelerate.state import AcceleratorState
from benchmarks import card, step


class Unmeasured:
    """Stands in for `step.Peak`."""

    def start(self):
        """Measure nothing."""


@pytest.mark.parametrize("case", card.CASES, ids=str)
def test_the_settings_of_every_training_on_a_card_are_allowed(tmp_path, monkeypatch, case):
    started = []
    monkeypatch.setattr(card.subprocess, "run", lambda command, **_named: started.append(command))
    monkeypatch.setattr(card, "images", lambda folder, _count, _side: folder)
    run = card.train(case, tmp_path / "model.safetensors", tmp_path, "cuda", 40)
    assert started == [[sys.executable, "-m", "trainer", str(run.path)]]
    config = run.config()
    made = (config.model.precision, config.model.gradient_checkpointing, config.dataset.batch_size)
    assert made == (case.precision, case.checkpointing, case.batch)


@pytest.mark.parametrize("side", step.SIDES)
def test_the_step_of_every_side_runs_on_the_first_model(side):
    make, dtype = step.SIDES[side]
    AcceleratorState._reset_state(reset_partial_state=True)  # another test's precision
    (seconds,) = make(dtype, "pocket", 64, 1, Unmeasured())
    assert math.isfinite(seconds)
    assert seconds > 0
