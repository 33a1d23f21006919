"""Strategy SS: two patches of one song, ResNet-18.

python launch.py --config=configs/ss_resnet.py --workdir=runs/ss_resnet
python launch.py --config=configs/ss_resnet.py:smoke --workdir=runs/smoke

Arguments: (none); `smoke` alone or after a
  comma runs it on a small sample, on a CPU, in seconds.
Cost: not measured on the full data set.
"""

import ml_collections

from configs import common


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  """Returns the paper's values."""
  return common.self_supervised("resnet", argument)
