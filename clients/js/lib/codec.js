// Looks at the packets of a socket on their way in and out. A codec is the only place where socketcluster-client shows the answer to
// a subscribe, and the members of a publication besides its data.

/**
 * Lets `watch` see the packets of a socket that has not connected yet. Each transport of the socket, one for each connection, gets a
 * codec and a watcher of its own: `watch()` makes it. A transport that has been replaced may still read what had arrived; the socket
 * drops that, and so it must not be watched. A socket may be watched more than once.
 *
 * `outgoing(packet)` returns the packet to send; `incoming(packet)` returns the packet for the socket, or nothing if that is the packet
 * itself.
 */
export function watchPackets(socket, watch) {
  const {value, get: codec = () => value} = Object.getOwnPropertyDescriptor(socket, 'codec');
  let newest = null;
  const each = (packets, look) => (Array.isArray(packets) ? packets.map(look) : look(packets));
  const isPacket = (packet) => packet !== null && typeof packet === 'object';
  // The socket reads this property once for each transport that it makes.
  Object.defineProperty(socket, 'codec', {
    configurable: true,
    get() {
      const inner = codec(), watcher = newest = watch();
      return {
        encode: (packets) => inner.encode(each(packets, (packet) => (isPacket(packet) ? watcher.outgoing(packet) : packet))),
        decode(message) {
          const packets = inner.decode(message);
          if (watcher !== newest) return packets;
          return each(packets, (packet) => (isPacket(packet) && watcher.incoming(packet)) || packet);
        },
      };
    },
  });
}
