#!/usr/bin/env bash
# Compiles the drivers of the peers into bench/peers/bin, for this machine's CPU.
#
#   bench/peers/build.sh                  all of them
#   bench/peers/build.sh hnswlib usearch  only these
#
# It needs g++ and npm, which fetches the sources of hnswlib and usearch by its own
# configuration, and for faiss the headers and library of the system:
#
#   apt-get install g++ libfaiss-dev
#
# A peer whose sources are missing is left out, and the script says so; it fails
# when one does not compile. Environment: CXX (default g++), CC
# (default gcc), NPM (default npm).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
cxx=${CXX:-g++}
cc=${CC:-gcc}
npm=${NPM:-npm}
flags=(-std=c++17 -O3 -march=native -DNDEBUG -pthread -I.)

hnswlib_package=hnswlib-node@3.0.0
usearch_package=usearch@2.25.3

# fetch unpacks an npm package into src/NAME, once for each version.
fetch() {
  local name=$1 package=$2
  if [[ -f src/$name/.$package ]]; then
    return
  fi
  command -v "$npm" >/dev/null || return 1
  rm -rf "src/$name"
  mkdir -p "src/$name"
  local archive
  archive=$(cd src && "$npm" pack --silent "$package") || return 1
  tar -xzf "src/$archive" -C "src/$name" --strip-components=1
  rm "src/$archive"
  touch "src/$name/.$package"
}

skip() {
  echo "bench/peers: $1 is left out: $2" >&2
}

build_hnswlib() {
  if ! fetch hnswlib "$hnswlib_package"; then
    skip hnswlib "npm pack $hnswlib_package failed"
    return
  fi
  "$cxx" "${flags[@]}" -Isrc/hnswlib/src -o bin/hnswlib hnswlib.cpp
}

build_usearch() {
  if ! fetch usearch "$usearch_package"; then
    skip usearch "npm pack $usearch_package failed"
    return
  fi
  if [[ ! -f src/usearch/include/usearch/index_dense.hpp ]]; then
    skip usearch "$usearch_package has no C++ headers"
    return
  fi
  # Its kernels are chosen by CPU when it starts, among those that the compiler was
  # allowed to make.
  local root=src/usearch/numkong objects=src/usearch/objects source
  local defines=(-DNK_DYNAMIC_DISPATCH=1 -DNK_NATIVE_F16=0 -DNK_NATIVE_BF16=0)
  mkdir -p "$objects"
  for source in "$root"/c/*.c; do
    local object
    object=$objects/$(basename "$source" .c).o
    if [[ ! -f $object ]]; then
      "$cc" -O3 -march=native -DNDEBUG -w "${defines[@]}" -I"$root/include" -c -o "$object.new" "$source"
      mv "$object.new" "$object"
    fi
  done
  "$cxx" "${flags[@]}" -w -DUSEARCH_USE_NUMKONG=1 "${defines[@]}" \
    -Isrc/usearch/include -I"$root/include" -o bin/usearch usearch.cpp "$objects"/*.o -lm
}

build_faiss() {
  if ! echo '#include <faiss/impl/IDSelector.h>' | "$cxx" -fsyntax-only -x c++ - 2>/dev/null; then
    skip faiss "its headers are not installed, or older than 1.7.3 (apt-get install libfaiss-dev)"
    return
  fi
  "$cxx" "${flags[@]}" -fopenmp -o bin/faiss faiss.cpp -lfaiss -llapack -lblas
}

if (($# == 0)); then
  set -- hnswlib faiss usearch
fi
mkdir -p bin src
for peer in "$@"; do
  case $peer in
  hnswlib | faiss | usearch) ;;
  *)
    echo "bench/peers: no peer $peer, want hnswlib, faiss or usearch" >&2
    exit 2
    ;;
  esac
  "build_$peer"
done
