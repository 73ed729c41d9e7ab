#!/usr/bin/env bash
# install_test.sh CMAKE GENERATOR BUILD_DIR LIBDIR CC CXX: installs the build, moves the result elsewhere, and builds
# and runs an application against it, by find_package and by pkg-config, in C and in C++.
set -euo pipefail
cmake=$1 generator=$2 build_dir=$3 libdir=$4 cc=$5 cxx=$6
outside=$(cd "$(dirname "$0")/outside" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; exit 1; }

"$cmake" --install "$build_dir" --prefix "$work/first" >"$work/log" || { cat "$work/log"; fail "cmake --install"; }
mv "$work/first" "$work/moved"
prefix=$work/moved
# What is installed must not speak of where it was built.
if grep -rIl -e "$build_dir" -e "$(dirname "$outside")" "$prefix"; then fail "paths of the build tree are installed"; fi

# No daemon listens there, whatever else runs on this machine.
export DAK_RUNTIME_DIR=$work/run
mkdir "$DAK_RUNTIME_DIR"
check() {
  local out
  out=$("$@") || fail "$* answered $? and '$out'"
  echo "$out"
  [[ $out == *UNAVAILABLE* && $out == *"$DAK_RUNTIME_DIR"* ]] || fail "'$out' doesn't say what is missing, and where"
}

echo "== find_package"
"$cmake" -G "$generator" -S "$outside" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" \
  -DCMAKE_CXX_COMPILER="$cxx" >"$work/log" && "$cmake" --build "$work/build" >>"$work/log" ||
  { cat "$work/log"; fail "the outside project doesn't build"; }
check "$work/build/outside_c"
check "$work/build/outside_cc"

echo "== pkg-config"
export PKG_CONFIG_PATH=$prefix/$libdir/pkgconfig
read -ra flags <<<"$(pkg-config --cflags --libs dak)"
rpath=-Wl,-rpath,$(pkg-config --variable=libdir dak)
"$cc" -Wall -Wextra -Werror "$outside/outside.c" -o "$work/pc_c" "${flags[@]}" "$rpath"
"$cxx" -std=c++20 -Wall -Wextra -Werror "$outside/outside.cc" -o "$work/pc_cc" "${flags[@]}" "$rpath"
check "$work/pc_c"
check "$work/pc_cc"
version=$(pkg-config --modversion dak)
[[ $("$work/pc_c") == "dak $version:"* ]] || fail "pkg-config says $version, the library something else"
