#!/usr/bin/env bash
# Kills training runs with SIGKILL at random moments, resumes them until they end, and compares what they leave with a
# run that was never stopped: params.npz byte for byte, and train.jsonl but for what was measured of the time. Says how
# many kills fell into which stage. A difference, or a resume that fails, ends it with status 1 and keeps the folder.
#
#   tests/faults/random_kills.sh [KILLS [FOLDER]]        default: 200 kills in a temporary folder
set -euo pipefail
kills=${1:-200}
folder=${2:-$(mktemp -d)}
binary=$(cd "$(dirname "$0")/../.." && pwd)/gemma_sae
mkdir -p "$folder"
cd "$folder"

for i in $(seq 600); do echo "{\"text\": \"$i documents tell of $((i * i % 97)) rivers, $((i * 31 % 89)) hills and a house.\"}"; done >data.jsonl
run=(train --model demo --data data.jsonl --layer 1 --site res,mlp --width 256 --l0 8 --passes 2 --batch 64 --steps 150
  --context 32 --model-batch 2 --log-every 3 --eval-contexts 4 --threads 1 --quiet --buffer 4k --checkpoint-every 64)

what_it_left() { # of a run: its files, without times
  (cd "$1" && find . -name params.npz | sort | xargs sha256sum)
  sed -E 's/"(tokens_per_second|model_seconds|sae_seconds|roof_fraction)":[^,}]*//g' "$1/train.jsonl"
}
stage_of() {
  if [ ! -e "$1/run.json" ]; then echo "loading"
  elif [ -n "$(find "$1" -maxdepth 2 -name '.writing-*' 2>/dev/null)" ]; then echo "writing a checkpoint"
  elif [ -z "$(ls "$1/checkpoints" 2>/dev/null)" ]; then echo "filling, before the first checkpoint"
  elif [ -e "$1/checkpoints/pass_3_step_0" ]; then echo "evaluating, finishing"
  elif [ -n "$(find "$1" -name params.npz -o -name '*.tmp-*' 2>/dev/null | grep -v checkpoints)" ]; then echo "stepping or writing results, second pass"
  else echo "stepping, first pass"; fi
}

"$binary" "${run[@]}" --out whole >/dev/null
what_it_left whole >whole.txt
declare -A stages
done_kills=0 ended=0 number=0
while [ "$done_kills" -lt "$kills" ]; do
  number=$((number + 1)) out=run_$number
  command=("${run[@]}" --out "$out")
  while true; do
    "$binary" "${command[@]}" >"$out.log" 2>&1 &
    child=$!
    # most die young, some are let go far
    sleep "$(awk -v seed=$((RANDOM * 32768 + RANDOM)) 'BEGIN { srand(seed); u = rand(); print u * u * 2.5 }')"
    if [ "$done_kills" -lt "$kills" ] && kill -9 "$child" 2>/dev/null; then
      wait "$child" 2>/dev/null && break
      done_kills=$((done_kills + 1))
      stage=$(stage_of "$out")
      stages[$stage]=$((${stages[$stage]:-0} + 1))
    elif wait "$child"; then break
    else echo "FAILED: ${command[*]}"; cat "$out.log"; exit 1; fi
    if [ -e "$out/run.json" ]; then command=(train --resume "$out")
    else rm -rf "$out"; command=("${run[@]}" --out "$out"); fi
  done
  what_it_left "$out" >"$out.txt"
  cmp whole.txt "$out.txt" || { echo "FAILED: $folder/$out differs from $folder/whole"; exit 1; }
  [ ! -e "$out/checkpoints" ] || { echo "FAILED: $folder/$out/checkpoints is left"; exit 1; }
  ended=$((ended + 1))
  rm -rf "$out" "$out.log" "$out.txt"
done
echo "$done_kills kills over $ended runs, each of which ended in the bytes of the run that was never stopped"
for stage in "${!stages[@]}"; do echo "  ${stages[$stage]}  $stage"; done | sort -rn
