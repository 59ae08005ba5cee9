"""How often each class of faults was tried and survived, over all runs of the suite with the same program."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from platform import python_version, system

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".faults"
HEAD = "| fault | tries | survived | lost |\n|---|--:|--:|--:|"


def program() -> str:
    """A digest of what is tested: tries with another program do not count."""
    seen = hashlib.sha256()
    for path in sorted([*(ROOT / "trainer").rglob("*.py"), *(ROOT / "app").rglob("*.py")]):
        seen.update(path.read_bytes())
    return seen.hexdigest()[:12]


def note(fault: str, wrong: list[str], file: Path | None = None) -> list[str]:
    """Write down one try; gives back what was wrong, for the test to tell."""
    line = json.dumps({"fault": fault, "wrong": wrong, "t": time.time()}, ensure_ascii=False)
    target = file or FOLDER / f"{program()}.jsonl"
    target.parent.mkdir(exist_ok=True)
    with target.open("ab", buffering=0) as record:
        record.write(line.encode() + b"\n")
    return wrong


def table(file: Path | None = None) -> str:
    """All tries as a Markdown table, with when and with what they were made."""
    target = file or FOLDER / f"{program()}.jsonl"
    if not target.is_file():
        return "No faults were tried."
    tries = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    made, lost = Counter(one["fault"] for one in tries), Counter(one["fault"] for one in tries if one["wrong"])
    rows = [f"| {fault} | {made[fault]} | {made[fault] - lost[fault]} | {lost[fault]} |" for fault in sorted(made)]
    total = f"| **all** | {made.total()} | {made.total() - lost.total()} | {lost.total()} |"
    days = sorted({time.strftime("%Y-%m-%d", time.localtime(one["t"])) for one in tries})
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "peft", "safetensors"))
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    where = f"Python {python_version()} on {system()} ({os.cpu_count()} cores), {libraries}"
    return "\n".join([HEAD, *rows, total, "", f"{when}; {where}; program {program()}."])
