"""A jump in step time is noticed; noise is not."""

from trainer.pace import Pace


def told(seconds):
    pace = Pace()
    return [found for found in map(pace.jumped, seconds) if found]


def test_steps_that_take_much_longer_from_here_on_are_told_once():
    assert told([1.0] * 40 + [4.0] * 40) == [(1.0, 4.0)]


def test_a_few_slow_steps_are_noise():
    assert not told(([1.0] * 20 + [9.0, 9.0]) * 20)


def test_sizes_in_turns_are_no_jump():
    assert not told([1.0, 2.0] * 50)


def test_the_first_steps_warm_up():
    assert not told([9.0] * 3 + [1.0] * 60)
