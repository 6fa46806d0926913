#!/bin/sh
# Builds the fuzz targets with Clang into build-fuzz and runs each for a while.
#   fuzz/run.sh [SECONDS]     seconds for each target; 20 where it is not given
# Exits 1 when a target finds something; the input is left in build-fuzz/findings.
set -eu
seconds=${1:-20}
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build-fuzz
mkdir -p "$build/findings"

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DBITGAUGE_FUZZ=ON -DBITGAUGE_CUDA=OFF -DBITGAUGE_TESTS=OFF >"$build/build.log" 2>&1 &&
  cmake --build "$build" --target fuzzers >>"$build/build.log" 2>&1 || {
  cat "$build/build.log"
  echo "fuzz: the build failed" >&2
  exit 1
}

max_length() {
  case $1 in
  data | tokenizer | sentencepiece) echo 16384 ;;
  *) echo 4096 ;;
  esac
}

# Undefined behaviour is a finding, not a remark in the log.
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

result=0
for program in "$build"/fuzz/fuzz_*; do
  [ -x "$program" ] && [ -f "$program" ] || continue
  name=${program##*/fuzz_}
  work=$build/corpus/$name
  log=$build/fuzz_$name.log
  mkdir -p "$work"
  # The first directory takes new inputs; the committed seeds are only read.
  set -- "$work"
  [ -d "$root/fuzz/corpus/$name" ] && set -- "$@" "$root/fuzz/corpus/$name"
  dictionary=
  [ -f "$root/fuzz/$name.dict" ] && dictionary=-dict=$root/fuzz/$name.dict
  if "$program" "-max_total_time=$seconds" "-max_len=$(max_length "$name")" -rss_limit_mb=2048 \
    -timeout=10 -print_final_stats=1 "-artifact_prefix=$build/findings/$name-" $dictionary "$@" \
    >"$log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "fuzz: $name: $runs inputs in $seconds s, nothing found"
  else
    tail -n 60 "$log"
    echo "fuzz: $name: FOUND SOMETHING; the input is in $build/findings" >&2
    result=1
  fi
done
exit $result
