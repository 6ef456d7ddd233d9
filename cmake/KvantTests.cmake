# Helpers for tests. C++ tests are one gtest program per folder, each test case one entry of ctest.
find_package(GTest REQUIRED)
include(GoogleTest)
find_package(Python3 REQUIRED COMPONENTS Interpreter)

# kvant_gtest(<name> SOURCES files... LIBRARIES targets...)
function(kvant_gtest name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBRARIES" ${ARGN})
  if(NOT arg_SOURCES)
    return()
  endif()
  add_executable(${name}_tests ${arg_SOURCES})
  target_compile_definitions(${name}_tests PRIVATE "KVANT_SOURCE_DIR=\"${PROJECT_SOURCE_DIR}\"")
  target_link_libraries(${name}_tests PRIVATE ${arg_LIBRARIES} kvant_build GTest::gtest_main GTest::gmock)
  gtest_discover_tests(${name}_tests TEST_PREFIX "${name}." WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
                       DISCOVERY_MODE PRE_TEST NO_PRETTY_VALUES PROPERTIES LABELS unit TIMEOUT 600)
endfunction()
