"""The program `pcl-jax`: one name for every command.

pcl-jax train --config=pcl:hybrid_resnet --workdir=runs/hybrid
pcl-jax embed --workdir=runs/hybrid --audio=~/music --out=music.parquet
pcl-jax prepare own_library --audio=~/music --out=data/mine

`pcl-jax COMMAND --help` describes a command, `pcl-jax prepare` lists those that
make data sets. --config=pcl:NAME names a config file that came with the
package, as in pcl:hybrid_resnet:artist+a_p; a path works as well.
"""

from collections.abc import Sequence
import importlib.util
import pathlib
import runpy
import sys

from pcl_jax.common import errors
from pcl_jax.common import programs

_COMMANDS = [*programs.COMMANDS, programs.PREPARE]


def root() -> pathlib.Path:
  """Returns the folder of launch.py, configs and preprocessing."""
  carried = programs.CARRIED
  return carried if carried.is_dir() else carried.parents[1]


def _names(folder: pathlib.Path) -> list[str]:
  """Returns the modules of a folder that are not for import only."""
  internal = ("__init__", "common", "published_yaml")
  return sorted(p.stem for p in folder.glob("*.py") if p.stem not in internal)


def _find_config(word: str) -> str:
  """Replaces pcl:NAME[:ARGUMENT], after --config= or not, by a file's path."""
  flag, prefix, rest = word.partition(programs.CONFIG)
  if not prefix or flag.lstrip("-") not in ("", "config="):
    return word
  name, colon, argument = rest.partition(":")
  path = root() / "configs" / f"{name}.py"
  if not path.is_file():
    raise errors.InputError(
      f"--config={prefix}{rest}: no config of this name came with the package. "
      f"Give one of {', '.join(_names(path.parent))}, or the path of a file."
    )
  return f"{flag}{path}{colon}{argument}"


def _choose(words: Sequence[str]) -> tuple[str, list[str]]:
  """Returns the module that a command line asks for, and the other words."""
  name, *rest = words
  if name == "train":
    rest = list(map(_find_config, rest))
  if name in programs.COMMANDS:
    return programs.COMMANDS[name], rest
  if name != programs.PREPARE:
    raise errors.InputError(
      f"{name!r} is no command of pcl-jax. Give one of {', '.join(_COMMANDS)}."
    )
  makers = _names(root() / "preprocessing")
  if not rest or rest[0] not in makers:
    given = f"{rest[0]!r} makes no data set" if rest else "what to make?"
    raise errors.InputError(
      f"pcl-jax prepare: {given}. Give one of {', '.join(makers)}."
    )
  return f"preprocessing.{rest[0]}", rest[1:]


def _run(words: Sequence[str]) -> None:
  if not words or words[0] in ("-h", "--help", "help"):
    print(f"{__doc__}\nCommands: {', '.join(_COMMANDS)}")
    return
  module, rest = _choose(words)
  sys.path.insert(0, str(root()))
  programs.started = True
  sys.argv = [f"{programs.NAME} {words[0]}", *rest]
  try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  except ModuleNotFoundError as error:
    name = (error.name or "").partition(".")[0]
    if not name or importlib.util.find_spec(name):
      raise
    raise errors.InputError(
      f"`pcl-jax {words[0]}` needs the package {name}, which the base install "
      'leaves out. Install it with pip install "pcl_jax[all]".'
    ) from error


def main() -> None:
  """Runs the command that the command line names, and ends."""
  errors.run_command(lambda: _run(sys.argv[1:]))


if __name__ == "__main__":
  main()
