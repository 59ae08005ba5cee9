"""A project as one file, out of one home and into another."""

import tomllib

import pytest

from trainer.console.main import main
from trainer.contract.errors import FileExists, InvalidSettings
from trainer.contract.foreign import ForeignFile
from trainer.contract.home import Home
from trainer.contract.presets import overlay, save_preset
from trainer.contract.settings.config import validated
from trainer.contract.wording import for_console
from trainer.projects.project import Project
from trainer.projects.transfer import entered_as_text, export_to, exported, import_project
from trainer.runs.errors import NewerVersion


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "here")


@pytest.fixture
def other(tmp_path):
    return Home(tmp_path / "there")


def written(tmp_path, text, name="Omas Bilder ü.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_out_and_in_again_it_is_the_same(home, other, tmp_path):
    project = Project.create(home, "Omas Bilder ü")
    project.enter({"preset": "sdxl-style", "dataset.images": "C:\\new\\ü", "optimizer.learning_rate": "2e-"})
    export_to(project, tmp_path / "a.toml")
    made = import_project(other, tmp_path / "a.toml")
    assert made.name == project.name
    assert made.read().values == project.read().values
    assert import_project(other, tmp_path / "a.toml").name == "Omas Bilder ü 2"
    assert import_project(other, tmp_path / "a.toml", name="ben").name == "ben"


def test_nothing_is_overwritten(home, tmp_path):
    target = written(tmp_path, "mine")
    with pytest.raises(FileExists):
        export_to(Project.create(home, "ana"), target)
    assert target.read_text() == "mine"


def test_a_preset_of_one_s_own_goes_along(home, other, tmp_path):
    save_preset(home.presets, "mine", validated({"adapter": {"rank": 3}, "goal": "concept"}), "Mine.")
    project = Project.create(home, "ana", {"preset": "mine", "adapter.alpha": 2.0})
    made = import_project(other, written(tmp_path, exported(project)))
    config, _ = overlay(made.layers())
    assert (config.adapter.rank, config.adapter.alpha, config.goal, config.preset) == (3, 2.0, "concept", "")
    assert made.name == "ana"


def test_a_preset_that_is_gone_keeps_nobody_from_leaving(home, other, tmp_path):
    project = Project.create(home, "ana", {"preset": "gone", "adapter.alpha": 2.0})
    made = import_project(other, written(tmp_path, exported(project)))
    assert made.read().values == {"preset": "gone", "adapter.alpha": 2.0}


def test_a_project_s_file_is_settings_for_config_too(home, images, capsys):
    file = Project.create(home, "ana", {"preset": "pocket-style", "adapter.rank": 4}).file
    flags = ["--config", str(file), "--preset", "pocket-style", "--images", str(images), "--home", str(home.root)]
    assert main(["train", *flags, "--check"]) == 0
    assert "file project.toml" in capsys.readouterr().out


def test_an_older_file_of_settings_is_a_project_too(other, tmp_path):
    text = 'preset = "pocket-style"\n[optimizer]\nschedule = "linear"\n[dataset]\nprotect = true\n'
    made = import_project(other, written(tmp_path, text))
    assert made.name == "Omas Bilder ü"
    values = {"preset": "pocket-style", "optimizer.lr_scheduler": "linear", "dataset.prior_preservation": True}
    assert made.read().values == values


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("format = 2\n", NewerVersion, "newer version"),
        ('format = "x"\n', NewerVersion, "newer version"),
        ("[adapter\nrank = 4", InvalidSettings, "cannot be read"),
        ("[adapter]\nrnak = 4", InvalidSettings, "rnak"),
        ("[adapt]\nrank = 4", InvalidSettings, "adapt"),
        ("rank = 4", InvalidSettings, "rank"),
        ("", None, ""),
        ('name = "a/b"\n', InvalidSettings, "name"),
        ('[network_arguments]\nnetwork_module = "networks.lora"\nnetwork_dim = 8\n', ForeignFile, "sd-scripts"),
    ],
)
def test_a_file_that_is_none_is_refused_as_what_it_is_and_nothing_is_made(other, tmp_path, text, error, words):
    source = written(tmp_path, text)
    if error is None:
        assert import_project(other, source).read().values == {}
        return
    with pytest.raises(error) as told:
        import_project(other, source)
    assert words in f"{told.value.message} {told.value.hint}"
    assert Project.all(other) == []
    assert source.read_text() == text


def test_the_console_lists_takes_out_and_takes_in(home, other, tmp_path, capsys):
    Project.create(home, "ana", {"preset": "sdxl-style", "dataset.images": "/bilder"})
    target = tmp_path / "ana ü.toml"
    assert main(["projects", "--home", str(home.root)]) == 0
    assert "sdxl-style · /bilder · 0 runs" in capsys.readouterr().out
    assert main(["projects", "--export", "ANA", "--to", str(target), "--home", str(home.root)]) == 0
    assert tomllib.loads(target.read_text())["dataset"] == {"images": "/bilder"}
    assert main(["projects", "--import", str(target), "--home", str(other.root)]) == 0
    assert Project.named(other, "ana").read().values == {"preset": "sdxl-style", "dataset.images": "/bilder"}
    assert main(["projects", "--export", "ana", "--home", str(home.root)]) == 2
    assert main(["projects", "--export", "nobody", "--to", str(tmp_path / "x"), "--home", str(home.root)]) == 2
    capsys.readouterr()


def test_one_that_cannot_be_read_hides_no_other(home, capsys):
    Project.create(home, "ana").file.write_text("format = 9")
    Project.create(home, "ben").file.write_text("[")
    Project.create(home, "cleo")
    assert main(["projects", "--home", str(home.root)]) == 0
    said = capsys.readouterr()
    assert all(name in said.out + said.err for name in ("ana", "ben", "cleo", "newer version", "cannot be read"))


def test_a_project_is_trained_by_its_name_and_flags_count_more(home, images, capsys):
    Project.create(home, "ana", {"preset": "pocket-style", "dataset.images": str(images), "adapter.rank": 4})
    flags = ["train", "--project", "Ana", "--adapter.alpha", "2", "--check", "--home", str(home.root)]
    assert main(flags) == 0
    said = capsys.readouterr().out
    assert "project ana" in said
    assert "5 images × 38 views would be 190; --dataset.min_total_views 2000 makes it 400 each." in " ".join(
        (main([*flags, "--dataset.min_total_views", "2000"]), capsys.readouterr().out)[1].split()
    )
    assert main([*flags, "--optimizer.text_learning_rate", "1e-4"]) == 0
    assert "--optimizer.text_learning_rate 0.0001 has no effect here." in " ".join(capsys.readouterr().out.split())
    assert main([*flags, "--preset", "sdxl-style"]) == 0
    assert "preset sdxl-style" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("network_dim = 32", "--adapter.rank"),
        ("[adapter]\nnetwork_dim = 32", "--adapter.rank"),
        ("[optimizer]\nunet_lr = 1e-4", "--optimizer.learning_rate"),
        ('[optimizer]\noptimizer_type = "AdamW8bit"', "AdamW is used"),
        ("[optimizer]\nlr_scheduler_num_cycles = 3", "cosine, linear or constant"),
        ("[adapter]\nrnak = 3", "Did you mean adapter.rank?"),
    ],
)
def test_another_program_s_name_in_a_text_is_answered_with_ours(text, hint):
    with pytest.raises(InvalidSettings) as told:
        entered_as_text(text)
    assert hint in for_console(told.value.hint)
