"""What an evaluation task gives back, for one representation of the songs."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Metric:
  """One number and how far it can be trusted.

  Attributes:
    value: mean over the items that define it.
    low: lower end of its 95 % bootstrap interval.
    high: upper end.
    items: how many it is a mean over (queries, playlists, tags, songs).
  """

  value: float
  low: float
  high: float
  items: int


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a task says of one representation.

  Attributes:
    metrics: by name, the first one being the task's headline.
    per_item: columns of equal length; the first names the item (query id, tag,
      playlist id), the others hold its metrics, nan where undefined. Runs are
      compared item by item.
    left_out: reason -> how many items; nothing is left out silently.
    settings: what decided the numbers (split, chosen rate, seeds), plain
      values fit for json.
  """

  metrics: dict[str, Metric]
  per_item: dict[str, np.ndarray]
  left_out: dict[str, int] = dataclasses.field(default_factory=dict)
  settings: dict[str, object] = dataclasses.field(default_factory=dict)
