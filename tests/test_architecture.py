"""The layout that `how-it-is-built.md` describes and the limits of the style, checked against the code."""

import ast
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch

import pytest
import structure

ROOT = structure.ROOT
PRODUCT = structure.product()
RECIPE = {structure.name_of(path): path for path in sorted((ROOT / "assets" / "pocket" / "build").glob("*.py"))}
CODE = {**PRODUCT, **RECIPE}
# The start script, and the package that only has a docstring
UNPLACED = {"launch", "trainer"}
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "assets").rglob("*.md"))]
# Quoted in the docs: Python files, and whatever else is named by its folder
PATH = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.py|(?:trainer|app|tests|assets|presets)/[\w./-]*)(?=[` :])")


def test_every_module_has_a_place_in_the_order():
    packages = {package for row in structure.ORDER for package in row}
    assert {structure.package_of(name) for name in PRODUCT} - packages == UNPLACED


def test_packages_import_only_from_packages_below_them():
    assert structure.against_the_order() == []


def test_no_modules_import_one_another():
    assert structure.circles() == []


def test_a_circle_would_be_found():
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a", "e2"}, "e2": {"e"}}
    assert structure.circles(edges) == [["a", "b", "c"], ["e", "e2"]]


def test_torch_lives_only_in_the_engine_and_the_tools():
    assert structure.heavy_imports() == []


def test_nothing_in_the_trainer_imports_gradio():
    trainer = {name: path for name, path in PRODUCT.items() if not name.startswith("app")}
    assert not [
        name for name, path in trainer.items() if "gradio" in {one.split(".")[0] for one in structure.imports(path)}
    ]


@pytest.mark.parametrize("program", ["app.ui", "trainer.console.main"])
def test_page_and_console_never_load_torch(program):
    code = f"import sys, {program}\nassert not sys.modules.keys() & {structure.TORCH}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_folder_of_tests_is_passed_over():
    """Whoever calls one as pytest is told to leave out loses its tests without a word."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    names = {part for folder in folders for part in folder.relative_to(ROOT).parts}
    assert not [name for name in names for left in settings["norecursedirs"] if fnmatch(name, left)]


def test_every_package_says_what_it_is_about():
    packages = {path.parent for path in PRODUCT.values()} - {ROOT}
    undescribed = [
        str(folder.relative_to(ROOT))
        for folder in packages
        if not ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    ]
    assert undescribed == []


@pytest.mark.parametrize("name", CODE)
def test_functions_fit_a_screen_and_files_stay_readable(name):
    assert len(CODE[name].read_text(encoding="utf-8").splitlines()) <= 500
    assert not [one.name for one in structure.functions(CODE[name]) if structure.length(one) > 60]


@pytest.mark.parametrize("name", CODE)
def test_arguments_are_typed_and_public_functions_explained(name):
    for function in structure.functions(CODE[name]):
        arguments = [a for a in function.args.args + function.args.kwonlyargs if a.arg not in ("self", "cls")]
        assert all(argument.annotation for argument in arguments), function.name
        assert function.name.startswith("_") or ast.get_docstring(function), function.name


def test_broad_excepts_are_two_where_work_may_fail_alone_and_where_a_run_ends():
    broad = [
        name
        for name, path in PRODUCT.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException"))
    ]
    assert broad == ["trainer.__main__", "trainer.contract.errors"]


@pytest.mark.parametrize(
    "forbidden",
    [
        r"import pickle",
        r"torch\.load\((?!path, map_location=\"cpu\", weights_only=True, mmap=True\))",
        r"shell=True",
        r"os\.system",
        r"(?<![\w.])(eval|exec)\(",
    ],
)
def test_nothing_unpickles_or_runs_a_shell(forbidden):
    assert [name for name, path in CODE.items() if re.search(forbidden, path.read_text(encoding="utf-8"))] == []


def test_the_loop_itself_fits_a_screen():
    loop = structure.functions(PRODUCT["trainer.engine.loop"])
    assert sum(structure.length(one) for one in loop if one.name in ("train", "_train")) <= 60


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.stem)
def test_every_path_that_the_docs_name_exists(path):
    named = set(PATH.findall(path.read_text(encoding="utf-8"))) - {"presets/own/"}  # in the home, not in the checkout
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_function_that_how_it_is_built_names_exists():
    text = (ROOT / "assets" / "docs" / "development" / "how-it-is-built.md").read_text(encoding="utf-8")
    known = {one.name for path in PRODUCT.values() for one in structure.functions(path)}
    named = set(re.findall(r"`(\w+)\(\)`", text))
    assert named
    assert named - known == set()


def test_how_it_is_built_shows_the_order():
    text = (ROOT / "assets" / "docs" / "development" / "how-it-is-built.md").read_text(encoding="utf-8")
    shown = text.partition("From top to bottom:\n\n```\n")[2].partition("\n```")[0].splitlines()
    names = [{word.strip("/").removesuffix(".py").replace("/", ".") for word in line.split()} for line in shown]
    assert names[::-1] == [set(row) for row in structure.ORDER]


def test_the_version_is_that_of_the_newest_release_and_said_once():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    releases = re.findall(r"^## \[(\d[\d.]*)\] - \d{4}-\d\d-\d\d$", DOCS[1].read_text(encoding="utf-8"), re.MULTILINE)
    assert releases[0] == version
    assert releases == sorted(releases, key=lambda one: [int(part) for part in one.split(".")], reverse=True)
    assert [name for name, path in PRODUCT.items() if f'"{version}"' in path.read_text(encoding="utf-8")] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a copy without its history")
def test_nothing_that_the_program_writes_is_part_of_it():
    """Such as `.queue.lock`, which would be another file after every update."""
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout == ""
