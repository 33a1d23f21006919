"""What the training step becomes on H100s, compiled without one.

python -m benchmarks.ahead_of_time
python -m benchmarks.ahead_of_time --encoder=resnet --dtype=bfloat16 --devices=8
python -m benchmarks.ahead_of_time --biggest=20 --text=step.hlo

Needs `pip install "jax[cuda13]"`, of the version that is installed, and no GPU;
a step takes one to two minutes of a core. Prints, for strategy Hybrid, what
passes through the device's memory, what a step holds of it, launches, loops
whose length the device decides and conditionals (at both the host waits),
collectives, and a model of the time: each launch takes the larger of its bytes
at 3.0 TB/s and its operations at 600 (bfloat16) or 300 TFLOP/s; a launch of
under 3 MB another 2.2 us. cuDNN's choice of algorithms is not in it. Several
devices exchange in 20 us and at 300 GB/s, more than eight in 50 us and at 40
GB/s, beside nothing else.
"""

import argparse
from collections.abc import Sequence
import os
import pathlib
import sys

import jax

from benchmarks.ahead_of_time import compiled_program
from benchmarks.ahead_of_time import device_programs
from benchmarks.parts import absent_gpus
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.models import audio_encoder

_DTYPES = ("bfloat16", "float32")
_DEVICES_OF_HOST = 8


def _report(
  name: str,
  program: compiled_program.Program,
  held: int,
  biggest: int,
  devices: int,
) -> None:
  seconds = program.seconds(compiled_program.Hardware())
  print(
    f"{name}: {program.bytes / 1e9:.1f} GB through memory, {held / 1e9:.2f} GB "
    f"held, {program.launches} launches ({program.small_launches} under 3 MB), "
    f"{len(program.unknown_loops)} loops of unknown length, "
    f"{len(program.conditionals)} conditionals, model {1e3 * seconds:.1f} ms"
  )
  if devices > 1:
    many = devices > _DEVICES_OF_HOST
    link = compiled_program.NETWORK if many else compiled_program.NVLINK
    exchange = program.seconds_of_exchange(link)
    print(f"  exchange: model {1e3 * exchange:.2f} ms")
  for kind, count in sorted(program.collectives.items()):
    moved = program.collective_bytes[kind] / 1e6
    print(f"  {count} {kind}, {moved:.1f} MB")
  for what in (*program.unknown_loops, *program.conditionals):
    print(f"  waits: {what}")
  by_traffic = sorted(program.operations, key=lambda one: -one.traffic)
  for one in by_traffic[:biggest]:
    print(f"  {one.traffic / 1e6:8,.0f} MB {one.kind} {one.name}: {one.source}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.ahead_of_time",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--encoder", choices=sorted(audio_encoder.BACKBONES))
  parser.add_argument("--dtype", choices=_DTYPES)
  parser.add_argument(
    "--strategy", choices=device_programs.STRATEGIES, default="hybrid"
  )
  parser.add_argument("--devices", type=int, default=1)
  parser.add_argument(
    "--batch", type=int, default=device_programs.PATCHES, help="patches"
  )
  parser.add_argument("--microbatches", type=int, default=1)
  parser.add_argument("--remat", action="store_true")
  parser.add_argument(
    "--biggest", type=int, default=0, help="launches to list, by bytes"
  )
  parser.add_argument(
    "--text", type=file_names.path, help="file for the last program's text"
  )
  return parser.parse_args(argv)


def _mesh(devices: int) -> jax.sharding.Mesh:
  try:
    return absent_gpus.h100s(devices)
  except RuntimeError as error:
    raise errors.InputError(
      "jax cannot compile for CUDA here: pip install "
      f'"jax[cuda13]=={jax.__version__}". ({str(error).splitlines()[0]})'
    ) from error


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line, compiles and prints."""
  flags = _parse(argv)
  mesh = _mesh(flags.devices)
  print(f"jax {jax.__version__}, {flags.devices} H100, {flags.batch} patches")
  encoders = [flags.encoder] if flags.encoder else audio_encoder.BACKBONES
  for encoder in encoders:
    for dtype in [flags.dtype] if flags.dtype else _DTYPES:
      train, _ = device_programs.steps(
        flags.strategy,
        encoder,
        mesh,
        dtype=jax.numpy.dtype(dtype),
        rows=flags.batch,
        remat=flags.remat,
        microbatches=flags.microbatches,
      )
      compiled = train.trace().lower().compile()
      text = compiled.as_text()
      if flags.text:
        pathlib.Path(flags.text).write_text(text)
      held = compiled.memory_analysis().temp_size_in_bytes
      program = compiled_program.read(text)
      name = f"{encoder} {dtype}"
      _report(name, program, held, flags.biggest, flags.devices)
      sys.stdout.flush()


if __name__ == "__main__":
  # Before anything touches a device. JAX reads its variables when it is
  # imported, XLA later; without a platform JAX looks for a driver, and gives
  # CUDA up where there is none.
  if not os.environ.get("JAX_PLATFORMS"):
    jax.config.update("jax_platforms", "cpu")
  os.environ.setdefault("XLA_FLAGS", absent_gpus.FLAGS)
  errors.run_command(main)
