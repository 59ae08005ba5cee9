"""What the fault tests share: the stage, and an undisturbed run to compare with."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SMALL: dict[str, dict[str, Any]] = {
    "dataset": {"views": 2, "resolution": 32, "batch_size": 2},
    "adapter": {"rank": 2},
    "preview": {"steps": 1, "every": 2, "prompts": ["ball"]},
    "output": {"files": 2, "checkpoint_every": 2},
}


def merged(changes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The small run's settings with these changes."""
    return {name: SMALL.get(name, {}) | changes.get(name, {}) for name in SMALL.keys() | changes.keys()}


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, images: Path) -> Callable[..., Any]:
    """Make a small run, in a home of its own or in that of another run."""
    from trainer.contract.home import Home
    from trainer.contract.settings.config import validated
    from trainer.runs.folder import RunFolder

    def make(home: Home | None = None, **changes: dict[str, Any]) -> RunFolder:
        values = merged(changes)
        values["model"] = {"base_model": str(tiny_model), "precision": "fp32", "device": "cpu"} | values.get(
            "model", {}
        )
        values["dataset"] = {"images": str(images)} | values["dataset"]
        values["output"]["name"] = "ball"
        return RunFolder.create(home or Home(tmp_path_factory.mktemp("home")), validated(values))

    return make


@pytest.fixture(scope="session")
def stage(make_run: Callable[..., Any]) -> Iterator[Any]:
    if sys.platform == "win32":
        pytest.skip("forks")
    from stage import Stage

    made = Stage(make_run())
    yield made
    made.close()


@pytest.fixture(scope="session")
def whole(make_run: Callable[..., Any], stage: Any) -> Callable[..., Any]:
    """An undisturbed run of given changes to the small one's settings; trained once."""
    known: dict[str, Any] = {}

    def of(**changes: dict[str, Any]) -> Any:
        key = repr(sorted(changes.items()))
        if key not in known:
            run = make_run(**changes)
            assert stage.train(run) == 0, run.log_file.read_text()
            known[key] = run
        return known[key]

    return of


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Another one each time when all faults are tried, so that tries add up; else always the same."""
    many = request.node.get_closest_marker("faults") is not None
    return random.Random(time.time_ns() if many else 7)
