# troika::models: the compiled half of include/troika/models, with the libraries it reads files and text by. They stay
# out of its headers, so a user of the component needs none of their -dev packages to compile.
#
# Shared builds (BUILD_SHARED_LIBS) export every symbol: export macros in the headers would buy little for one library
# that few load at run time.

troika_begin_component(models)
file(GLOB_RECURSE troika_models_sources CONFIGURE_DEPENDS src/models/*.cpp)
if(TROIKA_BUILD_MODELS STREQUAL "OFF" OR NOT troika_models_sources)
  return()
endif()

set(missing "")
find_package(nlohmann_json QUIET CONFIG)
if(NOT nlohmann_json_FOUND)
  list(APPEND missing nlohmann-json3-dev)
endif()
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(PCRE2 QUIET IMPORTED_TARGET libpcre2-8)
  pkg_check_modules(UTF8PROC QUIET IMPORTED_TARGET libutf8proc)
else()
  list(APPEND missing pkg-config)
endif()
if(NOT PCRE2_FOUND)
  list(APPEND missing libpcre2-dev)
endif()
if(NOT UTF8PROC_FOUND)
  list(APPEND missing libutf8proc-dev)
endif()

troika_component(models "${missing}" UNITY SOURCES ${troika_models_sources} HEADERS ${troika_models_headers})
if(NOT TROIKA_HAS_MODELS)
  return()
endif()
target_link_libraries(troika_models
  PUBLIC troika::kernels
  PRIVATE $<BUILD_INTERFACE:nlohmann_json::nlohmann_json> PkgConfig::PCRE2 PkgConfig::UTF8PROC)
troika_not_fuzzed(src/models/host_models.cpp)
