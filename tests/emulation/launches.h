#pragma once

#include <cstddef>

namespace emulation {

// With GSAE_EMULATION_LAUNCHES=FILE, what each kernel was launched with is appended to FILE when the program ends, a
// line each: kernel, threads of a block, bytes of dynamic shared memory, separated by tabs. tests/resources compares
// it with the registers and the shared memory that nvcc gave the kernels.
void note_launch(const void* kernel, unsigned threads, size_t shared_bytes);

}  // namespace emulation
