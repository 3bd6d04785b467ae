# Installing, the CMake package (from the install tree and from the build tree), pkg-config, and .deb packages.

if(NOT TROIKA_INSTALL)
  return()
endif()
include(CMakePackageConfigHelpers)

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/troika)
set(config_out ${PROJECT_BINARY_DIR}/package)

# The core. Each component has an export file of its own: where it is absent, troikaConfig.cmake says so.
install(TARGETS troika EXPORT troika-targets FILE_SET HEADERS COMPONENT core)
install(EXPORT troika-targets NAMESPACE troika:: DESTINATION ${config_dir} COMPONENT core)
export(EXPORT troika-targets NAMESPACE troika:: FILE ${config_out}/troika-targets.cmake)

# A static library is linked together with what it uses; a shared one brings that along.
set(models_type "")
if(TROIKA_HAS_MODELS)
  get_target_property(models_type troika_models TYPE)
endif()
set(TROIKA_MODELS_FIND_LIBRARIES "")
set(pc_libraries "")
if(models_type STREQUAL "STATIC_LIBRARY")
  set(TROIKA_MODELS_FIND_LIBRARIES [=[find_package(PkgConfig QUIET)
    if(PkgConfig_FOUND)
      pkg_check_modules(PCRE2 QUIET IMPORTED_TARGET libpcre2-8)
      pkg_check_modules(UTF8PROC QUIET IMPORTED_TARGET libutf8proc)
    endif()
    if(NOT PCRE2_FOUND OR NOT UTF8PROC_FOUND)
      set(reason "its component \"models\" needs pkg-config, libpcre2-8 and libutf8proc")
    endif()]=])
  set(pc_libraries ", libpcre2-8, libutf8proc")
endif()
set(TROIKA_SERVING_FIND_LIBRARIES "")
set(pc_serving_libraries "")
if(TROIKA_HAS_SERVING AND models_type STREQUAL "STATIC_LIBRARY")
  set(TROIKA_SERVING_FIND_LIBRARIES [=[if(PkgConfig_FOUND)
      pkg_check_modules(PROMETHEUS QUIET IMPORTED_TARGET prometheus-cpp-core)
      pkg_check_modules(LIBCRYPTO QUIET IMPORTED_TARGET libcrypto)
    endif()
    if(NOT PROMETHEUS_FOUND OR NOT LIBCRYPTO_FOUND)
      set(reason "its component \"serving\" needs prometheus-cpp-core and libcrypto")
    endif()]=])
  set(pc_serving_libraries ", prometheus-cpp-core, libcrypto")
endif()
if(TROIKA_HAS_CUDA)  # which the engine is also compiled for
  string(PREPEND pc_serving_libraries ", troika-cuda = ${PROJECT_VERSION}")
endif()

configure_package_config_file(cmake/troikaConfig.cmake.in ${config_out}/troikaConfig.cmake
  INSTALL_DESTINATION ${config_dir} NO_CHECK_REQUIRED_COMPONENTS_MACRO NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${config_out}/troikaConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${config_out}/troikaConfig.cmake ${config_out}/troikaConfigVersion.cmake
  DESTINATION ${config_dir} COMPONENT core)
if(TROIKA_HAS_CUDA)
  install(FILES cmake/FindNCCL.cmake DESTINATION ${config_dir} COMPONENT cuda)  # for programs that call NCCL themselves
endif()

# The .pc files find their prefix from where they lie, so an install tree may be moved.
cmake_path(SET pc_to_prefix NORMALIZE "/${CMAKE_INSTALL_LIBDIR}/pkgconfig")
cmake_path(RELATIVE_PATH pc_to_prefix BASE_DIRECTORY /)
string(REGEX REPLACE "[^/]+" ".." pc_to_prefix "${pc_to_prefix}")
configure_file(cmake/troika.pc.in ${config_out}/troika.pc @ONLY)
install(FILES ${config_out}/troika.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT core)

install(TARGETS troika_kernels EXPORT troika-kernels-targets ARCHIVE COMPONENT kernels)
install(EXPORT troika-kernels-targets NAMESPACE troika:: DESTINATION ${config_dir} COMPONENT kernels)
export(EXPORT troika-kernels-targets NAMESPACE troika:: FILE ${config_out}/troika-kernels-targets.cmake)
configure_file(cmake/troika-kernels.pc.in ${config_out}/troika-kernels.pc @ONLY)
install(FILES ${config_out}/troika-kernels.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT kernels)

set(pc_cuda_flags -DTROIKA_HAS_CUDA)
set(pc_cuda_libraries "${CUDAToolkit_LIBRARY_DIR}")
if(NCCL_FOUND)
  string(APPEND pc_cuda_flags " -DTROIKA_HAS_NCCL")
endif()
foreach(component IN ITEMS models serving topology cuda)
  string(TOUPPER ${component} upper)
  set(targets troika-${component}-targets)
  if(NOT TROIKA_HAS_${upper})
    file(REMOVE ${config_out}/${targets}.cmake)  # of an earlier configuration
    continue()
  endif()
  install(TARGETS troika_${component} EXPORT ${targets}
    FILE_SET HEADERS COMPONENT ${component}
    ARCHIVE COMPONENT ${component}
    LIBRARY COMPONENT ${component})
  install(EXPORT ${targets} NAMESPACE troika:: DESTINATION ${config_dir} COMPONENT ${component})
  export(EXPORT ${targets} NAMESPACE troika:: FILE ${config_out}/${targets}.cmake)
  configure_file(cmake/troika-${component}.pc.in ${config_out}/troika-${component}.pc @ONLY)
  install(FILES ${config_out}/troika-${component}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT ${component})
endforeach()

install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT core)

if(NOT PROJECT_IS_TOP_LEVEL)
  return()
endif()

# `cpack --config build/cpu/CPackConfig.cmake` makes libtroika-dev (headers), libtroika-kernels-dev, libtroika-models-dev,
# libtroika-serving-dev, libtroika-topology-dev and libtroika-cuda-dev.
set(CPACK_PACKAGE_NAME troika)
set(CPACK_PACKAGE_VENDOR "The troika authors")
set(CPACK_PACKAGE_CONTACT "The troika authors")
set(CPACK_PACKAGE_DIRECTORY ${PROJECT_BINARY_DIR}/packages)
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL core kernels)
if(TROIKA_HAS_MODELS)
  list(APPEND CPACK_COMPONENTS_ALL models)
endif()
if(TROIKA_HAS_SERVING)
  list(APPEND CPACK_COMPONENTS_ALL serving)
endif()
if(TROIKA_HAS_TOPOLOGY)
  list(APPEND CPACK_COMPONENTS_ALL topology)
endif()
if(TROIKA_HAS_CUDA)
  list(APPEND CPACK_COMPONENTS_ALL cuda)
endif()
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_CORE_PACKAGE_NAME libtroika-dev)
set(CPACK_DEBIAN_CORE_PACKAGE_DEPENDS "libeigen3-dev (>= 3.4)")
set(CPACK_COMPONENT_CORE_DESCRIPTION "Tensor-parallel transformers for C++ programs: headers")
set(CPACK_DEBIAN_KERNELS_PACKAGE_NAME libtroika-kernels-dev)
set(CPACK_DEBIAN_KERNELS_PACKAGE_DEPENDS "libtroika-dev (= ${PROJECT_VERSION})")
set(CPACK_COMPONENT_KERNELS_DESCRIPTION "Tensor-parallel transformers for C++ programs: kernels, compiled once")
set(CPACK_DEBIAN_MODELS_PACKAGE_NAME libtroika-models-dev)
# The static library is linked in the user's program, together with what it uses.
set(CPACK_DEBIAN_MODELS_PACKAGE_DEPENDS
  "libtroika-kernels-dev (= ${PROJECT_VERSION}), libpcre2-dev, libutf8proc-dev, pkg-config | pkgconf")
set(CPACK_COMPONENT_MODELS_DESCRIPTION "Tensor-parallel transformers for C++ programs: models, their files and tokenizers")
set(CPACK_DEBIAN_SERVING_PACKAGE_NAME libtroika-serving-dev)
set(CPACK_DEBIAN_SERVING_PACKAGE_DEPENDS "libtroika-models-dev (= ${PROJECT_VERSION}), prometheus-cpp-dev, libssl-dev")
if(TROIKA_HAS_CUDA)
  string(APPEND CPACK_DEBIAN_SERVING_PACKAGE_DEPENDS ", libtroika-cuda-dev (= ${PROJECT_VERSION})")
endif()
set(CPACK_COMPONENT_SERVING_DESCRIPTION "Tensor-parallel transformers for C++ programs: an engine and its HTTP server")
set(CPACK_DEBIAN_TOPOLOGY_PACKAGE_NAME libtroika-topology-dev)
set(CPACK_DEBIAN_TOPOLOGY_PACKAGE_DEPENDS
  "libtroika-dev (= ${PROJECT_VERSION}), libhwloc-dev (>= 2.0), pkg-config | pkgconf")
set(CPACK_COMPONENT_TOPOLOGY_DESCRIPTION "Tensor-parallel transformers for C++ programs: cores by NUMA node")
set(CPACK_DEBIAN_CUDA_PACKAGE_NAME libtroika-cuda-dev)
# The toolkit comes from NVIDIA's packages, by version, or by other ways than packages.
set(CPACK_DEBIAN_CUDA_PACKAGE_DEPENDS "libtroika-dev (= ${PROJECT_VERSION})")
set(CPACK_COMPONENT_CUDA_DESCRIPTION "Tensor-parallel transformers for C++ programs: GPUs by CUDA, Peer and NCCL")
include(CPack)
