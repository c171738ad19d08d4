# The commands of a working day; the build itself is CMakeLists.txt. `make help` lists them.
JOBS ?= $(shell nproc)
BENCH ?= .
BENCH_ARGS ?=
DEMO_OUT := out/demo

CMAKE = cmake -G Ninja -DCMAKE_BUILD_TYPE=Release
# Programs that run side by side should not spin on each other's processors; it changes no result.
CTEST = OMP_WAIT_POLICY=passive ctest --output-on-failure --no-tests=error -j $(JOBS)

all:
	@echo "==> building ./gemma_sae in build/cpu (Release)"
	@$(CMAKE) -S . -B build/cpu -DGSAE_SANITIZE=OFF --log-level=WARNING || \
	  { echo "==> if a library is missing: tools/setup.sh installs what is needed, with apt" >&2; exit 1; }
	@ninja -j $(JOBS) -C build/cpu gemma_sae
	@cmp -s build/cpu/gemma_sae gemma_sae || install -m 755 build/cpu/gemma_sae gemma_sae

setup:
	@tools/setup.sh

# The demo is deterministic: the run that is removed here is made again.
demo: setup
	@$(MAKE) --no-print-directory all
	@if [ -e $(DEMO_OUT) ]; then echo "==> removing $(DEMO_OUT), the earlier demo"; rm -r $(DEMO_OUT); fi
	@echo "==> training an SAE on layer 3 of the demo model: 4k latents, L0 32, 2M tokens, into $(DEMO_OUT);"
	@echo "==> then evaluating it on held-out text"
	./gemma_sae train --model demo --layer 3 --width 4k --l0 32 --tokens 2M --context 256 --out $(DEMO_OUT)

# The release build first: it fails sooner, and it is the code that people run.
test: setup
	@echo "==> tests of the release build (build/cpu)"
	@$(CMAKE) -S . -B build/cpu -DGSAE_SANITIZE=OFF --log-level=WARNING
	@ninja -j $(JOBS) -C build/cpu
	@$(CTEST) --test-dir build/cpu
	@echo "==> the same tests under AddressSanitizer and UndefinedBehaviorSanitizer (build/asan)"
	@$(CMAKE) -S . -B build/asan -DGSAE_SANITIZE=ON --log-level=WARNING
	@ninja -j $(JOBS) -C build/asan
	@$(CTEST) --test-dir build/asan

bench: setup
	@echo "==> benchmarks of the release build (build/cpu), one program after the other"
	@$(CMAKE) -S . -B build/cpu -DGSAE_SANITIZE=OFF --log-level=WARNING
	@ninja -j $(JOBS) -C build/cpu
	@set -e; for program in $$(ls build/cpu/bench/*_bench | grep -E '$(BENCH)'); do \
	  echo "==> $$program"; $$program $(BENCH_ARGS); \
	done

clean:
	@echo "==> removing build/ and ./gemma_sae (out/ stays: it holds your runs)"
	@rm -rf build gemma_sae

help:
	@echo "make         builds ./gemma_sae"
	@echo "make demo    installs what is missing, builds, trains and evaluates an SAE on the bundled model"
	@echo "make test    every test, in a release build and under the address and undefined-behaviour sanitizers"
	@echo "make bench   the benchmarks; BENCH=REGEX chooses programs, BENCH_ARGS=... is handed to each"
	@echo "make setup   installs what is missing (tools/setup.sh)"
	@echo "make clean   removes what was built"
	@echo "JOBS=N: processes at a time (now $(JOBS))"

.PHONY: all setup demo test bench clean help
