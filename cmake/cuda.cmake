# troika::cuda: nothing to build yet. The switch is here so that its preset can say so instead of failing.

if(NOT TROIKA_BUILD_CUDA)
  return()
endif()
include(CheckLanguage)
# `native` needs a GPU while configuring; a list compiles anywhere.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90)
endif()
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  message(STATUS "CUDA compiler found: ${CMAKE_CUDA_COMPILER}. The component troika::cuda has nothing to build yet.")
else()
  message(STATUS "No CUDA compiler found. The component troika::cuda has nothing to build yet, so nothing is missing.")
endif()
