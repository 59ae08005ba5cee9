"""Bytes and operations of a training step: they carry over to any machine, as seconds do not."""

import functools

import pytest
from benchmarks import counts


@functools.cache
def count(name, pixels):
    return counts.step(counts.plain() if name == "plain" else counts.ours(name), pixels)


def test_a_step_at_256_px_keeps_at_most_190_mib_in_2900_operations():
    made = count("none", 256)
    assert made.saved <= 190
    assert made.operations <= 2900


@pytest.mark.parametrize("level, share", [("none", 0.55), ("feed_forward", 0.42)])
def test_the_peak_at_512_px_is_about_half_of_a_plain_loop_s(level, share):
    assert count(level, 512).peak <= share * count("plain", 512).peak


def test_without_checkpointing_no_product_is_computed_twice():
    assert count("none", 512).tflop <= count("plain", 512).tflop
