"""The page, on Gradio. It imports only `trainer.contract`, never torch."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _without_stubs() -> Iterator[None]:
    """Import Gradio without the .pyi file that it writes beside each of its components: three seconds at every start.

    It leaves out a class whose source file is not known, so this is what it is told for as long as it is imported.
    """
    getfile = inspect.getfile

    def unknown(thing: object) -> str:
        """The source file of anything but a class of Gradio's."""
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError
        return getfile(thing)  # type: ignore[arg-type]

    inspect.getfile = unknown  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = getfile


with _without_stubs():
    import gradio  # noqa: F401
