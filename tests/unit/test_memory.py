"""What a training is expected to take, and what is given up for it to fit."""

import json

import pytest
from benchmarks import memory
from benchmarks.counts import ours, step

from trainer.contract.memory import (
    GIB,
    LEVELS,
    MemoryPlan,
    Savings,
    choose,
    details,
    ladder,
    next_below,
    predict,
    price,
    sentence,
)
from trainer.contract.settings import validated

FAMILIES = ("sd15", "sd2", "sdxl")


def settings(resolution=512, batch=1, accumulation=1, text=False, **model):
    return validated(
        {
            "model": model,
            "dataset": {"resolution": resolution, "batch_size": batch, "accumulation": accumulation},
            "adapter": {"text_encoder": text},
        }
    )


def peak(family, config, savings=None, device="cuda", half=True):
    return sum(predict(family, config, savings or next(ladder(config)), device, half=half).values())


def test_the_ladder_gives_up_time_before_precision_and_keeps_the_pictures_per_update():
    rungs = list(ladder(settings(batch=6, accumulation=2)))
    assert [rung.level for rung in rungs] == [*LEVELS, "full", "full", "full"] * 3
    assert [(rung.batch_size, rung.accumulation) for rung in rungs[3:7]] == [(6, 2), (3, 4), (2, 6), (1, 12)]
    assert [rung.quantize for rung in rungs[::7]] == ["none", "8bit", "4bit"]


def test_what_was_chosen_stays():
    rungs = list(ladder(settings(batch=2, checkpointing="blocks", quantize="8bit")))
    assert rungs == [Savings("blocks", 2, 1, "8bit"), Savings("blocks", 1, 2, "8bit")]


def test_a_step_down_gives_nothing_back():
    config = settings(batch=2)
    seen = [next(ladder(config))]
    while following := next_below(config, seen[-1]):
        seen.append(following)
    assert seen == [
        *(Savings(level, 2, 1) for level in LEVELS),
        Savings("full", 1, 2),
        Savings("full", 1, 2, "8bit"),
        Savings("full", 1, 2, "4bit"),
    ]
    assert next_below(config, Savings("none", 2, 1, "8bit")) == Savings("feed_forward", 2, 1, "8bit")


@pytest.mark.parametrize("place", range(9))
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_takes_what_was_counted_within_15_percent(family, level, place):
    """At 512, 768 and 1024 px with batches of 1, 2 and 4."""
    counts = json.loads(memory.COUNTS.read_text())
    assert memory.predicted(family, level, place) == pytest.approx(counts[family]["half"][level][place], rel=0.15)


@pytest.mark.parametrize("level", LEVELS)
def test_the_counts_are_those_of_today_s_step(level):
    """Three of them; all are counted anew by tests/benchmarks/memory.py."""
    counts = json.loads(memory.COUNTS.read_text())["sd15"]["half"][level]
    assert step(ours(level), 512).peak == pytest.approx(counts[0], rel=0.01)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("device", ["cuda", "cpu", "mps"])
def test_every_step_down_takes_less_and_more_pixels_take_more(family, device):
    for resolution in (512, 768, 1024):
        config = settings(resolution, batch=4)
        rung = next(ladder(config))
        while below := next_below(config, rung):
            assert peak(family, config, below, device) <= peak(family, config, rung, device)
            rung = below
    takes = [peak(family, settings(resolution), device=device) for resolution in (512, 768, 1024)]
    assert takes == sorted(set(takes))


@pytest.mark.parametrize("family", FAMILIES)
def test_full_precision_and_a_trained_text_encoder_take_more(family):
    assert peak(family, settings(), half=False) > 1.9 * (peak(family, settings()) - 0.7 * GIB)
    assert peak(family, settings(text=True)) > peak(family, settings())


def test_the_fastest_savings_that_fit_are_chosen():
    config = settings(1024, batch=2)
    for place, rung in enumerate(ladder(config)):
        just_enough = int(peak("sdxl", config, rung) / 0.93)
        plan = choose("sdxl", config, just_enough, "cuda", half=True)
        assert plan.fits
        assert list(ladder(config)).index(plan.savings) <= place


def test_what_cannot_fit_is_tried_with_the_least():
    plan = choose("sdxl", settings(1024, batch=2), GIB, "cuda", half=True)
    assert plan.savings == Savings("full", 1, 2, "4bit")
    assert not plan.fits


def test_nobody_knows_what_there_is_and_nothing_is_given_up():
    plan = choose("sd15", settings(), None, "cuda", half=True)
    assert plan.savings.level == "none"
    assert plan.fits


def test_the_sentence_says_what_is_given_up_for_what():
    plan = MemoryPlan(Savings("blocks", 2, 4), {"base": 3 * GIB, "activations": 2 * GIB}, 6 * GIB)
    assert sentence(plan) == (
        "To fit into 6.0 GiB, transformer blocks are computed twice, in batches of 2: about 5.0 GiB"
    )


def test_fewer_bits_are_said_and_priced():
    plan = MemoryPlan(Savings("full", 1, 4, "4bit"), {"base": 2 * GIB}, 3 * GIB)
    assert sentence(plan) == (
        "To fit into 3.0 GiB, nearly everything is computed twice, in batches of 1, the base held in 4 bits: "
        "about 2.0 GiB"
    )
    assert price(plan.savings) == "It takes longer, and learns against a base that is a little coarser."
    assert price(Savings("full", 1, 4)) == "It learns the same, and takes longer."


def test_the_details_name_the_parts_and_what_is_too_little():
    plan = MemoryPlan(Savings("none", 1, 1), {"base": 3 * GIB, "activations": 2 * GIB}, 6 * GIB)
    assert details(plan) == (
        "about 5.0 of 6.0 GiB (base 3.0, activations 2.0); nothing is computed twice, in batches of 1"
    )
    assert "smaller --dataset.resolution" in details(MemoryPlan(plan.savings, plan.parts, 5 * GIB))
