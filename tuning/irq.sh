#!/bin/sh
# Gives each interrupt of a network card a CPU of its own, in turn, so that packets of several queues are received by
# several CPUs. Run as root; the setting lasts until the next start of the machine, or of irqbalance (stop that first).
#
#   tuning/irq.sh eth0 0-7          CPUs by number, in ranges and with commas
#   tuning/irq.sh eth0 0-7 show     print the commands and change nothing
#
# Reason: a queue's interrupts run on one CPU, and many drivers start with all of them on the first.
# Effect: the kernel's receive work (in `top`: si) moves off the busiest CPU. ROOT is for tests.
set -eu
card=$1 list=$2 mode=${3:-do} root=${ROOT:-}

cpus=$(echo "$list" | tr ',' '\n' | while IFS=- read -r first last; do seq "$first" "${last:-$first}"; done)
folder=$root/sys/class/net/$card/device/msi_irqs
# A virtio device has its interrupts at the PCI function above it.
[ -d "$folder" ] || folder=$root/sys/class/net/$card/device/../msi_irqs
[ -d "$folder" ] || { echo "$card has no interrupts of its own" >&2; exit 1; }

# shellcheck disable=SC2086 # words are meant
set -- $cpus
for irq in $(ls "$folder" | sort -n); do
  file=$root/proc/irq/$irq/smp_affinity_list
  echo "echo $1 > $file"
  # An interrupt that is reserved but not in use has no such file, and some may not be moved.
  if [ "$mode" = do ] && [ -e "$file" ]; then
    echo "$1" > "$file" || echo "interrupt $irq stays where it is" >&2
  fi
  # The first CPU goes to the end of the line.
  first=$1
  shift
  set -- "$@" "$first"
done
