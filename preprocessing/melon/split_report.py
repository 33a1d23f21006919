"""Counts what a catalogue holds, and prints it."""

from typing import Any

import numpy as np

from pcl_jax.data import catalogues
from preprocessing.melon import melon_meta


def count(
  made: catalogues.Catalogue, left_out: dict[str, int]
) -> dict[str, Any]:
  """Counts what a catalogue holds, in plain values fit for json.

  Args:
    made: the catalogue.
    left_out: how many songs were left out of playlists, by reason.
  """
  files = np.bincount(
    made.playlist_files, minlength=len(melon_meta.PLAYLIST_FILES)
  )
  split = np.bincount(made.split[made.split >= 0], minlength=3)
  return {
    "songs": len(made),
    **dict(zip(catalogues.SPLIT_NAMES, split.tolist(), strict=True)),
    "artists": int(made.artists.values.max(initial=-1)) + 1,
    "genre_codes": len(made.genre_codes),
    "songs_without_genre": int((made.genres.lengths == 0).sum()),
    "playlists": dict(
      zip(melon_meta.PLAYLIST_FILES, files.tolist(), strict=True)
    ),
    "playlists_without_songs": int((made.playlists.lengths == 0).sum()),
    "playlist_songs": len(made.playlists.values),
    "playlist_songs_left_out": left_out,
    "validation_pairs": {
      method: len(drawn) for method, drawn in made.validation_pairs.items()
    },
  }


def _print_imported(counts: dict[str, Any]) -> None:
  """Prints how much of the imported files the song store has."""
  if "split_from" in counts:
    given = counts["split_from"]
    listed = ", ".join(
      f"{given[name]['listed']} {name} ({given[name]['without_audio']} of them "
      "without audio)"
      for name in catalogues.SPLIT_NAMES
    )
    print(f"{given['file']} lists {listed}")
    print(
      f"{given['in_no_part']} songs of the song store are in none of its parts "
      "and are not used"
    )
  if "val_pairs_from" in counts:
    given = counts["val_pairs_from"]
    print(
      f"{given['file']} lists {given['listed']} pairs, "
      f"{given['without_audio']} of them without audio"
    )


def print_counts(counts: dict[str, Any]) -> None:
  """Prints what `count` found, and how much of imported files was there."""
  left_out = counts["playlist_songs_left_out"]
  print(", ".join(f"{name} {counts[name]}" for name in catalogues.SPLIT_NAMES))
  if not counts["genre_codes"]:
    print("no song has a genre: the split is a plain shuffle, not stratified")
  print(
    f"{counts['artists']} artists, {counts['genre_codes']} genre codes, "
    f"{counts['songs_without_genre']} songs without genre"
  )
  files = ", ".join(f"{n} of {name}" for name, n in counts["playlists"].items())
  print(
    f"playlists: {files}; {counts['playlists_without_songs']} of them are left "
    f"without songs; {counts['playlist_songs']} songs in them"
  )
  print(
    f"left out of playlists: {left_out['unknown']} songs that "
    f"{melon_meta.SONG_FILE} lacks, {left_out['without_audio']} songs that "
    f"the song store lacks, {left_out['repeated']} repetitions"
  )
  print(
    "validation pairs: "
    + ", ".join(f"{m} {n}" for m, n in counts["validation_pairs"].items())
  )
  _print_imported(counts)
