#!/usr/bin/env bash
# A file system of its own that is too small, and fills up: a run on a tmpfs, smaller or larger by steps of 100 kB from
# nothing to where the run fits. Whatever it comes to is resumed once there is more room, and must end in the bytes of
# the run that had enough. Needs root, and mount.
#
#   tests/faults/full_disk.sh [BINARY]       default: ./gemma_sae
set -euo pipefail
binary=$(realpath "${1:-$(dirname "$0")/../../gemma_sae}")
folder=$(mktemp -d)
disk=$folder/disk
mkdir "$disk"
if [ "$(id -u)" != 0 ] || ! mount -t tmpfs -o size=64k tmpfs "$disk" 2>/dev/null; then
  echo "SKIPPED: no tmpfs can be mounted here (that needs root)"
  rm -r "$folder"
  exit 77
fi
umount "$disk"
trap 'umount "$disk" 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"
export OMP_WAIT_POLICY=passive

for i in $(seq 600); do echo "{\"text\": \"$i documents tell of $((i * i % 97)) rivers, $((i * 31 % 89)) hills and a house.\"}"; done >data.jsonl
run=(train --model demo --data data.jsonl --layer 1 --width 128 --l0 8 --batch 64 --steps 12 --context 32 --model-batch 2
  --log-every 1 --eval-contexts 0 --threads 1 --quiet --buffer 640 --checkpoint-every 64)
params() { (cd "$1" && find . -name params.npz -path '*layer_*' | sort | xargs sha256sum); }
"$binary" "${run[@]}" --out whole
params whole >whole.txt

declare -A ended
tried=0 most=0
for ((kib = 4; kib <= 4096; kib += 100)); do
  mount -t tmpfs -o size=${kib}k tmpfs "$disk"
  # the check before the run would refuse it: the rest of the disk is taken once it has begun to train
  mount -o remount,size=200m "$disk"
  status=0
  "$binary" "${run[@]}" --out "$disk/run" >log 2>&1 &
  child=$!
  for ((i = 0; i < 2000; ++i)); do [ -s "$disk/run/config.json" ] && break; sleep 0.002; done
  mount -o remount,size=${kib}k "$disk" 2>/dev/null || dd if=/dev/zero of="$disk/taken" bs=1k count=204800 2>/dev/null || true
  wait "$child" || status=$?
  if [ "$status" != 0 ] && [ "$status" != 1 ]; then echo "FAILED: ${kib} KiB: status $status"; cat log; exit 1; fi
  rm -f "$disk/taken"
  mount -o remount,size=200m "$disk"
  how="finished, exit status 0"
  if [ "$status" = 1 ]; then
    how="stopped, exit status 1"
    grep -q "results are whole" log && how="finished, exit status 1"
    if [ -e "$disk/run/run.json" ]; then "$binary" train --resume "$disk/run" --quiet >resumed 2>&1 || { echo "FAILED: ${kib} KiB"; cat log resumed; exit 1; }
    else "$binary" "${run[@]}" --out "$disk/run"; fi
  fi
  ended[$how]=$((${ended[$how]:-0} + 1))
  params "$disk/run" | cmp - whole.txt || { echo "FAILED: ${kib} KiB: other bytes"; cat log; exit 1; }
  umount "$disk"
  tried=$((tried + 1)) most=$kib
done
echo "$tried sizes of the disk from 4 to $most KiB; every run ended in the bytes of the one that had room"
for how in "${!ended[@]}"; do echo "  ${ended[$how]}  $how"; done
