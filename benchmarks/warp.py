"""Playlist vectors: ours against LightFM's, in quality and in time.

python -m benchmarks.warp
python -m benchmarks.warp --playlists=2000 --songs=5000 --dims=64 --epochs=10
python -m benchmarks.warp --data=data/sample

Needs `pip install lightfm-next`, which nothing else does. Draws playlists of
some hundred themes (or takes those of a data set), holds one song in ten out,
and factorises the rest with both, epoch by epoch in turn, within one run.
Prints for both the ROC-AUC and the precision at 10 of the held-out songs among
all that are not in the playlist already, and the time of an epoch.
"""

import argparse
from collections.abc import Sequence
import importlib
import os
import statistics
import time

import numpy as np
import scipy.sparse

from benchmarks.parts import machine
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import catalogues
from preprocessing.vectors import warp

_THEMES_A_PLAYLIST = 2
_MEAN_LENGTH = 40
_NOISE = 0.1  # Share of songs that ignore the theme.
_POPULARITY_POWER = 0.8
_HELD_OUT = 0.1
_AT = 10
_JUDGED = 2000  # Playlists, at most.


def draw_playlists(
  playlists: int, songs: int, themes: int, seed: int = 0
) -> np.ndarray:
  """Draws entries of playlists that gather the songs of a few themes.

  Returns:
    Pairs of playlist and song, int64 [entries, 2], none twice.
  """
  rng = np.random.default_rng(seed)
  theme_of = rng.integers(0, themes, songs)
  popularity = rng.permutation(1 / np.arange(1, songs + 1) ** _POPULARITY_POWER)
  members = [np.flatnonzero(theme_of == theme) for theme in range(themes)]
  shares = [popularity[one] / popularity[one].sum() for one in members]
  rows = []
  for playlist in range(playlists):
    length = int(_MEAN_LENGTH * np.exp(0.6 * rng.standard_normal())) + 2
    chosen = rng.integers(0, themes, _THEMES_A_PLAYLIST)
    parts = [
      rng.choice(members[theme], length // _THEMES_A_PLAYLIST, p=shares[theme])
      for theme in chosen
    ]
    drawn = np.concatenate(parts)
    stray = rng.random(len(drawn)) < _NOISE
    drawn[stray] = rng.integers(0, songs, int(stray.sum()))
    drawn = np.unique(drawn)
    rows.append(np.stack([np.full(len(drawn), playlist), drawn], axis=1))
  return np.concatenate(rows)


def hold_out(entries: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Splits entries; songs and playlists without any left stay in training."""
  rng = np.random.default_rng(seed)
  held = rng.random(len(entries)) < _HELD_OUT
  for column in (0, 1):
    left = np.bincount(entries[~held, column], minlength=entries.max() + 1)
    held &= left[entries[:, column]] > 0
  return entries[~held], entries[held]


def judge(
  playlists: np.ndarray,
  songs: np.ndarray,
  train: scipy.sparse.csr_matrix,
  held: scipy.sparse.csr_matrix,
) -> tuple[float, float]:
  """Returns mean ROC-AUC and precision at 10 of held-out songs.

  Args:
    playlists: factors, [playlists, dims].
    songs: factors, [songs, dims].
    train: what was learned from; these songs are not candidates.
    held: what is to be found.
  """
  judged = np.flatnonzero(np.diff(held.indptr))[:_JUDGED]
  aucs, precisions = [], []
  for playlist in judged.tolist():
    scores = songs @ playlists[playlist]
    wanted = held.indices[held.indptr[playlist] : held.indptr[playlist + 1]]
    known = train.indices[train.indptr[playlist] : train.indptr[playlist + 1]]
    scores[known] = -np.inf
    order = np.argsort(np.argsort(scores))
    others = len(scores) - len(known) - len(wanted)
    above = len(scores) - order[wanted] - 1
    above -= np.argsort(np.argsort(above))  # Other wanted ones do not count.
    aucs.append(1 - above.mean() / max(others, 1))
    precisions.append(np.isin(np.argsort(-scores)[:_AT], wanted).mean())
  return float(np.mean(aucs)), float(np.mean(precisions))


def _matrix(entries: np.ndarray, shape: tuple[int, int]):
  ones = np.ones(len(entries), np.float32)
  return scipy.sparse.csr_matrix(
    (ones, (entries[:, 0], entries[:, 1])), shape=shape
  )


def _entries(flags: argparse.Namespace) -> np.ndarray:
  if not flags.data:
    return draw_playlists(flags.playlists, flags.songs, flags.themes)
  made = catalogues.load(file_names.path(flags.data))
  owners = made.playlists.list_index()
  return np.stack([owners, made.playlists.values], axis=1).astype(np.int64)


def _lightfm(flags: argparse.Namespace):
  """Returns LightFM's model; refuses where it is not installed."""
  try:
    lightfm = importlib.import_module("lightfm")
  except ImportError as error:
    raise errors.InputError(
      "this benchmark compares with LightFM, which is not installed: pip "
      "install lightfm-next."
    ) from error
  return lightfm.LightFM(
    no_components=flags.dims,
    loss="warp",
    learning_schedule="adagrad",
    learning_rate=flags.rate,
    max_sampled=flags.max_negatives,
    random_state=flags.seed,
  )


def compare(train: np.ndarray, held: np.ndarray, flags: argparse.Namespace):
  """Factorises with both, an epoch each in turn.

  Returns:
    Name -> (AUC, precision at 10), and name -> seconds of each epoch.
  """
  theirs = _lightfm(flags)
  shape = tuple(int(n) + 1 for n in np.concatenate([train, held]).max(axis=0))
  known, wanted = _matrix(train, shape), _matrix(held, shape)
  entries = warp.Entries.from_pairs(train[:, 0], train[:, 1])
  trainer = warp.Trainer(
    entries, max_negatives=flags.max_negatives, rate=flags.rate, seed=flags.seed
  )
  factors = warp.random_factors(entries.num_songs, flags.dims, flags.seed)
  tables = warp.first_tables(entries, factors, [flags.seed, 1])
  seconds = {"ours": [], "LightFM": []}
  for epoch in range(flags.epochs):
    begin = time.perf_counter()
    tables, loss = trainer.run_epoch(tables, epoch)
    middle = time.perf_counter()
    theirs.fit_partial(known.tocoo(), epochs=1, num_threads=flags.threads)
    end = time.perf_counter()
    seconds["ours"].append(middle - begin)
    seconds["LightFM"].append(end - middle)
    print(
      f"epoch {epoch + 1}: ours {middle - begin:.1f} s (loss {loss:.4f}), "
      f"LightFM {end - middle:.1f} s",
      flush=True,
    )
  ours = np.zeros((2, max(shape), flags.dims + 1), np.float32)
  ours[0, : entries.num_playlists] = tables.playlists
  ours[1, : entries.num_songs] = tables.songs
  ones = np.ones((len(theirs.user_embeddings), 1), np.float32)
  quality = {
    "ours": judge(ours[0, : shape[0]], ours[1, : shape[1]], known, wanted),
    "LightFM": judge(
      np.concatenate([theirs.user_embeddings, ones], axis=1),
      np.concatenate(
        [theirs.item_embeddings, theirs.item_biases[:, None]], axis=1
      ),
      known,
      wanted,
    ),
  }
  return quality, seconds, trainer.lanes


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and measures."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--playlists", type=int, default=20_000)
  add("--songs", type=int, default=50_000)
  add("--themes", type=int, default=300)
  add("--data", help="a data set's folder, whose playlists are taken")
  add("--dims", type=int, default=300)
  add("--epochs", type=int, default=50)
  add("--max_negatives", type=int, default=40)
  add("--rate", type=float, default=0.05)
  add("--seed", type=int, default=0, help="what is held out, and both models'")
  add("--threads", type=int, default=len(os.sched_getaffinity(0)))
  flags = parser.parse_args(argv)
  train, held = hold_out(_entries(flags), flags.seed)
  quality, seconds, lanes = compare(train, held, flags)
  print(
    f"{machine.describe()}; {len(train):,} entries, {len(held):,} held out, "
    f"{flags.dims} dimensions, {flags.epochs} epochs, {lanes} lanes"
  )
  for name, (auc, precision) in quality.items():
    times = seconds[name]
    print(
      f"{name:<10}AUC {auc:.4f}  precision@{_AT} {precision:.4f}  epoch "
      f"{statistics.median(times):.2f} s [{min(times):.2f}, {max(times):.2f}]"
    )
  # The first epoch of ours holds the compilation.
  ratios = [
    a / b for a, b in zip(seconds["ours"], seconds["LightFM"], strict=True)
  ][1:] or [float("nan")]
  print(
    f"time, ours / LightFM: {statistics.median(ratios):.2f} "
    f"[{min(ratios):.2f}, {max(ratios):.2f}]"
  )


if __name__ == "__main__":
  errors.run_command(main)
