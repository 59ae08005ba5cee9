"""The layout of design and style, held by the code itself."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPPED = {".venv", "tests", "runs", "cache", "work", "build"}
PRODUCT = [ROOT / "launch.py", *sorted((ROOT / "trainer").rglob("*.py"))]
PAGE = sorted((ROOT / "app").rglob("*.py"))
RECIPE = sorted((ROOT / "assets" / "pocket" / "build").glob("*.py"))
HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "gradio"}
# Lower layers first: a module imports only from its own layer or a lower one.
LAYERS = [
    {"trainer.contract", "trainer.dataset", "trainer.doctor", "trainer.models", "trainer.runs", "trainer.planning"}
    | {"trainer.captioning"},
    {"trainer.engine"},
    {"trainer.console", "trainer.tools", "trainer.__main__"},
]
BELOW = sorted(LAYERS[0])


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name):
    inside = (i for i, names in enumerate(LAYERS) if any(name == n or name.startswith(n + ".") for n in names))
    return next(inside, None)


def functions(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", PRODUCT[1:], ids=module_name)
def test_imports_point_downwards(path):
    name = module_name(path)
    if name == "trainer":
        return
    own = layer(name)
    assert own is not None, f"{name} has no layer"
    for imported in imports(path):
        below = layer(imported)
        assert below is None or below <= own, f"{name} imports {imported}"


def test_the_contract_the_console_and_the_flags_never_import_torch():
    code = (
        "import sys, trainer.console.main, trainer.console.caption, trainer.console.flags\n"
        "from trainer.contract import errors, events, home, presets\n"
        "from trainer.dataset import buckets, captions\n"
        "from trainer.runs import folder, process, queue, sheets\n"
        "from trainer.captioning import jobs\n"
        f"heavy = {sorted(HEAVY)!r}\n"
        "assert not [name for name in heavy if name in sys.modules], sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("path", PAGE, ids=module_name)
def test_the_page_imports_nothing_of_the_engine(path):
    engine = [name for name in imports(path) if name.split(".")[0] in {"trainer", *HEAVY - {"gradio"}}]
    assert not [name for name in engine if not any(f"{name}.".startswith(f"{below}.") for below in BELOW)]


def test_the_pages_server_never_imports_torch():
    subprocess.run(
        [sys.executable, "-c", "import app.ui, sys; assert 'torch' not in sys.modules"], cwd=ROOT, check=True
    )


def test_nothing_in_the_trainer_imports_gradio():
    assert not [path for path in PRODUCT if any(name.split(".")[0] == "gradio" for name in imports(path))]


@pytest.mark.parametrize("path", [*PRODUCT, *PAGE, *RECIPE], ids=module_name)
def test_functions_fit_a_screen_and_files_stay_readable(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    long = [f.name for f in functions(path) if f.end_lineno - f.lineno + 1 > 60]
    assert not long


@pytest.mark.parametrize("path", [*PRODUCT, *PAGE, *RECIPE], ids=module_name)
def test_arguments_are_typed_and_public_functions_explained(path):
    for function in functions(path):
        arguments = [a for a in function.args.args + function.args.kwonlyargs if a.arg not in ("self", "cls")]
        assert all(argument.annotation for argument in arguments), function.name
        assert function.name.startswith("_") or ast.get_docstring(function), function.name


def test_broad_excepts_are_two_where_work_may_fail_alone_and_where_a_run_ends():
    broad = [
        f"{module_name(path)}:{node.lineno}"
        for path in [*PRODUCT, *PAGE]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException"))
    ]
    assert [place.split(":")[0] for place in broad] == ["trainer.__main__", "trainer.contract.errors"]


def test_nothing_unpickles_or_runs_a_shell():
    for path in [*PRODUCT, *PAGE, *RECIPE]:
        text = path.read_text(encoding="utf-8")
        for forbidden in (
            r"import pickle",
            r"torch\.load\((?!path, map_location=\"cpu\", weights_only=True, mmap=True\))",
            r"shell=True",
            r"os\.system",
            r"(?<![\w.])(eval|exec)\(",
        ):
            assert not re.search(forbidden, text), f"{path}: {forbidden}"


def test_the_loop_itself_fits_a_screen():
    whole = [f for f in functions(ROOT / "trainer" / "engine" / "loop.py") if f.name in ("train", "_train")]
    assert sum(f.end_lineno - f.lineno + 1 for f in whole) <= 60
