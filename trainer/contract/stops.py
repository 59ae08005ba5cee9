"""Signals that ask a process to end: Ctrl-C, SIGTERM of a service manager or container, SIGHUP of a closed terminal."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

ASKING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
HANG_UP = getattr(signal, "SIGHUP", None)
ENDED_BY_SIGNAL = 130  # the exit code of what Ctrl-C ended, as shells have it


@dataclass
class Heard:
    """How often this process was asked to end, and by whom first."""

    times: int = 0
    by_system: bool = False  # not by Ctrl-C: whoever asked ends it for good before long


@contextmanager
def heard(asked: Callable[[int], None]) -> Iterator[Heard]:
    """Call `asked` with 1, 2, … whenever this process is asked to end, instead of ending it.

    A signal that whoever started us has switched off (`nohup`, a job in the background) stays so. A closed terminal
    may send SIGHUP twice, so that it counts only as the first.
    """
    count = Heard()

    def _hear(number: int, _frame: FrameType | None) -> None:
        if number == HANG_UP and count.times:
            return
        count.by_system = count.by_system if count.times else number != signal.SIGINT
        count.times += 1
        asked(count.times)

    before = _install(_hear)
    try:
        yield count
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt() -> None:
    """From now on every such signal raises KeyboardInterrupt, as Ctrl-C does."""
    _install(signal.default_int_handler)


def interrupt_once() -> None:
    """From now on the first such signal does so; the next ones would break off what cleans up behind it."""
    count = Heard()

    def _interrupt(_number: int, _frame: FrameType | None) -> None:
        count.times += 1
        if count.times == 1:
            raise KeyboardInterrupt

    _install(_interrupt)


def end_quietly() -> None:
    """From now on every such signal ends this process with a word: it has not begun."""

    def _end(_number: int, _frame: FrameType | None) -> NoReturn:
        with suppress(OSError):
            os.write(2, b"Stopped.\n")
        os._exit(ENDED_BY_SIGNAL)

    _install(_end)


def hold() -> None:
    """Keep such signals back until there is a handler for them; who calls this installs one soon."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)


@contextmanager
def held_back() -> Iterator[None]:
    """A process that is started meanwhile gets such signals once it has a handler for them, and none before."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _install(handler: Callable[[int, FrameType | None], object]) -> dict[signal.Signals, Any]:
    """Returns the handlers before, by signal; outside the main thread nothing can be heard."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    heeded = [number for number in ASKING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heeded}
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
    return before
