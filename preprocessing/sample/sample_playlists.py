"""Playlists of the sample, and how those of val.json and test.json are masked.

A playlist has a theme (a sub-genre, a mood, both, an artist). Most of its songs
fit it, popular ones first; the rest is drawn from all songs.
"""

from typing import Any

import numpy as np

from preprocessing.sample import sample_styles
from preprocessing.sample import sample_world

THEMES = {
  "sub-genre and mood": 0.25,
  "sub-genre": 0.3,
  "mood": 0.1,
  "artist": 0.35,
}
FILE_SHARES = {"train": 0.77, "val": 0.16, "test": 0.07}  # As in Melon.
# What a masked playlist keeps: songs (half of them), tags, title.
_MASKS = ((True, True, False), (True, False, True), (False, True, True))
_MASK_SHARES = (0.6, 0.3, 0.1)
_SHORTEST, _LONGEST, _TYPICAL = 5, 60, 15
_LIKES_PER_LOG = 1.6


def _theme(
  songs: list[sample_world.Song],
  artists: list[sample_world.Artist],
  rng: np.random.Generator,
) -> tuple[np.ndarray, str, list[str]]:
  """Draws a theme: which songs fit, bool [songs], a title and tags."""
  kind = rng.choice(list(THEMES), p=list(THEMES.values()))
  # From a song, so that a theme is as frequent as its songs.
  like = songs[rng.integers(len(songs))]
  style = sample_styles.STYLES[like.styles[0]].name
  mood = sample_styles.MOODS[like.mood].name
  if kind == "artist":
    fits = np.array([like.artists[0] in one.artists for one in songs])
    return fits, f"Best of {artists[like.artists[0]].name}", [style]
  same_mood = np.array([one.mood == like.mood for one in songs])
  same_style = np.array([like.styles[0] in one.styles for one in songs])
  if kind == "mood":
    return same_mood, f"{mood} hours", [mood]
  if kind == "sub-genre":
    return same_style, f"{style} forever", [style]
  return same_style & same_mood, f"{mood} {style}", [mood, style]


def _draw_members(
  fits: np.ndarray, weights: np.ndarray, noise: float, rng: np.random.Generator
) -> np.ndarray:
  """Draws the positions of a playlist's songs, in order of the playlist."""
  wanted = _TYPICAL * np.exp(0.5 * rng.standard_normal())
  wanted = int(np.clip(wanted, _SHORTEST, _LONGEST))
  wanted = min(wanted, len(weights))
  stray = int(rng.binomial(wanted, noise))
  fitting = min(wanted - stray, int(fits.sum()))
  chosen = fits * weights / (fits * weights).sum()
  inside = rng.choice(len(weights), fitting, replace=False, p=chosen)
  rest = weights.copy()
  rest[inside] = 0.0
  # A theme with few songs is filled up, but not to more noise than theme.
  stray = min(max(stray, _SHORTEST - fitting), int(np.count_nonzero(rest)))
  outside = rng.choice(
    len(weights), stray, replace=False, p=rest / max(rest.sum(), 1e-12)
  )
  return rng.permutation(np.concatenate([inside, outside]))


def draw_playlists(
  songs: list[sample_world.Song],
  artists: list[sample_world.Artist],
  count: int,
  noise: float,
  seed: int,
) -> list[dict[str, Any]]:
  """Draws whole playlists, in the layout of train.json.

  Args:
    songs: the songs of the sample, at least one.
    artists: the artists of the sample.
    count: the number of playlists.
    noise: the share of their songs drawn without regard to the theme.
    seed: the seed of the sample.
  """
  weights = np.array([song.popularity for song in songs])
  playlists = []
  for i in range(count):
    rng = np.random.default_rng([seed, 4, i])
    fits, title, tags = _theme(songs, artists, rng)
    members = _draw_members(fits, weights, noise, rng)
    year, month, day, hour = rng.integers(
      [2012, 1, 1, 0], [2020, 13, 29, 24]
    ).tolist()
    playlists.append(
      {
        "id": i,
        "plylst_title": title,
        "tags": tags,
        "songs": [songs[j].song_id for j in members],
        "like_cnt": int(np.exp(_LIKES_PER_LOG * rng.standard_normal() + 2.0)),
        "updt_date": f"{year}-{month:02}-{day:02} {hour:02}:00:00.000",
      }
    )
  return playlists


def split_playlists(
  playlists: list[dict[str, Any]], seed: int
) -> dict[str, list[dict[str, Any]]]:
  """Deals playlists to train, val and test, and masks those of val and test.

  A masked playlist keeps half of its songs (rounded down) and the tags, or half
  of its songs and the title, or tags and title only; the rest is an empty list
  or text, as in Melon.

  Returns:
    File name without its ending -> records.
  """
  rng = np.random.default_rng([seed, 5])
  order = rng.permutation(len(playlists)).tolist()
  train_end = round(FILE_SHARES["train"] * len(order))
  val_end = train_end + round(FILE_SHARES["val"] * len(order))
  files = {
    "train": [playlists[i] for i in sorted(order[:train_end])],
    "val": [playlists[i] for i in sorted(order[train_end:val_end])],
    "test": [playlists[i] for i in sorted(order[val_end:])],
  }
  for name in ("val", "test"):
    for place, record in enumerate(files[name]):
      keeps = _MASKS[rng.choice(len(_MASKS), p=_MASK_SHARES)]
      kept = len(record["songs"]) // 2 if keeps[0] else 0
      files[name][place] = record | {
        "plylst_title": record["plylst_title"] if keeps[2] else "",
        "tags": record["tags"] if keeps[1] else [],
        "songs": record["songs"][:kept],
      }
  return files
