#!/usr/bin/env bash
# make bundle: a folder, and a .tar.gz of it, that runs on any x86-64 machine with glibc and libstdc++ as new as here, an
# NVIDIA driver and CUDA's libraries (of which cuBLASLt is used); nothing is installed. See docs/gpu.md.
#
#   GSAE_CUDA_ARCHS   the GPUs it is for (default: every one from Ampere on, and PTX for those to come)
#   GSAE_ARCH         the processors (default: x86-64-v3, which AVX2 is part of; oneDNN uses more where there is more)
#   BUNDLE_CUBLASLT=1 takes cuBLASLt along: 520 MiB
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${JOBS:-$(nproc)}
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
build=build/release
say() { printf '==> %s\n' "$@"; }

cuda=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
archs=${GSAE_CUDA_ARCHS:-80-real;86-real;89-real;90-real;100-real;120-real;120-virtual}
# a toolkit before 12.8 knows nothing of Blackwell: Hopper's PTX serves it
if [[ -z ${GSAE_CUDA_ARCHS:-} ]] && ! "$nvcc" --list-gpu-arch | grep -q compute_120; then
  archs='80-real;86-real;89-real;90-real;90-virtual'
fi
say "building with nvcc $cuda for $archs ($build)"
cmake -G Ninja --log-level=WARNING -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DGSAE_CUDA=ON -DGSAE_SANITIZE=OFF \
  -DBUILD_SHARED_LIBS=ON -DGSAE_ARCH="${GSAE_ARCH:-x86-64-v3}" -DCMAKE_CUDA_COMPILER="$nvcc" \
  -DCMAKE_CUDA_ARCHITECTURES="$archs"
ninja -j "$jobs" -C "$build"

version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' "$build/CMakeCache.txt")
name=gemma_sae-$version-linux-x86_64
folder=build/bundle/$name
rm -rf "$folder" "$folder.tar.gz"
mkdir -p "$folder/lib"
cmake --install "$build" --prefix "$folder" --strip >/dev/null

# The libraries that they need and a bare Debian or Ubuntu does not have. glibc belongs to the machine; so do libstdc++
# and libgcc_s, which apt itself needs: at home they are at least as new, and what a profiler loads into a program may
# need them new.
programs=("$folder"/bin/* "$folder"/tests/*_test "$folder"/bench/*_bench "$folder"/lib/*.so*)
theirs='^(linux-vdso|ld-linux|libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|libcuda|libcublas|libcublasLt)[.-]'
[[ ${BUNDLE_CUBLASLT:-} ]] && theirs=${theirs/|libcublasLt/}
missing=$(ldd "${programs[@]}" | awk '/not found/ {print $1}' | sort -u)
[[ -z $missing ]] || { say "libraries not found here: $missing" >&2; exit 1; }
while read -r library path; do
  [[ $library =~ $theirs || $path == "$PWD/$folder"/* || -e $folder/lib/$library ]] && continue
  install -m 644 "$path" "$folder/lib/$library"
  # whose they are and on what terms; libraries from elsewhere than a package bring their own
  package=$(dpkg-query -S "$(realpath "$path")" "$path" 2>/dev/null | head -n 1 | cut -d: -f1) || true
  [[ -n $package && -e /usr/share/doc/$package/copyright ]] &&
    install -D -m 644 "/usr/share/doc/$package/copyright" "$folder/share/doc/$package/copyright"
done < <(ldd "${programs[@]}" | awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}' | sort -u)

commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[[ -z $(git status --porcelain 2>/dev/null) ]] || commit="$commit with changes that are not committed"
{
  echo "gemma_sae $version"
  echo "commit $commit"
  echo "CUDA $cuda, for $archs"
  echo "processors $(sed -n 's/^GSAE_ARCH:STRING=//p' "$build/CMakeCache.txt"), $(c++ --version | head -n 1)"
  echo "$(objdump -T "${programs[@]}" "$folder"/lib/*.so* | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1) or later"
} >"$folder/VERSION"
cat >"$folder/README.md" <<EOF
# $name

    bin/gemma_sae doctor      # what this machine can do
    ./gpu_check.sh            # everything there is to check on a GPU, in under ten minutes; writes gpu_check/gpu_check.md

An NVIDIA driver and CUDA $((${cuda%%.*})).x's libraries (libcublasLt.so.${cuda%%.*}) must be on the machine: the loader
looks for the latter in lib/, in /usr/local/cuda/lib64 and where LD_LIBRARY_PATH says. lib/ holds the other libraries,
share/doc/ their terms, share/gemma_sae/demo the demo's model and corpus.
EOF
tar -C build/bundle -czf "$folder.tar.gz" "$name"
say "$folder: $(du -sh "$folder" | cut -f1)" "$folder.tar.gz: $(du -h "$folder.tar.gz" | cut -f1)"
