"""Lists of songs as files: m3u, csv, json and xspf."""

from collections.abc import Callable
import csv
import os
from typing import Any
import urllib.parse
from xml.etree import ElementTree

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.embedding import search
from pcl_jax.embedding import song_table
from pcl_jax.library import playlist_files

_XSPF = "http://xspf.org/ns/0/"
_SHOWN = ("rank", "score", "lists", "name", "id", "path")
_Path = str | os.PathLike[str]
Row = dict[str, Any]


def rows_of(table: song_table.Table, found: search.Found) -> list[Row]:
  """Returns what is known of songs that were found.

  Returns:
    For each song rank, score, lists (of a playlist that is continued), name
    (if the table has any), id, path, artists, album, seconds.
  """
  rows = []
  for i, row in enumerate(found.rows.tolist()):
    one: Row = {"rank": i + 1, "score": f"{found.scores[i]:.4f}"}
    if found.lists is not None:
      one["lists"] = int(found.lists[i])
    one |= {"name": table.names[row]} if table.names else {}
    one |= {
      "id": table.ids[row],
      "path": table.paths[row],
      "artists": table.facts.artist_names(row),
      "album": table.facts.album(row),
      "seconds": round(float(table.facts.seconds[row]), 3),
    }
    rows.append(one)
  return rows


def shown(rows: list[Row]) -> list[Row]:
  """Returns the columns that the screen and a csv file have."""
  return [{name: r[name] for name in _SHOWN if name in r} for r in rows]


def _relative(path: str, folder: str) -> str:
  """Returns a path as it is seen from a folder."""
  found = os.path.relpath(path, folder)
  # Else the line of an m3u would be a comment, or begin with blanks.
  return found if found[:1].strip(" \t#") else os.path.join(".", found)


def _of_file(rows: list[Row], out: _Path, relative: bool) -> list[Row]:
  """Returns rows with the paths that a file is to hold."""
  if not relative:
    return rows
  folder = os.path.dirname(os.path.abspath(file_names.path(out)))
  return [
    row | {"path": row["path"] and _relative(row["path"], folder)}
    for row in rows
  ]


def _place(path: str, absolute: str) -> str:
  """Returns a path for a file of lines, or an address where lines lack it."""
  if file_names.shown(path) == path == path.strip():
    return path
  return playlist_files.place(absolute)


def write_csv(out: _Path, rows: list[Row], *, relative: bool = False) -> None:
  """Writes songs as a table; a path that is no text is an address, as in m3u.

  Args:
    out: the file.
    rows: as `rows_of` returns them.
    relative: writes paths as they are seen from the file's folder.
  """
  with (
    storage.write_aside(file_names.path(out)) as partial,
    open(partial, "w", encoding="utf-8", newline="") as file,
  ):
    lines = shown(_of_file(rows, out, relative))
    writer = csv.DictWriter(file, lines[0])
    writer.writeheader()
    for row, whole in zip(lines, rows, strict=True):
      if not file_names.is_text(row["path"]):
        row = row | {"path": playlist_files.place(whole["path"])}
      writer.writerow(row | {"id": file_names.to_text(row["id"])[0]})


def _check_paths(rows: list[Row], flag: str) -> None:
  if not all(row["path"] for row in rows):
    raise errors.InputError(
      f"{flag} needs the paths of songs, and the table has none: it was made "
      "of a data set. Use --csv."
    )


def _title(row: Row) -> str:
  stem = os.path.splitext(os.path.basename(row["path"]))[0]
  return file_names.shown(row.get("name") or stem)


def write_m3u(out: _Path, rows: list[Row], *, relative: bool = False) -> None:
  """Writes songs as a playlist in UTF-8, with their lengths and names.

  Args:
    out: the file.
    rows: as `rows_of` returns them.
    relative: writes paths as they are seen from the file's folder.

  Raises:
    InputError: the paths are not known.
  """
  _check_paths(rows, "--m3u")
  lines = ["#EXTM3U"]
  for row, whole in zip(_of_file(rows, out, relative), rows, strict=True):
    lines.append(f"#EXTINF:{round(row['seconds'])},{_title(row)}")
    lines.append(_place(row["path"], whole["path"]))
  storage.write_text(file_names.path(out), "\n".join([*lines, ""]))


def write_json(out: _Path, rows: list[Row], *, relative: bool = False) -> None:
  """Writes songs as json: a list of objects, with artists, album and length."""
  rows = _of_file(rows, out, relative)
  storage.write_json(
    file_names.path(out), [r | {"score": float(r["score"])} for r in rows]
  )


def write_xspf(out: _Path, rows: list[Row], *, relative: bool = False) -> None:
  """Writes songs as an XSPF playlist; its paths are addresses.

  Raises:
    InputError: the paths are not known.
  """
  _check_paths(rows, "--xspf")
  root = ElementTree.Element("playlist", version="1", xmlns=_XSPF)
  ElementTree.SubElement(root, "title").text = file_names.shown(
    file_names.path(out).stem
  )
  tracks = ElementTree.SubElement(root, "trackList")
  for row in _of_file(rows, out, relative):
    address = urllib.parse.quote(os.fsencode(row["path"]))
    creator = ", ".join(row["artists"])
    said = {
      "location": address if relative else f"file://{address}",
      "title": _title(row).removeprefix(f"{creator} - "),
      "creator": creator,
      "album": row["album"],
      "duration": str(round(1000 * row["seconds"])),
    }
    track = ElementTree.SubElement(tracks, "track")
    for name, value in said.items():
      if value:
        ElementTree.SubElement(track, name).text = file_names.shown(value)
  ElementTree.indent(root)
  text = ElementTree.tostring(root, encoding="unicode", xml_declaration=False)
  storage.write_text(
    file_names.path(out), f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'
  )


WRITERS: dict[str, Callable[..., None]] = {
  "csv": write_csv,
  "m3u": write_m3u,
  "json": write_json,
  "xspf": write_xspf,
}
