"""The structure of the product, read from its imports: `python tests/structure.py` prints it, the tests check it."""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From bottom to top: a package imports only from rows below its own, never from its own row.
ORDER = (
    ("trainer.contract",),
    ("trainer.dataset",),
    ("trainer.models",),
    ("trainer.doctor",),
    ("trainer.runs",),
    ("trainer.captioning", "trainer.planning", "trainer.projects"),
    ("trainer.engine",),
    ("trainer.tools", "trainer.console", "app"),
    ("trainer.__main__",),
)
NEVER = {("trainer.console", "trainer.engine"), ("app", "trainer.engine")}  # these start it as a process
TORCH = {"torch", "diffusers", "transformers", "peft", "accelerate", "safetensors"}
TORCH_HOMES = ("trainer.engine", "trainer.tools")


def product() -> dict[str, Path]:
    """Every module of the product by its dotted name."""
    files = [ROOT / "launch.py", *sorted((ROOT / "trainer").rglob("*.py")), *sorted((ROOT / "app").rglob("*.py"))]
    return {name_of(path): path for path in files}


def name_of(path: Path) -> str:
    """The dotted name of a module in the checkout."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Everything a module imports, anywhere in it, by dotted names; names imported from a module count as below it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def graph() -> dict[str, set[str]]:
    """The product's modules that each module imports."""
    modules = product()
    return {name: imports(path) & modules.keys() - {name} for name, path in modules.items()}


def package_of(module: str) -> str:
    """The package of `ORDER` that a module belongs to, or its own name."""
    packages = [package for row in ORDER for package in row if f"{module}.".startswith(f"{package}.")]
    return packages[0] if packages else module


def against_the_order() -> list[str]:
    """Imports between packages that go upward or sideways, as "importer -> imported"."""
    row_of = {package: number for number, row in enumerate(ORDER) for package in row}
    wrong = []
    for module, imported in graph().items():
        own = package_of(module)
        for other in sorted(imported):
            theirs = package_of(other)
            if own == theirs or theirs not in row_of or own not in row_of:
                continue
            if row_of[theirs] >= row_of[own] or (own, theirs) in NEVER:
                wrong.append(f"{module} -> {other}")
    return wrong


def heavy_imports() -> list[str]:
    """Modules outside the engine and the tools that import torch or a library that imports it."""
    return [
        f"{name}: {', '.join(sorted(used))}"
        for name, path in product().items()
        if not f"{name}.".startswith(tuple(f"{home}." for home in TORCH_HOMES))
        and (used := {imported.split(".")[0] for imported in imports(path)} & TORCH)
    ]


def circles(edges: dict[str, set[str]] | None = None) -> list[list[str]]:
    """Groups of modules that import one another, by Tarjan's algorithm (1972); late imports count too."""
    edges = graph() if edges is None else edges
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(edges[module]):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(edges):
        if module not in index:
            visit(module)
    return found


def package_circles() -> list[list[str]]:
    """Groups of folders that import one another, subpackages counted by themselves."""
    modules = product()
    folder = {name: name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in modules.items()}
    edges: defaultdict[str, set[str]] = defaultdict(set)
    for module, imported in graph().items():
        edges[folder[module]] |= {folder[other] for other in imported} - {folder[module]}
    return circles({name: edges[name] for name in {*folder.values()}})


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a module, methods and nested ones too."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, without its decorators."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def report() -> str:
    """The report as text."""
    modules = product()
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules.items()}
    longest = max((length(one), name, one.name) for name, path in modules.items() for one in functions(path))
    sizes = Counter(package_of(name) for name in modules)
    edges = {(package_of(one), package_of(other)) for one, others in graph().items() for other in others}
    return "\n".join(
        [
            f"modules: {len(modules)}, lines: {sum(lines.values())}",
            f"packages: {len(sizes)}, imports between them: {sum(one != other for one, other in edges)}",
            *(f"  {name}: {count} modules" for name, count in sorted(sizes.items())),
            f"upward and sideways imports: {len(against_the_order())}",
            *(f"  {wrong}" for wrong in against_the_order()),
            f"circles: {len(circles())}",
            *(f"  {' + '.join(group)}" for group in circles()),
            f"circles of folders: {len(package_circles())}",
            *(f"  {' + '.join(group)}" for group in package_circles()),
            f"torch outside engine and tools: {len(heavy_imports())}",
            *(f"  {wrong}" for wrong in heavy_imports()),
            f"longest file: {max(lines.values())} lines ({max(lines, key=lambda name: lines[name])})",
            f"longest function: {longest[0]} lines ({longest[1]}.{longest[2]})",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(f"{report()}\n")
