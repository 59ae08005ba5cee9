"""What a person enters is kept on disk, field by field, whatever it is."""

import os
import threading
import tomllib

import pytest

from trainer.contract.errors import InvalidSettings, UnknownPreset
from trainer.contract.home import Home
from trainer.contract.ours import NotOurs
from trainer.contract.presets import overlay, save_preset
from trainer.contract.settings.config import validated
from trainer.projects.errors import ProjectMissing
from trainer.projects.project import FILE, Project
from trainer.runs.errors import NewerVersion
from trainer.runs.folder import RunFolder


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "Zuhause ü")


@pytest.fixture
def project(home):
    return Project.create(home, "Omas Bilder ü")


ENTERED = {
    "preset": "sdxl-character",
    "goal": "character",
    "dataset.images": "/home/oma/Bilder ü",
    "dataset.trigger_word": 'an "ä" \\ n\n\t\x07',
    "dataset.flip": True,
    "dataset.concepts": [{"images": "C:\\train\\new", "weight": 2.0}],
    "adapter.rank": 16,
    "optimizer.learning_rate": 2e-4,
    "output.name": "",
    "preview.prompts": ["a", "b, c"],
}


def test_everything_entered_comes_back(home, project):
    assert project.read().values == {}
    assert project.enter(ENTERED).values == ENTERED
    assert Project.named(home, "Omas Bilder ü").read().values == ENTERED


@pytest.mark.parametrize("typed", ["", "2e-", "1,5", "-", "0x", "ü" * 1000, "a\nb", "None", "\ud800", "\x00", 10**30])
def test_what_is_not_allowed_yet_is_kept_as_it_was_typed(project, typed):
    project.enter({"optimizer.learning_rate": typed, "adapter.rank": 8})
    kept = project.read().values
    assert kept["adapter.rank"] == 8
    assert kept["optimizer.learning_rate"] == (typed if typed != "\ud800" else "?")
    with pytest.raises(InvalidSettings):
        overlay(project.layers())


def test_a_field_given_up_is_the_preset_s_again(project):
    project.enter({"preset": "pocket-style", "adapter.rank": 4, "adapter.alpha": 2.0})
    assert project.enter({"adapter.rank": None}).values == {"preset": "pocket-style", "adapter.alpha": 2.0}
    config, origins = overlay(project.layers())
    assert (config.adapter.rank, origins["adapter.rank"]) == (16, "preset pocket-style")
    assert (config.adapter.alpha, origins["adapter.alpha"]) == (2.0, "project Omas Bilder ü")
    assert config.project == "Omas Bilder ü"


def test_of_two_tabs_each_keeps_the_other_s_fields_and_the_last_write_to_a_field_counts(home, project):
    other = Project.named(home, project.name)
    seen = project.enter({"adapter.rank": 4, "output.name": "one"}).changes
    assert other.enter({"output.name": "two"}).values == {"adapter.rank": 4, "output.name": "two"}
    assert project.read().changes == seen + 1, "by which the first one sees that there is something new"


def test_many_at_once_lose_nothing(home, project):
    def type_in(number):
        for value in range(20):
            Project.named(home, project.name).enter({f"preview.field{number}": value})

    threads = [threading.Thread(target=type_in, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert project.read().values == {f"preview.field{number}": 19 for number in range(4)}
    assert project.read().changes == 81, "one when it was made, and eighty"
    assert [path.name for path in project.path.glob(".*.part")] == []


def test_equal_names_are_numbered(home):
    names = [Project.create(home, name).name for name in ("ana", "ana", "Ana", "Project", "Project")]
    assert names == ["ana", "ana 2", "Ana 3", "Project", "Project 2"]


@pytest.mark.parametrize("name", ["a/b", "..", ".x", "con", "x" * 300, 'a"b"c', " . "])
def test_a_name_that_no_folder_can_have_everywhere_is_refused(home, name):
    with pytest.raises(InvalidSettings, match="name"):
        Project.create(home, name)
    assert Project.all(home) == []


def test_pasted_around_a_name_nothing_counts(home):
    assert Project.create(home, ' "ana" ').name == "ana"
    assert Project.named(home, "'ANA'").name == "ana"


@pytest.mark.parametrize("name", ["nobody", "", "..", "../runs", "ana/../ana"])
def test_a_project_that_is_not_there_is_named_with_those_that_are(home, name):
    Project.create(home, "ana")
    with pytest.raises(ProjectMissing, match="No project called") as error:
        Project.named(home, name)
    assert "ana" in error.value.hint


def test_the_one_changed_last_is_the_first(home):
    first, second = Project.create(home, "one"), Project.create(home, "two")
    os.utime(second.file, ns=(1, 1))
    os.utime(second.path, ns=(1, 1))
    assert [project.name for project in Project.all(home)] == ["one", "two"]
    second.enter({"adapter.rank": 2})
    assert Project.all(home) == [second, first]


@pytest.mark.parametrize(
    "content", [b"rank = ", b"\xff\xfe\x00", b"[a]\n[a]\n", b"x" * (5 << 20), b"a = " + b"[" * 9999, b"dataset = 5\n"]
)
def test_what_cannot_be_read_is_kept_aside_and_never_overwritten(project, content):
    project.file.write_bytes(content)
    assert project.read().unreadable
    assert project.file.read_bytes() == content, "reading changes nothing"
    now = project.enter({"adapter.rank": 2})
    assert (now.values, now.unreadable) == ({"adapter.rank": 2}, False)
    (aside,) = project.path.glob("unreadable *.toml")
    assert aside.read_bytes() == content
    project.file.write_bytes(content[::-1])
    project.enter({"adapter.rank": 3})
    assert {path.read_bytes() for path in project.path.glob("unreadable *.toml")} == {content, content[::-1]}


def test_a_newer_one_is_neither_read_nor_changed(project):
    newer = b'format = 2\nrooms = ["start"]\n'
    project.file.write_bytes(newer)
    for act in (project.read, lambda: project.enter({"adapter.rank": 2})):
        with pytest.raises(NewerVersion, match="newer version"):
            act()
    assert project.file.read_bytes() == newer


def test_settings_that_are_not_known_here_stay(project):
    project.enter({"adapter.rank": 2})
    project.file.write_text(project.file.read_text() + '\n[another]\nsetting = "x"\n')
    project.enter({"adapter.rank": 3})
    assert tomllib.loads(project.file.read_text())["another"] == {"setting": "x"}


def test_a_setting_s_earlier_name_is_read_as_today_s(project):
    project.file.write_text('[optimizer]\nschedule = "linear"\n')
    assert project.read().values == {"optimizer.lr_scheduler": "linear"}


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("name", [FILE, ".project.lock"])
def test_a_link_in_the_folder_leads_nowhere(project, tmp_path, name):
    outside = tmp_path / "outside"
    outside.write_text("[adapter]\nrank = 9\n")
    (project.path / name).unlink(missing_ok=True)
    (project.path / name).symlink_to(outside)
    with pytest.raises(NotOurs):
        project.enter({"adapter.rank": 2})
    assert outside.read_text() == "[adapter]\nrank = 9\n"


@pytest.mark.skipif(os.name == "nt", reason="hard links need rights on Windows")
def test_a_lock_that_is_another_file_too_is_not_emptied(project, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (project.path / ".project.lock").unlink(missing_ok=True)
    os.link(outside, project.path / ".project.lock")
    with pytest.raises(NotOurs):
        project.enter({"adapter.rank": 2})
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("place", ["dataset", "dataset.", "", "format", "x.y", "dataset.a.b", ".rank"])
def test_a_field_of_no_setting_is_refused_and_what_was_there_stays(project, place):
    project.enter({"dataset.images": "/x"})
    with pytest.raises(InvalidSettings, match="There is no setting"):
        project.enter({"adapter.rank": 2, place: "y"})
    assert project.read().values == {"dataset.images": "/x"}


def test_too_much_is_refused_and_what_was_there_stays(project):
    project.enter({"adapter.rank": 2})
    with pytest.raises(InvalidSettings, match="would take"):
        project.enter({"preview.negative_prompt": "x" * (5 << 20)})
    assert project.read().values == {"adapter.rank": 2}


def test_its_runs_are_its_own(home, project):
    mine = RunFolder.create(home, validated({"project": project.name, "output": {"name": "ana"}}))
    RunFolder.create(home, validated({"output": {"name": "older"}}))
    RunFolder.create(home, validated({"project": "another", "output": {"name": "ana"}}))
    assert project.runs() == [mine]


def test_a_preset_that_is_gone_is_said_and_everything_else_stays(home, project):
    save_preset(home.presets, "mine", validated({"adapter": {"rank": 3}}), "")
    project.enter({"preset": "mine", "output.name": "ana"})
    assert overlay(project.layers())[0].adapter.rank == 3
    (home.presets / "mine.toml").unlink()
    with pytest.raises(UnknownPreset, match="mine"):
        project.layers()
    assert project.read().values == {"preset": "mine", "output.name": "ana"}
