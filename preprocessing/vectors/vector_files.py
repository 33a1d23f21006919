"""A table of vectors (npy), and beside it a report (json) of its making."""

import json
import pathlib
from typing import Any

import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import storage


def check_options(
  where: str, at_least_one: dict[str, int], seed: int, rate: float = 1.0
) -> None:
  """Refuses options that cannot be meant.

  Args:
    where: the command they belong to, for the message.
    at_least_one: option -> value, of those that count something.
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
  """Returns whether vectors made with these settings are there.

  Args:
    path: of the npy file.
    settings: plain values, fit for json, that decide the result.

  Raises:
    InputError: they were made with other settings, or no one knows how.
  """
  if not path.exists():
    return False
  report = path.with_suffix(".json")
  try:
    found = json.loads(report.read_text(encoding="utf-8"))["settings"]
    differing = [
      f"{key}: {found.get(key)!r} there, {settings.get(key)!r} now"
      for key in sorted(settings.keys() | found.keys())
      if found.get(key) != settings.get(key)
    ]
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    differing = [f"{report} does not say which"]
  if differing:
    raise errors.InputError(
      f"{path} exists and was made with other settings "
      f"({'; '.join(differing)}). Models trained with the old vectors do not "
      "fit new ones: use --force to replace them, or another data set's folder."
    )
  return True


def write(
  path: pathlib.Path, vectors: np.ndarray, report: dict[str, Any]
) -> None:
  """Writes vectors and report under temporary names and renames them.

  Args:
    path: of the npy file; the report has the suffix .json.
    vectors: written as float32.
    report: fit for json, with a key `settings`.
  """
  partial = path.with_name(path.name + ".partial")
  with open(partial, "wb") as file:
    np.save(file, np.ascontiguousarray(vectors, np.float32))
  # Killed between these lines, the vectors are absent and are made again.
  path.unlink(missing_ok=True)
  storage.write_json(path.with_suffix(".json"), report)
  partial.replace(path)
