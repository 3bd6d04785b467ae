# cmake -DROOT=<repository> -DWORK=<scratch folder> -P check_floors_selftest.cmake
# The check must pass on what is there, and fail once an include is planted that points up, sideways or outside.

function(check expected_problem)
  execute_process(COMMAND ${CMAKE_COMMAND} -DROOT=${WORK} -P ${ROOT}/tests/structure/check_floors.cmake
    RESULT_VARIABLE code OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(NOT expected_problem AND NOT code EQUAL 0)
    message(FATAL_ERROR "The check fails on clean headers:\n${out}")
  elseif(expected_problem AND (code EQUAL 0 OR NOT out MATCHES "${expected_problem}"))
    message(FATAL_ERROR "The check did not find: ${expected_problem}\n${out}")
  endif()
endfunction()

function(plant file line expected_problem)
  file(WRITE ${WORK}/include/troika/${file} "#pragma once\n${line}\n")
  check("${expected_problem}")
  file(REMOVE ${WORK}/include/troika/${file})
endfunction()

file(REMOVE_RECURSE ${WORK})
file(COPY ${ROOT}/include DESTINATION ${WORK})
check("")
plant(core/planted.hpp "#include <troika/sync/dtensor.hpp>" "core/planted.hpp .floor 0. includes sync/dtensor.hpp")
plant(core/planted.hpp "#include <troika/observe/trace.hpp>" "core/planted.hpp .floor 0. includes observe/trace.hpp")
plant(communication/planted.hpp "#  include <troika/pipeline.hpp>" "planted.hpp .floor 2. includes pipeline.hpp")
plant(sync/planted.hpp "#include <troika/scheduling/planted.hpp>" "planted.hpp .floor 3. includes scheduling/planted.hpp")
plant(layers/planted.hpp "#include <troika/troika.hpp>" "planted.hpp .floor 5. includes troika.hpp")
plant(device/planted.hpp "#include <nlohmann/json.hpp>" "device/planted.hpp has #include <nlohmann/json.hpp>")
plant(device/planted.hpp "#include \"tensor.hpp\"" "device/planted.hpp has #include \"tensor.hpp\"")
plant(attic/planted.hpp "" "is on no floor")
file(REMOVE_RECURSE ${WORK})
message("The check finds what is planted")
