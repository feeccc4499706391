# SPDX-License-Identifier: Apache-2.0
# One program for each tests/c/programs/NAME.c, in the build folder's tests/NAME. Each is linked
# with the static library and what the programs share, and sees all private headers.
#
# What a source says of itself:
#   __wrap_NAME ...     it stands in for NAME: linked with --wrap=NAME
#   kind: shared library  (in a comment) it becomes tests/libNAME.so, without our library
#   needs: FOLDER/FILE.c  (in a comment) a source of runtime/c to be compiled with it
# A header of tests/c/programs says it for each source that includes it. A folder
# tests/c/programs/NAME holds what else belongs to a source.
include_guard()

file(GLOB test_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/../../tests/c/programs/*.c)
file(GLOB test_headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/../../tests/c/programs/*.h)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${test_headers})
foreach(source IN LISTS test_sources)
  get_filename_component(name ${source} NAME_WE)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
  file(READ ${source} text)
  foreach(header IN LISTS test_headers)
    get_filename_component(header_name ${header} NAME)
    if(text MATCHES "#include \"${header_name}\"")
      file(READ ${header} header_text)
      string(APPEND text "${header_text}")
    endif()
  endforeach()
  if(text MATCHES "kind: shared library")
    add_library(test_${name} SHARED ${source})
    target_link_libraries(test_${name} PRIVATE Threads::Threads ${CMAKE_DL_LIBS})
    target_include_directories(test_${name} PRIVATE include src)
    set_target_properties(test_${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY tests)
  else()
    add_executable(test_${name} ${source})
    set_target_properties(test_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY tests)
    target_include_directories(test_${name} PRIVATE src programs programs/bench)
    target_link_libraries(test_${name} PRIVATE ${program_libraries} edge_imprint_static)
  endif()
  set_target_properties(test_${name} PROPERTIES OUTPUT_NAME ${name})
  string(REGEX MATCHALL "__wrap_[a-z_0-9]+" wraps "${text}")
  list(REMOVE_DUPLICATES wraps)
  foreach(wrap IN LISTS wraps)
    string(REPLACE "__wrap_" "-Wl,--wrap=" option ${wrap})
    target_link_options(test_${name} PRIVATE ${option})
  endforeach()
  string(REGEX MATCHALL "needs: [a-z_/0-9]+\\.c" needs "${text}")
  foreach(need IN LISTS needs)
    string(REPLACE "needs: " "" need ${need})
    target_sources(test_${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/${need})
  endforeach()
  get_filename_component(folder ${source} DIRECTORY)
  file(GLOB more CONFIGURE_DEPENDS ${folder}/${name}/*.c)
  target_sources(test_${name} PRIVATE ${more})
  ei_flags(test_${name})
endforeach()
