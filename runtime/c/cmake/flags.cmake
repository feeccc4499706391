# SPDX-License-Identifier: Apache-2.0
# ei_flags(target): how everything of ours is compiled and linked.
include_guard()

if(EI_SANITIZE)
  string(REPLACE "," ";" sanitizers "${EI_SANITIZE}")
  foreach(sanitizer IN LISTS sanitizers)
    if(NOT sanitizer MATCHES "^(address|undefined|thread|leak)$")
      message(FATAL_ERROR "EI_SANITIZE=${EI_SANITIZE}: ${sanitizer} is none of address, "
        "undefined, thread and leak")
    endif()
  endforeach()
endif()

function(ei_flags target)
  set_target_properties(${target} PROPERTIES
    C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS ON)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wpedantic
    $<$<BOOL:${EI_WERROR}>:-Werror>
    # a * b + c stays two roundings, on aarch64 too: numbers are those of Python's runtime.
    -ffp-contract=off
    # With --gc-sections a program that links statically carries what it calls.
    -ffunction-sections -fdata-sections
    $<$<CONFIG:Release>:-fstack-protector-strong>)
  target_link_options(${target} PRIVATE -Wl,--gc-sections -Wl,-z,relro,-z,now)
  # A distribution that sets its own level (-D on the command line) keeps it.
  if(NOT EI_SANITIZE AND NOT EI_COVERAGE AND NOT CMAKE_C_FLAGS MATCHES "_FORTIFY_SOURCE")
    target_compile_options(${target} PRIVATE
      $<$<CONFIG:Release>:-U_FORTIFY_SOURCE> $<$<CONFIG:Release>:-D_FORTIFY_SOURCE=2>)
  endif()
  if(EI_DEBUG)
    target_compile_definitions(${target} PRIVATE EI_DEBUG)
  else()
    target_compile_definitions(${target} PRIVATE $<$<CONFIG:Debug>:EI_DEBUG>)
  endif()
  if(EI_SANITIZE)
    target_compile_options(${target} PRIVATE
      -fsanitize=${EI_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
    target_link_options(${target} PRIVATE -fsanitize=${EI_SANITIZE})
  endif()
  if(EI_COVERAGE)
    # Last on the line, so that no line is merged into another.
    target_compile_options(${target} PRIVATE --coverage -fprofile-update=atomic -O0 -g)
    target_link_options(${target} PRIVATE --coverage)
  endif()
endfunction()
