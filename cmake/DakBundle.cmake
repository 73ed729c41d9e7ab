# The relocatable tarball: everything that is installed, and beside it the shared libraries that it needs, except the C
# library's. CPack makes it from any build tree; scripts/bundle uses the bundle preset.
set(DAK_BUNDLE_ARCHITECTURE ${CMAKE_SYSTEM_PROCESSOR})
configure_file(${PROJECT_SOURCE_DIR}/cmake/bundle_libraries.cmake.in ${CMAKE_BINARY_DIR}/bundle_libraries.cmake @ONLY)
install(SCRIPT ${CMAKE_BINARY_DIR}/bundle_libraries.cmake COMPONENT bundle_libraries EXCLUDE_FROM_ALL)

set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_NAME dak)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_FILE_NAME dak-${PROJECT_VERSION}-linux-${DAK_BUNDLE_ARCHITECTURE})
set(CPACK_STRIP_FILES ON)
set(CPACK_MONOLITHIC_INSTALL ON)
set(CPACK_VERBATIM_VARIABLES ON)
# In this order: the libraries are found by what is already there.
set(CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_BINARY_DIR};dak;ALL;/")
if(DAK_BUNDLE_TESTS)
  list(APPEND CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_BINARY_DIR};dak;tests;/")
endif()
list(APPEND CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_BINARY_DIR};dak;bundle_libraries;/")
include(CPack)
