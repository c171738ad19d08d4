#!/usr/bin/env bash
# The launcher of nvcc, which runs with -Xptxas=-v: keep_resources.sh [CCACHE] NVCC ... -o FILE.o
# What ptxas reports (registers, stack, spills and shared memory of each kernel, for each architecture) goes to
# FILE.o.resources; everything else that the compiler says is passed on. tests/resources reads the reports.
set -uo pipefail

object=
for ((i = 1; i < $#; ++i)); do
  [[ ${!i} == -o ]] && { next=$((i + 1)) && object=${!next}; }
done
[[ -n $object ]] || exec "$@"

said=$(mktemp)
trap 'rm -f "$said"' EXIT
"$@" 2>"$said"
status=$?
# A report: "ptxas info    : ..." and the indented line after "Function properties for ...".
ours='^(ptxas info|    [0-9]+ bytes stack frame)'
grep -E "$ours" "$said" >"$object.resources"
grep -vE "$ours" "$said" >&2
exit "$status"
