import json
import os
import time

import gradio as gr
import pytest
from PIL import Image

from app.compare import Compare, compare_data
from app.monitor import Watches
from app.pages.panel import PATIENCE_SECONDS, Panel, chart_labels
from trainer.contract.events import (
    EventLog,
    Lora,
    Phase,
    RunFailed,
    RunFinished,
    RunStarted,
    Sample,
    Step,
    Warned,
)
from trainer.contract.home import Home
from trainer.contract.queue import Queue
from trainer.contract.runs import RunFolder
from trainer.contract.settings import validated
from trainer.contract.sheets import strip_name

ENGLISH = gr.Request(headers={"accept-language": "en"})
GERMAN = gr.Request(headers={"accept-language": "de"})


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "Häuser & <b>")


@pytest.fixture
def panel(home, in_blocks):
    return in_blocks(lambda: Panel(home, Watches()))


def started(total=10):
    return RunStarted(
        family="sd15", base_model="pocket", steps_total=total, resumed_at=0, device="cpu bf16", memory_gib=0.5,
        versions={},
    )  # fmt: skip


def step(number):
    return Step(step=number, epoch=0.0, loss=0.1, lr=1e-4, grad_norm=1.0, seconds=1.0, memory_gib=1.0)


def sample(run, at, index=0, prompt="a <b>cat</b>"):
    name = f"samples/{at:06}-{index}.png"
    (run.path / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(run.path / name)
    return Sample(step=at, index=index, prompt=prompt, seed=1, file=name)


def lora(run, number, content=b"x" * 10):
    name = f"ana-{number:06}.safetensors"
    (run.path / name).write_bytes(content)
    return Lora(step=number, file=name, bytes=len(content), sha256="ab" * 32)


def new(home, *events, name="ana"):
    run = RunFolder.create(home, validated({"output": {"name": name}, "dataset": {"trigger_word": "<i>ana"}}))
    write(run, *events)
    return run


def write(run, *events):
    with EventLog(run.events_file) as log:
        for event in events:
            log.write(event)


def alive(run):
    """Let this very process be the run's trainer."""
    run.claim()
    return run


def show(panel, run, file=None, seen=None, request=ENGLISH):
    """What a tick answers, by the part's name."""
    answer = panel.show(run.path.name if run else "", file, seen or {}, request)
    if not isinstance(answer, dict) or panel.seen not in answer:
        return None
    names = {id(part): name for holder in (panel, panel.result, panel.waiting) for name, part in vars(holder).items()}
    names |= {id(part): what for what, part in panel.asks.items()}
    return {names[id(part)]: value for part, value in answer.items()}


def visible(update):
    return update["visible"]


def test_without_a_run_it_says_what_to_do(panel):
    shown = show(panel, None)
    assert "once you press Train" in shown["headline"]
    assert not visible(shown["chart"])
    assert not visible(shown["section"])


def test_a_running_run_shows_step_speed_clock_and_its_buttons(panel, home):
    run = alive(new(home, started(), Phase(name="train", done=0, total=10), step(1), step(2)))
    shown = show(panel, run)
    assert "step 2 of 10" in shown["headline"]
    assert "s per step" in shown["headline"]
    assert "done at" in shown["headline"]
    assert 'role="status"' in shown["headline"]
    assert "cpu bf16" in shown["headline"]
    assert all(visible(shown[what]) for what in ("stop", "pause", "save", "sample", "chart"))
    assert not visible(shown["resume"])
    assert not visible(shown["force"])


def test_it_speaks_the_browsers_language(panel, home):
    shown = show(panel, alive(new(home, started(), step(1))), request=GERMAN)
    assert "Schritt 1 von 10" in shown["headline"]
    assert json.loads(panel.chart.postprocess(shown["chart"]["value"]))["words"]["loss"] == "Verlust"
    assert chart_labels("ja").loss == "損失"


def test_a_tick_without_news_changes_nothing(panel, home):
    run = alive(new(home, started(), step(1)))
    seen = show(panel, run)["seen"]
    assert show(panel, run, seen=seen) is None


def test_a_tick_with_a_step_leaves_the_pictures_alone(panel, home):
    run = alive(new(home, started(), step(1)))
    write(run, sample(run, 0))
    seen = show(panel, run)["seen"]
    write(run, step(2))
    shown = show(panel, run, seen=seen)
    assert {"headline", "chart"} <= shown.keys()
    assert not {"board", "compare", "notices", "stop", "section"} & shown.keys()


def test_previews_stand_by_prompt_and_step_and_are_escaped(panel, home):
    run = alive(new(home, started()))
    write(run, sample(run, 0), sample(run, 5), sample(run, 0, 1, "dog"))
    board = show(panel, run)["board"]
    assert board.count("<img") == 3
    assert board.index("step 0") < board.index("step 5")
    assert "<b>cat" not in board
    assert "&lt;b&gt;cat" in board


def test_two_steps_of_a_prompt_can_be_compared(panel, home):
    run = alive(new(home, started()))
    write(run, sample(run, 0), sample(run, 0, 1, "dog"))
    assert not visible(show(panel, run)["compare"])
    write(run, sample(run, 5))
    shown = show(panel, run)["compare"]
    assert visible(shown)
    [row] = shown["value"]["rows"]
    assert [at for at, _ in row["pictures"]] == [0, 5]
    assert json.loads(Compare(render=False).postprocess(None))["rows"] == []
    watch = panel.watches(run)
    assert compare_data(watch, "de")["words"]["left"] == "links"


def test_warnings_and_the_failure_are_cards_with_what_to_do(panel, home):
    run = new(
        home,
        started(),
        Warned(code="a", message="small <b>", hint="look"),
        RunFailed(code="x", message="The disk is full.", hint="Make room.", phase="train"),
    )
    shown = show(panel, run)
    assert "The disk is full." in shown["notices"]
    assert "Make room." in shown["notices"]
    assert 'role="alert"' in shown["notices"]
    assert "small <b>" not in shown["notices"]
    assert visible(shown["resume"])


def test_an_interrupted_run_can_be_continued(panel, home):
    shown = show(panel, new(home, started(), step(3)))
    assert "Interrupted" in shown["headline"]
    assert visible(shown["resume"])
    assert not visible(shown["stop"])


def test_a_run_that_waits_has_no_continue_and_stands_in_the_queue(panel, home):
    first, second = new(home, started(), name="one"), new(home, name="two")
    alive(first)
    with Queue(home)._changing() as runs:
        runs.append(second)
    shown = show(panel, second)
    assert not visible(shown["resume"])
    assert [name for _, name in shown["list"]["choices"]] == [second.path.name]


def test_stop_asked_for_is_said_and_force_comes_only_after_a_while(panel, home):
    run = alive(new(home, started(), step(1)))
    seen = show(panel, run)["seen"]
    run.request("stop")
    shown = show(panel, run, seen=seen)
    assert "stopping after this step" in shown["headline"]
    long_ago = time.time() - PATIENCE_SECONDS - 1
    os.utime(run.control / "stop", (long_ago, long_ago))
    assert visible(show(panel, run, seen=shown["seen"])["force"])


def test_the_result_shows_the_newest_file_and_the_chosen_one(panel, home):
    run = new(home, started(), step(10))
    write(run, lora(run, 5), lora(run, 10), RunFinished(reason="completed", step=10, seconds=9.0))
    shown = show(panel, run)
    assert visible(shown["section"])
    assert shown["file"]["value"] == "ana-000010.safetensors"
    assert [file for _, file in shown["file"]["choices"]] == ["ana-000010.safetensors", "ana-000005.safetensors"]
    assert "&lt;i&gt;ana" in shown["facts"]
    assert "ab" * 8 in shown["facts"]
    earlier = show(panel, run, "ana-000005.safetensors", shown["seen"])
    assert "ana-000005.safetensors" in earlier["facts"]
    assert "section" not in earlier


def test_while_it_trains_there_is_no_result_yet(panel, home):
    run = alive(new(home, started(), step(5)))
    write(run, lora(run, 5))
    assert not visible(show(panel, run)["section"])


def test_a_strength_strip_appears_once_it_is_there(panel, home):
    run = new(home, started(), step(10))
    write(run, lora(run, 10), RunFinished(reason="completed", step=10, seconds=9.0))
    shown = show(panel, run)
    assert shown["strip"] == ""
    assert visible(shown["draw"])
    Image.new("RGB", (8, 8)).save(run.path / strip_name("ana-000010.safetensors"))
    later = show(panel, run, "ana-000010.safetensors", shown["seen"])
    assert "<img" in later["strip"]
    assert not visible(later["draw"])


class Drawing:
    """A process that draws, or has ended."""

    def __init__(self, code):
        self.code = code

    def poll(self):
        return self.code


@pytest.mark.parametrize("code, can_draw", [(None, False), (2, True)])
def test_a_strip_that_is_being_drawn_or_failed_never_sticks(panel, home, code, can_draw):
    run = new(home, started(), step(10))
    write(run, lora(run, 10), RunFinished(reason="completed", step=10, seconds=9.0))
    panel.result._drawn[run.path, "ana-000010.safetensors"] = Drawing(code)
    shown = show(panel, run, "ana-000010.safetensors")
    assert shown["draw"]["interactive"] == can_draw
    assert ("log says why" in shown["strip"]) == can_draw


def test_a_run_deleted_meanwhile_leaves_an_empty_panel(panel, home):
    run = alive(new(home, started(), step(1)))
    seen = show(panel, run)["seen"]
    (run.config_file).unlink()
    assert "once you press Train" in show(panel, run, seen=seen)["headline"]
