"""Class images of the user's own: which they are, their captions, and that they are never trained as the subject."""

import pytest
from PIL import Image

from trainer.contract.errors import InvalidSettings
from trainer.contract.settings.config import validated
from trainer.contract.settings.dataset import DatasetSettings
from trainer.dataset.class_images import class_images_of, with_regularization
from trainer.dataset.errors import FolderMissing, NothingToTrain
from trainer.dataset.scan import images_of
from trainer.dataset.views import plan


@pytest.fixture
def project(tmp_path):
    """A kohya_ss project: 3 images of the subject, 2 of its class, a sample."""
    files = [*(f"img/10_mira woman/{n}.png" for n in range(3)), *(f"reg/1_woman/{n}.png" for n in range(2))]
    for name in (*files, "model/sample/s.png"):
        file = tmp_path / "Projekt ü" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(file)
    (tmp_path / "Projekt ü" / "reg" / "1_woman" / "1.txt").write_text("{a|a} woman, park")
    return tmp_path / "Projekt ü"


def settings(**values):
    return validated({"dataset": values}).dataset


def test_a_projects_regularization_images_become_class_images(project):
    made = with_regularization(settings(images=str(project), trigger_word="mira"))
    (concept,) = made.concepts
    assert (concept.images, concept.class_images) == (str(project / "reg"), True)
    assert made.keeps_prior
    items, problems = images_of(made)
    assert {item.path.parent.name for item in items} == {"10_mira woman"}
    assert "class_folders" not in {problem.code for problem in problems}  # they are meant now
    assert [item.caption for item in class_images_of(made, 1)] == ["woman", "a woman, park"]
    assert with_regularization(made) == made


@pytest.mark.parametrize("chosen", ["img", "reg", "img/10_mira woman"])
def test_where_a_folder_of_it_is_chosen_there_are_none(project, chosen):
    made = with_regularization(settings(images=str(project / chosen)))
    assert made.concepts == ()
    assert not made.keeps_prior


def test_a_project_among_the_concepts_has_its_own(project, images):
    made = with_regularization(settings(images=str(images), concepts=[str(project)]))
    assert [concept.class_images for concept in made.concepts] == [False, True]


@pytest.mark.parametrize("reg", ["reg", "regularization_images", "Reg woman"])
def test_a_project_further_down_has_its_own_too(project, reg):
    (project / "reg").rename(project / reg)
    made = with_regularization(settings(images=str(project.parent)))
    assert [concept.images for concept in made.concepts] == [str(project / reg)]
    assert {item.path.parent.name for item in images_of(made)[0]} == {"10_mira woman"}
    assert with_regularization(made) == made


def test_a_project_in_two_folders_of_the_data_set_has_its_class_images_once(project):
    made = with_regularization(settings(images=str(project.parent), concepts=[str(project)]))
    assert [concept.class_images for concept in made.concepts] == [False, True]


def test_what_is_wrong_with_class_images_is_said(project):
    reg = project / "reg" / "1_woman"
    (reg / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (64, 64)).save(project / "reg" / "without caption.png")
    Image.new("L", (9, 64)).save(reg / "0.mask.png")
    (project / "reg" / "raw.nef").touch()
    problems = images_of(with_regularization(settings(images=str(project))))[1]
    said = {problem.code: problem.message for problem in problems}
    assert {"no_caption", "class_folders"}.isdisjoint(said)
    assert "1_woman" not in said["folder_repeats"]
    assert "broken.png" in said["unreadable_image"]
    assert "reg/1_woman/0.mask.png" in said["mask_shape"]
    assert "1 .nef" in said["unread_files"]


def test_class_images_of_which_none_can_be_read_are_not_passed_over(project):
    for file in (project / "reg" / "1_woman").glob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(NothingToTrain, match="reg"):
        with_regularization(settings(images=str(project)))


def test_class_images_behind_a_link_are_said_once(project, tmp_path):
    (project / "reg").rename(tmp_path / "elsewhere")
    (project / "reg").symlink_to(tmp_path / "elsewhere")
    made = settings(images=str(project), concepts=[{"images": str(tmp_path / "elsewhere"), "class_images": True}])
    assert with_regularization(made) == made
    assert "class_folders" not in {problem.code for problem in images_of(made)[1]}


def test_an_empty_reg_is_none(project):
    for file in (project / "reg" / "1_woman").iterdir():
        file.unlink()
    assert with_regularization(settings(images=str(project))).concepts == ()


def test_a_concept_of_class_images_is_given_as_json(project, images):
    line = f'{{"images": "{project / "reg"}", "class_images": true}}'
    made = settings(images=str(images), concepts=[line], trigger_word="mira")
    assert made.class_folders == [1]
    assert len(class_images_of(made, 1)) == 2
    assert all(item.concept == 0 for item in images_of(made)[0])
    assert all("mira" not in item.caption for item in class_images_of(made, 1))
    assert settings(images=str(images), concepts=[str(made.concepts[0])]) == made.model_copy(
        update={"trigger_word": ""}
    )


def test_their_share_of_the_views_is_as_with_generated_ones(images):
    own = settings(images=str(images), concepts=[{"images": str(images), "class_images": True}], views=30)
    drawn = settings(images=str(images), prior_preservation=True, class_prompt="woman", views=30)
    assert plan(10, own).base_views == plan(10, drawn).base_views == 100
    assert plan(10, settings(images=str(images), views=30)).base_views == 0


def test_with_ones_own_no_prompt_is_needed(images):
    concepts = [{"images": str(images), "class_images": True}]
    assert settings(images=str(images), prior_preservation=True, concepts=concepts).keeps_prior
    with pytest.raises(InvalidSettings):
        settings(images=str(images), prior_preservation=True, concepts=[str(images)])


def test_a_folder_that_is_gone_is_named(images):
    made = settings(images=str(images), concepts=[{"images": "/no/such", "class_images": True}])
    with pytest.raises(FolderMissing, match="/no/such"):
        class_images_of(made, 1)


def test_settings_of_the_class_images_stay_the_data_sets():
    made = DatasetSettings(images="a", class_images=7, concepts=("b",))
    assert made.of_folder(1).class_images == 7
