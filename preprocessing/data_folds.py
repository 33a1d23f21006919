r"""Divides a data set into folds: as many data sets, each song tested in one.

  python -m preprocessing.data_folds --data=data/mine --out=data/mine-folds \
    --folds=5 --split_by=artist

A small library has too few test songs to say anything. Here each song is a test
song of one of the folds, OUT/0, OUT/1 and so on, which are data sets with the
same songs and another split; the store is not copied. Of the other songs of a
fold, some are for validation. All songs of an artist (or of an album, with
--split_by=album) go to one part. Vectors of mode P and mode G are made for each
fold if the data set has them and the fold's songs have playlists or genres.
Train a run on each fold and evaluate them together, or evaluate vectors that
need no training:

  for i in 0 1 2 3 4; do
    python launch.py --config=CONFIG --config.data.dir=data/mine-folds/$i \
      --workdir=runs/mine/$i || break
  done
  python -m pcl_jax.evaluate --workdir=runs/mine --folds
  python -m pcl_jax.evaluate --embeddings=TABLE.parquet \
    --data=data/mine-folds --folds
"""

from collections.abc import Sequence
import dataclasses
import pathlib
import shutil
from typing import Any

from jaxtyping import Int8
import numpy as np

from pcl_jax.common import command_line
from pcl_jax.common import errors
from pcl_jax.common import extras
from pcl_jax.common import file_names
from pcl_jax.common import jax_setup
from pcl_jax.common import locks
from pcl_jax.common import storage
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.data.splits import song_groups
from pcl_jax.data.splits import stratify
from pcl_jax.library import music_files
from preprocessing.melon import catalogue_maker
from preprocessing.vectors import genre_words
from preprocessing.vectors import playlist_factors
from preprocessing.vectors import vector_files

_MAKERS = {
  dataset.PLAYLIST_VECTORS: playlist_factors.make_playlist_vectors,
  dataset.GENRE_VECTORS: genre_words.make_genre_vectors,
}

# What the vectors of the whole data set were made with.
_AS_THERE = ("seed", "epochs", "max_negatives", "rate")


def link_songs(data: dataset.DataSet, folder: pathlib.Path) -> None:
  """Gives a new data set the songs of another; the store is not copied."""
  store = folder / song_store.FILE_NAME
  store.mkdir(parents=True)
  for path in data.store.path.iterdir():
    if path.name != "lock.mdb":
      storage.link_or_copy(path, store / path.name)
  names = data.directory / music_files.IDS
  if names.exists():
    shutil.copyfile(names, folder / names.name)


def _make_vectors(data: dataset.DataSet, folder: pathlib.Path) -> None:
  """Makes the vectors that the data set has, where the fold can have them."""
  for name, make in _MAKERS.items():
    path = data.directory / name
    if path.exists():
      there = storage.read_made_json(path.with_suffix(".json"))["settings"]
      dims = np.load(path, mmap_mode="r").shape[1]
      dims -= name == dataset.PLAYLIST_VECTORS  # Its bias.
      how = {key: there[key] for key in _AS_THERE if key in there}
      try:
        make(folder, dims=int(dims), **how)
      except vector_files.NothingToLearn:
        print(
          f"fold {folder.name} is without {name}: its training and validation "
          "songs have nothing that these vectors are learned from"
        )


def _write(
  data: dataset.DataSet,
  folder: pathlib.Path,
  split: Int8[np.ndarray, " songs"],
  settings: dict[str, Any],
) -> None:
  """Makes a fold: the songs, their split, validation pairs and vectors."""
  link_songs(data, folder)
  catalogue = dataclasses.replace(
    data.catalogue, split=split, validation_pairs={}
  )
  catalogue_maker.set_validation_pairs(catalogue, settings["seed"])
  catalogue.save(folder)
  content = {"settings": settings}
  storage.write_json(folder / song_groups.SETTINGS_FILE, content)
  _make_vectors(data, folder)
  counts = ", ".join(map(str, np.bincount(split[split >= 0], minlength=3)))
  print(f"fold {folder.name}: train, validation and test songs {counts}")


def make(
  data_dir: pathlib.Path,
  out: pathlib.Path,
  *,
  folds: int = 5,
  split_by: str = song_groups.ARTIST,
  validation_share: float = 0.1,
  seed: int = 0,
) -> list[pathlib.Path]:
  """Makes the folds of a data set.

  Args:
    data_dir: the data set's folder.
    out: folder of the folds, which does not exist yet.
    folds: how many, at least 2.
    split_by: whose songs all go to one part, of `song_groups.SPLIT_BY`.
    validation_share: share of all songs that each fold validates on.
    seed: decides the folds.

  Returns:
    The folds' folders.

  Raises:
    InputError: the data set cannot be read or divided, or `out` exists.
  """
  if out.exists():
    raise errors.InputError(
      f"{out} exists: give another --out, or remove these folds."
    )
  data = dataset.DataSet(data_dir)
  if (data.directory / dataset.GENRE_VECTORS).exists():
    extras.check("making genre vectors of folds", "gensim")
  splits = stratify.folds(
    data.catalogue,
    folds,
    split_by=split_by,
    validation_share=validation_share,
    seed=seed,
  )
  settings = {
    "test_share": 1 / folds,
    "validation_share": validation_share,
    "seed": seed,
    "split_by": split_by,
    "folds": folds,
    "data": file_names.shown(data_dir),
  }
  unfinished = out.with_name(f"{out.name}.unfinished")
  shutil.rmtree(unfinished, ignore_errors=True)
  for number, split in enumerate(splits):
    folder = unfinished / str(number)
    _write(data, folder, split, settings | {"fold": number})
  unfinished.rename(out)
  return [out / str(number) for number in range(folds)]


def main(argv: Sequence[str] | None = None) -> None:
  """Parses the command line and makes the folds."""
  parser = command_line.parser("preprocessing.data_folds", __doc__)
  add = parser.add_argument
  folder = {"type": command_line.path, "required": True}
  add("--data", **folder, help="the data set's folder")
  add("--out", **folder, help="folder of the folds")
  command_line.add_numbers(
    parser,
    {
      "folds": (5, "number of folds"),
      "validation_share": (0.1, "share of all songs"),
      "seed": (0, "decides the folds"),
    },
  )
  text = "what goes to one part as a whole (default %(default)s)"
  by = {"choices": song_groups.SPLIT_BY, "default": song_groups.ARTIST}
  add("--split_by", **by, help=text)
  given = vars(parser.parse_args(argv))
  data_dir, out = given.pop("data"), given.pop("out")
  jax_setup.start()
  with locks.hold(data_dir, parser.prog):
    make(data_dir, out, **given)


if __name__ == "__main__":
  errors.run_command(main)
