"""Prints what a split consists of."""

from typing import Any

from pcl_jax.data import catalogues
from preprocessing.melon import melon_meta


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


def print_counts(counts: dict[str, Any], split_by: str) -> None:
  """Prints the counts of a split, and how much of imported files was there.

  Args:
    counts: as data_split.json has them.
    split_by: what went to one part as a whole.
  """
  left_out = counts["playlist_songs_left_out"]
  print(", ".join(f"{name} {counts[name]}" for name in catalogues.SPLIT_NAMES))
  drawn = counts.get("drawn", {})
  kept = counts["songs"] - sum(drawn.values())
  if drawn and kept:
    news = ", ".join(f"{name} {number}" for name, number in drawn.items())
    print(f"{kept} known songs keep their part; new songs: {news}")
  if not counts["genre_codes"]:
    print("no song has a genre: the split is a plain shuffle, not stratified")
  if counts.get("groups"):
    print(
      f"split by {split_by}: {counts['groups']} groups of songs, each in one "
      "part"
    )
  if torn := counts.get("groups_in_several_parts"):
    print(
      f"{torn} of these groups lie in several parts all the same, since known "
      "songs keep their part; draw the split anew with another --seed and "
      "--force"
    )
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
