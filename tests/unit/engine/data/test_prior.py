import shutil
from collections import Counter

import pytest
import torch

from trainer.__main__ import main
from trainer.contract.errors import InvalidSettings
from trainer.contract.events import EventLog, RunFinished, read_events
from trainer.contract.settings.config import validated
from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.captions import Item
from trainer.dataset.views import plan
from trainer.engine import loop
from trainer.engine.data.batches import samples_of_step
from trainer.engine.data.prior import ClassImages, class_prompts, without_trigger
from trainer.engine.fingerprint import changes
from trainer.engine.objectives import sample_rng, training_loss
from trainer.engine.prepare import prepare
from trainer.engine.savings import Ladder

PROTECTED = {"prior_preservation": True, "class_prompt": "ball", "class_images": 3}


def prepared(run):
    with EventLog(run.events_file) as log:
        return prepare(run, log, Ladder(run.config()))


def test_the_base_draws_once_and_later_runs_find_its_images(new_run, monkeypatch):
    first = prepared(new_run(dataset=PROTECTED))
    files = sorted((first.run.home.cache / "drawn").iterdir())
    assert len(files) == 3
    assert first.data.class_images.buckets == first.data.buckets[:3]  # so that they share forward passes
    monkeypatch.setattr("trainer.engine.data.prior.ClassImages._generate", lambda *_: pytest.fail("drawn again"))
    again = prepared(new_run(dataset=PROTECTED))
    assert torch.equal(
        again.data.class_images.posteriors[0, False].mean, first.data.class_images.posteriors[0, False].mean
    )


@pytest.mark.parametrize(("wish", "reason"), [("stop", "stopped"), ("pause", "paused")])
def test_asked_to_end_while_they_are_drawn_the_run_ends_at_once_and_draws_on_later(new_run, monkeypatch, wish, reason):
    run = new_run(dataset={**PROTECTED, "views": 1})
    with monkeypatch.context() as patch:
        patch.setattr(ClassImages, "_generate", asking_once(run, wish, ClassImages._generate))
        assert main([str(run.path)]) == 0
    (ended,) = [event for event in read_events(run.events_file)[0] if isinstance(event, RunFinished)]
    assert (ended.reason, ended.step) == (reason, 0)
    drawn = list((run.home.cache / "drawn").iterdir())
    assert len(drawn) == 1
    assert not list(run.path.glob("*.safetensors"))
    assert main([str(run.path)]) == 0
    assert run.status() == "completed"
    assert len(list((run.home.cache / "drawn").iterdir())) == 3


def asking_once(run, wish, plain):
    def draw(*given):
        plain(*given)
        run.request(wish)

    return draw


def test_a_damaged_image_is_drawn_again(new_run):
    first = prepared(new_run(dataset=PROTECTED))
    file = min((first.run.home.cache / "drawn").iterdir())
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    prepared(new_run(dataset=PROTECTED))
    assert file.read_bytes() == whole


def test_a_step_learns_from_both_and_keeps_the_base_at_its_own(new_run):
    training = prepared(new_run(dataset=PROTECTED))
    steps = range(training.plan.steps)
    chosen = [loop.samples_of_step(step, training.plan, training.data, training.config.dataset, 42) for step in steps]
    with_both = next(step for step in steps if {sample.is_class_image for sample in chosen[step]} == {True, False})
    batch = loop.batch_of(training, chosen[with_both])
    assert batch.is_class_image.tolist() == [sample.is_class_image for sample in chosen[with_both]]
    rng = [sample_rng(42, with_both, sample.index) for sample in chosen[with_both]]
    with torch.no_grad():
        losses = training_loss(training.family.predict, training.base_prediction, batch, training.schedule, rng)
    assert losses[batch.is_class_image].max() < 1e-6, "the adapter has learnt nothing yet: it answers as the base does"
    assert losses[~batch.is_class_image].min() > 1e-3
    loss, norm = loop.update(training, with_both)
    assert loss > 0
    assert norm > 0


@pytest.mark.parametrize(("share", "batch", "accumulation"), [(0.25, 4, 1), (0.25, 1, 1), (0.1, 3, 2), (0.5, 2, 1)])
def test_own_images_are_shown_as_often_as_without_protection(new_run, share, batch, accumulation):
    training = prepared(new_run(dataset=PROTECTED))
    settings = DatasetSettings(
        **PROTECTED, class_share=share, batch_size=batch, accumulation=accumulation, views=9, resolution=64
    )
    made = plan(5, settings)
    samples = [s for step in range(made.steps) for s in samples_of_step(step, made, training.data, settings, 1)]
    own = Counter(sample.item for sample in samples if not sample.is_class_image)
    drawn = Counter(sample.item for sample in samples if sample.is_class_image)
    assert set(own.values()) == {9}
    assert max(drawn.values()) - min(drawn.values()) <= 1
    assert drawn.total() / len(samples) == pytest.approx(share, abs=0.01)
    assert made.passes(made.steps) == 9


def test_what_is_drawn_is_told_without_trigger_words_or_by_its_own_prompt(tmp_path):
    items = [
        Item(tmp_path / "a.png", text, 64, 64) for text in ("mimi, a cat", "photo of Mimi, sleeping", "a cat", "mimics")
    ]
    settings = DatasetSettings(prior_preservation=True, trigger_word="mimi")
    assert class_prompts(items, settings, 0) == ["a cat", "photo of, sleeping", "mimics"]
    assert class_prompts(items, settings.model_copy(update={"class_prompt": "a pet"}), 0) == ["a pet"]
    assert class_prompts(items, DatasetSettings(trigger_word="mimi"), 0) == []
    assert without_trigger("mimi", "mimi") == ""


def test_protection_needs_to_know_what_is_learnt_from_what_is_kept():
    with pytest.raises(InvalidSettings, match="class_prompt"):
        validated({"dataset": {"prior_preservation": True}})
    validated({"dataset": {"prior_preservation": True, "concepts": [{"images": "x", "trigger_word": "ana"}]}})


def test_class_images_of_ones_own_take_the_place_of_generated_ones(new_run, images, tmp_path, monkeypatch):
    monkeypatch.setattr(ClassImages, "_generate", lambda *_: pytest.fail("generated"))
    own = tmp_path / "reg"
    shutil.copytree(images, own)
    for number, image in enumerate(sorted(own.glob("*.png"))):
        image.with_suffix(".txt").write_text(f"a cube {number}")
    concept = {"images": str(own), "class_images": True}
    training = prepared(new_run(dataset={**PROTECTED, "concepts": [concept], "flip": True, "trigger_word": "zwx"}))
    data = training.data
    assert {item.path.parent for item in data.items} == {images}
    assert {item.path.parent for item in data.class_images.items} == {own}
    shown = [one for step in range(training.plan.steps) for one in loop.samples_at(training, step)[0]]
    classes = [one for one in shown if one.is_class_image]
    assert len(classes) == training.plan.base_views > 0
    assert {one.caption for one in classes} <= {f"a cube {number}" for number in range(len(data.class_images.items))}
    assert not any(one.mirrored for one in classes)


def test_a_changed_class_image_of_ones_own_is_noticed_on_resume(new_run, images, tmp_path):
    own = tmp_path / "reg"
    shutil.copytree(images, own)
    run = new_run(dataset={"concepts": [{"images": str(own), "class_images": True}]})
    before = prepared(run)
    (own / "image 1.txt").write_text("another")
    after = prepared(run)
    assert before.data.fingerprint() != after.data.fingerprint()
    assert changes(before.inputs, after.inputs) == ["the caption of image 1.png (concept 1) changed"]


def test_a_run_with_class_images_of_ones_own_ends_well(new_run, images):
    run = new_run(dataset={"concepts": [{"images": str(images), "class_images": True}], "views": 2})
    assert main([str(run.path)]) == 0
    assert run.status() == "completed"
