import asyncio
import re
from html import unescape
from html.parser import HTMLParser

import gradio as gr
import pytest

from app import help as page
from app.api import register
from app.help import DOCS, FAILURES, PARTS, SETTINGS, allowed, contents_table, default, settings_table, text_of
from app.kit.failures import table
from app.kit.rows import element_id
from app.kit.text import TABLES, label
from app.kit.wording import setting_name
from app.live.monitor import Watches
from trainer.contract.home import Home
from trainer.contract.schema import all_settings
from trainer.contract.settings.config import SECTIONS

FILES = sorted(DOCS.glob("*.md"))
INFOS = {info.place: info for info in all_settings()}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Rows(HTMLParser):
    """The table cells of a page, row by row, and every tag that was opened and closed."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.opened, self.closed = [], [], []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        self.opened.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.inside = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.closed.append(tag)
        self.inside &= tag not in ("th", "td")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


@pytest.fixture
def built(tmp_path):
    """What the page sends to a browser: each component's properties."""

    async def make():  # within a loop, for Gradio else makes one that nobody closes
        demo = gr.Blocks()
        with demo.route("Help", "/help"):
            page.build(Home(tmp_path))
        return demo

    demo = asyncio.run(make())
    assert {function.api_visibility for function in demo.fns.values()} == {"private"}
    return [component["props"] for component in demo.get_config_file()["components"]]


@pytest.mark.parametrize("place", INFOS)
def test_every_setting_is_in_the_table_with_label_help_range_and_default(place):
    info = INFOS[place]
    (found,) = re.findall(f'<tr id="{element_id(place)}">.*?</tr>', settings_table("en"))
    (row,) = Rows(found).rows
    assert row[0] == setting_name(place, "en")
    assert row[1] == info.help
    assert row[2] == allowed(info, "en")
    assert row[3] == default(info, "en")
    assert all(row)


def test_settings_are_grouped_by_section():
    groups = settings_table("en").split("<details>")[1:]
    assert len(groups) == len(SECTIONS)
    for section, group in zip(SECTIONS, groups, strict=True):
        rows = re.findall(r'<tr id="(setting-[\w-]+)">', group)
        assert rows == [element_id(f"{section}.{name}") for name in SECTIONS[section].model_fields]


@pytest.mark.parametrize(
    ("place", "values", "usual"),
    [
        ("adapter.rank", "from 2 to 256", "16"),
        ("model.precision", "auto, fp32, bf16, fp16", "auto"),
        ("dataset.flip", "on or off", "off"),
        ("dataset.trigger_word", "any text", "empty"),
        ("preview.prompts", "any text", "empty"),
        ("optimizer.learning_rate", "above 0 to 0.1", "0.0002"),
    ],
)
def test_values_are_told_in_words(place, values, usual):
    assert (allowed(INFOS[place], "en"), default(INFOS[place], "en")) == (values, usual)


@pytest.mark.parametrize("tongue", TABLES)
def test_the_table_is_whole_in_every_language(tongue):
    parsed = Rows(settings_table(tongue))
    assert sorted(parsed.opened) == sorted(parsed.closed)
    assert len(parsed.rows) == len(INFOS) + len(SECTIONS)
    assert {len(row) for row in parsed.rows} == {4}


def test_the_table_speaks_the_readers_language():
    assert ">Was sie bewirkt</th>" in settings_table("de")
    assert ">Lernrate<" in settings_table("de")


def test_every_file_and_the_settings_are_shown(built):
    values = [props["value"] for props in built if props.get("value")]
    assert {path.stem for path in FILES} | {SETTINGS, FAILURES} == set(PARTS)
    assert settings_table("en") in values
    assert table("en") in values
    for path in FILES:
        assert any(text_of(path.stem).rstrip().endswith(value.strip()) for value in values[2:])


def test_headings_are_translated_and_carry_the_ids_that_links_lead_to(built):
    headings = {props.get("elem_id"): props.get("value") for props in built}
    for part in PARTS:
        assert headings[f"help-{part}"] == f"## {label(f'help.{part}')}"


def test_the_contents_lead_to_every_part_and_name_the_homes_folders(tmp_path):
    home = Home(tmp_path / "a<b>")
    text = contents_table(home, "de")
    assert re.findall(r'href="([^"]+)"', text) == [f"help#help-{part}" for part in PARTS]
    assert "a<b>" not in text
    assert str(home.runs) in unescape(text)
    assert str(home.presets) in unescape(text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_files_headings_go_down_by_one_level(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    levels = [len(mark) for mark in re.findall(r"^(#+) ", text, flags=re.MULTILINE)]
    assert levels[0] == 2
    assert set(levels[1:]) == {3}
    assert text.startswith(f"## {TABLES['en'][f'help.{path.stem}']}\n")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_relative_links_resolve_and_nothing_is_fetched_from_elsewhere(path):
    text = path.read_text(encoding="utf-8")
    assert "<img" not in text
    assert not re.search(r"!\[[^\]]*\]\(https?:", text)
    for link in LINK.findall(text):
        assert link.startswith("https://") or (path.parent / link.partition("#")[0]).exists(), link


def test_a_link_to_another_file_leads_to_its_part(tmp_path, monkeypatch):
    (tmp_path / "api.md").write_text("## Title\nSee [this](troubleshooting.md) and [that](https://example.org/api.md).")
    monkeypatch.setattr(page, "DOCS", tmp_path)
    assert text_of("api") == "See [this](help#help-troubleshooting) and [that](https://example.org/api.md)."


def test_every_endpoint_is_named_and_no_other(tmp_path, in_blocks, monkeypatch):
    found = []
    monkeypatch.setattr("app.api.api", lambda _act, api_name: found.append(f"/{api_name}"))
    in_blocks(lambda: register(Home(tmp_path), Watches()))
    assert sorted(re.findall(r"^\| `(/\w+)` \|", text_of("api"), flags=re.MULTILINE)) == sorted(found)


def test_flags_presets_and_parameters_that_the_texts_name_are_there():
    texts = "\n".join(text_of(path.stem) for path in FILES)
    assert set(re.findall(r"--([a-z]+\.[a-z_]+)", texts)) <= set(INFOS)
    parameters = {place.replace(".", "_") for place in INFOS}
    assert set(re.findall(r"\b((?:adapter|dataset|output|optimizer)_[a-z_]+)\b", texts)) <= parameters
    presets = {path.stem for path in (DOCS.parents[1] / "presets").glob("*.toml")}
    assert set(re.findall(r"\b((?:pocket|sd15|sd2|sdxl|pony|illustrious|noobai)-[a-z]+)\b", texts)) <= presets


def test_the_example_of_the_api_is_python():
    (code,) = re.findall(r"```\n(import .*?)```", text_of("api"), flags=re.DOTALL)
    compile(code, "example", "exec")
