"""Tests of preprocessing.free_packages: music of packages in one folder."""

import csv
import dataclasses
import io
import os
import re
import shutil
import subprocess
import zipfile

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.common import storage
from preprocessing.free_packages import music_tree
from preprocessing.free_packages import package_list
from preprocessing.free_packages.package_list import Package
from preprocessing.free_packages.package_source import Source

GAME = Package("game", "1.0-1", "0" * 64, "CC0-1.0")
CAMPAIGN = Package("campaign", "1", "0" * 64, "GPL-2+", (), "game")
needs_dpkg = pytest.mark.skipif(
  shutil.which("dpkg-deb") is None, reason="needs dpkg-deb"
)


def _fill(folder, files):
  for path, content in files.items():
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
  return folder


def _game(folder):
  _fill(
    folder,
    {
      "usr/share/game/music/one.ogg": b"1",
      "usr/share/game/music/two.ogg": b"2",
      "usr/share/game/Sounds/shot.ogg": b"3",
      "usr/share/game/readme.txt": b"4",
      "usr/share/doc/game/copyright": b"free",
    },
  )
  with zipfile.ZipFile(folder / "usr/share/game/pak0.pk3", "w") as archive:
    archive.writestr("music/three.ogg", b"5")
    archive.writestr("sfx/step.wav", b"6")
    archive.writestr("../outside.ogg", b"7")
  (folder / "usr/share/game/music/link.ogg").symlink_to("one.ogg")
  return folder


def _deb(tree, folder, name="game"):
  control = f"Package: {name}\nVersion: 1.0-1\nArchitecture: all\n"
  control += "Maintainer: a <a@b.c>\nDescription: a\n"
  _fill(tree, {"DEBIAN/control": control.encode()})
  deb = folder / f"{name}_1.0_all.deb"
  command = ["dpkg-deb", "-Znone", "--build", tree, deb]
  subprocess.run(command, check=True, capture_output=True)
  return deb


def _paths(data):
  root = data / music_tree.AUDIO
  return {
    one.relative_to(root).as_posix() for one in root.rglob("*") if one.is_file()
  }


_TAKEN = {
  "game/usr/share/game/music/one.ogg",
  "game/usr/share/game/music/two.ogg",
  "game/usr/share/game/pak0/music/three.ogg",
}


def test_music_is_taken_from_a_tree_and_effects_are_counted(tmp_path, capsys):
  _game(tmp_path / "trees/game")
  data = tmp_path / "data"
  made = music_tree.gather([GAME], Source(None, tmp_path / "trees"), data)
  assert _paths(data) == _TAKEN
  about = made["game"]
  assert (about["sound_files"], about["effects_left_out"]) == (3, 2)
  assert (about["licence"], about["version"]) == ("CC0-1.0", "unknown")
  assert about["as_listed"] is None  # A tree does not tell.
  assert "1 of 1 packages: not known" in capsys.readouterr().out
  assert storage.read_json(data / music_tree.LICENCES) == made
  assert (data / music_tree.COPYRIGHT / "game.txt").read_text() == "free"


@needs_dpkg
def test_a_deb_gives_what_its_tree_gives_and_its_hash_is_named(
  tmp_path, capsys
):
  deb = _deb(_game(tmp_path / "game"), tmp_path)
  data, sha256 = tmp_path / "data", storage.sha256(deb)
  made = music_tree.gather([GAME], Source(tmp_path), data)
  assert _paths(data) == _TAKEN
  assert made["game"]["version"] == "1.0-1"
  assert made["game"]["as_listed"] is False
  said = capsys.readouterr().out
  assert f"sha256 {sha256}" in said and f"sha256 {'0' * 64}" in said
  listed = Package("game", "1.0-1", sha256, "CC0-1.0")
  made = music_tree.gather([listed], Source(tmp_path), tmp_path / "other")
  assert made["game"]["as_listed"]
  assert "sha256" not in capsys.readouterr().out


@needs_dpkg
def test_a_damaged_deb_is_named(tmp_path):
  deb = _deb(_game(tmp_path / "game"), tmp_path)
  os.truncate(deb, deb.stat().st_size // 2)
  with pytest.raises(errors.InputError, match="game: .*damaged"):
    music_tree.gather([GAME], Source(tmp_path), tmp_path / "data")


def test_a_deb_that_ends_within_a_large_file_does_not_end_the_others(tmp_path):
  whole = _game(tmp_path / "game")
  cut = _game(tmp_path / "other")
  (cut / "usr/share/game/music").mkdir(parents=True, exist_ok=True)
  noise = np.random.default_rng(0).bytes(3_000_000)
  (cut / "usr/share/game/music/large.ogg").write_bytes(noise)
  (tmp_path / "debs").mkdir()
  _deb(whole, tmp_path / "debs")
  deb = _deb(cut, tmp_path / "debs", "other")
  os.truncate(deb, deb.stat().st_size // 2)
  other = dataclasses.replace(GAME, name="other")
  data = tmp_path / "data"
  known = music_tree.gather(
    [other, GAME], Source(tmp_path / "debs"), data, allow_partial=True
  )
  assert list(known) == ["game"]
  with pytest.raises(errors.InputError, match="other: .*damaged"):
    music_tree.gather([other, GAME], Source(tmp_path / "debs"), data)


def test_names_with_two_dots_in_an_archive_are_names(tmp_path):
  pack = tmp_path / "trees/game/usr/share/game/pak0.pk3"
  pack.parent.mkdir(parents=True)
  with zipfile.ZipFile(pack, "w") as archive:
    for name in ("music/wait..for it.ogg", "intro...ogg", "a/../../out.ogg"):
      archive.writestr(name, b"1")
  data = tmp_path / "data"
  music_tree.gather([GAME], Source(None, tmp_path / "trees"), data)
  folder = "game/usr/share/game/pak0/"
  assert _paths(data) == {
    f"{folder}music/wait..for it.ogg", f"{folder}intro...ogg"
  }  # fmt: skip


def _damaged(content):
  """An archive whose deflated member has other bits."""
  found = io.BytesIO()
  with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("music/a.ogg", content)
  made = bytearray(found.getvalue())
  made[40 + len("music/a.ogg")] ^= 0xFF
  return bytes(made)


def _flagged(place, value):
  """An archive whose member says of itself that it is otherwise."""
  found = io.BytesIO()
  with zipfile.ZipFile(found, "w") as archive:
    archive.writestr("music/a.ogg", b"1" * 100)
  made = bytearray(found.getvalue())
  for sign, offset in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
    made[made.index(sign) + place + offset] = value
  return bytes(made)


@pytest.mark.parametrize(
  "pack",
  [b"no zip", _damaged(bytes(range(256)) * 9), _flagged(6, 1), _flagged(8, 99)],
  ids=["no archive", "other bits", "encrypted", "unknown method"],
)
def test_a_damaged_archive_costs_its_package_alone(tmp_path, capsys, pack):
  _game(tmp_path / "trees/campaign")
  _fill(tmp_path / "trees/game", {"usr/share/game/pak0.pk3": pack})
  source, data = Source(None, tmp_path / "trees"), tmp_path / "data"
  made = music_tree.gather([GAME, CAMPAIGN], source, data, allow_partial=True)
  assert list(made) == ["campaign"]
  said = "game: its usr/share/game/pak0.pk3 cannot be unpacked"
  assert said in capsys.readouterr().out


def test_music_among_effects_is_taken_where_the_list_names_it():
  assert music_tree.is_effect("a/SFX/one.ogg")
  assert not music_tree.is_effect("a/SFX/Music1.ogg", ["Music*"])
  assert music_tree.is_effect("a/SFX/Wind.ogg", ["Music*"])
  assert not music_tree.is_effect("a/soundtrack/sounds.ogg")


def test_scenarios_that_name_two_tracks_become_playlists(tmp_path):
  _game(tmp_path / "trees/game")
  scenario = '{SCENARIO_MUSIC "two.ogg"}\n{EXTRA_SCENARIO_MUSIC "one.ogg"}\n'
  scenario += "[sound_source]\nsounds=ambient/two.ogg\n[/sound_source]\n"
  root = "usr/share/games/g/data/campaigns/c"
  _fill(
    tmp_path / "trees/campaign",
    {
      f"{root}/scenarios/1.cfg": scenario.encode(),
      f"{root}/scenarios/2.cfg": b'name="one.ogg"\nname=gone.ogg\n',
      f"{root}/scenarios/4.cfg": b'play="gone.ogg,two.ogg, one.ogg,two.ogg"',
      f"{root}/units/3.cfg": b'"one.ogg" "two.ogg"',
    },
  )
  source, data = Source(None, tmp_path / "trees"), tmp_path / "data"
  music_tree.gather([CAMPAIGN, GAME], source, data)
  with open(data / music_tree.AUDIO / music_tree.PLAYLISTS) as file:
    rows = [tuple(row.values()) for row in csv.DictReader(file)]
  folder, titles = "game/usr/share/game/music", "campaigns/c/scenarios/"
  assert rows == [
    (f"{titles}{number}.cfg", f"{folder}/{name}.ogg")
    for number in (1, 4)
    for name in ("two", "one")
  ]


def test_interrupted_it_goes_on_with_the_packages_that_are_left(
  tmp_path, monkeypatch
):
  trees, data = tmp_path / "trees", tmp_path / "data"
  for name in "ab":
    _game(trees / name)
  packages = [Package(name, "1", "0" * 64, "GPL-2+") for name in "ab"]
  write_json = storage.write_json

  def stop(path, value):
    if "b" in value:
      raise KeyboardInterrupt
    write_json(path, value)

  with monkeypatch.context() as patch:
    patch.setattr(storage, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
      music_tree.gather(packages, Source(None, trees), data)
  assert list(storage.read_json(data / music_tree.LICENCES)) == ["a"]
  shutil.rmtree(trees / "a")
  made = music_tree.gather(packages, Source(None, trees), data)
  assert list(made) == ["a", "b"] and len(_paths(data)) == 6
  assert not list(data.glob(".*"))


def test_music_of_packages_that_are_not_listed_stays_and_is_named(
  tmp_path, capsys
):
  trees, data = tmp_path / "trees", tmp_path / "data"
  for name in "ab":
    _game(trees / name)
  both = [Package(name, "1", "0" * 64, "GPL-2+") for name in "ab"]
  music_tree.gather(both, Source(None, trees), data)
  assert "stays" not in capsys.readouterr().out
  music_tree.gather(both[:1], Source(None, trees), data)
  assert "1 packages that are not in the list stays (b)" in (
    capsys.readouterr().out
  )
  shutil.rmtree(data / music_tree.AUDIO / "b")
  music_tree.gather(both[:1], Source(None, trees), data)
  assert "stays" not in capsys.readouterr().out
  # And it comes back once it is listed.
  music_tree.gather(both, Source(None, trees), data)
  assert (data / music_tree.AUDIO / "b").exists()


def test_packages_that_are_missing_are_named_and_may_be_done_without(
  tmp_path, capsys
):
  _game(tmp_path / "trees/game")
  source, data = Source(None, tmp_path / "trees"), tmp_path / "data"
  with pytest.raises(errors.InputError, match="1 of 2 .*campaign: .*no folder"):
    music_tree.gather([GAME, CAMPAIGN], source, data)
  music_tree.gather([GAME, CAMPAIGN], source, data, allow_partial=True)
  assert "campaign: " in capsys.readouterr().out
  with pytest.raises(errors.InputError, match="1 of 1 packages"):
    music_tree.gather([CAMPAIGN], source, tmp_path / "x", allow_partial=True)


def _apt(folder, script):
  """Writes an apt-get; returns the value of PATH that finds it first."""
  program = folder / "bin" / "apt-get"
  program.parent.mkdir()
  program.write_text(f"#!/bin/sh\n{script}\n")
  program.chmod(0o755)
  return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


@needs_dpkg
def test_packages_are_downloaded(tmp_path, monkeypatch):
  deb = _deb(_game(tmp_path / "game"), tmp_path)
  monkeypatch.setenv("PATH", _apt(tmp_path, f'cp "{deb}" .'))
  music_tree.gather([GAME], Source(), tmp_path / "data")
  assert _paths(tmp_path / "data") == _TAKEN


@needs_dpkg
def test_what_apt_complains_of_is_said(tmp_path, monkeypatch):
  script = 'echo "E: Unable to locate package game" >&2; exit 100'
  monkeypatch.setenv("PATH", _apt(tmp_path, script))
  with pytest.raises(errors.InputError, match="game: Unable to locate"):
    music_tree.gather([GAME], Source(), tmp_path / "data")


def test_without_apt_the_other_ways_are_named(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  with pytest.raises(errors.InputError, match="apt-get is not .*--debs"):
    music_tree.gather([GAME], Source(), tmp_path / "data")
  with pytest.raises(errors.InputError, match="--debs is .*not a folder"):
    Source(tmp_path / "gone").check()


def test_the_list_has_a_licence_and_a_hash_of_each_package(tmp_path):
  packages = package_list.read()
  assert len({one.sha256 for one in packages}) == len(packages) > 40
  assert all(one.licence and len(one.sha256) == 64 for one in packages)
  bad = tmp_path / "bad.toml"
  for text in ("", "[[package]]\nname = 'a'", "package = 3"):
    bad.write_text(text)
    with pytest.raises(errors.InputError, match="no list of packages"):
      package_list.read(bad)


@pytest.mark.parametrize(
  "values, said",
  [
    ("name = 5", "name is 5"),
    ("name = ''", "name is ''"),
    ("name = '../up'", "name is '../up'"),
    ("name = 'ab'\nversion = 1", "version is 1"),
    ("name = 'ab'\nmusic_among_effects = 5", "music_among_effects is 5"),
    ("name = 'ab'\nscenarios_with = '/'", "scenarios_with is '/'"),
  ],
)
def test_a_value_of_the_list_that_is_none_is_named(tmp_path, values, said):
  """Names are those of folders that are replaced."""
  keys = {"version": "'1'", "sha256": "'0'", "licence": "'A'"}
  lines = [f"{k} = {v}" for k, v in keys.items() if k not in values]
  bad = tmp_path / "bad.toml"
  bad.write_text("\n".join(["[[package]]", values, *lines]))
  with pytest.raises(errors.InputError, match=f"package 1.*{re.escape(said)}"):
    package_list.read(bad)


def test_a_tree_without_music_is_not_the_package(tmp_path):
  (tmp_path / "trees/game").mkdir(parents=True)
  (tmp_path / "trees/game/game_1.0_all.deb").touch()
  source, data = Source(None, tmp_path / "trees"), tmp_path / "data"
  with pytest.raises(errors.InputError, match="game: .*no sound file"):
    music_tree.gather([GAME], source, data)
  _game(tmp_path / "trees/game")
  music_tree.gather([GAME], source, data)
  assert _paths(data) == _TAKEN


@needs_dpkg
def test_of_several_versions_the_listed_one_is_taken(tmp_path):
  deb = _deb(_game(tmp_path / "game"), tmp_path)
  listed = deb.rename(tmp_path / "game_1.10_all.deb")
  package = Package("game", "1.10", storage.sha256(listed), "CC0-1.0")
  (tmp_path / "game/usr/share/game/music/four.ogg").write_bytes(b"4")
  _deb(tmp_path / "game", tmp_path).rename(tmp_path / "game_1.9_all.deb")
  made = music_tree.gather([package], Source(tmp_path), tmp_path / "data")
  assert made["game"]["as_listed"] and _paths(tmp_path / "data") == _TAKEN
