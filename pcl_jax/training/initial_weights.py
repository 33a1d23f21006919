"""Weights that a run begins with in place of drawn ones: `config.init_from`.

The audio encoder of a run, a bundle, a model hub or a PyTorch file is taken,
whatever it was trained for. Only the beginning of a run reads it: a workdir
with checkpoints goes on from them.
"""

import dataclasses
import pathlib
from typing import Any

from flax import nnx
import jax
import ml_collections
import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.checkpoint import checkpoint_files
from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import hosts
from pcl_jax.data.splits import learned_songs
from pcl_jax.training import setup

KEY = checkpoint_files.INIT_FROM
_NOWHERE = learned_songs.LearnedSongs()
_OF_BACKBONE = ("backbone_type", "width")  # Keys of model_params.audio.
_OF_PROJECTION = ("fc_hidden_dim", "fc_output_dim")
_GOLDEN_PATCHES = 2  # As many as the golden audio of a bundle has.


def begin(
  run: setup.Setup, workdir: pathlib.Path
) -> tuple[setup.Setup, learned_songs.LearnedSongs]:
  """Gives a run that has no checkpoints yet the weights its config names.

  Returns:
    The run, and the songs that these weights have learned from, as far as they
    are on record.

  Raises:
    InputError: as `with_weights`.
  """
  if not run.config.init_from:
    return run, _NOWHERE
  steps = checkpoint_files.CheckpointFiles(workdir).steps()
  if hosts.text_of_first("some" if steps else ""):
    return run, _NOWHERE
  run, learned = with_weights(run)
  about = run.meta[KEY]
  console.say(f"begins with weights {_described(about)}")
  if not about["songs_on_record"] and hosts.is_first():
    console.warn(
      f"which songs {about['name']} has learned from is not on record: test "
      "songs of this data set may be among them"
    )
  return run, learned


def recalled(meta: dict[str, Any]) -> dict[str, Any]:
  """Returns what a checkpoint says of the weights its run began with."""
  if KEY not in meta:
    return {}
  about = meta[KEY]
  console.say(
    f"it began with weights {_described(about)}; they are not read again"
  )
  return {KEY: about}


def check_same(then: dict[str, Any], now: dict[str, Any]) -> None:
  """Raises InputError where a run began with other weights than there are."""
  began, found = (
    meta[KEY]["weights_sha256"][:12] if KEY in meta else "drawn ones"
    for meta in (then, now)
  )
  if began != found:
    raise errors.InputError(
      f"config.{KEY} names the weights {found} now, and the run began with "
      f"{began}: give those."
    )


def _described(about: dict[str, Any]) -> str:
  return f"{about['weights_sha256'][:12]} of {about['name']}"


def with_weights(
  run: setup.Setup,
) -> tuple[setup.Setup, learned_songs.LearnedSongs]:
  """Returns a run with the weights of `config.init_from`, and their songs.

  The projection is the run's own, newly drawn, where that of the weights has
  other sizes.

  Raises:
    InputError: there are no such weights, they cannot be used, or their
      backbone is not the config's.
  """
  place = run.config.init_from
  try:
    encoder = _load(place)
    learned = _learned_songs(place)
  except errors.InputError as error:
    raise errors.InputError(f"config.{KEY}: {error}") from error
  digest = encoder.about["weights_sha256"]
  hosts.check_same({f"weights of config.{KEY}": digest})
  state, is_new = _fitted(run, encoder)
  theirs, ours = (
    channel_mix.of(meta["feature"]) for meta in (encoder.meta, run.meta)
  )
  if theirs != ours and hosts.is_first():
    console.warn(
      f"{place} has learned from channels={theirs!r}, and the data set has "
      f"{ours!r}: the encoder learns another mix from here on"
    )
  about = {
    "name": _name_of(encoder.about["workdir"]),
    "weights_sha256": digest,
    "strategy": encoder.meta["strategy"],
    "step": encoder.meta["progress"]["step"],
    "data": encoder.meta.get("data"),
    "new_projection": is_new,
    "songs_on_record": learned is not None,
  }
  earlier = encoder.meta.get(KEY)
  if earlier:
    about[KEY] = earlier
    about["songs_on_record"] &= bool(earlier.get("songs_on_record"))
  run = dataclasses.replace(run, state=state, meta=run.meta | {KEY: about})
  return run, learned or _NOWHERE


def _load(place: str) -> Any:
  """Returns the SongEncoder of a place."""
  # Half a second of imports that other runs need not wait for.
  from pcl_jax.embedding import encoder_loading
  from pcl_jax.embedding.bundles import bundle_files
  from pcl_jax.embedding.bundles import hub_downloads
  from pcl_jax.interop import torch_files

  path = file_names.path(place)
  if not hub_downloads.is_address(place) and not path.exists():
    raise errors.InputError(
      f"{place} does not exist: give a bundle, the workdir of a run, "
      "hf://USER/NAME, or a state dict of PyTorch (.safetensors, .pt)."
    )
  if path.is_file():
    encoder = torch_files.load(path)
  else:
    encoder = encoder_loading.load(place, batch_patches=_GOLDEN_PATCHES)
  bundle_files.check_finite(bundle_files.arrays_of(encoder.network), place)
  return encoder


def _learned_songs(place: str) -> learned_songs.LearnedSongs | None:
  """Returns the songs of a run; None where they are not on record."""
  path = file_names.path(place)
  return learned_songs.read(path) if path.is_dir() else None


def _name_of(place: str) -> str:
  """Returns what a place is called, without the folders of this machine."""
  if "://" in place:  # An address, with its commit.
    return place
  return file_names.to_text(pathlib.Path(place).name)[0]


def _fitted(run: setup.Setup, encoder: Any) -> tuple[dict[str, Any], bool]:
  """Returns the run's state with an encoder's weights.

  Also tells whether the projection stayed the run's own.
  """
  config, state = run.config, run.state
  found = [
    jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(encoder.network, kind)))
    for kind in (nnx.Param, nnx.BatchStat)
  ]
  own = [state[kind]["audio"] for kind in ("params", "batch_stats")]
  _check_backbone(config, encoder, found, own)
  is_new = _shapes(found[0]["projection"]) != _shapes(own[0]["projection"])
  if is_new:
    there = encoder.about["architecture"]
    sizes = [
      f"{key} is {there.get(key, 'the default')} there and "
      f"{config.model_params.audio[key]} here"
      for key in _OF_PROJECTION
      if there.get(key) != config.model_params.audio[key]
    ]
    console.say(
      f"the projection of {config.init_from} does not fit "
      f"({', '.join(sizes)}) and is drawn new"
    )
    found[0]["projection"] = own[0]["projection"]
  everywhere = jax.NamedSharding(run.batches.sharding.mesh, jax.P())
  for kind, tree in zip(("params", "batch_stats"), found, strict=True):
    placed = jax.device_put(tree, everywhere)
    state = state | {kind: state[kind] | {"audio": placed}}
  return state, is_new


def _check_backbone(
  config: ml_collections.ConfigDict,
  encoder: Any,
  found: list[Any],
  own: list[Any],
) -> None:
  """Raises InputError where the backbone is another than the config's."""
  there, here = encoder.about["architecture"], config.model_params.audio
  differing = [key for key in _OF_BACKBONE if there.get(key) != here[key]]
  shapes = [_shapes([p["backbone"], stats]) for p, stats in (found, own)]
  if shapes[0] == shapes[1] and there["backbone_type"] == here["backbone_type"]:
    return
  listed = ", ".join(
    f"{key} is {there.get(key)!r} there and {here[key]!r} here"
    for key in differing
  )
  flags = " ".join(
    f"--config.model_params.audio.{key}={there.get(key)}" for key in differing
  )
  raise errors.InputError(
    f"config.{KEY}={config.init_from} has another backbone than "
    f"config.model_params.audio ({listed or 'other arrays'}), and its weights "
    f"do not fit: give {flags or 'other weights'}, or leave {KEY} out."
  )


def _shapes(tree: Any) -> list[tuple[str, tuple[int, ...], str]]:
  return [
    (jax.tree_util.keystr(path), leaf.shape, str(leaf.dtype))
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ]
