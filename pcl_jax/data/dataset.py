"""A prepared data set: song store, catalogue and the tables of the modes."""

import hashlib
import json
import os
import zlib

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import catalogues
from pcl_jax.data import pairs
from pcl_jax.data import plans
from pcl_jax.data import read_order
from pcl_jax.data import song_store
from pcl_jax.data import strategies

PLAYLIST_VECTORS = "playlist_vectors.npy"
GENRE_VECTORS = "genre_vectors.npy"
VECTORS = {
  "cf": (PLAYLIST_VECTORS, "mode P (cf)"),
  "genre_w2v": (GENRE_VECTORS, "mode G (genre_w2v)"),
}
# What a strategy may need of a catalogue, and where a library gets it from.
NEEDS = {
  "Playlist": (
    "playlists",
    "add playlists (own library: m3u, pls, csv, jspf or xspf files)",
  ),
  "Genre": ("genres", "tag the audio files with genres"),
  "Artist": ("artists", "put each artist's files in a folder of their own"),
  "Album": ("albums", "tag the audio files with albums"),
}
# Validation reads the same patches in every run and epoch, whatever the seed.
_VALIDATION = {"seed": 0, "epoch": 0}


class DataSet:
  """What training reads, opened and checked: song store and catalogue.

  `blocks` says how patches are read; None for any order. With `readahead`, as
  always with blocks, the song store is read in its own order.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    blocks: read_order.Blocks | None = None,
    *,
    readahead: bool = False,
  ):
    """Opens a folder made by the commands under preprocessing/.

    Raises:
      InputError: it is missing or not prepared, or its parts disagree.
    """
    self.directory = file_names.path(directory)
    if not self.directory.is_dir():
      raise errors.InputError(
        f"the data directory {self.directory} (config.data.dir) does not "
        "exist. Make one with python -m preprocessing.melon_lmdb (Melon), "
        "preprocessing.own_library (your audio), or train "
        "--config=configs/sample.py, which makes its own."
      )
    self.blocks = blocks
    self.store = song_store.SongStore(
      self.directory / song_store.FILE_NAME,
      readahead=readahead or blocks is not None,
    )
    self.catalogue = catalogues.load(self.directory)
    if not np.array_equal(self.store.song_ids, self.catalogue.song_ids):
      raise errors.InputError(
        f"{self.directory / catalogues.FILE_NAME} lists "
        f"{len(self.catalogue)} songs that are not those of the song store "
        f"({len(self.store)}). Make it again with "
        f"python -m preprocessing.data_split --data={directory} --force."
      )

  def fingerprint(self, strategy: strategies.Strategy | None = None) -> str:
    """Returns a hash of all that a strategy learns from; None for no vectors.

    Songs are hashed by the checksums of their records, which takes a second.
    """
    meta = {k: v for k, v in self.store.meta.items() if k != "source"}
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    arrays = self.catalogue.as_arrays() | {
      "frames": self.store.frames,
      "checksums": self.store.checksums,
    }
    for name, array in arrays.items():
      digest.update(f"{name} {array.shape} {array.dtype}".encode())
      digest.update(array.tobytes())
    for mode in () if strategy is None else strategy.modes:
      # Nearly a gigabyte; CRC is the faster.
      table = self.vectors(mode, strategy.name)
      checksum = zlib.crc32(np.ascontiguousarray(table))
      digest.update(f"{table.shape} {table.dtype} {checksum}".encode())
    return digest.hexdigest()

  def check(self, strategy: strategies.Strategy) -> None:
    """Raises InputError if this data set cannot give a strategy's pairs."""
    needed = {strategy.pair_method} - {""}
    if (
      "cf" in strategy.modes
      and not (self.directory / PLAYLIST_VECTORS).exists()
    ):
      needed.add("Playlist")  # What they are made of.
    for kind in sorted(needed | ({"Genre"} if strategy.needs_tags else set())):
      lists, remedy = NEEDS[kind]
      if not len(self.catalogue.pair_lists(kind).values):
        raise errors.InputError(
          f"strategy {strategy.name} needs {lists} and {self.directory} has "
          f"none: {remedy} and prepare it again, or choose a strategy without "
          "them (contrast_combos, pair_generation_method)."
        )

  def check_pairs(self, strategy: strategies.Strategy) -> None:
    """Raises InputError if training pairs are of fewer than two lists.

    Pairs of one artist alone would have nothing to be told apart from.
    """
    if not strategy.pair_method:
      return
    lists = self.catalogue.pair_lists(strategy.pair_method)
    in_training = self.catalogue.split[lists.values] == catalogues.TRAIN
    count = int((lists.keep(in_training).lengths > 1).sum())
    if count < 2:
      words, _ = NEEDS[strategy.pair_method]
      raise errors.InputError(
        f"strategy {strategy.name} needs two {words} or more that have two "
        f"training songs each, and {self.directory} has {count}: its pairs "
        "would be contrasted with nothing else. Add music, split it again, or "
        f"choose a strategy without {words}, such as SS "
        "(--config=configs/ss_resnet.py)."
      )

  def vectors(self, mode: str, strategy: str) -> Float[np.ndarray, "rows dims"]:
    """Maps the vectors of a mode that a strategy of some name needs.

    Mode P (cf) has a vector for each song, [songs, 301]; mode G (genre_w2v)
    for each genre code, with row 0 for padding.

    Raises:
      InputError: they are absent, unreadable or of another catalogue.
    """
    name, described = VECTORS[mode]
    path, rows = self.directory / name, len(self.catalogue)
    if mode == "genre_w2v":
      rows = len(self.catalogue.genre_codes) + 1
    remedy = (
      f"Make it with python -m preprocessing.{path.stem} "
      f"--data={self.directory}"
    )
    if not path.exists():
      raise errors.InputError(
        f"{path} does not exist. Strategy {strategy} needs it for {described}. "
        f"{remedy}."
      )
    try:
      vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
      raise errors.InputError(
        f"{path} cannot be read ({error}). {remedy} --force."
      ) from error
    if vectors.ndim != 2 or len(vectors) != rows:
      raise errors.InputError(
        f"{path} has shape {vectors.shape}, the catalogue asks for "
        f"{rows} rows: it belongs to another catalogue. {remedy} --force."
      )
    return vectors

  def tables(
    self,
    strategy: strategies.Strategy,
    max_num_tags: int,
    patches_per_song: int = 1,
  ) -> dict[str, Int[np.ndarray, "songs ..."] | Float[np.ndarray, "songs _"]]:
    """Returns what enters a batch besides audio, by name: a row a song.

    A mode has its vectors or codes. `songs` has a number for each song, where
    pairs, or several patches of a song, may put a song into a batch twice.

    Raises:
      InputError: the strategy's data is absent.
    """
    self.check(strategy)
    tables = {}
    if "cf" in strategy.modes:
      tables["cf"] = self.vectors("cf", strategy.name)
    if strategy.needs_tags:
      tables["genre_w2v"] = self.catalogue.tags(max_num_tags)
    if strategy.pair_method or patches_per_song != 1:
      tables["songs"] = np.arange(len(self.catalogue), dtype=np.int32)
    return tables

  def training_plan(
    self,
    strategy: strategies.Strategy,
    batch_size: int,
    *,
    double_window: int,
    patches_per_song: int = 1,
    seed: int,
    epoch: int,
  ) -> plans.Plan:
    """Plans an epoch over the training songs.

    A global batch has `batch_size` songs (CM) or pairs (SS, A-IM, Hybrid), and
    two patches of a song (SS) are at most `double_window` frames apart. A song
    enters it `patches_per_song` times, or as often as its length gives
    (`plans.BY_LENGTH`). Pairs of playlists and genres are more or fewer from
    epoch to epoch: one after the first may be empty.

    Raises:
      InputError: the first epoch has fewer songs or pairs than a batch.
    """
    songs = self.catalogue.rows_of(catalogues.TRAIN)
    draw = {"seed": seed, "epoch": epoch}
    draw["passes"] = plans.passes_of(self.store.frames, patches_per_song)
    plan = self._plan(strategy, songs, batch_size, double_window, draw)
    if not len(plan) and epoch == 0:
      raise errors.InputError(
        f"config.data.batch_size is {batch_size} "
        f"{'pairs' if strategy.paired else 'songs'} and an epoch of "
        f"strategy {strategy.name} on {self.directory} has fewer "
        f"({len(songs)} training songs): choose a smaller batch size."
      )
    return plan

  def validation_plan(
    self,
    strategy: strategies.Strategy,
    batch_size: int,
    multiple: int,
    *,
    double_window: int,
  ) -> plans.Plan:
    """Plans validation, as training: fixed songs, pairs and patches.

    Where there is less to validate on, the batch is smaller; its size is
    rounded down to a multiple, so that it can be split over the devices.

    Raises:
      InputError: there are fewer than `multiple` songs or pairs, or fewer than
        two, whose loss is always 0.
    """
    songs = self.catalogue.rows_of(catalogues.VALIDATION)
    none = np.empty((0, 2), np.int32)
    fixed = self.catalogue.validation_pairs.get(strategy.pair_method, none)
    items = len(fixed) if strategy.pair_method else len(songs)
    batch_size = min(batch_size, items) // multiple * multiple
    if batch_size < 2:
      raise errors.InputError(
        f"{self.directory} has {items} validation "
        f"{'pairs' if strategy.pair_method else 'songs'} for strategy "
        f"{strategy.name}, fewer than the {max(multiple, 2)} a batch needs on "
        "these devices. Split it again with a larger --validation_share "
        "(python -m preprocessing.data_split --force; an own library: "
        "preprocessing.own_library --force)"
        f"{', or use fewer devices' if multiple > 1 else ''}."
      )
    given = fixed if strategy.pair_method else None
    return self._plan(
      strategy, songs, batch_size, double_window, _VALIDATION, given
    )

  def _plan(self, strategy, songs, batch_size, window, draw, fixed=None):
    """Plans some songs, fixed pairs, or freshly drawn pairs to train on."""
    frames, method = self.store.frames, strategy.pair_method
    if fixed is not None:
      plan = plans.of_fixed_pairs(fixed, frames, batch_size, **draw)
    elif method:
      lists = self.catalogue.pair_lists(method)
      once = pairs.ONCE_AN_EPOCH[method]
      train = self.catalogue.split == catalogues.TRAIN
      plan = plans.of_pairs(lists, train, frames, batch_size, once=once, **draw)
    elif strategy.two_patches:
      plan = plans.of_two_patches(
        songs, frames, batch_size, double_window=window, **draw
      )
    else:
      plan = plans.of_songs(songs, frames, batch_size, **draw)
    if self.blocks is None or not len(plan):
      return plan
    paired, rows = strategy.paired, len(self.catalogue)
    draw = {name: draw[name] for name in ("seed", "epoch")}
    return read_order.reorder(
      plan, self.blocks, rows=rows, paired=paired, **draw
    )
