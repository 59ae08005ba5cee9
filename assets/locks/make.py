"""Write the lock files anew: every package that the set-up installs, in one version, with the hashes of its files.

    pip install uv pip-audit
    python assets/locks/make.py            the newest versions within pyproject.toml's ranges
    python assets/locks/make.py --audit    ask which of them have known weaknesses

One file serves every system and Python: lines that only some need say so. PyTorch and what only its builds need are
left out, because launch.py chooses the build for the machine, from PyTorch's own index.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1] / "pyproject.toml"
LOCKS: dict[str, list[str]] = {"trainer": [], "test": ["--extra", "test"]}
OF_THE_BUILD = re.compile(r"(?:torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
HEAD = "# Made by assets/locks/make.py from pyproject.toml; not to be edited.\n"


def lock(name: str, extras: list[str]) -> None:
    """Write one stage's file."""
    command = ["uv", "pip", "compile", str(PROJECT), "--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--no-header", "--no-annotate", "--quiet", *extras]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    packages = re.split(r"\n(?=\S)", made.strip())
    kept = [package for package in packages if not OF_THE_BUILD.match(package)]
    (HERE / f"{name}.txt").write_text(HEAD + "\n".join(kept) + "\n", encoding="utf-8")


def audit(name: str) -> int:
    """Ask for known weaknesses; pip-audit's exit code."""
    command = ["pip-audit", "--requirement", str(HERE / f"{name}.txt"), "--require-hashes", "--disable-pip"]
    return subprocess.run(command, check=False).returncode


def main(arguments: list[str]) -> int:
    """Exit code: 0, or what an audit found."""
    if arguments == ["--audit"]:
        return max(audit(name) for name in LOCKS)
    for name, extras in LOCKS.items():
        lock(name, extras)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
