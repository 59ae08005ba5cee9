import headers
import originals
import pytest

from trainer.contract.events import EventLog, Lora, Sample, Step
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.dataset.views import Plan
from trainer.planning import estimate as estimates
from trainer.planning.estimate import estimate, foreseen
from trainer.planning.machine import Machine
from trainer.planning.preview_schedule import DEFAULT_PREVIEWS, due, words
from trainer.runs.folder import RunFolder


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def trained(home, seconds=(2.0, 3.0, 40.0), memory=(1.0, 5.0, 2.0), file_bytes=8_000_000, **values):
    """An earlier run with these steps."""
    run = RunFolder.create(home, validated(values))
    with EventLog(run.events_file) as log:
        for number, (each, gib) in enumerate(zip(seconds, memory, strict=True), 1):
            log.write(Step(step=number, epoch=0.0, loss=0.1, lr=1e-4, grad_norm=1.0, seconds=each, memory_gib=gib))
        if file_bytes:
            log.write(Lora(step=number, file="a.safetensors", bytes=file_bytes, sha256="0"))
    return run


def test_without_earlier_runs_nothing_is_known(home):
    made = estimate(home, validated({}))
    assert (made.seconds_per_step, made.memory_gib, made.bytes_per_file) == (None, None, None)


def test_an_alike_run_tells_the_median_second_the_peak_memory_and_the_files_size(home):
    trained(home, dataset={"views": 7}, optimizer={"learning_rate": 1e-3})
    made = estimate(home, validated({}))
    assert (made.seconds_per_step, made.memory_gib, made.bytes_per_file) == (3.0, 5.0, 8_000_000)


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": {"resolution": 768}},
        {"dataset": {"batch_size": 4}},
        {"model": {"gradient_checkpointing": "full"}},
        {"model": {"base_model": "/models/other"}},
        {"model": {"processes": 2}},
    ],
)
def test_a_run_of_another_kind_tells_nothing_about_time(home, other):
    trained(home, **other)
    made = estimate(home, validated({}))
    assert (made.seconds_per_step, made.memory_gib) == (None, None)


def test_a_files_size_goes_with_the_rank(home):
    trained(home, adapter={"rank": 8})
    made = estimate(home, validated({"adapter": {"rank": 32}}))
    assert (made.seconds_per_step, made.bytes_per_file) == (None, 32_000_000)


def test_the_newest_alike_run_counts_and_broken_ones_hinder_nobody(home):
    trained(home)
    RunFolder.create(home, validated({})).config_file.write_text("[adapter]\nrank = 9999\n")
    RunFolder.create(home, validated({}))
    newest = trained(home, seconds=(9.0,), memory=(1.0,), file_bytes=0)
    newest.config_file.touch()
    made = estimate(home, validated({}))
    assert (made.seconds_per_step, made.bytes_per_file) == (9.0, 8_000_000)


def test_only_the_end_of_a_long_log_is_read(home):
    trained(home, seconds=(1.0,) * 2000 + (5.0,) * 500, memory=(1.0,) * 2500)
    assert estimate(home, validated({})).seconds_per_step == 5.0


def previews(home, steps=100, processes=1, **values):
    config = validated(values)
    made = Plan(20, steps * 2, 2)
    return estimate(home, config).preview_plan(config, made, ["a", "b", "a"], processes)


def test_previews_are_counted_with_those_before_and_after_and_the_strip(home):
    assert previews(home).images == 6 * 2 + 6  # steps 0, 20, 40, 60, 80 and 100
    assert previews(home, preview={"every": 50, "prompts": ["x"]}).images == 3 + 6
    assert previews(home, preview={"every": 1000}).images == 2 * 2 + 6
    assert previews(home, steps=1).images == 2 * 2 + 6


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100, 101])
@pytest.mark.parametrize("every", [0, 1, 7, 50])
def test_as_many_are_foreseen_as_the_loop_draws(home, steps, every):
    drawn = [0, *(step for step in range(1, steps) if due(step, steps, every, DEFAULT_PREVIEWS)), steps]
    assert previews(home, steps=steps, preview={"every": every}).images == len(drawn) * 2 + 6


def test_before_the_first_run_their_share_is_that_of_the_passes(home):
    made = previews(home)  # 18 images of 25 steps, twice for guidance; 200 views of three passes each
    assert made.share == pytest.approx(900 / (900 + 600))
    assert made.many
    assert "60 % of the time: raise --preview.every" in words(made)
    assert previews(home, preview={"guidance_scale": 1.0}).share == pytest.approx(450 / (450 + 600))
    assert previews(home, preview={"width": 256, "height": 256}).share == pytest.approx(225 / (225 + 600))
    assert previews(home, processes=2).share == pytest.approx(900 / (900 + 300))
    few = previews(home, steps=2000)
    assert not few.many
    assert words(few) == "18 images, about 7 % of the time"


def test_an_alike_run_tells_how_long_a_preview_takes(home, monkeypatch):
    run, clock = RunFolder.create(home, validated({"preview": {"steps": 10}})), iter(range(0, 1000, 4))
    monkeypatch.setattr("trainer.contract.events.time.time", lambda: next(clock))  # four seconds between all events
    with EventLog(run.events_file) as log:
        for step in (0, 1, 2):
            if step:
                log.write(Step(step=step, epoch=0.0, loss=0.1, lr=1e-4, grad_norm=1.0, seconds=2.0, memory_gib=1.0))
            for index in range(3):
                log.write(Sample(step=step, index=index, prompt="a", seed=1, file="a.png"))
    assert estimate(home, validated({"preview": {"steps": 10}})).seconds_per_preview == 4.0
    assert estimate(home, validated({"preview": {"steps": 20}})).seconds_per_preview == 8.0
    assert previews(home, preview={"steps": 10}).share == pytest.approx(18 * 4 / (18 * 4 + 100 * 2))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    """A full-size SDXL checkpoint: its header, and holes."""
    tensors = originals.original("sdxl", originals.bare_parts("sdxl", tiny=False))
    path = tmp_path_factory.mktemp("models") / "xl.safetensors"
    return headers.write(path, {name: tuple(tensor.shape) for name, tensor in tensors.items()})


def foreseen_on(monkeypatch, gib, base_model, **settings):
    free = round(gib * 2**30)
    monkeypatch.setattr(estimates, "machine_for", lambda _settings: Machine("cuda", free, half=True))
    model = {"base_model": str(base_model), **settings}
    return foreseen(validated({"model": model, "dataset": {"resolution": 1024}, "adapter": {"text_encoder": False}}))


def test_a_published_model_is_foreseen_by_what_is_free_on_the_machine(monkeypatch, sdxl):
    roomy, small = foreseen_on(monkeypatch, 24, sdxl), foreseen_on(monkeypatch, 6, sdxl)
    assert roomy.fits
    assert (roomy.savings.level, roomy.savings.quantize) == ("none", "none")
    assert small.fits
    assert small.savings != roomy.savings


def test_a_smaller_card_than_there_is_can_be_wished_for(monkeypatch, sdxl):
    assert foreseen_on(monkeypatch, 24, sdxl, memory_limit=6.0) == foreseen_on(monkeypatch, 6, sdxl)


def test_a_model_of_another_build_is_not_foreseen(monkeypatch, tmp_path):
    assert foreseen_on(monkeypatch, 24, "pocket") is None
    assert foreseen_on(monkeypatch, 24, tmp_path / "none.safetensors") is None
    page = tmp_path / "page.safetensors"
    page.write_text("<html></html>")
    assert foreseen_on(monkeypatch, 24, page) is None
