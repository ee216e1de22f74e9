#!/usr/bin/env bash
# Runs every fuzz target for SECONDS (60 unless told) and fails if one finds a bug, whose input is
# then in fuzz/artifacts/TARGET: fuzz/run.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}

if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install cargo-fuzz --locked --version 0.13.2
fi

# The address sanitizer is what needs a nightly compiler; libFuzzer's coverage alone is made of
# stable `-C` flags. The workspace has no unsafe code of its own that a sanitizer would watch, and
# debug assertions and overflow checks stay on.
cargo fuzz build --fuzz-dir fuzz --sanitizer none

failed=0
for target in formula graph_json; do
    echo "== $target, $seconds s"
    mkdir -p "fuzz/corpus/$target"
    # New inputs go to the first folder; the seeds are only read.
    cargo fuzz run --fuzz-dir fuzz --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -dict="fuzz/dictionaries/$target.dict" || failed=1
done
exit "$failed"
