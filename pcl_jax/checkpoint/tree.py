"""The trees of arrays in a checkpoint, and how two of them differ."""

from typing import Any

import jax

_SHOWN = 3  # Arrays of another shape that are named.


def split(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Parts the audio encoder from the rest of a training state.

  Args:
    state: params, batch_stats, opt_state, step.

  Returns:
    Parameters and batch statistics of the encoder, and all else.
  """
  encoder, rest = {}, {}
  for kind in ("params", "batch_stats"):
    encoder[kind] = state[kind]["audio"]
    rest[kind] = {k: v for k, v in state[kind].items() if k != "audio"}
  rest["opt_state"], rest["step"] = state["opt_state"], state["step"]
  # Orbax refuses an item without any leaf, which strategies without other
  # encoders would have here.
  rest = {name: tree for name, tree in rest.items() if jax.tree.leaves(tree)}
  return encoder, rest


def join(encoder: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
  """Undoes `split`."""
  state = dict(rest)
  for kind in ("params", "batch_stats"):
    state[kind] = {"audio": encoder[kind]} | rest.get(kind, {})
  return state


def abstract(tree: Any) -> Any:
  """Returns shapes, types and sharding of arrays."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree
  )


def shapes(tree: Any) -> dict[str, str]:
  """Returns type and shape of each array, as in float32[3, 4], by its path."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): (
      f"{x.dtype}[{', '.join(map(str, x.shape))}]"
    )
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }


def differences(found: dict[str, str], wanted: dict[str, str]) -> str:
  """Describes how the arrays on file differ from those that are wanted.

  Args:
    found: what `shapes` returns of those on file.
    wanted: the same of the others.

  Returns:
    Every path that only one of them has, and the first arrays of another type
    or shape; empty where there is no difference.
  """
  parts = []
  missing = sorted(wanted.keys() - found.keys())
  unexpected = sorted(found.keys() - wanted.keys())
  if missing:
    parts.append(f"missing on file: {', '.join(missing)}")
  if unexpected:
    parts.append(f"unexpected on file: {', '.join(unexpected)}")
  other = [
    f"{path} is {found[path]} on file and {wanted[path]} here"
    for path in sorted(found.keys() & wanted.keys())
    if found[path] != wanted[path]
  ]
  parts += other[:_SHOWN]
  if len(other) > _SHOWN:
    parts.append(f"and {len(other) - _SHOWN} more")
  return "; ".join(parts)
