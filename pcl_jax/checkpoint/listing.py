"""Tells people which checkpoints a run has, and whether they are good."""

import math
import os
import pathlib

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import errors

_COLUMNS = ("step", "epoch", "validation loss", "size", "", "digests")


def folder_of(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder of a run's checkpoints.

  Raises:
    InputError: there is none.
  """
  folder = pathlib.Path(workdir) / checkpoint_files.FOLDER
  if not folder.is_dir():
    raise errors.InputError(
      f"{workdir} has no folder {checkpoint_files.FOLDER}, so it is not the "
      "workdir of a run. Train one with python launch.py --config=... "
      "--workdir=..."
    )
  return folder


def _epoch_of(files: checkpoint_files.CheckpointFiles, step: int) -> str:
  try:
    return str(files.read(step, checkpoint_files.META)["progress"]["epoch"])
  except (OSError, ValueError, KeyError):
    return "?"


def show_steps(workdir: str | os.PathLike[str]) -> int:
  """Prints a table of the steps, and what was moved aside; returns 0.

  Raises:
    InputError: it is not the workdir of a run.
  """
  folder = folder_of(workdir)
  files = checkpoint_files.CheckpointFiles(workdir)
  losses = files.losses()
  best = next(iter(checkpoint_files.best_of(losses, 1)), None)
  rows = [_COLUMNS]
  for step, loss in losses.items():
    marks = ["latest"] * (step == max(losses)) + ["best"] * (step == best)
    rows.append(
      (
        str(step),
        _epoch_of(files, step),
        f"{loss:.4f}" if math.isfinite(loss) else "-",
        f"{files.size(step) / 1e6:.1f} MB",
        ", ".join(marks),
        "on file" if files.has_digest(step) else "missing",
      )
    )
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  print(f"{len(rows) - 1} checkpoint(s) in {folder}")
  for row in rows if losses else []:
    cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
    print("  ".join(cells).rstrip())
  for name, reason in files.moved_aside().items():
    print(f"moved aside: {checkpoint_files.BAD}/{name} ({reason})")
  return 0


def verify(workdir: str | os.PathLike[str]) -> int:
  """Reads all files of all steps and prints what is wrong with each.

  Returns:
    1 where a step is damaged, else 0.

  Raises:
    InputError: it is not the workdir of a run.
  """
  folder_of(workdir)
  files = checkpoint_files.CheckpointFiles(workdir)
  damaged = 0
  for step in files.steps():
    fault = files.fault(step)
    if fault is not None and not files.folder(step).is_dir():
      print(f"step {step}: deleted meanwhile")
    elif fault is not None:
      damaged += 1
      print(f"step {step}: DAMAGED: {fault}")
    elif files.has_digest(step):
      print(f"step {step}: good")
    else:
      print(f"step {step}: has no digests, so it cannot be verified")
  print(f"{damaged} damaged of {len(files.steps())} checkpoint(s)")
  return int(damaged > 0)
