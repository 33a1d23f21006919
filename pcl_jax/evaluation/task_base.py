"""What every evaluation task is, is given, and returns.

A task measures one representation of the songs: it is a class with a `run`
method that takes a `Context` and returns a `Result`, or raises `NotAvailable`
where this data set or representation cannot give one.
"""

import abc
from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from types import MappingProxyType
from typing import Any, TypeVar

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.audio import channel_mix
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.models import audio_encoder

Embeddings = Float[np.ndarray, "songs d"]
EMBEDDINGS = "embeddings"  # What is averaged over the patches of a clip.
_Made = TypeVar("_Made")


def open_data(
  workdir: pathlib.Path, meta: dict[str, Any], data_dir: str | None
) -> dataset.DataSet:
  """Opens the data set to evaluate an encoder on.

  Args:
    workdir: folder of the run or bundle, for the message.
    meta: what it says about itself.
    data_dir: the data set; None for the one the run trained on.

  Raises:
    InputError: there is none, a bundle is to say which, or it has other
      channels than the encoder has learned from.
  """
  directory = data_dir or meta["config"]["data"]["dir"]
  if not directory:
    raise errors.InputError(
      f"{workdir} is a bundle, which does not say where its data set is: give "
      "--data."
    )
  data = dataset.DataSet(directory)
  where = str(data.store.path)
  channel_mix.check_same(data.store.meta["feature"], where, meta["feature"])
  return data


class NotAvailable(Exception):
  """A task has no result here; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Metric:
  """One number and how far it can be trusted.

  Attributes:
    value: mean over the items that define it.
    low: lower end of its 95 % bootstrap interval.
    high: upper end of the interval.
    items: number of items (queries, playlists, tags, songs) in the mean.
  """

  value: float
  low: float
  high: float
  items: int


@dataclasses.dataclass(frozen=True)
class Result:
  """What a task found about one representation.

  Attributes:
    metrics: metrics by name; the first one is the task's headline.
    per_item: columns of equal length; the first names the item (query id, tag,
      playlist id), the others hold its metrics, nan where undefined. Runs are
      compared item by item.
    left_out: number of items left out, by reason.
    settings: what decided the numbers (split, chosen rate, seeds), plain
      values fit for json.
    notes: sentences that people should read with the numbers.
  """

  metrics: dict[str, Metric]
  per_item: dict[str, np.ndarray]
  left_out: dict[str, int] = dataclasses.field(default_factory=dict)
  settings: dict[str, object] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Options:
  """What the command line decides about the tasks.

  Attributes:
    split: the split of the queries and candidates: TEST, or VALIDATION, where
      mode P's vectors are defined too.
    min_playlists: number of playlists that two similar songs share.
    largest_artist: artists and albums with more songs are ignored, since they
      are collective names (`various artists`); None for no limit.
    neighbours: length of a playlist's continuation.
    published_split: whether Melon-50 is split as the published script does.
    tagging_mean: what is averaged over the patches of a clip of a public
      tagging set: `EMBEDDINGS` or one of `probes.MEANS`.
  """

  split: int = catalogues.TEST
  min_playlists: int = 1
  largest_artist: int | None = None
  neighbours: int = 100
  published_split: bool = False
  tagging_mean: str = EMBEDDINGS

  def __post_init__(self):
    for name in ("min_playlists", "largest_artist", "neighbours"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise errors.InputError(f"{name}={value}: it must be at least 1.")


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
  """One representation of the songs of a data set, and how to measure it.

  Attributes:
    data: the data set, with store and catalogue.
    embeddings: vectors of all songs, [songs, d], finite; None for baselines
      that need none.
    encoder: the encoder that made the embeddings; None where none did (mean
      mel, mode P).
    seed: seed of all that a task draws.
    options: choices of the command line.
    chosen: names of the tasks that run.
  """

  data: dataset.DataSet
  embeddings: Embeddings | None = None
  encoder: audio_encoder.AudioEncoder | None = None
  seed: int = 0
  options: Options = dataclasses.field(default_factory=Options)
  chosen: tuple[str, ...] = ()
  _made: dict[Callable, Any] = dataclasses.field(
    default_factory=dict, init=False, repr=False
  )

  @property
  def catalogue(self) -> catalogues.Catalogue:
    """The songs, their artists, genres, playlists and split."""
    return self.data.catalogue

  @property
  def queries(self) -> Int[np.ndarray, " rows"]:
    """Rows of the songs that are both queries and candidates."""
    return self.catalogue.rows_of(self.options.split)

  @property
  def split_name(self) -> str:
    """Name of the split that the queries belong to."""
    return catalogues.SPLIT_NAMES[self.options.split]

  def once(self, make: Callable[["Context"], _Made]) -> _Made:
    """Returns `make(self)`, which several tasks share and only one computes.

    Args:
      make: a function, or a method of an object that the tasks share.
    """
    if make not in self._made:
      self._made[make] = make(self)
    return self._made[make]


class Task(abc.ABC):
  """A task of the evaluation.

  Attributes:
    title: heading of the task's table.
    shown: metrics in the table; where empty, the first ones of the result. All
      metrics are in results.json.
    slow: whether the task trains a network, so that it runs only if it is
      asked for by name.
  """

  title: str
  shown: tuple[str, ...] = ()
  slow: bool = False
  # What chance gives, from the context of the first representation, by name.
  chance: Mapping[str, Callable[[Context], Result]] = MappingProxyType({})
  # Further rows that need no embeddings (popularity), by name.
  baselines: Mapping[str, Callable[[Context], Result]] = MappingProxyType({})

  @abc.abstractmethod
  def run(self, context: Context) -> Result:
    """Measures a representation.

    Raises:
      NotAvailable: this data set or representation cannot give the task.
    """
