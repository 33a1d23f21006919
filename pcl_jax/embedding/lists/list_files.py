"""Lists of songs as files: m3u, csv, json and xspf."""

import csv
import io
import os
from typing import Any
import urllib.parse
from xml.etree import ElementTree

from pcl_jax.common import console
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import storage
from pcl_jax.embedding.tables import search
from pcl_jax.embedding.tables import song_table
from pcl_jax.library import playlist_files

_XSPF = "http://xspf.org/ns/0/"
_SHOWN = ("rank", "score", "lists", "name", "id", "path")
_LONG = ("name", "id", "path")  # They may be long.
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
  """Returns the columns that a csv file has."""
  return [{name: r[name] for name in _SHOWN if name in r} for r in rows]


def ids_repeat_paths(rows: list[Row]) -> bool:
  """Tells whether the id of each song is the end of its path."""
  return all(f"/{row['path']}".endswith(f"/{row['id']}") for row in rows)


def grid(rows: list[Row]) -> list[str]:
  """Returns lines for the screen: the columns of a csv file, made to fit.

  The ids are left out where each is its path's end, and texts are shortened.
  """
  without = "id" if ids_repeat_paths(rows) else None
  names = [one for one in shown(rows)[0] if one != without]
  cells = [[file_names.shown(str(row[one])) for one in names] for row in rows]
  texts = [one for one in names if one in _LONG]
  return console.grid(names, cells, shorten=texts)


def _relative(path: str, folder: str) -> str:
  """Returns a path as it is seen from a folder."""
  found = os.path.relpath(path, folder)
  # Else the line of an m3u would be a comment, or begin with blanks.
  return found if found[:1].strip(" \t#") else os.path.join(".", found)


def _seen_from(folder: str, rows: list[Row]) -> list[Row]:
  """Returns rows with the paths that a file in a folder is to hold."""
  if not folder:
    return rows
  return [
    row | {"path": row["path"] and _relative(row["path"], folder)}
    for row in rows
  ]


def _place(path: str, absolute: str) -> str:
  """Returns a path for a file of lines, or an address where lines lack it."""
  if file_names.shown(path) == path == path.strip():
    return path
  return playlist_files.place(absolute)


def _as_csv(rows: list[Row], folder: str, title: str) -> str:
  """Returns a table; a path that is no text is an address, as in m3u."""
  del title
  file, lines = io.StringIO(newline=""), shown(_seen_from(folder, rows))
  writer = csv.DictWriter(file, lines[0])
  writer.writeheader()
  for row, whole in zip(lines, rows, strict=True):
    if not file_names.is_text(row["path"]):
      row = row | {"path": playlist_files.place(whole["path"])}
    writer.writerow(row | {"id": file_names.to_text(row["id"])[0]})
  return file.getvalue()


def _check_paths(rows: list[Row], kind: str) -> None:
  if not all(row["path"] for row in rows):
    raise errors.InputError(
      f"{kind} needs the paths of songs, and the table has none: it was made "
      "of a data set. Use csv."
    )


def _title(row: Row) -> str:
  stem = os.path.splitext(os.path.basename(row["path"]))[0]
  return file_names.shown(row.get("name") or stem)


def _as_m3u(rows: list[Row], folder: str, title: str) -> str:
  """Returns a playlist, with the songs' lengths and names."""
  del title
  _check_paths(rows, "m3u")
  lines = ["#EXTM3U"]
  for row, whole in zip(_seen_from(folder, rows), rows, strict=True):
    lines.append(f"#EXTINF:{round(row['seconds'])},{_title(row)}")
    lines.append(_place(row["path"], whole["path"]))
  return "\n".join([*lines, ""])


def _as_json(rows: list[Row], folder: str, title: str) -> str:
  """Returns a list of objects, with artists, album and length."""
  del title
  rows = _seen_from(folder, rows)
  return storage.json_text([r | {"score": float(r["score"])} for r in rows])


def _as_xspf(rows: list[Row], folder: str, title: str) -> str:
  """Returns an XSPF playlist; its paths are addresses."""
  _check_paths(rows, "xspf")
  root = ElementTree.Element("playlist", version="1", xmlns=_XSPF)
  ElementTree.SubElement(root, "title").text = file_names.shown(title)
  tracks = ElementTree.SubElement(root, "trackList")
  for row in _seen_from(folder, rows):
    address = urllib.parse.quote(os.fsencode(row["path"]))
    creator = ", ".join(row["artists"])
    said = {
      "location": address if folder else f"file://{address}",
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
  return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


_TEXTS = {"csv": _as_csv, "m3u": _as_m3u, "json": _as_json, "xspf": _as_xspf}
KINDS = tuple(_TEXTS)


def text_of(
  kind: str, rows: list[Row], *, folder: str = "", title: str = ""
) -> str:
  """Returns the text of a list of songs.

  Args:
    kind: of `KINDS`; an m3u has the songs' lengths and names, json has artists,
      album and length as well, the paths of xspf are addresses.
    rows: as `rows_of` returns them.
    folder: from where paths are seen; they are absolute if it is empty.
    title: of the list.

  Raises:
    InputError: m3u or xspf is asked for, and the paths are not known.
  """
  return _TEXTS[kind](rows, folder, title)


def write(
  kind: str, out: _Path, rows: list[Row], *, relative: bool = False
) -> None:
  """Writes a list of songs into a file in UTF-8; see `text_of`.

  Args:
    kind: of `KINDS`.
    out: the file.
    rows: as `rows_of` returns them.
    relative: writes paths as they are seen from the file's folder.

  Raises:
    InputError: m3u or xspf is asked for, and the paths are not known.
  """
  path = file_names.path(out)
  folder = os.path.dirname(os.path.abspath(path)) if relative else ""
  text = text_of(kind, rows, folder=folder, title=path.stem)
  with storage.write_aside(path) as partial:
    partial.write_text(text, encoding="utf-8", newline="")
