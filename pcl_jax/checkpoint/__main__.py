"""Lists the checkpoints of a run, or verifies them.

python -m pcl_jax.checkpoint list runs/hybrid
python -m pcl_jax.checkpoint verify runs/hybrid

`list` prints the steps of a run; `verify` reads all their files, compares the
digests, and exits with code 1 if a step is damaged. Neither changes anything,
so the run may be training.
"""

from collections.abc import Sequence
import math

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import command_line
from pcl_jax.common import errors

_COLUMNS = ("step", "epoch", "validation loss", "size", "", "digests")


def _epoch_of(files: checkpoint_files.CheckpointFiles, step: int) -> str:
  try:
    return str(files.read(step, checkpoint_files.META)["progress"]["epoch"])
  except (OSError, ValueError, KeyError):
    return "?"


def print_steps(files: checkpoint_files.CheckpointFiles) -> int:
  """Prints a table of the steps, and the steps moved aside; returns 0."""
  losses = files.losses()
  best = checkpoint_files.best_of(losses)
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
  print(f"{len(rows) - 1} checkpoint(s) in {files.path}")
  for row in rows if losses else []:
    cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
    print("  ".join(cells).rstrip())
  for name, reason in files.moved_aside().items():
    print(f"moved aside: {checkpoint_files.BAD}/{name} ({reason})")
  return 0


def verify(files: checkpoint_files.CheckpointFiles) -> int:
  """Verifies all files of all steps; returns 1 if a step is damaged, else 0."""
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


def main(argv: Sequence[str] | None = None) -> int:
  """Parses the command line; lists or verifies the checkpoints of a run."""
  parser = command_line.parser("pcl_jax.checkpoint", __doc__)
  parser.add_argument("task", choices=("list", "verify"))
  parser.add_argument("run", help="workdir of the run")
  flags = parser.parse_args(argv)
  files = checkpoint_files.CheckpointFiles(flags.run)
  files.check_exists()
  return {"list": print_steps, "verify": verify}[flags.task](files)


if __name__ == "__main__":
  errors.run_command(main)
