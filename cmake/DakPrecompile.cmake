# Shortens builds on small machines, where reading headers takes most of the time. Included last: it looks at the
# targets that components have declared, which need to say nothing.
#
# The generated stubs are compiled in one piece. Libraries that use gRPC, and tests, get a precompiled header of what
# they are sure to include: with it a test of the daemon takes 2.3 s to compile rather than 7.5. The bundle and lint
# presets do without, so a source that includes too little shows there.
foreach(target dak_proto dak_proto_lite)
  get_target_property(messages ${target} SOURCES)
  list(FILTER messages EXCLUDE REGEX "\\.grpc\\.pb\\.cc$")
  # Messages' sources define the same names each; the stubs' don't.
  set_source_files_properties(${messages} TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
endforeach()
if(NOT DAK_PCH)
  return()
endif()

# dak_links_to(out target library): whether `target` links to `library`, directly or not.
function(dak_links_to out target library)
  set(${out} FALSE PARENT_SCOPE)
  set(pending ${target})
  set(seen "")
  while(pending)
    list(POP_FRONT pending current)
    list(APPEND seen ${current})
    foreach(property LINK_LIBRARIES INTERFACE_LINK_LIBRARIES)
      get_target_property(dependencies ${current} ${property})
      foreach(dependency ${dependencies})
        if(dependency STREQUAL library)
          set(${out} TRUE PARENT_SCOPE)
          return()
        endif()
        if(TARGET ${dependency} AND NOT dependency IN_LIST seen AND NOT dependency IN_LIST pending)
          get_target_property(imported ${dependency} IMPORTED)
          if(NOT imported)
            list(APPEND pending ${dependency})
          endif()
        endif()
      endforeach()
    endforeach()
  endwhile()
endfunction()

# One object library a kind of header. A precompiled header serves only code compiled with the same options, and
# libraries are compiled with -fPIC where programs are with -fPIE.
function(dak_declare_precompiled name)
  cmake_parse_arguments(ARG "PROGRAM" "" "HEADERS;DEPS" ${ARGN})
  add_library(${name} OBJECT EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/cmake/precompile/empty.cc)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  target_compile_options(${name} PRIVATE ${DAK_WARNINGS})
  target_precompile_headers(${name} PRIVATE ${ARG_HEADERS})
  if(ARG_PROGRAM)
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${name} PRIVATE -fPIE)
  endif()
endfunction()

set(base_headers <algorithm> <atomic> <chrono> <cstdint> <functional> <map> <memory> <mutex> <optional> <string>
    <thread>
    <utility> <vector> <absl/status/status.h> <absl/status/statusor.h> <absl/strings/str_cat.h>)
set(rpc_headers <grpcpp/grpcpp.h> <google/protobuf/message.h>)
set(api_headers <dak/v1/handles.pb.h> <dak/v1/node.grpc.pb.h> <dak/v1/plan.grpc.pb.h> <dak/v1/session.grpc.pb.h>
    <dak/v1/tensor.grpc.pb.h>)
set(test_headers <gmock/gmock.h> <gtest/gtest.h>)
set(base_deps absl::status absl::statusor absl::strings)
dak_declare_precompiled(dak_pch_rpc HEADERS ${base_headers} ${rpc_headers} DEPS ${base_deps} gRPC::grpc++)
dak_declare_precompiled(dak_pch_api HEADERS ${base_headers} ${rpc_headers} ${api_headers} DEPS ${base_deps} dak_proto)
if(DAK_BUILD_TESTS)
  dak_declare_precompiled(dak_pch_test PROGRAM HEADERS ${base_headers} ${test_headers} DEPS ${base_deps} GTest::gmock)
  dak_declare_precompiled(dak_pch_test_api PROGRAM HEADERS ${base_headers} ${test_headers} ${rpc_headers} ${api_headers}
                          DEPS ${base_deps} GTest::gmock dak_proto)
  foreach(target dak_pch_test dak_pch_test_api)
    target_compile_options(${target} PRIVATE ${DAK_TEST_OPTIONS})
  endforeach()
endif()

get_property(targets GLOBAL PROPERTY DAK_TARGETS)
foreach(target ${targets})
  get_target_property(is_test ${target} DAK_IS_TEST)
  get_target_property(type ${target} TYPE)
  get_target_property(sources ${target} SOURCES)
  dak_links_to(uses_rpc ${target} gRPC::grpc++)
  # Not the lite flavour, whose headers have the same names.
  dak_links_to(uses_api ${target} dak_proto)
  if(sources MATCHES "\\.cu(;|$)")
    continue()
  elseif(is_test AND uses_api)
    target_precompile_headers(${target} REUSE_FROM dak_pch_test_api)
  elseif(is_test)
    target_precompile_headers(${target} REUSE_FROM dak_pch_test)
  elseif(uses_api AND type STREQUAL "STATIC_LIBRARY")
    target_precompile_headers(${target} REUSE_FROM dak_pch_api)
  elseif(uses_rpc AND type STREQUAL "STATIC_LIBRARY")
    target_precompile_headers(${target} REUSE_FROM dak_pch_rpc)
  endif()
endforeach()
