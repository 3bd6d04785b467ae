# What is built, and how strictly. As part of another project only the libraries are.

option(TROIKA_BUILD_TESTS "Tests; they need Catch2 2.13 or 3" ${PROJECT_IS_TOP_LEVEL})
option(TROIKA_BUILD_EXAMPLES "Examples and the main program, troika-run" ${PROJECT_IS_TOP_LEVEL})
option(TROIKA_BUILD_BENCHMARKS "Benchmarks, where Google Benchmark is found" ${PROJECT_IS_TOP_LEVEL})
option(TROIKA_INSTALL "Install rules and packages" ${PROJECT_IS_TOP_LEVEL})
option(TROIKA_WARNINGS_AS_ERRORS "Stop at the first warning in troika's own files" OFF)
set(TROIKA_SANITIZE "" CACHE STRING "Instrument everything built here: \"address,undefined\" or \"thread\"")
option(TROIKA_UNITY_BUILD "Compile sources of troika::models and troika::serving six at a time: sooner as a whole, later after a change" OFF)
set(TROIKA_BUILD_MODELS AUTO CACHE STRING "The component troika::models: AUTO (where its libraries are found), ON or OFF")
set(TROIKA_BUILD_SERVING AUTO CACHE STRING "The component troika::serving: AUTO (where its libraries are found), ON or OFF")
set(TROIKA_BUILD_TOPOLOGY AUTO CACHE STRING "The component troika::topology: AUTO (where hwloc is found), ON or OFF")
set(TROIKA_TEST_OPTIMIZATION "" CACHE STRING
  "Added to the flags of tests and examples, but not where speed is looked at: tests/device, troika-run, benchmarks")
set(TROIKA_BUILD_CUDA AUTO CACHE STRING "The component troika::cuda: AUTO (where nvcc and cuBLASLt are found), ON or OFF")

if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, RelWithDebInfo or Debug" FORCE)
  endif()
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  set(CMAKE_CXX_EXTENSIONS OFF)
  find_program(TROIKA_CCACHE ccache)
  mark_as_advanced(TROIKA_CCACHE)
  if(TROIKA_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
    # Without it ccache leaves alone what is compiled with precompiled headers.
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${TROIKA_CCACHE})
  endif()
  if(TROIKA_SANITIZE)
    add_compile_options(-fsanitize=${TROIKA_SANITIZE} -fno-omit-frame-pointer)
    string(REPLACE "fuzzer-no-link," "" linked "${TROIKA_SANITIZE}")
    add_link_options(-fsanitize=${linked})
    if(TROIKA_SANITIZE MATCHES "undefined")
      add_compile_options(-fno-sanitize-recover=undefined)
    endif()
  endif()
endif()

# For troika's own sources only; never part of what a user of the library inherits.
# g++ 12 sees overlapping copies in `"text" + std::string()` that are not there (GCC bug 105651), and reads of strings that
# were not written where a std::function takes one by value. g++ 13 and later cannot see that a loop ends within a row.
function(troika_warnings target)
  set(old_gnu "$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>")
  set(flags -Wall -Wextra -Wpedantic -Wshadow "$<${old_gnu}:-Wno-restrict;-Wno-maybe-uninitialized>"
    $<$<CXX_COMPILER_ID:GNU>:-Wno-stringop-overread> $<$<BOOL:${TROIKA_WARNINGS_AS_ERRORS}>:-Werror>)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${flags}>")
endfunction()

# Whether one of these files includes something under <prefix...>.
function(troika_includes result prefix)
  set(${result} OFF PARENT_SCOPE)
  foreach(file IN LISTS ARGN)
    file(STRINGS ${file} line REGEX "#include <${prefix}" LIMIT_COUNT 1)
    if(line)
      set(${result} ON PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

# What a component that may be left out begins with: sets TROIKA_HAS_<NAME> to OFF and checks TROIKA_BUILD_<NAME>.
function(troika_begin_component name)
  string(TOUPPER ${name} upper)
  if(NOT TROIKA_BUILD_${upper} MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "TROIKA_BUILD_${upper} is AUTO, ON or OFF, not \"${TROIKA_BUILD_${upper}}\"")
  endif()
  set(TROIKA_HAS_${upper} OFF PARENT_SCOPE)
endfunction()

# Makes troika::<name> of its sources and headers, and sets TROIKA_HAS_<NAME>, if none of the packages that it needs are
# `missing`. Otherwise it is left out, with a line that says so, or ends the configuration where it was asked for.
# UNITY: no two of its sources have a name in common that only they know, so that TROIKA_UNITY_BUILD can join them.
function(troika_component name missing)
  cmake_parse_arguments(PARSE_ARGV 2 arg "STATIC;UNITY" "" "SOURCES;HEADERS")
  string(TOUPPER ${name} upper)
  if(missing)
    list(JOIN missing ", " missing)
    if(TROIKA_BUILD_${upper} STREQUAL "ON")
      message(FATAL_ERROR "troika::${name} needs ${missing}")
    endif()
    message(STATUS "troika::${name} is left out; it needs ${missing}")
    return()
  endif()
  set(type "")
  if(arg_STATIC)
    set(type STATIC)
  endif()
  add_library(troika_${name} ${type} ${arg_SOURCES})
  add_library(troika::${name} ALIAS troika_${name})
  set_target_properties(troika_${name} PROPERTIES
    EXPORT_NAME ${name}
    OUTPUT_NAME troika-${name}
    POSITION_INDEPENDENT_CODE ON
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  target_sources(troika_${name} PUBLIC FILE_SET HEADERS BASE_DIRS include FILES ${arg_HEADERS})
  if(arg_UNITY AND TROIKA_UNITY_BUILD)
    set_target_properties(troika_${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
    if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)  # takes sources that are joined for headers
      target_compile_options(troika_${name} PRIVATE -Wno-subobject-linkage)
    endif()
  endif()
  troika_warnings(troika_${name})
  set(TROIKA_HAS_${upper} ON PARENT_SCOPE)
endfunction()

# A source that no fuzzer reaches: with coverage clang takes minutes for its templates.
function(troika_not_fuzzed source)
  if(TROIKA_BUILD_FUZZERS)
    set_source_files_properties(${source} PROPERTIES
      COMPILE_OPTIONS "-O0;-fno-sanitize=all")
  endif()
endfunction()
