"""What the command lines of all commands have in common."""

import argparse
from collections.abc import Mapping
import pathlib

from pcl_jax.common import file_names
from pcl_jax.common import programs


class _Parser(argparse.ArgumentParser):
  def format_help(self) -> str:
    return programs.fit(super().format_help())


def parser(module: str, description: str) -> argparse.ArgumentParser:
  """Returns the parser of `python -m module`, without arguments.

  --help shows the description, the module's docstring, with its line breaks.
  """
  return _Parser(
    prog=programs.fit(f"python -m {module}"),
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )


def add_numbers(
  parser: argparse.ArgumentParser,
  options: Mapping[str, tuple[int | float, str]],
) -> None:
  """Adds numbers: name -> default, which decides the type, and help."""
  for name, (default, text) in options.items():
    parser.add_argument(
      f"--{name}",
      type=type(default),
      default=default,
      help=f"{text} (default {default})",
    )


def path(text: str) -> pathlib.Path:
  """Returns a path given as an argument; `~` is the user's folder."""
  return file_names.path(text)


def count(text: str) -> int:
  """Returns a number of things given as an argument; it is at least 1."""
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f"{text} is not at least 1")
  return number
