"""Tests of python -m pcl_jax.embed: files and data sets to a table."""

import json
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
from pyarrow import parquet
import pytest
import soundfile

from pcl_jax import embed
from pcl_jax.audio import decode
from pcl_jax.checkpoint import restore
from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.data import song_store
from pcl_jax.embedding import embedding_run
from pcl_jax.embedding import song_encoder
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.embedding.tables import song_table
from pcl_jax.models import compiled_encoder
from tests.support import music_run
from tests.support import quick_backbone
from tests.support import quick_run
from tests.support.tiny import tiny_library

BATCH, SONGS = music_run.BATCH, music_run.SONGS
_embed = music_run.embed


def _embed_music(made, out: pathlib.Path, *flags: str) -> bytes:
  """Embeds the audio; returns the table's bytes."""
  assert not _embed(made, f"--audio={made / 'music'}", BATCH, *flags, out=out)
  return out.read_bytes()


def _vectors_by_hand(made, path: pathlib.Path, layer: int = 0) -> np.ndarray:
  """Encodes the whole patches of a file one by one."""
  encoder, _ = restore.load_encoder(made / "run")
  song = decode.read_feature(path).astype(np.float32)
  if len(song) < 256:
    song = np.pad(song, ((0, 256 - len(song)), (0, 0)), constant_values=-2)
  return np.array(
    [
      encoder(jnp.asarray(song[None, i : i + 256]), False)[layer][0]
      for i in range(0, len(song) - 255, 256)
    ]
  )


def test_each_file_becomes_the_mean_over_its_whole_patches(
  made, tmp_path, capsys
):
  out = tmp_path / "music.parquet"
  _embed_music(made, out)
  table = song_table.read_table(out)
  assert table.ids == list(SONGS)
  assert table.paths == [str(made / "music" / name) for name in SONGS]
  assert table.patches.tolist() == [patches for _, patches in SONGS.values()]
  for name, vector in zip(SONGS, table.vectors, strict=True):
    expected = _vectors_by_hand(made, made / "music" / name).mean(axis=0)
    np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6)
  lengths_s = [seconds for seconds, _ in SONGS.values()]
  np.testing.assert_allclose(table.facts.seconds, lengths_s, atol=0.016)
  padded = parquet.read_table(out)["padded"].to_pylist()
  assert padded == [True, True, False, False, False]
  printed = capsys.readouterr().out
  assert "5 songs, 14 patches" in printed
  assert "padded with silence: 2" in printed
  assert json.loads(embedding_run.failures_path(out).read_text()) == []
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "music.parquet",
    "music.parquet.failures.json",
  ]


def test_songs_without_sound_are_marked_and_counted(made, tmp_path, capsys):
  rng = np.random.default_rng(0)
  sound = 0.3 * rng.uniform(-1, 1, 5 * 16_000)
  music, late = tmp_path / "music", np.zeros(10 * 16_000)
  music.mkdir()
  late[-16_000:] = sound[:16_000]  # In no whole patch.
  for name, samples in {
    "cancels.wav": np.stack([sound, -sound], axis=1),
    "left.wav": np.stack([sound, 0 * sound], axis=1),
    "silent.wav": 0 * sound,
    "starts late.wav": np.append(late, sound),
    "too late.wav": late,
  }.items():
    soundfile.write(music / name, samples, 16_000, subtype="FLOAT")
  for flags in ([], ["--per_patch"]):
    out = tmp_path / f"music{len(flags)}.parquet"
    assert not _embed(made, f"--audio={music}", BATCH, *flags, out=out)
    rows = parquet.read_table(out).to_pylist()
    marked = {row["id"] for row in rows if row["silent"]}
    assert marked == {"cancels.wav", "silent.wav", "too late.wav"}
    printed = capsys.readouterr().out
    assert "channels cancel each other out: 3 (column silent" in printed
  for channels in ("left", "loudest"):
    out = tmp_path / f"{channels}.parquet"
    flags = [f"--audio={music}", BATCH, f"--channels={channels}"]
    assert not _embed(made, *flags, out=out)
    table = song_table.read_table(out)
    assert table.about["feature"]["channels"] == channels
    assert table.silent == {2, 4}
    np.testing.assert_array_equal(table.vectors[0], table.vectors[1])
    with pytest.raises(errors.InputError, match="channels"):
      _embed(made, *flags[:2], out=out)
  # An update keeps what is known of the songs that stay.
  (music / "left.wav").unlink()
  out = tmp_path / "music0.parquet"
  assert not _embed(made, f"--audio={music}", BATCH, out=out)
  assert song_table.read_table(out).silent == {0, 1, 3}


def test_the_table_names_its_encoder(made, tmp_path):
  out = tmp_path / "music.parquet"
  _embed_music(made, out)
  about = embedding_table.read_about(out)
  encoder, meta = restore.load_encoder(made / "run")
  assert about["step"] == 7
  assert about["workdir"] == str(made / "run")
  assert about["weights_sha256"] == embedding_table.weights_digest(encoder)
  assert about["architecture"] == quick_run.AUDIO
  assert about["feature"] == meta["feature"]
  assert about["layer"] == "features"
  assert "jax" in about["versions"]
  other = quick_run.save(tmp_path / "other", seed=1)
  other, _ = restore.load_encoder(other)
  assert about["weights_sha256"] != embedding_table.weights_digest(other)


def test_threads_and_what_is_read_ahead_change_no_byte(
  made, tmp_path, monkeypatch
):
  first = _embed_music(made, tmp_path / "a.parquet", "--threads=1")
  # The rest of a long song is read where it is used.
  monkeypatch.setattr(embedding_run, "PATCHES_AHEAD", 1)
  assert first == _embed_music(made, tmp_path / "b.parquet", "--threads=4")


def test_all_devices_write_the_bytes_of_one(made, tmp_path, monkeypatch):
  expected = _embed_music(made, tmp_path / "one.parquet")
  monkeypatch.setattr(compiled_encoder, "own_devices", jax.devices)
  assert _embed_music(made, tmp_path / "all.parquet") == expected


def test_a_song_does_not_depend_on_what_is_embedded_beside_it(made, tmp_path):
  _embed_music(made, tmp_path / "all.parquet")
  together = song_table.read_table(tmp_path / "all.parquet")
  song = made / "music" / "b/song.WAV"
  _embed(made, f"--audio={song}", BATCH, out=tmp_path / "one.parquet")
  alone = song_table.read_table(tmp_path / "one.parquet")
  assert alone.ids == alone.paths == [str(song)]
  np.testing.assert_allclose(
    alone.vectors[0], together.vectors[3], rtol=1e-5, atol=1e-6
  )


def test_one_shape_is_compiled_however_long_the_songs_are(
  made, tmp_path, monkeypatch
):
  traced = []
  call = quick_backbone.QuickBackbone.__call__

  def counted(self, mel, training):
    traced.append(mel.shape)
    return call(self, mel, training)

  monkeypatch.setattr(quick_backbone.QuickBackbone, "__call__", counted)
  compiled_encoder._compiled.cache_clear()
  _embed_music(made, tmp_path / "music.parquet")
  assert traced == [(4, 256, 48)]


def test_a_timeline_has_a_row_for_each_patch(made, tmp_path):
  _embed_music(made, tmp_path / "songs.parquet")
  songs = song_table.read_table(tmp_path / "songs.parquet")
  out = tmp_path / "patches.parquet"
  _embed_music(made, out, "--per_patch")
  table = parquet.read_table(out)
  assert table.column_names[:5] == ["id", "path", "start_s", "vector", "padded"]
  rows = table.to_pylist()
  for name, (_, count), mean in zip(
    SONGS, SONGS.values(), songs.vectors, strict=True
  ):
    mine = [row for row in rows if row["id"] == name]
    assert [row["start_s"] for row in mine] == [4.096 * i for i in range(count)]
    vectors = np.array([row["vector"] for row in mine])
    np.testing.assert_allclose(vectors.mean(axis=0), mean, rtol=1e-6, atol=1e-7)
  with pytest.raises(errors.InputError, match="a row for each patch"):
    song_table.read_table(out)


def test_the_projection_can_be_had(made, tmp_path):
  out = tmp_path / "music.parquet"
  _embed_music(made, out, "--layer=projection")
  table = song_table.read_table(out)
  assert table.vectors.shape == (5, 4)
  assert table.about["layer"] == "projection"
  expected = _vectors_by_hand(made, made / "music" / "b/song.WAV", layer=1)
  np.testing.assert_allclose(
    table.vectors[3], expected.mean(axis=0), rtol=1e-5, atol=1e-6
  )


def test_an_interrupted_run_goes_on_to_the_same_bytes(
  made, tmp_path, monkeypatch
):
  monkeypatch.setattr(embedding_run, "PART_BATCHES", 0)  # A song is a part.
  expected = _embed_music(made, tmp_path / "whole.parquet")
  out = tmp_path / "music.parquet"
  replace, read = pathlib.Path.replace, decode.feature_blocks
  paths = [str(made / "music" / name) for name in SONGS]
  decoded, fell_at = [], 0

  def watched(path, *args, **kwargs):
    decoded.append(path)
    return read(path, *args, **kwargs)

  monkeypatch.setattr(decode, "feature_blocks", watched)
  while not out.exists():
    # Five parts, the list of failures: one file further each time.
    left = 1 if fell_at < 6 else 2

    def interrupted(self, target):
      nonlocal left
      if left == 0:
        raise KeyboardInterrupt
      left -= 1
      return replace(self, target)

    decoded.clear()
    with monkeypatch.context() as patch:
      patch.setattr(pathlib.Path, "replace", interrupted)
      try:
        _embed_music(made, out)
      except KeyboardInterrupt:
        fell_at += 1
    assert fell_at <= 6
    assert set(decoded) <= set(paths[max(fell_at - 1, 0) :])  # Not again.
  assert out.read_bytes() == expected
  assert fell_at == 6
  assert decoded == []  # At last all parts were there.
  assert not out.with_name(out.name + embedding_run.PARTS).exists()


def test_parts_of_another_layer_are_not_used(
  made, tmp_path, monkeypatch, capsys
):
  out, flags = tmp_path / "music.parquet", [f"--audio={made / 'music'}", BATCH]
  with monkeypatch.context() as patch:
    patch.setattr(embedding_run, "failures_path", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      _embed(made, *flags, "--layer=projection", out=out)
  assert not _embed(made, *flags, out=out)
  assert "everything is embedded again" in capsys.readouterr().out
  assert song_table.read_table(out).vectors.shape[1] != 4


def test_a_finished_table_is_kept_or_made_anew_with_force(
  made, tmp_path, capsys
):
  out = tmp_path / "music.parquet"
  flags = [f"--audio={made / 'music'}", BATCH]
  assert not _embed(made, *flags, out=out)
  before = out.stat().st_mtime_ns
  assert not _embed(made, *flags, out=out)
  assert "nothing to do" in capsys.readouterr().out
  assert out.stat().st_mtime_ns == before
  there, here = "layer: there 'features'", "here 'projection'"
  with pytest.raises(errors.InputError, match=f"{there}, {here}.*--force"):
    _embed(made, *flags, "--layer=projection", out=out)
  other = quick_run.save(tmp_path / "other", seed=1, step=9)
  for wrong in ("step: there 7, here 9", "weights_sha256: there", "/other"):
    with pytest.raises(errors.InputError, match=wrong):
      embed.main([f"--workdir={other}", f"--out={out}", *flags])
  (tmp_path / "music").mkdir()
  shutil.copy(made / "music/b/c/long.flac", tmp_path / "music/else.flac")
  tiny_library.write_song(tmp_path / "music" / "else.flac", 99.0, seconds=5.0)
  flags[0] = f"--audio={tmp_path / 'music'}"
  with pytest.raises(errors.InputError, match="none of these 1 songs"):
    _embed(made, *flags, out=out)
  assert not _embed(made, *flags, "--force", out=out)
  assert song_table.read_table(out).ids == ["else.flac"]


@pytest.mark.parametrize("patches_ahead", [1, 512])
def test_songs_that_cannot_be_read_are_listed_and_the_others_embedded(
  made, tmp_path, capsys, monkeypatch, patches_ahead
):
  monkeypatch.setattr(embedding_run, "PATCHES_AHEAD", patches_ahead)
  music = tmp_path / "music"
  shutil.copytree(made / "music", music)
  (music / "a/broken.mp3").write_text("this is not music")
  holed = bytearray((music / "b/c/long.flac").read_bytes())
  # Patches of its first half are encoded before the damage is met.
  begin, end = len(holed) // 2, len(holed) * 9 // 10
  holed[begin:end] = bytes(end - begin)
  (music / "b/damaged.flac").write_bytes(holed)
  os.mkfifo(music / "b/pipe.mp3")
  # A name that is not text.
  os.symlink("nowhere.wav", os.fsencode(music / "b/go") + b"\xffne.wav")
  out = tmp_path / "music.parquet"
  code = _embed(made, f"--audio={music}", BATCH, out=out)
  assert code == errors.EXIT_FAILED
  table = song_table.read_table(out)
  assert table.ids == list(SONGS)
  _embed_music(made, tmp_path / "good.parquet")
  good = song_table.read_table(tmp_path / "good.parquet")
  np.testing.assert_allclose(table.vectors, good.vectors, rtol=1e-5, atol=1e-6)
  failures = json.loads(embedding_run.failures_path(out).read_text())
  names = [one["id"] for one in failures]
  gone = os.fsdecode(b"b/go\xffne.wav")
  assert names == ["a/broken.mp3", "b/damaged.flac", gone, "b/pipe.mp3"]
  printed = capsys.readouterr().out
  for one in failures:
    assert one["path"] == str(music / one["id"])
    name = file_names.shown(one["path"])
    assert f"{name}: {one['reason']}" in printed
  assert r"go\xffne.wav: " in printed
  assert "damaged" in failures[1]["reason"]


def test_a_table_has_the_exact_name_of_a_file_whatever_its_bytes(
  made, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(embedding_run, "PART_BATCHES", 0)  # A song is a part.
  file_names.print_any_text()  # As a command does.
  music = tmp_path / "music"
  music.mkdir()
  wav = (made / "music/b/song.WAV").read_bytes()
  contents = [b" a\nb.wav", b"caf\xc3\xa9.wav", b"caf\xe9.wav", b"caf\xff.wav"]
  names = list(map(os.fsdecode, contents))
  for name in names:
    (music / name).write_bytes(wav)
  out = tmp_path / os.fsdecode(b"\xe9.parquet")
  assert not _embed(made, f"--audio={music}", BATCH, out=out)
  table = song_table.read_table(out)
  assert table.ids == names
  assert [pathlib.Path(one).read_bytes() for one in table.paths] == [wav] * 4
  assert not _embed(made, f"--audio={music}", BATCH, out=out)  # Nothing to do.
  with open(out, "rb") as file:
    found = parquet.read_table(file)
  texts = [" a\nb.wav", "café.wav", r"caf\xe9.wav", r"caf\xff.wav"]
  assert found["id"].to_pylist() == texts
  assert found["id_bytes"].to_pylist() == [None, None, *contents[2:]]
  exact = [os.fsencode(music) + b"/" + one for one in contents[2:]]
  assert found["path_bytes"].to_pylist() == [None, None, *exact]
  shutil.copy(made / "music/a/short.wav", music / "z.wav")
  assert not _embed(made, f"--audio={music}", BATCH, out=out)
  assert "1 are new or changed, 4 are as they were" in capsys.readouterr().out
  assert song_table.read_table(out).ids == [*names, "z.wav"]


def test_where_nothing_can_be_read_there_is_no_table(made, tmp_path):
  (tmp_path / "a.wav").write_text("this is not music")
  out = tmp_path / "out.parquet"
  with pytest.raises(errors.RunError, match="none of the 1 songs.*a.wav"):
    _embed(made, f"--audio={tmp_path / 'a.wav'}", out=out)
  assert not out.exists()
  assert len(json.loads(embedding_run.failures_path(out).read_text())) == 1


def test_a_data_set_is_embedded_as_evaluation_does(made, data, tmp_path):
  out = tmp_path / "data.parquet"
  assert not _embed(made, f"--data={data}", BATCH, out=out)
  table = song_table.read_table(out)
  store = song_store.SongStore(data / song_store.FILE_NAME)
  assert table.ids == list(map(str, store.song_ids.tolist()))
  assert table.paths == ["/music/a.mp3", "/music/b.mp3"] + [""] * 58
  encoder, _ = restore.load_encoder(made / "run")
  expected = song_encoder.embed_songs(
    encoder, store, np.arange(60, dtype=np.int32), batch_patches=4
  )
  np.testing.assert_allclose(table.vectors, expected, rtol=1e-5, atol=1e-6)


def test_a_damaged_song_of_a_data_set_is_listed(made, data, tmp_path, capsys):
  store = song_store.SongStore(data / song_store.FILE_NAME)
  song = store.read_song(30).tobytes()
  file = data / song_store.FILE_NAME / "data.mdb"
  content = bytearray(file.read_bytes())
  content[content.index(song) + 1000] ^= 1
  (tmp_path / "copy.mdb").write_bytes(content)
  (tmp_path / "copy.mdb").replace(file)  # Another inode: it is opened anew.
  out = tmp_path / "data.parquet"
  code = _embed(made, f"--data={data}", BATCH, out=out)
  assert code == errors.EXIT_FAILED
  (failure,) = json.loads(embedding_run.failures_path(out).read_text())
  assert failure["id"] == str(store.song_ids[30])
  assert "is damaged" in failure["reason"]
  assert failure["reason"] in capsys.readouterr().out
  assert len(song_table.read_table(out).ids) == 59
