"""Real `python -m trainer` processes on the tiny model."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import warm
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from site_at_work import until

from trainer.__main__ import main
from trainer.contract.events import RunFailed, RunFinished, RunStarted, Step, Warned, read_events
from trainer.engine import previews
from trainer.runs import process
from trainer.runs.errors import RunBusy
from trainer.runs.queue import Queue

CHECKOUT = Path(__file__).parents[2]


def train(run):
    """Run to the end; gives back the exit code."""
    return warm.start(run).wait()


def train_here(run):
    """The same without a process of its own, where nothing of the process matters: importing torch takes seconds."""
    return main([str(run.path)])


def events(run, kind):
    return [event for event in read_events(run.events_file)[0] if isinstance(event, kind)]


def adapter(run, step):
    return load_file(run.checkpoints / f"{step:06}" / "adapter.safetensors")


def wait_for_step(run, step, child):
    while child.poll() is None and not any(event.step >= step for event in events(run, Step)):
        time.sleep(0.02)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, images):
    """One whole run: 5 images x 4 views at batch 2 = 10 steps, text encoder included."""
    from trainer.contract.home import Home
    from trainer.contract.settings.config import validated
    from trainer.runs.folder import RunFolder

    config = validated(
        {
            "preset": "test",
            "model": {"base_model": str(tiny_model), "precision": "fp32", "device": "cpu"},
            "dataset": {
                "images": str(images),
                "views": 4,
                "batch_size": 2,
                "resolution": 64,
                "trigger_word": "sks",
                "caption_dropout": 0.2,
                "shuffle_tags": True,
                "flip": True,
            },
            "adapter": {"rank": 4, "alpha": 2.0, "text_encoder": True},
            "preview": {"steps": 2, "prompts": ["ball", "sks"]},
            "output": {"name": "geprüft", "files": 2, "checkpoint_every": 3},
        }
    )
    run = RunFolder.create(Home(tmp_path_factory.mktemp("home with ä")), config)
    assert train(run) == 0
    return run


def test_a_run_leaves_its_files_and_one_ending(finished):
    made = {str(path.relative_to(finished.path)) for path in finished.path.rglob("*") if path.is_file()}
    assert {"geprüft.safetensors", "geprüft-000005.safetensors", "geprüft.json", "geprüft.preview.png"} <= made
    assert {"samples/000000-0.png", "samples/000000-1.png", "samples/000010-1.png"} <= made
    assert [event.reason for event in events(finished, RunFinished)] == ["completed"]
    assert finished.status() == "completed"
    assert [event.step for event in events(finished, Step)] == list(range(1, 11))


def test_event_numbers_have_no_gaps(finished):
    assert [event.seq for event in read_events(finished.events_file)[0]] == list(
        range(len(read_events(finished.events_file)[0]))
    )


def test_the_file_says_what_was_trained_and_nothing_private(finished, tiny_model, images):
    with safe_open(finished.path / "geprüft.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_output_name"] == "geprüft"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "2.0")
    assert metadata["ss_network_module"] == "networks.lora"
    assert metadata["ss_v2"] == "False"
    assert metadata["modelspec.resolution"] == "64x64"
    assert metadata["modelspec.trigger_phrase"] == "sks"
    assert json.loads(metadata["ss_dataset_dirs"]) == {"1_geprüft": {"n_repeats": 1, "img_count": 5}}
    assert json.loads(metadata["ss_tag_frequency"])["1_geprüft"]["sks"] == 5
    assert json.loads(metadata["ss_bucket_info"])["buckets"]["0"]["count"] == 5
    assert metadata["ss_base_model_version"].startswith("atelier_")
    text = json.dumps(metadata)
    private = [str(images), str(tiny_model.parent), images.name, str(Path.home()), os.uname().nodename]
    assert not [word for word in private if word and word in text]


def test_the_preview_carries_its_parameters(finished):
    with Image.open(finished.samples / "000010-1.png") as image:
        assert image.size == (64, 64)
        assert "Seed: 1235" in image.info["parameters"]
        assert image.info["parameters"].startswith("sks\n")


@pytest.mark.usefixtures("finished")
def test_the_users_folder_is_only_read(images):
    assert sorted(path.suffix for path in images.iterdir()) == [".png"] * 5 + [".txt"] * 5


def test_a_second_run_reads_the_cache_and_repeats_the_first_bit_for_bit(finished, tmp_path):
    copy = tmp_path / "home" / "runs" / "again"
    copy.mkdir(parents=True)
    (copy / "control").mkdir()
    shutil.copy(finished.config_file, copy)
    shutil.copytree(finished.home.cache, tmp_path / "home" / "cache")
    run = type(finished)(copy)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in run.home.cache.rglob("*.safetensors"))
    assert process.start(run).wait(timeout=300) == 0  # a process with nothing in it yet
    assert sorted((path.name, path.stat().st_mtime_ns) for path in run.home.cache.rglob("*.safetensors")) == before
    ours, theirs = adapter(run, 10), adapter(finished, 10)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_stop_and_resume_equals_a_run_without_a_break(new_run):
    settings = {"dataset": {"views": 12, "caption_dropout": 0.2}, "adapter": {"dropout": 0.1, "text_encoder": True}}
    whole, broken = new_run("whole", **settings), new_run("broken", **settings)
    assert train(whole) == 0
    child = warm.start(broken)
    wait_for_step(broken, 4, child)
    broken.request("stop")
    assert child.wait() == 0
    (ending,) = events(broken, RunFinished)
    assert ending.reason == "stopped"
    assert 4 <= ending.step < 30
    assert (broken.path / f"bälle-{ending.step:06}.safetensors").exists()
    assert broken.status() == "stopped"
    assert train(broken) == 0
    assert events(broken, RunStarted)[-1].resumed_at == ending.step
    ours, theirs = adapter(broken, 30), adapter(whole, 30)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert any(tensor.abs().max() > 0 for name, tensor in ours.items() if "lora_up" in name)


def test_killed_at_any_moment_the_last_checkpoint_loads_and_the_run_ends_the_same(new_run):
    settings = {"dataset": {"views": 6}, "output": {"checkpoint_every": 2}}
    whole, killed = new_run("whole", **settings), new_run("killed", **settings)
    assert train(whole) == 0
    for step in (1, 8):
        child = warm.start(killed)
        wait_for_step(killed, step, child)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert killed.status() == "interrupted"
    assert train(killed) == 0
    assert killed.status() == "completed"
    ours, theirs = adapter(killed, 15), adapter(whole, 15)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [step.step for step in killed.view().steps] == list(range(1, 16))


def test_pause_saves_without_a_lora_file_and_ends(new_run):
    run = new_run(dataset={"views": 400})
    child = warm.start(run)
    wait_for_step(run, 2, child)
    run.request("pause")
    assert child.wait() == 0
    assert run.status() == "paused"
    assert not list(run.path.glob("*.safetensors"))
    assert list(run.checkpoints.iterdir())


def test_save_and_sample_now_are_honoured_while_training_goes_on(new_run):
    run = new_run(dataset={"views": 80}, preview={"every": 1_000_000}, output={"checkpoint_every": 1_000_000})
    child = warm.start(run)
    wait_for_step(run, 2, child)
    run.request("save")
    run.request("sample")
    assert child.wait() == 0
    view = run.view()
    assert any(0 < sample.step < 200 for sample in view.samples)
    assert any(0 < checkpoint.step < 200 for checkpoint in view.checkpoints)


def test_a_run_in_progress_cannot_be_started_twice(new_run):
    run = new_run(dataset={"views": 400})
    child = warm.start(run)
    wait_for_step(run, 1, child)
    with pytest.raises(RunBusy, match=str(child.pid)):
        process.start(run)
    run.request("stop")
    child.wait()


def test_a_run_that_fails_hands_over_to_the_one_that_waits(new_run):
    failing, waiting = new_run(model={"base_model": "nowhere"}), new_run(dataset={"views": 2})
    queue = Queue(failing.home)
    queue.home.queue_file.write_text(json.dumps({"v": 1, "waiting": [waiting.path.name]}))
    assert train(failing) == 2
    until(lambda: waiting.status() not in ("waiting", "running"), "the one that waits ends")
    assert waiting.status() == "completed"
    assert queue.waiting() == []


def test_changed_images_are_refused_on_resume(new_run, images, tmp_path):
    own = shutil.copytree(images, tmp_path / "own")
    run = new_run(dataset={"images": str(own), "views": 400})
    child = warm.start(run)
    wait_for_step(run, 2, child)
    run.request("stop")
    child.wait()
    (own / "image 0.txt").write_text("another caption")
    assert train_here(run) == 2
    assert events(run, RunFailed)[-1].code == "resume_refused"
    assert list(run.checkpoints.iterdir())


def all_bad(folder):
    for image in folder.glob("*.png"):
        image.write_bytes(image.read_bytes()[:60])  # the header is good


def test_a_broken_image_is_left_out_and_the_run_goes_on(new_run, images, tmp_path):
    own = shutil.copytree(images, tmp_path / "own")
    (own / "kaputt.png").write_bytes((own / "image 0.png").read_bytes()[:60])
    (own / "leer.jpg").touch()
    run = new_run(dataset={"images": str(own), "views": 1})
    assert train_here(run) == 0
    told = [warning for warning in events(run, Warned) if warning.code == "unreadable_image"]
    assert sorted(name for name in ("kaputt.png", "leer.jpg") for one in told if name in one.message) == [
        "kaputt.png",
        "leer.jpg",
    ]
    assert len(events(run, Step)) == 3  # 5 images, batch 2


def test_several_folders_with_weights_are_trained_at_several_sizes(new_run, images, tmp_path):
    other = shutil.copytree(images, tmp_path / "other")
    run = new_run(
        dataset={
            "images": str(images),
            "concepts": [{"images": str(other), "weight": 2.0, "trigger_word": "sks", "flip": True}],
            "further_resolutions": [48],
            "shuffle_tags": True,
            "tag_dropout": 0.2,
            "views": 1,
        }
    )
    assert train_here(run) == 0
    assert run.config().dataset.concepts[0].weight == 2.0
    assert len(events(run, Step)) == 5  # 10 images, batch 2


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "code"),
    [(all_bad, "nothing_to_train"), (empty, "no_images"), (shutil.rmtree, "folder_missing")],
)
def test_a_bad_data_set_is_one_failure_event_with_a_hint(new_run, images, tmp_path, damage, code):
    own = shutil.copytree(images, tmp_path / "own")
    damage(own)
    run = new_run(dataset={"images": str(own)})
    assert train_here(run) == 2
    (failure,) = events(run, RunFailed)
    assert failure.code == code
    assert str(own) in failure.message
    assert failure.hint
    assert run.status() == "failed"


@pytest.mark.parametrize(
    ("base_model", "code"), [("nowhere", "base_model_missing"), (str(CHECKOUT / "tests"), "not_a_base_model")]
)
def test_a_bad_base_model_is_named(new_run, base_model, code):
    run = new_run(model={"base_model": base_model})
    assert train_here(run) == 2
    (failure,) = events(run, RunFailed)
    assert (failure.code, base_model in failure.message) == (code, True)


def test_a_preview_that_fails_is_a_warning(new_run, monkeypatch):
    run = new_run()

    def fails(*_):
        raise ValueError("an image of 20 px")

    monkeypatch.setattr(previews, "png", fails)
    assert train_here(run) == 0
    warnings = [event for event in events(run, Warned) if event.code == "isolated_failure"]
    assert warnings
    assert "20" in warnings[0].message
