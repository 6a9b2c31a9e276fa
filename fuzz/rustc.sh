#!/bin/sh
# What Cargo calls instead of the compiler (RUSTC_WRAPPER): adds the counters of libFuzzer to our own crates, without a nightly
# compiler. Dependencies are compiled as usual, so that inputs are kept for paths through our own code.
compiler=$1
shift
case " $* " in
  *" --crate-name bitbrat "* | *" --crate-name bitbrat_fuzz "*)
    set -- "$@" --cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
      -Cllvm-args=-sanitizer-coverage-level=4 \
      -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
      -Cllvm-args=-sanitizer-coverage-pc-table \
      -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$compiler" "$@"
