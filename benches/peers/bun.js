// Bun's WebSocket server with just enough SocketCluster to be measured: handshake, `ping` calls, subscribe, publish.
// It has no session, timers, authentication or checks. Topics are Bun's own, so a publication is encoded once.
// PORT=0 bun bun.js; prints `listening PORT VERSION`.
let count = 0;

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: Number(process.env.PORT ?? 0),
  fetch(request, server) {
    if (!server.upgrade(request, {data: {}})) return new Response('a WebSocket is wanted', {status: 426});
  },
  websocket: {
    perMessageDeflate: false,
    idleTimeout: 0, // connections are idle while other servers are driven
    sendPings: false,
    message(ws, message) {
      if (message === '') return; // the answer to a heartbeat that nobody sent
      const {event, data, cid} = JSON.parse(message);
      switch (event) {
        case 'ping':
          ws.send(JSON.stringify({rid: cid, data: {count: ++count}}));
          return;
        case '#publish':
          server.publish(data.channel, JSON.stringify({event: '#publish', data}));
          break;
        case '#subscribe':
          ws.subscribe(data.channel);
          break;
        case '#handshake':
          ws.send(JSON.stringify({rid: cid, data: {id: crypto.randomUUID(), pingTimeout: 20000, isAuthenticated: false}}));
          return;
      }
      if (cid !== undefined) ws.send(JSON.stringify({rid: cid}));
    },
  },
});

console.log(`listening ${server.port} ${Bun.version}`);
