# troika::topology: how cores, caches and NUMA nodes lie, through hwloc, which stays out of its header.

if(NOT TROIKA_BUILD_TOPOLOGY MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "TROIKA_BUILD_TOPOLOGY is AUTO, ON or OFF, not \"${TROIKA_BUILD_TOPOLOGY}\"")
endif()
set(TROIKA_HAS_TOPOLOGY OFF)
if(TROIKA_BUILD_TOPOLOGY STREQUAL "OFF")
  return()
endif()

set(missing "")
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(HWLOC QUIET IMPORTED_TARGET hwloc>=2.0)
else()
  list(APPEND missing pkg-config)
endif()
if(NOT HWLOC_FOUND)
  list(APPEND missing libhwloc-dev)
endif()
if(missing)
  list(JOIN missing " " missing)
  if(TROIKA_BUILD_TOPOLOGY STREQUAL "ON")
    message(FATAL_ERROR "troika::topology needs these packages: ${missing}")
  endif()
  message(STATUS "troika::topology is left out; it needs these packages: ${missing}")
  return()
endif()

set(TROIKA_HAS_TOPOLOGY ON)
file(GLOB troika_topology_sources CONFIGURE_DEPENDS src/topology/*.cpp)
add_library(troika_topology STATIC ${troika_topology_sources})
add_library(troika::topology ALIAS troika_topology)
set_target_properties(troika_topology PROPERTIES
  EXPORT_NAME topology
  OUTPUT_NAME troika-topology
  POSITION_INDEPENDENT_CODE ON)
target_sources(troika_topology PUBLIC FILE_SET HEADERS BASE_DIRS include FILES ${troika_topology_headers})
target_link_libraries(troika_topology PUBLIC troika::troika PRIVATE PkgConfig::HWLOC)
troika_warnings(troika_topology)
if(NOT TROIKA_INSTALL)  # part of another project: built if it is linked
  set_target_properties(troika_topology PROPERTIES EXCLUDE_FROM_ALL ON)
endif()
