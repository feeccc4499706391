# SPDX-License-Identifier: Apache-2.0
# ei-classify, ei-teach, ei-bench. They carry the library inside: they use what is private to it,
# and run wherever they are copied.
include_guard()

file(GLOB parts CONFIGURE_DEPENDS programs/*.c programs/bench/*.c)
list(REMOVE_ITEM parts
  ${CMAKE_CURRENT_SOURCE_DIR}/programs/classify.c
  ${CMAKE_CURRENT_SOURCE_DIR}/programs/teach.c
  ${CMAKE_CURRENT_SOURCE_DIR}/programs/bench/main.c)
set(program_libraries edge_imprint_static)
if(parts)
  add_library(edge_imprint_programs STATIC ${parts})
  target_include_directories(edge_imprint_programs PUBLIC src programs programs/bench)
  target_link_libraries(edge_imprint_programs PUBLIC edge_imprint_static)
  ei_flags(edge_imprint_programs)
  list(INSERT program_libraries 0 edge_imprint_programs)
endif()

set(programs)
foreach(pair classify:classify.c teach:teach.c bench:bench/main.c)
  string(REPLACE ":" ";" pair ${pair})
  list(GET pair 0 name)
  list(GET pair 1 source)
  if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/programs/${source})
    add_executable(ei-${name} programs/${source})
    target_link_libraries(ei-${name} PRIVATE ${program_libraries})
    ei_flags(ei-${name})
    list(APPEND programs ei-${name})
  endif()
endforeach()
