#!/usr/bin/env bash
# Installs what building and testing need and this machine lacks, with apt (Debian 12, Ubuntu 22.04 and later).
# One line when nothing is missing.
set -euo pipefail

packages=(
  cmake ninja-build g++ ccache pkg-config
  libdnnl-dev ocl-icd-opencl-dev              # matrix products; the CMake file of the first asks for the second
  libfmt-dev libcli11-dev nlohmann-json3-dev
  libsentencepiece-dev                        # tokenizer
  libzstd-dev libzip-dev zlib1g-dev           # compressed text, npz
  libxxhash-dev                               # the hash of a document
  libgtest-dev libbenchmark-dev
)

say() { printf 'setup: %s\n' "$@"; }
die() {
  say "$@" >&2
  exit 1
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  say "no apt on this system, so nothing was checked or installed; what is needed, by its name in Debian:" \
    "  ${packages[*]}" >&2
  exit 0 # it may all be there under other names: CMake will tell
fi

missing=()
for package in "${packages[@]}"; do
  # The last word of the status, after a blank: neither "half-installed" nor a removed package's "config-files".
  [[ $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) == *' installed' ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then
  say "all ${#packages[@]} packages are installed"
  exit 0
fi
say "$((${#packages[@]} - ${#missing[@]})) of ${#packages[@]} packages are installed, missing: ${missing[*]}"

as_root=(env DEBIAN_FRONTEND=noninteractive)
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || die "installing needs root, and there is no sudo; as root, run:" \
    "  apt-get install ${missing[*]}"
  as_root=(sudo "${as_root[@]}")
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() {
  say "apt-get $*"
  "${as_root[@]}" apt-get "$@" >"$log" 2>&1
}

# The package lists of a fresh container are empty, those of an old machine name files that are gone. A failed
# update may still leave enough to install from.
run update || say "apt-get update failed; trying with the lists that are there"
if ! run install -y --no-install-recommends "${missing[@]}"; then
  tail -n 15 "$log" >&2
  die "apt-get install failed: its last lines are above." \
    "If this machine is offline, bring it these packages by other means, then run make again:" "  ${missing[*]}"
fi
say "installed ${#missing[@]} packages"
