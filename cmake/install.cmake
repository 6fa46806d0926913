# What `cmake --install` puts where: the program, its manual page and its data, and the library with
# its header and pkg-config file.
file(RELATIVE_PATH BITGAUGE_PC_PREFIX
  /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" BITGAUGE_PC_PREFIX ${BITGAUGE_PC_PREFIX})
configure_file(${CMAKE_SOURCE_DIR}/cmake/bitgauge.pc.in ${CMAKE_BINARY_DIR}/bitgauge.pc @ONLY)

install(TARGETS bitgauge LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${CMAKE_SOURCE_DIR}/include/bitgauge/bitgauge.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/bitgauge)
install(FILES ${CMAKE_BINARY_DIR}/bitgauge.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(TARGET bitgauge_program)
  install(TARGETS bitgauge_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(FILES ${CMAKE_BINARY_DIR}/bitgauge.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()
# The program looks for ../share/bitgauge from its own directory.
install(DIRECTORY ${CMAKE_SOURCE_DIR}/models ${CMAKE_SOURCE_DIR}/data
  DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/bitgauge)
install(FILES ${CMAKE_SOURCE_DIR}/README.md ${CMAKE_SOURCE_DIR}/CHANGELOG.md
  ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs)
