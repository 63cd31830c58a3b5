#!/bin/sh
# Runs Ringcast on the NUMA node of a network card: event loops on the node's physical cores, memory of the node.
#
#   tuning/numa.sh eth0 ringcast --listen 0.0.0.0:8000
#   tuning/numa.sh eth0                                  print the node and its CPUs
#
# Reason: all cores read one ring, and the card writes packets to the memory of its own node; access to the memory of
# another node is slower. Effect: no cache line of the ring and no packet moves between nodes. To use the CPUs of a second
# node, start a second process there, behind the same load balancer. Needs numactl. The tests set ROOT, a folder with a
# copy of /sys.
set -eu
card=$1 root=${ROOT:-}
shift
node=$(cat "$root/sys/class/net/$card/device/numa_node" 2>/dev/null || echo -1)
# -1: the machine has one node, or does not report the node.
[ "$node" -ge 0 ] || node=0

# The first hyperthread of each physical core of the node.
cpus=$(
  for folder in "$root/sys/devices/system/node/node$node"/cpu[0-9]*; do
    cpu=${folder##*/cpu}
    first=$(sed 's/[-,].*//' "$root/sys/devices/system/cpu/cpu$cpu/topology/thread_siblings_list")
    [ "$first" != "$cpu" ] || echo "$cpu"
  done | sort -n | paste -sd, -
)
# RINGCAST_CORES=5 would mean five cores; 5-5 means CPU 5.
case $cpus in *,*) ;; *) cpus=$cpus-$cpus ;; esac
if [ $# = 0 ]; then
  echo "node $node, CPUs $cpus"
else
  RINGCAST_CORES=$cpus exec numactl --cpunodebind="$node" --membind="$node" "$@"
fi
