# troika::serving: the engine, the HTTP server, the API and metrics. Boost.Beast, the JSON library and prometheus-cpp stay
# inside of it.

if(NOT TROIKA_BUILD_SERVING MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "TROIKA_BUILD_SERVING is AUTO, ON or OFF, not \"${TROIKA_BUILD_SERVING}\"")
endif()
file(GLOB_RECURSE troika_serving_sources CONFIGURE_DEPENDS src/serving/*.cpp)
set(TROIKA_HAS_SERVING OFF)
if(TROIKA_BUILD_SERVING STREQUAL "OFF")
  return()
endif()

set(missing "")
if(NOT TROIKA_HAS_MODELS)
  list(APPEND missing "the component troika::models")
endif()
# 1.74 is that of Debian 12; only headers are used. A config file of Boost is not asked for, since distributions leave it out
# of the package with the headers.
find_path(TROIKA_BOOST_INCLUDE boost/beast/http.hpp DOC "The folder of Boost's headers")
mark_as_advanced(TROIKA_BOOST_INCLUDE)
set(boost_version 0)
if(TROIKA_BOOST_INCLUDE)
  file(STRINGS ${TROIKA_BOOST_INCLUDE}/boost/version.hpp boost_version REGEX "^#define BOOST_VERSION [0-9]+")
  string(REGEX MATCH "[0-9]+" boost_version "${boost_version}")
endif()
if(boost_version LESS 107400)
  list(APPEND missing "libboost-dev (1.74 or later)")
endif()
if(PkgConfig_FOUND)
  pkg_check_modules(PROMETHEUS QUIET IMPORTED_TARGET prometheus-cpp-core)
endif()
if(NOT PROMETHEUS_FOUND)
  list(APPEND missing prometheus-cpp-dev)
endif()

if(missing)
  list(JOIN missing ", " missing)
  if(TROIKA_BUILD_SERVING STREQUAL "ON")
    message(FATAL_ERROR "troika::serving needs ${missing}")
  endif()
  message(STATUS "troika::serving is left out; it needs ${missing}")
  return()
endif()

set(TROIKA_HAS_SERVING ON)
add_library(troika_serving ${troika_serving_sources})
add_library(troika::serving ALIAS troika_serving)
set_target_properties(troika_serving PROPERTIES
  EXPORT_NAME serving
  OUTPUT_NAME troika-serving
  POSITION_INDEPENDENT_CODE ON
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
target_sources(troika_serving PUBLIC FILE_SET HEADERS BASE_DIRS include FILES ${troika_serving_headers})
target_include_directories(troika_serving PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_include_directories(troika_serving SYSTEM PRIVATE ${TROIKA_BOOST_INCLUDE})
target_link_libraries(troika_serving
  PUBLIC troika::models
  PRIVATE $<BUILD_INTERFACE:nlohmann_json::nlohmann_json> PkgConfig::PROMETHEUS)
troika_warnings(troika_serving)
if(TROIKA_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Asio has fences, which ThreadSanitizer does not follow; its strands use locks, which it does.
  set_source_files_properties(src/serving/http_server.cpp PROPERTIES COMPILE_OPTIONS -Wno-tsan)
endif()
