# troika::serving: the engine, the HTTP server, the API and metrics. Boost.Beast, the JSON library, prometheus-cpp and
# OpenSSL (of which only SHA-256 is used) stay inside of it.

troika_begin_component(serving)
file(GLOB_RECURSE troika_serving_sources CONFIGURE_DEPENDS src/serving/*.cpp)
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
  pkg_check_modules(LIBCRYPTO QUIET IMPORTED_TARGET libcrypto)
endif()
if(NOT PROMETHEUS_FOUND)
  list(APPEND missing prometheus-cpp-dev)
endif()
if(NOT LIBCRYPTO_FOUND)
  list(APPEND missing libssl-dev)
endif()

set(headers ${troika_serving_headers})
if(NOT TROIKA_HAS_CUDA)
  list(FILTER troika_serving_sources EXCLUDE REGEX "/cuda_engine.cpp$")
  list(FILTER headers EXCLUDE REGEX "/cuda_engine.hpp$")
endif()
troika_component(serving "${missing}" UNITY SOURCES ${troika_serving_sources} HEADERS ${headers})
if(NOT TROIKA_HAS_SERVING)
  return()
endif()
# The page of the dashboard is a part of the library.
set(dashboard ${PROJECT_SOURCE_DIR}/src/serving/dashboard.html)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${dashboard})
file(READ ${dashboard} dashboard_html)
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/dashboard_html.hpp @ONLY CONTENT [[
#pragma once
#include <string_view>
inline constexpr std::string_view dashboard_html = R"html(@dashboard_html@)html";
]])
target_include_directories(troika_serving PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_BINARY_DIR}/generated)
target_include_directories(troika_serving SYSTEM PRIVATE ${TROIKA_BOOST_INCLUDE})
target_link_libraries(troika_serving
  PUBLIC troika::models
  PRIVATE $<BUILD_INTERFACE:nlohmann_json::nlohmann_json> PkgConfig::PROMETHEUS PkgConfig::LIBCRYPTO)
if(TROIKA_HAS_CUDA)
  target_link_libraries(troika_serving PUBLIC troika::cuda)
endif()
if(TROIKA_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Asio has fences, which ThreadSanitizer does not follow; its strands use locks, which it does.
  set_source_files_properties(src/serving/http_server.cpp PROPERTIES COMPILE_OPTIONS -Wno-tsan)
endif()
foreach(name IN ITEMS host_engine cuda_engine self_check device_groups monitor dashboard metrics device_metrics readiness alerts)
  troika_not_fuzzed(src/serving/${name}.cpp)
endforeach()
