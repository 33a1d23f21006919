"""Tests of data_split, melon.catalogue_maker, melon_meta and data.stratify."""

import json

import numpy as np
import pytest

from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import song_writer
from pcl_jax.data.splits import song_groups
from preprocessing import data_split
from preprocessing.melon import catalogue_maker
from preprocessing.melon import melon_meta
from tests.support.tiny import tiny_melon

SONGS = [tiny_melon.song(i) for i in range(0, 120, 2)]


def _write_store(data_dir, song_ids) -> None:
  writer = song_writer.SongWriter(data_dir / "songs.lmdb")
  writer.add((i, np.zeros((2, 48), np.float16)) for i in song_ids)
  writer.finish({})


@pytest.fixture
def prepared(tmp_path):
  """Metadata of sixty songs, and a store of fifty of them."""
  tiny_melon.write_meta(
    tmp_path / "kakao_meta",
    SONGS[::-1],  # Files need not be in order.
    train=[
      tiny_melon.playlist(7, [8, 4, 8, 118, 6]),
      tiny_melon.playlist(8, list(range(0, 100, 2))),
      tiny_melon.playlist(11, [118]),
    ],
    test=[tiny_melon.playlist(9, [0, 2])],
  )
  _write_store(tmp_path, range(0, 100, 2))
  return tmp_path


def _make(prepared, **options) -> catalogues.Catalogue:
  return catalogue_maker.make_catalogue(
    prepared / "kakao_meta", prepared, **options
  )


def _same(one: catalogues.Catalogue, other: catalogues.Catalogue) -> bool:
  return (
    one.split.tolist() == other.split.tolist()
    and one.genres.values.tolist() == other.genres.values.tolist()
    and one.playlists.values.tolist() == other.playlists.values.tolist()
    and all(
      one.validation_pairs[m].tolist() == other.validation_pairs[m].tolist()
      for m in catalogues.PAIR_METHODS
    )
  )


def test_the_catalogue_says_of_each_song_what_its_record_says(prepared):
  made = _make(prepared)
  records = {one["id"]: one for one in SONGS}
  artist_of = {}
  for row, song_id in enumerate(made.song_ids.tolist()):
    record = records[song_id]
    names = made.genre_codes[made.genres[row] - 1].tolist()
    # Sub-genre codes first: the first ten are what mode G sees.
    assert names == (
      record["song_gn_dtl_gnr_basket"] + record["song_gn_gnr_basket"]
    )
    assert made.albums[row] == record["album_id"]
    [artist] = made.artists[row].tolist()
    assert artist_of.setdefault(record["artist_id_basket"][0], artist) == artist
  assert sorted(artist_of.values()) == list(range(7))
  assert made.genre_codes.tolist() == sorted(made.genre_codes.tolist())
  assert made.genres.values.min() == 1


def test_playlists_hold_the_songs_of_the_store_once_and_in_order(
  prepared, capsys
):
  made = _make(prepared)
  lists = [
    made.song_ids[made.playlists[i]].tolist()
    for i in range(len(made.playlists))
  ]
  assert lists == [[8, 4, 6], list(range(0, 100, 2)), [], [0, 2]]
  assert made.playlist_files.tolist() == [0, 0, 0, 2]
  out = capsys.readouterr().out
  assert "3 of train.json, 0 of val.json, 1 of test.json" in out
  assert "1 of them are left without songs" in out
  assert "2 songs that the song store lacks, 1 repetitions" in out


def test_every_song_is_in_one_part_and_shares_are_as_asked(prepared):
  made = _make(prepared)
  # The stratifier puts the codes' shares before the size of the parts.
  np.testing.assert_allclose(np.bincount(made.split), [40, 5, 5], atol=2)


def test_songs_without_any_genre_are_shuffled_and_this_is_said(
  tmp_path, capsys
):
  bare = {"song_gn_gnr_basket": [], "song_gn_dtl_gnr_basket": []}
  records = [tiny_melon.song(i, **bare) for i in range(20)]
  tiny_melon.write_meta(tmp_path / "kakao_meta", records)
  _write_store(tmp_path, range(20))
  made = _make(tmp_path)
  assert np.bincount(made.split).tolist() == [16, 2, 2]
  assert made.validation_pairs["Genre"].shape == (0, 2)
  assert "plain shuffle" in capsys.readouterr().out


def test_one_seed_gives_one_catalogue_and_another_seed_another(prepared):
  first = _make(prepared, seed=1)
  assert _same(first, _make(prepared, seed=1, force=True))
  other = _make(prepared, seed=2, force=True)
  assert first.split.tolist() != other.split.tolist()


def test_validation_pairs_share_a_list_and_are_validation_songs(prepared):
  made = _make(prepared, validation_share=0.4)
  for method in catalogues.PAIR_METHODS:
    drawn = made.validation_pairs[method]
    assert drawn.dtype == np.int32 and len(drawn) > 0
    assert (made.split[drawn] == catalogues.VALIDATION).all()
    assert (drawn[:, 0] != drawn[:, 1]).all()
    lists = made.pair_lists(method)
    members = [set(lists[i].tolist()) for i in range(len(lists))]
    for pair in drawn.tolist():
      assert any(set(pair) <= one for one in members)


def test_what_is_saved_is_what_is_returned(prepared):
  made = _make(prepared)
  loaded = catalogues.load(prepared)
  assert _same(made, loaded)
  assert loaded.song_ids.tolist() == made.song_ids.tolist()
  kept = json.loads((prepared / catalogue_maker.SETTINGS_FILE).read_text())
  assert kept["settings"]["seed"] == 0
  assert kept["counts"]["songs"] == 50
  assert kept["counts"]["validation_pairs"].keys() == set(
    catalogues.PAIR_METHODS
  )


def test_made_again_with_the_same_settings_nothing_is_done(prepared, capsys):
  made = _make(prepared)
  before = (prepared / catalogues.FILE_NAME).stat().st_mtime_ns
  capsys.readouterr()
  assert _same(made, _make(prepared))
  assert "exists already: nothing to do" in capsys.readouterr().out
  assert (prepared / catalogues.FILE_NAME).stat().st_mtime_ns == before


def test_other_settings_or_metadata_are_refused_without_force(prepared):
  _make(prepared)
  with pytest.raises(errors.InputError, match="seed: there 0, here 5.*--force"):
    _make(prepared, seed=5)
  tiny_melon.write_meta(prepared / "kakao_meta", SONGS)
  with pytest.raises(errors.InputError, match="train.json_sha256"):
    _make(prepared)
  assert len(_make(prepared, force=True).playlists) == 1
  assert len(catalogues.load(prepared).playlists) == 1


def test_killed_before_the_catalogue_is_saved_it_is_made_again(
  prepared, monkeypatch
):
  whole = _make(prepared)
  (prepared / catalogues.FILE_NAME).unlink()

  def killed(self, data_dir):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(catalogues.Catalogue, "save", killed)
    with pytest.raises(KeyboardInterrupt):
      _make(prepared, seed=4)
  assert _same(whole, _make(prepared))


def test_a_store_of_other_songs_than_the_metadata_is_refused(tmp_path):
  tiny_melon.write_meta(tmp_path / "kakao_meta", SONGS)
  _write_store(tmp_path, [0, 2, 5, 4000])
  with pytest.raises(errors.InputError, match=r"lacks 2 of the 4 .*5, 4000"):
    _make(tmp_path)


@pytest.mark.parametrize(
  "options",
  [
    {"test_share": 0.0},
    {"validation_share": -0.1},
    {"test_share": 0.6, "validation_share": 0.4},
    {"test_share": float("nan")},
    {"seed": -1},
    {"seed": 2**32},
    {"unknown_songs": "keep"},
  ],
)
def test_a_bad_setting_is_named(prepared, options):
  with pytest.raises(errors.InputError, match=next(iter(options))):
    _make(prepared, **options)


@pytest.mark.parametrize("num_songs", [1, 2])
def test_too_few_songs_are_refused(tmp_path, num_songs):
  tiny_melon.write_meta(tmp_path / "kakao_meta", SONGS)
  _write_store(tmp_path, [0, 2][:num_songs])
  with pytest.raises(errors.InputError, match="Take more songs"):
    _make(tmp_path)


def test_the_command_says_what_comes_next(prepared, capsys):
  data_split.main([f"--melon_dir={prepared}", f"--data={prepared}"])
  last = capsys.readouterr().out.strip().splitlines()[-1]
  assert "preprocessing.playlist_vectors" in last
  assert "preprocessing.genre_vectors" in last


# The metadata.


def _bad(prepared, name: str, text: str, match: str) -> None:
  (prepared / "kakao_meta" / name).write_text(text)
  with pytest.raises(errors.InputError, match=match) as caught:
    _make(prepared)
  assert name in str(caught.value)


def test_malformed_json_is_named_with_line_and_column(prepared):
  _bad(prepared, "song_meta.json", '[\n  {"id": }\n]', "line 2, column 10")
  tiny_melon.write_meta(prepared / "kakao_meta", SONGS)
  _bad(prepared, "test.json", "", "line 1, column 1")


def test_a_file_that_is_not_a_list_or_not_text_is_refused(prepared):
  _bad(prepared, "train.json", "{}", "a list of records")
  (prepared / "kakao_meta" / "train.json").write_bytes(b"\xff\xfe\x00")
  with pytest.raises(errors.InputError, match="UTF-8"):
    _make(prepared)


def test_train_json_must_be_there_and_the_others_need_not(prepared):
  (prepared / "kakao_meta" / "test.json").unlink()
  assert len(_make(prepared).playlists) == 3
  for name in ("train.json", "song_meta.json"):
    (prepared / "kakao_meta" / name).unlink()
    with pytest.raises(errors.InputError, match=f"{name} does not exist"):
      _make(prepared, force=True)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("id", "12"),
    ("id", True),
    ("id", -1),
    ("id", 2**32),
    ("id", 1.0),
    ("album_id", "7"),
    ("artist_id_basket", 3),
    ("artist_id_basket", [None]),
    ("artist_id_basket", [2**31]),
    ("song_gn_gnr_basket", "GN0100"),
    ("song_gn_gnr_basket", [""]),
    ("song_gn_dtl_gnr_basket", None),
  ],
)
def test_a_field_of_a_wrong_kind_is_named_with_its_record(
  tmp_path, field, value
):
  records = [tiny_melon.song(0), tiny_melon.song(1, **{field: value})]
  tiny_melon.write_meta(tmp_path, records)
  with pytest.raises(errors.InputError) as caught:
    melon_meta.read_songs(tmp_path)
  message = str(caught.value)
  assert f"song_meta.json, record 2: field '{field}' is {value!r}" in message
  assert "it must be a" in message


@pytest.mark.parametrize(
  "field", ["id", "artist_id_basket", "album_id", "song_gn_gnr_basket"]
)
def test_a_missing_field_is_named_with_its_record(tmp_path, field):
  record = tiny_melon.song(1)
  del record[field]
  tiny_melon.write_meta(tmp_path, [tiny_melon.song(0), record])
  with pytest.raises(
    errors.InputError, match=f"record 2: field '{field}' is missing"
  ):
    melon_meta.read_songs(tmp_path)


def test_a_record_that_is_no_object_and_a_repeated_id_are_refused(tmp_path):
  tiny_melon.write_meta(tmp_path, [[1, 2]])
  with pytest.raises(errors.InputError, match="record 1: .* is not an object"):
    melon_meta.read_songs(tmp_path)
  tiny_melon.write_meta(tmp_path, [tiny_melon.song(i) for i in (5, 9, 5)])
  with pytest.raises(errors.InputError, match="record 3: id 5 .* record 1 "):
    melon_meta.read_songs(tmp_path)


def test_the_other_spelling_of_id_is_read_and_repetitions_are_dropped(tmp_path):
  record = tiny_melon.song(
    4,
    artist_id_basket=[9, 8, 9],
    song_gn_dtl_gnr_basket=["GN0102", "GN0101", "GN0102"],
    album_id=None,
  )
  record["_id"] = record.pop("id")
  tiny_melon.write_meta(tmp_path, [record])
  songs = melon_meta.read_songs(tmp_path)
  assert songs.ids.tolist() == [4]
  assert songs.artists[0].tolist() == [9, 8]
  assert songs.albums.tolist() == [-1]
  names = songs.codes[songs.genres[0]].tolist()
  assert names == ["GN0102", "GN0101", "GN0200"]


def test_unknown_songs_of_a_playlist_are_bad_input_unless_dropped(
  prepared, capsys
):
  tiny_melon.write_meta(
    prepared / "kakao_meta",
    SONGS,
    train=[tiny_melon.playlist(1, [0, 2])],
    val=[
      tiny_melon.playlist(42, [1, 2, 3, 5000, 5, 7, 9]),
      tiny_melon.playlist(43, [11]),
    ],
  )
  with pytest.raises(errors.InputError) as caught:
    _make(prepared)
  message = str(caught.value)
  for part in (
    "val.json: playlist 42 has 6 songs",
    "(1, 3, 5000, 5, 7, ...)",
    "there are 7, in 2 playlists",
    "--unknown_songs=drop",
  ):
    assert part in message
  made = _make(prepared, unknown_songs="drop")
  assert made.playlists.lengths.tolist() == [2, 1, 0, 2]
  assert "7 songs that song_meta.json lacks" in capsys.readouterr().out


def test_a_playlist_of_a_wrong_kind_is_named(prepared):
  _bad(
    prepared,
    "train.json",
    '[{"id": 1, "songs": [3, "4"]}]',
    "record 1: field 'songs' is .* it must be a list of song ids",
  )


def test_copies_of_a_recording_go_to_one_part(prepared):
  copies = prepared / "copies.json"
  groups = [[str(i), str(i + 50)] for i in range(0, 50, 2)]
  copies.write_text(json.dumps({"groups": groups}))
  apart = _make(prepared, seed=3).split
  made = _make(prepared, seed=3, copies=copies, force=True)
  parts = dict(zip(made.song_ids.tolist(), made.split.tolist(), strict=True))
  pairs = [(parts[int(one)], parts[int(other)]) for one, other in groups]
  assert all(one == other for one, other in pairs)
  assert (apart[:25] != apart[25:]).any()
  assert len({*made.split.tolist()}) == 3
  _make(prepared, seed=3, copies=copies)  # Is there already.
  copies.write_text(json.dumps({"groups": groups[1:]}))
  with pytest.raises(errors.InputError, match="copies_sha256"):
    _make(prepared, seed=3, copies=copies)


def test_albums_stay_whole_and_the_data_set_says_what_it_was_split_by(
  prepared,
):
  assert song_groups.read_split_by(prepared) is None
  _make(prepared)
  assert song_groups.read_split_by(prepared) == "song"
  said = "split_by: there 'song', here 'album'"
  with pytest.raises(errors.InputError, match=said):
    _make(prepared, split_by="album")
  made = _make(prepared, split_by="album", force=True)
  assert song_groups.read_split_by(prepared) == "album"
  groups = song_groups.of_songs(made, "album")
  assert len(np.unique(groups)) < len(groups)
  assert not len(song_groups.torn(groups, made.split))
  # A data set of an earlier version does not name it: it was split by song.
  path = prepared / catalogue_maker.SETTINGS_FILE
  _make(prepared, force=True)
  about = json.loads(path.read_text())
  del about["settings"]["split_by"]
  path.write_text(json.dumps(about))
  assert song_groups.read_split_by(prepared) == "song"
  _make(prepared)
