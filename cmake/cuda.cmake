# CUDA: where nvcc is found, tests/kernels/nvcc compiles kernels/. No library uses them yet, so nothing is installed.

set(TROIKA_CUDA_ARCHITECTURES "80-real;86-real;89-real;90-real;100;120" CACHE STRING
  "For which GPUs kernels are compiled, as CMAKE_CUDA_ARCHITECTURES; what has no -real has PTX, too")

troika_begin_component(cuda)
# The flags of sanitizers are not nvcc's. As part of another project, CUDA is for that project to ask for.
if(TROIKA_BUILD_CUDA STREQUAL "OFF" OR TROIKA_SANITIZE
   OR (TROIKA_BUILD_CUDA STREQUAL "AUTO" AND NOT PROJECT_IS_TOP_LEVEL))
  return()
endif()

include(CheckLanguage)
# Before the language is enabled: CMake would choose one of 2018. `native` needs a GPU.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES ${TROIKA_CUDA_ARCHITECTURES})
endif()
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has C++20
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
endif()
# 12.8 is the first that knows all architectures.
if(CMAKE_CUDA_COMPILER AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
  set(TROIKA_HAS_CUDA ON)
elseif(TROIKA_BUILD_CUDA STREQUAL "ON")
  message(FATAL_ERROR "TROIKA_BUILD_CUDA needs nvcc of CUDA 12.8 or later")
else()
  message(STATUS "kernels/ are not compiled for GPUs; that needs nvcc of CUDA 12.8 or later")
endif()
