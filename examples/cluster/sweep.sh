#!/bin/sh
# Runs a sweep on a Ray cluster; started on its head node, from the shared directory in which studies are kept:
#   sh sweep.sh study.toml --name mine --gpus-per-trial 0.5
set -eu
file=$1
shift
exec paretoprune sweep "$file" --address "${RAY_HEAD:-auto}" --directory "${SHARED:-$PWD/mlruns}" "$@"
