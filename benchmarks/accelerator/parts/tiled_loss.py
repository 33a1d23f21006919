"""Value and gradient of NT-Xent, at once and by tiles: time and memory."""

import functools
import statistics

import jax

from benchmarks import nt_xent
from benchmarks.accelerator import part_context

_DIMS = 128
# The size of a tile that is none of the loss.
_DENSE = 0
# Rows -> sizes of tiles.
_SIZES = {
  8_192: (_DENSE, 1024, 4096),
  65_536: (4096, 1024, 2048, 8192, 16_384),
  262_144: (4096, 8192, 1024),
}
_TINY_SIZES = {512: (_DENSE, 128, 256)}
_TO_COMPILE_S = 25.0


def measure(context: part_context.Context) -> None:
  """Measures each size with partners, and the defaults with genres."""
  for rows, tiles in (_TINY_SIZES if context.tiny else _SIZES).items():
    arguments = nt_xent.make_arguments(rows, _DIMS)
    forms = [("partner", tile) for tile in tiles]
    forms.append(("genres", 1024 if 1024 in tiles else tiles[-1]))
    for positives, tile in forms:
      label = f"{rows} rows, {positives}, " + (
        f"tiles of {tile}" if tile else "dense"
      )
      if not context.has(3 if context.tiny else _TO_COMPILE_S, label):
        continue
      function = nt_xent.make_function(tile, positives)
      compiled = function.lower(*arguments).compile()
      seconds = part_context.time_calls(
        functools.partial(compiled, *arguments),
        jax.block_until_ready,
        1 if rows > 100_000 else 3,
      )
      value, _ = compiled(*arguments)
      temporary = compiled.memory_analysis().temp_size_in_bytes
      context.record(
        label,
        **part_context.in_ms(seconds),
        ns_a_pair=statistics.median(seconds) * 1e9 / rows**2,
        temporary_mb=temporary / 1e6,
        value=float(value),
      )
