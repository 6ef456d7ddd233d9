# libllama and ggml as imported targets: llama::llama, llama::ggml_base (with the headers of ggml/src, which nobody
# installs). Sets KVANT_LLAMA_DIR to the folder with lib/, include/ and src/.

if(NOT KVANT_LLAMA_DIR)
  set(arguments "")
  if(KVANT_LLAMA_SOURCE_DIR)
    set(arguments --source "${KVANT_LLAMA_SOURCE_DIR}")
  endif()
  execute_process(
    COMMAND "${PROJECT_SOURCE_DIR}/tools/dev/get_llama.sh" ${arguments}
    OUTPUT_VARIABLE llama_dir OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "libllama could not be built (see above); -DKVANT_LLAMA=OFF builds kvant without it")
  endif()
  set(KVANT_LLAMA_DIR "${llama_dir}")
endif()
if(NOT EXISTS "${KVANT_LLAMA_DIR}/src/ggml/src/ggml-backend-impl.h")
  message(FATAL_ERROR "KVANT_LLAMA_DIR=${KVANT_LLAMA_DIR}: not a folder made by tools/dev/get_llama.sh")
endif()

function(kvant_import_llama target file)
  add_library(${target} SHARED IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES IMPORTED_LOCATION "${KVANT_LLAMA_DIR}/lib/${file}")
  target_include_directories(${target} SYSTEM INTERFACE "${KVANT_LLAMA_DIR}/include" "${KVANT_LLAMA_DIR}/src/ggml/src")
  target_compile_definitions(${target} INTERFACE GGML_SHARED GGML_BACKEND_SHARED LLAMA_SHARED)
  target_link_libraries(${target} INTERFACE ${ARGN})
endfunction()

kvant_import_llama(llama::ggml_base libggml-base.so)
kvant_import_llama(llama::ggml libggml.so llama::ggml_base)
kvant_import_llama(llama::llama libllama.so llama::ggml)
