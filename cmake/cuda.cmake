# Whether the CUDA backend is built (BITGAUGE_CUDA: AUTO where nvcc is found, ON to insist, OFF), and
# for which GPUs: BITGAUGE_CUDA_ARCHITECTURES=90 for a quick build; by default all from compute
# capability 7.0 on that the compiler knows, and PTX of the newest for those to come.
set(BITGAUGE_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON or OFF")
set(BITGAUGE_CUDA_ARCHITECTURES "" CACHE STRING "Compute capabilities, as 80;90; empty: all")
if(NOT BITGAUGE_CUDA)
  return()
endif()

find_program(BITGAUGE_NVCC nvcc HINTS $ENV{CUDACXX} $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
if(NOT BITGAUGE_NVCC)
  if(BITGAUGE_CUDA STREQUAL AUTO)
    message(STATUS "CUDA backend: not built, there is no nvcc")
    set(BITGAUGE_CUDA OFF)
    return()
  endif()
  message(FATAL_ERROR "BITGAUGE_CUDA is ON, but there is no nvcc; put it on the PATH")
endif()

execute_process(COMMAND ${BITGAUGE_NVCC} --list-gpu-arch OUTPUT_VARIABLE known)
set(BITGAUGE_CUDA_ARCHITECTURE_LIST "")
if(BITGAUGE_CUDA_ARCHITECTURES)
  set(BITGAUGE_CUDA_ARCHITECTURE_LIST ${BITGAUGE_CUDA_ARCHITECTURES})
else()
  foreach(architecture 70 75 80 86 89 90 100 110 120)
    if(known MATCHES "compute_${architecture}\n")
      set(newest ${architecture})
      list(APPEND BITGAUGE_CUDA_ARCHITECTURE_LIST ${architecture}-real)
    endif()
  endforeach()
  list(APPEND BITGAUGE_CUDA_ARCHITECTURE_LIST ${newest}-virtual)
endif()

# Before the language is enabled: what CMake would choose, newer compilers do not know.
set(CMAKE_CUDA_COMPILER ${BITGAUGE_NVCC})
set(CMAKE_CUDA_ARCHITECTURES ${BITGAUGE_CUDA_ARCHITECTURE_LIST})
enable_language(CUDA)
# What is compiled for one architecture alone asks for it by its number.
if(BITGAUGE_CUDA_ARCHITECTURE_LIST STREQUAL native)
  if(NOT CMAKE_CUDA_ARCHITECTURES_NATIVE MATCHES "^[0-9]")
    message(FATAL_ERROR "there is no GPU here whose compute capability \"native\" could be; name one, "
      "as -DBITGAUGE_CUDA_ARCHITECTURES=90, or none for all")
  endif()
  set(BITGAUGE_CUDA_ARCHITECTURE_LIST ${CMAKE_CUDA_ARCHITECTURES_NATIVE})
endif()
message(STATUS "CUDA backend: ${BITGAUGE_NVCC}, for ${BITGAUGE_CUDA_ARCHITECTURE_LIST}")
