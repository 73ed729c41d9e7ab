# How everything is compiled: language level, warnings, sanitizers, hidden symbols, relocatable RUNPATH.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}:$ORIGIN/../lib")
# The same layout as once installed: programs find each other and libdak in the build tree as well.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(DAK_CCACHE ccache)
if(DAK_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Without this, ccache refuses every source that uses a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${DAK_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${DAK_CCACHE})
endif()

find_program(DAK_MOLD mold)
if(DAK_MOLD)
  add_link_options($<$<LINK_LANGUAGE:C,CXX>:-fuse-ld=mold>)
endif()

set(DAK_WARNINGS -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # NOTE: g++ 12 takes some uses of std::string for overlapping or overlong copies (GCC bug 105329 and its like).
  list(APPEND DAK_WARNINGS -Wno-restrict -Wno-array-bounds)
endif()

# Everywhere, because a precompiled header serves only sources with the same setting, and gRPC brings it along.
add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-pthread>)

# Tests' own code isn't what is measured: it compiles a third faster like this.
set(DAK_TEST_OPTIONS $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:RelWithDebInfo>>:-O1>)

if(DAK_SANITIZER STREQUAL "address")
  add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=address,undefined>
                      $<$<COMPILE_LANGUAGE:C,CXX>:-fno-sanitize-recover=all>
                      $<$<COMPILE_LANGUAGE:C,CXX>:-fno-omit-frame-pointer>)
  add_link_options(-fsanitize=address,undefined)
elseif(DAK_SANITIZER STREQUAL "thread")
  add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=thread>
                      $<$<COMPILE_LANGUAGE:C,CXX>:-fno-omit-frame-pointer>)
  add_link_options(-fsanitize=thread)
elseif(DAK_SANITIZER)
  message(FATAL_ERROR "DAK_SANITIZER is '${DAK_SANITIZER}': address, thread or empty")
endif()

set(DAK_HAVE_CUDA OFF)
if(DAK_SANITIZER AND DAK_CUDA STREQUAL "AUTO")
  message(STATUS "dak: CUDA code is left out of sanitizer builds")
elseif(NOT DAK_CUDA STREQUAL "OFF")
  # An absolute guess for shells whose PATH lacks the toolkit.
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX} AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)
  endif()
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90a-real)
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    set(DAK_HAVE_CUDA ON)
    message(STATUS "dak: CUDA ${CMAKE_CUDA_COMPILER_VERSION}, kernels for ${CMAKE_CUDA_ARCHITECTURES}")
  elseif(DAK_CUDA STREQUAL "ON")
    message(FATAL_ERROR "DAK_CUDA=ON, but no CUDA compiler was found (set CUDACXX or put nvcc on PATH)")
  else()
    message(STATUS "dak: no CUDA toolkit found: building for the emulated device only")
  endif()
else()
  message(STATUS "dak: CUDA is switched off: building for the emulated device only")
endif()
