"""The page, on Gradio. It never imports torch."""

import inspect
import os
import sys
from argparse import ArgumentError, ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.contract import stops, temporary
from trainer.contract.home import Home


def _temporary_folder(arguments: list[str]) -> None:
    """Use the home's, before Gradio asks for the system's, which need not be there; app.ui says what is wrong."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--home", type=Path)
    with suppress(ArgumentError):
        home = Home.find(parser.parse_known_args(arguments)[0].home)
        os.environ["GRADIO_TEMP_DIR"] = str(home.temporary / "gradio")
        with suppress(OSError):
            temporary.use(home)


if sys.argv[:1] == ["-m"]:  # as Python has it while it looks for app.ui to start it
    stops.end_quietly()  # Gradio takes seconds to import
    _temporary_folder(sys.argv[1:])


@contextmanager
def _without_stubs() -> Iterator[None]:
    """Import Gradio without writing .pyi files beside its components, which takes three seconds at every start.

    Gradio skips a class whose source file is unknown, so its classes have none during the import.
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
    from gradio import component_meta

# Nor beside our own components: mypy would read that copy instead of the source
component_meta.create_or_modify_pyi = lambda *_: None
