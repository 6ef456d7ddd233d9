# Installs the library with its public headers and CMake package, the plug-in, and the command line.
include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/kvant")
set(plugin_dir "${CMAKE_INSTALL_LIBDIR}/kvant") # not on the linker's path: nothing links to what lies there

install(TARGETS kvant EXPORT kvantTargets ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT library)
install(TARGETS kvant_c LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT library)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/kvant" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT library
        FILES_MATCHING PATTERN "*.h")
install(EXPORT kvantTargets NAMESPACE kvant:: DESTINATION "${package_dir}" COMPONENT library)
configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/kvantConfig.cmake.in" "${PROJECT_BINARY_DIR}/kvantConfig.cmake"
                              INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/kvantConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/kvantConfig.cmake" "${PROJECT_BINARY_DIR}/kvantConfigVersion.cmake"
        DESTINATION "${package_dir}" COMPONENT library)

if(TARGET ggml-kvant)
  install(TARGETS ggml-kvant LIBRARY DESTINATION "${plugin_dir}" COMPONENT plugin)
endif()
if(TARGET kvant_cli)
  install(TARGETS kvant_cli RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}" COMPONENT tools)
  if(KVANT_LLAMA)
    set_target_properties(kvant_cli PROPERTIES INSTALL_RPATH "$ORIGIN/../${plugin_dir}")
    install(DIRECTORY "${KVANT_LLAMA_DIR}/lib/" DESTINATION "${plugin_dir}" COMPONENT tools
            FILES_MATCHING PATTERN "*.so*" PATTERN cmake EXCLUDE PATTERN pkgconfig EXCLUDE)
  endif()
endif()
if(TARGET kvant_shell)
  set(shell_dir "${PROJECT_BINARY_DIR}/tools/shell")
  install(FILES "${shell_dir}/kvant.bash" RENAME kvant COMPONENT tools
          DESTINATION "${CMAKE_INSTALL_DATADIR}/bash-completion/completions")
  install(FILES "${shell_dir}/_kvant" DESTINATION "${CMAKE_INSTALL_DATADIR}/zsh/site-functions" COMPONENT tools)
  install(FILES "${shell_dir}/kvant.fish" DESTINATION "${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d" COMPONENT tools)
  install(FILES "${shell_dir}/kvant.1" DESTINATION "${CMAKE_INSTALL_MANDIR}/man1" COMPONENT tools)
endif()
