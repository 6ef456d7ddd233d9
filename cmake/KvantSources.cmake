# What a folder contributes is told by its file names, see CONTRIBUTING.md: *_test.cc, *_bench.cc and *_fuzz.cc are
# programs of their own, every other *.cc belongs to the folder's library. A folder without files is an empty one.

# kvant_sources(<variable> <folder>): the folder's library sources, absolute, not of its subfolders.
function(kvant_sources out folder)
  file(GLOB sources CONFIGURE_DEPENDS "${folder}/*.cc")
  list(FILTER sources EXCLUDE REGEX "_(test|bench|fuzz)\\.cc$")
  set(${out} "${sources}" PARENT_SCOPE)
endfunction()

# kvant_codec(<name>): adds the codec in src/codec/<name>/ to the library and to the list KVANT_CODECS.
function(kvant_codec name)
  kvant_sources(sources "${PROJECT_SOURCE_DIR}/src/codec/${name}")
  target_sources(kvant PRIVATE ${sources})
  set_property(GLOBAL APPEND PROPERTY KVANT_CODECS ${name})
endfunction()

# kvant_layer(<layer> [libraries...]): a library kvant_<layer> from src/<layer>; an interface library while it is empty.
function(kvant_layer layer)
  kvant_sources(sources "${PROJECT_SOURCE_DIR}/src/${layer}")
  if(sources)
    add_library(kvant_${layer} STATIC ${sources})
    target_link_libraries(kvant_${layer} PUBLIC kvant::kvant ${ARGN} PRIVATE kvant_build)
  else()
    add_library(kvant_${layer} INTERFACE)
    target_link_libraries(kvant_${layer} INTERFACE kvant::kvant ${ARGN})
  endif()
endfunction()
