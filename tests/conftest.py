"""Fixtures shared by all tests: one tiny model per session, and runs in fresh homes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.contract.home import Home
from trainer.contract.settings.config import validated
from trainer.runs.folder import RunFolder
from trainer.runs.process import SAME_SUMS

os.environ.update(SAME_SUMS)  # before torch is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads cost more than they bring
sys.path.insert(0, str(Path(__file__).parent))
FAULTS = Path(__file__).parent / "faults"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    return tiny.model(tmp_path_factory.mktemp("base") / "tiny mödel")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tiny

    return tiny.images(tmp_path_factory.mktemp("data") / "meine Bilder ä")


@pytest.fixture(autouse=True)
def _temporary_folder_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that a test starts here puts its temporary files into a home; later tests keep the system's folder."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    for name in ("TMPDIR", "TEMP", "TMP", "GRADIO_TEMP_DIR"):
        if name in os.environ:
            monkeypatch.setenv(name, os.environ[name])
        else:
            monkeypatch.setenv(name, "")  # so that it is taken away at the end, whoever sets it
            monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home; some tests have one of their own."""
    return Home(tmp_path / "home")


@pytest.fixture
def new_run(tmp_path: Path, tiny_model: Path, images: Path) -> Callable[..., Any]:
    """Make a run folder for the tiny model; keyword arguments are sections of settings to change."""

    def make(home: str = "home", **changes: dict[str, Any]) -> RunFolder:
        values: dict[str, dict[str, Any]] = {
            "model": {"base_model": str(tiny_model), "precision": "fp32", "device": "cpu"},
            "dataset": {"images": str(images), "views": 4, "batch_size": 2, "resolution": 64},
            "adapter": {"rank": 4, "alpha": 2.0},
            "optimizer": {"learning_rate": 1e-3},
            "preview": {"steps": 2, "prompts": ["ball"]},
            "output": {"name": "bälle", "files": 2, "checkpoint_every": 3},
        }
        for section, change in changes.items():
            values.setdefault(section, {}).update(change)
        return RunFolder.create(Home(tmp_path / home), validated(values))

    return make


@pytest.fixture
def in_blocks() -> Callable[[Callable[[], Any]], Any]:
    """Make components within a page; within an event loop too, for Gradio else makes one that nobody closes."""
    import asyncio

    import gradio as gr

    def make(build: Callable[[], Any]) -> Any:
        async def built() -> Any:
            with gr.Blocks():
                return build()

        return asyncio.run(built())

    return make


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", action="store_true", help="harm trainers hundreds of times, and count what is lost")
    parser.addoption("--write-help", action="store_true", help="Write the list of failures; with -n0 --faults.")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.faults:
        config.option.markexpr = "faults"
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args = [str(FAULTS)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is run by hand takes the time it takes."""
    for item in items:
        if any(item.get_closest_marker(mark) for mark in ("slow", "gpu", "faults")):
            item.add_marker(pytest.mark.timeout(0))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line for each reason that left tests out, so that none is overlooked among many; and the table of faults."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} x {reason}", yellow=True, bold=True)
    if config.option.faults:
        sys.path.insert(0, str(FAULTS))
        import tally

        terminalreporter.write_line(f"\n{tally.table()}")
