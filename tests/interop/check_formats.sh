#!/bin/sh
# Exports a trained SAE in every format, has the packages that own the formats read it, and compares what they compute with
# it; then the way back: what the packages write, imported. Prints a table, and fails if anything differs by more than 1e-5.
#
#   tests/interop/check_formats.sh GEMMA_SAE PYTHON [RUN]
#
# PYTHON has torch, safetensors, sae-lens, dictionary-learning and circuit-tracer. RUN: a folder that `gemma_sae train
# --model demo` wrote, of one SAE; without it one is trained, in some seconds.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
gemma_sae=$1 python=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run=${3:-$work/run}
[ -d "$run" ] || "$gemma_sae" train --model demo --layer 3 --width 1k --l0 32 --tokens 200k --context 256 \
  --checkpoint-every 0 --eval-loss-contexts 8 --out "$run" --quiet >/dev/null
"$gemma_sae" activations --model demo --layer 3 --site res --rows 2000 --out "$work/x.safetensors" --quiet
for format in gemma-scope saelens dictionary-learning circuit-tracer; do
  "$gemma_sae" export --sae "$run" --format $format --out "$work/ours/$format" --quiet >/dev/null
done
HF_HUB_OFFLINE=1 WANDB_MODE=disabled "$python" "$here/check_formats.py" write "$work"
for format in gemma-scope-2 saelens dictionary-learning circuit-tracer; do
  "$gemma_sae" import --from "$work/theirs/$format" --out "$work/imported/$format" --model demo --site res --layer 3 \
    --quiet >/dev/null
done
HF_HUB_OFFLINE=1 WANDB_MODE=disabled "$python" "$here/check_formats.py" compare "$work"
