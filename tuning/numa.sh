#!/bin/sh
# Runs Ringcast on the memory node of a network card: its event loops on that node's physical cores, its memory there.
#
#   tuning/numa.sh eth0 ringcast --listen 0.0.0.0:8000
#   tuning/numa.sh eth0                                  print the node and its CPUs
#
# Reason: all cores read one ring, and the card writes packets to the memory of its own node; memory of another node
# is further away. Effect: no cache line of the ring and no packet crosses between sockets. A second node's CPUs are
# best used by a second process, behind the same load balancer. Needs numactl. ROOT is for tests.
set -eu
card=$1 root=${ROOT:-}
shift
node=$(cat "$root/sys/class/net/$card/device/numa_node" 2>/dev/null || echo -1)
# -1: this machine has one node, or does not tell.
[ "$node" -ge 0 ] || node=0

# The first hyperthread of each physical core of the node.
cpus=$(
  for folder in "$root/sys/devices/system/node/node$node"/cpu[0-9]*; do
    cpu=${folder##*/cpu}
    first=$(sed 's/[-,].*//' "$root/sys/devices/system/cpu/cpu$cpu/topology/thread_siblings_list")
    [ "$first" != "$cpu" ] || echo "$cpu"
  done | sort -n | paste -sd, -
)
# A lone number would be taken for a count of cores.
case $cpus in *,*) ;; *) cpus=$cpus-$cpus ;; esac
if [ $# = 0 ]; then
  echo "node $node, CPUs $cpus"
else
  RINGCAST_CORES=$cpus exec numactl --cpunodebind="$node" --membind="$node" "$@"
fi
