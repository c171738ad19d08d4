#!/usr/bin/env bash
# Runs each libFuzzer program for so many seconds, from its seeds and from what earlier runs have found, and says how
# many inputs it has tried. What makes one crash, hang or take too much memory lies in BUILD/found then.
#
#   tests/fuzz/fuzz.sh BUILD [SECONDS [REGEX]]
set -euo pipefail
build=$(realpath "$1") seconds=${2:-600} regex=${3:-.}
seeds=$(cd "$(dirname "$0")" && pwd)/seeds
TMPDIR=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")" gsae_fuzz.XXXXXX)  # inputs become files
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
failed=0 ran=0
for program in $(find "$build/tests" -maxdepth 1 -name '*_fuzz' -type f | sort); do
  name=$(basename "$program" _fuzz)
  [[ $name =~ $regex ]] || continue
  corpus=$build/corpus/$name log=$build/$name.log
  mkdir -p "$corpus" "$build/found"
  status=0
  # -malloc_limit_mb: a Zstandard window may have 128 MiB; -timeout: seconds for one input, on a machine that may be busy
  "$program" "$corpus" "$seeds/$name" -max_total_time="$seconds" -max_len="${FUZZ_MAX_LEN:-16384}" -timeout=60 \
    -rss_limit_mb=1024 -malloc_limit_mb=256 -print_final_stats=1 -artifact_prefix="$build/found/$name-" \
    >"$log" 2>&1 || status=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
  covered=$(grep -aoE 'cov: [0-9]+' "$log" | tail -1 || true)
  echo "$name: ${runs:-?} inputs, ${covered:-no coverage}, peak ${peak:-?} MiB, status $status"
  ran=$((ran + 1))
  if [ "$status" != 0 ]; then
    failed=1
    grep -aE 'ERROR|SUMMARY|runtime error|Test unit written' "$log" || tail -5 "$log"
  fi
done
[ "$ran" -gt 0 ] || { echo "no program matches $regex"; exit 1; }
exit "$failed"
