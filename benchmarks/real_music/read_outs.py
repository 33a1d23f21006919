"""Other vectors of a song from the same network: layers, windows, statistics.

In the tables of the study a song's vector is the mean over the features of all
of its patches. What other read-outs of the same trainings are worth is measured
here, from one pass over the patches: the projection, which the loss sees; a
window in the middle of the song; and the deviation over the patches as well.
"""

from collections.abc import Iterable, Sequence
import pathlib
import time

import jax.numpy as jnp
from jaxtyping import Float, Int
import numpy as np

from benchmarks.real_music import kept_results
from benchmarks.real_music import real_runs
from benchmarks.real_music import real_scores
from benchmarks.strategies import strategy_runs
from pcl_jax.audio import song_patches
from pcl_jax.checkpoint import restore
from pcl_jax.common import storage
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.models import audio_encoder
from pcl_jax.models import compiled_encoder

FOLDER = "read_outs"  # In a folder of results, for those of its rows.
_RESULT = "read_outs.json"
_BATCH_PATCHES = 64
PROJECTION, DEVIATION = "projection", "mean and deviation of the features"
# Name -> patches in the middle of the song.
WINDOWS = {
  f"features, {count * song_patches.SECONDS:.0f} s in the middle": count
  for count in (7, 1)
}


def vectors_of(
  encoder: audio_encoder.AudioEncoder,
  store: song_store.SongStore,
  songs: Int[np.ndarray, " songs"],
) -> dict[str, Float[np.ndarray, "songs d"]]:
  """Returns a vector of each song, [songs, d], for each read-out.

  Args:
    encoder: of a run.
    store: where the songs are.
    songs: their positions in it.
  """
  song_index, starts = song_patches.patch_grid(store.frames[songs])
  batches = song_patches.read_batches(
    lambda some, *where: store.read_patches(songs[some], *where),
    song_index,
    starts,
    _BATCH_PATCHES,
  )
  embedder = compiled_encoder.make_embedder(encoder)
  features = np.concatenate(
    [found for _, found in song_patches.encoded(embedder, batches)]
  )

  def mean(
    vectors: np.ndarray, some: np.ndarray | slice = slice(None)
  ) -> np.ndarray:
    pieces = [(song_index[some], vectors[some])]
    return song_patches.mean_vectors(pieces, len(songs))[0]

  projected = encoder.projection(jnp.asarray(features), False)
  means = mean(features)
  deviations = np.sqrt(mean(np.square(features - means[song_index])))
  places = starts // song_patches.FRAMES
  counts = np.bincount(song_index, minlength=len(songs))[song_index]
  found = {
    PROJECTION: mean(np.asarray(projected)),
    DEVIATION: np.concatenate([means, deviations], axis=1),
  }
  for name, length in WINDOWS.items():
    first = np.maximum(counts - length, 0) // 2
    found[name] = mean(features, (places >= first) & (places < first + length))
  return found


def make(jobs: Iterable[tuple]) -> None:
  """Measures the read-outs of finished trainings; leaves them in their folders.

  Args:
    jobs: name, config and folder of each; those without a result, and untrained
      networks, are left out, and so are those that were measured.
  """
  for name, config, folder in jobs:
    done = folder / strategy_runs.RESULT
    if name == real_runs.UNTRAINED or not done.exists():
      continue
    settings, path = storage.read_json(done)["settings"], folder / _RESULT
    if path.exists() and storage.read_json(path)["settings"] == settings:
      continue
    begin = time.monotonic()
    data = dataset.DataSet(config.data.dir)
    songs = real_scores.recordings(data)
    encoder, _ = restore.load_encoder(folder, "latest")
    scores = {}
    for read_out, found in vectors_of(encoder, data.store, songs).items():
      rows = np.zeros((len(data.store), found.shape[1]), np.float32)
      rows[songs] = found
      scores[read_out] = real_scores.measure(data, rows)
    storage.write_json(
      path, {"settings": settings, "scores": scores}, indent=None
    )
    took = time.monotonic() - begin
    print(f"{folder.parent.name}/{folder.name}: {took:,.0f} s", flush=True)


def keep(
  kept: pathlib.Path,
  out: pathlib.Path,
  data: Sequence[dataset.DataSet],
  runs: Iterable[kept_results.Run],
) -> list[str]:
  """Adds the read-outs of runs to a folder of results, in a folder of its own.

  Args:
    kept: the folder of results.
    out: where the runs are.
    data: the folds.
    runs: whose read-outs are added, where they were measured.

  Returns:
    A line for each row, as `kept_results.keep` does.
  """
  found, lines = [], []
  for run in runs:
    path = out / f"{run.row}-{run.seed}" / str(run.fold) / _RESULT
    content = storage.read_json(path) if path.exists() else None
    if content and content["settings"] != run.settings:
      lines.append(
        f"{path} is of an earlier training and left out: --stages=read_outs "
        "makes it again"
      )
    elif content:
      found += [
        kept_results.Run(
          f"{run.row}: {name}",
          run.seed,
          run.fold,
          scores,
          run.about,
          run.settings,
        )
        for name, scores in content["scores"].items()
      ]
  if found:
    lines += kept_results.keep(kept / FOLDER, data, found)
  return lines
