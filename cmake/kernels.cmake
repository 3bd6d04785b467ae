# troika::kernels: the kernels of the host, compiled once. troika::troika alone compiles them in each program that uses
# them; a program that links this too compiles in about half the time.

file(GLOB troika_kernels_sources CONFIGURE_DEPENDS src/device/host/*.cpp src/communication/*.cpp)
add_library(troika_kernels STATIC ${troika_kernels_sources})
foreach(source IN LISTS troika_kernels_sources)
  troika_not_fuzzed(${source})
endforeach()
add_library(troika::kernels ALIAS troika_kernels)
set_target_properties(troika_kernels PROPERTIES
  EXPORT_NAME kernels
  OUTPUT_NAME troika-kernels
  POSITION_INDEPENDENT_CODE ON)
target_link_libraries(troika_kernels PUBLIC troika::troika)
target_compile_definitions(troika_kernels INTERFACE TROIKA_COMPILED_KERNELS)
troika_warnings(troika_kernels)
if(NOT TROIKA_INSTALL)  # part of another project: built if it is linked
  set_target_properties(troika_kernels PROPERTIES EXCLUDE_FROM_ALL ON)
endif()
