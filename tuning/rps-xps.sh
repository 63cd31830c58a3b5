#!/bin/sh
# Spreads the work of a network card over CPUs: received packets to more CPUs than the card has queues (RPS), packets of a
# connection to the CPU that reads it (RFS), and a sending queue for each CPU (XPS). Run as root. The setting lasts until
# the machine starts again.
#
#   tuning/rps-xps.sh eth0 0-7          CPUs: numbers and ranges, separated by commas
#   tuning/rps-xps.sh eth0 0-7 show     print the commands and change nothing
#   tuning/rps-xps.sh eth0 off          received packets stay on the CPU of their interrupt
#
# Reason: if a card has one queue (most virtual machines), one CPU does all the receive work.
# Effect: several CPUs do this work; each batch costs an interrupt between CPUs. If the card has as many queues as there are
# event loops, irq.sh alone is better. The tests set ROOT, a folder with a copy of /proc and /sys.
set -eu
card=$1 list=$2 mode=${3:-do} root=${ROOT:-}
folder=$root/sys/class/net/$card/queues

put() {
  echo "echo $1 > $2"
  # If the kernel lacks the feature, or the card has one sending queue, the file is missing or the write fails.
  if [ "$mode" = do ] && [ -e "$2" ]; then
    echo "$1" > "$2" 2>/dev/null || echo "$2 stays as it is" >&2
  fi
}

# Prints a list of CPUs as the kernel's mask: hexadecimal words of 32 bits, the highest first.
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
  # Queue n of q sends for each CPU whose position in the list is n modulo q.
  own=$(echo "$cpus" | awk -v n="$index" -v of="$sending" '(NR - 1) % of == n' | paste -sd, -)
  [ -z "$own" ] || put "$(mask "$own")" "$queue/xps_cpus"
  index=$((index + 1))
done
