# troika::troika: headers, Eigen and threads. Nothing else.

find_package(Eigen3 REQUIRED CONFIG)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

file(GLOB_RECURSE troika_headers CONFIGURE_DEPENDS include/troika/*.hpp)
set(troika_models_headers ${troika_headers})
set(troika_serving_headers ${troika_headers})
list(FILTER troika_headers EXCLUDE REGEX "/include/troika/(models|serving)/")
list(FILTER troika_models_headers INCLUDE REGEX "/include/troika/models/")
list(FILTER troika_serving_headers INCLUDE REGEX "/include/troika/serving/")

add_library(troika INTERFACE)
add_library(troika::troika ALIAS troika)
target_sources(troika INTERFACE FILE_SET HEADERS BASE_DIRS include FILES ${troika_headers})
target_compile_features(troika INTERFACE cxx_std_20)
target_link_libraries(troika INTERFACE Eigen3::Eigen Threads::Threads)
