#!/usr/bin/env bash
# Fails every call that writes to a training run's folder in turn, once and for good, with EIO and with ENOSPC, and
# resumes what stopped: tests/io_faults_test.cc, of which `make test` runs a part. Minutes.
#
#   tests/faults/io_errors.sh [BUILD]        default: build/cpu
set -euo pipefail
build=$(cd "$(dirname "$0")/../.." && realpath "${1:-build/cpu}")
GSAE_EVERY_FAULT=1 OMP_WAIT_POLICY=passive "$build/tests/io_faults_test"
