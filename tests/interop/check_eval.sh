#!/bin/sh
# One SAE on the same tokens, evaluated by gemma_sae, by SAELens and by dictionary_learning, side by side; then what makes the difference,
# formula by formula. Prints a table, and fails if a difference is left over.
#
#   tests/interop/check_eval.sh GEMMA_SAE PYTHON
#
# PYTHON has torch, transformers, sae-lens and dictionary-learning. The SAE and its tokens are those of tests/data/eval: 4,096 latents on
# layer 3 of the demo model.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
gemma_sae=$1 python=$2
data=$here/../data/eval model=$here/../../tools/demo/model
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for format in saelens dictionary-learning; do
  "$gemma_sae" export --sae "$data/params.npz" --model demo --layer 3 --site res --format $format --out "$work/$format" --quiet >/dev/null
done
"$gemma_sae" eval --model demo --sae "$data/params.npz" --layer 3 --site res --data "$data/tokens.npy" --split all \
  --json "$work/ours.json" --quiet >/dev/null
"$python" "$here/check_eval.py" "$model" "$data/tokens.npy" "$work/ours.json" "$work"
