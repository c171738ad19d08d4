# The commands of a working day; the build itself is CMakeLists.txt. `make help` lists them.
JOBS ?= $(shell nproc)
BENCH ?= .
BENCH_ARGS ?=
DEMO_OUT := out/demo
DEMO_SUITE_OUT := out/demo-suite

# The CUDA Toolkit, if it is here: nvcc for the GPU's build, headers for the emulation that is tested without a GPU.
NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HEADERS ?= $(patsubst %/cublasLt.h,%,$(firstword $(wildcard $(addsuffix /cublasLt.h, \
  $(if $(CUDA_HOME),$(CUDA_HOME)/include) $(if $(NVCC),$(dir $(realpath $(NVCC)))../include) \
  /usr/local/cuda/include /usr/local/cuda/targets/x86_64-linux/include /usr/include))))
# What the GPU's build is for: this machine's GPUs, 90 (H100, H200) if it has none. A list, as CMake has them: "80;90"
ifneq ($(NVCC),)
  GSAE_CUDA_ARCHS ?= $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | \
    tr -d . | sort -u | paste -sd';'),90)
endif
# What the emulated tests launch each kernel with; the resources of the kernels are checked against it.
LAUNCHES := $(CURDIR)/build/emulated/launches.txt
BUILD := $(if $(NVCC),build/cuda,build/cpu)

CONFIGURE = cmake -G Ninja -DCMAKE_BUILD_TYPE=Release --log-level=WARNING -S .
CONFIGURE_CPU = $(CONFIGURE) -B build/cpu -DGSAE_CUDA=OFF -DGSAE_SANITIZE=OFF
CONFIGURE_CUDA = $(CONFIGURE) -B build/cuda -DGSAE_CUDA=ON -DGSAE_SANITIZE=OFF \
  -DCMAKE_CUDA_COMPILER='$(NVCC)' -DCMAKE_CUDA_ARCHITECTURES='$(GSAE_CUDA_ARCHS)'
# Programs that run side by side should not spin on each other's processors; it changes no result.
CTEST = OMP_WAIT_POLICY=passive ctest --output-on-failure --no-tests=error -j $(JOBS)

all:
ifneq ($(NVCC),)
	@echo "==> building ./gemma_sae in build/cuda (Release), with CUDA: $(NVCC), for architecture $(GSAE_CUDA_ARCHS)"
	@$(CONFIGURE_CUDA) || { echo "==> if a library is missing: tools/setup.sh installs what is needed, with apt;" \
	  "make NVCC= builds without CUDA" >&2; exit 1; }
else
	@echo "==> building ./gemma_sae in build/cpu (Release), without CUDA: no nvcc on the PATH or in /usr/local/cuda/bin"
	@$(CONFIGURE_CPU) || { echo "==> if a library is missing: tools/setup.sh installs what is needed, with apt" >&2; exit 1; }
endif
	@ninja -j $(JOBS) -C $(BUILD) gemma_sae
	@cmp -s $(BUILD)/gemma_sae gemma_sae || install -m 755 $(BUILD)/gemma_sae gemma_sae

setup:
	@tools/setup.sh

# The demo is deterministic: the run that is removed here is made again.
demo: setup
	@$(MAKE) --no-print-directory all
	@if [ -e $(DEMO_OUT) ]; then echo "==> removing $(DEMO_OUT), the earlier demo"; rm -r $(DEMO_OUT); fi
	@echo "==> training an SAE on layer 3 of the demo model: 4k latents, L0 32, 2M tokens, into $(DEMO_OUT);"
	@echo "==> then evaluating it on held-out text"
	./gemma_sae train --model demo --layer 3 --width 4k --l0 32 --tokens 2M --context 256 --out $(DEMO_OUT)
	@echo "==> a page about it: open $(DEMO_OUT)/report.html"
	./gemma_sae report $(DEMO_OUT) --out $(DEMO_OUT)/report.html

# 18 SAEs over one forward pass of the model.
demo-suite: setup
	@$(MAKE) --no-print-directory all
	@if [ -e $(DEMO_SUITE_OUT) ]; then echo "==> removing $(DEMO_SUITE_OUT), the earlier one"; rm -r $(DEMO_SUITE_OUT); fi
	@echo "==> training 18 SAEs in one pass: layers 0 to 5 of the demo model, sites att, mlp and res, 4k latents, L0 32,"
	@echo "==> 1M tokens, into $(DEMO_SUITE_OUT); then evaluating them on held-out text"
	./gemma_sae train --model demo --layer 0-5 --site res,mlp,att --width 4k --l0 32 --tokens 1M --context 256 --out $(DEMO_SUITE_OUT)

# The release build first: it fails sooner, and it is the code that people run. The sanitized build with the emulated
# GPU holds all that the sanitized build without it does.
test: setup
	@echo "==> tests of the release build (build/cpu)"
	@$(CONFIGURE_CPU)
	@ninja -j $(JOBS) -C build/cpu
	@$(CTEST) --test-dir build/cpu
ifneq ($(CUDA_HEADERS),)
	@echo "==> all tests under AddressSanitizer and UndefinedBehaviorSanitizer, CUDA's on the emulated GPU (build/emulated)"
	@$(CONFIGURE) -B build/emulated -DGSAE_CUDA=EMULATED -DGSAE_SANITIZE=ON -DGSAE_CUDA_HEADERS='$(CUDA_HEADERS)'
	@ninja -j $(JOBS) -C build/emulated
	@rm -f $(LAUNCHES)
	@GSAE_EMULATION_LAUNCHES=$(LAUNCHES) $(CTEST) --test-dir build/emulated
else
	@echo "==> the CUDA backend is not tested: no headers of the CUDA Toolkit (CUDA_HEADERS=FOLDER with cublasLt.h)"
	@echo "==> the same tests under AddressSanitizer and UndefinedBehaviorSanitizer (build/asan)"
	@$(CONFIGURE) -B build/asan -DGSAE_CUDA=OFF -DGSAE_SANITIZE=ON
	@ninja -j $(JOBS) -C build/asan
	@$(CTEST) --test-dir build/asan
endif
ifneq ($(NVCC),)
	@echo "==> the build for GPUs, architecture $(GSAE_CUDA_ARCHS) (build/cuda): what runs without one, and its kernels' resources"
	@$(CONFIGURE_CUDA)
	@ninja -j $(JOBS) -C build/cuda gemma_sae gsae_tests
	@GSAE_EMULATION_LAUNCHES=$$(ls $(LAUNCHES) 2>/dev/null) $(CTEST) --test-dir build/cuda $(if $(shell nvidia-smi -L 2>/dev/null),,-L without_gpu)
else
	@echo "==> the build for GPUs is not compiled: no nvcc on the PATH or in /usr/local/cuda/bin"
endif

bench: setup
	@echo "==> benchmarks of the release build ($(BUILD)), one program after the other"
	@$(if $(NVCC),$(CONFIGURE_CUDA),$(CONFIGURE_CPU))
	@ninja -j $(JOBS) -C $(BUILD)
	@set -e; for program in $$(ls $(BUILD)/bench/*_bench | grep -E '$(BENCH)'); do \
	  echo "==> $$program"; $$program $(BENCH_ARGS); \
	done

# Registers, shared memory and spills of every kernel on every generation of GPUs. Threads and dynamic shared memory are
# known if `make test` ran before.
RESOURCES := docs/cuda-resources.md
resources:
	@$(if $(NVCC),,echo "make resources needs nvcc" >&2; exit 1)
	@echo "==> compiling the kernels for sm_80, sm_90, sm_100 and sm_120 (build/resources)"
	@$(CONFIGURE) -B build/resources -DGSAE_CUDA=ON -DCMAKE_CUDA_COMPILER='$(NVCC)' \
	  -DCMAKE_CUDA_ARCHITECTURES='80-real;90-real;100-real;120-real' -DBUILD_TESTING=OFF
	@ninja -j $(JOBS) -C build/resources $(patsubst %,CMakeFiles/gsae_kernels.dir/%.o,$(wildcard kernels/*.cu))
	@tests/resources/resources.sh table build/resources $(wildcard $(LAUNCHES)) >$(RESOURCES).tmp
	@mv $(RESOURCES).tmp $(RESOURCES)
	@echo "==> wrote $(RESOURCES)"
	@tests/resources/resources.sh check build/resources

reference: all
	@./gemma_sae reference >docs/commands.md.tmp && mv docs/commands.md.tmp docs/commands.md
	@echo "==> wrote docs/commands.md"

# Needs clang++ with its libraries (Debian: libclang-rt-14-dev, libomp-14-dev). The corpora grow in build/fuzz/corpus.
FUZZ ?= .
FUZZ_SECONDS ?= 600
fuzz:
	@echo "==> the parsers under libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer (build/fuzz)"
	@$(CONFIGURE) -B build/fuzz -DGSAE_CUDA=OFF -DGSAE_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++
	@ninja -j $(JOBS) -C build/fuzz gsae_fuzz
	@tests/fuzz/fuzz.sh build/fuzz $(FUZZ_SECONDS) '$(FUZZ)'

bundle:
	@$(if $(NVCC),,echo "make bundle needs nvcc" >&2; exit 1)
	@JOBS=$(JOBS) NVCC='$(NVCC)' tools/bundle.sh

clean:
	@echo "==> removing build/ and ./gemma_sae (out/ stays: it holds your runs)"
	@rm -rf build gemma_sae

help:
	@echo "make            builds ./gemma_sae, with CUDA where nvcc is"
	@echo "make demo       installs what is missing, builds, trains and evaluates an SAE on the bundled model, writes a report"
	@echo "make demo-suite the same for 18 SAEs over one forward pass: six layers, three sites"
	@echo "make test       every test: a release build, the sanitizers with the emulated GPU, the build for GPUs"
	@echo "make bench      the benchmarks; BENCH=REGEX chooses programs, BENCH_ARGS=... is handed to each"
	@echo "make fuzz       libFuzzer on the parsers; FUZZ=REGEX chooses them, FUZZ_SECONDS=600 each (clang++)"
	@echo "make bundle     a folder that runs on a machine with a GPU and nothing installed (docs/gpu.md)"
	@echo "make resources  what each kernel uses on each generation of GPUs, into $(RESOURCES)"
	@echo "make reference  docs/commands.md, from the program's own definitions"
	@echo "make setup      installs what is missing (tools/setup.sh)"
	@echo "make clean      removes what was built"
	@echo "JOBS=N: processes at a time (now $(JOBS)); NVCC= : without CUDA; GSAE_CUDA_ARCHS='80;90': for these GPUs"

.PHONY: all setup demo demo-suite test bench resources fuzz reference bundle clean help
