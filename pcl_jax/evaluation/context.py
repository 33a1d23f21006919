"""What an evaluation task is given beside the embeddings."""

from collections.abc import Callable
import dataclasses
from typing import Any

from jaxtyping import Float, Int
import numpy as np

from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.evaluation import task_results
from pcl_jax.evaluation.tagging import probes
from pcl_jax.models import audio_encoder

Embeddings = Float[np.ndarray, "songs d"]
EMBEDDINGS = "embeddings"
# Of what the mean over a clip's patches is taken.
MEANS = (EMBEDDINGS, *probes.MEANS)


@dataclasses.dataclass(frozen=True)
class Options:
  """What the command line decides of the tasks.

  Attributes:
    split: whose songs are sought: TEST, or VALIDATION, where mode P's vectors
      are defined too.
    min_playlists: playlists that two songs share to count as alike.
    largest_artist: an artist or album of more songs is none (`various
      artists`); None for no such limit.
    neighbours: length of a playlist's continuation.
    published_split: Melon-50 splits as the published script does.
    tagging_mean: one of `MEANS`, for clips of public tagging sets.
  """

  split: int = catalogues.TEST
  min_playlists: int = 1
  largest_artist: int | None = None
  neighbours: int = 100
  published_split: bool = False
  tagging_mean: str = EMBEDDINGS


@dataclasses.dataclass(frozen=True)
class Context:
  """What a task works on, for one representation of the songs.

  Attributes:
    data: the data set, with store and catalogue.
    seed: of all that a task draws.
    options: of the command line.
    encoder: that made the embeddings; None where none did (mean mel, mode P).
    meta: what the run's checkpoint says about itself.
    chosen: names of the tasks that are run.
    memory: of what several tasks share, for this representation alone.
  """

  data: dataset.DataSet
  seed: int = 0
  options: Options = dataclasses.field(default_factory=Options)
  encoder: audio_encoder.AudioEncoder | None = None
  meta: dict[str, Any] = dataclasses.field(default_factory=dict)
  chosen: tuple[str, ...] = ()
  memory: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def catalogue(self) -> catalogues.Catalogue:
    """The songs, their artists, genres, playlists and split."""
    return self.data.catalogue

  @property
  def sought(self) -> Int[np.ndarray, " rows"]:
    """Rows of the songs that are queries and candidates."""
    return self.catalogue.rows_of(self.options.split)

  @property
  def split_name(self) -> str:
    """Name of the split they are of."""
    return catalogues.SPLIT_NAMES[self.options.split]

  def once(self, key: str, make: Callable[[], Any]) -> Any:
    """Returns what `make` returns, calling it once a representation."""
    if key not in self.memory:
      self.memory[key] = make()
    return self.memory[key]


# A reason instead of an outcome: what the data set lacks for this task.
Run = Callable[[Context, Embeddings], task_results.Outcome | str]
Baseline = Callable[[Context], task_results.Outcome | str]


@dataclasses.dataclass(frozen=True)
class Task:
  """An entry of the registry.

  Attributes:
    title: what the table says above its rows.
    run: measures a representation of all songs, [songs, d], or returns the
      reason why this data set cannot give the task.
    baselines: further rows that need no embeddings (popularity, random), by
      name.
    shown: metrics in the table, all others are in results.json; the first ones
      of the outcome where this is empty.
    slow: trains a network: runs only where it is asked for by name.
  """

  title: str
  run: Run
  baselines: dict[str, Baseline] = dataclasses.field(default_factory=dict)
  shown: tuple[str, ...] = ()
  slow: bool = False
