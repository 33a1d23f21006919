"""SS: two patches of one song, SC-CNN.

python launch.py --config=configs/ss_sc_cnn.py --workdir=runs/ss_sc_cnn
python launch.py --config=configs/ss_sc_cnn.py:smoke --workdir=runs/smoke

Arguments: `smoke`, for a small sample of its own, on a CPU, in seconds.
"""

from configs import common


def get_config(argument: str = ""):
  return common.of_strategy("ss", "sc_cnn", argument)
