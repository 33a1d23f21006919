"""What a table says of its songs besides their sound."""

from collections.abc import Iterable
import functools

from jaxtyping import Float, Int
import numpy as np
import pyarrow as pa

from pcl_jax.audio import song_patches
from pcl_jax.data import ragged
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.library import name_keys

ARTIST, ALBUM = GROUPS = ("artist", "album")
_Numbered = tuple[ragged.Ragged, dict[str, int]]


class SongFacts:
  """Artists, album, genres and length of each song of a table.

  Names become numbers when they are first asked for: one number for all
  spellings of a name. A table of an earlier version has no names.
  """

  def __init__(self, file: embedding_table.TableFile):
    """Takes the file of a table, whose columns are read as they are needed."""
    self._file = file
    self._columns: dict[str, pa.ChunkedArray] = {}
    self._values: dict[str, list] = {}

  def __len__(self) -> int:
    return self._file.shape[0]

  def known(self, column: str) -> bool:
    """Returns whether the table says something in a column at all."""
    return column in self._file.names

  def _column(self, name: str) -> pa.ChunkedArray:
    if name not in self._columns:
      self._columns[name] = self._file.read_columns([name]).column(name)
    return self._columns[name]

  @functools.cached_property
  def patches(self) -> Int[np.ndarray, " songs"]:
    """How many patches the vector of each song is the mean over."""
    return self._column("patches").to_numpy()

  @functools.cached_property
  def seconds(self) -> Float[np.ndarray, " songs"]:
    """The length of each song; where it is not known, that of its patches."""
    whole = self.patches * song_patches.SECONDS
    if not self.known("seconds"):
      return whole
    said = self._column("seconds").to_numpy()
    return np.where(np.isnan(said), whole, said)

  @property
  def artists(self) -> ragged.Ragged:
    """The numbers of each song's artists."""
    return self._artists[0]

  @property
  def albums(self) -> ragged.Ragged:
    """The number of each song's album: a list of one, or of none."""
    return self._albums[0]

  def numbers_of(
    self, kind: str, names: Iterable[str]
  ) -> Int[np.ndarray, " known"]:
    """Returns the numbers of artists, by name, or of albums, by album_id."""
    _, keys = self._artists if kind == ARTIST else self._albums
    found = {keys.get(name_keys.key(one)) for one in names}
    return np.array(sorted(found - {None}), np.int32)

  def of_genre(self, genre: str) -> Int[np.ndarray, " songs"]:
    """Returns the rows of the songs of a genre, whatever its spelling."""
    genres, keys = self._genres
    number = keys.get(name_keys.key(genre), -1)
    return np.unique(genres.list_index()[genres.values == number])

  def genre_names(self) -> list[str]:
    """Returns the genres that the table names, those of most songs first."""
    genres, keys = self._genres
    counts = np.bincount(genres.values, minlength=len(keys))
    return [list(keys)[i] for i in np.argsort(-counts, kind="stable")]

  def artist_names(self, row: int) -> list[str]:
    """Returns the artists of a song as they are written."""
    return self._shown("artists", row) or []

  def album(self, row: int) -> str:
    """Returns the album of a song as it is written; empty if not known."""
    return self._shown("album", row) or ""

  def genres_of(self, row: int) -> list[str]:
    """Returns the genres of a song as they are written."""
    return self._shown("genres", row) or []

  def read_all(self) -> None:
    """Reads all columns, so that the file is not needed again.

    What is written of single songs is then quicker to get, too.
    """
    wanted = ["patches", *(set(embedding_table.FACTS) & set(self._file.names))]
    columns = self._file.read_columns(wanted)
    self._columns = {name: columns.column(name) for name in wanted}
    texts = set(wanted) & {"artists", "album", "genres"}
    self._values = {name: columns.column(name).to_pylist() for name in texts}

  @functools.cached_property
  def _artists(self) -> _Numbered:
    return self._numbered("artists")

  @functools.cached_property
  def _albums(self) -> _Numbered:
    return self._numbered("album_id")

  @functools.cached_property
  def _genres(self) -> _Numbered:
    return self._numbered("genres")

  def _shown(self, column: str, row: int):
    if column in self._values:
      return self._values[column][row]
    return self._column(column)[row].as_py() if self.known(column) else None

  def _numbered(self, column: str) -> _Numbered:
    """Returns the numbers of each song's names, and the number of each key."""
    count, keys = len(self), {}
    if not self.known(column):
      empty = np.zeros(0, np.int32)
      return ragged.Ragged.from_lengths(empty, np.zeros(count, np.int64)), keys
    names = self._column(column).combine_chunks()
    if pa.types.is_list(names.type):
      lengths = names.value_lengths().fill_null(0).to_numpy()
      names = names.flatten()
    else:
      names = names.fill_null("")
      lengths = np.ones(count, np.int64)
    coded = names.dictionary_encode()
    codes = [
      keys.setdefault(name_keys.key(one), len(keys)) if one else -1
      for one in coded.dictionary.to_pylist()
    ]
    numbers = np.array(codes, np.int32)[coded.indices.to_numpy()]
    lists = ragged.Ragged.from_lengths(numbers, lengths.astype(np.int64))
    return lists.keep(numbers >= 0), keys
