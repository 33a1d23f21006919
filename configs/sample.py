"""The synthesised sample: any strategy, a small ResNet, minutes on two cores.

python launch.py --config=configs/sample.py --workdir=runs/sample
python launch.py --config=configs/sample.py:aim --workdir=runs/sample_aim
python launch.py --config=configs/sample.py:aim+artist --workdir=runs/artist

The data set is made in data/sample where it is absent.
Arguments: hybrid (default), ss, cm, aim, each but ss also with the variant that
  the family's own config takes (cm+a_g, aim+artist, hybrid+genre+a_p); `smoke`
  alone or after a comma for seconds instead of minutes; `augmented` after a
  comma changes the patches at random.
"""

import ml_collections

from configs import common

# A family alone is its first variant.
ARGUMENTS = (
  *common.STRATEGIES,
  *(
    f"{family}+{variant}"
    for family, variants in common.STRATEGIES.items()
    for variant in filter(None, variants)
  ),
)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  """Returns a configuration sized for the sample; not the paper's values."""
  chosen, options = common.split_argument(argument, ARGUMENTS)
  family, _, variant = chosen.partition("+")
  config = common.of_strategy(family, "resnet", variant)
  if common.AUGMENTED in options:
    common.augmented(config)
  # Without genres to go by, more steps are needed; SS has twice as many in an
  # epoch.
  config.epochs = 60 if family in ("hybrid", "ss") else 100
  config.early_stop_patience = 40  # Of few steps each.
  config.data.dir = "data/sample"
  config.data.sample_songs = 600
  config.data.batch_size = 64 if family == "cm" else 32
  config.model_params.audio.width = 16
  config.opt_params.lr = 5e-4
  config.log_every_steps = 10
  if common.SMOKE in options:
    common.make_small(config)
  return config
