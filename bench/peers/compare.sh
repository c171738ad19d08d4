#!/usr/bin/env bash
# The same job by SAELens, dictionary_learning, transformers and gemma_sae, on the same cores, taking turns, and a table
# of tokens per second with ratios. bench/peers/README.md says what is compared. From the environment:
#   PEERS_PYTHON   python with the peers (default: out/peers/env/bin/python, made by setup_env.sh)
#   TOKENS=400000  of each training run
#   ROUNDS=3       each tool runs once a round; the table gives medians
#   THREADS=2      of every tool
#   OUT=out/peers  where the packed tokens and the raw results go
set -euo pipefail
cd "$(dirname "$0")/../.."
peers=bench/peers
out=${OUT:-out/peers}
python=${PEERS_PYTHON:-out/peers/env/bin/python}
tokens=${TOKENS:-400000} rounds=${ROUNDS:-3} threads=${THREADS:-2}
model=tools/demo/model
job=(--layer 3 --width 4096 --l0 32 --tokens "$tokens" --threads "$threads")

command -v "$python" >/dev/null || { echo "compare: $python is not there; run $peers/setup_env.sh first" >&2; exit 1; }
[[ -x ./gemma_sae && -x build/cpu/bench/forward_bench ]] || { echo "compare: run make and make bench first" >&2; exit 1; }

mkdir -p "$out"
[[ -f $out/tokens.npy ]] || "$python" $peers/make_tokens.py tools/demo/corpus.jsonl.zst $model/tokenizer.model "$out/tokens.npy"
results=$out/results.jsonl
rm -f "$results" "$out"/forward.*.json

say() { echo "compare: $(date +%T) round $round of $rounds: $*"; }

# Runs a command quietly; shows what it said only if it fails.
quietly() { "$@" >"$out/log" 2>&1 || { cat "$out/log" >&2; echo "compare: failed: $*" >&2; exit 1; }; }

ours() { # NAME TRAIN-OPTIONS...: the whole process by the clock, from start to written SAE
  local name=$1 run=$out/run start end
  shift
  rm -rf "$run"
  start=$(date +%s.%N)
  quietly ./gemma_sae train --model demo --data "$out/tokens.npy" --out "$run" --quiet --eval-contexts 0 "${job[@]}" "$@"
  end=$(date +%s.%N)
  "$python" -c 'import sys; sys.path.insert(0, sys.argv[1]); import result
result.append(sys.argv[2], "gemma_sae", sys.argv[3], int(sys.argv[4]), float(sys.argv[6]) - float(sys.argv[5]))' \
    $peers "$results" "$name" "$tokens" "$start" "$end"
  rm -rf "$run"
}

for ((round = 1; round <= rounds; round++)); do
  say transformers, forward
  quietly "$python" $peers/forward_transformers.py $model "$out/tokens.npy" "$results" --threads "$threads"
  say gemma_sae, forward
  OMP_NUM_THREADS=$threads quietly build/cpu/bench/forward_bench --benchmark_repetitions=3 \
    --benchmark_out="$out/forward.$round.json" --benchmark_out_format=json
  say SAELens, training
  quietly "$python" $peers/saelens_run.py $model "$out/tokens.npy" "$results" "${job[@]}"
  say dictionary_learning, training
  quietly "$python" $peers/dl_run.py $model "$out/tokens.npy" "$results" "${job[@]}"
  say gemma_sae, training
  ours "training, f32" --dtype f32 --precision f32
  ours "training, bf16" --dtype bf16 --precision bf16
done
"$python" $peers/table.py "$results" "$out"/forward.*.json
