"""Stages before and in training: split, vectors, plans, masks, loading."""

from collections.abc import Callable, Mapping
import functools
import pathlib

import jax
import numpy as np

from benchmarks.melon_size import made_melon
from benchmarks.melon_size import stage_timing
from benchmarks.melon_size.stage_timing import Done
from pcl_jax.data import dataset
from pcl_jax.data import false_negatives
from pcl_jax.data import loader
from pcl_jax.data import plans
from pcl_jax.data import read_order
from pcl_jax.data import strategies
from preprocessing import data_split
from preprocessing import genre_vectors
from preprocessing import playlist_vectors

_EPOCHS = 50  # Of WARP, by default.
_CROSS_MODAL = (("audio", "cf"), ("audio", "genre_w2v"), ("cf", "genre_w2v"))
_STRATEGIES = {
  "SS": ((("audio", "audio_self"),), ""),
  "CM A,G,P": (_CROSS_MODAL, ""),
  "A-IM Playlist": ((), "Playlist"),
  "A-IM Artist": ((), "Artist"),
  "A-IM Genre": ((), "Genre"),
  "A-IM Album": ((), "Album"),
  "Hybrid Playlist": (_CROSS_MODAL, "Playlist"),
}
_TAGS, _WINDOW, _THREADS = 10, 625, 2  # As in configs/common.py.


def _split(folder: pathlib.Path, sizes: made_melon.Sizes) -> Callable[[], Done]:
  def run() -> Done:
    data_split.main([f"--melon_dir={folder}", f"--data={folder}", "--force"])
    return Done("stratified over genres, validation pairs of each method")

  return run


def _playlist_vectors(
  folder: pathlib.Path, sizes: made_melon.Sizes
) -> Callable[[], Done]:
  epochs = sizes.warp_epochs

  def run() -> Done:
    begin = stage_timing.now()
    playlist_vectors.main([f"--data={folder}", f"--epochs={epochs}", "--force"])
    seconds = stage_timing.now() - begin
    return Done(f"{_EPOCHS} epochs, from {epochs}", seconds * _EPOCHS / epochs)

  return run


def _genre_vectors(
  folder: pathlib.Path, sizes: made_melon.Sizes
) -> Callable[[], Done]:
  def run() -> Done:
    genre_vectors.main([f"--data={folder}", "--force"])
    return Done("5 epochs")

  return run


def _open(folder: pathlib.Path, sizes: made_melon.Sizes) -> Callable[[], Done]:
  def run() -> Done:
    data = dataset.DataSet(folder)
    data.fingerprint()
    return Done(f"{len(data.store):,} songs, and the fingerprint")

  return run


def _plan_of(
  data: dataset.DataSet, strategy: strategies.Strategy, batch: int
) -> plans.Plan:
  return data.training_plan(
    strategy, batch, double_window=_WINDOW, seed=0, epoch=0
  )


def _batch_of(name: str, sizes: made_melon.Sizes) -> int:
  """Returns songs or pairs of a batch that has the paper's patches."""
  return sizes.batch * (2 if name.startswith("CM") else 1)


def _plan(
  name: str,
  blocks: read_order.Blocks | None,
  folder: pathlib.Path,
  sizes: made_melon.Sizes,
) -> Callable[[], Done]:
  strategy = strategies.parse(*_STRATEGIES[name])
  data = dataset.DataSet(folder, blocks)

  def run() -> Done:
    plan = _plan_of(data, strategy, _batch_of(name, sizes))
    return Done(f"{len(plan):,} steps of {plan.songs.shape[1]} patches")

  return run


def _masks(folder: pathlib.Path, sizes: made_melon.Sizes) -> Callable[[], Done]:
  strategy = strategies.parse(*_STRATEGIES["A-IM Playlist"])
  data = dataset.DataSet(folder)
  plan = _plan_of(data, strategy, sizes.batch)

  def run() -> Done:
    kinds = false_negatives.KINDS
    shared = false_negatives.SharedLists.of(data.catalogue, kinds)
    entries = [shared.entries(songs).shape[1] for songs in plan.songs]
    return Done(
      f"{', '.join(kinds)}; {len(plan):,} batches of {plan.songs.shape[1]} "
      f"songs, {np.mean(entries):,.0f} entries in each"
    )

  return run


def _load(
  name: str,
  blocks: read_order.Blocks | None,
  folder: pathlib.Path,
  sizes: made_melon.Sizes,
) -> Callable[[], Done]:
  strategy = strategies.parse(*_STRATEGIES[name])
  data = dataset.DataSet(folder, blocks)
  plan = _plan_of(data, strategy, _batch_of(name, sizes))
  tables = data.tables(strategy, _TAGS)
  tables.pop("songs", None)
  mesh = jax.make_mesh(
    (1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  sharding = jax.NamedSharding(mesh, jax.P("data"))

  def run() -> Done:
    for batch in loader.load(
      data.store, tables, plan, sharding, threads=_THREADS
    ):
      jax.block_until_ready(batch)
    return Done(f"{plan.songs.size:,} patches, {_THREADS} threads")

  return run


_BLOCKS = read_order.Blocks()
STAGES: Mapping[str, stage_timing.Stage] = {
  "split": _split,
  "playlist vectors": _playlist_vectors,
  "genre vectors": _genre_vectors,
  "open the data set": _open,
  **{
    f"plan an epoch, {name}": functools.partial(_plan, name, None)
    for name in _STRATEGIES
    if name != "Hybrid Playlist"
  },
  "plan an epoch, A-IM Playlist, blocks": functools.partial(
    _plan, "A-IM Playlist", _BLOCKS
  ),
  "masks of an epoch, A-IM Playlist": _masks,
  "load an epoch, CM A,G,P, shuffled": functools.partial(
    _load, "CM A,G,P", None
  ),
  "load an epoch, Hybrid Playlist, blocks": functools.partial(
    _load, "Hybrid Playlist", _BLOCKS
  ),
}
