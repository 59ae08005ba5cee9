"""Trainings whose images, base model or VAE were moved: continued from where those are now, to the same bits."""

import shutil

import pytest
from safetensors.torch import load_file

from trainer.__main__ import main
from trainer.console.main import main as console
from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.events import RunFailed, RunFinished
from trainer.contract.home import CHECKOUT
from trainer.contract.wording import for_console
from trainer.dataset.errors import NoImages
from trainer.engine import loop
from trainer.planning.moving import move_inputs
from trainer.runs.errors import InputsMissing, RunBusy
from trainer.runs.folder import RunFolder
from trainer.runs.moved import missing


@pytest.fixture
def places(tmp_path, tiny_model, images):
    """A disk with images, two concepts, base model and VAE."""
    disk = tmp_path / "disk"
    for number, name in enumerate(("pictures", "concepts/ben", "concepts/cleo")):
        shutil.copytree(images, disk / name)
        (disk / name / "image 0.txt").write_text(f"a ball {number}")
    shutil.copytree(tiny_model, disk / "base")
    shutil.copytree(tiny_model / "vae", disk / "vae")
    return disk


@pytest.fixture
def run(new_run, places):
    """A run of four steps on that disk, stopped after two."""
    concepts = [str(places / "concepts" / "ben"), str(places / "concepts" / "cleo")]
    return new_run(
        model={"base_model": str(places / "base"), "vae": str(places / "vae")},
        dataset={"images": str(places / "pictures"), "concepts": concepts, "views": 1},
        output={"checkpoint_every": 1},
    )


def begin(run):
    """Train its first step."""
    update = loop.update

    def and_stop(training, step):
        run.request("stop")
        return update(training, step)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "update", and_stop)
        assert main([str(run.path)]) == 0
    assert run.view().ended.reason == "stopped"
    assert run.view().steps[-1].step == 1


def finished(run):
    """The LoRA of a run that is continued to its end."""
    code = main([str(run.path)])
    assert (code, type(run.view().ended)) == (0, RunFinished), run.view().ended
    assert run.view().started.resumed_at == 1
    return load_file(run.path / "bälle.safetensors")


def same(some, others):
    return some.keys() == others.keys() and all(some[key].equal(others[key]) for key in some)


def to_resume(run, *flags):
    """What the console is told to do."""
    return ["train", "--home", str(run.home.root), "--resume", run.path.name, *map(str, flags)]


@pytest.fixture
def expected(run):
    """What the run gives that is stopped and continued with nothing moved, and a copy of its home to continue from."""
    begin(run)
    kept = run.home.root.with_name("kept")
    shutil.copytree(run.home.root, kept)
    made = finished(run)
    shutil.rmtree(run.home.root)
    shutil.copytree(kept, run.home.root)
    return made


MOVES = {
    "pictures": ["--images", "{}"],
    "base": ["--base-model", "{}"],
    "vae": ["--vae", "{}"],
    "concepts": ["--moved", "{old}", "{}"],
}


def test_whatever_was_moved_is_found_where_it_is_now_and_gives_the_same_bits(run, places, expected, tmp_path):
    given = []
    for name, flags in MOVES.items():
        (places / name).rename(tmp_path / f"neu {name} ü")
        given += [flag.format(tmp_path / f"neu {name} ü", old=places / name) for flag in flags]
    assert main([str(run.path)]) == 2
    assert run.view().ended.code == "inputs_missing"
    assert console(to_resume(run, *given, "--queue")) == 0
    _wait(run)
    assert isinstance(run.view().ended, RunFinished)
    assert same(load_file(run.path / "bälle.safetensors"), expected)


def _wait(run):
    process = run.process()
    if process is not None:
        process.wait(120)


def test_one_pair_moves_a_whole_disk(run, places, expected, tmp_path):
    places.rename(tmp_path / "another disk")
    move_inputs(run, {}, [(str(places), str(tmp_path / "another disk"))])
    assert same(finished(run), expected)


def test_what_was_moved_twice_is_named_by_where_it_was_last(run, places, expected, tmp_path):
    for old, new in ((places, tmp_path / "a"), (tmp_path / "a", tmp_path / "b")):
        old.rename(new)
        move_inputs(run, {}, [(str(old), str(new))])
    assert same(finished(run), expected)


def test_other_images_in_the_new_place_are_refused_and_the_right_ones_taken_after(run, places, expected, tmp_path):
    right = (places / "pictures").rename(tmp_path / "right")
    wrong = shutil.copytree(right, tmp_path / "wrong")
    (wrong / "image 0.txt").write_text("something else")
    move_inputs(run, {"dataset.images": str(wrong)})
    assert main([str(run.path)]) == 2
    ended = run.view().ended
    assert isinstance(ended, RunFailed)
    assert ended.code == "resume_refused"
    assert "caption of image 0.png" in ended.message
    assert str(wrong) in ended.message
    move_inputs(run, {"dataset.images": str(right)})
    assert same(finished(run), expected)


def test_another_base_model_in_the_new_place_is_refused(run, places, tmp_path):
    begin(run)
    moved = (places / "base").rename(tmp_path / "base of another")
    weights = next((moved / "unet").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    for place in range(len(data) // 2 & ~7, len(data), 4):  # the lowest bit of many numbers
        data[place] ^= 1
    weights.write_bytes(data)
    move_inputs(run, {"model.base_model": str(moved)})
    assert main([str(run.path)]) == 2
    assert run.view().ended.code == "resume_refused"
    assert "base model" in run.view().ended.message


@pytest.mark.parametrize(
    ("names", "seen", "flags"),
    [
        (("pictures",), ["pictures"], ["--images DIR"]),
        (("base", "vae"), ["base", "vae"], ["--base-model PATH", "--vae PATH"]),
        (("concepts",), ["ben", "cleo"], ["--moved OLD NEW"]),
    ],
)
def test_what_is_missing_is_named_with_the_flags_that_say_where_it_is(run, places, names, seen, flags):
    for name in names:
        (places / name).rename(places / f"elsewhere {name}")
    with pytest.raises(InputsMissing) as refused:
        move_inputs(run, {})
    assert all(str(places) in refused.value.message and name in refused.value.message for name in seen)
    assert all(flag in for_console(refused.value.hint) for flag in flags)
    assert not run.moved_file.exists()


def test_a_new_place_without_what_is_wanted_is_not_noted(run, tmp_path):
    (tmp_path / "empty").mkdir()
    wrong = [
        ({"dataset.images": tmp_path / "empty"}, NoImages, "empty"),
        ({"dataset.images": tmp_path / "nowhere"}, InputsMissing, "nowhere"),
        ({"model.base_model": tmp_path / "empty"}, TrainerError, "empty"),
        ({"dataset.captions": tmp_path / "c.jsonl"}, InvalidSettings, "without"),
    ]
    for given, kind, seen in wrong:
        with pytest.raises(kind, match=seen):
            move_inputs(run, {place: str(path) for place, path in given.items()})
    with pytest.raises(InvalidSettings, match="reads nothing from"):
        move_inputs(run, {}, [(str(tmp_path / "x"), str(tmp_path))])
    assert not run.moved_file.exists()


def test_a_run_that_is_being_trained_keeps_its_places(run, places):
    run.claim()
    with pytest.raises(RunBusy):
        move_inputs(run, {"dataset.images": str(places / "pictures")})


@pytest.mark.parametrize("other", [["--adapter.rank", "8"], ["--preset", "sd15-style"], ["--check"], ["--name", "x"]])
def test_other_flags_are_refused_with_a_resume(run, capsys, other):
    assert console(to_resume(run, *other)) == 2
    assert "keeps its settings" in capsys.readouterr().out.replace("\n", " ")


def test_old_and_new_place_need_a_run(capsys):
    assert console(["train", "--preset", "pocket-style", "--moved", "a", "b"]) == 2
    assert "--resume" in capsys.readouterr().out


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"moved": 3}', '{"moved": {"a": 1}}'])
def test_a_damaged_note_of_places_counts_as_none(run, damaged):
    run.moved_file.write_text(damaged)
    assert run.config() == run.begun_with()


def test_a_home_that_is_moved_takes_dropped_images_with_it(new_run, images, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(images, home / "datasets" / "dropped-1")
    run = new_run(dataset={"images": str(home / "datasets" / "dropped-1"), "views": 1})
    home.rename(tmp_path / "anderswo")
    there = RunFolder.find(type(run.home)(tmp_path / "anderswo"), run.path.name)
    assert there.config().dataset.images == str(tmp_path / "anderswo" / "datasets" / "dropped-1")
    assert missing(there.config()) == []


def test_the_checkout_s_own_images_are_found_after_a_move(new_run):
    run = new_run(dataset={"images": "/old/atelier/assets/demo"})
    assert run.config().dataset.images == str(CHECKOUT / "assets" / "demo")
    elsewhere = new_run(dataset={"images": "/old/assets/no such"})
    assert elsewhere.config().dataset.images == "/old/assets/no such"
