# Helpers for tests. C++ tests are one gtest program per folder. Each test case is one entry of ctest, but for groups.
find_package(GTest REQUIRED)
include(GoogleTest)
find_package(Python3 REQUIRED COMPONENTS Interpreter)

# kvant_gtest(<name> SOURCES files... LIBRARIES targets... [GROUPS filters...]): the cases that a filter matches run in
# one process, where starting one for each would take longer than the cases.
function(kvant_gtest name)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBRARIES;GROUPS" ${ARGN})
  if(NOT arg_SOURCES)
    return()
  endif()
  add_executable(${name}_tests ${arg_SOURCES})
  target_compile_definitions(${name}_tests PRIVATE "KVANT_SOURCE_DIR=\"${PROJECT_SOURCE_DIR}\"")
  target_link_libraries(${name}_tests PRIVATE ${arg_LIBRARIES} kvant_build GTest::gtest_main GTest::gmock)
  list(JOIN arg_GROUPS ":" grouped)
  gtest_discover_tests(${name}_tests TEST_PREFIX "${name}." WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}"
                       TEST_FILTER "*-${grouped}"
                       DISCOVERY_MODE PRE_TEST NO_PRETTY_VALUES PROPERTIES LABELS unit TIMEOUT 600)
  foreach(filter IN LISTS arg_GROUPS)
    set(test "${name}.${filter}")
    add_test(NAME "${test}" COMMAND ${name}_tests --gtest_brief=1 "--gtest_filter=${filter}"
             WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
    set_tests_properties("${test}" PROPERTIES LABELS unit TIMEOUT 900 FAIL_REGULAR_EXPRESSION "PASSED  . 0 tests")
  endforeach()
endfunction()
