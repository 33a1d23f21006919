"""Tests of pcl_jax.data.inspect."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import inspect
from pcl_jax.data import ragged
from tests.support.tiny import tiny_run


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tiny_run.make_data_set(tmp_path_factory.mktemp("inspect") / "data")


@pytest.fixture(scope="module")
def said(data_dir):
  return inspect.describe(dataset.DataSet(data_dir))


def _numbers_below(text: str, heading: str) -> dict[str, int]:
  """Reads the bars below a line that begins with a heading."""
  lines = iter(text.splitlines())
  next(line for line in lines if line.strip().startswith(heading))
  found = {}
  for line in lines:
    words = line.split()
    if len(words) < 2 or not words[1].replace(",", "").isdigit():
      break
    found[words[0]] = int(words[1].replace(",", ""))
  return found


def test_the_counts_are_those_of_the_catalogue(data_dir, said):
  made = catalogues.load(data_dir)
  assert _numbers_below(said, "split") == {
    "train": 36,
    "validation": 12,
    "test": 12,
    "unused": 0,
  }
  codes = _numbers_below(said, f"{len(made.genre_codes)} genre codes")
  for number, code in enumerate(made.genre_codes, start=1):
    assert codes[code] == (made.genres.values == number).sum()
  assert sum(_numbers_below(said, "codes of a song").values()) == 60
  lengths = _numbers_below(said, f"{len(made.playlists)} playlists")
  assert sum(lengths.values()) == len(made.playlists)
  used = _numbers_below(said, "songs by the number of playlists")
  assert sum(used.values()) == 60
  pairs = ", ".join(f"{m} {len(p)}" for m, p in made.validation_pairs.items())
  assert f"validation pairs: {pairs}" in said


def test_classes_of_sizes_count_each_number_once():
  sizes = np.array([0, 0, 1, 2, 3, 4, 5, 8, 9, 16, 17])
  found = inspect._by_size(sizes)
  assert found == [
    ("0", 2),
    ("1", 1),
    ("2", 1),
    ("3-4", 2),
    ("5-8", 2),
    ("9-16", 2),
    ("17-32", 1),
  ]


def test_what_can_be_trained_is_said_with_the_reason_where_not(
  data_dir, tmp_path, said
):
  for name in ("SS", "CM A,P", "CM A,G", "A-IM Playlist", "A-IM Genre"):
    assert f"  {name}: yes" in said
  bare = shutil.copytree(data_dir, tmp_path / "data")
  (bare / "playlist_vectors.npy").unlink()
  made = catalogues.load(bare)
  dataclasses.replace(
    made, genres=ragged.Ragged.from_lists([[]] * len(made))
  ).save(bare)
  text = inspect.describe(dataset.DataSet(bare))
  assert "  SS: yes" in text
  assert "  CM A,P: no. " in text and "preprocessing.playlist_vectors" in text
  assert "  A-IM Genre: no. strategy A-IM Genre needs genres" in text


def test_where_the_data_comes_from_is_said(data_dir, said):
  data = dataset.DataSet(data_dir)
  assert data.fingerprint() in said
  for key in ("hop_samples", "format_version", "checksum", "source"):
    assert f'"{key}"' in said


def test_left_out_songs_and_names_of_codes_are_told(data_dir, tmp_path):
  copy = shutil.copytree(data_dir, tmp_path / "data")
  left_out = [{"id": 1, "file": "a", "reason": "missing"}] * 3
  (copy / "skipped.json").write_text(json.dumps(left_out))
  code = str(catalogues.load(copy).genre_codes[0])
  (copy / "kakao_meta").mkdir()
  (copy / "kakao_meta" / "genre_gn_all.json").write_text(
    json.dumps({code: "Ballad"})
  )
  text = inspect.describe(dataset.DataSet(copy))
  assert _numbers_below(text, "left out (skipped.json): 3") == {"missing": 3}
  assert f"{code} Ballad" in text


def test_reasons_of_one_kind_are_counted_together(data_dir, tmp_path):
  copy = shutil.copytree(data_dir, tmp_path / "data")
  left_out = [
    *(
      {"reason": f"it is {i}.5 s long, shorter than --min_s=30"} for i in "123"
    ),
    *({"reason": f"it is damaged: decoding fails {i} s in (x)"} for i in "12"),
    {"reason": "it cannot be opened (libsndfile: a (b); FFmpeg: c)"},
    *({"reason": f"same as {i}", "duplicate_of": i} for i in "ab"),
  ]
  (copy / "skipped.json").write_text(json.dumps(left_out))
  lines = inspect.describe(dataset.DataSet(copy)).splitlines()
  begin = lines.index("left out (skipped.json): 8")
  found = [line.rstrip("# ").strip() for line in lines[begin + 1 : begin + 5]]
  assert [tuple(line.rsplit(None, 1)) for line in found] == [
    ("it is N s long, shorter than --min_s=N", "3"),
    ("it is damaged", "2"),
    ("it has the same audio as another song", "2"),
    ("it cannot be opened", "1"),
  ]


def test_a_damaged_report_is_passed_over(data_dir, tmp_path):
  copy = shutil.copytree(data_dir, tmp_path / "data")
  (copy / "skipped.json").write_text("[{")
  assert "left out" not in inspect.describe(dataset.DataSet(copy))


def test_pictures_are_written_where_asked_for(
  data_dir, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(inspect, "_SPECTROGRAMS", 2)
  folder = tmp_path / "a" / "b"
  inspect.main([str(data_dir), f"--plot={folder}"])
  names = ["distributions.png", "spectrograms.png"]
  said = capsys.readouterr().out
  assert sorted(path.name for path in folder.iterdir()) == names
  for name in names:
    content = (folder / name).read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 10_000
    assert f"wrote {folder / name}" in said


def test_an_absent_data_set_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match="does not exist"):
    inspect.main([str(tmp_path / "none")])


@pytest.fixture
def changed(data_dir, tmp_path):
  """Describes a copy of the data set whose catalogue differs."""
  copy = shutil.copytree(data_dir, tmp_path / "data")

  def describe(**fields) -> str:
    made = catalogues.load(data_dir)
    dataclasses.replace(made, **fields).save(copy)
    return inspect.describe(dataset.DataSet(copy))

  return copy, describe


def test_a_strategy_that_cannot_be_trained_has_its_reason_and_remedy(changed):
  copy, describe = changed
  made = catalogues.load(copy)
  none = ragged.Ragged.from_lists([[]] * len(made))
  alone = ragged.Ragged.from_lists([[song] for song in range(len(made))])
  pairs = made.validation_pairs
  text = describe(validation_pairs=pairs | {"Artist": pairs["Artist"][:0]})
  assert "  A-IM Artist: no. no two validation songs share an artist: " in text
  assert f"preprocessing.data_split --data={copy} --force" in text
  text = describe(validation_pairs=pairs | {"Artist": pairs["Artist"][:1]})
  assert "  A-IM Artist: no. only two validation songs share" in text
  text = describe(artists=alone)
  assert "  A-IM Artist: no. no two songs share an artist: put each" in text
  text = describe(artists=none, validation_pairs={})
  assert "  A-IM Artist: no. strategy A-IM Artist needs artists" in text
  (copy / "song_ids.json").write_text(
    json.dumps({"audio_dir": "/music", "ids": {}})
  )
  text = describe(split=np.where(made.split == 1, 0, made.split))
  assert "  SS: no. 0 validation songs, and a batch needs two: split" in text
  assert f"preprocessing.own_library --audio=... --out={copy} --force" in text
  (copy / "playlist_vectors.npy").unlink()
  text = describe(
    playlists=ragged.Ragged.from_lists([]), playlist_files=np.zeros(0, np.int8)
  )
  assert "  CM A,P: no. strategy CM A,P needs playlists" in text


def test_pictures_name_the_files(data_dir, tmp_path):
  copy = shutil.copytree(data_dir, tmp_path / "data")
  data = dataset.DataSet(copy)
  first, second, third = numbers = data.store.song_ids[:3].tolist()
  assert inspect._labels(data, [0]) == [f"song {first}"]
  files = {"a/x$1.mp3": first, "b/\udcff.mp3": second}
  (copy / "song_ids.json").write_text(
    json.dumps({"audio_dir": "/music", "ids": files})
  )
  (copy / "kakao_meta").mkdir()
  (copy / "kakao_meta" / "song_meta.json").write_text(
    json.dumps(
      [
        {"id": number, "song_name": name, "artist_name_basket": ["Ann"]}
        for number, name in zip(numbers, ("One", "", "Three"), strict=True)
      ]
    )
  )
  assert inspect._labels(data, [0, 1, 2]) == [
    f"song {first}: Ann - One, x$1.mp3",
    f"song {second}: Ann, \\xff.mp3",
    f"song {third}: Ann - Three",
  ]
