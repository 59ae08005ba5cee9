"""The Dataset page: thousands of images, captions changed by keyboard and in bulk, crop, mask and problems."""

import base64
import io
import re
import shutil
from urllib.parse import quote

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect
from site_at_work import DEMO, Site, until
from the_page import SERVER, asks, held, press

from trainer.dataset.buckets import buckets
from trainer.dataset.overlay import Entry, entries_of, overlay_file

MANY = 5000
COLUMNS = """() => {
    const tops = [...document.querySelectorAll('.captions-card')].map((card) => card.getBoundingClientRect().top);
    return tops.filter((top) => top === tops[0]).length;
}"""
INKED = """() => {
    const canvas = document.querySelector('.captions-mask');
    return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean);
}"""
SHARP = {"preset": "pocket-character", "trigger": "ana", "resolution": 128}


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(DEMO, tmp_path / "Bilder & 猫")


@pytest.fixture
def wide(folder):
    """One image more than four times as wide as it is high, in which the color says where a column was."""
    ramp = np.tile(np.linspace(0, 255, 900, dtype=np.uint8), (200, 1))
    Image.fromarray(np.stack([ramp, ramp, ramp], axis=2)).save(folder / "0-wide.png")
    return folder


def visit(page: Page, folder) -> None:
    """Open the folder and wait until its captions are read."""
    named = "&".join(f"{key}={value}" for key, value in SHARP.items())
    page.goto(f"/dataset?images={quote(str(folder))}&{named}")
    expect(page.locator(".captions-summary")).to_contain_text("with captions")


def caption(page: Page, name: str) -> Locator:
    return page.get_by_role("textbox", name=f"Caption of {name}", exact=True)


def told(page: Page, text: str) -> None:
    expect(page.locator(".captions").get_by_role("status").filter(has_text=text).first).to_be_visible()


def in_window(page: Page) -> int:
    """How many cards can be seen, in part at least."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.captions-card')].filter((card) => {
            const { top, bottom } = card.getBoundingClientRect();
            return bottom > 0 && top < innerHeight;
        }).length"""
    )


def test_of_thousands_of_images_only_those_in_view_are_loaded(page: Page, tmp_path):
    (tmp_path / "many").mkdir()
    content = io.BytesIO()
    Image.new("RGB", (8, 6), "teal").save(content, "PNG")
    for number in range(MANY):
        (tmp_path / "many" / f"{number:04}.png").write_bytes(content.getvalue())
    loaded = []
    page.on("request", lambda request: "/atelier/thumb/" in request.url and loaded.append(request.url))
    visit(page, tmp_path / "many")
    expect(page.locator(".captions-choice").first).to_have_text(f"All {MANY}")
    columns = page.evaluate(COLUMNS)
    expect(page.locator("img.captions-thumb[src]").first).to_be_visible()
    assert 0 < len(loaded) <= in_window(page) + 2 * columns
    loaded.clear()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(caption(page, f"{MANY - 1:04}.png")).to_be_editable()
    expect(page.locator(".captions-card").last.locator("img[src]")).to_have_count(1)
    assert 0 < len(loaded) <= in_window(page) + 2 * columns
    assert page.locator(".captions-card").count() <= in_window(page) + 2 * columns


def test_captions_are_edited_undone_and_done_again_by_keyboard(page: Page, site: Site, folder):
    visit(page, folder)
    names = sorted(path.name for path in folder.glob("*.png"))
    first, second = caption(page, names[0]), caption(page, names[1])
    own = first.input_value()
    first.fill("a red cat")
    first.press("Enter")
    expect(second).to_be_focused()
    told(page, f"Caption of {names[0]}")
    second.press("End")
    second.press("ArrowRight")
    expect(caption(page, names[2])).to_be_focused()
    page.keyboard.type("x")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+z")
    expect(first).to_have_value(own)
    expect(first).to_be_focused()
    assert entries_of(site.home, folder) == {}
    page.keyboard.press("Control+Shift+z")
    expect(first).to_have_value("a red cat")
    assert entries_of(site.home, folder) == {names[0]: Entry("a red cat")}


def test_tags_filter_and_many_captions_are_changed_after_a_look_at_it(page: Page, site: Site, folder):
    for number, path in enumerate(sorted(folder.glob("*.txt"))):
        path.write_text("cat, night" if number < 3 else "cat, day")
    visit(page, folder)
    page.get_by_role("button", name="night 3").click()
    expect(page.locator(".captions-card")).to_have_count(3)
    page.get_by_label("Action").select_option("Rename a tag")
    expect(page.get_by_label("Tag to rename")).to_have_value("night")
    page.get_by_label("New name").fill("dusk")
    expect(page.get_by_text("Changes 3 of the 3 images shown.")).to_be_visible()
    expect(page.locator(".captions-example").first).to_contain_text("dusk")
    press(page, "Change 3 captions")
    told(page, "Tag “night” is now “dusk” · 3 edited")
    assert {entry.text for entry in entries_of(site.home, folder).values()} == {"cat, dusk"}
    press(page, "Undo")
    told(page, "Undone")
    assert entries_of(site.home, folder) == {}


def test_chosen_images_are_left_out(page: Page, site: Site, folder):
    visit(page, folder)
    names = sorted(path.name for path in folder.glob("*.png"))
    page.get_by_role("checkbox", name=f"Select {names[0]}").check()
    page.get_by_role("checkbox", name=f"Select {names[2]}").click(modifiers=["Shift"])
    expect(page.get_by_text("3 selected")).to_be_visible()
    press(page, "Exclude")
    expect(page.get_by_role("button", name="Excluded 3")).to_be_visible()
    expect(page.locator(".captions-card").first).to_contain_text("excluded")
    assert {name for name, entry in entries_of(site.home, folder).items() if entry.left_out} == set(names[:3])


def test_the_focus_point_moves_the_crop_and_what_is_trained_is_shown(page: Page, site: Site, wide):
    visit(page, wide)
    page.get_by_role("button", name="Open 0-wide.png").click()
    shown = page.get_by_role("img", name="0-wide.png as the model sees it")
    expect(shown).to_be_visible()
    before = shown.get_attribute("src")
    point = page.get_by_role("button", name=re.compile("^Focus point"))
    for _ in range(4):
        point.press("Shift+ArrowLeft")
    expect(shown).not_to_have_attribute("src", before)
    assert entries_of(site.home, wide)["0-wide.png"].focus == pytest.approx((0.1, 0.5))
    fed = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.get_attribute("src").partition(",")[2]))))
    assert (fed.shape[1], fed.shape[0]) in {(size.width, size.height) for size in buckets(128, 16)}
    assert fed[0, 0, 0] < 5  # the ramp's left end
    frame = page.evaluate(
        """() => {
            const [whole, frame] = ['canvas', 'frame'].map((name) =>
                document.querySelector(`.captions-${name}`).getBoundingClientRect());
            return [(frame.left - whole.left) / whole.width, (frame.right - whole.left) / whole.width];
        }"""
    )
    assert frame == pytest.approx([fed[0, 0, 0] / 255, fed[0, -1, 0] / 255], abs=0.02)
    expect(page.locator(".captions-trained-words")).to_have_text(re.compile("^ana"))
    press(page, "Reset to the center")
    expect(shown).to_have_attribute("src", before)
    press(page, "Close")
    expect(caption(page, "0-wide.png")).to_be_focused()


def test_a_mask_is_drawn_by_keyboard_and_by_brush_and_undone(page: Page, site: Site, wide):
    def mask() -> np.ndarray | None:
        name = entries_of(site.home, wide).get("0-wide.png", Entry()).mask
        return None if name is None else np.asarray(Image.open(overlay_file(site.home, wide).parent / name))

    visit(page, wide)
    page.get_by_role("button", name="Open 0-wide.png").press("Enter")
    expect(page.get_by_role("img", name="0-wide.png as the model sees it")).to_be_visible()
    page.get_by_role("button", name="Mask", exact=True).press("Enter")
    page.get_by_role("button", name="Rectangle").press("Enter")
    told(page, "Mask of 0-wide.png")
    shape = mask()
    assert shape.shape == (200, 900)
    assert (shape[100, 450], shape[10, 10]) == (255, 0)
    box = page.locator(".captions-canvas").bounding_box()
    page.get_by_role("button", name="Learn", exact=True).click()
    with page.expect_response(
        lambda answer: "component_server" in answer.url and "set_mask" in answer.request.post_data
    ):
        page.mouse.move(box["x"] + 5, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 60, box["y"] + box["height"] / 2)
        page.mouse.up()
    assert mask()[100, 10] == 255
    page.get_by_role("button", name="Invert").focus()
    page.keyboard.press("Control+z")
    told(page, "Undone: Mask of 0-wide.png")
    assert np.array_equal(mask(), shape)
    press(page, "Clear")
    told(page, "Mask of 0-wide.png removed")
    assert mask() is None


def test_a_problem_shows_its_images_and_is_fixed_and_undone(page: Page, site: Site, folder):
    first, *_ = sorted(folder.glob("*.png"))
    shutil.copyfile(first, folder / "zwilling.png")
    (folder / "zwilling.txt").write_text("cat")
    visit(page, folder)
    finding = page.locator(".captions-finding").filter(has_text="zwilling.png").filter(has=page.get_by_text("Fix"))
    finding.get_by_role("button", name=re.compile("^Show")).first.click()
    expect(page.locator(".captions-card")).to_have_count(2)
    finding.get_by_role("button", name=re.compile("^Fix")).first.click()
    told(page, "Fixed: ")
    assert any(entry.left_out for entry in entries_of(site.home, folder).values())
    press(page, "Undo")
    told(page, "Undone: Fixed")
    assert entries_of(site.home, folder) == {}


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_the_open_image_has_no_serious_barrier_and_fits_the_window(window, wide, scheme, width):
    page = window(color_scheme=scheme, viewport={"width": width, "height": 720}).new_page()
    visit(page, wide)
    page.get_by_role("button", name="Open 0-wide.png").click()
    page.get_by_role("button", name="Mask", exact=True).click()
    expect(page.get_by_role("img", name="0-wide.png as the model sees it")).to_be_visible()
    found = Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dialog = page.locator("dialog.captions-picture")
    assert dialog.evaluate("(one) => one.scrollWidth <= one.clientWidth")


def test_images_are_captioned_automatically_as_one_change(page: Page, site: Site, folder):
    for path in folder.glob("*.txt"):
        path.unlink()
    visit(page, folder)
    page.get_by_text("Automatic captions").click()
    page.get_by_label("Captioner").select_option("File names")
    press(page, "Caption the images")
    expect(page.locator(".captions-caption-report")).to_contain_text("8 captioned")
    names = sorted(path.name for path in folder.glob("*.png"))
    expect(caption(page, names[0])).to_have_value(names[0].removesuffix(".png").replace("-", " "))
    assert len(entries_of(site.home, folder)) == len(names)
    press(page, "Undo")
    expect(caption(page, names[0])).to_have_value("")
    assert entries_of(site.home, folder) == {}


def test_what_is_typed_while_a_caption_is_saved_stays(page: Page, site: Site, folder):
    visit(page, folder)
    names = sorted(path.name for path in folder.glob("*.png"))
    first = caption(page, names[0])
    own = first.input_value()
    with held(page, "save"):
        first.fill("a red cat")
        first.press("Enter")
        page.evaluate("dispatchEvent(new Event('scroll')); document.dispatchEvent(new Event('scroll'))")
        page.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )  # it is drawn anew
        expect(first).to_have_value("a red cat")
        first.fill(own)
    told(page, f"Caption of {names[0]}")
    expect(first).to_have_value(own)
    first.press("Enter")
    until(lambda: not entries_of(site.home, folder), "its own caption is saved again")
    expect(first).to_have_value(own)


def test_a_text_that_could_not_be_saved_stays_and_is_saved_later(page: Page, site: Site, folder):
    visit(page, folder)
    names = sorted(path.name for path in folder.glob("*.png"))
    first = caption(page, names[0])
    (folder / names[0]).rename(folder / "elsewhere")
    first.fill("a red cat")
    first.press("Enter")
    told(page, "There is no image")
    expect(first).to_have_value("a red cat")
    (folder / "elsewhere").rename(folder / names[0])
    first.press("Enter")
    told(page, f"Caption of {names[0]}")
    assert entries_of(site.home, folder)[names[0]].text == "a red cat"


def test_while_the_folder_is_read_captions_are_not_shown_as_empty(page: Page, folder):
    with held(page, "show") as let:
        page.goto(f"/dataset?images={quote(str(folder))}")
        fields = page.locator(".captions-field")
        expect(fields.first).to_have_attribute("placeholder", "…")
        assert fields.first.get_attribute("readonly") is not None
        let()
        expect(fields.first).to_be_editable()
        for field in fields.all():
            expect(field).not_to_have_value("")


def test_a_mask_stays_with_the_image_that_it_was_drawn_on(page: Page, site: Site, folder):
    visit(page, folder)
    first, second, *_ = sorted(path.name for path in folder.glob("*.png"))
    page.get_by_role("button", name=f"Open {first}").click()
    expect(page.get_by_role("img", name=f"{first} as the model sees it")).to_be_visible()
    page.get_by_role("button", name="Mask", exact=True).click()
    with held(page, "set_mask") as let:
        page.get_by_role("button", name="Rectangle").click()
        with held(page, "look_at"):
            page.get_by_role("button", name="Next").click()
            page.get_by_role("button", name="Ellipse").click()  # the second image's mask is not there yet
        expect(page.get_by_role("img", name=f"{second} as the model sees it")).to_be_visible()
        assert not page.evaluate(INKED)
        let()
    told(page, f"Mask of {first}")
    assert set(entries_of(site.home, folder)) == {first}


def test_a_mask_that_is_wiped_away_is_none(page: Page, site: Site, wide):
    visit(page, wide)
    page.get_by_role("button", name="Open 0-wide.png").click()
    expect(page.get_by_role("img", name="0-wide.png as the model sees it")).to_be_visible()
    page.get_by_role("button", name="Mask", exact=True).click()
    page.get_by_role("button", name="Invert").click()
    told(page, "Mask of 0-wide.png")
    page.get_by_role("button", name="Invert").click()
    told(page, "All of 0-wide.png is trained: no mask")
    assert entries_of(site.home, wide) == {}


def test_a_focus_point_moved_on_while_an_answer_comes_stays(page: Page, site: Site, wide):
    visit(page, wide)
    page.get_by_role("button", name="Open 0-wide.png").click()
    shown = page.get_by_role("img", name="0-wide.png as the model sees it")
    expect(shown).to_be_visible()
    point = page.get_by_role("button", name=re.compile("^Focus point"))
    with held(page, "set_focus"):
        point.press("Shift+ArrowLeft")
        until(lambda: "One moment" in page.locator(".captions-status").text_content(), "the first place is on its way")
        with held(page, "look_at"):
            page.get_by_label("Trigger word").last.fill("bo")
            page.get_by_label("Trigger word").last.blur()
            point.press("Shift+ArrowLeft")
        expect(page.locator(".captions-trained-words")).to_have_text(re.compile("^bo"))
        expect(page.get_by_role("button", name="Focus point: 30 % from the left, 50 % from the top")).to_be_visible()
    until(lambda: entries_of(site.home, wide).get("0-wide.png", Entry()).focus == (0.3, 0.5), "the last place is kept")


def test_problems_say_what_they_are_judged_for(page: Page, folder):
    visit(page, folder)
    expect(page.get_by_text("Checked for training with “pocket-character” at 128 px.")).to_be_visible()


def test_captioning_and_its_watch_outlive_an_answer_that_is_lost(page: Page, folder):
    for path in folder.glob("*.txt"):
        path.unlink()
    visit(page, folder)
    page.get_by_text("Automatic captions").click()
    page.get_by_label("Captioner").select_option("File names")
    lost: list[Route] = []

    def lose(route: Route) -> None:
        if not lost and asks(route, "captioning"):
            lost.append(route)
            route.fulfill(status=200, body="no answer")
        else:
            route.fallback()

    page.route(SERVER, lose)
    press(page, "Caption the images")
    expect(page.locator(".captions-caption-report")).to_contain_text("8 captioned")
    assert lost
