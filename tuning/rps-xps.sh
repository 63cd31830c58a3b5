#!/bin/sh
# Passes received packets on to more CPUs than the card has queues (RPS), remembers where a connection was last read
# (RFS), and gives each CPU a sending queue of its own (XPS). Run as root; lasts until the next start of the machine.
#
#   tuning/rps-xps.sh eth0 0-7          CPUs by number, in ranges and with commas
#   tuning/rps-xps.sh eth0 0-7 show     print the commands and change nothing
#   tuning/rps-xps.sh eth0 off          received packets stay on the CPU of their interrupt
#
# Reason: a card with one queue (most virtual machines) makes one CPU do the receive work of all.
# Effect: that work is spread, at the price of an interrupt between CPUs per batch; a card with as many queues as
# event loops does better with irq.sh alone. ROOT is for tests.
set -eu
card=$1 list=$2 mode=${3:-do} root=${ROOT:-}
folder=$root/sys/class/net/$card/queues

put() {
  echo "echo $1 > $2"
  # A kernel without the feature, or a card with one sending queue, has no such file or refuses it.
  if [ "$mode" = do ] && [ -e "$2" ]; then
    echo "$1" > "$2" 2>/dev/null || echo "$2 stays as it is" >&2
  fi
}

# Hexadecimal words of 32 bits, the highest first.
mask() {
  echo "$1" | tr ',' '\n' | while IFS=- read -r first last; do seq "$first" "${last:-$first}"; done |
    awk 'BEGIN { top = 0 }
         { word = int($1 / 32); bits[word] += 2 ^ ($1 % 32); if (word > top) top = word }
         END { for (word = top; word >= 0; word--) printf "%08x%s", bits[word], word ? "," : "\n" }'
}

if [ "$list" = off ]; then
  for queue in "$folder"/rx-*; do put 0 "$queue/rps_cpus"; done
  exit
fi

queues=$(ls -d "$folder"/rx-* | wc -l)
put 32768 "$root/proc/sys/net/core/rps_sock_flow_entries"
for queue in "$folder"/rx-*; do
  put "$(mask "$list")" "$queue/rps_cpus"
  put $((32768 / queues)) "$queue/rps_flow_cnt"
done

cpus=$(echo "$list" | tr ',' '\n' | while IFS=- read -r first last; do seq "$first" "${last:-$first}"; done)
sending=$(ls -d "$folder"/tx-* | wc -l)
index=0
for queue in $(ls -d "$folder"/tx-* | sort -V); do
  # Queue n sends for every CPU whose place in the list is n, counted round the queues.
  own=$(echo "$cpus" | awk -v n="$index" -v of="$sending" '(NR - 1) % of == n' | paste -sd, -)
  [ -z "$own" ] || put "$(mask "$own")" "$queue/xps_cpus"
  index=$((index + 1))
done
