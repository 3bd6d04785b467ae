# cmake -DSOURCE=<project> -DBUILD=<folder> -DGENERATOR=<name> -DOPTIONS=<list> [-DARGUMENTS=<list>]
#       -P build_and_run.cmake

execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${BUILD} -G ${GENERATOR} -DCMAKE_BUILD_TYPE=Debug ${OPTIONS}
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${BUILD} COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${BUILD}/consumer ${ARGUMENTS} COMMAND_ERROR_IS_FATAL ANY)
