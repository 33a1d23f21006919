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
  config.data.dir = "data/sample"
  config.data.sample_songs = 720
  config.data.batch_size = 32 if family == "cm" else 16
  config.model_params.audio.width = 8
  config.opt_params.lr = 2e-3
  config.log_every_steps = 10
  if common.SMOKE in options:
    common.make_small(config)
    return config
  config.steps = 480
  config.validate_every_steps = 80
  # As the rate falls to 0, the last weights are among the best.
  config.early_stop_patience = 1_000
  config.opt_params.lr_schedule = "cosine"
  config.opt_params.warmup_steps = 40
  return config
