"""Training steps of several programs in turn, on one device.

A round times each program alone (waited for after each step) and ten steps in a
row, as training takes them. Ratios are those of a round.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import importlib.util
import statistics
from typing import Any

from benchmarks.accelerator import part_context
from benchmarks.accelerator import random_data
from benchmarks.accelerator import workers
from pcl_jax.common import errors

_TO_COMPILE_S = 75.0
OURS, TREE, TORCH = "ours", "tree", "torch"
_MODULES = {OURS: "jax_steps", TREE: "jax_steps", TORCH: "torch_steps"}


@dataclasses.dataclass(frozen=True)
class Form:
  """A form of the step: who takes it, and how it is built."""

  name: str
  worker: str  # Of `_MODULES`.
  settings: dict[str, Any]


def our_form(
  context: part_context.Context,
  encoder: str,
  dtype: str,
  *,
  worker: str = OURS,
  family: str = "ss",
  precision: str | None = None,
) -> Form:
  """Returns a form of a run's step.

  Args:
    context: of the part.
    encoder: resnet or sc_cnn.
    dtype: of convolutions.
    worker: of this checkout, or of --tree.
    family: ss or hybrid.
    precision: of float32 products.
  """
  changes = random_data.changes(context) | {"train.compute_dtype": dtype}
  family_said = "" if family == "ss" else family
  settings = {
    "config": f"{family}_{encoder}",
    "changes": changes,
    "precision": precision,
  }
  words = filter(None, (worker, family_said, dtype, precision))
  return Form("_".join(words), worker, settings)


def _forms(context: part_context.Context, encoder: str) -> Iterator[Form]:
  """Yields the forms, the most important ones first."""
  has_torch = importlib.util.find_spec("torch") is not None
  if not has_torch:
    context.record(f"{encoder} torch", left_out="PyTorch is not installed")
  sides = [OURS] if context.tree is None else [OURS, TREE]
  for dtype in ("bfloat16", "float32"):
    for side in sides:
      yield our_form(context, encoder, dtype, worker=side)
    if dtype == "bfloat16" and has_torch:
      patches = 2 * random_data.changes(context)["data.batch_size"]
      width = random_data.TINY_WIDTH if context.tiny else None
      shape = {"encoder": encoder, "width": width, "patches": patches}
      for careful, name in ((True, "compiled_bfloat16"), (False, "eager")):
        if careful and context.tiny:
          continue  # It needs a compiler, and minutes.
        yield Form(f"torch_{name}", TORCH, shape | {"careful": careful})
  yield our_form(context, encoder, "bfloat16", family="hybrid")
  yield our_form(context, encoder, "float32", precision="highest")


class Race:
  """Workers and the programs that they hold."""

  def __init__(self, context: part_context.Context):
    self._context = context
    self._stack = contextlib.ExitStack()
    self._workers: dict[str, workers.Worker] = {}
    self.about: dict[str, dict[str, Any]] = {}
    self._held: dict[str, workers.Worker] = {}

  def _worker(self, name: str) -> workers.Worker:
    if name not in self._workers:
      tree = self._context.tree if name == TREE else None
      made = workers.Worker(_MODULES[name], tree=tree)
      self._stack.callback(made.close)
      self._workers[name] = made
    return self._workers[name]

  def prepare(self, form: Form, label: str) -> bool:
    """Has a worker compile a form; says why if it cannot."""
    worker = self._worker(form.worker)
    try:
      about = worker.ask("prepare", form.name, **form.settings)
      seconds = worker.ask("take", form.name, count=3)["seconds"]
    except errors.RunError as error:
      self._context.record(f"{label} {form.name}", error=str(error))
      return False
    self._held[form.name], self.about[form.name] = worker, about
    self._context.record(
      f"{label} {form.name}, first look", ms=seconds * 1e3, **about
    )
    return True

  def run(
    self, rounds: int, inner: int
  ) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Takes steps in turn, while time is left.

    Args:
      rounds: at most.
      inner: steps in a row.

    Returns:
      Seconds of a step in a row in each round, and of one alone, by form.
    """
    rows = {name: [] for name in self._held}
    alone = {name: [] for name in self._held}
    for _ in range(rounds):
      for name, worker in list(self._held.items()):
        try:
          for found, count in ((alone, 1), (rows, inner)):
            answer = worker.ask("take", name, count=count)
            found[name].append(answer["seconds"])
        except errors.RunError as error:
          self._context.record(name, error=str(error))
          del self._held[name], rows[name], alone[name]
      if self._context.seconds_left < 5:
        break
    return rows, alone

  def close(self) -> None:
    """Ends the workers."""
    self._stack.close()


def record_ratios(
  context: part_context.Context, label: str, rows: dict[str, list[float]]
) -> None:
  """Records the ratio of each form to each of another side, round by round."""
  for name, seconds in rows.items():
    for other, others in rows.items():
      is_ours = name.startswith(OURS)
      if not is_ours or other.startswith(OURS):
        continue
      # Of another checkout, only the same form.
      if other.startswith(TREE) and other != name.replace(OURS, TREE):
        continue
      ratios = [a / b for a, b in zip(seconds, others, strict=True)]
      context.record(
        f"{label} {name} / {other}",
        times=statistics.median(ratios),
        least=min(ratios),
        most=max(ratios),
      )


def measure(context: part_context.Context) -> None:
  """Measures the steps of the encoder that the part's name ends with."""
  encoder = context.part.removeprefix("steps_")
  with contextlib.closing(Race(context)) as race:
    for form in _forms(context, encoder):
      needed = 5 if context.tiny else _TO_COMPILE_S
      if context.has(needed, f"{encoder} {form.name}"):
        race.prepare(form, encoder)
    rows, alone = race.run(*((2, 2) if context.tiny else (7, 10)))
  for name, seconds in rows.items():
    about = race.about[name]
    median = statistics.median(seconds)
    operations = about.get("operations")
    context.record(
      f"{encoder} {name}",
      **part_context.in_ms(seconds),
      alone_ms=statistics.median(alone[name]) * 1e3,
      patches_per_s=about["patches"] / median,
      tflops_per_s=operations / median / 1e12 if operations else None,
      temporary_gb=about.get("temporary_gb"),
    )
  record_ratios(context, encoder, rows)
