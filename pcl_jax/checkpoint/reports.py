"""What there is to say about the checkpoints of a run, line by line."""

from collections.abc import Iterator
import math

from pcl_jax.checkpoint import checkpoint_files

_ROW = "{:>8}  {:>5}  {:>15}  {:>10}  {:>12}  {:>7}"
_HEADER = ("step", "epoch", "validation loss", "size", "", "digests")


def _epoch_of(files: checkpoint_files.CheckpointFiles, step: int) -> str:
  try:
    return str(files.read(step, checkpoint_files.META)["progress"]["epoch"])
  except (OSError, ValueError, KeyError):
    return "?"


def listing(files: checkpoint_files.CheckpointFiles) -> Iterator[str]:
  """Yields a table of the steps, and the steps moved aside."""
  losses = files.losses()
  best = checkpoint_files.best_of(losses)
  yield f"{len(losses)} checkpoint(s) in {files.path}"
  if losses:
    yield _ROW.format(*_HEADER)
  for step, loss in losses.items():
    marks = ["latest"] * (step == max(losses)) + ["best"] * (step == best)
    yield _ROW.format(
      step,
      _epoch_of(files, step),
      f"{loss:.4f}" if math.isfinite(loss) else "-",
      f"{files.size(step) / 1e6:.1f} MB",
      ", ".join(marks),
      "on file" if files.has_digest(step) else "missing",
    )
  for name, reason in files.moved_aside().items():
    yield f"moved aside: {checkpoint_files.BAD}/{name} ({reason})"


def verification(
  files: checkpoint_files.CheckpointFiles,
) -> Iterator[tuple[str, bool]]:
  """Verifies all files of all steps; yields a line and whether it is damage."""
  for step in files.steps():
    fault = files.fault(step)
    if fault is not None and not files.folder(step).is_dir():
      yield f"step {step}: deleted meanwhile", False
    elif fault is not None:
      yield f"step {step}: DAMAGED: {fault}", True
    elif files.has_digest(step):
      yield f"step {step}: good", False
    else:
      yield f"step {step}: has no digests, so it cannot be verified", False
