"""Which run and which project an address means."""

import pytest

from app.desk.in_view import Opened, opened_project, run_in_view
from trainer.contract.settings.config import validated
from trainer.projects.project import Project
from trainer.runs.folder import RunFolder


@pytest.fixture
def runs(home):
    """A run of ana, one of ben, and the newest of no project."""
    for name in ("ana", "ben"):
        Project.create(home, name, {"dataset.images": f"/{name}"})
    made = {}
    for project in ("ana", "ben", ""):
        config = validated({"output": {"name": project or "frei"}}).model_copy(update={"project": project})
        made[project] = RunFolder.create(home, config)
    return made


def test_a_named_run_then_the_projects_then_the_newest(home, runs):
    assert run_in_view(home, runs["ben"].path.name, "ana").path == runs["ben"].path
    assert run_in_view(home, "", "ana").path == runs["ana"].path
    assert run_in_view(home, "gone", "gone").path == RunFolder.all(home)[0].path


def test_without_runs_there_is_none(home):
    assert run_in_view(home, "any", "any") is None


def test_live_is_in_the_project_of_the_run_it_shows(home, runs):
    asked = Opened(project="ana", run=runs["ben"].path.name, live=True)
    assert opened_project(home, asked).name == "ben"
    assert opened_project(home, asked.model_copy(update={"live": False})).name == "ana"


@pytest.mark.usefixtures("runs")
def test_a_project_counts_before_images_and_a_deleted_one_does_not(home):
    assert opened_project(home, Opened(project="ana", images="/ben")).name == "ana"
    assert opened_project(home, Opened(project="gone", images="/ben")).name == "ben"
    assert opened_project(home, Opened(project="ana", new=True)) is None
