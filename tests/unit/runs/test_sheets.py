import io

import pytest
from PIL import Image

from trainer.contract.events import RunView, Sample
from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.runs.folder import RunFolder
from trainer.runs.sheets import CELL_PX, GAP_PX, STRENGTHS, TOP_PX, UNDER_PX, before_after, strength_sheet, strip_name

GREEN = (0, 200, 0)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(Home(tmp_path), validated({"output": {"name": "bälle"}}))


def drawn(run, step, index=0, color="red", size=(64, 64), prompt="ein Bär"):
    """A preview of one color and its event."""
    file = f"samples/{step:06}-{index}.png"
    run.samples.mkdir(exist_ok=True)
    Image.new("RGB", size, color).save(run.path / file)
    return Sample(step=step, index=index, prompt=prompt, seed=1, file=file)


def sheet(run, *samples):
    with Image.open(before_after(run, RunView(samples=list(samples)))) as image:
        return image.convert("RGB")


def colored(image, color):
    """The box (left, top, right, bottom) around the pixels of exactly this color."""
    mask = Image.new("1", image.size)
    mask.putdata([pixel == color for pixel in image.get_flattened_data()])
    return mask.getbbox()


def test_the_sheet_lies_in_the_run_folder(run):
    written = before_after(run, RunView(samples=[drawn(run, 0), drawn(run, 40)]))
    assert written == run.path / "before-after.png"
    assert written.is_file()


def test_of_a_run_that_went_on_from_a_file_the_sheet_does_not_say_without_lora(run, tmp_path):
    config = validated({"adapter": {"start_from": "/loras/ana.safetensors"}})
    other = RunFolder.create(Home(tmp_path / "other"), config)
    fresh, continued = (sheet(one, drawn(one, 0), drawn(one, 40)) for one in (run, other))
    title = (0, 0, fresh.width, TOP_PX)
    assert fresh.crop(title).tobytes() != continued.crop(title).tobytes()
    assert fresh.crop((0, TOP_PX, *fresh.size)).tobytes() == continued.crop((0, TOP_PX, *fresh.size)).tobytes()


@pytest.mark.parametrize("steps", [[], [0], [0, 0]], ids=["none", "one", "one step twice"])
def test_without_two_steps_to_compare_there_is_no_sheet(run, steps):
    assert before_after(run, RunView(samples=[drawn(run, step) for step in steps])) is None
    assert not (run.path / "before-after.png").exists()


def test_the_first_image_stands_left_of_the_newest(run):
    image = sheet(run, drawn(run, 0, color=(255, 0, 0)), drawn(run, 20, color=GREEN), drawn(run, 40, color=(0, 0, 255)))
    before, after = colored(image, (255, 0, 0)), colored(image, (0, 0, 255))
    assert before[2] <= after[0]
    assert before[1] == after[1]
    assert colored(image, GREEN) is None


def test_a_small_image_is_enlarged_in_whole_pixels(run):
    first, last = drawn(run, 0), drawn(run, 40)
    board = Image.effect_noise((64, 64), 90).convert("RGB")
    board.save(run.path / last.file)
    image = sheet(run, first, last)
    left = GAP_PX + CELL_PX + GAP_PX // 2
    cell = image.crop((left, TOP_PX, left + CELL_PX, TOP_PX + CELL_PX))
    assert cell.resize((64, 64), Image.Resampling.NEAREST).tobytes() == board.tobytes()
    assert cell.tobytes() == board.resize((CELL_PX, CELL_PX), Image.Resampling.NEAREST).tobytes()


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (300, 100), (100, 300), (512, 768), (1, 192)])
def test_an_image_of_any_shape_fills_its_cell_and_stays_inside(run, size):
    left, top, right, bottom = colored(sheet(run, drawn(run, 0), drawn(run, 40, color=GREEN, size=size)), GREEN)
    assert max(right - left, bottom - top) == CELL_PX


@pytest.mark.parametrize(
    ("prompts", "columns", "rows"),
    [(1, 1, 1), (2, 2, 1), (4, 4, 1), (5, 3, 2), (6, 3, 2), (7, 4, 2), (9, 3, 3), (16, 4, 4)],
)
def test_rows_are_filled_evenly(run, prompts, columns, rows):
    def size(count):
        return sheet(run, *(drawn(run, step, index) for step in (0, 40) for index in range(count))).size

    pair_width, row_height = size(1)
    width, height = size(prompts)
    assert round(width / pair_width) == columns
    assert round(height / row_height) == rows


def test_a_prompt_with_only_one_image_is_left_out(run):
    image = sheet(run, drawn(run, 0), drawn(run, 40), drawn(run, 40, index=1, color=GREEN))
    assert colored(image, GREEN) is None


def test_a_prompt_too_long_for_its_place_is_cut_and_never_widens_the_sheet(run):
    short = sheet(run, drawn(run, 0), drawn(run, 40)).size
    long = "a very long prompt, " * 500
    assert sheet(run, drawn(run, 0, prompt=long), drawn(run, 40, prompt=long)).size == short


def test_a_prompt_of_several_lines_is_shown_on_one(run):
    one, two = (sheet(run, drawn(run, 0, prompt=text), drawn(run, 40)) for text in ("ein Bär, rot", "ein Bär,\n  rot"))
    assert one.tobytes() == two.tobytes()


def test_a_new_sheet_replaces_the_old_one(run):
    first = drawn(run, 0)
    sheet(run, first, drawn(run, 40, color=(0, 0, 255)))
    assert colored(sheet(run, first, drawn(run, 80, color=GREEN)), (0, 0, 255)) is None


def strip(prompts, images):
    with Image.open(io.BytesIO(strength_sheet(prompts, images))) as image:
        return image.convert("RGB")


def shades(rows, size=(64, 64)):
    """An image for each place of a strip, each of a red of its own, darker than any text."""
    return [Image.new("RGB", size, (10 + number, 0, 0)) for number in range(rows * len(STRENGTHS))]


def place(image, number):
    """The box (left, top, right, bottom) where image `number` stands."""
    return image.getchannel("R").point([255 * (red == 10 + number) for red in range(256)]).getbbox()


@pytest.mark.parametrize(
    ("file", "name"),
    [("ana.safetensors", "ana.strength.png"), ("v1.5-000040.safetensors", "v1.5-000040.strength.png")],
)
def test_a_strip_is_named_after_its_lora_file(file, name):
    assert strip_name(file) == name


def test_a_strip_has_a_row_for_each_prompt_and_a_column_for_each_strength():
    image = strip(["ein Bär", "ein Haus"], shades(2))
    boxes = [place(image, number) for number in range(12)]
    assert {(right - left, bottom - top) for left, top, right, bottom in boxes} == {(CELL_PX, CELL_PX)}
    assert [box[0] for box in boxes[:6]] == [GAP_PX + column * (CELL_PX + GAP_PX // 2) for column in range(6)]
    assert [box[0] for box in boxes[:6]] == [box[0] for box in boxes[6:]]
    assert [box[1] for box in boxes] == [TOP_PX] * 6 + [TOP_PX + CELL_PX + UNDER_PX] * 6
    assert image.width == boxes[5][2] + GAP_PX


@pytest.mark.parametrize(("size", "cell"), [((512, 768), (128, 192)), ((96, 48), (192, 96))])
def test_a_strip_of_images_that_are_not_square_leaves_no_gaps(size, cell):
    image = strip(["ein Bär"], shades(1, size))
    left, top, right, bottom = place(image, 0)
    assert (right - left, bottom - top) == cell
    assert place(image, 1)[0] == right + GAP_PX // 2


def test_strengths_stand_over_a_strip_and_the_prompt_under_it():
    image, bare = (strip([prompt], shades(1)) for prompt in ("ein Bär", ""))
    under = (0, TOP_PX + CELL_PX, image.width, image.height)
    assert len(image.crop((0, 0, image.width, TOP_PX)).getcolors()) > 1
    assert image.crop((0, 0, image.width, under[1])).tobytes() == bare.crop((0, 0, bare.width, under[1])).tobytes()
    assert len(image.crop(under).getcolors()) > len(bare.crop(under).getcolors()) == 1


def test_a_prompt_too_long_for_a_strip_is_cut():
    assert strip(["a very long prompt, " * 500], shades(1)).size == strip(["a prompt"], shades(1)).size
