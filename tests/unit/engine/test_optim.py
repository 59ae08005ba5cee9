import math

import pytest

from trainer.contract.settings.learning import OptimizerSettings
from trainer.engine.optim import learning_rate_factor


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_the_rate_rises_over_the_warmup_and_starts_above_zero(schedule):
    settings = OptimizerSettings(lr_scheduler=schedule, warmup=0.1)
    factors = [learning_rate_factor(step, 100, settings) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == pytest.approx(1.0)


def test_the_shapes_are_their_closed_forms():
    for step in range(0, 80, 7):
        left = 1 - step / 80
        assert learning_rate_factor(step, 80, OptimizerSettings(lr_scheduler="linear", warmup=0)) == pytest.approx(left)
        assert learning_rate_factor(step, 80, OptimizerSettings(lr_scheduler="cosine", warmup=0)) == pytest.approx(
            (1 + math.cos(math.pi * step / 80)) / 2
        )
        assert learning_rate_factor(step, 80, OptimizerSettings(lr_scheduler="constant", warmup=0)) == 1


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_shortest_runs_have_a_rate_in_every_step(steps):
    for schedule in ("constant", "linear", "cosine"):
        settings = OptimizerSettings(lr_scheduler=schedule, warmup=0.5)
        assert all(0 < learning_rate_factor(step, steps, settings) <= 1 for step in range(steps))
