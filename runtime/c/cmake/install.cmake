# SPDX-License-Identifier: Apache-2.0
# What is installed: the library (runtime), what programs are built with (development), the
# programs (tools).
include_guard()
include(CMakePackageConfigHelpers)

install(TARGETS edge_imprint EXPORT edge_imprint
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime
  NAMELINK_COMPONENT development)
install(TARGETS edge_imprint_static EXPORT edge_imprint
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(FILES include/edge_imprint.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  COMPONENT development)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/edge_imprint)
install(EXPORT edge_imprint NAMESPACE edge_imprint:: FILE edge_imprintTargets.cmake
  DESTINATION ${package_folder} COMPONENT development)
configure_package_config_file(cmake/edge_imprintConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/edge_imprintConfig.cmake INSTALL_DESTINATION ${package_folder})
# While the release is 0.x another minor release may have another interface.
set(compatible SameMinorVersion)
if(PROJECT_VERSION_MAJOR GREATER 0)
  set(compatible SameMajorVersion)
endif()
write_basic_package_version_file(
  ${CMAKE_CURRENT_BINARY_DIR}/edge_imprintConfigVersion.cmake COMPATIBILITY ${compatible})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/edge_imprintConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/edge_imprintConfigVersion.cmake
  DESTINATION ${package_folder} COMPONENT development)

# Relative to where the file lies, so that the folder of an installation can be moved.
file(RELATIVE_PATH up_to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" up_to_prefix ${up_to_prefix})
configure_file(cmake/edge_imprint.pc.in edge_imprint.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/edge_imprint.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)

if(programs)
  install(TARGETS ${programs} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT tools)
endif()
