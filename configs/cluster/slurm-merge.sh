#!/usr/bin/env bash
# A merge as a Slurm job array: every task merges its share of the output's shards. RECIPE, the models and OUT are on a file system that
# all nodes see. A task that fails or is preempted is requeued and goes on where it was.
#
#   sbatch --array=0-7 configs/cluster/slurm-merge.sh recipe.yml /shared/merged
#   sbatch --dependency=afterok:JOBID configs/cluster/slurm-join.sh recipe.yml /shared/merged
#
# OPTIONS are further flags of mergekit merge; join takes the same. Choose --shard-size so that there are at least as many shards as tasks.
#SBATCH --job-name=merge
#SBATCH --cpus-per-task=16
#SBATCH --mem=8G
#SBATCH --requeue
set -euo pipefail
recipe=${1:?usage: slurm-merge.sh RECIPE OUT}
out=${2:?usage: slurm-merge.sh RECIPE OUT}
part=$((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-0} + 1))
read -r -a options <<<"${OPTIONS:---shard-size 2GB}"
exec "${MERGEKIT:-mergekit}" merge "$recipe" "$out" --part "$part/$SLURM_ARRAY_TASK_COUNT" --resume "${options[@]}"
