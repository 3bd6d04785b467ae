# troika::cuda: GPUs. Its public headers include nothing of CUDA's. Where nvcc is found without cuBLASLt, only the tests
# compile what nvcc takes.

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
  set(TROIKA_HAS_NVCC ON)
elseif(TROIKA_BUILD_CUDA STREQUAL "ON")
  message(FATAL_ERROR "TROIKA_BUILD_CUDA needs nvcc of CUDA 12.8 or later")
else()
  message(STATUS "troika::cuda is left out; it needs nvcc of CUDA 12.8 or later")
  return()
endif()

# What nvcc is told for each of the project's own .cu files. 554: a conversion of a View to itself, which no other compiler
# mentions. In a hot kernel a register in memory is a mistake.
set(troika_nvcc_flags --expt-relaxed-constexpr --diag-suppress=554 -Xcompiler=-Wall,-Wextra,-Wshadow
  -Xptxas=--warn-on-spills$<$<BOOL:${TROIKA_WARNINGS_AS_ERRORS}>:,--warning-as-error>)
file(GLOB troika_cuda_kernels CONFIGURE_DEPENDS src/device/cuda/*.cu src/communication/peer/*.cu)

find_package(CUDAToolkit QUIET)
find_path(TROIKA_CUBLASLT_INCLUDE cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
mark_as_advanced(TROIKA_CUBLASLT_INCLUDE)
list(PREPEND CMAKE_MODULE_PATH ${CMAKE_CURRENT_LIST_DIR})
find_package(NCCL 2.28 QUIET)
set(missing "")
if(NOT TARGET CUDA::cublasLt OR NOT TROIKA_CUBLASLT_INCLUDE)
  list(APPEND missing "cuBLASLt of the CUDA toolkit")
endif()
file(GLOB troika_cuda_sources CONFIGURE_DEPENDS src/device/cuda/*.cpp src/communication/peer/*.cpp
  src/communication/fastest/*.cpp)
set(headers ${troika_cuda_headers})
if(NCCL_FOUND)
  file(GLOB nccl_sources CONFIGURE_DEPENDS src/communication/nccl/*.cpp)
  list(APPEND troika_cuda_sources ${nccl_sources})
else()
  list(FILTER headers EXCLUDE REGEX "/nccl.hpp$")
endif()
troika_component(cuda "${missing}" STATIC SOURCES ${troika_cuda_sources} ${troika_cuda_kernels} HEADERS ${headers})
if(NOT TROIKA_HAS_CUDA)
  return()
endif()
target_include_directories(troika_cuda PRIVATE ${PROJECT_SOURCE_DIR})
target_include_directories(troika_cuda SYSTEM PRIVATE ${TROIKA_CUBLASLT_INCLUDE})
target_compile_options(troika_cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${troika_nvcc_flags}>")
set_target_properties(troika_cuda PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON)
# The runtime looks for the driver when it is first called, so that programs start without one.
target_link_libraries(troika_cuda PUBLIC troika::troika PRIVATE CUDA::cudart_static CUDA::cublasLt ${CMAKE_DL_LIBS})
target_compile_definitions(troika_cuda INTERFACE TROIKA_HAS_CUDA)
if(NCCL_FOUND)
  # It is not linked: the program looks for it when it first needs it.
  target_include_directories(troika_cuda SYSTEM PRIVATE ${NCCL_INCLUDE_DIR})
  target_compile_definitions(troika_cuda PRIVATE TROIKA_NCCL_LIBRARY="${NCCL_LIBRARY}" INTERFACE TROIKA_HAS_NCCL)
else()
  message(STATUS "troika::cuda is without Nccl; that needs NCCL 2.28 or later (NCCL_ROOT says where it is)")
endif()
if(NOT TROIKA_INSTALL)  # part of another project: built if it is linked
  set_target_properties(troika_cuda PROPERTIES EXCLUDE_FROM_ALL ON)
endif()
