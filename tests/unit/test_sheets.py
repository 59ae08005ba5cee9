import pytest
from PIL import Image

from trainer.contract.events import RunView, Sample
from trainer.contract.home import Home
from trainer.contract.runs import RunFolder
from trainer.contract.settings import validated
from trainer.contract.sheets import CELL_PX, before_after

GREEN = (0, 200, 0)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(Home(tmp_path), validated({"output": {"name": "bälle"}}))


def drawn(run, step, index=0, colour="red", size=(64, 64), prompt="ein Bär"):
    """A preview of one colour and its event."""
    file = f"samples/{step:06}-{index}.png"
    run.samples.mkdir(exist_ok=True)
    Image.new("RGB", size, colour).save(run.path / file)
    return Sample(step=step, index=index, prompt=prompt, seed=1, file=file)


def sheet(run, *samples):
    with Image.open(before_after(run, RunView(samples=list(samples)))) as picture:
        return picture.convert("RGB")


def coloured(picture, colour):
    """The box (left, top, right, bottom) around the pixels of exactly this colour."""
    mask = Image.new("1", picture.size)
    mask.putdata([pixel == colour for pixel in picture.get_flattened_data()])
    return mask.getbbox()


def test_the_sheet_lies_in_the_run_folder(run):
    written = before_after(run, RunView(samples=[drawn(run, 0), drawn(run, 40)]))
    assert written == run.path / "before-after.png"
    assert written.is_file()


@pytest.mark.parametrize("steps", [[], [0], [0, 0]], ids=["none", "one", "one step twice"])
def test_without_two_steps_to_compare_there_is_no_sheet(run, steps):
    assert before_after(run, RunView(samples=[drawn(run, step) for step in steps])) is None
    assert not (run.path / "before-after.png").exists()


def test_the_first_picture_stands_left_of_the_newest(run):
    picture = sheet(
        run, drawn(run, 0, colour=(255, 0, 0)), drawn(run, 20, colour=GREEN), drawn(run, 40, colour=(0, 0, 255))
    )
    before, after = coloured(picture, (255, 0, 0)), coloured(picture, (0, 0, 255))
    assert before[2] <= after[0]
    assert before[1] == after[1]
    assert coloured(picture, GREEN) is None


@pytest.mark.parametrize("size", [(64, 64), (512, 512), (300, 100), (100, 300), (512, 768), (1, 192)])
def test_a_picture_of_any_shape_fills_its_cell_and_stays_inside(run, size):
    left, top, right, bottom = coloured(sheet(run, drawn(run, 0), drawn(run, 40, colour=GREEN, size=size)), GREEN)
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


def test_a_prompt_with_only_one_picture_is_left_out(run):
    picture = sheet(run, drawn(run, 0), drawn(run, 40), drawn(run, 40, index=1, colour=GREEN))
    assert coloured(picture, GREEN) is None


def test_a_prompt_too_long_for_its_place_is_cut_and_never_widens_the_sheet(run):
    short = sheet(run, drawn(run, 0), drawn(run, 40)).size
    long = "a very long prompt, " * 500
    assert sheet(run, drawn(run, 0, prompt=long), drawn(run, 40, prompt=long)).size == short


def test_a_prompt_of_several_lines_is_shown_on_one(run):
    one, two = (sheet(run, drawn(run, 0, prompt=text), drawn(run, 40)) for text in ("ein Bär, rot", "ein Bär,\n  rot"))
    assert one.tobytes() == two.tobytes()


def test_a_new_sheet_replaces_the_old_one(run):
    first = drawn(run, 0)
    sheet(run, first, drawn(run, 40, colour=(0, 0, 255)))
    assert coloured(sheet(run, first, drawn(run, 80, colour=GREEN)), (0, 0, 255)) is None
