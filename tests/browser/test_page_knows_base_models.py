"""The base model's field tells what was typed into it."""

import re

import headers
from playwright.sync_api import Page, expect


def test_a_typed_model_file_is_recognised_and_its_preset_is_one_click_away(page: Page, tmp_path):
    file = headers.write(tmp_path / "Modelle <b>ä" / "tiny pony.safetensors", headers.sdxl())
    page.goto("/?new=1")
    page.get_by_role("radio", name=re.compile("^Just try it")).check()
    base = page.get_by_label("Other file, folder or hub name")
    base.fill(str(file))
    base.press("Tab")
    expect(page.get_by_text(re.compile(r"^SDXL \(Pony\), predicts noise, 1024 px, fp16, [\d.]+ MB$"))).to_be_visible()
    page.get_by_role("button", name="Use the preset Pony · Style").click()
    expect(page.get_by_label("Preset", exact=True)).to_have_value("pony-style")
    expect(base).to_have_value(str(file))
    expect(page.get_by_role("button", name="Use the preset")).to_be_hidden()
    base.fill(f"{file}.gone")
    base.press("Tab")
    expect(page.get_by_text(f"No base model at {file}.gone.").first).to_be_visible()
    expect(page.get_by_text("SDXL (Pony)")).to_be_hidden()
