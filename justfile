# The day's chores: `just check`, `just test`, `just sim`.

# Formatting, lints and docs, without warnings
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
    cargo deny check bans licenses sources

# Every test, or those whose name contains FILTER
test *FILTER:
    scripts/test.sh {{ FILTER }}

# The simulated platforms on their fixed ports
sim *ARGS:
    cargo run --quiet -- sim {{ ARGS }}

# The emulators and NATS: just services up|down|env|status
services *ARGS:
    scripts/services.sh {{ ARGS }}

# Everything that CI does
ci:
    .ci/run
