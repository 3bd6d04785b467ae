# troika::troika: headers, Eigen and threads. Nothing else.

find_package(Eigen3 REQUIRED CONFIG)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

file(GLOB_RECURSE troika_headers CONFIGURE_DEPENDS include/troika/*.hpp)
set(models_folder models)
set(serving_folder serving)
set(topology_folder topology)
set(cuda_folder "(device/cuda|communication/(peer|nccl|device_endpoint|device_engine|staged_engine|fastest|fastest_choice).hpp)")
foreach(component IN ITEMS models serving topology cuda)  # each installs its own
  set(troika_${component}_headers ${troika_headers})
  list(FILTER troika_${component}_headers INCLUDE REGEX "/include/troika/${${component}_folder}")
  list(FILTER troika_headers EXCLUDE REGEX "/include/troika/${${component}_folder}")
endforeach()

add_library(troika INTERFACE)
add_library(troika::troika ALIAS troika)
target_sources(troika INTERFACE FILE_SET HEADERS BASE_DIRS include FILES ${troika_headers})
target_compile_features(troika INTERFACE cxx_std_20)
target_link_libraries(troika INTERFACE Eigen3::Eigen Threads::Threads)
