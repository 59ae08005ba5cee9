"""What a training is expected to take, and what is given up for it to fit."""

import json
from pathlib import Path

import pytest
import torch
from benchmarks import memory
from benchmarks.counts import ours, step

from trainer.contract.errors import OutOfMemory
from trainer.contract.events import EventLog
from trainer.contract.settings.config import validated
from trainer.contract.wording import for_console
from trainer.engine.savings import Ladder
from trainer.planning import memory as contract
from trainer.planning.memory import (
    GIB,
    LEVELS,
    MemoryPlan,
    Savings,
    besides,
    choose,
    details,
    ladder,
    next_below,
    predict,
    price,
    sentence,
    smaller,
)

FAMILIES = ("sd15", "sd2", "sdxl")
BITS = ("none", "8bit", "4bit")
FACTS = json.loads(Path(contract.__file__).with_suffix(".json").read_text())


def settings(resolution=512, batch=1, accumulation=1, text=False, **model):
    return validated(
        {
            "model": model,
            "dataset": {"resolution": resolution, "batch_size": batch, "accumulation": accumulation},
            "adapter": {"text_encoder": text},
        }
    )


def peak(family, config, savings=None, device="cuda", **how):
    return sum(
        predict(family, config, savings or next(ladder(config, device)), device, **{"half": True, **how}).values()
    )


def test_the_ladder_gives_up_time_before_precision_and_keeps_the_images_per_update():
    rungs = list(ladder(settings(batch=6, accumulation=2), "cpu"))
    assert [rung.level for rung in rungs] == [*LEVELS, "full", "full", "full"] * 3
    assert [(rung.batch_size, rung.accumulation) for rung in rungs[3:7]] == [(6, 2), (3, 4), (2, 6), (1, 12)]
    assert [rung.quantize for rung in rungs[::7]] == ["none", "8bit", "4bit"]


def test_what_was_chosen_stays():
    rungs = list(ladder(settings(batch=2, gradient_checkpointing="blocks", quantize="8bit"), "cpu"))
    assert rungs == [Savings("blocks", 2, 1, "8bit"), Savings("blocks", 1, 2, "8bit")]


def test_a_card_s_last_resort_is_to_stream_the_blocks_of_as_few_bits_as_there_may_be():
    for model, bits in (({}, "4bit"), ({"quantize": "none"}, "none")):
        config = settings(batch=2, **model)
        plain, rungs = list(ladder(config, "cpu")), list(ladder(config, "cuda"))
        assert rungs[: len(plain)] == plain
        assert [(rung.level, rung.batch_size) for rung in rungs[len(plain) :]] == [
            *((x, 2) for x in LEVELS),
            ("full", 1),
        ]
        assert {(rung.quantize, rung.stream) for rung in rungs[len(plain) :]} == {(bits, True)}
        assert list(ladder(settings(batch=2, offload="off", **model), "cuda")) == plain == list(ladder(config, "mps"))
        assert next_below(config, "cuda", plain[-1]) == Savings("full", 1, 2, bits, stream=True)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_who_wishes_for_streaming_has_it_with_everything(device):
    assert all(rung.stream for rung in ladder(settings(offload="on"), device))
    assert [rung.quantize for rung in ladder(settings(offload="on", gradient_checkpointing="none"), device)] == [*BITS]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", BITS)
def test_streamed_blocks_lie_in_system_memory_but_for_two_of_them(family, bits):
    config = settings(1024)
    plain, streamed = (Savings("none", 1, 1, bits, on) for on in (False, True))
    there, here = (predict(family, config, one, "cuda", half=True) for one in (plain, streamed))
    system = besides(family, streamed, "cuda", half=True)
    assert there["base"] - system < here["base"] < there["base"] - system / 2
    assert here | {"base": 0} == there | {"base": 0}
    assert besides(family, plain, "cuda", half=True) == 0


@pytest.mark.parametrize("bits", BITS)
def test_where_system_memory_is_the_device_s_own_streaming_saves_nothing(bits):
    plain, streamed = (Savings("none", 1, 1, bits, on) for on in (False, True))
    config = settings(512, gradient_checkpointing="none", quantize=bits)
    assert besides("sdxl", streamed, "cpu", half=True) == 0
    if bits != "none":  # else convolutions are held twice, packed
        assert peak("sdxl", config, streamed, "cpu") > peak("sdxl", config, plain, "cpu")
    assert not choose("sdxl", config, GIB, "cpu", half=True).savings.stream


def test_a_card_too_small_for_the_base_in_4_bits_streams_it():
    config = settings(512)
    least = min(peak("sdxl", config, rung) for rung in ladder(settings(512, offload="off"), "cuda"))
    plan = choose("sdxl", config, least, "cuda", half=True)
    assert plan.fits
    assert (plan.savings.quantize, plan.savings.stream) == ("4bit", True)
    assert plan.peak < least
    assert plan.besides == besides("sdxl", plan.savings, "cuda", half=True) > GIB


def test_a_step_down_gives_nothing_back():
    config = settings(batch=2)
    seen = [next(ladder(config, "cpu"))]
    while following := next_below(config, "cpu", seen[-1]):
        seen.append(following)
    assert seen == [
        *(Savings(level, 2, 1) for level in LEVELS),
        Savings("full", 1, 2),
        Savings("full", 1, 2, "8bit"),
        Savings("full", 1, 2, "4bit"),
    ]
    assert next_below(config, "cpu", Savings("none", 2, 1, "8bit")) == Savings("feed_forward", 2, 1, "8bit")


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
        rung = next(ladder(config, device))
        while below := next_below(config, device, rung):
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
    for place, rung in enumerate(ladder(config, "cuda")):
        just_enough = int(peak("sdxl", config, rung) / 0.93)
        plan = choose("sdxl", config, just_enough, "cuda", half=True)
        assert plan.fits
        assert list(ladder(config, "cuda")).index(plan.savings) <= place


def test_what_cannot_fit_is_tried_with_the_least():
    plan = choose("sdxl", settings(1024, batch=2), GIB, "cuda", half=True)
    assert plan.savings == Savings("full", 1, 2, "4bit", stream=True)
    assert not plan.fits


def test_nobody_knows_what_there_is_and_nothing_is_given_up():
    plan = choose("sd15", settings(), None, "cuda", half=True)
    assert plan.savings.level == "none"
    assert plan.fits


def test_the_sentence_says_what_is_given_up_for_what():
    plan = MemoryPlan(Savings("blocks", 2, 4), {"base": 3 * GIB, "activations": 2 * GIB}, 6 * GIB)
    assert sentence(plan) == (
        "To fit into 6.0 GiB: gradient checkpointing (transformer blocks), "
        "batch 2 with gradient accumulation; about 5.0 GiB"
    )


def test_fewer_bits_are_said_and_priced():
    plan = MemoryPlan(Savings("full", 1, 4, "4bit"), {"base": 2 * GIB}, 3 * GIB)
    assert sentence(plan) == (
        "To fit into 3.0 GiB: gradient checkpointing (nearly everything), "
        "batch 1 with gradient accumulation, base model quantized to 4-bit; "
        "about 2.0 GiB"
    )
    assert price(plan.savings) == "It takes longer, and trains against a slightly less precise base model."
    assert price(Savings("full", 1, 4)) == "The result is the same; it takes longer."


def test_streaming_is_said_with_what_it_takes_besides():
    savings = Savings("full", 1, 4, "4bit", stream=True)
    plan = MemoryPlan(savings, {"base": 2 * GIB}, 3 * GIB, besides=round(1.4 * GIB))
    assert sentence(plan) == (
        "To fit into 3.0 GiB: gradient checkpointing (nearly everything), "
        "batch 1 with gradient accumulation, base model quantized to 4-bit, "
        "blocks offloaded to system RAM; about 2.0 GiB, and 1.4 GiB of system RAM"
    )
    assert "about 2.0 of 3.0 GiB (base 2.0), and 1.4 GiB of system RAM; gradient" in details(plan)


def test_the_details_name_the_parts_and_what_is_too_little():
    plan = MemoryPlan(Savings("none", 1, 1), {"base": 3 * GIB, "activations": 2 * GIB}, 6 * GIB)
    assert details(plan) == ("about 5.0 of 6.0 GiB (base 3.0, activations 2.0); no gradient checkpointing, batch 1")
    assert "smaller --dataset.resolution" in details(MemoryPlan(plan.savings, plan.parts, 5 * GIB))


def test_what_does_not_fit_names_the_largest_smaller_size_that_does():
    config = settings(1024, batch=2)
    least = peak("sd15", config, list(ladder(config, "cuda"))[-1], tiled=True)
    plan = choose("sd15", config, int(least * 0.8), "cuda", half=True)
    assert not plan.fits
    assert plan.smaller is not None
    assert plan.smaller % 64 == 0
    assert choose("sd15", settings(plan.smaller, batch=2), plan.budget, "cuda", half=True).fits
    assert not choose("sd15", settings(plan.smaller + 64, batch=2), plan.budget, "cuda", half=True).fits
    assert f"--dataset.resolution {plan.smaller}," in details(plan)


def test_no_size_below_half_is_named():
    plan = choose("sdxl", settings(1024), GIB // 4, "cuda", half=True)
    assert plan.smaller is None
    assert "a smaller --dataset.resolution" in details(plan)
    assert smaller("sd15", settings(512), 24 * GIB, "cuda", half=True) == 448


def test_processes_share_the_images_of_a_step():
    def each(batch, accumulation, processes):
        config = settings(batch=batch, accumulation=accumulation)
        return predict("sd15", config, Savings("none", batch, accumulation), "cuda", half=True, processes=processes)

    assert each(4, 1, 1) == each(4, 2, 2)
    assert each(4, 1, 4) == each(1, 1, 1)
    assert each(4, 1, 3) == each(2, 1, 1)
    assert each(4, 2, 8) == each(1, 1, 1)
    assert each(4, 4, 2) == each(4, 2, 1)  # gradients stay between the passes


def test_the_plan_says_what_each_of_several_processes_takes():
    plan = choose("sd15", settings(batch=4), 8 * GIB, "cuda", half=True, processes=4)
    assert "in each of 4 processes" in details(plan)
    assert "batch 1" in details(plan)


@pytest.mark.parametrize("family", FAMILIES)
def test_previews_are_decoded_in_tiles_before_anything_is_given_up(family):
    config = settings(2048, gradient_checkpointing="full", quantize="4bit")
    savings = next(ladder(config, "cuda"))
    whole, tiled = (predict(family, config, savings, "cuda", half=True, tiled=tiles) for tiles in (False, True))
    assert sum(tiled.values()) < sum(whole.values())
    plan = choose(family, config, int(sum(tiled.values()) / 0.93), "cuda", half=True)
    assert plan.fits
    assert plan.tiled
    assert "tiles" in details(plan)
    assert not choose(family, config, 64 * GIB, "cuda", half=True).tiled


def test_drawing_keeps_to_the_plan():
    """The VAE whole and in tiles, and the UNet with LoRA on it as it draws for guidance."""
    counted = memory.vae("sd15", sizes=(768,)) | memory.denoising("sd15", sizes=(512,))
    for name, megapixels in (("decoding", 0.5625), ("tiled", 0.5625), ("denoising", 0.25)):
        start, more = FACTS["sd15"][name]
        assert counted[name][0] == pytest.approx(start + more * megapixels, rel=0.02)


@pytest.mark.parametrize(("device", "rung", "little"), [("cpu", 0, 0), ("cpu", 1, 1), ("cuda", 1, 0)])
def test_the_heap_keeps_little_where_a_run_on_a_cpu_was_made_to_fit(device, rung, little, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("trainer.engine.savings.keep_little", lambda: asked.append(1))
    run = Ladder(settings())
    run.device, run.savings = device, list(ladder(run.config, device))[rung]
    with EventLog(tmp_path / "events.jsonl") as log:
        run.fit(None, torch.device(device), torch.bfloat16, GIB, log)
    assert len(asked) == little


def test_the_last_error_names_a_size_that_takes_less_than_what_was_tried_last(tmp_path):
    config = settings(1024, batch=2)
    run = Ladder(config)
    with EventLog(tmp_path / "events.jsonl") as log:
        run.savings = run._chosen("sdxl", torch.device("cpu"), torch.bfloat16, 64 * GIB, log)
        assert (run.savings.level, run.tiled) == ("none", False)
        with pytest.raises(OutOfMemory) as told:
            while True:
                run.step_down("CUDA out of memory", log)
    assert run.tiled
    took = sum(predict("sdxl", config, list(ladder(config, "cpu"))[-1], "cpu", half=True, tiled=True).values())
    named = smaller("sdxl", config, took, "cpu", half=True)
    assert named is not None
    assert f"--dataset.resolution {named}," in for_console(told.value.hint)
