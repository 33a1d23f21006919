#!/bin/bash
# sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --cpus-per-task=4 \
#   examples/slurm/train.sh --config=configs/hybrid_resnet.py --workdir=runs/hybrid
#
# Trains by Slurm, one task a GPU, and goes on by itself when the time is over, a
# job of higher priority needs the nodes, or an administrator requeues the job.
#SBATCH --requeue --open-mode=append --signal=TERM@120
# Of srun itself: it does not pass this on by itself since 22.05.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
# Slurm signals the tasks, and srun then returns what they did. The script's own
# copy of a signal must not end it before that.
trap : TERM
srun "${PYTHON:-.venv/bin/python}" launch.py --stopped_code=75 "$@" &
step=$!
wait "$step"; code=$?
while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done
# 75: stopped by a signal, and saved. 143: stopped before it trained. What fails
# in another way is left to a person, and a node that fails to Slurm.
if [ "$code" -eq 75 ] || [ "$code" -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
