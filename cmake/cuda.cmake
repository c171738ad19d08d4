# The CUDA backend: kernels/*.cu, in one of three builds.
#
#   OFF       .cu files are not built; a cuda tensor is an Error
#   ON        nvcc
#   EMULATED  the host's compiler, against tests/emulation/: every kernel runs on the CPU. Of the toolkit only headers
#             are used. Meant for the sanitizers (-DGSAE_SANITIZE=ON).
#
# CMAKE_CUDA_ARCHITECTURES: 90 unless given; what a release carries is in tools/bundle.sh.

file(GLOB GSAE_CUDA_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/*.cu)

if(GSAE_CUDA STREQUAL "ON")
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90)
  endif()
  if(NOT DEFINED CMAKE_CUDA_COMPILER AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)  # where NVIDIA's packages put it, on no one's PATH
  endif()
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 17)  # CMake before 3.25 does not know nvcc's c++20 flag: override it by hand
  set(CMAKE_CUDA17_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
  # keeps what ptxas says of each kernel beside the object file, for tests/resources
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${PROJECT_SOURCE_DIR}/cmake/keep_resources.sh ${CCACHE})
  find_package(CUDAToolkit 12.4 REQUIRED)
elseif(GSAE_CUDA STREQUAL "EMULATED")
  find_path(GSAE_CUDA_HEADERS cublasLt.h HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES include
            targets/x86_64-linux/include)
  if(NOT GSAE_CUDA_HEADERS)
    message(FATAL_ERROR "GSAE_CUDA=EMULATED needs the headers of the CUDA Toolkit, and there is no cublasLt.h: "
                        "install the toolkit, or give -DGSAE_CUDA_HEADERS=FOLDER")
  endif()
endif()

# .cu files among the sources of a target: nvcc's, or the host compiler's, which does not know #pragma unroll.
function(gsae_cuda_files)
  if(GSAE_CUDA STREQUAL "EMULATED")
    set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++;-Wno-unknown-pragmas")
  endif()
endfunction()

# Options of whatever compiles .cu files or includes kernels/cuda.h.
function(gsae_cuda_options target)
  if(GSAE_CUDA STREQUAL "EMULATED")
    # first: <cuda_runtime.h> is the stand-in there, which includes the toolkit's
    target_include_directories(${target} BEFORE PRIVATE ${PROJECT_SOURCE_DIR}/tests/emulation)
    target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
    target_include_directories(${target} SYSTEM PRIVATE ${GSAE_CUDA_HEADERS})
    target_compile_definitions(${target} PRIVATE GSAE_CUDA_EMULATED=1)
  elseif(GSAE_CUDA STREQUAL "ON")
    target_compile_definitions(${target} PRIVATE GSAE_CUDA_EMULATED=0)
    target_compile_options(${target} PRIVATE
      $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo;-Xptxas=-v;-Werror=all-warnings;--expt-relaxed-constexpr;-Xcompiler=-Wall,-Wextra,-Werror>)
  endif()
endfunction()

# GSAE_CUDA=0|1 is seen by kernels/ alone: everything above it asks at run time, and is compiled once for all builds.
function(gsae_add_cuda_backend target)
  if(GSAE_CUDA STREQUAL "OFF")
    target_compile_definitions(${target} PRIVATE GSAE_CUDA=0)
    return()
  endif()
  target_compile_definitions(${target} PRIVATE GSAE_CUDA=1)
  target_sources(${target} PRIVATE ${GSAE_CUDA_SOURCES})
  gsae_cuda_files(${GSAE_CUDA_SOURCES})
  gsae_cuda_options(${target})
  if(GSAE_CUDA STREQUAL "ON")
    # linked by all, its headers seen by none but the target: the others compile the same in every build, for ccache
    target_link_libraries(${target} PRIVATE CUDA::cudart CUDA::cublasLt CUDA::nvtx3)
  else()
    file(GLOB emulation CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/emulation/*.cc)
    target_sources(${target} PRIVATE ${emulation})
  endif()
endfunction()
