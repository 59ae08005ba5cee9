"""A learning strength far from the usual is told before the start, with settings that bring it back."""

from pathlib import Path

import pytest
from tiny import images

from app.desk.plan import cautions, found_in
from trainer.console.main import main
from trainer.contract.events import EventLog
from trainer.contract.presets import load_preset
from trainer.contract.settings.config import validated
from trainer.contract.wording import for_console
from trainer.engine import prepare
from trainer.planning.strength import USUAL, far_strengths, strength_problems
from trainer.runs.folder import RunFolder

PRESETS = sorted((Path(__file__).parents[3] / "presets").glob("*.toml"))


def config(family="sdxl", **sections):
    model = {"base_model": "pocket"} if family == "pocket" else {"base_model": "no/model", "family": family}
    return validated({"model": model, **sections})


@pytest.mark.parametrize(
    ("family", "rate", "alpha", "rank"),
    [
        ("sdxl", 0.1, 256, 2),
        ("sd15", 1e-3, 256, 8),
        ("sd2", 6e-3, 16, 16),
        ("sdxl", 1e-4, 0.01, 256),
        ("sd15", 1e-7, 8, 16),
        ("pocket", 0.1, 256, 16),
        ("pocket", 2e-5, 16, 16),
    ],
)
def test_beyond_ten_times_either_end_it_is_told_and_the_remedy_is_usual(family, rate, alpha, rank):
    made = config(family, adapter={"alpha": alpha, "rank": rank}, optimizer={"learning_rate": rate})
    (problem,) = strength_problems(made)
    low, high = USUAL[family]
    assert f"is {rate * alpha / rank:.2g}; usual" in problem.message
    assert f"{low:g} to {high:g}" in problem.message
    (far,) = far_strengths(made)
    values = made.model_dump()
    for place, value in far.remedy.items():
        section, name = place.split(".")
        values[section][name] = value
        assert f"--{place} {value:g}" in for_console(problem.hint)
    assert far_strengths(validated(values)) == []


@pytest.mark.parametrize("edge", [0, 1])
@pytest.mark.parametrize("family", USUAL)
def test_up_to_ten_times_it_is_let_be(family, edge):
    rate = USUAL[family][edge] * (0.1, 10)[edge]
    assert far_strengths(config(family, adapter={"alpha": 16, "rank": 16}, optimizer={"learning_rate": rate})) == []


def test_the_text_encoders_own_rate_counts_where_it_is_trained():
    rates = {"learning_rate": 2e-4, "text_learning_rate": 0.05}
    assert far_strengths(config(optimizer=rates)) == []
    (far,) = far_strengths(config(optimizer=rates, adapter={"text_encoder_2": True}))
    assert (far.what, list(far.remedy)) == ("text encoder", ["optimizer.text_learning_rate"])


def test_console_page_and_trainer_say_it_before_the_start(home, tmp_path, capsys):
    folder = str(images(tmp_path / "pictures", 2))
    wild = {"adapter": {"alpha": 128, "rank": 2}, "optimizer": {"learning_rate": 0.1}}
    flags = ["--adapter.alpha", "128", "--adapter.rank", "2", "--optimizer.learning_rate", "0.1", "--check"]
    assert main(["--preset", "pocket-style", "--home", str(home.root), "--images", folder, *flags]) == 0
    assert "alpha / rank) is 6.4; usual for pocket is" in " ".join(capsys.readouterr().out.split())
    made = config("pocket", dataset={"images": folder}, **wild)
    (said,) = cautions(home, made, found_in(made.dataset)[0], "en")
    assert said.startswith("Learning strength 6.4 is far from what is usual for pocket")
    run = RunFolder.create(home, made)
    with EventLog(run.events_file) as log:
        prepare._images(run, made, log)
    assert "strength_unusual" in {one.code for one in run.view().warnings}


@pytest.mark.parametrize("preset", [path.stem for path in PRESETS])
def test_no_shipped_preset_is_far_from_the_usual(preset):
    assert far_strengths(validated(load_preset(preset, PRESETS[0].parent).values)) == []
