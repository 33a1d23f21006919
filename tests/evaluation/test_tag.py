"""Tests of pcl_jax.evaluation.tag."""

import dataclasses
from unittest import mock

from flax import nnx
import numpy as np
from pyarrow import parquet
import pytest

from pcl_jax.checkpoint import restore
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.data.splits import learned_songs
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding.tables import embedding_table
from pcl_jax.evaluation import tag
from pcl_jax.evaluation.tagging import melon_50
from pcl_jax.evaluation.tagging import probe_file
from pcl_jax.evaluation.tagging import probe_training
from pcl_jax.evaluation.tagging import song_tags
from pcl_jax.models import audio_encoder
from tests.support import quick_backbone
from tests.support.tiny import tiny_data

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """An encoder, a probe that the command trained for it, and its data set."""
  root = tmp_path_factory.mktemp("tag")
  (root / "data").mkdir()
  catalogue = tiny_data.tiny_catalogue()
  tiny_data.tiny_store(root / "data" / song_store.FILE_NAME, catalogue, 256)
  split = np.full(60, catalogues.TEST, np.int8)
  dataclasses.replace(catalogue, split=split).save(root / "data")
  meta = {"progress": {"step": 7}, "feature": {}}
  search = probe_training.Search
  quick = {"seeds": (0,), "rates": (0.01,), "decays": (0.0,), "rounds": 3}
  with (
    pytest.MonkeyPatch.context() as patch,
    mock.patch.object(
      probe_training, "Search", lambda kind: search(kind=kind, **quick)
    ),
  ):
    quick_backbone.register(patch)
    encoder = audio_encoder.AudioEncoder(
      quick_backbone.NAME, width=1, rngs=nnx.Rngs(0)
    )
    patch.setattr(restore, "load_encoder", lambda *_: (encoder, meta))
    tag.main(
      [
        f"--workdir={root}",
        f"--data={root / 'data'}",
        f"--probe_out={root / 'probe.npz'}",
        "--kind=linear",
      ]
    )
    yield encoder, root


def _table(path, digest: str, layer: str = "features"):
  about = {
    "format_version": embedding_table.FORMAT_VERSION,
    "layer": layer,
    "per_patch": False,
    "weights_sha256": digest,
    "step": 9,
    "workdir": "elsewhere",
  }
  like = embedding_table.schema(8, about)
  vectors = np.random.default_rng(0).random((3, 8)).astype(np.float32)
  columns = {
    "id": ["a", "b", "c"],
    "path": ["", "", ""],
    "patches": [1, 1, 1],
    "padded": [False] * 3,
  }
  embedding_table.write(
    path, like, [embedding_table.rows(columns, vectors, like)]
  )
  return vectors


def test_songs_get_a_probability_under_the_name_of_each_tag(
  made, tmp_path, capsys
):
  encoder, root = made
  digest = embedding_table.weights_digest(encoder)
  vectors = _table(tmp_path / "music.parquet", digest)
  tag.main(
    [
      f"--probe={root / 'probe.npz'}",
      f"--embeddings={tmp_path / 'music.parquet'}",
      f"--out={tmp_path / 'tags.parquet'}",
      "-k=2",
    ]
  )
  probe = probe_file.load(root / "probe.npz")
  labelled, _ = melon_50.melon_50(dataset.DataSet(root / "data").catalogue)
  assert probe.tags == labelled.tags
  expected = probe.probabilities(vectors)
  written = parquet.read_table(tmp_path / "tags.parquet").to_pydict()
  assert written["id"] == ["a", "b", "c"]
  for i, name in enumerate(labelled.tags):
    np.testing.assert_array_equal(written[f"tag {name}"], expected[:, i])
  best = labelled.tags[expected[1].argmax()]
  (line,) = [
    line for line in capsys.readouterr().out.splitlines() if line[:2] == "b "
  ]
  assert line.split()[1:] == [
    best,
    f"{expected[1].max():.2f},",
    labelled.tags[np.argsort(-expected[1])[1]],
    f"{np.sort(expected[1])[-2]:.2f}",
  ]


def test_a_probe_is_given_no_song_that_the_run_has_learned_from(
  made, tmp_path, monkeypatch
):
  """Also where the data set was split again since."""
  encoder, root = made
  data = dataset.DataSet(root / "data")
  split = np.full(60, catalogues.TEST, np.int8)
  split[:30] = catalogues.TRAIN
  data.catalogue = dataclasses.replace(data.catalogue, split=split)
  learned_songs.record(tmp_path, data)
  monkeypatch.setattr(
    encoder_loading, "load_network", lambda _: (encoder, {"feature": {}})
  )
  with mock.patch.object(melon_50, "melon_50", side_effect=EOFError) as asked:
    with pytest.raises(EOFError):
      song_tags.train(tmp_path, str(root / "data"), "linear", tmp_path / "p")
  ((catalogue,), _) = asked.call_args
  np.testing.assert_array_equal(catalogue.split, split)


def test_embeddings_of_another_encoder_are_refused(made, tmp_path):
  _, root = made
  _table(tmp_path / "music.parquet", "0" * 64)
  with pytest.raises(errors.InputError, match="two different encoders"):
    song_tags.apply(root / "probe.npz", tmp_path / "music.parquet")


def test_embeddings_of_another_layer_are_refused(made, tmp_path):
  encoder, root = made
  digest = embedding_table.weights_digest(encoder)
  _table(tmp_path / "music.parquet", digest, layer="projection")
  with pytest.raises(errors.InputError, match="the layer projection, and prob"):
    song_tags.apply(root / "probe.npz", tmp_path / "music.parquet")


@pytest.mark.parametrize(
  "flags", [["--probe=p.npz"], ["--probe_out=p.npz"], []]
)
def test_half_a_command_line_is_refused(flags):
  with pytest.raises(SystemExit):
    tag.main(flags)


@pytest.mark.parametrize(
  "flags, said",
  [
    (["--probe_out=p", "--workdir=r", "--embeddings=t"], "--embeddings does"),
    (["--probe_out=p", "--workdir=r", "--out=o"], "--out does nothing with"),
    (["--probe=p", "--embeddings=t", "--workdir=r"], "--workdir does nothing"),
    (["--probe=p", "--embeddings=t", "--kind=mlp"], "--kind does nothing with"),
  ],
)
def test_flags_of_the_other_mode_are_refused(flags, said, capsys):
  with pytest.raises(SystemExit):
    tag.main(flags)
  assert said in capsys.readouterr().err


def test_a_probe_that_could_not_be_written_is_not_trained(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(song_tags, "train", lambda *_: 1 / 0)
  with pytest.raises(
    errors.InputError, match="is a folder.* another --probe_o"
  ):
    tag.main([f"--workdir={tmp_path}", f"--probe_out={tmp_path}"])
