"""The page's words, from `assets/i18n/*.json`: labels are translated by the browser, sentences here."""

import json

import gradio as gr
from gradio.i18n import I18nData
from starlette.requests import Request

from trainer.contract.home import CHECKOUT
from trainer.contract.schema import SettingInfo

FOLDER = CHECKOUT / "assets" / "i18n"
TABLES: dict[str, dict[str, str]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
ENGLISH = TABLES["en"]
I18N = gr.I18n(**TABLES)


def label(key: str) -> I18nData:
    """A label, button or heading that the browser shows in its own language."""
    if key not in ENGLISH:
        raise KeyError(key)
    return I18N(key)


def setting_label(info: SettingInfo) -> str | I18nData:
    """A setting's name, translated where we have it."""
    key = f"setting.{info.place}"
    return I18N(key) if key in ENGLISH else info.label


def say(language: str, key: str, **values: object) -> str:
    """A sentence in this language, its places filled."""
    return TABLES.get(language, ENGLISH).get(key, ENGLISH[key]).format(**values)


def words(language: str, group: str) -> dict[str, str]:
    """A group's texts with their places unfilled, for a script to fill; "chart." gives title, loss and so on."""
    spoken = {**ENGLISH, **TABLES.get(language, {})}
    return {key.removeprefix(group): text for key, text in spoken.items() if key.startswith(group)}


def language(request: gr.Request | Request | None) -> str:
    """The first language of the browser's list that we speak, else English."""
    accepted = request.headers.get("accept-language", "") if request is not None else ""
    for entry in accepted.split(","):
        wanted = entry.partition(";")[0].strip().lower()
        for known in TABLES:
            if wanted and (wanted == known.lower() or wanted.partition("-")[0] == known.lower().partition("-")[0]):
                return known
    return "en"
