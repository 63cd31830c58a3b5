// socketcluster-server in its multi-process form: workers that share one port, joined by a broker process of its own.
// The workers are Node's cluster, the broker is scc-broker and the workers' side of it scc-broker-client, unchanged.
// What tells them of each other (scc-state) is in no registry: the first process answers its two calls.
// PORT=0 WORKERS=2 node socketcluster-cluster.js; prints `listening PORT VERSION` when all have joined.
import cluster from 'node:cluster';
import {once} from 'node:events';
import {createServer} from 'node:http';
import {createRequire} from 'node:module';
import {createServer as createTcpServer} from 'node:net';
import {answerPings, attach, listen, names, options} from './application.js';

const require = createRequire(import.meta.url);

if (cluster.isPrimary) await first();
else worker();

async function first() {
  const workers = Number(process.env.WORKERS ?? 2);
  const brokerPort = await freePort();
  const brokers = [`ws://127.0.0.1:${brokerPort}`];
  const state = listen(0, options);
  await once(state.httpServer, 'listening');
  const statePort = state.httpServer.address().port;

  let brokerJoined;
  const broker = new Promise((resolve) => { brokerJoined = resolve; });
  (async () => {
    for await (const {socket} of state.listener('connection')) {
      answer(socket, 'sccBrokerJoinCluster', () => { brokerJoined(); return {}; });
      answer(socket, 'sccWorkerJoinCluster', () => ({sccBrokerURIs: brokers, time: Date.now()}));
    }
  })();

  // A fork of the cluster module, so that it ends with this process; it listens on its own port.
  cluster.setupPrimary({exec: require.resolve('scc-broker/server.js')});
  cluster.fork({SCC_BROKER_SERVER_PORT: brokerPort, SCC_STATE_SERVER_HOST: '127.0.0.1', SCC_STATE_SERVER_PORT: statePort});
  await broker;

  cluster.setupPrimary({exec: new URL(import.meta.url).pathname});
  let joined = 0;
  cluster.on('message', (_, port) => {
    if (++joined === workers) console.log(`listening ${port} ${names}, ${workers} workers, 1 broker`);
  });
  for (let index = 0; index < workers; index++) {
    cluster.fork({STATE_PORT: statePort, WORKER: index});
  }
  cluster.on('exit', (process_, code) => { console.error(`a process ended with ${code}`); process.exit(1); });
}

function worker() {
  const http = createServer();
  const server = attach(http, options);
  answerPings(server);
  const client = require('scc-broker-client').attach(server.brokerEngine, {
    stateServerHost: '127.0.0.1', stateServerPort: Number(process.env.STATE_PORT), instanceId: `worker-${process.env.WORKER}`,
  });
  (async () => { for await (const {error} of client.listener('error')) console.error(error); })();
  client.listener('updateBrokers').once().then(() => {
    http.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => process.send(http.address().port));
  });
}

async function answer(socket, procedure, reply) {
  for await (const request of socket.procedure(procedure)) request.end(reply());
}

async function freePort() {
  const probe = createTcpServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const {port} = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
