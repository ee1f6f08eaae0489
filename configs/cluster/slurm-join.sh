#!/usr/bin/env bash
# Puts the parts of configs/cluster/slurm-merge.sh together. It reads every byte once and computes nothing, so one node without a GPU does.
#SBATCH --job-name=join
#SBATCH --cpus-per-task=8
#SBATCH --mem=4G
set -euo pipefail
recipe=${1:?usage: slurm-join.sh RECIPE OUT}
out=${2:?usage: slurm-join.sh RECIPE OUT}
read -r -a options <<<"${OPTIONS:---shard-size 2GB}"
exec "${MERGEKIT:-mergekit}" join "$recipe" "$out" "${options[@]}"
