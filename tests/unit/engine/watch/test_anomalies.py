"""Steps unlike those before them are noticed; noise is not."""

import random

import pytest

from trainer.engine.errors import NothingLearned
from trainer.engine.watch import anomalies
from trainer.engine.watch.anomalies import Band, Clock, Pace, Standstill, Yardstick


def told(seconds):
    anomalies = Pace()
    return [found for found in map(anomalies.jumped, seconds) if found]


def test_steps_that_take_much_longer_from_here_on_are_told_once():
    assert told([1.0] * 40 + [4.0] * 40) == [(1.0, 4.0)]


def test_a_few_slow_steps_are_noise():
    assert not told(([1.0] * 20 + [9.0, 9.0]) * 20)


def test_sizes_in_turns_are_no_jump():
    assert not told([1.0, 2.0] * 50)


def test_the_first_steps_warm_up():
    assert not told([9.0] * 3 + [1.0] * 60)


def losses(seed, level=1.0):
    """Those of batches of one: mostly small, some a hundred times as large."""
    rng = random.Random(seed)
    return [level * 10 ** rng.uniform(-2.5, -0.5) for _ in range(500)]


def left(values):
    band = Band()
    return [found for found in map(band.left, values) if found]


@pytest.mark.parametrize("seed", range(50))
def test_losses_as_they_scatter_stay_in_their_band(seed):
    assert not left(losses(seed))


@pytest.mark.parametrize("seed", range(10))
def test_losses_that_rise_far_are_told_once(seed):
    ((edge, now),) = left(losses(seed) + losses(seed + 100, level=30.0))
    assert now > edge


def clock(monkeypatch, wall=0.0, worked=0.0):
    """The system's clocks, set by hand."""
    now = {"wall": wall, "worked": worked}
    monkeypatch.setattr(anomalies.time, "time", lambda: now["wall"])
    monkeypatch.setattr(anomalies.time, "monotonic", lambda: now["worked"])
    return now, Clock()


def test_a_sleep_is_what_the_wall_clock_saw_and_the_process_did_not(monkeypatch):
    now, seen = clock(monkeypatch)
    now.update(wall=2.0, worked=2.0)
    assert seen.slept(2.0, 2.0) == 0
    now.update(wall=3604.0, worked=4.0)
    assert seen.slept(2.0, 2.0) == 3600
    now.update(wall=3606.0, worked=6.0)
    assert seen.slept(2.0, 2.0) == 0, "told once"


def test_a_clock_set_back_and_a_process_stopped_are_told(monkeypatch):
    now, seen = clock(monkeypatch)
    now.update(wall=-7200.0, worked=0.0)
    assert seen.slept(2.0, 2.0) == -7200
    now.update(wall=-6598.0, worked=602.0)
    assert seen.slept(602.0, 2.0) == 600


def test_slow_steps_are_no_sleep(monkeypatch):
    now, seen = clock(monkeypatch)
    now.update(wall=90.0, worked=90.0)
    assert seen.slept(90.0, 40.0) == 0
    assert seen.slept(30.0, 1.0) == 0


def divergence(trained, base):
    """The step at which divergence is told, and how often the base was asked."""
    yardstick, asked = Yardstick(), 0
    for step, (loss, own) in enumerate(zip(trained, base, strict=True)):
        if yardstick.asks(loss):
            asked += 1
            if yardstick.diverged(loss, own):
                return step, asked
    return None, asked


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("since", [3, 60, 400])
def test_losses_far_above_the_bases_own_are_told_within_20_steps(seed, since):
    base = losses(seed)
    step, _ = divergence([*base[:since], *(loss + 1.0 for loss in base[since:])], base)
    assert since <= step <= since + 20


@pytest.mark.parametrize("seed", range(20))
def test_losses_that_stay_with_the_bases_or_fall_below_are_never_told_and_seldom_asked_for(seed):
    base, rng = losses(seed), random.Random(seed)
    falling = [loss * rng.uniform(0.7, 1.2) * (1 - step / 1000) for step, loss in enumerate(base)]
    told_at, asked = divergence(falling, base)
    assert told_at is None
    assert asked < 0.2 * len(base)


@pytest.mark.parametrize("own", [0.0, float("nan"), 1e-12])
def test_a_base_that_has_no_loss_of_its_own_is_no_yardstick(own):
    assert divergence([0.2] * 100, [own] * 100)[0] is None


@pytest.mark.parametrize("steps", [1, 7, 20, 300])
def test_a_run_that_learns_nothing_is_found_after_20_steps_or_at_its_end(steps):
    standstill = Standstill()
    with pytest.raises(NothingLearned, match=f"first {min(steps, 20)} steps"):
        for step in range(1, steps + 1):
            standstill.look(0.0, 0.0, last=step == steps)


@pytest.mark.parametrize("odd", [(1e-9, 0.0), (0.0, 1e-9)])
def test_one_step_that_learned_something_is_enough(odd):
    standstill = Standstill()
    for step in range(1, 101):
        standstill.look(*(odd if step == 20 else (0.0, 0.0)), last=step == 100)
