import headers
import originals
import pytest

from trainer.contract import estimate as estimates
from trainer.contract.estimate import estimate, foreseen
from trainer.contract.events import EventLog, Lora, Step
from trainer.contract.home import Home
from trainer.contract.machine import Machine
from trainer.contract.runs import RunFolder
from trainer.contract.settings import validated


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
        {"model": {"checkpointing": "full"}},
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
