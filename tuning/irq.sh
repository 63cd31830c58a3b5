#!/bin/sh
# Assigns each interrupt of a network card to a CPU, one CPU after the other, so that several CPUs receive the packets of
# several queues. Run as root. The setting lasts until the machine or irqbalance starts again (stop irqbalance first).
#
#   tuning/irq.sh eth0 0-7          CPUs: numbers and ranges, separated by commas
#   tuning/irq.sh eth0 0-7 show     print the commands and change nothing
#
# Reason: the interrupts of a queue run on one CPU, and many drivers start with all queues on the first CPU.
# Effect: the kernel's receive work (in `top`: si) moves away from the busiest CPU. The tests set ROOT, a folder with a
# copy of /proc and /sys.
set -eu
card=$1 list=$2 mode=${3:-do} root=${ROOT:-}

cpus=$(echo "$list" | tr ',' '\n' | while IFS=- read -r first last; do seq "$first" "${last:-$first}"; done)
folder=$root/sys/class/net/$card/device/msi_irqs
# The interrupts of a virtio device belong to the PCI function above it.
[ -d "$folder" ] || folder=$root/sys/class/net/$card/device/../msi_irqs
[ -d "$folder" ] || { echo "$card has no interrupts of its own" >&2; exit 1; }

# shellcheck disable=SC2086 # the list is split on purpose
set -- $cpus
for irq in $(ls "$folder" | sort -n); do
  file=$root/proc/irq/$irq/smp_affinity_list
  echo "echo $1 > $file"
  # An unused interrupt has no such file, and the kernel does not allow some interrupts to move.
  if [ "$mode" = do ] && [ -e "$file" ]; then
    echo "$1" > "$file" || echo "interrupt $irq stays where it is" >&2
  fi
  # Move the first CPU to the end of the list.
  first=$1
  shift
  set -- "$@" "$first"
done
