"""CM: audio against playlist and genre vectors, ResNet-18.

python launch.py --config=configs/cm_resnet.py --workdir=runs/cm_resnet
python launch.py --config=configs/cm_resnet.py:a_p --workdir=runs/cm

Arguments: a_p (default), a_g, a_g_p; `smoke` alone or after a comma
  for a small sample of its own, on a CPU, in seconds.
"""

from configs import common


def get_config(argument: str = ""):
  return common.of_strategy("cm", "resnet", argument)
