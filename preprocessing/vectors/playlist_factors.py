"""Makes the vectors of mode P: WARP factors of a data set's songs."""

import json
import os
import pathlib
import time
from typing import Any
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from pcl_jax.common import errors
from pcl_jax.common import jax_setup
from pcl_jax.common import storage
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import vector_sources
from preprocessing.vectors import vector_files
from preprocessing.vectors import warp

FILE_NAME = dataset.PLAYLIST_VECTORS
STATE_NAME = "playlist_vectors.state.npz"
_SONG_SEED, _PLAYLIST_SEED = 0, 1  # Set the streams of random numbers apart.


def _read_entries(
  catalogue: catalogues.Catalogue, data_dir: pathlib.Path
) -> tuple[warp.Entries, np.ndarray]:
  """Selects what is factorised, and the row of each of its songs."""
  playlists, rows = vector_sources.learned_entries(catalogue)
  if not len(rows):
    of_train = int((catalogue.playlist_files == catalogues.TRAIN_FILE).sum())
    raise vector_files.NothingToLearn(
      f"{data_dir / catalogues.FILE_NAME} has {len(catalogue.playlists)} "
      f"playlists, {of_train} of them of train.json, and none of these holds a "
      "training or validation song. Mode P (strategies with `cf` in "
      "contrast_combos) needs such playlists. Supply them: for Melon, the full "
      "train.json in kakao_meta/; for your own library, playlist files next to "
      "the audio, then preprocessing.own_library again with --force. Or train "
      "a strategy without `cf`."
    )
  songs, columns = np.unique(rows, return_inverse=True)
  return warp.Entries.from_pairs(playlists, columns), songs


def _save_state(
  path: pathlib.Path,
  tables: warp.Tables,
  losses: list[float],
  settings: dict[str, Any],
) -> None:
  arrays = {name: np.asarray(one) for name, one in tables._asdict().items()}
  arrays["losses"] = np.array(losses, np.float64)
  arrays["settings"] = np.array(json.dumps(settings, sort_keys=True))
  with storage.write_aside(path) as partial, open(partial, "wb") as file:
    np.savez(file, **arrays)


def _load_state(
  path: pathlib.Path, settings: dict[str, Any]
) -> tuple[warp.Tables, list[float]] | None:
  """Returns the tables and losses of an interrupted run of these settings."""
  if not path.exists():
    return None
  try:
    with np.load(path, allow_pickle=False) as file:
      if str(file["settings"]) != json.dumps(settings, sort_keys=True):
        print(f"{path} is of a run with other settings: starting over")
        return None
      losses = file["losses"].tolist()
      # Copies: the tables are donated, a view of a numpy array must not be.
      tables = warp.Tables(*(jnp.array(file[n]) for n in warp.Tables._fields))
  except (
    OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile
  ) as error:  # fmt: skip
    print(f"{path} cannot be read ({error}): starting over")
    return None
  print(f"going on after epoch {len(losses)} of {settings['epochs']}")
  return tables, losses


def _factorise(
  entries: warp.Entries,
  factors: np.ndarray,
  settings: dict[str, Any],
  state_path: pathlib.Path,
  save_every_s: float,
) -> tuple[np.ndarray, list[float], int]:
  """Runs the epochs; returns the songs' vectors, the losses and the lanes."""
  epochs, seed = settings["epochs"], settings["seed"]
  trainer = warp.Trainer(
    entries,
    max_negatives=settings["max_negatives"],
    rate=settings["rate"],
    seed=seed,
  )
  found = _load_state(state_path, settings)
  if found is None:
    found = warp.first_tables(entries, factors, [seed, _PLAYLIST_SEED]), []
  tables, losses = found
  saved_s = time.monotonic()
  with tqdm.tqdm(
    total=epochs * len(entries),
    initial=len(losses) * len(entries),
    desc="playlist vectors",
    unit="entry",
    unit_scale=True,
  ) as bar:

    def report(entries: int, loss: float) -> None:
      bar.set_postfix(epoch=f"{len(losses) + 1}/{epochs}", loss=f"{loss:.4f}")
      bar.update(entries)

    for epoch in range(len(losses), epochs):
      tables, loss = trainer.run_epoch(tables, epoch, report)
      # A NaN is never a rival, so it shows in the sum and not in the loss.
      if not np.isfinite(loss + float(jnp.sum(tables.songs))):
        raise errors.InputError(
          f"the factors of epoch {epoch + 1} are not finite: --rate="
          f"{settings['rate']} is too high. Use a lower one (default 0.05)."
        )
      losses.append(loss)
      if epoch + 1 < epochs and time.monotonic() - saved_s >= save_every_s:
        _save_state(state_path, tables, losses, settings)
        saved_s = time.monotonic()
  return np.asarray(tables.songs), losses, trainer.lanes


def _make(
  catalogue: catalogues.Catalogue,
  entries: warp.Entries,
  rows: np.ndarray,
  settings: dict[str, Any],
  state_path: pathlib.Path,
  save_every_s: float,
) -> tuple[np.ndarray, dict[str, Any]]:
  """Returns the vectors of all songs, and what playlist_vectors.json says."""
  factors = warp.random_factors(
    len(catalogue), settings["dims"], [settings["seed"], _SONG_SEED]
  )
  vectors = np.pad(factors, ((0, 0), (0, 1)))
  vectors[rows], losses, lanes = _factorise(
    entries, factors[rows], settings, state_path, save_every_s
  )
  tests = len(catalogue.rows_of(catalogues.TEST))
  counts = {
    "entries": len(entries),
    "playlists": entries.num_playlists,
    "songs": len(catalogue),
    "songs_factorised": entries.num_songs,
    "test_songs": tests,
    "other_songs_without_playlist": len(catalogue) - tests - entries.num_songs,
  }
  return vectors, {
    "settings": settings,
    "counts": counts,
    "loss_per_epoch": losses,
    "lanes": lanes,
    "device": jax.devices()[0].device_kind,
  }


def make_playlist_vectors(
  data_dir: str | os.PathLike[str],
  *,
  dims: int = 300,
  epochs: int = 50,
  max_negatives: int = 40,
  rate: float = 0.05,
  seed: int = 0,
  force: bool = False,
  save_every_s: float = 600.0,
) -> pathlib.Path:
  """Makes playlist_vectors.npy and .json of a data set.

  Args:
    data_dir: the data set's folder, with a catalogue in it.
    dims: factors of a song; its bias comes after them.
    epochs: how often each entry is served.
    max_negatives: songs drawn for an entry before it is given up.
    rate: Adagrad's learning rate.
    seed: the seed of initial factors, order and draws.
    force: replaces vectors made with other settings.
    save_every_s: seconds between two states saved to go on from.

  Returns:
    Path of the vectors, float32 [songs, dims + 1] in the catalogue's order.
    Vectors made with the same settings from the same songs and playlists are
    left as they are.

  Raises:
    InputError: an option is bad; there is no catalogue or no playlist in it;
      vectors made with other settings are there.
  """
  jax_setup.start()
  options = {"dims": dims, "epochs": epochs, "max_negatives": max_negatives}
  vector_files.check_options("playlist_vectors", options, seed, rate)
  data_dir = pathlib.Path(data_dir)
  path, state_path = data_dir / FILE_NAME, data_dir / STATE_NAME
  catalogue = catalogues.load(data_dir)
  entries, rows = _read_entries(catalogue, data_dir)
  settings = {**options, "rate": rate, "seed": seed}
  settings |= vector_sources.of_playlist_vectors(catalogue)
  if not force and vector_files.is_finished(path, settings):
    return path
  remedy = "give a copy of the data set that you may write to"
  storage.check_writable(path, remedy)
  vectors, report = _make(
    catalogue, entries, rows, settings, state_path, save_every_s
  )
  vector_files.write(path, vectors, report)
  state_path.unlink(missing_ok=True)
  counts, losses = report["counts"], report["loss_per_epoch"]
  print(
    f"factorised {counts['playlists']} playlists x "
    f"{counts['songs_factorised']} songs, {counts['entries']} entries; loss "
    f"{losses[0]:.4f} in the first epoch, {losses[-1]:.4f} in the last\n"
    f"left with random factors and bias 0: {counts['test_songs']} test songs "
    f"(on purpose) and {counts['other_songs_without_playlist']} training or "
    "validation songs that are in no playlist of train.json"
  )
  print(f"wrote {path}, {vectors.shape[0]} x {vectors.shape[1]}")
  return path
