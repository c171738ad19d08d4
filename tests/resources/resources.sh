#!/usr/bin/env bash
# What nvcc gave each kernel of a build: registers, shared memory, stack, spills.
#
#   resources.sh check BUILD [LAUNCHES]   exit status 1, and a line for each kernel that is not as it must be
#   resources.sh table BUILD [LAUNCHES]   the table of docs/cuda-resources.md
#
# BUILD is a build folder of GSAE_CUDA=ON, of one architecture or several: cmake/keep_resources.sh leaves the reports of
# ptxas beside its object files. LAUNCHES is what the emulated tests launched the kernels with
# (GSAE_EMULATION_LAUNCHES=FILE, tests/emulation/launches.h, and the default here); with it, each kernel must have been
# launched there, and every launch must fit the architecture. allowed.txt, beside this file, lists what may spill, and why.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
usage() {
  sed -n '4,5s/^# *//p' "$0" >&2
  exit 2
}
[[ $# -ge 2 && $# -le 3 && $1 =~ ^(check|table)$ ]] || usage
what=$1 build=$2 launches=${3:-${GSAE_EMULATION_LAUNCHES:-/dev/null}}

reports=("$build"/CMakeFiles/gsae_kernels.dir/kernels/*.cu.o.resources)
for source in "$here"/../../kernels/*.cu; do
  report=$build/CMakeFiles/gsae_kernels.dir/kernels/$(basename "$source").o.resources
  [[ -e $report ]] || { echo "resources: $report is not there: build gsae_kernels in $build with GSAE_CUDA=ON" >&2; exit 1; }
done
[[ -r $launches ]] || { echo "resources: $launches is not there: run the emulated tests first" >&2; exit 1; }
demangle=$(command -v c++filt || command -v cu++filt) || { echo "resources: c++filt (binutils) is needed" >&2; exit 1; }

for report in "${reports[@]}"; do
  echo "file $(basename "$report" .o.resources)"
  "$demangle" <"$report"
done | awk -v what="$what" -v launches="$launches" -v allowed="$here/allowed.txt" -f "$here/resources.awk"
