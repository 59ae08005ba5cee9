"""Changed and invented bytes for the targets, and the bounds that they must keep to.

python tests/fuzz/engine.py TARGET [SECONDS]      by hand: hypothesis for so long, ten minutes if nothing is said
python tests/fuzz/engine.py TARGET [SECONDS] --atheris      the same, led by what was reached (pip install atheris)
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a program, by hand
    sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from trainer.contract.errors import TrainerError

CORPUS = Path(__file__).parent / "corpus"
SECONDS = 2.0  # of computing that one input may take: not of the clock, so a busy machine changes nothing
BYTES = 256 << 20  # of memory that one input may ask for beyond what was there
# What often lies just beyond what a reader expects
TOKENS = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\n", b"\r\n", b"\\", b'"', b"{", b"}", b"[", b"]", b",", b":", b"{a|b}",
    b"null", b"true", b"NaN", b"Infinity", b"-1", b"1e999", b"0", b"9" * 400, b"9" * 5000, b"18446744073709551616",
    b'"\\ud800"', b'"\\u0000"', b"[" * 3000, b'{"a":' * 3000, b"{" * 500, b"(" * 500, b"a" * 300, b"../../x", b"~x",
    b"<script>", b"\xed\xa0\x80", "é".encode("utf-16"), b"[[a]]\n", b"a.b.c = 1\n",
]  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["\0", "\ud800", "x" * 300, "~x", "..", "", 10**400, -1]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


class TooLong(Exception):
    """An input took more computing than any may."""


@contextmanager
def bounds() -> Iterator[None]:
    """Stop what takes too much: by an exception where it is time, by the system's refusal where it is memory."""
    if sys.platform != "linux":
        yield
        return
    import resource

    def stop(_number: int, _frame: object) -> None:
        raise TooLong

    earlier = signal.signal(signal.SIGVTALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + BYTES, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, earlier)


def check(target: str, folder: Path, data: bytes) -> None:
    """Feed one input to a target, within the bounds; our own errors are what it may raise."""
    from targets import TARGETS

    with bounds(), suppress(TrainerError):
        TARGETS[target](folder, data)


def corpus(target: str) -> list[bytes]:
    """The inputs that are kept for a target: what it reads as a rule, and what was a fault once."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


@st.composite
def changed(draw: st.DrawFn, kept: list[bytes]) -> bytes:
    """A kept input with a few changes: pieces put in, taken out, doubled, and a value in a JSON's place."""
    data = bytearray(draw(st.sampled_from(kept)))
    for _ in range(draw(st.integers(1, 6))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 30)))
        put = draw(st.sampled_from(TOKENS) | st.binary(max_size=6) | st.just(bytes(data[begin:end]) * 2))
        data[begin : end if draw(st.booleans()) else begin] = put
    return bytes(data)


@st.composite
def revalued(draw: st.DrawFn, kept: list[bytes]) -> bytes:
    """A kept input's lines of JSON, each with another value at one of its keys."""
    lines = []
    for line in draw(st.sampled_from(kept)).split(b"\n"):
        try:
            record: Any = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and record:
            record[draw(st.sampled_from(sorted(record)))] = draw(JSON)
            line = json.dumps(record).encode()
        lines.append(line)
    return b"\n".join(lines)


def inputs(target: str) -> st.SearchStrategy[bytes]:
    """All kinds of inputs for a target."""
    kept = corpus(target)
    invented = JSON.map(lambda value: json.dumps(value).encode())
    return changed(kept) | revalued(kept) | invented | st.binary(max_size=200)


def fuzz(target: str, folder: Path, examples: int, start: int = 0) -> None:
    """Feed a target so many inputs, the same for the same start.

    Raises:
        Exception: What the smallest input raised that is a fault.
    """

    @seed(start)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=inputs(target))
    def feed(data: bytes) -> None:
        check(target, folder, data)

    feed()


def by_hand(target: str, seconds: float, folder: Path) -> None:
    """Feed a target for so long."""
    end, start = time.monotonic() + seconds, time.time_ns() % 2**32
    rounds = 0
    while time.monotonic() < end:
        fuzz(target, folder, 500, start + rounds)
        rounds += 1
    sys.stdout.write(f"{target}: {rounds * 500} inputs in {seconds:.0f} s from seed {start}, no fault\n")


def by_atheris(target: str, seconds: float, folder: Path) -> None:
    """The same, led by the lines that each input reaches."""
    import atheris

    with atheris.instrument_imports(include=["trainer", "app"]):
        import targets  # noqa: F401

    (found := folder / "found").mkdir()  # the first corpus is the one that grows: ours stays small
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds:.0f}", str(found), str(CORPUS / target)],
        lambda data: check(target, folder, data),
    )
    atheris.Fuzz()


def main(arguments: list[str]) -> None:
    """By hand."""
    plain = [word for word in arguments if not word.startswith("--")]
    run = by_atheris if "--atheris" in arguments else by_hand
    with tempfile.TemporaryDirectory() as folder:
        run(plain[0], float(plain[1]) if len(plain) > 1 else 600.0, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
