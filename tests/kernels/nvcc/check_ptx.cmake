# cmake -DFILE=<ptx> -DHAS=<regular expressions> [-DLACKS=<regular expression>] -P check_ptx.cmake
# What the kernels' design rests on has to be in the code that the compiler made of it.
file(READ ${FILE} ptx)
foreach(wanted IN LISTS HAS)
  if(NOT ptx MATCHES "${wanted}")
    message(FATAL_ERROR "${FILE} has no ${wanted}")
  endif()
endforeach()
if(LACKS AND ptx MATCHES "${LACKS}")
  message(FATAL_ERROR "${FILE} has ${CMAKE_MATCH_0}")
endif()
