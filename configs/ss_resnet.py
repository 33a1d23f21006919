"""SS: two patches of one song, ResNet-18.

python launch.py --config=configs/ss_resnet.py --workdir=runs/ss_resnet
python launch.py --config=configs/ss_resnet.py:smoke --workdir=runs/smoke

Arguments: `smoke`, for a small sample of its own, on a CPU, in seconds.
"""

from configs import common


def get_config(argument: str = ""):
  return common.of_strategy("ss", "resnet", argument)
