// Do real clients miss or repeat anything where channels remember? They connect through a proxy that cuts, stalls and
// half-closes their connections at random, and ask for recovery each time they are back.
// node recovery.mjs --binary BINARY [--seconds 40] [--cores 3] [--seed N]
//
// Publishers publish numbers without the proxy. A client of each major keeps the last position that it has seen, and
// gives it with its next subscribe. Of each channel it must get every number once, in order, or be told
// `recovered: false`: then it begins anew behind the position of that answer. Clients that know nothing of positions
// must work as ever on the same channels: between two answers to their subscribes, numbers rise by one.
// The last line is `N passed, N failed`; the exit status is 1 if any failed. RECOVERY_SECONDS sets the time, too.
import net from 'node:net';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {createRequire} from 'node:module';
import {parseArgs} from 'node:util';
import {startTarget} from './lib/servers.mjs';

const require = createRequire(import.meta.url);
const {values: args} = parseArgs({options: {
  binary: {type: 'string'}, seconds: {type: 'string', default: process.env.RECOVERY_SECONDS ?? '40'},
  cores: {type: 'string', default: '3'}, seed: {type: 'string', default: String(Math.floor(Math.random() * 2 ** 31))},
}});
if (!args.binary) { console.error('usage: node recovery.mjs --binary BINARY [--seconds 40] [--cores 3] [--seed N]'); process.exit(2); }
process.on('unhandledRejection', () => {}); // when a connection ends, the client rejects its pending promises
console.log(`seed ${args.seed}`);

const MAJORS = [14, 15, 16, 19, 20];
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

const wrong = [];
const tally = {subscribes: 0, recovered: 0, received: 0, replayed: 0, begun: {}};

/**
 * A real client. `isAware` makes it ask for recovery; the subscribe data is evaluated anew with each subscribe, so that
 * the library's own resubscription after a reconnect carries the last position. A codec sees each packet.
 */
function arrive(major, isAware) {
  const name = `${isAware ? 'aware' : 'unaware'} client of major ${major}`;
  const complain = (text) => { if (wrong.length < 20) wrong.push(`${name}: ${text}`); };
  const seen = new Map(CHANNELS.map((channel) => [channel, {next: null, position: null, packets: 0, handedOut: 0, last: -1}]));
  const subscribes = new Map();
  const each = (object, act) => (Array.isArray(object) ? object : [object]).forEach((packet) => packet && typeof packet === 'object' && act(packet));
  const answered = ({channel, data}, answer) => {
    const state = seen.get(channel);
    if (!isAware) { state.next = null; return; }
    if (!answer) { complain(`${channel}: an answer without data`); return; }
    if (data.recover && answer.recovered) tally.recovered++; else {
      const why = data.recover ? answer.reason : 'first';
      tally.begun[why] = (tally.begun[why] ?? 0) + 1;
      state.next = null;
    }
    if (!state.position || answer.publications === 0) state.position = answer.position;
  };
  const published = ({channel, data: number, position, replayed}) => {
    const state = seen.get(channel);
    tally.received++;
    state.packets++;
    if (replayed) tally.replayed++;
    if (!position) { complain(`${channel}: ${number} has no position`); return; }
    if (state.next !== null && number !== state.next) complain(`${channel}: ${number} instead of ${state.next}`);
    if (isAware && state.next !== null && position.offset <= state.position.offset) complain(`${channel}: offset ${position.offset} after ${state.position.offset}`);
    state.next = number + 1;
    state.last = number;
    state.position = position;
  };
  // Each transport gets a codec of its own: one that is over may still read what its socket has kept, and the library
  // throws that away.
  let transports = 0;
  const codec = (number) => ({
    encode(object) {
      each(object, ({event, data, cid}) => { if (event === '#subscribe') { tally.subscribes++; subscribes.set(cid, JSON.parse(JSON.stringify(data))); } });
      return JSON.stringify(object);
    },
    decode(text) {
      let object;
      try { object = JSON.parse(text); } catch { return text; }
      if (number !== transports) return object;
      each(object, (packet) => {
        if (subscribes.has(packet.rid) && !packet.error) { answered(subscribes.get(packet.rid), packet.data); subscribes.delete(packet.rid); }
        if (packet.event === '#publish') published(packet.data);
      });
      return object;
    },
  });
  const socket = require(`client${major}`).create({
    hostname: '127.0.0.1', port: proxyPort, path: '/socketcluster/', multiplex: false, connectTimeout: 4000, ackTimeout: 20000, autoConnect: false,
    autoReconnectOptions: {initialDelay: 20, randomness: 200, multiplier: 1, maxDelay: 300},
  });
  Object.defineProperty(socket, 'codec', {get: () => codec(++transports)});
  if (major === 14) socket.on('error', () => {});
  for (const channel of CHANNELS) {
    const state = seen.get(channel);
    const options = isAware ? {data: {get recover() { return state.position; }}} : {};
    const subscribed = socket.subscribe(channel, options);
    const hand = (number) => { state.handedOut++; if (number !== state.last && major === 14) complain(`${channel}: the library handed out ${number} for ${state.last}`); };
    if (major === 14) subscribed.watch(hand); else (async () => { for await (const number of subscribed) hand(number); })();
  }
  socket.connect();
  return {name, socket, seen};
}

const clients = MAJORS.flatMap((major) => [arrive(major, true), arrive(major, true), arrive(major, false)]);

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
const last = (client) => CHANNELS.every((channel) => client.seen.get(channel).last === numbers.get(channel) - 1);
// A last publication reaches clients that come back only now.
const patience = Date.now() + PATIENCE_MS;
while (Date.now() < patience && !clients.every(last)) {
  await sleep(500);
  for (const {channel, socket} of publishers) {
    const number = numbers.get(channel);
    numbers.set(channel, number + 1);
    await socket.invokePublish(channel, number);
  }
  await sleep(500);
}
await sleep(200);
for (const client of clients) {
  const missing = CHANNELS.filter((channel) => client.seen.get(channel).last !== numbers.get(channel) - 1);
  const lost = CHANNELS.filter((channel) => client.seen.get(channel).handedOut !== client.seen.get(channel).packets);
  check(`${client.name} has the end of each channel`, missing.length === 0, missing.join() || 'all');
  check(`the library of ${client.name} has handed out all`, lost.length === 0,
    lost.map((channel) => `${channel}: ${client.seen.get(channel).handedOut} of ${client.seen.get(channel).packets}`).join() || 'all');
}
check('every publication came once and in order, or the client was told', wrong.length === 0, wrong.join('; ') || `seed ${args.seed}`);
check('clients were cut off and recovered', tally.recovered > 20 && tally.replayed > 100, JSON.stringify({...tally, ...cuts}));
for (const {socket} of [...clients, ...publishers]) socket.disconnect();
server.child.kill('SIGTERM');
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
