"""What the command lines of all commands have in common."""

import argparse
from collections.abc import Mapping
import pathlib


def parser(module: str, description: str) -> argparse.ArgumentParser:
  """Returns the parser of `python -m module`, without arguments.

  Args:
    module: the command's module.
    description: its docstring; --help shows it with its line breaks.
  """
  return argparse.ArgumentParser(
    prog=f"python -m {module}",
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )


def add_numbers(
  parser: argparse.ArgumentParser,
  options: Mapping[str, tuple[int | float, str]],
) -> None:
  """Adds options that are numbers.

  Args:
    parser: the command's parser.
    options: name -> default, which decides the type, and help.
  """
  for name, (default, text) in options.items():
    parser.add_argument(
      f"--{name}",
      type=type(default),
      default=default,
      help=f"{text} (default {default})",
    )


def path(text: str) -> pathlib.Path:
  """Returns a path given as an argument; `~` is the user's folder."""
  return pathlib.Path(text).expanduser()


def count(text: str) -> int:
  """Returns a number of things given as an argument; it is at least 1."""
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f"{text} is not at least 1")
  return number
