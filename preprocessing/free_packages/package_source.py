"""The files of a Debian package: downloaded, from a .deb, or unpacked."""

from collections.abc import Iterator
import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess
import tarfile
from typing import BinaryIO

from pcl_jax.common import errors
from pcl_jax.common import storage

_DPKG = "dpkg-deb"
_APT = "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download"


class Missing(Exception):
  """A package cannot be had; the text says why."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """A file of a package.

  Attributes:
    path: where it is installed, relative to the root, with '/'.
    file: its content, open for reading until the next entry is asked for.
    place: where it lies on the disk, or None if it is part of an archive.
  """

  path: str
  file: BinaryIO
  place: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Found:
  """A package that can be read.

  Attributes:
    place: a .deb file, or the folder of an unpacked package.
    version: its version; empty for a folder, which does not tell.
    sha256: the hash of the .deb file, or empty.
  """

  place: pathlib.Path
  version: str = ""
  sha256: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
  """Where packages come from: one of two folders, or else apt-get.

  Attributes:
    debs: a folder of .deb files, or None.
    unpacked: a folder with a folder of each package, of its name, or None.
  """

  debs: pathlib.Path | None = None
  unpacked: pathlib.Path | None = None

  def check(self) -> None:
    """Raises InputError where a folder or a program is missing."""
    for name, folder in (("debs", self.debs), ("unpacked", self.unpacked)):
      if folder is not None and not folder.is_dir():
        raise errors.InputError(
          f"--{name} is {folder}, which is not a folder: give the folder that "
          "the packages lie in."
        )
    if self.unpacked is not None:
      return
    needed = (_DPKG,) if self.debs is not None else (_APT[0], _DPKG)
    for program in needed:
      if shutil.which(program) is None:
        raise errors.InputError(
          f"{program} is not installed. On Debian and Ubuntu it is there; "
          "elsewhere, unpack the packages there and give their folder as "
          "--unpacked=FOLDER"
          + ("." if self.debs is not None else ", or give --debs=FOLDER.")
        )

  def find(self, name: str, sha256: str, work: pathlib.Path) -> Found:
    """Finds a package, or downloads it to the folder `work`.

    Of several files the one of this SHA-256 is taken, or else the last by name.

    Raises:
      Missing: it cannot be had.
    """
    if self.unpacked is not None:
      if not (self.unpacked / name).is_dir():
        raise Missing(f"{self.unpacked} has no folder of this name")
      return Found(self.unpacked / name)
    folder = self.debs or _download(name, work)
    found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
      raise Missing(f"{folder} has no file {name}_*.deb")
    hashes = {storage.sha256(one): one for one in found}
    place = hashes.get(sha256, found[-1])
    version = _run(_DPKG, "-f", os.fspath(place), "Version")
    digest = next(key for key, one in hashes.items() if one == place)
    return Found(place, version, digest)


def _run(*command: str, cwd: pathlib.Path | None = None) -> str:
  """Returns what a command prints; raises Missing with its last complaint."""
  done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
  if done.returncode:
    said = (done.stderr.strip() or f"exit {done.returncode}").splitlines()
    raise Missing(said[-1].removeprefix("E: "))
  return done.stdout.strip()


def _download(name: str, work: pathlib.Path) -> pathlib.Path:
  _run(*_APT, name, cwd=work)
  return work


def damaged(place: pathlib.Path, error: Exception) -> Missing:
  """Returns what is raised for a package that cannot be read to its end."""
  return Missing(f"{place} is damaged ({error})")


def entries(found: Found) -> Iterator[Entry]:
  """Yields the files of a package; links are left out.

  Raises:
    Missing: the package is damaged.
  """
  if found.place.is_dir():
    for place in sorted(found.place.rglob("*")):
      if place.is_file() and not place.is_symlink():
        path = place.relative_to(found.place).as_posix()
        with open(place, "rb") as file:
          yield Entry(path, file, place)
    return
  with _tar_stream(found.place) as stream:
    try:
      with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
          if member.isfile():
            path = pathlib.PurePosixPath(member.name)
            parts = [one for one in path.parts if one not in ("/", "..")]
            yield Entry("/".join(parts), archive.extractfile(member))
    except tarfile.TarError as error:
      raise damaged(found.place, error) from error


@contextlib.contextmanager
def _tar_stream(deb: pathlib.Path) -> Iterator[BinaryIO]:
  command = [_DPKG, "--fsys-tarfile", os.fspath(deb)]
  with subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
  ) as process:
    yield process.stdout
    while process.stdout.read(1 << 20):  # What lies behind the last member.
      pass
  if process.returncode:
    raise Missing(f"{deb} is damaged ({_DPKG} cannot unpack it)")
