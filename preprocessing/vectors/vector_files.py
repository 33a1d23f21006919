"""A table of vectors (npy), its report (json), and the command to make it."""

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import locks
from pcl_jax.common import storage


class NothingToLearn(errors.InputError):
  """No song that may be learned from has what the vectors are made of."""


def check_options(
  where: str, at_least_one: dict[str, int], seed: int, rate: float = 1.0
) -> None:
  """Refuses options that cannot be meant.

  Args:
    where: the command they belong to, for the message.
    at_least_one: option -> value, for the options that count something.
    seed: at least 0.
    rate: a learning rate; finite and above 0.

  Raises:
    InputError: names the option, its value and the rule.
  """
  bad = [
    f"--{name}={value}, which is at least 1"
    for name, value in at_least_one.items()
    if value < 1
  ]
  if seed < 0:
    bad.append(f"--seed={seed}, which is at least 0")
  if not (np.isfinite(rate) and rate > 0):
    bad.append(f"--rate={rate}, which is a number above 0")
  if bad:
    raise errors.InputError(f"{where} was given {'; '.join(bad)}.")


def is_finished(path: pathlib.Path, settings: dict[str, Any]) -> bool:
  """Returns whether vectors made with these settings are there, and prints it.

  Args:
    path: the npy file.
    settings: plain values, fit for json, that decide the result.

  Raises:
    InputError: they were made with other or unknown settings.
  """
  if not path.exists():
    return False
  report = path.with_suffix(".json")
  try:
    found = storage.read_json(report)["settings"]
    differing = storage.differences(found, settings)
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    differing = [f"{report} does not say which"]
  if differing:
    raise errors.InputError(
      f"{path} exists and was made with other settings "
      f"({'; '.join(differing)}). Models trained with the old vectors do not "
      "fit new ones: use --force to replace them, or another data set's folder."
    )
  print(f"{path} exists already: nothing to do")
  return True


def write(
  path: pathlib.Path, vectors: np.ndarray, report: dict[str, Any]
) -> None:
  """Writes vectors and report; killed meanwhile, the vectors are absent.

  Args:
    path: the npy file; the report has the suffix .json.
    vectors: written as float32.
    report: fit for json, with a key `settings`.
  """
  with storage.write_aside(path) as partial:
    with open(partial, "wb") as file:
      np.save(file, np.ascontiguousarray(vectors, np.float32))
    path.unlink(missing_ok=True)
    storage.write_json(path.with_suffix(".json"), report)


def run_command(
  make: Callable[..., Any],
  module: str,
  description: str,
  options: Mapping[str, tuple[int | float, str]],
  argv: Sequence[str] | None,
) -> None:
  """Parses a command line and makes the vectors of a data set.

  Args:
    make: takes the data set's folder, `force` and the options.
    module: the command's module.
    description: the text of --help.
    options: name -> default, which gives the type, and help.
    argv: the arguments; those of the process if None.
  """
  parser = command_line.parser(module, description)
  text = "the data set's folder"
  parser.add_argument(
    "--data", type=command_line.path, required=True, help=text
  )
  command_line.add_numbers(parser, options)
  text = "replace vectors made with other settings"
  parser.add_argument("--force", action="store_true", help=text)
  values = vars(parser.parse_args(argv))
  data_dir = values.pop("data")
  with locks.hold(data_dir, parser.prog):
    make(data_dir, **values)
