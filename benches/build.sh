# For the other scripts to source, in the checkout's root: builds the benchmarks and what they measure, whose path is then in `baler`. That is the default
# build, or with `--release`, which comes first and is taken from the arguments, the fully optimised one.
baler=target/debug/baler
if [ "${1:-}" = --release ]; then
  shift
  cargo build --locked -q --release -p baler
  baler=target/release/baler
fi
cargo build --locked -q -p baler -p baler-benches --bins
