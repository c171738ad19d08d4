# What `cmake --install` makes: the folder of `make bundle` (tools/bundle.sh), which runs wherever it is put.
#
#   bin/gemma_sae   tests/NAME_test, tests/data/   bench/NAME_bench   lib/   share/gemma_sae/demo/   gpu_check.sh
#
# Programs look for libraries in lib/ first. DT_RPATH, and not DT_RUNPATH: it also serves the libraries of libraries.

get_property(programs DIRECTORY ${PROJECT_SOURCE_DIR}/tests PROPERTY BUILDSYSTEM_TARGETS)
set(GSAE_TEST_PROGRAMS ${programs})
list(FILTER GSAE_TEST_PROGRAMS INCLUDE REGEX "_test$")
get_property(programs DIRECTORY ${PROJECT_SOURCE_DIR}/bench PROPERTY BUILDSYSTEM_TARGETS)
set(GSAE_BENCH_PROGRAMS ${programs})
list(FILTER GSAE_BENCH_PROGRAMS INCLUDE REGEX "_bench$")
get_property(libraries DIRECTORY ${PROJECT_SOURCE_DIR} PROPERTY BUILDSYSTEM_TARGETS)
list(FILTER libraries INCLUDE REGEX "^gsae_(kernels|io|model|sae|tools)$")

function(gsae_install destination)
  set_target_properties(${ARGN} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib:/usr/local/cuda/lib64")
  foreach(target IN LISTS ARGN)
    target_link_options(${target} PRIVATE -Wl,--disable-new-dtags)
  endforeach()
  install(TARGETS ${ARGN} DESTINATION ${destination})
endfunction()

gsae_install(bin gemma_sae)
if(BUILD_SHARED_LIBS)
  gsae_install(lib ${libraries})
endif()
if(GSAE_TEST_PROGRAMS)
  gsae_install(tests ${GSAE_TEST_PROGRAMS})
  install(DIRECTORY tests/data DESTINATION tests PATTERN "*.py" EXCLUDE)
endif()
if(GSAE_BENCH_PROGRAMS)
  gsae_install(bench ${GSAE_BENCH_PROGRAMS})
endif()
install(DIRECTORY tools/demo DESTINATION share/gemma_sae PATTERN "*.py" EXCLUDE)
install(PROGRAMS tools/gpu_check.sh DESTINATION .)
install(FILES LICENSE DESTINATION .)
