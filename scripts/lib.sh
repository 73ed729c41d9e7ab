# Shared by the scripts beside it; sourced, not run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# The comment that opens a script is its help text.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }

# A compiler that reads gRPC's headers takes up to 1 GiB.
jobs() {
  local cores memory_gib
  cores=$(nproc)
  memory_gib=$(awk '/^MemAvailable:/ {print int($2 / 1048576)}' /proc/meminfo)
  echo $((memory_gib >= cores ? cores : memory_gib > 0 ? memory_gib : 1))
}

# build PRESET [-DOPTION=VALUE]... [TARGET...]: configures and builds. Without targets: everything.
build() {
  local preset=$1 options=() targets=()
  shift
  while [[ ${1:-} == -D* ]]; do options+=("$1"); shift; done
  if (($#)); then targets=(--target "$@"); fi
  say "build $preset"
  cmake --preset "$preset" "${options[@]}" &&
    cmake --build --preset "$preset" --parallel "$(jobs)" "${targets[@]}"
}
