#!/usr/bin/env bash
# Mutation testing of the pure rules (docs/quality.md, "Mutation testing"). See `scripts/mutants.sh --help`.
set -eu

usage() {
  cat <<'HELP'
Usage: scripts/mutants.sh [--list] [FILE...]

Changes the rules one place at a time (mutants), runs their unit tests on each, and prints the mutants that no test notices.
FILE is a pattern such as 'verdict*' or 'watch/*' (default: all rules); --list only prints the mutants.

The whole crate would be built for each mutant, so the rules are copied into two small crates in target/mutants/rules:
`core` (src/core, and what each platform adds to it) and `decisions` (further rules that need nothing but the core).

cargo-mutants is installed into target/mutants/tool if it is missing, which takes minutes. Results are in
target/mutants/mutants.out; missed.txt lists the survivors. Exit code 0 if there is none, 2 if there are some.
HELP
}

version=27.1.0
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
rules=$root/target/mutants/rules
tool=$root/target/mutants/tool/bin/cargo-mutants
only_list=
patterns=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --list) only_list=1 && shift ;;
    -*) usage >&2 && exit 1 ;;
    *) patterns+=(--file "**/$1") && shift ;;
  esac
done

if ! "$tool" mutants --version 2>/dev/null | grep -q "$version"; then
  CARGO_TARGET_DIR=$root/target/mutants/tool/build nice -n 19 \
    cargo install --locked --debug --root "$root/target/mutants/tool" "cargo-mutants@$version"
fi

# Copies files and folders of src/ into the crate $1, which is written anew: an earlier run that was interrupted may have left a mutant.
copy() {
  local to=$rules/$1/src path
  shift
  for path in "$@"; do
    mkdir -p "$to/$(dirname "$path")"
    cp -R "src/$path" "$to/$(dirname "$path")/"
  done
}

requirement() { sed -n "/^\[$1\]/,/^\[/s/^$2 = /$2 = /p" Cargo.toml; }

# Writes the manifest of the crate $1 with the product's version and its requirements on the other arguments.
manifest() {
  local name
  printf '[package]\nname = "%s"\n' "$1"
  grep -E '^(version|edition) = ' Cargo.toml | head -n 2
  printf 'publish = false\n\n[dependencies]\n'
  shift
  for name in "$@"; do requirement dependencies "$name"; done
}

rm -rf "$rules/core/src" "$rules/decisions/src"
mkdir -p "$rules"
copy core core
for platform in twitch kick discord; do copy core "platforms/$platform/rules.rs"; done
{
  manifest bitbrat chrono croner fastrand jiff postcard schemars serde serde_json thiserror url uuid
  printf '\n[dev-dependencies]\n'
  for name in insta jsonschema proptest; do requirement dev-dependencies "$name"; done
} >"$rules/core/Cargo.toml"
cat >"$rules/core/src/lib.rs" <<'RUST'
//! The core of bitbrat, for mutation testing. Written by scripts/mutants.sh.
pub mod core;

mod platforms {
    pub mod discord {
        pub mod rules;
    }
    pub mod kick {
        pub mod rules;
    }
    pub mod twitch {
        pub mod rules;
    }

    use crate::core::platform::{PlatformName, PlatformRules};

    impl PlatformName {
        pub fn rules(self) -> &'static PlatformRules {
            match self {
                Self::Twitch => &twitch::rules::RULES,
                Self::Kick => &kick::rules::RULES,
                Self::Discord => &discord::rules::RULES,
            }
        }
    }
}
RUST

# Other pure rules: outbox, writes, permissions of Discord, token incidents.
copy decisions watch/queue.rs watch/admission.rs persist/write_policy.rs persist/inbox.rs
copy decisions platforms/discord/permissions.rs platforms/discord/permissions platforms/kit/oauth/incident.rs
{
  manifest bitbrat-decisions fastrand serde serde_json url
  printf 'bitbrat = { path = "../core" }\n'
} >"$rules/decisions/Cargo.toml"
cat >"$rules/decisions/src/lib.rs" <<'RUST'
//! Decisions of bitbrat that need nothing but the core, for mutation testing. Written by scripts/mutants.sh.
#![allow(dead_code)]

pub use bitbrat::core;

pub mod persist {
    pub mod inbox;
    pub mod write_policy;
}

pub mod watch {
    pub mod admission;
    pub mod queue;
}

pub mod platforms {
    pub mod discord {
        pub mod permissions;
    }
    pub mod kit {
        pub mod oauth {
            pub mod incident;
        }
    }
}
RUST

printf '[workspace]\nresolver = "3"\nmembers = ["core", "decisions"]\n\n[profile.dev]\ndebug = false\n' >"$rules/Cargo.toml"
# The versions of dependencies are those of the product.
cp Cargo.lock "$rules/Cargo.lock"

cd "$rules"
if [ -n "$only_list" ]; then
  exec "$tool" mutants --list "${patterns[@]}"
fi
# In place: the crate is a copy already. Property tests run fewer cases than usual, and always the same.
export PROPTEST_CASES=${PROPTEST_CASES:-64} PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1} CARGO_INCREMENTAL=1
status=0
nice -n 19 "$tool" mutants --in-place --no-shuffle --colors never --timeout 60 --output "$root/target/mutants" "${patterns[@]}" ||
  status=$?
cd "$root"
printf 'Survivors:\n'
cat target/mutants/mutants.out/missed.txt
exit "$status"
