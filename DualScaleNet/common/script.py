"""What every entry script needs before PyTorch is imported: readable errors, signals, the version of the code."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / "models"  # ready decoders, and their encoder


class UserError(Exception):
    """Something only the user can mend, said in one line: what, which file or option, what to do."""


class Stopped(Exception):
    """The run was asked to stop by a signal, and has saved what it had."""

    def __init__(self, number: int, run_dir: Path) -> None:
        super().__init__(f"stopped and saved in {run_dir}; the same command resumes it")
        self.number = number


class StopSignal:
    """Notes SIGTERM and SIGINT, to be obeyed once the step is done; a second one, a second later, acts at once.

    torchrun passes on what its processes may have received already. `number` is the signal's, 0 for none yet.
    """

    def __init__(self) -> None:
        self.number, self.noted = 0, 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number and time.monotonic() - self.noted > 1:
            os._exit(128 + number)
        if not self.number:
            self.number, self.noted = number, time.monotonic()


def run_script(main: Callable[[], None], advice: str = "close other programs") -> None:
    """Runs an entry point: a `UserError` or `OSError` becomes one line and exit code 1, Ctrl-C exit code 130.

    Args:
        advice: what to do where memory does not suffice.
    """
    name = Path(sys.argv[0]).name
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be no text
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        sys.exit(f"{name}: error: {one_line(error)}")
    except OSError as error:  # no permission, or nothing reads the output any more
        if not error.strerror:
            raise
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left to print must not fail again
        sys.exit(f"{name}: error: {one_line(error.filename or 'standard output')}: {error.strerror}")
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        sys.exit(f"{name}: error: out of memory: {advice}, and repeat the command")
    except Stopped as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        sys.exit(128 + stop.number)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        sys.exit(130)


def progress_bar(*args: Any, disable: bool | None = None, **options: Any) -> tqdm:
    """A bar of tqdm on a terminal; elsewhere, as in a job's log, a line a minute."""
    if sys.stderr.isatty():
        return tqdm(*args, disable=disable, **options)
    a_minute = {"mininterval": 60, "delay": 60, "miniters": 1}
    return tqdm(*args, disable=bool(disable), file=_Lines(), **a_minute, **options)


class _Lines:
    """A file for tqdm that turns every state of the bar into a line on stderr."""

    def write(self, text: str) -> None:
        text = text.replace("\x1b[A", "").strip()
        if text:
            print(text, file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass


def warn(text: str) -> None:
    """A line on stderr, from the first process alone."""
    if int(os.environ.get("RANK", 0)) == 0:
        tqdm.write(f"warning: {one_line(text)}", file=sys.stderr)


def one_line(text: object) -> str:
    """File names may have line breaks."""
    return str(text).replace("\n", "\\n").replace("\r", "\\r")


def few(names: Collection[object]) -> str:
    """The first names, and how many more there are."""
    first = ", ".join(map(str, list(names)[:3]))
    return first + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def out_of_memory(error: Exception) -> bool:
    """Of a GPU, of the process, of NumPy."""
    of_gpu = type(error).__name__ == "OutOfMemoryError"  # PyTorch's, which may not be loaded
    return of_gpu or isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def git_commit() -> str | None:
    """The commit of this checkout; None outside git, inside another repository, and where there is no git program."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--show-toplevel", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    top, *commit = answer.stdout.splitlines() or [""]
    return commit[0] if answer.returncode == 0 and Path(top).resolve() == ROOT else None


def code_version(*folders: str) -> str:
    """Changes with any line of the code in these folders, committed or not."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]
