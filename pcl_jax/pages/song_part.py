"""The part of a page that is about songs: map, neighbours, confusion."""

import dataclasses
import pathlib
from typing import Any

from jaxtyping import Float
import numpy as np

from pcl_jax.checkpoint import restore
from pcl_jax.data import catalogues
from pcl_jax.embedding import song_encoder
from pcl_jax.evaluation import representations
from pcl_jax.evaluation import task_base
from pcl_jax.pages import chart_specs
from pcl_jax.pages import nearest_songs
from pcl_jax.pages import song_map
from pcl_jax.pages import song_sheet


@dataclasses.dataclass(frozen=True)
class SongPart:
  """Map, neighbours and confusion of a run's songs.

  Attributes:
    sheet: what is known of the songs.
    tags: names of the genre codes.
    columns: data of the map, plain values; see `_columns`.
    spec: the map.
    method: how the songs were placed.
    step: step of the checkpoint that embedded them.
    left_out: number of songs of the data set that are not among these.
    genres: names of the sub-genres of the confusion; empty where there is none.
    confusion: shares of the neighbours, [genres, genres].
  """

  sheet: song_sheet.SongSheet
  tags: dict[str, str]
  columns: dict[str, Any]
  spec: chart_specs.Spec
  method: str
  step: int
  left_out: int
  genres: list[str]
  confusion: Float[np.ndarray, "genres genres"]


def _columns(
  sheet: song_sheet.SongSheet,
  placed: Float[np.ndarray, "songs 2"],
  near: nearest_songs.Neighbours,
  audio: list[str],
) -> dict[str, Any]:
  """Returns what the page's script reads, by column; cosines in thousandths."""
  playlists = [[sheet.playlist_names[p] for p in ps] for ps in sheet.playlists]
  splits = [[one] for one in sheet.splits]
  lists = sheet.genres, sheet.artists, splits, playlists
  has = dict(zip(chart_specs.BY, lists, strict=True))
  return song_map.columns(sheet.ids, sheet.names, placed, has) | {
    "near": near.rows.tolist(),
    "cosine": np.round(near.cosines * 1000).astype(int).tolist(),
    "audio": audio if any(audio) else [],
  }


def make(
  workdir: pathlib.Path,
  page: pathlib.Path,
  *,
  data_dir: str | None = None,
  audio: pathlib.Path | None = None,
  which: str = "best",
) -> SongPart:
  """Embeds the songs of a run's data set, places them and finds neighbours.

  Of more than `song_map.MOST_SONGS` so many are drawn, with the run's seed.

  Args:
    workdir: folder of the run.
    page: the page's file, from which audio is addressed.
    data_dir: the data set; None for the one that the run trained on.
    audio: folder of the songs' audio; see `song_sheet.audio_links`.
    which: the `best` checkpoint by validation loss, or the `latest`.

  Raises:
    InputError: there is no checkpoint or no data set, or a flag is wrong.
  """
  encoder, meta = restore.load_encoder(workdir, which)
  data = task_base.open_data(workdir, meta, data_dir)
  links = song_sheet.audio_links(data, audio, page)
  rows = song_map.drawn(len(data.store), meta["config"]["seed"])
  vectors = representations.checked(
    representations.TRAINED,
    song_encoder.embed_songs(encoder, data.store, rows),
    data.catalogue.song_ids[rows],
  )
  sheet, near = song_sheet.read(data).select(rows), nearest_songs.find(vectors)
  placed, method = song_map.place(vectors, meta["config"]["seed"])
  names, matrix = _confusion(sheet, near)
  return SongPart(
    sheet=sheet,
    tags=song_sheet.tag_names(data),
    columns=_columns(sheet, placed, near, [links[row] for row in rows]),
    spec=chart_specs.song_map(len(sheet), method),
    method=method,
    step=meta["progress"]["step"],
    left_out=len(data.store) - len(rows),
    genres=names,
    confusion=matrix,
  )


def _confusion(
  sheet: song_sheet.SongSheet, near: nearest_songs.Neighbours
) -> tuple[list[str], Float[np.ndarray, "genres genres"]]:
  """Returns the confusion of the test songs; nothing without sub-genres."""
  is_test = np.array(sheet.splits) == catalogues.SPLIT_NAMES[catalogues.TEST]
  if not any(sheet.genres) or not is_test.any():
    return [], np.zeros((0, 0))
  return nearest_songs.confusion(near, sheet.genres, np.flatnonzero(is_test))
