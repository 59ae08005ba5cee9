"""The Help page: the texts of `assets/docs`, all settings, and all errors."""

from html import escape

import gradio as gr

from app.kit.component import PRIVATE
from app.kit.failures import folded, table
from app.kit.rows import element_id
from app.kit.text import label, language, say
from app.kit.wording import on_page, section_name, setting_name
from trainer.contract.home import CHECKOUT, Home
from trainer.contract.schema import SettingInfo, all_settings
from trainer.contract.settings.config import SECTIONS

DOCS = CHECKOUT / "assets" / "docs"
SETTINGS, FAILURES = "settings", "failures"  # the parts that are no text
PARTS = ("getting-started", SETTINGS, "troubleshooting", FAILURES, "api", "security")
# The parts come after the browser has looked for what the address names, and what is folded it would not open
TO_ANCHOR = """() => {
  const go = () => {
    const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    wanted?.closest("details")?.setAttribute("open", "");
    wanted?.scrollIntoView();
    // A row that was not there yet when the page opened is marked only by going to it again
    if (wanted && !wanted.matches(":target")) location.replace(location.href);
  };
  window.addEventListener("hashchange", go);
  go();
}"""


def build(home: Home) -> None:
    """The page's parts, in the present layout."""
    gr.Markdown(label("help.title"), elem_id="help-title")
    contents = gr.HTML(contents_table(home, "en"), elem_classes="help-contents")
    for part in PARTS:
        gr.Markdown(f"## {label(f'help.{part}')}", elem_id=anchor(part), elem_classes="help-heading")
        if part == SETTINGS:
            settings = gr.HTML(settings_table("en"), elem_classes="help-settings")
        elif part == FAILURES:
            failures = gr.HTML(table("en"), elem_classes="help-settings")
        else:
            gr.Markdown(text_of(part), elem_classes="help-text")

    def translate(request: gr.Request) -> list[str] | dict[str, object]:
        """Show the parts that are not files in the browser's language."""
        tongue = language(request)
        return gr.skip() if tongue == "en" else [contents_table(home, tongue), settings_table(tongue), table(tongue)]

    gr.on(None, translate, None, [contents, settings, failures], **PRIVATE, queue=False).then(
        None, None, None, js=TO_ANCHOR, api_visibility="private"
    )


def anchor(part: str) -> str:
    """The id of a part's heading."""
    return f"help-{part}"


def link(part: str) -> str:
    """Returns a link to a part; it names the page, since the document's base is the start page."""
    return f"help#{anchor(part)}"


def text_of(part: str) -> str:
    """A file's text without its heading, which the page translates; links to other files lead to their parts."""
    _, _, text = (DOCS / f"{part}.md").read_text(encoding="utf-8").partition("\n")
    for other in PARTS:
        for ending in ("md", "json"):
            text = text.replace(f"]({other}.{ending})", f"]({link(other)})")
    for info in all_settings() if part != "api" else ():  # programs and the console need the names
        text = text.replace(f"`{info.place}`", f"*{setting_name(info.place, 'en')}*")
    return text


def contents_table(home: Home, tongue: str) -> str:
    """Returns links to the page's parts, and the folders of this home's runs and presets."""
    links = "".join(f'<li><a href="{link(part)}">{escape(say(tongue, f"help.{part}"))}</a></li>' for part in PARTS)
    runs, presets = (f"<code>{escape(str(folder))}</code>" for folder in (home.runs, home.presets))
    places = say(tongue, "help.places", runs=runs, presets=presets)
    nav = f'<nav aria-label="{escape(say(tongue, "help.contents"))}"><ul>{links}</ul></nav>'
    return f'{nav}<p class="quiet">{places}</p>'


def settings_table(tongue: str) -> str:
    """Returns every setting with what it does, what is allowed, and its default; in folded groups, by section."""
    groups = "".join(_section(section, tongue) for section in SECTIONS)
    return f"<p>{escape(say(tongue, 'help.settings_intro'))}</p>{groups}"


def _section(section: str, tongue: str) -> str:
    heads = ("setting", "meaning", "range", "default")
    rows = "".join(_row(info, tongue) for info in all_settings() if info.section == section)
    return folded(section_name(section, tongue), heads, rows, tongue, purpose=SECTIONS[section].__doc__ or "")


def _row(info: SettingInfo, tongue: str) -> str:
    cells = (on_page(info.help, tongue), allowed(info, tongue), default(info, tongue))
    shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    name = escape(setting_name(info.place, tongue))
    return f'<tr id="{element_id(info.place)}"><th scope="row">{name}</th>{shown}</tr>'


def allowed(info: SettingInfo, tongue: str) -> str:
    """The values a setting takes, in words."""
    if info.kind == "switch":
        return say(tongue, "help.on_off")
    return ", ".join(info.choices) or info.range_text or say(tongue, "help.anything")


def default(info: SettingInfo, tongue: str) -> str:
    """A setting's default, in words."""
    if info.kind == "switch":
        return say(tongue, "help.on" if info.default else "help.off")
    if info.default in ("", ()):
        return say(tongue, "help.empty")
    return format(info.default, "g") if info.kind == "number" else str(info.default)
