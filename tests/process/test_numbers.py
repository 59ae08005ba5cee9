"""Real trainings whose numbers go wrong, or would if the engine did not watch: data that vanishes, divergence."""

import shutil
from functools import partial

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from assets.pocket.build.check import SHEET_CONCEPTS
from assets.pocket.build.common import BASE_STYLES, caption
from trainer.__main__ import main
from trainer.contract.events import RunFailed, RunStarted, Step, Warned, read_events
from trainer.contract.home import POCKET
from trainer.engine import loop
from trainer.engine.data import cache


def train(run):
    return main([str(run.path)])


def events(run, kind):
    return [event for event in read_events(run.events_file)[0] if isinstance(event, kind)]


def weights(run):
    return load_file(run.path / "bälle.safetensors")


@pytest.fixture
def emptied(monkeypatch):
    """Let something happen to a run's cache before each of these steps, with nothing of it in memory."""
    plain = loop.update

    def arrange(run, steps, harm):
        left = list(steps)

        def update(training, step):
            if left and step == left[0]:
                left.pop(0)
                harm(run.home.cache)
            return plain(training, step)

        monkeypatch.setattr(cache, "KEPT_BYTES", 0)
        monkeypatch.setattr(loop, "update", update)

    return arrange


def one_deleted(folder):
    next(path for path in folder.rglob("*.entry")).unlink()


def all_flipped(folder):
    for path in folder.rglob("*.entry"):
        data = bytearray(path.read_bytes())
        data[-3] ^= 4
        path.write_bytes(data)


@pytest.mark.parametrize("harm", [shutil.rmtree, one_deleted, all_flipped])
def test_what_is_lost_from_the_cache_is_encoded_again_and_the_result_is_the_same(new_run, emptied, harm):
    settings = {"dataset": {"caption_dropout": 0.2}, "adapter": {"dropout": 0.1}}
    whole, harmed = new_run("whole", **settings), new_run("harmed", **settings)
    assert train(whole) == 0
    emptied(harmed, [4, 7], harm)
    assert train(harmed) == 0
    warned = [event for event in events(harmed, Warned) if event.code == "cache_entry_gone"]
    assert warned
    assert all(".entry" in event.message for event in warned)
    assert [event.resumed_at for event in events(harmed, RunStarted)][1] in (4, 5, 6)
    ours, theirs = weights(harmed), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_cache_that_somebody_deletes_again_and_again_ends_the_run_with_all_saved(new_run, emptied):
    run = new_run()
    emptied(run, range(1, 10), partial(shutil.rmtree, ignore_errors=True))
    assert train(run) == 2
    (failed,) = events(run, RunFailed)
    assert failed.code == "cache_entry_gone"
    assert len(events(run, RunStarted)) == 1 + loop.ENCODED_AGAIN
    newest = max(int(path.name) for path in run.checkpoints.iterdir())
    assert newest == events(run, Step)[-1].step


@pytest.fixture
def known(tmp_path):
    """Images that the built-in model has generated itself, with their captions: of these its loss is low."""
    with Image.open(POCKET / "sheet.png") as sheet:
        for place, icon in enumerate(SHEET_CONCEPTS[:8]):
            sheet.crop((place * 64, 0, place * 64 + 64, 64)).save(tmp_path / f"{place}.png")
            (tmp_path / f"{place}.txt").write_text(caption(icon, BASE_STYLES[place % 2]))
    return tmp_path


def test_a_training_that_diverges_without_nan_says_so_soon_and_ends_with_it(new_run, known):
    wild = {"adapter": {"rank": 2, "alpha": 64.0}, "optimizer": {"learning_rate": 0.1, "warmup": 0.0}}
    run = new_run(model={"base_model": "pocket"}, dataset={"images": str(known), "views": 5}, **wild)
    assert train(run) == 0
    view = run.view()
    assert view.diverged
    step = int(view.diverged.message.partition("at step ")[2].partition(" ")[0])
    assert step <= 20
    assert "optimizer.learning_rate" in view.diverged.hint


def test_a_sound_training_is_not_disturbed_by_the_yardstick(new_run, monkeypatch):
    settings = {"dataset": {"views": 6, "caption_dropout": 0.2}, "adapter": {"dropout": 0.1, "text_encoder": True}}
    watched, unwatched = new_run("watched", **settings), new_run("unwatched", **settings)
    assert train(watched) == 0
    assert watched.view().diverged is None
    monkeypatch.setattr("trainer.engine.watch.anomalies.Yardstick.asks", lambda *_: False)
    assert train(unwatched) == 0
    ours, theirs = weights(watched), weights(unwatched)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def bare(run):
    """The run's images without their captions, in a folder of their own."""
    folder = run.path.parent / "ohne Worte ü"
    shutil.copytree(run.config().dataset.images, folder, ignore=shutil.ignore_patterns("*.txt"))
    return str(folder)


@pytest.mark.parametrize("trigger_word", ["", "ohwx"])
def test_images_without_a_caption_are_learned_where_the_base_is_kept_without_one(new_run, trigger_word):
    dataset = {"caption_dropout": 0.5, "trigger_word": trigger_word, "images": bare(new_run())}
    run = new_run(dataset=dataset, objective={"keep_uncaptioned": True})
    assert train(run) == 0
    steps = events(run, Step)
    assert all(step.grad_norm > 0 for step in steps)
    assert all(weight.abs().max() > 0 for weight in weights(run).values() if weight.dim() > 1)


@pytest.mark.parametrize(
    ("dataset", "objective"),
    [
        ({"caption_dropout": 1.0}, {"keep_uncaptioned": True}),
        ({"masked_black": True}, {"mask_keep": 0.0}),
    ],
    ids=["every caption dropped", "masks that show nothing"],
)
def test_a_run_that_can_learn_nothing_says_so_and_fails(new_run, dataset, objective):
    dataset = dict(dataset)
    if dataset.pop("masked_black", False):
        folder = new_run().path.parent / "schwarz"
        shutil.copytree(new_run().config().dataset.images, folder)
        for path in [path for path in folder.iterdir() if path.suffix == ".png"]:
            with Image.open(path) as image:
                Image.new("L", image.size, 0).save(path.with_name(f"{path.stem}.mask.png"))
        dataset["images"] = str(folder)
    run = new_run(dataset=dataset, objective=objective)
    assert train(run) == 2
    (failed,) = events(run, RunFailed)
    assert failed.code == "nothing_learned"
