r"""Trains an audio encoder.

python launch.py --config=configs/sample.py --workdir=runs/sample
python launch.py --config=configs/hybrid_resnet.py --workdir=runs/hybrid
python launch.py --config=configs/cm_resnet.py:a_p --workdir=runs/cm \
  --config.data.dir=data/melon --config.opt_params.lr=3e-4

On two hosts, at once (docs/several_hosts.md has Slurm and TPU slices):

python launch.py --config=configs/hybrid_resnet.py --workdir=/shared/hybrid \
  --coordinator=host0:12355 --num_processes=2 --process_id=0
python launch.py --config=configs/hybrid_resnet.py --workdir=/shared/hybrid \
  --coordinator=host0:12355 --num_processes=2 --process_id=1

The same command line resumes an interrupted run. SIGTERM and Ctrl-C end it
after the step under way, which is saved; a second one ends it at once.

The exit code is 0 where a run is done, and --stopped_code, 0 by default, where
a signal has stopped it.
"""

from collections.abc import Sequence
import os
import re
import sys

from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from pcl_jax.common import errors
from pcl_jax.common import file_names
from pcl_jax.common import programs

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Config file; its argument follows a colon.",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run: config, checkpoints, metrics. By default runs/NAME, if "
  "config.wandb_params.run_name gives a name.",
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed",
  None,
  "Train as one of several processes; default if Slurm, Open MPI or GKE has "
  "started several, or one of the flags below is given.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of process 0, if no cluster tells it."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Number of processes, if no cluster tells it."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Number of this process, from 0, if no cluster tells it."
)
_STOPPED_CODE = flags.DEFINE_integer(
  "stopped_code",
  0,
  "Exit code where a signal has stopped the run before its end, so that who "
  "started it can tell that from a run that is done.",
  lower_bound=0,
  upper_bound=255,
)
_PROFILE = flags.DEFINE_bool(
  "profile", False, "Write a trace of some steps into WORKDIR/profile."
)
_ALLOW_CHANGE = flags.DEFINE_multi_string(
  "allow_change",
  [],
  "Keys of the config that may differ from those of the run in --workdir, "
  "separated by commas or one a flag. A key above others stands for all of "
  "them, and data.fingerprint for the data set.",
)
_REPLAY = flags.DEFINE_string(
  "replay",
  None,
  "A file of WORKDIR/nonfinite. Prints which value of that batch was the first "
  "that is infinite or not a number, and trains nothing.",
)
flags.mark_flag_as_required("config")


def _describe(error: BaseException) -> str:
  """Returns one line on an error in parsing flags."""
  chain = [error]
  while cause := chain[-1].__cause__ or chain[-1].__context__:
    chain.append(cause)  # config_flags wraps what a config file raises.
  for one in reversed(chain):
    if isinstance(one, errors.InputError):
      return str(one)
  if isinstance(error, AttributeError | KeyError):
    hint = re.search(r'Did you mean "(.*?)"', str(error))
    return (
      "--config.KEY: the config file has no such key "
      f"({chain[-1].args[0]}).{f' Did you mean {hint[1]}?' if hint else ''}"
    )
  if isinstance(error, OSError):
    return (
      "--config: the config file cannot be read "
      f"({str(chain[-1]).splitlines()[-1].strip()}). Give a config of the "
      "project, as in --config=configs/sample.py, or the path of your own"
    )
  return str(error)


def _with_home(word: str) -> str:
  """Returns a word in which --config=~/FILE has the user's folder."""
  flag, equals, value = word.partition("=")
  if flag.lstrip("-") == "config":
    value = os.path.expanduser(value)
  return f"{flag}{equals}{value}"


def _workdir() -> str:
  """Returns --workdir, or the folder that the run's name stands for."""
  if _WORKDIR.value is not None:
    return _WORKDIR.value
  name = _CONFIG.value.wandb_params.run_name
  if not name:
    raise errors.InputError(
      "--workdir is missing: give a folder for the run, as in "
      "--workdir=runs/mine, or a name, as in "
      "--config.wandb_params.run_name=mine."
    )
  if name in (".", "..") or re.search(r"[/\\]", name):
    raise errors.InputError(
      f"config.wandb_params.run_name is {name!r}, and no folder can have this "
      "name: give a --workdir."
    )
  return os.path.join("runs", name)


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses the command line; a bad flag is one line and exit code 2."""
  file_names.print_any_text()
  if any(word in ("-h", "-help", "--help", "--helpfull") for word in argv[1:]):
    print(programs.fit(__doc__))
    print(flags.FLAGS.main_module_help())
    sys.exit(0)
  # Before app.run chooses a level at which libraries log details.
  if flags.FLAGS["verbosity"].using_default_value:
    flags.FLAGS["verbosity"].value = logging.WARNING
    flags.FLAGS["verbosity"].using_default_value = False
  try:
    rest = flags.FLAGS(list(map(_with_home, argv)))
    _ = _CONFIG.value.seed  # A missing config file is reported on first use.
    _workdir()
    if len(rest) > 1:
      raise errors.InputError(f"{rest[1]!r} is not a flag; see --help.")
    return rest
  except (flags.Error, OSError, ValueError, AttributeError, KeyError) as error:
    print(f"error: {programs.fit(_describe(error))}", file=sys.stderr)
    sys.exit(errors.EXIT_BAD_INPUT)


def main(argv: Sequence[str]) -> None:
  """Trains by the flags."""
  del argv
  # Imported here so that a bad command line is answered at once.
  from pcl_jax.common import hosts
  from pcl_jax.common import jax_setup
  from pcl_jax.training import config_check
  from pcl_jax.training import loop
  from pcl_jax.training import replay
  from preprocessing import sample_data

  code = 0

  def start() -> None:
    nonlocal code
    config_check.check_values(_CONFIG.value)  # Before minutes go into a sample.
    others = {
      "coordinator": _COORDINATOR.value,
      "num_processes": _NUM_PROCESSES.value,
      "process_id": _PROCESS_ID.value,
    }
    if hosts.are_asked_for(_DISTRIBUTED.value, **others):
      hosts.connect(**others)
    jax_setup.start()
    data = _CONFIG.value.data
    hosts.await_first(
      lambda: sample_data.make_where_absent(
        data.dir, songs=data.sample_songs, seconds=data.sample_seconds
      )
    )
    keys = [key for key in ",".join(_ALLOW_CHANGE.value).split(",") if key]
    if _REPLAY.value is not None:
      replay.replay(_CONFIG.value, _workdir(), _REPLAY.value, keys)
      return
    progress = loop.train_and_evaluate(
      _CONFIG.value,
      _workdir(),
      profile=_PROFILE.value,
      allow_change=keys,
    )
    code = _STOPPED_CODE.value if progress["stopped_by"] else 0

  logging.use_absl_handler()
  try:
    hosts.run_command(start)
  except SystemExit as end:
    sys.exit(end.code or code)


if __name__ == "__main__":
  app.run(main, flags_parser=parse_flags)
