"""Tests of the config files but published_yaml, and of every variant's step."""

import functools
import importlib
import itertools
import pathlib
import re

from flax import nnx
import jax
import numpy as np
import pytest

from configs import common
from configs import sample
from pcl_jax.audio import feature_augmentation
from pcl_jax.checkpoint import restore
from pcl_jax.common import errors
from pcl_jax.data import dataset
from pcl_jax.models import encoders
from pcl_jax.training import config_check
from pcl_jax.training import optimizers
from pcl_jax.training import profiling
from pcl_jax.training import setup
from pcl_jax.training import train_step
from tests.support import quick_backbone
from tests.support.tiny import tiny_run

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*_*.py"))
FAMILY_FILES = [name for name in CONFIGS if name != "published_yaml"]
AP = ("audio", "cf")
AG = ("audio", "genre_w2v")
PG = ("cf", "genre_w2v")
# The paper's: pairs of modes, batch size and mixup alpha of each argument.
CROSS = {"a_p": (AP,), "a_g": (AG,), "a_g_p": (AP, AG, PG)}
PAIRS = {
  name: name.title() for name in ("playlist", "artist", "genre", "album")
}
FAMILIES = {
  "ss": {"": ((("audio", "audio_self"),), "", 384, 7.0)},
  "cm": {name: (combos, "", 768, 5.0) for name, combos in CROSS.items()},
  "aim": {name: ((), method, 384, 7.0) for name, method in PAIRS.items()},
  "hybrid": {
    f"{pair}+{cross}": (CROSS[cross], PAIRS[pair], 384, 7.0)
    for pair, cross in itertools.product(PAIRS, CROSS)
  },
}
DEFAULTS = {
  "ss": "",
  "cm": "a_p",
  "aim": "playlist",
  "hybrid": "playlist+a_g_p",
}
# Channels of the first layer and strength of L2.
ENCODERS = {"resnet": (64, 0.0), "sc_cnn": (128, 1e-4)}
VARIANTS = [
  (f"{family}_{encoder}", argument)
  for encoder in ENCODERS
  for family, arguments in FAMILIES.items()
  for argument in arguments
]
# The smoke sample has no validation pair of one album.
_ON_SMOKE = [one for one in VARIANTS if "album" not in one[1]]
TERMS = {AP: "audio+cf", AG: "audio+genre_w2v", PG: "cf+genre_w2v"}


def _load(name, argument=""):
  return importlib.import_module(f"configs.{name}").get_config(argument)


def _small(argument):
  return f"{argument},smoke" if argument else "smoke"


def _expected(name, argument):
  family, encoder = name.split("_", 1)
  return FAMILIES[family][argument], ENCODERS[encoder]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tiny") / "data"
  return dataset.DataSet(tiny_run.make_data_set(folder))


def test_there_are_40_variants_in_8_files():
  assert len(VARIANTS) == 40
  assert FAMILY_FILES == sorted({name for name, _ in VARIANTS})


@pytest.mark.parametrize("name, argument", VARIANTS)
def test_a_variant_holds_the_papers_values(name, argument):
  (combos, method, batch_size, alpha), (width, l2) = _expected(name, argument)
  config = _load(name, argument)
  assert config.contrast_combos == combos
  params = config.audio_contrast_params
  assert params.pair_generation_method == method
  assert (params.mixup, params.mixup_alpha, params.mixup_beta) == (
    True, alpha, 2.0
  )  # fmt: skip
  assert config.data.batch_size == batch_size
  assert (config.data.double_window, config.data.max_num_tags) == (625, 10)
  assert (config.epochs, config.early_stop_patience) == (150, 25)
  assert (config.opt_params.lr, config.opt_params.weight_decay) == (1e-4, l2)
  assert config.loss_params.contrastive_temperature == 0.1
  assert config.model_params.to_dict() == {
    "audio": {
      "backbone_type": name.split("_", 1)[1],
      "width": width,
      "fc_hidden_dim": 128,
      "fc_output_dim": 128,
      "fc_dropout": 0.0,
    },
    "cf": {"hidden_dim": 128, "output_dim": 128, "dropout": 0.3},
    "genre_w2v": {"n_head": 4, "d_k": 128, "d_v": 128, "dropout": 0.1},
  }
  assert config.data.sample_songs == 0


@pytest.mark.parametrize("name, argument", VARIANTS)
def test_a_batch_has_768_patches_in_every_strategy(name, argument):
  config = _load(name, argument)
  strategy = config_check.check_values(config)
  rows = config.data.batch_size * (2 if strategy.paired else 1)
  assert rows == 768


@pytest.mark.parametrize("name", FAMILY_FILES)
def test_a_file_without_argument_gives_its_default(name):
  default = DEFAULTS[name.split("_", 1)[0]]
  assert _load(name).to_dict() == _load(name, default).to_dict()
  small = _load(name, "smoke").to_dict()
  assert small == _load(name, _small(default)).to_dict()


@pytest.mark.parametrize("name, argument", VARIANTS)
def test_the_smoke_form_differs_in_size_alone(name, argument):
  full, small = _load(name, argument), _load(name, _small(argument))
  changed = {
    "epochs",
    "log_every_steps",
    "save_every_steps",
    "data.dir",
    "data.batch_size",
    "data.sample_songs",
    "data.sample_seconds",
    "model_params.audio.width",
  }
  for key in changed:
    small.update_from_flattened_dict({key: _at(full, key)})
  assert small.to_dict() == full.to_dict()


def _at(config, key):
  for part in key.split("."):
    config = config[part]
  return config


@pytest.mark.parametrize("name", FAMILY_FILES)
def test_an_unknown_argument_is_refused_with_those_there_are(name):
  with pytest.raises(errors.InputError, match="'a_q'.*smoke") as caught:
    _load(name, "a_q")
  for argument in FAMILIES[name.split("_", 1)[0]]:
    assert argument in str(caught.value)
  with pytest.raises(errors.InputError, match="'smoke,a_q'"):
    _load(name, "smoke,a_q")


SAMPLE_FAMILIES = {
  "ss": ((("audio", "audio_self"),), ""),
  "cm": ((AP,), ""),
  "aim": ((), "Playlist"),
  "hybrid": ((AP, AG, PG), "Playlist"),
}
SAMPLE_ARGUMENTS = SAMPLE_FAMILIES | {
  f"{family}+{variant}": (combos, method)
  for family in ("cm", "aim", "hybrid")
  for variant, (combos, method, _, _) in FAMILIES[family].items()
}


@pytest.mark.parametrize("argument", SAMPLE_ARGUMENTS)
@pytest.mark.parametrize("small", [False, True])
def test_the_sample_config_loads_with_each_argument(argument, small):
  config = sample.get_config(_small(argument) if small else argument)
  combos, method = SAMPLE_ARGUMENTS[argument]
  assert config.contrast_combos == combos
  assert config.audio_contrast_params.pair_generation_method == method
  assert config.data.dir == ("data/smoke" if small else "data/sample")
  assert config.data.sample_songs == (96 if small else 720)
  config_check.check_values(config)


def test_the_sample_config_names_all_its_arguments():
  assert set(sample.ARGUMENTS) == set(SAMPLE_ARGUMENTS)
  with pytest.raises(errors.InputError, match="'ss\\+a_p'"):
    sample.get_config("ss+a_p")


@pytest.mark.parametrize("family", ["cm", "aim", "hybrid"])
def test_a_family_alone_is_its_default_variant_on_the_sample(family):
  default = sample.get_config(f"{family}+{DEFAULTS[family]}")
  assert sample.get_config(family).to_dict() == default.to_dict()


def test_the_sample_config_is_hybrid_by_default():
  for given, full in (("", "hybrid"), ("smoke", "hybrid,smoke")):
    expected = sample.get_config(full).to_dict()
    assert sample.get_config(given).to_dict() == expected


@pytest.mark.parametrize("name", [*FAMILY_FILES, "sample"])
def test_the_command_lines_of_a_docstring_name_what_there_is(name):
  doc = importlib.import_module(f"configs.{name}").__doc__
  commands = re.findall(r"^python launch\.py (.*)$", doc, re.MULTILINE)
  assert len(commands) >= 2
  for command in commands:
    given = dict(word.split("=", 1) for word in command.split())
    assert given.keys() == {"--config", "--workdir"}
    path, _, argument = given["--config"].partition(":")
    assert path == f"configs/{name}.py" and (ROOT / path).exists()
    _load(name, argument)


@pytest.mark.parametrize("name", FAMILY_FILES)
def test_the_arguments_of_a_docstring_are_those_that_load(name):
  doc = importlib.import_module(f"configs.{name}").__doc__
  listed = doc.partition("Arguments:")[2].partition("Cost:")[0]
  family = name.split("_", 1)[0]
  words = itertools.chain.from_iterable(
    argument.split("+") for argument in FAMILIES[family] if argument
  )
  assert all(word in listed for word in words) and "smoke" in listed


def test_every_config_file_is_imported_by_no_other_but_common():
  for path in (ROOT / "configs").glob("*.py"):
    imported = re.findall(r"^from configs import (\w+)", path.read_text(), re.M)
    assert set(imported) <= {"common"}


def _begin(build):
  """Traces the making of encoders; returns their structure and the state."""
  graphs = []

  def begin():
    graph, state = train_step.new_state(build(), _OPTIMIZER)
    graphs.append(graph)
    return state

  state = jax.eval_shape(begin)
  return graphs[0], state


_MESH = train_step.make_mesh(jax.devices()[:1])
_OPTIMIZER = optimizers.make_optimizer(1e-4, 1e-4)
_begun = {}  # What variants with the same encoders share.


def _trace(config, data, *, step):
  """Traces a step of training, or only its loss.

  Returns:
    The state before, the state after (None for a loss) and the terms.
  """
  strategy, mesh = config_check.check_values(config), _MESH
  tables = data.tables(strategy, config.data.max_num_tags)
  sharding = jax.NamedSharding(mesh, jax.P("data"))
  batches = setup.Batches(config, strategy, data, tables, {}, sharding)
  names = (config.model_params.audio.backbone_type, strategy.modes)
  if names not in _begun:
    built, table = setup.architecture_of(batches)
    _begun[names] = _begin(
      lambda: encoders.Encoders(
        audio_params=built["audio"],
        cf_params=built.get("cf"),
        genre_params=built.get("genre_w2v"),
        genre_table=table,
        rngs=nnx.Rngs(0),
      )
    )
  graph, state = _begun[names]
  recipe = setup.recipe_of(batches)
  rows = config.data.batch_size * (1 + strategy.paired)
  batch = profiling.shapes_of_batch(rows, tables)
  key = jax.random.key(0)
  if step:
    update = functools.partial(
      train_step.update, graph, _OPTIMIZER, recipe, mesh
    )
    return state, *jax.eval_shape(update, state, batch, key)
  loss = functools.partial(
    train_step.compute_loss, graph, recipe, mesh, training=True
  )
  given = (state["params"], state["batch_stats"], batch, key)
  return state, None, jax.eval_shape(loss, *given)[1][0]


# The terms of the other variants are among those of these, whose networks and
# steps are traced; the others have a backbone that is traced quickly.
STEPS = [(f"hybrid_{one}", "playlist+a_g_p") for one in ENCODERS]


@pytest.mark.parametrize(
  "name, argument, step", [(*one, one in STEPS) for one in VARIANTS]
)
def test_a_step_of_a_variant_at_full_size_fits_together(
  name, argument, step, tiny, quickly
):
  config = _load(name, argument)
  if not step:
    config.model_params.audio.backbone_type = quick_backbone.NAME
  state, after, terms = _trace(config, tiny, step=step)
  if step:
    describe = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert describe(after) == describe(state)
  (combos, method, _, _), _ = _expected(name, argument)
  expected = {TERMS.get(combo, "audio+audio_self") for combo in combos}
  expected |= {f"audio_{method}_CO"} if method else set()
  expected |= {train_step.SKIPPED} if step else set()
  assert terms.keys() == expected | {"total"}
  assert {(x.shape, str(x.dtype)) for x in terms.values()} == {((), "float32")}


def _train_smoke(name, argument, data_dir, workdir, **keys):
  config = _load(name, _small(argument))
  config.data.dir = str(data_dir)
  config.update(keys)
  progress = tiny_run.train_on_one(config, workdir)
  assert progress["epoch"] == config.epochs and progress["step"] > 0
  last = tiny_run.rows_of(workdir)[-1]
  assert last["kind"] == "validation" and np.isfinite(last["total"])
  encoder, meta = restore.load_encoder(workdir)
  assert encoder.backbone.features > 0
  assert meta["strategy"] == config_check.check_values(config).name


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
  "name, argument",
  [
    # Their steps are traced above; launch's test trains a smoke config.
    pytest.param("ss_resnet", "", marks=pytest.mark.long),
    pytest.param("cm_sc_cnn", "a_g_p", marks=pytest.mark.long),
    pytest.param("aim_sc_cnn", "artist", marks=pytest.mark.long),
    pytest.param("hybrid_sc_cnn", "genre+a_p", marks=pytest.mark.long),
  ],
)
def test_a_family_trains_on_the_smoke_sample(
  name, argument, smoke_sample, tmp_path
):
  _train_smoke(name, argument, smoke_sample, tmp_path, epochs=1)


@pytest.mark.long
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name, argument", _ON_SMOKE)
def test_every_variant_trains_on_the_smoke_sample(
  name, argument, smoke_sample, tmp_path
):
  _train_smoke(name, argument, smoke_sample, tmp_path)


@pytest.mark.long
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("argument", SAMPLE_FAMILIES)
def test_the_sample_config_trains_with_each_argument(
  argument, smoke_sample, tmp_path
):
  _train_smoke("sample", argument, smoke_sample, tmp_path)


def test_common_names_every_variant_once():
  assert common.CROSS_MODAL == CROSS
  assert common.PAIR_METHODS == PAIRS


@pytest.mark.parametrize("name", [*FAMILY_FILES, "sample", "library"])
def test_the_word_augmented_turns_on_augmentation_and_nothing_else(name):
  plain, small = _load(name), _load(name, "augmented,smoke").augmentation
  changed = _load(name, "augmented")
  config_check.check_values(changed)
  given = changed.augmentation.to_dict()
  assert feature_augmentation.Strengths(**given).is_on
  assert small.to_dict() == given
  changed.augmentation = plain.augmentation
  assert changed.to_dict() == plain.to_dict()
