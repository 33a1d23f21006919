"""Steps with some of XLA's flags, each in a process of its own."""

import contextlib
import statistics

from benchmarks.accelerator import part_context
from benchmarks.accelerator import workers
from benchmarks.accelerator.parts import step_race
from pcl_jax.common import errors

# A process ends at a flag that its XLA does not know, which is then said.
_FLAGS = (
  "",
  "--xla_gpu_enable_latency_hiding_scheduler=true",
  "--xla_gpu_enable_command_buffer=",
  "--xla_gpu_autotune_level=0",
  "--xla_gpu_deterministic_ops=true",
  "--xla_gpu_enable_triton_gemm=false",
)
_TO_COMPILE_S = 60.0


def _time(
  form: step_race.Form, xla_flags: str, inner: int
) -> tuple[float, list[float]]:
  environment = {"XLA_FLAGS": xla_flags, "JAX_ENABLE_COMPILATION_CACHE": "0"}
  worker = workers.Worker("jax_steps", environment=environment)
  with contextlib.closing(worker):
    about = worker.ask("prepare", form.name, **form.settings)
    rounds = [
      worker.ask("take", form.name, count=inner)["seconds"] for _ in range(5)
    ]
  return about["ready_s"], rounds


def measure(context: part_context.Context) -> None:
  """Times the bfloat16 step of ResNet-18 with each flag."""
  form = step_race.our_form(context, "resnet", "bfloat16")
  for xla_flags in _FLAGS[:1] if context.tiny else _FLAGS:
    label = xla_flags or "no flags"
    if not context.has(10 if context.tiny else _TO_COMPILE_S, label):
      continue
    try:
      ready_s, seconds = _time(form, xla_flags, 2 if context.tiny else 10)
    except errors.RunError as error:
      context.record(label, left_out=str(error))
      continue
    patches = form.settings["changes"]["data.batch_size"] * 2
    context.record(
      label,
      **part_context.in_ms(seconds),
      patches_per_s=patches / statistics.median(seconds),
      ready_s=ready_s,
    )
