"""Whether two runs of the same steps give the same bits."""

import contextlib

from benchmarks.accelerator import part_context
from benchmarks.accelerator import workers
from benchmarks.accelerator.parts import step_race
from pcl_jax.common import errors

_STEPS = 6
_FLAGS = ("", "--xla_gpu_deterministic_ops=true")
_TO_COMPILE_S = 60.0


def _digests(form: step_race.Form, xla_flags: str) -> list[str]:
  """Takes the steps twice, in a process that compiles anew."""
  environment = {"XLA_FLAGS": xla_flags, "JAX_ENABLE_COMPILATION_CACHE": "0"}
  worker = workers.Worker("jax_steps", environment=environment)
  with contextlib.closing(worker):
    worker.ask("prepare", form.name, **form.settings)
    return [
      worker.ask("digest", form.name, count=_STEPS)["digest"] for _ in range(2)
    ]


def measure(context: part_context.Context) -> None:
  """Compares digests within a process and between two, with and without."""
  for dtype in ("float32", "bfloat16"):
    form = step_race.our_form(context, "resnet", dtype, family="hybrid")
    for xla_flags in _FLAGS[:1] if context.tiny else _FLAGS:
      label = f"hybrid resnet {dtype} {xla_flags}".rstrip()
      needed = 10 if context.tiny else 2 * _TO_COMPILE_S
      if not context.has(needed, label):
        continue
      try:
        first, second = (_digests(form, xla_flags) for _ in range(2))
      except errors.RunError as error:
        context.record(label, error=str(error))
        continue
      context.record(
        label,
        steps=_STEPS,
        same_in_a_process=len(set(first)) == 1 and len(set(second)) == 1,
        same_in_two_processes=len({*first, *second}) == 1,
      )
