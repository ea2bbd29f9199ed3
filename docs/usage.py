"""Writes docs/usage.md: every option of the six scripts, as their parsers have them.

    python docs/usage.py            # writes the page
    python docs/usage.py --check    # exit code 1 if the page is not what the parsers say
"""

import argparse
import re
import runpy
import sys
from pathlib import Path
from typing import NoReturn
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from DualScaleNet.common.options import as_typed

PAGE = ROOT / "docs" / "usage.md"
SCRIPTS = (
    "DualScaleNet/main.py", "DownStream/train.py", "DownStream/predict.py", "DownStream/compare.py",
    "DownStream/features.py", "DownStream/export.py",
)  # fmt: skip
OPENING = """# Options

The command line wins over the recipe, and the recipe wins over the settings of the data set. The exception is
`--epochs` of `compare.py`, where the data set decides. `python SCRIPT --help` prints the same; `Dataset/check.py` and
`Dataset/synthetic.py` have `--help` alone. A few options for experiments are in
[CONTRIBUTING.md](../CONTRIBUTING.md#adding-something).

`python docs/usage.py` generates this page from the parsers: change the help texts there.
"""


class Found(BaseException):
    """Carries a script's parser out of it; no `except Exception` on the way takes it."""


def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser of a script, which runs up to where it reads its command line."""

    def stop(parser: argparse.ArgumentParser, **_: object) -> NoReturn:
        raise Found(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except Found as found:
            return found.args[0]
    raise RuntimeError(f"{script} reads no command line")


def section(script: str, parser: argparse.ArgumentParser) -> str:
    """A script's docstring and one table for each group of its options; what has no group of its own comes first."""
    positional, options, *groups = parser._action_groups
    parts = [f"## {script}", (parser.description or "").strip()]
    parts += table(options._group_actions + positional._group_actions)
    for group in groups:
        title = group.title or ""
        parts += [f"### {title[:1].upper()}{title[1:]}", group.description or "", *table(group._group_actions)]
    return "\n\n".join(filter(None, parts)) + "\n"


def table(actions: list[argparse.Action]) -> list[str]:
    """A Markdown table of the options that --help shows, or nothing where there is none."""
    shown = [each for each in actions if each.help != argparse.SUPPRESS and not isinstance(each, argparse._HelpAction)]
    rows = [row(action) for action in shown]
    return ["\n".join(["| option | default | meaning |", "|---|---|---|", *rows])] if rows else []


def row(action: argparse.Action) -> str:
    """One option as a row of the table. Its help text may state a default that depends on other options."""
    meaning, _, default = (action.help or "").partition(" Default: ")
    none = "required" if action.required and action.option_strings else "–"
    default = default.removesuffix(".") or plain(action.default) or none
    meaning = re.sub(r"(?<![\w-])--[a-z][a-z-]*", r"`\g<0>`", meaning.replace("%%", "%"))
    cells = (f"`{option(action)}`", default, meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def option(action: argparse.Action) -> str:
    """An option and what it takes, as a user types it."""
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    value = " ".join(value) if isinstance(value, tuple) else value
    if not action.option_strings:
        return value
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return ", ".join(action.option_strings)
    return f"{action.option_strings[-1]} {value}{' ...' if action.nargs in ('+', '*') else ''}"


def plain(value: object) -> str:
    """A default as a user would type it, or nothing."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value is None or value == [] else as_typed(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    args = parser.parse_args()
    page = "\n".join([OPENING, *(section(script, parser_of(script)) for script in SCRIPTS)])
    if not args.check:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        sys.exit(f"{PAGE.relative_to(ROOT)} is not what the parsers say: run python docs/usage.py")


if __name__ == "__main__":
    main()
