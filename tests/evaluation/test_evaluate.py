"""Tests of pcl_jax.evaluate and of pcl_jax.evaluation.evaluator."""

import dataclasses
import json
import shutil

import jax
import numpy as np
from pyarrow import parquet
import pyarrow.compute
import pytest

from pcl_jax import evaluate
from pcl_jax.audio import melspectrogram
from pcl_jax.checkpoint import restore
from pcl_jax.common import errors
from pcl_jax.data import catalogues
from pcl_jax.data import dataset
from pcl_jax.data import song_store
from pcl_jax.embedding import audio_sources
from pcl_jax.embedding import encoder_loading
from pcl_jax.embedding import song_encoder
from pcl_jax.evaluation import evaluator
from pcl_jax.evaluation import mel_baselines
from pcl_jax.evaluation import report
from pcl_jax.evaluation import representations
from pcl_jax.evaluation import task_base
from pcl_jax.evaluation.retrieval import precision_at_k
from pcl_jax.evaluation.tagging import fine_tune
from pcl_jax.evaluation.tagging import probes
from pcl_jax.library import music_files
from pcl_jax.training import loop
from pcl_jax.training import setup
from tests.support import quick_backbone
from tests.support import quick_run
from tests.support.tiny import tiny_data


def _prepare(directory, channels="mean", **changes):
  """Writes a prepared data set; returns its folder."""
  directory.mkdir()
  catalogue = dataclasses.replace(tiny_data.tiny_catalogue(), **changes)
  path = directory / song_store.FILE_NAME
  tiny_data.tiny_store(path, catalogue, (200, 300), channels=channels)
  catalogue.save(directory)
  return directory


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, quick_compilation):
  """Config and folder of a run of two steps; the backbone stays registered."""
  root = tmp_path_factory.mktemp("evaluate")
  with pytest.MonkeyPatch.context() as patch:
    quick_backbone.register(patch)
    config = quick_run.train_epoch(root / "run", _prepare(root / "data"))
    yield config, root / "run"


@pytest.fixture
def workdir(trained, tmp_path):
  return shutil.copytree(trained[1], tmp_path / "run")


def test_a_run_is_compared_with_its_own_beginning_and_with_mean_mel(trained):
  config, workdir = trained
  results = evaluator.evaluate(workdir, tasks="none").results
  table = results["precision_at_5"]
  assert list(table) == ["trained (SS)", "chance", "untrained", "mean mel"]
  assert results["step"] == 3
  assert results["songs"] == 60
  assert results["data"] == config.data.dir
  data = dataset.DataSet(config.data.dir)
  songs = np.arange(60, dtype=np.int32)
  encoder, _ = restore.load_encoder(workdir)
  assert table["trained (SS)"] == precision_at_k.precisions(
    data.catalogue, song_encoder.embed_songs(encoder, data.store, songs)
  )
  assert table["mean mel"] == precision_at_k.precisions(
    data.catalogue, mel_baselines.mean_mel(data.store, songs)
  )


def test_the_untrained_network_has_the_weights_the_run_began_with(
  trained, monkeypatch
):
  config, workdir = trained
  seen = []

  def embed_songs(encoder, store, songs):
    seen.append(np.array(encoder.backbone.fc.kernel[...]))
    return np.ones((len(songs), 2), np.float32)

  monkeypatch.setattr(song_encoder, "embed_songs", embed_songs)
  evaluator.evaluate(workdir, tasks="none")
  begun = setup.build(config, jax.devices()[:1]).state["params"]["audio"]
  np.testing.assert_array_equal(seen[1], begun["backbone"]["fc"]["kernel"])
  assert np.abs(seen[0] - seen[1]).max() > 0


def test_the_command_prints_a_table_and_writes_its_numbers(workdir, capsys):
  evaluate.main([f"--workdir={workdir}", "--tasks=artist,hubs", "--verbose"])
  printed = capsys.readouterr().out
  results = json.loads((workdir / report.FILE_NAME).read_text())
  lines = report.format_precision(results).splitlines()
  assert printed.splitlines()[: len(lines)] == lines
  for name, row in results["precision_at_5"].items():
    (line,) = [line for line in lines if line.startswith(name)]
    for result in row.values():
      low, high = result["interval_95"]
      cell = f"{result['precision_at_5']:.3f}  [{low:.3f}, {high:.3f}]"
      assert cell in line
      assert str(result["queries"]) in printed
  assert "all other 59 songs" in printed
  assert str(workdir / report.FILE_NAME) in printed.splitlines()[-1]
  assert not list(workdir.glob("*.partial"))


def test_the_latest_checkpoint_is_measured_where_it_is_asked_for(
  workdir, monkeypatch
):
  load, asked = restore.load_encoder, []

  def note(folder, which):
    asked.append(which)
    return load(folder, which)

  monkeypatch.setattr(restore, "load_encoder", note)
  for words in ([], ["--checkpoint=latest"]):
    evaluate.main([f"--workdir={workdir}", "--tasks=none", *words])
    results = json.loads((workdir / report.FILE_NAME).read_text())
    assert results["checkpoint"] == asked[-1]
  assert asked == ["best", "latest"]


def test_songs_can_be_looked_up_in_another_data_set(trained, tmp_path):
  other = _prepare(tmp_path / "other", albums=np.full(60, -1, np.int32))
  results = evaluator.evaluate(trained[1], str(other), tasks="none").results
  assert results["data"] == str(other)


def test_songs_that_the_run_learned_from_are_no_queries_after_another_split(
  trained, tmp_path
):
  old = tiny_data.tiny_catalogue().split
  tests, others = np.flatnonzero(old == 2), np.flatnonzero(old != 2)
  split = old.copy()
  split[tests[:3]], split[others[:3]] = catalogues.TRAIN, catalogues.TEST
  other = _prepare(tmp_path / "other", split=split)
  kept = (old == catalogues.TEST) & (split == catalogues.TEST)
  found = evaluator.evaluate(trained[1], str(other), tasks="hubs")
  ids = found.items["hubs"][found.results["trained"]]["song_id"]
  expected = tiny_data.tiny_catalogue().song_ids[kept]
  assert sorted(ids.tolist()) == expected.tolist()
  (note,) = found.results["notes"]
  assert note.startswith(f"3 of {len(tests)} test songs of")
  assert note in report.format_evaluation(found)
  checks = {one["name"]: one["passed"] for one in found.results["checks"]}
  assert checks["copies"] is True


def test_a_data_set_with_nothing_to_look_up_is_refused(trained, tmp_path):
  split = np.full(60, catalogues.TRAIN, np.int8)
  other = _prepare(tmp_path / "other", split=split)
  with pytest.raises(errors.InputError, match="no test song") as error:
    evaluator.evaluate(trained[1], str(other), tasks="none")
  assert str(other) in str(error.value)


def test_melon_50_is_left_out_of_a_library_of_audio_files(
  trained, tmp_path, monkeypatch
):
  data = tmp_path / "data"
  shutil.copytree(trained[0].data.dir, data)
  monkeypatch.setattr(probes, "train_probe", lambda *_, **__: 1 / 0)
  (data / music_files.IDS).write_text("{}")
  names = "artist,melon_50,melon_50_linear"
  found = evaluator.evaluate(trained[1], str(data), tasks=names)
  assert list(found.results["tasks"]) == list(found.tasks) == ["artist"]
  text = report.format_evaluation(found)
  assert text.count("Melon-50") == 1
  assert f"its tags are Melon's sub-genres, and {data} is made of" in text


@pytest.mark.parametrize("made", [False, True])
def test_a_folder_that_is_no_run_is_refused(tmp_path, made):
  folder = tmp_path / "nothing"
  if made:
    folder.mkdir()
  with pytest.raises(errors.InputError, match="not the workdir of a run"):
    evaluate.main([f"--workdir={folder}"])


def test_an_encoder_of_other_feature_settings_is_refused(trained, tmp_path):
  feature = melspectrogram.SETTINGS.as_dict() | {"hop_samples": 160}
  other = quick_run.save(tmp_path / "other", feature=feature)
  with pytest.raises(
    errors.InputError, match="hop_samples: there 160, here 256"
  ):
    evaluate.main([f"--workdir={other}", f"--data={trained[0].data.dir}"])


def test_songs_of_other_channels_are_neither_evaluated_on_nor_gone_on_with(
  trained, workdir, tmp_path
):
  data = _prepare(tmp_path / "left", channels="left")
  said = "channels: there 'left', the encoder's 'mean'"
  with pytest.raises(errors.InputError, match=said):
    evaluate.main([f"--workdir={workdir}", f"--data={data}"])
  with pytest.raises(errors.InputError, match=said):
    songs = audio_sources.data_set_songs(data)
    encoder_loading.load(workdir).embed_files(songs, tmp_path / "a.parquet")
  config = trained[0].copy_and_resolve_references()
  config.data.dir = str(data)
  devices = jax.devices()[:1]
  run = setup.build(config, devices)
  assert run.meta["feature"] == melspectrogram.SETTINGS.as_dict("left")
  with pytest.raises(errors.InputError, match=said):
    loop.train_and_evaluate(
      config, workdir, devices=devices, allow_change=["data"]
    )


def test_fine_tuning_has_a_row_from_scratch_among_the_baselines(
  trained, monkeypatch
):
  config, workdir = trained
  weights = []

  def fine_tuned(encoder, store, rows, labelled):
    weights.append(np.array(encoder.backbone.fc.kernel[...]))
    raise errors.RunError("measured" if len(weights) == 1 else "from scratch")

  monkeypatch.setattr(fine_tune, "fine_tune", fine_tuned)
  results = evaluator.evaluate(
    workdir, tasks="melon_50_fine_tune", baselines=True
  ).results
  rows = results["tasks"]["melon_50_fine_tune"]
  found = {name: row["not_given"] for name, row in rows.items()}
  no_encoder = "there is no encoder to fine-tune"
  assert found == {
    "trained (SS)": "measured",
    "untrained": "from scratch",
    "mean mel": no_encoder,
    "mean and std mel": no_encoder,
  }
  begun = setup.build(config, jax.devices()[:1]).state["params"]["audio"]
  np.testing.assert_array_equal(weights[1], begun["backbone"]["fc"]["kernel"])
  assert np.abs(weights[0] - weights[1]).max() > 0


def test_a_task_that_cannot_end_well_leaves_the_others_their_results(
  trained, monkeypatch
):
  def astray(*_):
    raise errors.RunError("the scores are not finite")

  monkeypatch.setattr(fine_tune, "fine_tune", astray)
  results = evaluator.evaluate(
    trained[1], tasks="artist,melon_50_fine_tune"
  ).results
  rows = {name: row["trained (SS)"] for name, row in results["tasks"].items()}
  assert rows["melon_50_fine_tune"] == {
    "not_given": "the scores are not finite"
  }
  assert rows["artist"]["metrics"]


def test_tasks_run_on_every_baseline_and_all_their_items_are_written(
  workdir, capsys
):
  evaluate.main(
    [f"--workdir={workdir}", "--tasks=playlist_continuation,artist,collapse",
     "--baselines", "--split=validation", "--neighbours=3", "--verbose"]
  )  # fmt: skip
  printed = capsys.readouterr().out
  results = json.loads((workdir / report.FILE_NAME).read_text())
  rows = ["trained (SS)", "untrained", "mean mel", "mean and std mel"]
  expected = {
    "playlist_continuation": [*rows, "popularity"],
    "artist": [*rows],
    "collapse": rows,
  }
  for task in ("playlist_continuation", "artist"):
    expected[task].insert(1, "chance")
  assert {t: list(r) for t, r in results["tasks"].items()} == expected
  for task, names in expected.items():
    table = parquet.read_table(workdir / report.FOLDER / f"{task}.parquet")
    given = results["tasks"][task]
    for name in names:
      mine = table.filter(pyarrow.compute.equal(table[report.ROW], name))
      metric = next(iter(given[name]["metrics"].values()))
      assert len(mine) == metric["items"], (task, name)
      assert name in printed
  # No vectors were made for this data set: the reason is printed.
  assert "playlist_vectors.npy does not exist" in printed
  assert "numbers flatter" in printed
  assert "copies, near duplicates, training, validation" in printed
  made = results["certificate"]
  assert made["trained_on"]["same_data"]
  assert made["checkpoint"]["step"] == results["step"]
  assert made["data"]["fingerprint"] == results["fingerprint"]


def test_a_run_does_not_differ_from_itself(workdir, tmp_path, capsys):
  evaluate.main([f"--workdir={workdir}", "--tasks=artist"])
  other = shutil.copytree(workdir, tmp_path / "other")
  capsys.readouterr()
  evaluate.main(["--compare", str(workdir), str(other), "--tasks=artist"])
  lines = capsys.readouterr().out.splitlines()
  rows = [line for line in lines if line.startswith("artist")]
  assert len(rows) == 6
  assert all("+0.000" in row and "1.0000" in row for row in rows)


def test_mode_p_is_an_upper_line_where_it_is_defined_and_else_a_reason(
  trained, tmp_path
):
  data = dataset.DataSet(_prepare(tmp_path / "data"))

  def reason(split):
    with pytest.raises(task_base.NotAvailable) as error:
      representations.mode_p(data, split)
    return str(error.value)

  assert "say nothing of test songs" in reason(catalogues.TEST)
  assert "does not exist" in reason(catalogues.VALIDATION)
  vectors = np.random.default_rng(0).random((60, 9)).astype(np.float32)
  np.save(data.directory / dataset.PLAYLIST_VECTORS, vectors)
  made = representations.mode_p(data, catalogues.VALIDATION)
  np.testing.assert_array_equal(made, vectors[:, :-1])
  np.save(data.directory / dataset.PLAYLIST_VECTORS, vectors[:40])
  assert "another catalogue" in reason(catalogues.VALIDATION)


def test_embeddings_that_are_not_finite_are_refused_and_counted():
  rows, ids = np.ones((60, 7)), np.arange(100, 160)
  rows[[4, 7]] = np.nan
  with pytest.raises(errors.InputError, match="2 of 60 songs.*song 104"):
    representations.checked("trained (SS)", rows, ids)


def test_an_unknown_task_is_refused_before_anything_is_computed(workdir):
  with pytest.raises(errors.InputError, match="playlist_continuation"):
    evaluate.main([f"--workdir={workdir}", "--tasks=nonsense"])
  with pytest.raises(errors.InputError, match="min_playlists=0"):
    evaluate.main([f"--workdir={workdir}", "--min_playlists=0"])
  assert not (workdir / report.FILE_NAME).exists()


def test_a_bundle_is_evaluated_as_its_run_is(trained, workdir, tmp_path):
  config, run = trained
  bundle = tmp_path / "my-encoder"
  encoder_loading.load(run).save(bundle)
  with pytest.raises(errors.InputError, match="my-encoder is a bundle.*--data"):
    evaluator.evaluate(bundle, tasks="none")
  theirs = evaluator.evaluate(run, tasks="none").results
  found = evaluator.evaluate(bundle, config.data.dir, tasks="none").results
  times = "seconds", "certificate"
  assert {k: v for k, v in found.items() if k not in times} == {
    k: v for k, v in theirs.items() if k not in times
  }
  # What was measured comes into the model card of the next export.
  flags = [f"--workdir={bundle}", f"--data={config.data.dir}", "--tasks=hubs"]
  evaluate.main(flags)
  assert encoder_loading.load(bundle).save(tmp_path / "measured") == ""
  card = (tmp_path / "measured" / "README.md").read_text()
  skewness = json.loads((bundle / report.FILE_NAME).read_text())["tasks"][
    "hubs"
  ]["trained (SS)"]["metrics"]["occurrence_skewness"]["value"]
  assert f"| hubs | occurrence_skewness | {skewness:.3f} |" in card
