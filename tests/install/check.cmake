# cmake -DBUILD=<kvant's build folder> -DSOURCE=<this folder> -DCXX=<compiler> -P check.cmake
set(work "${BUILD}/install_check")
file(REMOVE_RECURSE "${work}")

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    string(JOIN " " command ${ARGN})
    message(FATAL_ERROR "${command}\n${output}")
  endif()
endfunction()

run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${work}/prefix" --component library)
run("${CMAKE_COMMAND}" -S "${SOURCE}" -B "${work}/build" -G Ninja "-DCMAKE_PREFIX_PATH=${work}/prefix"
    "-DCMAKE_CXX_COMPILER=${CXX}")
run("${CMAKE_COMMAND}" --build "${work}/build")
run("${work}/build/foreign")

# What shells and man(1) look for, where the command line was built.
if(EXISTS "${BUILD}/tools/shell/kvant.1")
  run("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${work}/prefix" --component tools)
  foreach(file IN ITEMS bin/kvant share/bash-completion/completions/kvant share/zsh/site-functions/_kvant
                        share/fish/vendor_completions.d/kvant.fish share/man/man1/kvant.1)
    if(NOT EXISTS "${work}/prefix/${file}")
      message(FATAL_ERROR "${file} is not installed")
    endif()
  endforeach()
endif()
