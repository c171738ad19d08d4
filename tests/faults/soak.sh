#!/usr/bin/env bash
# A training that goes on for long, with frequent checkpoints, kills and resumes, over and over a text of which it has
# read many passes in its first half minute: the memory of its processes stays what it was then, to within 16 MiB, and
# what is on the disk does not grow.
#
#   tests/faults/soak.sh [MINUTES [FOLDER]]        default: 30 minutes in a temporary folder
set -euo pipefail
minutes=${1:-30}
folder=${2:-$(mktemp -d)}
root=$(cd "$(dirname "$0")/../.." && pwd)
binary=$root/gemma_sae
kMost=16384   # KiB that a process may grow by
kSettled=30   # seconds until what it holds is counted
kLife=$((minutes * 12 > 60 ? minutes * 12 : 60))  # seconds of a process, until it is killed
mkdir -p "$folder/data"
cd "$folder"
# Not the demo's corpus: a pass over it takes minutes, and what is held settles in the second one.
for source in "$root"/{kernels,model,sae,io,tools}/*.cc "$root"/docs/*.md; do
  cp "$source" "data/$(basename "$source").txt"
done
export OMP_WAIT_POLICY=passive
resident() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status" 2>/dev/null || true; }

command=("$binary" train --model demo --data data/*.txt --layer 3 --site res,mlp --width 1k --l0 16,32 --tokens 1000G --context 256 --batch 1024
  --buffer 32k --log-every 50 --checkpoint-every 2s --eval-contexts 0 --quiet --out "$folder/run")
end=$((SECONDS + minutes * 60)) kills=0 worst=0 saved=0 newest=
while [ "$SECONDS" -lt "$end" ]; do
  "${command[@]}" >>"$folder/said" 2>&1 &
  child=$! began=$SECONDS first=
  while [ "$SECONDS" -lt "$end" ] && [ $((SECONDS - began)) -lt "$kLife" ]; do
    sleep 1
    kill -0 "$child" 2>/dev/null || { echo "FAILED: it ended by itself"; cat "$folder/said"; exit 1; }
    now=$(ls -t run/checkpoints 2>/dev/null | head -1 || true)
    [ "$now" = "$newest" ] || { newest=$now saved=$((saved + 1)); }
    kib=$(resident "$child")
    [ $((SECONDS - began)) -lt "$kSettled" ] || [ -z "$kib" ] && continue
    [ -n "$first" ] || first=$kib
    grown=$((kib - first))
    [ "$grown" -le "$worst" ] || worst=$grown
    [ "$grown" -le "$kMost" ] || { echo "FAILED: from $first to $kib KiB"; kill -9 "$child"; exit 1; }
  done
  kill -9 "$child" && { wait "$child" 2>/dev/null || true; }
  kills=$((kills + 1))
  command=("$binary" train --resume "$folder/run" --quiet)
  left=$(find run/checkpoints -maxdepth 1 -mindepth 1 | wc -l)
  [ "$left" -le 4 ] || { echo "FAILED: $left checkpoints are there"; exit 1; }
done
steps=$(tail -1 run/train.jsonl | grep -oE '"step":[0-9]+' | cut -d: -f2)
holes=$(grep -oE '"step":[0-9]+' run/train.jsonl | cut -d: -f2 | awk 'n++ % 4 == 0 { if ($1 != last + 50) print; last = $1 }' | wc -l)
[ "$holes" = 0 ] || { echo "FAILED: $holes holes in train.jsonl"; exit 1; }
echo "$minutes minutes, $steps steps, at least $saved checkpoints, $kills kills: a process grew by at most $worst KiB after its first $kSettled s;"
echo "no hole in train.jsonl"
rm -rf "$folder/run"
