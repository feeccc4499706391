# SPDX-License-Identifier: Apache-2.0
# Debian packages, by `cpack` in the build folder. Configure with -DCMAKE_INSTALL_PREFIX=/usr, so
# that the library goes where Debian has libraries of its architecture.
include_guard()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME edge-imprint)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "run and teach fused edge-imprint models on a device")
set(CPACK_PACKAGE_CONTACT "edge-imprint's maintainers <maintainers@edge-imprint.invalid>")
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_ALL runtime development tools)
if(NOT programs)
  list(REMOVE_ITEM CPACK_COMPONENTS_ALL tools)
endif()
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_HOMEPAGE "")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE arm64)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64)$")
  set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE amd64)
endif()

# dpkg-shlibdeps knows what the host's libraries are called, not those of another architecture.
# There: glibc 2.34, which is the newest symbol that is used (a test holds it).
find_program(EI_SHLIBDEPS dpkg-shlibdeps)
mark_as_advanced(EI_SHLIBDEPS)
if(EI_SHLIBDEPS AND NOT CMAKE_CROSSCOMPILING)
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
else()
  set(CPACK_DEBIAN_RUNTIME_PACKAGE_DEPENDS "libc6 (>= 2.34)")
  set(CPACK_DEBIAN_TOOLS_PACKAGE_DEPENDS "libc6 (>= 2.34)")
  # Where it knows shared libraries for what they are CPack calls ldconfig itself.
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/triggers "activate-noawait ldconfig\n")
  set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_BINARY_DIR}/triggers)
endif()

set(soname libedge-imprint${PROJECT_VERSION_MAJOR})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME ${soname})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "The C runtime: a library that classifies
images with fused models and teaches them classes. It opens ONNX Runtime, 1.16 or
newer, when it is used, so that no particular release is needed to install it.")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libedge-imprint-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "${soname} (= ${PROJECT_VERSION})")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "What programs are built with that use
the C runtime: the header, which documents it, the static library, and the files that
pkg-config and CMake look for.")

set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME edge-imprint-tools)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION science)
set(CPACK_DEBIAN_TOOLS_PACKAGE_RECOMMENDS
  "libturbojpeg0 | libturbojpeg, libpng16-16 | libpng16-16t64")
set(CPACK_COMPONENT_TOOLS_DESCRIPTION "Programs for devices without Python:
ei-classify classifies photos and camera frames, ei-teach teaches classes on the spot,
ei-bench measures models.")

foreach(pair runtime:${soname} development:libedge-imprint-dev tools:edge-imprint-tools)
  string(REPLACE ":" ";" pair ${pair})
  list(GET pair 0 component)
  list(GET pair 1 package)
  if(EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/../../LICENSE)
    install(FILES ../../LICENSE DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/${package}
      RENAME copyright COMPONENT ${component})
  endif()
endforeach()

include(CPack)
