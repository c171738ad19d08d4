#!/usr/bin/env bash
# Everything that only a real GPU can say, in under ten minutes: needs bash, coreutils and awk, a driver and cuBLASLt.
#
#   gpu_check.sh [--out DIR] [--quick] [--parts LIST] [--tests REGEX] [--jobs N] [--build DIR]
#
#   --out DIR      where the report goes: gpu_check.md, gpu_check.json, and what each part left (default: gpu_check)
#   --quick        less of everything, in two minutes
#   --parts LIST   of these only: machine,tests,sanitizer,demo,bench,ops (default: all, in this order)
#   --tests REGEX  of the test programs only these
#   --jobs N       test programs at a time (default: the processors)
#   --build DIR    check this build folder (default: the bundle that this script is in, else build/cuda)
#
# A part that fails or runs out of time does not stop the others. Exit status: 0 if all is well, 1 if something failed.
set -uo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)

out=gpu_check quick= parts=machine,tests,sanitizer,demo,bench,ops only=. jobs=$(nproc) build=
while [[ $# -gt 0 ]]; do
  case $1 in
    --quick) quick=1 && shift && continue ;;
    --out | --parts | --tests | --jobs | --build) [[ $# -ge 2 ]] || { echo "gpu_check: $1 wants a value" >&2; exit 2; } ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *) echo "gpu_check: $1 is not an option; --help lists them" >&2 && exit 2 ;;
  esac
  case $1 in
    --out) out=$2 ;; --parts) parts=$2 ;; --tests) only=$2 ;; --jobs) jobs=$2 ;; --build) build=$2 ;;
  esac
  shift 2
done

if [[ -z $build && -x $here/bin/gemma_sae ]]; then
  root=$here binary=bin/gemma_sae
else
  root=${build:-$here/../build/cuda} binary=gemma_sae
fi
[[ -x $root/$binary ]] ||
  { echo "gpu_check: there is no $root/$binary: make bundle, or make with nvcc, builds it" >&2; exit 2; }
root=$(cd "$root" && pwd) binary=$root/$binary
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
rm -rf "$out"/{machine,tests,sanitizer,demo,bench,ops,parts} "$out"/gpu_check.{json,md}
mkdir -p "$out"/{machine,tests,sanitizer,demo,bench,ops,parts}
exec 3>&1 > >(tee "$out/gpu_check.log") 2>&1

# ---- time

began=$EPOCHSECONDS
end=$((began + 570))
[[ $quick ]] && end=$((began + 150))
part_end=$end
# limited SECONDS COMMAND...: COMMAND, for as long as it, its part and the whole check may still take
limited() {
  local left=$(((part_end < end ? part_end : end) - EPOCHSECONDS)) most=$1
  shift
  ((left > most)) && left=$most
  ((left > 0)) || return 124
  timeout -k 5 "$left" "$@"
}

# ---- JSON: what programs print is taken as it is, the rest is put together here

json_string() { # a text -> "a text"
  local s=${1//\\/\\\\}
  s=${s//\"/\\\"} s=${s//$'\n'/\\n} s=${s//$'\t'/\\t} s=${s//$'\r'/}
  printf '"%s"' "$s"
}
json_file() { # the JSON in a file, null if there is none
  if [[ -s $1 && $(head -c 1 "$1") == [\{\[] ]]; then cat "$1"; else printf null; fi
}
json_list() { # lines that are JSON -> a list
  paste -sd, | sed 's/^/[/; s/$/]/'
}
json_value() { # the value of "KEY": {"value": X ...} or of "KEY": X, at its first place in a file, written line by line
  awk -v key="\"$2\":" '
    found || index($0, key) {
      if (!found) sub(".*" key, "")
      found = 1
      if (match($0, /-?[0-9][-+.0-9eE]*|true|false/)) { print substr($0, RSTART, RLENGTH); exit }
    }' "$1" 2>/dev/null
}

# ---- parts

failed=0
declare -a done_parts=()
# part NAME SECONDS WHAT: runs part_NAME, which prints its findings for the table to $note
part() {
  local name=$1 budget=$2 what=$3 status since=$EPOCHSECONDS
  [[ ,$parts, == *,$name,* ]] || return 0
  [[ $quick ]] && budget=$(((budget + 3) / 4))
  part_end=$((EPOCHSECONDS + budget)) note=$out/parts/$name.note
  : >"$note"
  printf '\n==> %s: %s\n' "$name" "$what"
  if [[ $name != machine && $why ]]; then
    echo "not run: no GPU" | tee "$note"
    status=failed
  elif ((EPOCHSECONDS >= end)); then
    echo "not run: the time was up" | tee "$note"
    status=failed
  else
    "part_$name"
    case $? in 0) status=passed ;; 77) status=skipped ;; *) status=failed ;; esac
  fi
  [[ $status == failed ]] && failed=1
  printf '%s %s in %d s\n' "$name" "$status" $((EPOCHSECONDS - since))
  done_parts+=("$name")
  printf '%s\t%s\t%d\t%s\n' "$name" "$status" $((EPOCHSECONDS - since)) "$(paste -sd' ' "$note")" >"$out/parts/$name"
}

# Where libcublasLt is, if the loader does not find it by itself: with the toolkit, or in PyTorch's packages.
find_libraries() {
  local missing folder
  missing=$(ldd "$binary" | awk '/not found/ {print $1}' | sort -u)
  [[ $missing ]] || return 0
  for folder in /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib /opt/cuda/lib64 /usr/lib/x86_64-linux-gnu \
    $(command -v python3 >/dev/null && limited 20 python3 -c '
import glob, site, sys
for p in sys.path + site.getsitepackages(): print(*glob.glob(p + "/nvidia/*/lib"), sep="\n")' 2>/dev/null); do
    for library in $missing; do
      [[ -e $folder/$library ]] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder && break
    done
  done
  export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}
  missing=$(ldd "$binary" | awk '/not found/ {print $1}' | sort -u)
  [[ -z $missing ]] || why="no GPU can be used: the loader does not find $(paste -sd' ' <<<"$missing"); install CUDA's \
libraries, or set LD_LIBRARY_PATH"
}

part_machine() {
  local folder=$out/machine
  {
    uname -a
    head -n 2 /etc/os-release
    echo "$(nproc) processors, $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo)"
    [[ -e $root/VERSION ]] && cat "$root/VERSION"
    "$binary" --version
  } >"$folder/machine.txt" 2>&1
  cat "$folder/machine.txt"
  if command -v nvidia-smi >/dev/null; then
    limited 30 nvidia-smi -q >"$folder/nvidia-smi.txt" 2>&1
    limited 30 nvidia-smi --format=csv --query-gpu=name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.limit,temperature.gpu,ecc.mode.current,mig.mode.current,compute_mode,persistence_mode \
      2>&1 | tee "$folder/clocks.csv"
  else
    echo "no nvidia-smi"
  fi
  ldd "$binary" >"$folder/libraries.txt" 2>&1
  grep -E 'cuda|cublas' "$folder/libraries.txt"
  [[ $why ]] || limited 60 "$binary" doctor --json >"$folder/doctor.json" 2>"$folder/doctor.log" ||
    why="no GPU can be used: gemma_sae doctor fails: $(head -c 300 "$folder/doctor.log")"
  if [[ -z $why && $(json_value "$folder/doctor.json" available) != true ]]; then
    why="no GPU: $(sed -n 's/^ *"why": "\(.*\)",\{0,1\}$/\1/p' "$folder/doctor.json" | head -n 1)"
  fi
  [[ $why ]] && echo "$why" | tee "$note" && return 1
  limited 60 "$binary" doctor --device cuda | tee "$folder/doctor.txt"
  sed -n 's/^cuda:[0-9]* *//p' "$folder/doctor.txt" >"$note"
}

# One test program, for xargs: a line for the table, what it printed in its log.
run_test() {
  local program=$1 name status since passed skipped failures
  name=$(basename "$program") since=$(date +%s%N)
  limited "$test_seconds" "$program" --gtest_brief=1 "--gtest_output=json:$out/tests/$name.json" \
    "--gtest_filter=${filter:-*}" >"$out/tests/$name.log" 2>&1
  status=$?
  read -r passed skipped failures < <(awk '
    /"result": "SKIPPED"/ {++skipped}
    /"result": "COMPLETED"/ {++passed}
    /"failures": \[/ {++failures}
    END {print passed - failures, skipped + 0, failures + 0}' "$out/tests/$name.json" 2>/dev/null || echo 0 0 0)
  ((status == 0 && passed + skipped == 0)) && status=1 # nothing ran
  printf '%s\t%d\t%d\t%d\t%d\t%d\n' "$name" "$status" "$passed" "$failures" "$skipped" \
    $((($(date +%s%N) - since) / 1000000)) >"$out/tests/$name.line"
  if [[ $status -ne 0 ]]; then
    echo "FAILED $name (exit status $status$([[ $status == 124 ]] && echo ': out of time')); the end of its log:"
    tail -n 12 "$out/tests/$name.log" | sed 's/^/    /'
  fi
}

part_tests() {
  local programs
  mapfile -t programs < <(ls "$root"/tests/*_test 2>/dev/null | grep -E "/($only)[^/]*$")
  [[ ${#programs[@]} -gt 0 ]] || { echo "no test programs in $root/tests" | tee "$note"; return 1; }
  export GSAE_REQUIRE_CUDA=1 OMP_WAIT_POLICY=passive OMP_NUM_THREADS=2 out end part_end test_seconds=240 filter=
  export -f run_test limited
  # the long ones first: they decide when the last one ends
  local long='train_test|train_failures_test|cli_test|forward_test|sae_trainer_test|sae_golden_test|token_stream_test'
  { printf '%s\n' "${programs[@]}" | grep -E "/($long)$"
    printf '%s\n' "${programs[@]}" | grep -vE "/($long)$"
  } | xargs -P "$jobs" -I{} bash -c 'run_test {}'
  cat "$out"/tests/*.line >"$out/tests/results.tsv"
  awk -F'\t' '
    {passed += $3; failures += $4; skipped += $5; if ($2) bad = bad " " $1}
    END {
      printf "%d programs, %d tests passed, %d failed, %d skipped", NR, passed, failures, skipped
      print bad ? "; not well:" bad : ""
    }' "$out/tests/results.tsv" | tee "$note"
  ! awk -F'\t' '$2 {print}' "$out/tests/results.tsv" | grep -q .
}

# One program under one tool of the sanitizer, for xargs.
sanitize() {
  local tool=$1 program=$2 name status
  name=$tool.$(basename "$program")
  limited 100 "$sanitizer" --tool "$tool" --error-exitcode 99 --log-file "$out/sanitizer/$name.txt" "$program" \
    --gtest_brief=1 '--gtest_filter=*cuda*' >"$out/sanitizer/$name.log" 2>&1
  status=$?
  printf '%s\t%s\t%d\t%s\n' "$tool" "$(basename "$program")" "$status" \
    "$(grep -hE 'ERROR SUMMARY|RACECHECK SUMMARY' "$out/sanitizer/$name.txt" 2>/dev/null | tail -n 1 | sed 's/^=* *//')" \
    >"$out/sanitizer/$name.line"
  [[ $status == 0 || $status == 124 ]] || { echo "FAILED $name (exit status $status)"; head -n 30 "$out/sanitizer/$name.txt"; }
}

part_sanitizer() {
  sanitizer=$(ls -d "$(command -v compute-sanitizer)" /usr/local/cuda*/bin/compute-sanitizer \
    /usr/local/cuda*/compute-sanitizer/compute-sanitizer /opt/nvidia/*/compute-sanitizer 2>/dev/null | head -n 1)
  [[ $sanitizer ]] || { echo "no compute-sanitizer on this machine" | tee "$note"; return 77; }
  export GSAE_REQUIRE_CUDA=1 OMP_NUM_THREADS=1 sanitizer out end part_end
  export -f sanitize limited
  local tool name
  for name in $sanitized; do
    for tool in memcheck racecheck; do
      [[ -x $root/tests/${name}_test ]] && echo "$tool $root/tests/${name}_test"
    done
  done | xargs -P $((jobs < 6 ? jobs : 6)) -L 1 bash -c 'sanitize "$0" "$1"'
  cat "$out"/sanitizer/*.line >"$out/sanitizer/results.tsv" 2>/dev/null || { echo "no tests" | tee "$note"; return 1; }
  awk -F'\t' '
    $3 == 0 {++clean} $3 == 124 {++late} $3 && $3 != 124 {bad = bad " " $1 "/" $2}
    END {printf "%d runs clean, %d not finished in time%s\n", clean, late, bad ? "; not clean:" bad : ""}' \
    "$out/sanitizer/results.tsv" | tee "$note"
  ! awk -F'\t' '$3 && $3 != 124 {print}' "$out/sanitizer/results.tsv" | grep -q .
}
sanitized='rms_norm rms_norm_residual rope geglu embedding attention lm_loss matmul jump_relu adam reconstruction rows
  statistics sparsity mma graph'
[[ $quick ]] && sanitized='rms_norm attention jump_relu'

# The demo's SAE trained four ways. What must be the same bits, and what must agree.
train_demo() { # train_demo NAME OPTION...
  local name=$1 since=$EPOCHSECONDS
  shift
  limited 170 "$binary" train --model demo $demo_run --out "$out/demo/$name" --quiet "$@" >"$out/demo/$name.log" 2>&1 || {
    echo "demo $name: exit status $?: $(tail -n 3 "$out/demo/$name.log")" | tee -a "$note"
    return 1
  }
  local folder eval
  eval=$(find "$out/demo/$name" -name eval.json | head -n 1) folder=$(dirname "$eval")
  cp "$folder/params.npz" "$out/demo/$name.npz"
  printf '%s\t%s\t%s\t%d\t%s\n' "$name" "$(json_value "$eval" l0)" "$(json_value "$eval" fvu)" $((EPOCHSECONDS - since)) \
    "$(tail -n 1 "$out/demo/$name/train.jsonl" | sed -n 's/.*"tokens_per_second":\([0-9]*\).*/\1/p')" |
    tee -a "$out/demo/results.tsv"
}
demo_run=${GSAE_CHECK_DEMO:---layer 3 --width 4k --l0 32 --tokens 2M --context 256}
[[ $quick ]] && demo_run=${GSAE_CHECK_DEMO:---layer 3 --width 4k --l0 32 --tokens 500k --context 256}

part_demo() {
  local bad=0
  echo "train --model demo $demo_run: name, L0, FVU, seconds, tokens/s at the end"
  train_demo cuda --device cuda || bad=1
  train_demo again --device cuda || bad=1
  train_demo eager --device cuda --eager || bad=1
  train_demo cpu --device cpu || bad=1
  local other
  for other in again eager; do
    if cmp -s "$out/demo/cuda.npz" "$out/demo/$other.npz"; then echo "cuda and $other: the same bits." >>"$note"
    else echo "cuda and $other: NOT the same bits." >>"$note"; bad=1; fi
  done
  # Two runs of the same data in other roundings part ways; what is asked is that neither is the worse for it.
  awk -F'\t' '
    {l0[$1] = $2; fvu[$1] = $3}
    END {
      if (!(("cuda" in l0) && ("cpu" in l0))) exit 1
      a = l0["cuda"] / l0["cpu"] - 1; b = fvu["cuda"] / fvu["cpu"] - 1
      printf "L0 %.2f on cuda, %.2f on cpu; FVU %.4f and %.4f (%+.1f %%).\n", l0["cuda"], l0["cpu"], fvu["cuda"], fvu["cpu"], 100 * b
      exit !(a * a < 0.06 * 0.06 && b * b < 0.03 * 0.03)
    }' "$out/demo/results.tsv" >>"$note" || bad=1
  cat "$note"
  rm -f "$out"/demo/*.npz
  return $bad
}

# Training on random weights in the real sizes, with roofs: docs/benchmarking.md.
part_bench() {
  local bad=0 name run runs=(
    "2b_16k --shape 2b --layer 20 --width 16k --seconds 8"
    "2b_1m --shape 2b --layer 20 --width 1m --seconds 6"
    "9b_131k --shape 9b --layer 20 --width 131072 --seconds 6"
    "2b_16k_eager --shape 2b --layer 20 --width 16k --seconds 4 --eager"
    "2b_16k_tf32 --shape 2b --layer 20 --width 16k --seconds 4 --precision tf32"
    "demo_4k --shape demo --layer 3 --width 4k --l0 32 --seconds 3")
  [[ $quick ]] && runs=("2b_16k --shape 2b --layer 20 --width 16k --seconds 4")
  [[ ${GSAE_CHECK_BENCH:-} ]] && runs=("$GSAE_CHECK_BENCH")
  for run in "${runs[@]}"; do
    read -r name run <<<"$run"
    echo "gemma_sae bench $run"
    if limited 60 "$binary" bench --device cuda $run --json "$out/bench/$name.json" \
      >"$out/bench/$name.txt" 2>"$out/bench/$name.log"; then
      cat "$out/bench/$name.txt"
    else
      echo "$name: exit status $?: $(tail -n 2 "$out/bench/$name.log")." | tee -a "$note"
      bad=1
    fi
  done
  ((bad)) || echo "${#runs[@]} runs" >"$note"
  return $bad
}

part_ops() {
  local program name bad=0 count=0
  ls "$root"/bench/*_bench >/dev/null 2>&1 || { echo "no benchmarks in this build" | tee "$note"; return 77; }
  for program in "$root"/bench/*_bench; do
    name=$(basename "$program")
    limited 20 "$program" --benchmark_list_tests --benchmark_filter=cuda 2>/dev/null | grep -q cuda || continue
    ((++count))
    limited 60 "$program" --benchmark_filter=cuda --benchmark_min_time=0.05 --benchmark_counters_tabular=true \
      "--benchmark_out=$out/ops/$name.json" --benchmark_out_format=json 2>&1 | tee "$out/ops/$name.txt" ||
      { echo "$name did not end well." | tee -a "$note"; bad=1; }
  done
  ((count)) || { echo "no benchmark has a cuda in its name" | tee "$note"; return 77; }
  ((bad)) || echo "$count programs" >"$note"
  return $bad
}

# ---- the report

report_json() {
  printf '{\n"started": %s, "seconds": %d, "passed": %s,\n' "$(json_string "$started")" $((EPOCHSECONDS - began)) \
    "$([[ $failed == 0 ]] && echo true || echo false)"
  printf '"machine": %s,\n' "$(json_string "$(cat "$out/machine/machine.txt" 2>/dev/null)")"
  printf '"clocks": %s,\n' "$(json_string "$(cat "$out/machine/clocks.csv" 2>/dev/null)")"
  printf '"doctor": %s,\n' "$(json_file "$out/machine/doctor.json")"
  printf '"parts": %s,\n' "$(for name in "${done_parts[@]}"; do
    IFS=$'\t' read -r _ status seconds text <"$out/parts/$name"
    printf '{"name": "%s", "status": "%s", "seconds": %d, "note": %s}\n' "$name" "$status" "$seconds" "$(json_string "$text")"
  done | json_list)"
  printf '"tests": %s,\n' "$(awk -F'\t' '
    {printf "{\"program\": \"%s\", \"status\": %d, \"passed\": %d, \"failed\": %d, \"skipped\": %d, \"seconds\": %.3f}\n", $1, $2, $3, $4, $5, $6 / 1000}' \
    "$out/tests/results.tsv" 2>/dev/null | json_list)"
  printf '"sanitizer": %s,\n' "$(awk -F'\t' '
    {gsub(/["\\]/, "", $4); printf "{\"tool\": \"%s\", \"program\": \"%s\", \"status\": %d, \"summary\": \"%s\"}\n", $1, $2, $3, $4}' \
    "$out/sanitizer/results.tsv" 2>/dev/null | json_list)"
  printf '"demo": %s,\n' "$(awk -F'\t' '
    {printf "{\"run\": \"%s\", \"l0\": %s, \"fvu\": %s, \"seconds\": %d, \"tokens_per_second\": %d}\n", $1, $2, $3, $4, $5}' \
    "$out/demo/results.tsv" 2>/dev/null | json_list)"
  local kind file separator
  for kind in bench ops; do
    printf '"%s": {' "$kind"
    separator=
    for file in "$out/$kind"/*.json; do
      [[ -e $file ]] || continue
      printf '%s\n"%s": %s' "$separator" "$(basename "$file" .json)" "$(json_file "$file")"
      separator=,
    done
    printf '}%s\n' "$([[ $kind == bench ]] && echo ,)"
  done
  printf '}\n'
}

report_markdown() {
  echo "# gpu_check: $([[ $failed == 0 ]] && echo passed || echo FAILED)"
  printf '\n%s, %d s\n\n' "$started" $((EPOCHSECONDS - began))
  sed 's/^/    /' "$out/machine/machine.txt" "$out/machine/clocks.csv" 2>/dev/null
  [[ -e $out/machine/doctor.txt ]] && { echo; sed 's/^/    /' "$out/machine/doctor.txt"; }
  printf '\n| part | | seconds | |\n|---|---|---|---|\n'
  for name in "${done_parts[@]}"; do awk -F'\t' '{print "| " $1 " | " $2 " | " $3 " | " $4 " |"}' "$out/parts/$name"; done
  if [[ -s $out/demo/results.tsv ]]; then
    printf '\n## Demo training\n\n`train --model demo %s`\n\n| run | L0 | FVU | seconds | tokens/s |\n|---|---|---|---|---|\n' "$demo_run"
    awk -F'\t' '{printf "| %s | %.2f | %.4f | %s | %s |\n", $1, $2, $3, $4, $5}' "$out/demo/results.tsv"
  fi
  local file
  for file in "$out"/bench/*.txt; do
    [[ -s $file ]] && { printf '\n## gemma_sae bench: %s\n\n' "$(basename "$file" .txt)"; sed 's/^/    /' "$file"; }
  done
  for file in "$out"/ops/*.txt; do
    [[ -s $file ]] && { printf '\n## %s\n\n' "$(basename "$file" .txt)"; grep -vE '^\*\*\*|^(Run on|CPU Caches|  L[123]|Load Average)' "$file" | sed 's/^/    /'; }
  done
  if [[ -s $out/tests/results.tsv ]]; then
    printf '\n## Tests\n\n| program | status | passed | failed | skipped | seconds |\n|---|---|---|---|---|---|\n'
    awk -F'\t' '{printf "| %s | %s | %d | %d | %d | %.1f |\n", $1, $2 ? ($2 == 124 ? "out of time" : "FAILED") : "ok", $3, $4, $5, $6 / 1000}' "$out/tests/results.tsv"
  fi
  if [[ -s $out/sanitizer/results.tsv ]]; then
    printf '\n## compute-sanitizer\n\n| tool | program | status | |\n|---|---|---|---|\n'
    awk -F'\t' '{printf "| %s | %s | %s | %s |\n", $1, $2, $3 ? ($3 == 124 ? "out of time" : "FAILED") : "ok", $4}' "$out/sanitizer/results.tsv"
  fi
}

started=$(date -u +%Y-%m-%dT%H:%M:%SZ) why=
find_libraries
part machine 60 "what this machine is"
part tests 240 "the whole test suite on the device"
part sanitizer 110 "compute-sanitizer on the kernels' tests"
part demo 200 "the demo's SAE on cuda, again, without graphs, and on the CPU"
part bench 150 "training at the sizes of Gemma 2 2B, on random weights"
part ops 150 "each op against the machine's roofs"
report_json >"$out/gpu_check.json"
report_markdown >"$out/gpu_check.md"
printf '\n==> %s in %d s: %s\n' "$([[ $failed == 0 ]] && echo 'all is well' || echo 'SOMETHING FAILED')" $((EPOCHSECONDS - began)) "$out/gpu_check.md"
for name in "${done_parts[@]}"; do awk -F'\t' '{printf "%-10s %-8s %4d s  %s\n", $1, $2, $3, $4}' "$out/parts/$name"; done
exit "$failed"
