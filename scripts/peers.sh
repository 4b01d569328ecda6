#!/usr/bin/env bash
# The real servers and tools that the tests hold Rookery against: kcat, and Apache Kafka with its own tools.
#
#   peers.sh install [PEER]...               installs what is missing; without names, everything
#   peers.sh has PEER                        exits 0 if it is there, else says what is missing
#   peers.sh start PORT DIR [NAME=VALUE]...  starts a Kafka of one node on 127.0.0.1:PORT and waits until it answers;
#                                            its data and its log stay in DIR, NAME=VALUE are broker settings
#   peers.sh stop DIR                        stops the Kafka that runs in DIR and waits until it is gone
#   peers.sh tool CLASS [ARG]...             runs a class of Kafka's, e.g. org.apache.kafka.tools.DumpLogSegments
#   peers.sh jars                            prints the directory of Kafka's jars
#
# KAFKA_HEAP_OPTS and KAFKA_JVM_PERFORMANCE_OPTS are read as Kafka's own scripts read them.
# A machine with apt needs nothing else. PEERs are git (some tests ask what is tracked), kcat, strace and
# e2fsprogs (to kill a broker at a system call, and to make disks that fail) and kafka. Kafka goes into .peers/
# beside the package.json of the repository, or where ROOKERY_PEERS says: checkouts can share one.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peers=${ROOKERY_PEERS:-$(dirname "$here")/.peers}
kafka_version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/kafka-peer.pom.xml")
jars=$peers/kafka-$kafka_version
# Kafka's brokers run on nothing older.
java_min=17
start_seconds=60
# Tests want it up soon. Who measures wants it fast: Kafka's own variables override this.
jvm_options=-XX:TieredStopAtLevel=1

fail() {
  echo "peers.sh: $*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

java_version() { java -version 2>&1 | sed -n '1s/.*version "\([0-9]*\).*/\1/p'; }

java_fits() { have java && [ "$(java_version)" -ge $java_min ] 2>/dev/null; }

# --- install ----------------------------------------------------------------------------------------------------

root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

apt_lists_fresh=
apt_update() {
  [ -z "$apt_lists_fresh" ] || return 0
  root apt-get -q -o Acquire::Retries=3 update </dev/null >&2
  apt_lists_fresh=yes
}

apt_install() {
  have apt-get || fail "install $* by hand: this machine has no apt"
  apt_update
  root env DEBIAN_FRONTEND=noninteractive \
    apt-get -q -y -o Acquire::Retries=3 install --no-install-recommends "$@" </dev/null >&2
}

install_java() {
  have apt-get || fail "install a Java of $java_min or later by hand: this machine has no apt"
  apt_update
  local candidate
  for candidate in openjdk-{25,21,17}-jre-headless; do
    # apt also knows packages by name that others mention and nobody offers.
    if [[ $(apt-cache policy "$candidate") == *"Candidate: "[0-9]* ]]; then
      apt_install "$candidate"
      java_fits || fail "$candidate is installed, but 'java' on the PATH is $(java_version)"
      return
    fi
  done
  fail "apt knows no Java of $java_min or later"
}

install_git() { have git || apt_install git; }

install_kcat() { have kcat || apt_install kcat; }

install_strace() { have strace || apt_install strace; }

install_e2fsprogs() { has_mkfs || apt_install e2fsprogs; }

# It lies where only root looks.
has_mkfs() { have mkfs.ext4 || [ -x /sbin/mkfs.ext4 ] || [ -x /usr/sbin/mkfs.ext4 ]; }

install_kafka() {
  java_fits || install_java
  [ ! -d "$jars" ] || return 0
  have mvn || apt_install maven
  mkdir -p "$peers"
  # Beside its final place, then renamed: an install that was cut short leaves nothing that looks complete.
  local fresh
  fresh=$(mktemp -d "$peers/fetching.XXXXXX")
  local attempt
  for attempt in 1 2 3; do
    if mvn -q -B -f "$here/kafka-peer.pom.xml" dependency:copy-dependencies \
      -DoutputDirectory="$fresh" </dev/null >&2; then
      chmod 755 "$fresh"
      if [ -d "$jars" ]; then rm -rf "$fresh"; else mv "$fresh" "$jars"; fi
      return
    fi
    echo "peers.sh: Maven failed (attempt $attempt of 3)" >&2
  done
  rm -rf "$fresh"
  fail "Kafka $kafka_version could not be fetched"
}

missing() {
  case $1 in
  git) have git || echo "git is not installed" ;;
  kcat) have kcat || echo "kcat is not installed" ;;
  strace) have strace || echo "strace is not installed" ;;
  e2fsprogs) has_mkfs || echo "mkfs.ext4 is not installed" ;;
  kafka)
    if [ ! -d "$jars" ]; then
      echo "Kafka $kafka_version is not in $peers"
    elif ! java_fits; then
      echo "there is no Java of $java_min or later"
    fi
    ;;
  *) fail "there is no peer '$1'" ;;
  esac
}

install() {
  [ $# -gt 0 ] || set -- git kcat strace e2fsprogs kafka
  local peer left
  for peer; do
    left=$(missing "$peer")
    [ -n "$left" ] || continue
    "install_$peer"
    left=$(missing "$peer")
    [ -z "$left" ] || fail "$left"
  done
}

# --- a Kafka ----------------------------------------------------------------------------------------------------

properties() {
  local port=$1 dir=$2 setting
  shift 2
  cat <<PROPERTIES
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$((port + 1))
log.dirs=$dir/data
num.partitions=1
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
  for setting; do printf '%s\n' "$setting"; done
}

answers() { kcat -L -b "127.0.0.1:$1" -m 1 </dev/null >/dev/null 2>&1; }

start() {
  [ $# -ge 2 ] || fail "start needs a port and a directory"
  local port=$1 dir=$2 pid
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  properties "$port" "$dir" "${@:3}" >"$dir/server.properties"
  if [ ! -f "$dir/data/meta.properties" ]; then
    local cluster
    cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
    java -XX:TieredStopAtLevel=1 -cp "$jars/*" kafka.tools.StorageTool format -t "$cluster" \
      -c "$dir/server.properties" >"$dir/format.log" 2>&1 </dev/null || fail "format failed: $(tail -n 5 "$dir/format.log")"
  fi
  # Each of the two is several words.
  # shellcheck disable=SC2086
  java ${KAFKA_HEAP_OPTS:--Xms256M -Xmx512M} ${KAFKA_JVM_PERFORMANCE_OPTS:--XX:+UseG1GC $jvm_options} -Djava.awt.headless=true \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*" kafka.Kafka "$dir/server.properties" \
    >>"$dir/out.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$dir/pid"
  local deadline=$((SECONDS + start_seconds))
  until answers "$port"; do
    kill -0 "$pid" 2>/dev/null || fail "Kafka ended while it started: $(tail -n 20 "$dir/out.log")"
    if [ $SECONDS -ge $deadline ]; then
      kill -9 "$pid" 2>/dev/null || true
      fail "Kafka did not answer within $start_seconds s: $(tail -n 20 "$dir/out.log")"
    fi
    sleep 0.05
  done
  # What answered could be another process on that port while ours is about to fail on it.
  kill -0 "$pid" 2>/dev/null || fail "something else answers on port $port"
}

stop() {
  [ $# -eq 1 ] || fail "stop needs the directory"
  [ -f "$1/pid" ] || return 0
  local pid
  pid=$(cat "$1/pid")
  kill "$pid" 2>/dev/null || true
  local deadline=$((SECONDS + start_seconds))
  while kill -0 "$pid" 2>/dev/null; do
    [ $SECONDS -lt $deadline ] || kill -9 "$pid" 2>/dev/null || true
    sleep 0.05
  done
  rm -f "$1/pid"
}

verb=${1:-}
[ $# -eq 0 ] || shift
case $verb in
install) install "$@" ;;
has)
  left=$(missing "${1:-}")
  [ -z "$left" ] || fail "$left (scripts/peers.sh install ${1:-})"
  ;;
start) start "$@" ;;
stop) stop "$@" ;;
tool)
  [ $# -gt 0 ] || fail "tool needs a class"
  # shellcheck disable=SC2086
  exec java ${KAFKA_HEAP_OPTS:--Xmx512M} ${KAFKA_JVM_PERFORMANCE_OPTS:-$jvm_options} -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*" "$@"
  ;;
jars) echo "$jars" ;;
*)
  sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
  ;;
esac
