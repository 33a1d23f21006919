"""Lists the checkpoints of a run, or verifies them.

python -m pcl_jax.checkpoint list runs/hybrid
python -m pcl_jax.checkpoint verify runs/hybrid

`list` prints the steps of a run; `verify` reads all their files, compares the
digests, and exits with code 1 if a step is damaged. Neither changes anything,
so the run may be training.
"""

from collections.abc import Sequence

from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.checkpoint import reports
from pcl_jax.common import command_line
from pcl_jax.common import errors


def main(argv: Sequence[str] | None = None) -> int:
  """Parses the command line; lists or verifies the checkpoints of a run."""
  parser = command_line.parser("pcl_jax.checkpoint", __doc__)
  parser.add_argument("task", choices=("list", "verify"))
  parser.add_argument("run", help="workdir of the run")
  flags = parser.parse_args(argv)
  files = checkpoint_files.CheckpointFiles(flags.run)
  files.check_exists()
  if flags.task == "list":
    for line in reports.listing(files):
      print(line)
    return 0
  damaged = 0
  for line, is_damaged in reports.verification(files):
    print(line)
    damaged += is_damaged
  print(f"{damaged} damaged of {len(files.steps())} checkpoint(s)")
  return int(damaged > 0)


if __name__ == "__main__":
  errors.run_command(main)
