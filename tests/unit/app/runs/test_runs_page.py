import asyncio
import json
import math
import os
import re
import time
from html import unescape
from html.parser import HTMLParser

import gradio as gr
import pytest
from PIL import Image

from app.kit.text import TABLES
from app.live.chart import smoothed
from app.live.monitor import Watches
from app.runs.cards import MARKS, Frame, card, curve, date, image_file, in_words, look, spark, train_url
from app.runs.comparison import comparison, newest_by_prompt
from app.runs.page import CARDS, Runs, build, card_list
from trainer.contract.events import EventLog, Phase, RunFailed, RunFinished, RunStarted, RunView, Sample, Step
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.runs.folder import RunFolder

NOW = time.time()  # of which runs have their age, however long it takes to make them
EVIL = '<script>alert("1")</script>\'&'
COMPLETED = RunFinished(reason="completed", step=3, seconds=9.0)


def started(total=240, base="pocket"):
    return RunStarted(
        family="sd15", base_model=base, steps_total=total, resumed_at=0, device="cpu", memory_gib=0.5, versions={}
    )


def step(number, loss=0.1):
    return Step(step=number, epoch=0.0, loss=loss, lr=1e-4, grad_norm=1.0, seconds=60.0, memory_gib=1.0)


def sample(number, index=0, prompt="a cat", file=""):
    name = file or f"samples/{number:06}-{index}.png"
    return Sample(step=number, index=index, prompt=prompt, seed=1, file=name)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path.resolve())


@pytest.fixture
def new(home):
    """Make a run with these events; keyword arguments are sections of settings."""

    def make(*events, name="ana", age=0, **settings):
        run = RunFolder.create(home, validated({"output": {"name": name}, **settings}))
        run.samples.mkdir()
        with EventLog(run.events_file) as log:
            for event in events:
                log.write(event)
                if isinstance(event, Sample) and event.file.startswith("samples/"):
                    Image.new("RGB", (8, 8), "red").save(run.path / event.file)
        then = NOW - age
        os.utime(run.config_file, (then, then))
        return run

    return make


@pytest.fixture
def page(home):
    return Runs(home, Watches())


def asked(language="en", **query):
    return gr.Request(headers={"accept-language": language}, query_params=query)


def drawn(run, language="en"):
    return card(look(run, Watches()), language)


def both(first, second, language="en"):
    return comparison((look(first, Watches()), look(second, Watches())), language)


class Tags(HTMLParser):
    """The elements of a page's part, in their order, and whether each one is closed."""

    def __init__(self, html):
        super().__init__()
        self.seen, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, _):
        self.seen.append(tag)
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, _):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_card_tells_name_model_preset_steps_state_and_time(new):
    run = new(started(base="/models/sd-v1-5"), step(1), step(2), COMPLETED, preset="sd15-style")
    html = drawn(run)
    assert f'<a href="/live?run={run.path.name}"' in html
    for words in (">ana</a>", "sd15 · sd-v1-5 · sd15-style", "Completed", "step 2 of 240", "trained for 2 min"):
        assert words in html
    assert date(run.config_file.stat().st_mtime, "en") in html


def test_a_model_folder_of_windows_is_told_by_its_last_part(new):
    assert "sd15 · dreamy<" in drawn(new(started(base="C:\\models\\dreamy")))


@pytest.mark.parametrize(
    ("events", "state", "words"),
    [
        ([], "waiting", "Waiting"),
        ([started(), COMPLETED], "completed", "Completed"),
        ([started(), RunFinished(reason="stopped", step=1, seconds=1)], "stopped", "Stopped and saved"),
        ([RunFinished(reason="stopped", step=0, seconds=1)], "stopped", "Stopped before its first step"),
        ([started(), RunFinished(reason="paused", step=1, seconds=1)], "paused", "Paused"),
        ([started(), RunFailed(code="x", message="Full disk.", hint="y")], "failed", "Failed"),
        ([started(), step(1)], "interrupted", "Interrupted"),
    ],
)
def test_a_state_has_words_and_a_mark_of_its_own(new, events, state, words):
    html = drawn(new(*events))
    assert f"<strong>{words}</strong>" in html
    assert f'<path d="{MARKS[state]}"/>' in html
    assert ("Open it to continue." in html) == (state in ("paused", "interrupted"))


def test_every_state_has_another_mark():
    assert len(set(MARKS.values())) == len(MARKS)


def test_a_run_under_way_shows_how_far_it_is(new):
    run = new(started(), Phase(name="train", done=0, total=240), step(60))
    run.claim()  # by this very process, which is alive
    html = drawn(run)
    assert "<strong>Training</strong>" in html
    assert '<progress max="1" value="0.2500"' in html


def test_a_run_under_way_says_what_it_does_besides_training(new):
    run = new(Phase(name="load", done=0, total=1))
    run.claim()
    assert "<strong>Loading the base model</strong>" in drawn(run)


def test_a_failed_run_says_why(new):
    failed = RunFailed(code="disk_full", message=f"No room {EVIL}", hint="Make some.")
    html = drawn(new(started(), failed))
    assert f'<p class="run-problem">{"No room"} &lt;script&gt;' in html


def test_the_newest_preview_is_shown_and_described(new):
    run = new(started(), sample(0), sample(5, 0, 'a "cat"'), sample(5, 1, "a dog"))
    html = drawn(run)
    assert re.search(r'<img src="/atelier/thumb/[0-9a-f]{64}\.jpg" alt="a &quot;cat&quot;, step 5"', html)
    assert html.count("<img") == 1


@pytest.mark.parametrize("file", ["gone.png", "../../secret.png", "/etc/hostname", "a\0b.png", "samples"])
def test_no_image_is_shown_that_is_not_the_runs(new, home, file):
    Image.new("RGB", (8, 8)).save(home.root / "secret.png")
    run = new(started(), sample(1, file=file))
    assert image_file(run, sample(1, file=file)) is None
    assert "No preview" in drawn(run)
    assert "<img" not in both(run, new(started()))


def test_names_prompts_and_messages_never_become_markup(new):
    texts = {"preview": {"prompts": (EVIL,)}, "dataset": {"trigger_word": EVIL[:20]}}
    evil = new(started(base=f"/m/{EVIL[:9]}"), step(1), sample(1, prompt=EVIL), name="ana & bo", preset=EVIL, **texts)
    html = drawn(evil) + both(evil, new(started(), step(1)))
    assert "script" not in Tags(html).seen
    assert not Tags(html).open
    assert ">ana &amp; bo</a>" in html
    assert EVIL in unescape(html)


def test_the_address_of_a_run_holds_any_name():
    assert train_url('a&b="ä /?') == "/live?run=a%26b%3D%22%C3%A4%20%2F%3F"


def test_settings_that_cannot_be_read_are_told_beside_what_is_known(new):
    run = new(started(), step(1), COMPLETED)
    run.config_file.write_text("[adapter]\nrank = 1000\n")
    html = drawn(run)
    assert "Cannot be read" in html
    assert "“Rank” = 1000" in html
    assert "step 1 of 240" in html
    assert f"<h3>{run.path.name}</h3>" in html


def test_a_log_that_cannot_be_read_is_told(new):
    run = new()
    run.events_file.unlink()
    run.events_file.mkdir()
    html = drawn(run)
    assert "Cannot be read" in html
    assert "events.jsonl is a folder, and should be a plain file" in html


def test_lines_of_a_log_that_are_not_ours_are_passed_over(new):
    run = new(started(), step(1))
    with run.events_file.open("a") as file:
        file.write('{"type": "step", "loss": null}\nnot json\n' + json.dumps({"type": "later"}) + "\n")
    assert "step 1 of 240" in drawn(run)


def test_the_spark_line_is_the_settled_average_and_says_so():
    view = RunView().fold([step(n, loss=1.0 / n) for n in range(1, 101)])
    averages = smoothed([1.0 / n for n in range(1, 101)]).round(12).tolist()
    points = curve(view, 10_000)
    assert points == [(n, averages[n - 1]) for n in range(21, 101)]
    lowest = f"{averages[-1]:.3f}"
    assert f'aria-label="Smoothed loss {lowest} at step 100; lowest {lowest} at step 100."' in spark(view, "en")


def test_a_curve_has_no_more_points_than_asked_and_keeps_its_lowest():
    view = RunView().fold([step(n, loss=2 + math.sin(n / 50)) for n in range(1, 2000)])
    everything, thin = curve(view, 10_000), curve(view, 80)
    assert len(thin) <= 80
    assert in_words(thin, "en") == in_words(everything, "en")


def test_losses_that_are_no_numbers_leave_no_hole_in_a_page():
    view = RunView().fold([step(1, math.nan), step(2, math.inf), *(step(n) for n in range(3, 9))])
    assert "nan" not in spark(view, "en")
    assert all(math.isfinite(loss) for _, loss in curve(view, 80))


def test_there_is_no_line_before_there_are_steps():
    assert spark(RunView(), "en") == ""
    assert spark(RunView().fold([step(1)]), "en") == ""


def test_a_frame_maps_its_corners_to_the_edges_of_the_drawing():
    frame = Frame.around([[(10, 2.0)], [(20, 4.0)]])
    assert frame.path([(10, 2.0), (20, 4.0)]) == "M0.00 39.00L100.00 1.00"


def test_a_flat_curve_is_drawn_too():
    assert Frame.around([[(5, 1.0)]]).path([(5, 1.0)]) == "M0.00 1.00"


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "5 Mar 2026, 07:09"),
        ("de", "5. März 2026, 07:09 Uhr"),
        ("zh-CN", "2026年3月5日 07:09"),
        ("ja", "2026年3月5日 07:09"),
    ],
)
def test_a_date_is_written_as_the_reader_does(language, words):
    assert date(time.mktime((2026, 3, 5, 7, 9, 0, 0, 0, -1)), language) == words


@pytest.mark.parametrize("language", TABLES)
def test_every_language_has_twelve_months(language):
    assert len(set(TABLES[language]["runs.months"].split())) == 12


def test_only_settings_that_differ_are_compared(new):
    first = new(adapter={"rank": 8}, dataset={"flip": True}, name="one")
    second = new(preview={"prompts": ("x", "y")}, preset="sd15-style", name="two")
    table = both(first, second)
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', table)
    assert rows == [
        ("Preset", "(empty)", "sd15-style"),
        ('Flip horizontally <span class="quiet">Images and captions</span>', "on", "off"),
        ('Rank <span class="quiet">LoRA</span>', "8", "16"),
        ('Preview prompts <span class="quiet">Previews</span>', "(empty)", "x<br>y"),
    ]


def test_numbers_carry_their_unit_and_labels_the_readers_language(new):
    first, second = new(dataset={"resolution": 768}, optimizer={"learning_rate": 3e-5}), new()
    html = both(first, second, "de")
    assert "<td>768 px</td><td>512 px</td>" in html
    assert 'Lernrate <span class="quiet">Optimierer</span></th><td>3e-05</td>' in html


def test_runs_with_the_same_settings_are_told_so_whatever_their_names(new):
    assert "both runs have the same settings" in both(new(name="one"), new(name="two"))


def test_unreadable_settings_are_not_compared_but_the_rest_is(new):
    broken, whole = new(started(), step(1)), new(started(), step(1))
    broken.config_file.write_text("?")
    html = both(broken, whole)
    assert "settings of one run cannot be read" in html
    assert 'class="run-line-B" d="M' in html


def test_two_curves_share_one_frame_and_are_told_in_words(new):
    short = new(started(), *(step(n, 0.2) for n in range(1, 51)))
    long = new(started(), *(step(n, 0.1) for n in range(1, 101)))
    html = both(short, long)
    plot = html[html.index('<div class="run-chart">') :]
    ends = {
        letter: re.search(rf'run-line-{letter}" d="M([\d.]+) .*?L([\d.]+) [\d.]+"', plot).groups() for letter in "AB"
    }
    assert ends["B"] == ("0.00", "100.00")
    assert float(ends["A"][1]) == pytest.approx(100 * (50 - 21) / (100 - 21), abs=0.01)
    told = "Smoothed loss 0.200 at step 50; lowest 0.200 at step 21."
    assert f"<strong>A</strong> {told}" in html
    assert f'aria-label="{told} Smoothed loss 0.100 at step 100' in html


def test_a_run_without_steps_has_a_legend_but_no_line(new):
    html = both(new(started(), step(1)), new())
    assert "<strong>B</strong> No steps yet." in html
    assert 'run-line-B" d="M0 4H32"' in html
    assert html.count('class="run-line-B"') == 1
    assert "run-chart" not in both(new(), new())


def test_previews_stand_side_by_side_by_prompt_at_their_newest_step(new):
    first = new(started(), sample(0, 0, "a cat"), sample(9, 0, "a cat"), sample(9, 1, "a dog"))
    second = new(started(), sample(4, 0, "a dog"), sample(4, 1, "a cow"))
    html = both(first, second)
    blocks = re.findall(r"<h4>(.*?)</h4>.*?<figcaption>(.*?)</figcaption>.*?<figcaption>(.*?)</figcaption>", html)
    assert blocks == [
        ("a cat", "A · step 9", "B · No preview"),
        ("a dog", "A · step 9", "B · step 4"),
        ("a cow", "A · No preview", "B · step 4"),
    ]
    assert 'alt="B: a dog, step 4"' in html
    assert "Neither run has previews" in both(new(), new())


def test_a_prompt_drawn_twice_is_kept_twice():
    view = RunView().fold([sample(0, 0), sample(0, 1), sample(5, 0), sample(5, 1)])
    assert {key: (s.step, s.index) for key, s in newest_by_prompt(view).items()} == {
        ("a cat", 0): (5, 0),
        ("a cat", 1): (5, 1),
    }


def test_a_page_without_runs_leads_to_training(page):
    html = page.show(CARDS, None, asked())[1]
    assert "Nothing has been trained yet." in html
    assert '<a href="/">' in html


def test_the_newest_run_comes_first_and_more_are_shown_when_asked(new, page):
    for number in range(CARDS + 2):
        new(name=f"run{number}", age=number)
    seen, html, more, first, _ = page.show(CARDS, None, asked())
    assert re.findall(r">(run\d+)</a>", html) == [f"run{number}" for number in range(CARDS)]
    assert f"{CARDS} of {CARDS + 2} runs" in html
    assert more["visible"]
    assert len(first["choices"]) == CARDS + 2
    _, html, more, first, _ = page.show(2 * CARDS, seen, asked())
    assert html.count("<li") == CARDS + 2
    assert not more["visible"]
    assert first == gr.skip()


def test_the_browser_is_left_alone_while_nothing_is_new(new, page):
    run = new(started(), step(1))
    new(started(), step(1), name="other")
    seen = page.show(CARDS, None, asked())[0]
    assert page.show(CARDS, seen, asked()) == gr.skip()
    with EventLog(run.events_file) as log:
        log.write(step(2))
    _, html, *_ = page.show(CARDS, seen, asked())
    assert "step 2 of 240" in html


def test_a_card_is_in_its_readers_language_and_is_made_anew_when_its_folder_is(new, page):
    run = new(started(), COMPLETED)
    assert "Completed" in page.show(CARDS, None, asked())[1]
    assert "Fertig" in page.show(CARDS, None, asked("de"))[1]
    run.config_file.write_text("?")
    assert "Cannot be read" in page.show(CARDS, None, asked())[1]


def test_one_damaged_run_does_not_hide_the_others(new, page):
    damaged, _ = new(name="bad"), new(started(), COMPLETED, name="good")
    damaged.events_file.unlink()
    damaged.events_file.mkdir()
    html = page.show(CARDS, None, asked())[1]
    assert "Cannot be read" in html
    assert ">good</a>" in html
    assert not Tags(html).open


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("", "ana", "Choose two runs"),
        (None, None, "Choose two runs"),
        ("ana", "ana", "same run twice"),
        ("ana", "<b>", "no run named &lt;b&gt;"),
        ("ana", "../runs/bo", "no run named ../runs/bo"),
    ],
)
def test_a_comparison_that_cannot_be_says_why(new, page, home, first, second, words):
    for name in ("ana", "bo"):
        new(name=name).path.rename(home.runs / name)
    assert words in page.compare(first, second, None, asked())[1]


def test_one_run_alone_cannot_be_compared(new, page):
    assert "Comparing takes two runs" in page.compare(new().path.name, None, None, asked())[1]


def test_a_comparison_follows_its_runs_and_rests_with_them(new, page):
    first, second = new(started(), step(1), name="ana"), new(started(), step(1), name="bo")
    names = first.path.name, second.path.name
    seen, html = page.compare(*names, None, asked())
    assert "at step 1;" in html
    assert page.compare(*names, seen, asked()) == gr.skip()
    with EventLog(second.events_file) as log:
        log.write(step(2))
    assert "at step 2;" in page.compare(*names, seen, asked())[1]


def test_the_address_chooses_what_is_compared(new, page):
    names = [new(name=name, age=age).path.name for age, name in enumerate(["newest", "middle", "oldest"])]
    assert page.arrive(asked()) == (names[0], names[1], gr.skip())
    assert page.arrive(asked(a=names[2])) == (names[2], names[0], gr.update(selected="compare"))
    assert page.arrive(asked(a=names[2], b=names[1]))[:2] == (names[2], names[1])
    assert page.arrive(asked(b=names[0]))[:2] == (names[1], names[0])


def test_without_two_runs_nothing_is_chosen_for_lack_of_them(new, page):
    assert page.arrive(asked())[:2] == (None, None)
    name = new().path.name
    assert page.arrive(asked())[:2] == (name, None)


def test_a_list_that_shows_everything_counts_nothing():
    assert " of " not in card_list(["<li></li>"], 1, "en")


def test_the_page_offers_no_programming_interface(home):
    async def built():  # within a loop, for Gradio else makes one that nobody closes
        demo = gr.Blocks()
        with demo.route("Runs", "/runs"):
            build(home, Watches(), demo)
        return [function.api_visibility for function in demo.fns.values()]

    assert set(asyncio.run(built())) == {"private"}
