# troika::models: the compiled half of include/troika/models, with the libraries it reads files and text by. They stay
# out of its headers, so a user of the component needs none of their -dev packages to compile.
#
# Shared builds (BUILD_SHARED_LIBS) export every symbol: export macros in the headers would buy little for one library
# that few load at run time.

if(NOT TROIKA_BUILD_MODELS MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "TROIKA_BUILD_MODELS is AUTO, ON or OFF, not \"${TROIKA_BUILD_MODELS}\"")
endif()
file(GLOB_RECURSE troika_models_sources CONFIGURE_DEPENDS src/models/*.cpp)
set(TROIKA_HAS_MODELS OFF)
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

if(missing)
  list(JOIN missing " " missing)
  if(TROIKA_BUILD_MODELS STREQUAL "ON")
    message(FATAL_ERROR "troika::models needs these packages: ${missing}")
  endif()
  message(STATUS "troika::models is left out; it needs these packages: ${missing}")
  return()
endif()

set(TROIKA_HAS_MODELS ON)
add_library(troika_models ${troika_models_sources})
add_library(troika::models ALIAS troika_models)
set_target_properties(troika_models PROPERTIES
  EXPORT_NAME models
  OUTPUT_NAME troika-models
  POSITION_INDEPENDENT_CODE ON
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
target_sources(troika_models PUBLIC FILE_SET HEADERS BASE_DIRS include FILES ${troika_models_headers})
target_link_libraries(troika_models
  PUBLIC troika::troika
  PRIVATE $<BUILD_INTERFACE:nlohmann_json::nlohmann_json> PkgConfig::PCRE2 PkgConfig::UTF8PROC)
troika_warnings(troika_models)
