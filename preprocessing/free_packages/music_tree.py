"""Gathers the music of packages in a folder, with licences and playlists."""

import collections
from collections.abc import Iterable, Sequence
import csv
import fnmatch
import io
import os
import pathlib
import re
import shutil
import tarfile
import tempfile
from typing import Any
import zipfile
import zlib

from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.library import music_files
from preprocessing.free_packages import package_source
from preprocessing.free_packages.package_list import Package

AUDIO = "audio"  # A folder for each package, named as it.
LICENCES = "licences.json"
COPYRIGHT = "licences"  # The packages' copyright files.
PLAYLISTS = "scenarios.csv"
_SCENARIOS = "scenarios"
_WORK = ".unpacking"
_EFFECTS = {"sounds", "soundfx", "sfx", "voices", "speech"}
_TRACK = re.compile(r"(?<![\w/.-])([\w-]+\.ogg)\b")


def _suffix(path: str) -> str:
  return os.path.splitext(path)[1].lower()


def is_effect(path: str, music: Sequence[str] = ()) -> bool:
  """Returns whether a file lies among effects or speech.

  Args:
    path: with '/'.
    music: patterns of names that are music wherever they lie.
  """
  *folders, name = path.split("/")
  named = any(fnmatch.fnmatchcase(name, one) for one in music)
  return not named and not _EFFECTS.isdisjoint(map(str.lower, folders))


class _Unpacking:
  """Takes what is of use from the files of one package."""

  def __init__(self, package: Package, folder: pathlib.Path):
    self._package = package
    self._folder = folder
    self.counts: collections.Counter[str] = collections.Counter()
    self.copyright: list[bytes] = []
    self.scenarios: dict[str, list[str]] = {}

  def take(self, entry: package_source.Entry) -> None:
    """Takes a file, or the files of an archive of a game's own."""
    path, parts = entry.path, entry.path.split("/")
    if _suffix(path) in music_files.SOUND:
      self._take_sound(entry)
    elif _suffix(path) == ".pk3":  # Zip archives of some games.
      self._take_archive(entry)
    elif parts[-1] == "copyright" and "doc" in parts:
      self.copyright.append(entry.file.read())
    elif self._package.scenarios_with and _suffix(path) == ".cfg":
      if "scenarios" in parts:
        text = entry.file.read().decode(errors="replace")
        names = list(dict.fromkeys(_TRACK.findall(text)))
        self.scenarios[path.partition("/data/")[2] or path] = names

  def _take_sound(self, entry: package_source.Entry) -> None:
    if is_effect(entry.path, self._package.music_among_effects):
      self.counts["effects"] += 1
      return
    self.counts["sound_files"] += 1
    target = self._folder / entry.path
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.place:
      storage.link_or_copy(entry.place, target)
    else:
      with open(target, "wb") as file:
        shutil.copyfileobj(entry.file, file)

  def _take_archive(self, entry: package_source.Entry) -> None:
    with tempfile.TemporaryFile(dir=self._folder) as copy:
      shutil.copyfileobj(entry.file, copy)
      try:
        with zipfile.ZipFile(copy) as archive:
          for member in archive.infolist():
            name = f"{os.path.splitext(entry.path)[0]}/{member.filename}"
            inside = ".." not in name.split("/")
            if inside and _suffix(name) in music_files.SOUND:
              with archive.open(member) as file:
                self._take_sound(package_source.Entry(name, file))
      # RuntimeError is of members that are encrypted or packed otherwise.
      except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise package_source.Missing(
          f"its {entry.path} cannot be unpacked ({error})"
        ) from error


def _unpack(
  package: Package, found: package_source.Found, data_dir: pathlib.Path
) -> dict[str, Any]:
  """Unpacks a package; returns what licences.json says of it."""
  work = data_dir / _WORK / "tree"
  work.mkdir()
  taken = _Unpacking(package, work)
  try:
    for entry in package_source.entries(found):
      taken.take(entry)
  except tarfile.TarError as error:  # A file ends in its middle.
    raise package_source.damaged(found.place, error) from error
  if not (any(taken.counts.values()) or taken.scenarios):
    raise package_source.Missing(
      f"{found.place} has no sound file: it should be the package of this "
      "name, or the folder that it was unpacked in"
    )
  for folder in (AUDIO, COPYRIGHT, _SCENARIOS):
    (data_dir / folder).mkdir(exist_ok=True)
  text = b"\n".join(taken.copyright)
  (data_dir / COPYRIGHT / f"{package.name}.txt").write_bytes(text)
  if package.scenarios_with:
    place = data_dir / _SCENARIOS / f"{package.name}.json"
    storage.write_json(place, taken.scenarios)
  target = data_dir / AUDIO / package.name
  shutil.rmtree(target, ignore_errors=True)
  if taken.counts["sound_files"]:
    work.rename(target)
  return {
    "licence": package.licence,
    "version": found.version or "unknown",
    "sha256": found.sha256 or "unknown",
    "as_listed": found.sha256 == package.sha256 if found.sha256 else None,
    "sound_files": taken.counts["sound_files"],
    "effects_left_out": taken.counts["effects"],
    "scenarios": len(taken.scenarios),
  }


def _say(package: Package, about: dict[str, Any]) -> None:
  print(
    f"{package.name}: {about['sound_files']} sound files, "
    f"{about['effects_left_out']} effects left out"
  )
  if about["as_listed"] is False:
    print(
      f"{package.name} is version {about['version']} (sha256 "
      f"{about['sha256']}), not the listed {package.version} (sha256 "
      f"{package.sha256}): its tracks may be others"
    )


def _write_playlists(data_dir: pathlib.Path, packages: Iterable[Package]):
  """Writes the scenarios that name two tracks or more as playlists."""
  rows = []
  for package in packages:
    place = data_dir / _SCENARIOS / f"{package.name}.json"
    music = data_dir / AUDIO / package.scenarios_with
    if not package.scenarios_with or not place.exists() or not music.exists():
      continue
    paths = {one.name: one for one in sorted(music.rglob("*.ogg"))}
    for title, names in storage.read_made_json(place).items():
      known = [paths[name] for name in names if name in paths]
      if len(known) > 1:
        root = data_dir / AUDIO
        rows += [(title, one.relative_to(root).as_posix()) for one in known]
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows([("playlist", "path"), *rows])
  if rows:
    storage.write_text(data_dir / AUDIO / PLAYLISTS, text.getvalue())


def _check_missing(missing: dict[str, str], count: int, partial: bool) -> None:
  if not missing:
    return
  name, why = next(iter(missing.items()))
  text = (
    f"{len(missing)} of {count} packages cannot be had "
    f"({', '.join(missing)}); the first is {name}: {why}."
  )
  if partial and len(missing) < count:
    print(text)
    return
  raise errors.InputError(
    f"{text} After `apt-get update`, on a machine with a network, the same "
    "command goes on; --debs or --unpacked take packages from a folder"
    + ("." if partial else ", and --allow_partial does without them.")
  )


def _is_there(
  about: dict[str, Any] | None, data_dir: pathlib.Path, package: Package
) -> bool:
  """Returns whether a package was unpacked, and its music was not deleted."""
  if about is None:
    return False
  return not about["sound_files"] or (data_dir / AUDIO / package.name).exists()


def _say_others(names: Iterable[str], audio: pathlib.Path) -> None:
  """Says which music earlier calls left, of packages that are not listed."""
  found = sorted(one for one in names if (audio / one).exists())
  if found:
    print(
      f"the music of {len(found)} packages that are not in the list stays "
      f"({', '.join(found)}): delete their folders in {audio} to leave it out"
    )


def gather(
  packages: Sequence[Package],
  source: package_source.Source,
  data_dir: pathlib.Path,
  *,
  allow_partial: bool = False,
) -> dict[str, dict[str, Any]]:
  """Fills `AUDIO` with the music of packages; goes on where it was stopped.

  Args:
    packages: which; those that are there already are left alone.
    source: where they come from.
    data_dir: the folder that `AUDIO`, `LICENCES` and `COPYRIGHT` are made in.
    allow_partial: whether packages may be missing.

  Returns:
    The content of licences.json: name -> licence, version, hash and counts.

  Raises:
    InputError: packages cannot be had, or what they come from is not there.
  """
  place = data_dir / LICENCES
  known = storage.read_made_json(place) if place.exists() else {}
  todo = [
    one for one in packages if not _is_there(known.get(one.name), data_dir, one)
  ]
  if todo:
    source.check()
  data_dir.mkdir(parents=True, exist_ok=True)
  missing = {}
  for package in todo:
    known.pop(package.name, None)  # Its music was deleted.
    work = data_dir / _WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
      found = source.find(package.name, package.sha256, work)
      about = _unpack(package, found, data_dir)
    except package_source.Missing as error:
      missing[package.name] = str(error)
      continue
    finally:
      shutil.rmtree(work, ignore_errors=True)
    _say(package, about)
    known[package.name] = about
    storage.write_json(place, known)
  made = [known[one.name] for one in todo if one.name in known]
  unknown = sum(one["as_listed"] is None for one in made)
  if unknown:
    print(
      f"{unknown} of {len(packages)} packages: not known whether they are the "
      "listed versions, as an unpacked package does not tell"
    )
  _check_missing(missing, len(packages), allow_partial)
  _say_others(known.keys() - {one.name for one in packages}, data_dir / AUDIO)
  _write_playlists(data_dir, packages)
  return known
