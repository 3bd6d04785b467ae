# cmake -DSOURCE=<project> -DBUILD=<folder> -DGENERATOR=<name> -DOPTIONS=<list> [-DARGUMENTS=<list>]
#       -P build_and_run.cmake

# A build folder that an earlier run made with another generator cannot be used again.
if(EXISTS ${BUILD}/CMakeCache.txt)
  file(STRINGS ${BUILD}/CMakeCache.txt made_with REGEX "^CMAKE_GENERATOR:INTERNAL=${GENERATOR}$")
  if(NOT made_with)
    file(REMOVE_RECURSE ${BUILD})
  endif()
endif()
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${BUILD} -G ${GENERATOR} -DCMAKE_BUILD_TYPE=Debug ${OPTIONS}
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BUILD} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${BUILD}/consumer ${ARGUMENTS} COMMAND_ERROR_IS_FATAL ANY)
