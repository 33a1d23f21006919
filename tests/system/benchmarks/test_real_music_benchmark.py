"""Tests of benchmarks.real_music and benchmarks.pretrained."""

import argparse
import dataclasses
import pickle
import shutil

import numpy as np
import pytest

from benchmarks.pretrained import __main__ as pretrained
from benchmarks.pretrained import pretrained_card
from benchmarks.real_music import __main__ as real_music
from benchmarks.real_music import curve_table
from benchmarks.real_music import kept_results
from benchmarks.real_music import real_runs
from benchmarks.real_music import real_scores
from benchmarks.real_music import real_table
from benchmarks.real_music import row_values
from benchmarks.strategies import strategy_runs
from pcl_jax.common import errors
from pcl_jax.common import storage
from pcl_jax.data import catalogues

SIZES = real_runs.Sizes(steps=20, batch_size=8, width=4)


def test_only_recordings_are_looked_up_and_found(folds):
  data = folds[0]
  assert real_scores.recordings(data).tolist() == list(range(64))
  # Songs lie with their album; albums of an artist are neighbours.
  angles = 0.1 * data.catalogue.albums
  rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
  scores = real_scores.measure(data, rows.astype(np.float32))
  tests = data.catalogue.rows_of(catalogues.TEST)
  expected = data.catalogue.song_ids[tests[tests < 64]].tolist()
  for protocol in real_scores.PROTOCOLS:
    album = scores[protocol]["album"]
    assert album["songs"] == expected
    np.testing.assert_allclose(album["average_precision"], 1)
    # Three other songs of the album, and four of the artist's other one.
    artist = scores[protocol]["artist, other album"]
    assert len(artist["average_precision"]) == len(expected)
  by_chance = real_scores.measure(data, None)["look-up"]["album"]
  np.testing.assert_allclose(by_chance["precision_at_5"], 3 / 63)


def test_vectors_of_rendered_scores_change_nothing(folds):
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(80, 5)).astype(np.float32)
  before = real_scores.measure(folds[1], rows)
  rows[64:] = rng.normal(size=(16, 5))
  assert real_scores.measure(folds[1], rows) == before


def _write_runs(folds, out, recipes):
  """Writes made-up results of runs; a recipe's vectors have some noise."""
  for recipe, noise in recipes.items():
    for seed in (0, 1, 2):
      for number, data in enumerate(folds):
        rng = np.random.default_rng(seed)
        rows = np.eye(20)[data.catalogue.albums]
        rows = rows + noise * rng.normal(size=rows.shape)
        config = real_runs.config_of("ss", seed, data.directory, SIZES, out)
        folder = out / f"{recipe}-{seed}" / str(number)
        folder.mkdir(parents=True)
        result = {
          "recipe": recipe,
          "steps": SIZES.steps,
          "settings": strategy_runs.settings_of(
            "ss", config, data.fingerprint()
          ),
          "scores": real_scores.measure(data, rows.astype(np.float32)),
          "training_hours": 1.5,
          "device": "a device",
        }
        storage.write_json(folder / strategy_runs.RESULT, result)


def _table(folds, out, kept):
  """Keeps the results of a folder; returns their tables."""
  runs = kept_results.finished(out, len(folds))
  runs += kept_results.of_statistics(folds, out)
  kept_results.keep(kept, folds, runs)
  return real_table.of_folders(kept)


def test_the_tables_rank_what_was_trained_beside_baselines(folds, tmp_path):
  _write_runs(folds, tmp_path, {"album": 0.1, "ss+augmented": 50.0})
  (tmp_path / kept_results.VECTORS).mkdir()
  rows = np.random.default_rng(5).normal(size=(80, 3))
  np.save(tmp_path / kept_results.VECTORS / "other.npy", rows)
  kept = tmp_path / "kept"
  text = _table(folds, tmp_path, kept)
  table = text[text.index("| album, 64 queries") :]
  lines = [one.strip("| ").split(" | ") for one in table.splitlines()[2:8]]
  assert [lines[0][0], lines[0][1]] == ["album", "3"]
  assert lines[0][2] == "1.000 [1.000, 1.000]"
  assert lines[0][-1].startswith("**+0.")  # Told apart from the mel's.
  assert {one[0] for one in lines} == {
    "album", "ss+augmented", "other", "chance", "mean mel", "mean and std mel"
  }  # fmt: skip
  weak = next(one for one in lines if one[0] == "ss+augmented")
  assert not weak[-1].startswith("**")
  beside = real_table.of_folders(kept, [kept])
  assert beside.startswith(text)
  assert "| album | 4 | 8 | 20 | 1.5 | 3 | 1.000 [1.000, 1.000] |" in beside
  _write_runs(folds, tmp_path, {"untrained": 50.0})
  table = _table(folds, tmp_path, kept)
  head, _, first, *_ = table[table.index("| album, 64") :].splitlines()
  assert head.endswith("| to untrained, average precision |")
  assert first.count("| **+0.") == 2
  read = kept_results.read(kept)
  few = [run for run in read.runs if run.row == "album"]
  beside = dataclasses.replace(read, runs=few)
  table = "\n".join(curve_table.lines_of(read, [beside], "queries"))
  head, _, first, *_ = table.splitlines()
  assert head.count(" | to untrained") == 2
  assert first.startswith("| album | 4 |") and first.count("| **+0.") == 2
  assert "| untrained |" not in table and "ss+augmented" not in table
  with pytest.raises(errors.InputError, match="has no queries.json"):
    real_table.of_folders(tmp_path / "nothing")


def test_the_box_is_compared_on_the_folds_that_it_was_tried_on(folds, tmp_path):
  _write_runs(folds, tmp_path / "minutes", {"untrained": 50.0, "ss": 50.0})
  _write_runs(folds, tmp_path / "box", {"ss": 0.1})
  _table(folds, tmp_path / "minutes", tmp_path / "kept")
  for seed in (0, 1, 2):  # It was tried on the second fold alone.
    (tmp_path / "box" / f"ss-{seed}" / "0" / strategy_runs.RESULT).unlink()
  place = str(folds[0].directory.parent)
  real_music.main(
    [f"--data={place}", f"--out={tmp_path / 'box'}", "--stages=keep",
     f"--kept={tmp_path / 'kept-box'}"]
  )  # fmt: skip
  text = real_table.of_folders(
    tmp_path / "kept", box=tmp_path / "kept-box"
  ).splitlines()
  head, _, first, *rest = text[2:]
  tests = folds[1].catalogue.rows_of(catalogues.TEST)
  queries = (tests < 64).sum()
  assert head.startswith(f"| the recipe of the box, minus | album, {queries} q")
  assert first.startswith("| (its average precision) | 1.000 [1.000, 1.000] |")
  compared = rest[: rest.index("")]
  assert {one.split(" | ")[0] for one in compared} == {
    "| mean and std mel", "| mean mel", "| untrained"
  }  # fmt: skip
  assert all(" | **+0." in one for one in compared)
  _write_runs(folds, tmp_path / "two", {"ss": 0.1, "album": 0.1})
  _table(folds, tmp_path / "two", tmp_path / "kept-two")
  with pytest.raises(errors.InputError, match="of album, ss, on the folds"):
    real_table.of_folders(tmp_path / "kept", box=tmp_path / "kept-two")


def test_sizes_and_hours_are_those_of_the_seeds_in_the_tables():
  """Rows may have several sizes; a seed may lack folds."""

  def trained(row, seed, fold, steps, hours):
    about = {"training_hours": hours, "device": "a device"}
    sizes = {"data.batch_size": 8, "model_params.audio.width": 4}
    scores = {
      protocol: {
        task: dict.fromkeys(real_scores.METRICS, [0.5, 0.7])
        for task in real_scores.TASKS
      }
      for protocol in real_scores.PROTOCOLS
    }
    settings = sizes | {"steps": steps}
    return kept_results.Run(row, seed, fold, scores, about, settings)

  runs = [
    trained("ss", 0, 0, 20, 1.0),
    trained("ss", 0, 1, 20, 2.0),
    trained("ss", 1, 0, 20, 9.0),
    trained("album", 0, 0, 30, 1.5),
    trained("album", 0, 1, 30, 1.5),
  ]
  kept = kept_results.Kept(64, 16, 2, runs)
  head = real_table._head(kept, row_values.rows_of(kept, range(2)))
  assert head.endswith(
    "4 trainings on a device: 1.0 to 2.0 hours, 20 steps of 8 pairs, ResNet-18 "
    "of width 4, or 30 steps of 8 pairs, ResNet-18 of width 4."
  )
  table = "\n".join(curve_table.lines_of(kept, [kept], "queries"))
  assert "| ss | 4 | 8 | 20 | 1.5 | 1 |" in table


def test_a_box_of_other_folds_is_not_compared(folds, tmp_path):
  """Its values are paired with the others' query by query."""
  for name, of_box in (("kept", folds), ("kept-box", folds[::-1])):
    kept_results.keep(
      tmp_path / name, of_box, kept_results.of_statistics(of_box, tmp_path)
    )
  with pytest.raises(errors.InputError, match="kept-box has .* other queries"):
    real_table.of_folders(tmp_path / "kept", box=tmp_path / "kept-box")


@pytest.mark.parametrize("rows", [40, 90, 80])
def test_vectors_of_other_data_are_refused(folds, tmp_path, rows):
  (tmp_path / kept_results.VECTORS).mkdir()
  vectors = np.full((rows, 3), np.nan if rows == 80 else 1.0)
  np.save(tmp_path / kept_results.VECTORS / "x.npy", vectors)
  with pytest.raises(errors.InputError, match="x.npy has the shape"):
    kept_results.of_statistics(folds, tmp_path)


def test_a_task_without_queries_has_no_table(folds, tmp_path):
  found = [
    dataclasses.replace(run, scores=_without(run.scores, "genre"))
    for run in kept_results.of_statistics(folds, tmp_path)
  ]
  rows = row_values.rows_of(kept_results.Kept(64, 16, 2, found), range(2))
  groups = dict.fromkeys(real_scores.PROTOCOLS)
  lines = real_table._task_table(rows, "genre", groups)
  assert lines == [
    "genre: no song shares it with another, so there is no table.", ""
  ]  # fmt: skip


def _without(scores, task):
  """Returns scores whose task has no queries."""
  empty = {metric: [] for metric in real_scores.METRICS} | {"songs": []}
  return {protocol: tasks | {task: empty} for protocol, tasks in scores.items()}


def test_seeds_come_one_after_the_other(folds, tmp_path):
  flags = argparse.Namespace(
    **dataclasses.asdict(SIZES),
    data=folds[0].directory.parent,
    out=tmp_path,
    seeds=[0, 1],
    only=["untrained", "ss"],
  )
  names = [
    f"{job[2].parent.name}/{job[2].name}" for job in real_music.planned(flags)
  ]
  first = ["untrained-0/0", "ss-0/0", "untrained-0/1", "ss-0/1"]
  assert names == first + [one.replace("-0", "-1") for one in first]


def test_a_recipe_is_a_strategy_and_its_changes(tmp_path):
  def config_of(recipe):
    return real_runs.config_of(recipe, 3, tmp_path, SIZES, tmp_path)

  plain = config_of("album")
  assert plain.audio_contrast_params.pair_generation_method == "Album"
  assert (plain.seed, plain.steps, plain.data.batch_size) == (3, 20, 8)
  assert plain.audio_contrast_params.mixup
  changed = config_of("album+augmented+all+unmixed")
  assert not changed.audio_contrast_params.mixup
  assert changed.loss_params.positives == "all"
  assert changed.augmentation != plain.augmentation
  for text in ("a_im", "ss+all+augmented", "ss+more", "ss+all+all", ""):
    with pytest.raises(argparse.ArgumentTypeError, match="is no recipe"):
      real_runs.recipe(text)


def test_runs_that_come_too_late_are_not_begun(tmp_path):
  jobs = [("ss", None, tmp_path / "0"), ("ss", None, tmp_path / "1")]
  assert strategy_runs.run_all(jobs, 1, until=0.0) == 2
  assert not list(tmp_path.iterdir())


def test_a_run_that_cannot_be_started_ends_the_others(tmp_path):
  jobs = [("ss", lambda: None, tmp_path / str(i)) for i in range(2)]
  with pytest.raises((AttributeError, pickle.PicklingError)):
    strategy_runs.run_all(jobs, 1)


def test_configs_can_be_sent_to_other_processes(tmp_path):
  config = real_runs.config_of("album", 0, tmp_path, SIZES, tmp_path)
  again = pickle.loads(pickle.dumps(config))
  assert again.to_json() == config.to_json()
  assert again.opt_params.warmup_steps == 1  # Of 20 steps.


def test_the_card_of_the_box_has_its_sources_once(folds, tmp_path):
  bundle, folder = tmp_path / "bundle", tmp_path / "made"
  shutil.copytree(folds[0].directory, folder / "data")
  for place in (bundle, folder / "free_music", folder / "scores"):
    place.mkdir(parents=True)
  (bundle / "README.md").write_text("---\nlicense: mit\n---\n\n# box\n")
  about = {"version": "1.2-1", "licence": "CC-BY-SA-4.0", "sound_files": 3}
  levels = about | {"sound_files": 0}
  storage.write_json(
    folder / "free_music" / "licences.json", {"a-game": about, "b": levels}
  )
  made = {
    "source": {"music21": "10.5.1", "soundfont": "FluidR3_GM.sf2"},
    "scores": {"bach/a.mxl": {"failed": ""}, "b": {"failed": "no notes"}},
  }
  storage.write_json(folder / "scores" / "scores.json", made)
  for _ in range(2):  # A second time replaces the first.
    pretrained_card.append(bundle, folder, 12.34)
  card = (bundle / "README.md").read_text()
  assert card.startswith("---\nlicense: mit\n---\n\n# box\n")
  assert card.count("| a-game | 1.2-1 | CC-BY-SA-4.0 |") == 1
  assert "| b |" not in card  # It has no music.
  assert "Music of 1 packages" in card
  assert "And 16 scores of the corpus of music21 10.5.1" in card
  assert "trained on 12.3 hours" in card


def test_a_bad_licence_or_place_is_refused_before_the_training(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(pretrained, "_train", lambda _: 1 / 0)
  flags = [f"--out={tmp_path}", "--stages=train,card"]
  with pytest.raises(errors.InputError, match="CC BY 4.0"):
    pretrained.main([*flags, "--license=CC BY 4.0"])
  with pytest.raises(errors.InputError, match="is not a bundle"):
    pretrained.main([*flags, f"--place={tmp_path}"])


def test_only_finished_runs_of_this_fold_become_the_box(folds, tmp_path):
  place = folds[0].directory.parent
  (tmp_path / "folds").symlink_to(place)
  command = [
    f"--out={tmp_path}", "--fold=0", "--seeds=0", "--steps=20",
    "--batch_size=8", "--width=4",
  ]  # fmt: skip
  for stage in ("export", "evaluate", "card"):
    with pytest.raises(errors.InputError, match="has no finished run"):
      pretrained.main([*command, f"--stages={stage}"])
  config = real_runs.config_of("ss", 0, folds[1].directory, SIZES, tmp_path)
  settings = strategy_runs.settings_of("ss", config, folds[1].fingerprint())
  folder = tmp_path / "runs" / "0"
  folder.mkdir(parents=True)
  storage.write_json(folder / strategy_runs.RESULT, {"settings": settings})
  for stage in ("export", "evaluate", "card"):
    with pytest.raises(errors.InputError, match="data.fingerprint was"):
      pretrained.main([*command, f"--stages={stage}"])
