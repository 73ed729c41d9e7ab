#!/usr/bin/env bash
# bundle_test.sh CPACK BUILD_DIR LIBDIR: packs the build, unpacks it elsewhere, and checks that its programs start there
# and take no shared library from the machine but the C library's.
set -euo pipefail
cpack=$1 build_dir=$2 libdir=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; exit 1; }

"$cpack" --config "$build_dir/CPackConfig.cmake" -B "$work/pack" >"$work/log" 2>&1 || { cat "$work/log"; fail cpack; }
tarballs=("$work"/pack/dak-*-linux-"$(uname -m)".tar.gz)
[[ -f ${tarballs[0]} ]] || fail "no tarball of the expected name: $(ls "$work/pack")"
mkdir "$work/unpacked"
tar -xzf "${tarballs[0]}" -C "$work/unpacked"
top=$(echo "$work"/unpacked/dak-*)
rm -rf "$work/pack/_CPack_Packages"

mib=$(($(stat -c %s "${tarballs[0]}") / 1048576))
echo "$(basename "${tarballs[0]}"): $mib MiB"
((mib < 64)) || fail "the tarball is larger than 64 MiB"

for file in bin/dakd bin/dakctl bin/dak-demo "$libdir/libdak.so" include/dak/dak.h include/dak/dak.hpp \
  "$libdir/cmake/dak/dakConfig.cmake" "$libdir/pkgconfig/dak.pc" share/dak; do
  [[ -e $top/$file ]] || fail "the bundle has no $file"
done

own='^(linux-vdso|ld-linux-x86-64|lib(c|m|dl|rt|pthread|resolv|util))\.so'
count=0
while IFS= read -r -d '' file; do
  readelf -h "$file" >/dev/null 2>&1 || continue
  count=$((count + 1))
  rpath=$(readelf -dW "$file" | sed -n 's/.*R\(UN\)\?PATH.*\[\(.*\)\]/\2/p')
  for entry in ${rpath//:/ }; do
    [[ $entry == '$ORIGIN'* ]] || fail "$file looks for libraries in $entry"
  done
  if readelf -SW "$file" | grep -q '\.debug_info'; then fail "$file isn't stripped"; fi
  while read -r name arrow path _; do
    name=${name##*/}
    [[ $name =~ $own ]] && continue
    [[ $arrow == "=>" && $path == "$top"/* ]] || fail "$file takes $name from '$path'"
  done < <(env -i PATH="$PATH" ldd "$file" | grep -v 'statically linked')
done < <(find "$top/bin" "$top/$libdir" "$top/libexec" -type f -print0 2>/dev/null)
((count > 20)) || fail "only $count programs and libraries were looked at"
echo "$count programs and libraries need nothing but the bundle and the C library"

version=$(env -i "$top/bin/dakd" --version)
echo "$version"
[[ $version == *"$(basename "$top" | cut -d- -f2)"* ]] || fail "dakd --version says '$version'"
for program in dakctl dak-demo; do
  env -i "$top/bin/$program" --help >"$work/log" 2>&1 || { cat "$work/log"; fail "$program --help"; }
done
