"""What an accelerator makes of the project, measured in parts.

python -m benchmarks.accelerator --minutes=40
python -m benchmarks.accelerator --minutes=9 --parts=environment,steps_resnet
python -m benchmarks.accelerator --tiny --out=/tmp/tried

Each part is a process of its own and takes less than ten minutes. A part begins
only if time is left for it, and is stopped when its time is over; what was left
out is said. In --out are results.jsonl (a figure a line), a log of each part,
and traces for Perfetto. Data sets, runs and compiled programs stay in --scratch
for the next call.

Parts:
  environment   versions; matrix products, copies, transfers; is float32 TF32?
  sample        begins to synthesise the sample of `hybrid`, in the background
  parity        the golden numbers, on this device (tests/on_accelerator.py)
  steps_resnet  training steps in turn: types, --tree, PyTorch if it is there
  steps_sc_cnn  the same of the other encoder
  loop          training from the loader: rate, waiting for data, a trace
  resident      batches cut from 6 GB of songs in the device's memory
  hybrid        a training of the paper's width on the sample, evaluated
  smoke         all eight families launched small; goes on, evaluates, embeds
  loss          NT-Xent by tiles at 65,536 and 262,144 rows
  determinism   whether two runs give the same bits
  embedding     patches and songs per second
  search        the nearest of a million vectors
  warp          epochs of the playlist vectors
  flags         steps with some of XLA's flags

With --tree=FOLDER, another checkout of the project, its steps and its loop are
timed in turn with these. --tiny tries all parts on a CPU in minutes.
"""

import argparse
from collections.abc import Sequence
import json
import pathlib
import tempfile
import time

from benchmarks.accelerator import part_context
from benchmarks.accelerator import part_list
from benchmarks.accelerator import part_process
from pcl_jax.common import errors

_LAST_LINES = 8  # Of the log of a part that failed.


def _figures(path: pathlib.Path) -> list[str]:
  """Returns the lines of the results so far."""
  return path.read_text().splitlines() if path.exists() else []


def _report(name: str, flags: argparse.Namespace, seconds: float) -> str | None:
  """Runs a part and prints its figures; returns what went wrong."""
  results = flags.out / part_context.RESULTS
  before = len(_figures(results))
  print(f"== {name}: at most {seconds:.0f} s", flush=True)
  code, took = part_process.run(name, flags, seconds)
  rows = [json.loads(line) for line in _figures(results)[before:]]
  for row in rows:
    print(part_context.in_words(row))
  print(f"== {name}: took {took:.0f} s", flush=True)
  if code == 0:
    failed = [row["name"] for row in rows if "error" in row]
    return f"{name} had errors in {'; '.join(failed)}" if failed else None
  log = (flags.out / f"{name}.log").read_text(errors="replace").splitlines()
  print("\n".join(f"   {line[:300]}" for line in log[-_LAST_LINES:]))
  ended = "was stopped" if code is None else f"ended with exit code {code}"
  return f"{name} {ended} after {took:.0f} s"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.accelerator",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  scratch = pathlib.Path(tempfile.gettempdir()) / "pcl_jax-accelerator"
  parser.add_argument("--minutes", type=float, default=40.0)
  parser.add_argument("--parts", help="with commas between; default: all")
  parser.add_argument(
    "--out", type=pathlib.Path, default=pathlib.Path("runs/accelerator")
  )
  parser.add_argument("--scratch", type=pathlib.Path, default=scratch)
  parser.add_argument("--tree", type=pathlib.Path, help="another checkout")
  parser.add_argument("--tiny", action="store_true", help="on a CPU, small")
  flags = parser.parse_args(argv)
  if flags.tree is not None and not (flags.tree / "pcl_jax").is_dir():
    raise errors.InputError(
      f"--tree={flags.tree} has no folder pcl_jax: give a checkout of the "
      "project."
    )
  if flags.tiny:
    flags.scratch = flags.scratch / "tiny"
  for name in ("out", "scratch", "tree"):
    if (path := getattr(flags, name)) is not None:
      setattr(flags, name, path.resolve())
  for folder in (flags.out, flags.scratch):
    folder.mkdir(parents=True, exist_ok=True)
  return flags


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the parts; returns 1 if one of them failed."""
  flags = _parse(argv)
  names = part_list.chosen(flags.parts)
  ends_at = time.monotonic() + 60 * flags.minutes
  wrong, left_out = [], []
  for name in names:
    left_s = ends_at - time.monotonic()
    seconds = part_list.allotted(part_list.PARTS[name], left_s)
    if seconds is None:
      left_out.append(f"{name} ({left_s:.0f} s were left)")
    elif failure := _report(name, flags, seconds):
      wrong.append(failure)
  print(f"figures, logs and traces: {flags.out}")
  if left_out:
    print(f"left out for want of time: {', '.join(left_out)}")
  if wrong:
    print(f"failed: {'; '.join(wrong)}")
  return 1 if wrong else 0


if __name__ == "__main__":
  errors.run_command(main)
