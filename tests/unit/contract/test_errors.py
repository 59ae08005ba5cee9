import ast
import importlib
from pathlib import Path
from string import Formatter

import pytest

from trainer.contract.errors import InvalidSettings, OutOfMemory, Terminated, TrainerError, isolated
from trainer.contract.system_errors import SystemRefused
from trainer.contract.wording import setting
from trainer.dataset.errors import NoImages
from trainer.runs.errors import TrainerEnded

ROOT = Path(__file__).parents[3]
FILES = [path for package in ("trainer", "app") for path in sorted((ROOT / package).rglob("*.py"))]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
WORDS = {"message", "hint", "places"}  # what is given beside parameters


def kinds(base=TrainerError):
    """Every class of errors, wherever in the product it is declared."""
    for path in TREES:
        if path.name.endswith("errors.py"):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    below = [kind for one in base.__subclasses__() for kind in (one, *kinds(one))]
    return [kind for kind in dict.fromkeys(below) if kind.__module__.startswith(("trainer.", "app."))]


KINDS = {kind.__name__: kind for kind in kinds()}
DECLARED = [kind for kind in KINDS.values() if kind.what]


def placeholders(kind):
    """The names in the kind's templates, and how each is formatted."""
    fields = [*Formatter().parse(kind.what), *Formatter().parse(kind.remedy)]
    return {name: how for _, name, how, _ in fields if name is not None}


def made():
    """Every call in the product that makes an error, by its class; of those with an `__init__`, the call inside it."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in KINDS:
                kind = KINDS[node.func.id]
                if kind.__init__ in (TrainerError.__init__, InvalidSettings.__init__):
                    yield f"{path.name}:{node.lineno}", kind, node
            elif isinstance(node, ast.ClassDef) and node.name in KINDS and node.name != "InvalidSettings":
                calls = [one for one in ast.walk(node) if isinstance(one, ast.Call)]
                own = [call for call in calls if ast.unparse(call.func) == "super().__init__"]
                yield from ((f"{path.name}:{call.lineno}", KINDS[node.name], call) for call in own)


def caught(error):
    reported = []
    with isolated("Preview 1", lambda *words: reported.append(words)):
        raise error
    return reported


def test_every_kind_has_a_code_of_its_own():
    codes = [kind.code for kind in KINDS.values()]
    assert len(codes) == len(set(codes)) > 50


@pytest.mark.parametrize("kind", DECLARED, ids=lambda kind: kind.__name__)
def test_a_kind_is_worded_by_its_parameters(kind):
    values = {name: 0.5 if how else f"{{{name}}} {{}} {{0}}" for name, how in placeholders(kind).items()}
    error = kind.__new__(kind)
    TrainerError.__init__(error, **values)
    assert error.parameters == values
    assert error.message
    assert error.hint or not kind.remedy
    assert all(str(value) in error.message + error.hint for value in values.values())  # braces in a value stay


def test_whoever_makes_an_error_gives_what_its_sentences_name():
    seen = set()
    for place, kind, call in made():
        seen.add(kind)
        given = {word.arg for word in call.keywords} - WORDS
        if kind is SystemRefused:  # its kinds choose from what it gives
            assert all(placeholders(one).keys() <= given for one in (kind, *kinds(kind))), place
        elif kind.what:
            assert not call.args, place
            assert given == placeholders(kind).keys(), place
        else:
            assert not given, place
            words = {word.arg for word in call.keywords}
            assert len(call.args) >= 2 or "hint" in words, f"{place} says nothing to do"
    bare = {kind for kind in DECLARED if not placeholders(kind)} | set(kinds(SystemRefused))
    assert set(DECLARED) - bare <= seen


def test_a_remedy_of_the_place_replaces_the_usual_one():
    usual, better = OutOfMemory(detail="on the card"), OutOfMemory(detail="on the card", hint="Set less.")
    assert usual.message == better.message == "Out of memory: on the card."
    assert setting("dataset.resolution") in usual.hint
    assert better.hint == "Set less."


def test_a_parameter_in_a_command_is_worded_by_each_side():
    error = TrainerEnded(name="ana {1}", exit_code=1, log=Path("log.txt"))
    assert error.hint == "Resume from the last checkpoint: ⟦action:resume=ana {1}⟧"
    assert error.parameters == {"name": "ana {1}", "exit_code": 1, "log": Path("log.txt")}


def test_work_that_fails_alone_is_told_with_its_cause(tmp_path):
    assert caught(ValueError("no")) == [
        ("isolated_failure", "Preview 1 failed: ValueError: no", "Training continues without it.")
    ]
    [(code, message, hint)] = caught(NoImages(folder=tmp_path, other_files=3))
    assert code == "no_images"
    assert message.startswith("Preview 1: No images in")
    assert hint


def test_the_systems_word_to_end_goes_through():
    with pytest.raises(Terminated):
        caught(Terminated())
