#!/usr/bin/env bash
# Builds what a release consists of: packages, archives, checksums. docs/install.md says how they are installed.
set -u

usage() {
  cat <<'TXT'
Usage: scripts/package.sh [OPTIONS] WHAT…

  deb         bitbrat_VERSION-1_ARCH.deb: program, service, manual pages, completions (needs cargo-deb, installed if missing)
  tarball     bitbrat-TARGET.tar.gz in the layout that cargo-binstall expects; built for glibc 2.17 and later where
              cargo-zigbuild is there, otherwise for the glibc of this machine
  static      the same for musl, without any shared library
  container   an image, with podman or docker
  compose     checks contrib/compose and packs it as bitbrat-compose.tar.gz
  all         all of them; skips, with the reason, what this machine has no tools for

  --binary PATH     package this program instead of building one
  --out DIR         where the results go (default: target/package/out)
  --fast            compress less, for tests
  --install-tools   install cargo-zigbuild and zig into target/package/venv first (440 MB, from PyPI)

SHA256SUMS, and an SBOM (scripts/sbom.sh) where Python 3.11 is installed, are written beside the results. With the same sources,
toolchain and SOURCE_DATE_EPOCH (default: the time of the last commit) the results are the same, byte for byte.
DEBFULLNAME and DEBEMAIL name the maintainer of the .deb.

Exit codes: 0 done, 1 failed, 2 usage, or a tool is missing.
TXT
}

cargo_deb_version=3.8.0
zigbuild_version=0.24.1
zig_version=0.17.1
oldest_glibc=2.17

say() { printf 'package: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
# missing WHAT HINT: reports a tool that is not there, and how to get it.
missing() { say "$1 is missing: $2" && return 2; }

wanted=()
given='' out='' install_tools='' fast=()
while [ $# -gt 0 ]; do
  case $1 in
    deb | tarball | static | container | compose | all) wanted+=("$1") ;;
    --binary | --out)
      [ $# -gt 1 ] || { usage >&2 && exit 2; }
      value=$(realpath -m -- "$2")
      [ "$1" = --out ] && out=$value || given=$value
      shift
      ;;
    --fast) fast=(--fast) ;;
    --install-tools) install_tools=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
[ ${#wanted[@]} -gt 0 ] || { usage >&2 && exit 2; }
[ -z "$given" ] || [ -x "$given" ] || { say "$given is no program" && exit 2; }

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
work=$PWD/target/package
out=${out:-$work/out}
mkdir -p "$out" "$work" || exit 1
export PATH="$work/venv/bin:$PATH"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
# As Debian's own tools take it.
maintainer=$(sed -n 's/^maintainer = "\(.*\)"$/\1/p' Cargo.toml)
[ -z "${DEBEMAIL:-}" ] || maintainer="${DEBFULLNAME:-$DEBEMAIL} <$DEBEMAIL>"

host() { rustc -vV 2>/dev/null | sed -n 's/^host: //p'; }

# --- the program ---------------------------------------------------------------------------------------------------

# Paths of this machine must not become a part of the program.
remapped() { RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$PWD=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo" "$@"; }

# build TARGET COMMAND…: sets `binary` to the program that was given, or built for the target.
build() {
  local target=$1 folder=${CARGO_TARGET_DIR:-target}
  shift
  binary=$given
  [ -z "$given" ] || return 0
  have cargo || missing cargo "see https://rustup.rs" || return 2
  remapped "$@" --release --locked --bin bitbrat --target "$target" || return 1
  binary=$folder/${target%.[0-9]*.[0-9]*}/release/bitbrat
}

has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }

zig() {
  if [ -n "$install_tools" ] && ! have cargo-zigbuild; then
    python3 -m venv "$work/venv" &&
      "$work/venv/bin/pip" install --quiet "cargo-zigbuild==$zigbuild_version" "ziglang==$zig_version" || return 1
  fi
  have cargo-zigbuild
}

# Prints what the program needs of the system.
requirements() {
  have objdump || { say "objdump is missing, so the needed glibc is not shown: apt-get install binutils" && return 0; }
  local newest
  newest=$(objdump -T "$1" 2>/dev/null | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
  say "needs ${newest:-no glibc}"
}

# Puts the program and what it writes about itself into target/package/stage, from which packages are made.
stage() {
  local stage=$work/stage
  rm -rf "$stage" && mkdir -p "$stage/home" || return 1
  # A debug build has its symbols in files of their own; a release build has none.
  install -m 0755 "$1" "$stage/bitbrat" || return 1
  if have strip; then strip "$stage/bitbrat" 2>/dev/null; fi
  env -i HOME="$stage/home" PATH="$PATH" "$stage/bitbrat" man --out "$stage/man" >/dev/null ||
    { say "$1 does not run on this machine" && return 1; }
  cat >"$stage/changelog" <<TXT
bitbrat ($version-1) unstable; urgency=medium

  * What changed is in /usr/share/doc/bitbrat/changelog.gz.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
TXT
  requirements "$stage/bitbrat"
}

# pack NAME DIRECTORY ENTRY…: writes NAME.tar.gz with the entries of a directory, but without the secrets of a deployment.
pack() {
  local name=$1 from=$2
  shift 2
  tar -C "$from" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+w,go-w,a+rX \
    --exclude='compose/credentials*' -cf - "$@" | gzip -9n >"$out/$name.tar.gz" || return 1
  say "wrote $out/$name.tar.gz"
}

# --- what can be asked for -----------------------------------------------------------------------------------------

deb() {
  have dpkg || missing dpkg "build the .deb on Debian or Ubuntu" || return 2
  if ! have cargo-deb; then
    cargo install --locked --debug "cargo-deb@$cargo_deb_version" || return 1
  fi
  local target
  target=$(host)
  build "$target" cargo build && stage "$binary" || return
  # Without `strip`: `stage` has done it.
  cargo deb --quiet --no-build --no-strip --maintainer "$maintainer" "${fast[@]}" --output "$out" >/dev/null || return 1
  say "wrote $out/bitbrat_$version-1_$(dpkg --print-architecture).deb"
}

archive() {
  local name=bitbrat-$1
  stage "$binary" || return
  local folder=$work/$name
  rm -rf "$folder" && mkdir -p "$folder/systemd" || return 1
  cp -r "$work/stage/bitbrat" "$work/stage/man" contrib/completions README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT \
    "$folder/" && cp scripts/systemd/* "$folder/systemd/" || return 1
  pack "$name" "$work" "$name"
}

tarball() {
  local target
  target=$(host)
  case $target in *-linux-gnu) ;; *) say "an archive for ${target:-this machine} is not supported" && return 2 ;; esac
  if [ -n "$given" ]; then
    binary=$given
  elif zig; then
    build "$target.$oldest_glibc" cargo zigbuild || return
  else
    say "cargo-zigbuild is missing, so this program needs the glibc of this machine; for $oldest_glibc add --install-tools"
    build "$target" cargo build || return
  fi
  archive "$target"
}

static() {
  local target
  target=$(host)
  target=${target%-gnu}-musl
  if [ -n "$given" ]; then
    binary=$given
  else
    has_target "$target" || missing "the target $target" "rustup target add $target" || return
    # The C parts (TLS, SQLite, allocator) need a compiler for musl.
    if zig; then
      build "$target" cargo zigbuild || return
    elif have musl-gcc; then
      build "$target" cargo build || return
    else
      missing "a C compiler for musl" "apt-get install musl-tools, or add --install-tools" || return
    fi
  fi
  if have objdump && objdump -p "$binary" | grep -q '^ *NEEDED'; then
    say "$binary needs shared libraries, so it is not static" && return 1
  fi
  archive "$target"
}

container() {
  local engine
  for engine in podman docker; do
    if have $engine && $engine info >/dev/null 2>&1; then
      # Podman's own format of images has no health checks.
      BUILDAH_FORMAT=docker $engine build -f Containerfile -t "bitbrat:$version" -t bitbrat:latest . || return 1
      say "built the image bitbrat:$version with $engine"
      return 0
    fi
  done
  missing "a running podman or docker" "apt-get install podman, or start the docker daemon"
}

compose() {
  local tool
  if docker compose version >/dev/null 2>&1; then
    tool=(docker compose)
  elif have docker-compose; then
    tool=(docker-compose)
  else
    missing "docker compose" "apt-get install docker-compose (the tests check the file without it)" || return
  fi
  "${tool[@]}" -f contrib/compose/compose.yaml config --quiet || return 1
  # The rules and the dashboard are mounted from beside it.
  pack bitbrat-compose contrib compose prometheus grafana
}

sbom() {
  python3 -c 'import tomllib' 2>/dev/null || { say "no SBOM: needs Python 3.11 (apt-get install python3)" && return 0; }
  scripts/sbom.sh >"$work/sbom" && mv "$work/sbom" "$out/bitbrat-sbom.json"
}

# --- in order ------------------------------------------------------------------------------------------------------

is_all=''
if [ "${wanted[*]}" = all ]; then
  is_all=1
  wanted=(deb tarball static container compose)
fi
rows=()
worst=0
for what in "${wanted[@]}"; do
  case $what in all) usage >&2 && exit 2 ;; esac
  say "--- $what"
  # A program that was given is of one kind.
  if [ -n "$is_all" ] && [ -n "$given" ] && [ "$what" = static ]; then
    rows+=("$(printf '%-10s SKIPPED (--binary)' "$what")")
    continue
  fi
  code=0
  "$what" || code=$?
  case $code in
    0) rows+=("$(printf '%-10s OK' "$what")") ;;
    2) rows+=("$(printf '%-10s %s' "$what" "$([ -n "$is_all" ] && echo 'SKIPPED (see above)' || echo FAIL)")") ;;
    *) rows+=("$(printf '%-10s FAIL' "$what")") ;;
  esac
  if [ "$code" != 2 ] || [ -z "$is_all" ]; then [ "$worst" = 1 ] || [ "$code" = 0 ] || worst=$code; fi
done
sbom || worst=1
(cd "$out" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort | xargs -r sha256sum) >"$work/sums" &&
  mv "$work/sums" "$out/SHA256SUMS" || worst=1
printf '%s\n' "${rows[@]}"
exit "$worst"
