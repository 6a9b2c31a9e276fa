#!/usr/bin/env bash
# Builds the .deb, installs it, uses what it installed, removes it, and checks that nothing is left.
# shellcheck disable=SC2034  # the texts of the checks use the variables
set -u

usage() {
  cat <<'TXT'
Usage: scripts/package-test.sh [--unpack] [--binary PATH] [--deb FILE]

Prints one line per check, OK, FAIL or SKIPPED with the reason, and exits 1 when any failed.

  --binary PATH   the program to package (default: the debug build of this checkout)
  --deb FILE      test this package instead of building one
  --unpack        do not install: unpack the package into a temporary directory and use it there; needs no root

Needs dpkg, and without --unpack root and a machine where bitbrat is not installed, because /etc/bitbrat and the state of
the service are removed. Where that is not given it changes nothing and exits 2.
TXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
binary=${CARGO_TARGET_DIR:-$root/target}/debug/bitbrat
deb='' at=''
while [ $# -gt 0 ]; do
  case $1 in
    --binary | --deb)
      [ $# -gt 1 ] || { usage >&2 && exit 2; }
      value=$(realpath -m -- "$2")
      [ "$1" = --deb ] && deb=$value || binary=$value
      shift
      ;;
    --unpack) at=unpacked ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done

refuse() { printf 'package-test: %s\n' "$*" >&2 && exit 2; }
have() { command -v "$1" >/dev/null 2>&1; }
have dpkg || refuse "there is no dpkg: run it on Debian or Ubuntu"
if [ -z "$at" ]; then
  [ "$(id -u)" = 0 ] || refuse "installing a package needs root: use sudo, or --unpack"
  ! dpkg-query -W -f '${db:Status-Status}' bitbrat >/dev/null 2>&1 || refuse "bitbrat is installed: dpkg -P bitbrat"
  for path in /etc/bitbrat /var/lib/bitbrat /var/lib/private/bitbrat /usr/bin/bitbrat; do
    [ ! -e "$path" ] && [ ! -L "$path" ] || refuse "$path exists, and the test would remove it: move it away"
  done
fi

cd "$root" || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/bitbrat-package.XXXXXX") || exit 1
cleanup() {
  [ -n "$at" ] || dpkg -P bitbrat >/dev/null 2>&1
  rm -rf "$work"
}
[ -z "$at" ] || at=$work/$at
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

passed=0 failed=0 skipped=0
# check LABEL SHELL-TEXT: runs the text; what it prints is shown when it fails.
check() {
  if eval "$2" >"$work/why" 2>&1; then
    passed=$((passed + 1)) && printf 'OK       %s\n' "$1"
  else
    failed=$((failed + 1)) && printf 'FAIL     %s\n' "$1" && tail -n 12 "$work/why" | sed 's/^/           /'
  fi
}
# needing PROGRAM LABEL SHELL-TEXT: the same where the program is installed.
needing() {
  if have "$1"; then check "$2" "$3"; else skipped=$((skipped + 1)) && printf 'SKIPPED  %s (no %s here)\n' "$2" "$1"; fi
}
# As a user without configuration runs the installed program.
run() { (cd "$work" && env -i PATH="$at/usr/bin:/usr/bin:/bin" HOME="$work" TMPDIR="$work" LC_ALL=C timeout 90 "$@" </dev/null); }
code() { local want=$1 got=0 && shift && { run "$@" || got=$?; } && { [ "$got" = "$want" ] || { echo "exit code $got, not $want" && return 1; }; }; }
ours() { find /etc /usr /var/lib /var/cache/bitbrat -xdev -name '*bitbrat*' ! -path "$root/*" ! -path '/var/lib/dpkg/*' 2>/dev/null | sort; }

if [ -z "$deb" ]; then
  check "the .deb is built" 'scripts/package.sh deb --fast --binary "$binary" --out "$work/out"'
  deb=$(ls "$work"/out/*.deb 2>/dev/null)
fi
[ -s "$deb" ] || { echo "no package, so nothing else was checked" && exit 1; }

# --- what is in it -------------------------------------------------------------------------------------------------

# The address of who publishes packages is not in the repository, and there is no bug of Debian to close.
needing lintian "lintian finds nothing" 'lintian --allow-root --fail-on warning \
  --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs "$deb"'
check "nothing in /etc is a file of the package" '! dpkg-deb -c "$deb" | grep -F " ./etc/"'

# --- in use --------------------------------------------------------------------------------------------------------

if [ -n "$at" ]; then
  check "it is unpacked" 'dpkg-deb -x "$deb" "$at"'
else
  ours >"$work/before"
  # Small images leave out manual pages and documentation.
  check "dpkg -i" 'dpkg -i --path-include="/usr/share/man/*" --path-include="/usr/share/doc/bitbrat/*" "$deb"'
fi
check "--version" 'run bitbrat --version | grep -E "^bitbrat [0-9]"'
check "--demo status is exit code 4: two accounts of the demo are refused" 'code 4 bitbrat --demo status --probe'
needing man "man bitbrat" 'run man "$at/usr/share/man/man1/bitbrat.1.gz" | grep "EXIT STATUS"'
needing man "man bitbrat-sources-status" 'run man "$at/usr/share/man/man1/bitbrat-sources-status.1.gz" | grep -e --probe'
# The scripts of both are called as the shells do, with stand-ins for what only an interactive shell has.
cat >"$work/complete.bash" <<SH
source $at/usr/share/bash-completion/completions/bitbrat
COMP_WORDS=(bitbrat --demo prob) COMP_CWORD=2
_bitbrat && printf '%s\\n' "\${COMPREPLY[@]}"
SH
cat >"$work/complete.zsh" <<SH
fpath=($at/usr/share/zsh/vendor-completions \$fpath)
compdef() { : }
_describe() { print -l -- "\${(@P)3}" }
autoload -Uz _bitbrat
words=(bitbrat --demo prob) CURRENT=3
_bitbrat
SH
needing bash "bash completes" 'run bash "$work/complete.bash" | grep -x probe'
needing zsh "zsh completes" 'run zsh -f "$work/complete.zsh" | grep "^probe:"'
needing fish "fish completes" \
  'run fish -c "source $at/usr/share/fish/vendor_completions.d/bitbrat.fish; complete -C \"bitbrat prob\"" | grep -w probe'
for file in README.md examples/bitbrat.toml copyright changelog.gz changelog.Debian.gz; do
  check "documentation $file" 'test -s "$at/usr/share/doc/bitbrat/$file"'
done
check "the example is a valid configuration" 'run bitbrat --config "$at/usr/share/doc/bitbrat/examples/bitbrat.toml" config check'
unit=$at/usr/lib/systemd/system/bitbrat-watch.service
needing systemd-analyze "the unit is confined (exposure of at most 2.0)" \
  'systemd-analyze security --offline=true --threshold=20 "$unit"'
check "credentials reach the program" '
  mkdir "$work/credentials" && echo hush-hush-hush >"$work/credentials/bitbrat_twitch.client_secret" &&
  run env CREDENTIALS_DIRECTORY="$work/credentials" bitbrat config show >"$work/shown" &&
  grep "client_secret.*credentials/bitbrat_twitch" "$work/shown" && ! grep hush "$work/shown"'

# --- installed, upgraded, removed ----------------------------------------------------------------------------------

if [ -z "$at" ]; then
  needing man "man finds the pages" 'run man -w bitbrat | grep -F /usr/share/man/man1/bitbrat.1.gz'
  needing systemd-analyze "the unit is valid" 'systemd-analyze verify "$unit"'
  check "the service is neither enabled nor started" '! ls /etc/systemd/system/*/bitbrat-watch.service'
  check "/etc/bitbrat/credentials is for root only" '[ "$(stat -c "%U %a" /etc/bitbrat/credentials)" = "root 700" ]'
  # What an operator and the service leave.
  secret=/etc/bitbrat/credentials/twitch.client_secret state=/var/lib/private/bitbrat
  check "a credential, and state of the service" 'echo hush-hush-hush >$secret && { [ -d /var/lib/private ] ||
    install -d -m 0700 /var/lib/private; } && install -d -m 0700 $state && echo "{}" >$state/tokens.json &&
    ln -s private/bitbrat /var/lib/bitbrat'
  check "an upgrade keeps both" 'dpkg -i "$deb" && test -s $secret && test -s $state/tokens.json'
  check "dpkg -r" 'dpkg -r bitbrat && ! test -e /usr/bin/bitbrat'
  check "a removal keeps both" 'test -s $secret && test -s $state/tokens.json'
  check "dpkg -P" 'dpkg -P bitbrat'
  check "nothing is left" 'ours | diff "$work/before" -'
fi

printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
