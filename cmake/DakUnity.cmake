# Compiles a target's sources several at a time. Most of what a compiler does for a source is reading headers and
# compiling templates that the next source needs as well: this way that is done once for eight of them, in two
# thirds of the time. Included after the components, like DakPrecompile.
#
# Sources in one piece share a namespace without a name. Those that define a name which another of their target has,
# too, are compiled by themselves (dak_compile_alone). The debug, lint and bundle presets compile every source by
# itself, so a source that includes too little shows there.
if(NOT DAK_UNITY)
  return()
endif()

get_property(targets GLOBAL PROPERTY DAK_TARGETS)
foreach(target dak ${targets})
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  # NOTE: CMake 3.31 puts kernels together as well.
  get_target_property(kernels ${target} SOURCES)
  list(FILTER kernels INCLUDE REGEX "\\.cu$")
  if(kernels)
    set_source_files_properties(${kernels} TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
endforeach()
