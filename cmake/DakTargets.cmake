# The commands that components describe themselves with. All targets are noted in the global property DAK_TARGETS, for
# DakPrecompile and DakUnity.

# dak_library(name SOURCES a.cc ... [DEPS lib ...] [PRIVATE_DEPS lib ...]): one static library of a component.
function(dak_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  dak_configure_target(${name})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

# dak_test_support(name SOURCES a.cc ... [DEPS lib ...] [PRIVATE_DEPS lib ...]): a static library that only tests
# link. It is compiled as they are, so that it shares their precompiled header.
function(dak_test_support name)
  dak_library(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE GTest::gmock)  # which has a say in how headers are precompiled
  dak_compile_as_test(${name})
endfunction()

function(dak_compile_as_test name)
  set_target_properties(${name} PROPERTIES DAK_IS_TEST ON)
  target_compile_options(${name} PRIVATE ${DAK_TEST_OPTIONS})
  get_target_property(type ${name} TYPE)
  if(NOT type STREQUAL "EXECUTABLE")
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${name} PRIVATE -fPIE)
  endif()
endfunction()

# dak_executable(name SOURCES a.cc ... [DEPS lib ...])
function(dak_executable name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  dak_configure_target(${name})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  if(DAK_SANITIZER STREQUAL "thread")
    target_link_libraries(${name} PRIVATE dak_tsan_absl)
    set_target_properties(${name} PROPERTIES ENABLE_EXPORTS ON)
  endif()
endfunction()

# dak_test(name SOURCES a.cc ... [DEPS lib ...] [LABELS unit|integration|fault|gpu ...] [TIMEOUT s]): a GoogleTest
# program, one ctest test. gpu tests are run by hand on a machine that has one, and aren't part of
# a sanitizer build.
function(dak_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  dak_executable(${name} SOURCES ${ARG_SOURCES} DEPS ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  dak_compile_as_test(${name})
  if("gpu" IN_LIST ARG_LABELS)
    dak_install_beside_tests(${name})
    if(DAK_SANITIZER)
      set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
    endif()
    return()
  endif()
  if(DAK_BUNDLE)
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
    return()
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  # Those that may take long begin first, so that the last to end isn't one that runs alone.
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT} COST ${ARG_TIMEOUT})
  dak_sanitize_test(${name})
endfunction()

# dak_script_test(name SCRIPT file.py [ARGS arg ...] [LABEL unit|tidy] [TIMEOUT s]): a Python program, one ctest test.
# It doesn't depend on how dak was compiled, so once is enough: not part of sanitizer builds and the bundle's.
function(dak_script_test name)
  cmake_parse_arguments(ARG "" "SCRIPT;LABEL;TIMEOUT" "ARGS" ${ARGN})
  if(DAK_SANITIZER OR DAK_BUNDLE)
    return()
  endif()
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 60)
  endif()
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  add_test(NAME ${name} COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_SCRIPT} ${ARG_ARGS})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
endfunction()

# dak_sanitize_test(name): gives a ctest test the options that the sanitizers take, and more time. Children of the test
# inherit them.
function(dak_sanitize_test name)
  if(NOT DAK_SANITIZER)
    return()
  endif()
  get_test_property(${name} TIMEOUT timeout)
  math(EXPR timeout "${timeout} * 4")
  set(folder ${PROJECT_SOURCE_DIR}/cmake/sanitizers)
  # NOTE: the distribution's gRPC and protobuf aren't instrumented: what they copy, free and close on one thread and
  # hand to another looks like a race. Calls that they make aren't looked at; our code's are.
  set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout} ENVIRONMENT
    "ASAN_OPTIONS=strict_string_checks=1:check_initialization_order=1;\
LSAN_OPTIONS=suppressions=${folder}/lsan.supp:print_suppressions=0;\
UBSAN_OPTIONS=print_stacktrace=1;\
TSAN_OPTIONS=suppressions=${folder}/tsan.supp:ignore_noninstrumented_modules=1:second_deadlock_stack=1:history_size=4")
endfunction()

# dak_compile_alone(a.cc ...): sources of this folder that define a name, unseen by others, that another source of their
# target defines as well. See DakUnity.
function(dak_compile_alone)
  set_source_files_properties(${ARGN} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
endfunction()

# dak_bench(name SOURCES a.cc ... [DEPS lib ...]): built with the tests, run by hand, installed beside the GPU tests.
# Not part of a sanitizer build, where nothing runs it.
function(dak_bench name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  dak_executable(${name} SOURCES ${ARG_SOURCES} DEPS ${ARG_DEPS})
  if(DAK_SANITIZER)
    set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
  endif()
  dak_install_beside_tests(${name})
endfunction()

function(dak_install_beside_tests name)
  install(TARGETS ${name} RUNTIME DESTINATION libexec/dak/tests COMPONENT tests EXCLUDE_FROM_ALL)
  set_target_properties(${name} PROPERTIES INSTALL_RPATH "$ORIGIN/../../../lib")
endfunction()

function(dak_configure_target name)
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${DAK_WARNINGS}>
                                         $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra -Werror=all-warnings>)
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/proto)
  set_property(GLOBAL APPEND PROPERTY DAK_TARGETS ${name})
endfunction()

# What every program of a tsan build holds besides its own sources.
if(DAK_SANITIZER STREQUAL "thread")
  add_library(dak_tsan_absl OBJECT ${PROJECT_SOURCE_DIR}/cmake/sanitizers/tsan_absl.cc)
  target_link_libraries(dak_tsan_absl PUBLIC absl::synchronization)
endif()
