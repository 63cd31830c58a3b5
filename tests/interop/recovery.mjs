// Do real clients miss or repeat anything where channels remember? They connect through a proxy that cuts, stalls and
// half-closes their connections at random, and ask for recovery each time they are back.
// node recovery.mjs --binary BINARY [--seconds 120] [--cores 3] [--seed N]
//
// Publishers publish numbers without the proxy. A client of each major, one of them in a headless Chromium, too, keeps the last position that it has seen, and
// gives it with its next subscribe. Of each channel it must get every number once, in order, or be told
// `recovered: false`: then it begins anew behind the position of that answer. Clients that know nothing of positions
// must work as ever on the same channels: between two answers to their subscribes, numbers rise by one.
// The last line is `N passed, N failed`; the exit status is 1 if any failed. RECOVERY_SECONDS sets the time, too.
import net from 'node:net';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import {createRequire} from 'node:module';
import {fileURLToPath} from 'node:url';
import {parseArgs} from 'node:util';
import {launch} from './lib/browser.mjs';
import {arrive} from './lib/recovering.mjs';
import {startTarget} from './lib/servers.mjs';

const require = createRequire(import.meta.url);
const {values: args} = parseArgs({options: {
  binary: {type: 'string'}, seconds: {type: 'string', default: process.env.RECOVERY_SECONDS ?? '120'},
  cores: {type: 'string', default: '3'}, seed: {type: 'string', default: String(Math.floor(Math.random() * 2 ** 31))},
}});
if (!args.binary) { console.error('usage: node recovery.mjs --binary BINARY [--seconds 120] [--cores 3] [--seed N]'); process.exit(2); }
process.on('unhandledRejection', () => {}); // when a connection ends, the client rejects its pending promises
console.log(`seed ${args.seed}`);

// A socket of major 18 that has more than one listener calls none of them, so that its program learns nothing.
const MAJORS = [14, 15, 16, 17, 19, 20];
const CHANNELS = ['room.long', 'room.short', 'room.value'];
const PATIENCE_MS = 60000;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let passed = 0, failed = 0;
function check(name, good, found) {
  good ? passed++ : failed++;
  console.log(`${good ? 'PASS' : 'FAIL'} ${name}: ${found}`);
}
/** Random numbers that the seed repeats, as far as the network's timing does. */
let state = BigInt(args.seed) * 2n + 1n;
function random(below) {
  state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn;
  return Number((state >> 33n) % BigInt(below));
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-recovery-'));
process.on('exit', () => fs.rmSync(folder, {recursive: true, force: true}));
const config = path.join(folder, 'ringcast.toml');
fs.writeFileSync(config, `
[[channels]]
names = ["room.long"]
history_entries = 5000
history_bytes = 4000000

[[channels]]
names = ["room.short"]
history_entries = 20
history_bytes = 65536

[[channels]]
names = ["room.value"]
history_entries = 2000
history_bytes = 1000000
last_value = true
`);
const server = await startTarget(args.binary, {protocol: 'auto'}, Number(args.cores), {
  RINGCAST_CONFIG: config, RINGCAST_PING_INTERVAL_MS: '2000', RINGCAST_PING_TIMEOUT_MS: '5000', RINGCAST_ADMIN: '127.0.0.1:0',
});

/** Passes bytes on, until it cuts the connection, stops passing on for a while, or passes on one direction only. */
const cuts = {cut: 0, reset: 0, stall: 0, 'half-close': 0};
const proxy = net.createServer((client) => {
  const upstream = net.connect(server.port, '127.0.0.1');
  const both = [client, upstream];
  const end = () => both.forEach((socket) => socket.destroy());
  both.forEach((socket) => socket.on('error', end).on('close', end));
  client.pipe(upstream);
  upstream.pipe(client);
  const fault = () => {
    if (client.destroyed || finishing) return;
    const kind = Object.keys(cuts)[random(4)];
    cuts[kind]++;
    if (kind === 'cut') end();
    if (kind === 'reset') both.forEach((socket) => socket.resetAndDestroy());
    if (kind === 'half-close') (random(2) ? client : upstream).end();
    if (kind === 'stall') {
      const stalled = random(2) ? [client] : [client, upstream];
      stalled.forEach((socket) => socket.pause());
      setTimeout(() => { stalled.forEach((socket) => socket.resume()); setTimeout(fault, random(2000)); }, random(3000));
      return;
    }
    setTimeout(end, random(1500));
  };
  setTimeout(fault, 50 + random(2500));
});
await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
const proxyPort = proxy.address().port;
let finishing = false;

const kind = (isAware) => (isAware ? 'aware' : 'unaware');
const clients = MAJORS.flatMap((major) => [true, true, false].map((isAware) => arrive({
  library: require(`client${major}`), name: `${kind(isAware)} client of major ${major}`, major, isAware, port: proxyPort, channels: CHANNELS,
})));

// The same in a browser.
const files = {
  '/': '<!doctype html><title>recovery</title>',
  '/client.js': fs.readFileSync(require.resolve('client20/socketcluster-client.min.js')),
  '/recovering.mjs': fs.readFileSync(fileURLToPath(new URL('./lib/recovering.mjs', import.meta.url))),
};
const site = http.createServer((request, response) => {
  const body = files[request.url];
  response.writeHead(body ? 200 : 404, {'content-type': request.url.endsWith('js') ? 'text/javascript' : 'text/html'});
  response.end(body);
});
await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
const browser = launch(path.join(folder, 'profile'));
const tab = browser && await browser.tab(`http://127.0.0.1:${site.address().port}/`);
check('Chromium is installed', Boolean(browser), browser ? 'it is' : 'it is not');
if (tab) {
  await tab.evaluate(`(async () => {
    const [{arrive}, library] = await Promise.all([import('/recovering.mjs'), import('/client.js')]);
    window.clients = [true, false].map((isAware) => arrive({
      library: library.default ?? library, name: (isAware ? 'aware' : 'unaware') + ' client in a browser', major: 20, isAware, port: ${proxyPort},
      channels: ${JSON.stringify(CHANNELS)},
    }));
    return true;
  })()`);
}
/** What all clients have seen by now. */
const reports = async () => [
  ...clients.map((client) => client.report()),
  ...(tab ? JSON.parse(await tab.evaluate('JSON.stringify(clients.map((client) => client.report()))')) : []),
];

// One publisher for each channel, so that its numbers rise in the order of publications.
const numbers = new Map(CHANNELS.map((channel) => [channel, 0]));
const publishers = await Promise.all(CHANNELS.map(async (channel) => {
  const socket = require('client20').create({hostname: '127.0.0.1', port: server.port, path: '/socketcluster/', autoReconnect: false});
  await socket.listener('connect').once();
  return {channel, socket};
}));
const end = Date.now() + Number(args.seconds) * 1000;
const publishing = publishers.map(async ({channel, socket}) => {
  while (Date.now() < end) {
    for (let burst = random(4) ? 1 : random(60); burst > 0; burst--) {
      const number = numbers.get(channel);
      numbers.set(channel, number + 1);
      socket.transmitPublish(channel, number);
    }
    await sleep(random(25));
  }
});
await Promise.all(publishing);
finishing = true;
const last = (client) => CHANNELS.every((channel) => client.seen[channel].last === numbers.get(channel) - 1);
// A last publication reaches clients that come back only now.
const patience = Date.now() + PATIENCE_MS;
while (Date.now() < patience && !(await reports()).every(last)) {
  await sleep(500);
  for (const {channel, socket} of publishers) {
    const number = numbers.get(channel);
    numbers.set(channel, number + 1);
    await socket.invokePublish(channel, number);
  }
  await sleep(500);
}
await sleep(200);
const ended = await reports();
for (const client of ended) {
  const missing = CHANNELS.filter((channel) => client.seen[channel].last !== numbers.get(channel) - 1);
  const lost = CHANNELS.filter((channel) => client.seen[channel].handedOut !== client.seen[channel].packets);
  check(`${client.name} has the end of each channel`, missing.length === 0, missing.join() || 'all');
  check(`the library of ${client.name} has handed out all`, lost.length === 0,
    lost.map((channel) => `${channel}: ${client.seen[channel].handedOut} of ${client.seen[channel].packets}`).join() || 'all');
}
const wrong = ended.flatMap((client) => client.wrong);
const tally = {subscribes: 0, recovered: 0, received: 0, replayed: 0, begun: {}};
for (const {tally: one} of ended) {
  for (const key of ['subscribes', 'recovered', 'received', 'replayed']) tally[key] += one[key];
  for (const [why, count] of Object.entries(one.begun)) tally.begun[why] = (tally.begun[why] ?? 0) + count;
}
check('every publication came once and in order, or the client was told', wrong.length === 0, wrong.join('; ') || `seed ${args.seed}`);
check('clients were cut off and recovered', tally.recovered > 20 && tally.replayed > 100, JSON.stringify({...tally, ...cuts}));
for (const {socket} of [...clients, ...publishers]) socket.disconnect();
if (browser) await browser.end();
site.close();
server.child.kill('SIGTERM');
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
