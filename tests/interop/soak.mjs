// Runs real clients beside misbehaving ones for an hour or more: does the server lose messages, and does its memory grow?
// node soak.mjs --binary BINARY [--minutes 60] [--cores 2]
//
// Steady clients, of majors 14 and 20, call and publish, and count what they receive. Beside them other clients come and go:
// they subscribe to random names, stop reading, send garbage, half a request, forged tokens and wrong passwords, and vanish
// in several ways. Each minute two lines are printed: the counts of the steady clients, and the server's memory by kind (see
// `memory`). At the end the other clients leave, and the server must be as it was without them.
// The last line is `N passed, N failed`; the exit status is 1 if any failed.
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {randomBytes, randomInt} from 'node:crypto';
import {createRequire} from 'node:module';
import {parseArgs} from 'node:util';
import {startTarget} from './lib/servers.mjs';
import {frame, request, upgrade} from './lib/wire.mjs';

const require = createRequire(import.meta.url);
const {values: args} = parseArgs({options: {binary: {type: 'string'}, minutes: {type: 'string', default: '60'}, cores: {type: 'string', default: '2'}}});
if (!args.binary) { console.error('usage: node soak.mjs --binary BINARY [--minutes 60] [--cores 2]'); process.exit(2); }
const STEADY = {14: 10, 20: 30};
const CHANNELS = 5;
const MISBEHAVING = 40; // at any time
const STALLED = 3;
const OUTBOX_BYTES_MAX = 256 * 1024;
const PATIENCE_MS = 60000;
/** Memory without a limit of its own may end at this multiple of its level in the middle of the time. */
const GROWTH_MAX = 1.1;
/** Most bytes of publications, in the ring and in buffers that are kept for later ones. */
const RING_BYTES_MAX = 8 * 1024 * 1024;
process.on('unhandledRejection', () => {}); // when a connection ends, the client rejects its pending promises

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const until = async (condition, ms = PATIENCE_MS) => { for (const end = Date.now() + ms; !(await condition()) && Date.now() < end;) await sleep(100); return condition(); };
let passed = 0, failed = 0;
function check(name, good, found) {
  good ? passed++ : failed++;
  console.log(`${good ? 'PASS' : 'FAIL'} ${name}: ${found}`);
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-soak-'));
process.on('exit', () => fs.rmSync(folder, {recursive: true, force: true}));
const passwords = path.join(folder, 'passwords');
fs.writeFileSync(passwords, `ann:$7$1000$${Buffer.alloc(12, 7).toString('base64')}$${Buffer.alloc(64, 7).toString('base64')}\n`, {mode: 0o600});
const server = await startTarget(args.binary, {protocol: 'auto'}, Number(args.cores), {
  RINGCAST_ADMIN: '127.0.0.1:0', RINGCAST_OUTBOX_BYTES_MAX: String(OUTBOX_BYTES_MAX), RINGCAST_RING_BYTES_MAX: String(RING_BYTES_MAX), RINGCAST_PASSWORD_FILE: passwords,
  RINGCAST_REQUEST_TIMEOUT_MS: '10000', RINGCAST_PING_INTERVAL_MS: '8000', RINGCAST_PING_TIMEOUT_MS: '20000',
});

/** The server's metrics, each summed over the cores. */
async function metrics() {
  const totals = {};
  for (const line of (await (await fetch(`http://127.0.0.1:${server.admin}/metrics`, {headers: {connection: 'close'}})).text()).split('\n')) {
    const [, name, value] = /^(ringcast_\w+?)(?:\{[^}]*\})? (\S+)$/.exec(line) ?? [];
    if (name) totals[name] = (totals[name] ?? 0) + Number(value);
  }
  return totals;
}
const memoryKib = () => Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${server.child.pid}/status`, 'utf8'))[1]);

/**
 * Resident memory by kind, in KiB. The kernel reports it by mapping: `program` are pages of files, which are loaded when code
 * runs for the first time; `stacks` belong to the threads; `heap` is everything else, which the allocator holds. The server's
 * metrics divide the heap into `ring`, `kept` (buffers for later publications), `tables` and `outboxes`. `rest` has no metric:
 * the ring's slots, sessions, settings, keys, buffers of the event loops, and free memory of the allocator. `allocator` is what
 * the allocator itself says that it has of the system, with pages that were never written: if `heap` rises and `allocator` does
 * not, the program has begun to use pages that the allocator had before.
 */
async function memory() {
  const task = `/proc/${server.child.pid}`, kinds = {total: 0, program: 0, stacks: 0, heap: 0, lazy: 0};
  for (const thread of fs.readdirSync(`${task}/task`)) {
    // The stack pointer can be read while a thread waits in a system call. For other threads, the last known one is used.
    const pointer = fs.readFileSync(`${task}/task/${thread}/syscall`, 'utf8').trim().split(' ').at(-2);
    if (pointer?.startsWith('0x')) stackPointers.set(thread, BigInt(pointer));
  }
  const pointers = [...stackPointers.values()];
  for (const mapping of fs.readFileSync(`${task}/smaps`, 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const [head] = mapping.split('\n', 1), [begin, end] = head.split(' ')[0].split('-').map((address) => BigInt(`0x${address}`));
    const kib = (field) => Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(mapping)?.[1] ?? 0);
    const isStack = head.includes('[stack]') || pointers.some((pointer) => pointer >= begin && pointer < end);
    kinds.total += kib('Rss');
    kinds.lazy += kib('LazyFree');
    kinds[isStack ? 'stacks' : /\s\/\S+$/.test(head) ? 'program' : 'heap'] += kib('Rss');
  }
  const now = await metrics();
  const known = Object.fromEntries(Object.entries(GAUGES).map(([kind, names]) => [kind, Math.round(names.reduce((sum, name) => sum + (now[name] ?? 0), 0) / 1024)]));
  const allocator = Math.round((now.ringcast_memory_allocator_bytes ?? 0) / 1024);
  return {...kinds, ...known, rest: kinds.heap - Object.values(known).reduce((sum, value) => sum + value, 0), allocator};
}
/** The address of each thread's stack. */
const stackPointers = new Map();
/** The kinds of memory that the server's gauges report. */
const GAUGES = {
  ring: ['ringcast_ring_bytes'], kept: ['ringcast_ring_kept_bytes'], tables: ['ringcast_table_bytes'], outboxes: ['ringcast_outbox_bytes'],
};
/** Open descriptors of all threads, because each event loop has a table of its own. */
const descriptors = () => fs.readdirSync(`/proc/${server.child.pid}/task`)
  .reduce((sum, thread) => sum + fs.readdirSync(`/proc/${server.child.pid}/task/${thread}/fd`).length, 0);

// The steady clients. Each publishes numbers on one channel, and every client expects all numbers of each publisher in order.
const steady = [];
const counts = {answers: 0, received: 0, published: 0, wrong: []};
function receive(listener, {from, number}) {
  const next = (listener.next.get(from) ?? 0);
  if (number !== next) counts.wrong.push(`client ${listener.id}: ${number} of ${from} instead of ${next}`);
  listener.next.set(from, number + 1);
  counts.received++;
}
async function arrive(major, id) {
  const pkg = require(`client${major}`), promises = major > 14;
  const socket = pkg.create({hostname: '127.0.0.1', port: server.port, path: '/socketcluster/', autoReconnect: false, multiplex: false});
  const client = {id, next: new Map(), numbers: 0, pending: 0};
  const names = Array.from({length: CHANNELS}, (_, index) => `steady-${index}`);
  const call = (event, data) => promises ? socket.invoke(event, data) : new Promise((resolve, reject) => socket.emit(event, data, (error, value) => error ? reject(error) : resolve(value)));
  const ended = (how) => { if (!finishing) counts.wrong.push(`client ${id} of major ${major} was closed: ${how}`); };
  if (promises) {
    (async () => { for await (const {code, reason} of socket.listener('disconnect')) ended(`${code} ${reason}`); })();
    for (const name of names) { const channel = socket.subscribe(name); (async () => { for await (const data of channel) receive(client, data); })(); }
  } else {
    socket.on('disconnect', (code, reason) => ended(`${code} ${reason}`));
    socket.on('error', () => {});
    for (const name of names) socket.subscribe(name).watch((data) => receive(client, data));
  }
  await until(() => socket.state === 'open' && socket.subscriptions().length === CHANNELS);
  client.ping = async () => { client.pending++; await call('ping', {param: 'hello'}); client.pending--; counts.answers++; };
  client.publish = () => {
    const data = {from: id, number: client.numbers++};
    counts.published++;
    if (promises) return socket.invokePublish(names[id % CHANNELS], data);
    return new Promise((resolve) => socket.publish(names[id % CHANNELS], data, resolve));
  };
  steady.push(client);
}

// The misbehaving clients.
let finishing = false;
const misbehaving = new Set();
function connection(first) {
  const socket = net.connect(server.port, '127.0.0.1');
  misbehaving.add(socket);
  socket.on('error', () => {}).on('close', () => misbehaving.delete(socket));
  socket.write(first);
  return socket;
}
const text = (packet) => frame(1, typeof packet === 'string' ? packet : JSON.stringify(packet));
const handshake = () => Buffer.concat([Buffer.from(request({headers: upgrade()})), text({event: '#handshake', data: {authToken: null}, cid: 1})]);
const subscribe = (channel, cid) => text({event: '#subscribe', data: {channel}, cid});
const leave = (socket) => [() => socket.destroy(), () => socket.resetAndDestroy(), () => socket.end(), () => socket.end(frame(8, Buffer.from([3, 232])))][randomInt(4)]();
const CHARACTERS = [
  () => { // subscribes to random names, publishes, leaves
    const socket = connection(handshake());
    for (let cid = 2; cid < 42; cid++) socket.write(subscribe(`random-${randomBytes(randomInt(1, 40)).toString('hex')}`, cid));
    socket.write(text({event: '#publish', data: {channel: 'loud', data: randomBytes(randomInt(1, 20000)).toString('hex')}, cid: 50}));
    return socket.resume();
  },
  () => connection(randomBytes(randomInt(1, 2000))).resume(), // sends random bytes
  () => { const socket = connection(handshake()); socket.write(randomBytes(randomInt(1, 5000))); return socket.resume(); },
  () => connection(handshake().subarray(0, randomInt(10, 200))).resume(), // sends half of the handshake
  () => { // sends a message in many fragments and never the last one
    const socket = connection(handshake());
    socket.write(frame(1, '"', {fin: false}));
    for (let piece = 0; piece < 1000; piece++) socket.write(frame(0, 'x'.repeat(100), {fin: false}));
    return socket.resume();
  },
  () => { // sends a forged token and a wrong password
    const socket = connection(handshake());
    const forged = ['{"alg":"HS256","typ":"JWT"}', '{"sub":"ann"}', randomBytes(32)].map((part) => Buffer.from(part).toString('base64url')).join('.');
    socket.write(text({event: '#authenticate', data: forged, cid: 2}));
    socket.write(text({event: 'login', data: {user: 'ann', password: randomBytes(8).toString('hex')}, cid: 3}));
    return socket.resume();
  },
  () => { // sends text that is almost JSON
    const socket = connection(handshake());
    for (const packet of ['{"event":"#publish","data":{"channel":"loud","data":nul}}', '['.repeat(5000), '{"event":1e999}', '"\\ud800"', '{"cid":{}}']) socket.write(text(packet));
    return socket.resume();
  },
];
const STALLER = () => { const socket = connection(handshake()); socket.write(subscribe('loud', 2)); return socket.pause(); };
async function neighbourhood() {
  while (!finishing) {
    while (misbehaving.size < MISBEHAVING) {
      const socket = CHARACTERS[randomInt(CHARACTERS.length)]();
      setTimeout(() => leave(socket), randomInt(50, 15000)).unref();
    }
    await sleep(100);
  }
}
async function stalled() {
  while (!finishing) {
    const socket = STALLER();
    await until(() => socket.destroyed || finishing, randomInt(5000, 40000));
    socket.destroy();
  }
}
async function loud() {
  const socket = connection(handshake());
  misbehaving.delete(socket); // stays until the end
  socket.resume();
  const packet = text({event: '#publish', data: {channel: 'loud', data: 'x'.repeat(20000)}});
  while (!finishing) { socket.write(packet); await sleep(20); }
  socket.destroy();
}

for (const [major, count] of Object.entries(STEADY)) for (let n = 0; n < count; n++) await arrive(Number(major), steady.length);
const alone = {...await metrics(), descriptors: descriptors()};
const everybody = [neighbourhood(), loud(), ...Array.from({length: STALLED}, stalled)];
const begin = Date.now(), end = begin + Number(args.minutes) * 60000;
const talk = (async () => {
  while (Date.now() < end) {
    const client = steady[randomInt(steady.length)];
    client.ping().catch((error) => counts.wrong.push(`call: ${error.message}`));
    client.publish();
    await sleep(10);
  }
})();
const byKind = [];
for (let minute = 1; Date.now() < end; minute++) {
  for (const next = Math.min(begin + minute * 60000, end); Date.now() < next;) await sleep(Math.min(5000, next - Date.now()));
  const now = await metrics();
  console.log(`${minute} min: ${counts.answers} answers, ${counts.received} publications, ${counts.wrong.length} wrong; ${memoryKib()} KiB, ${descriptors()} descriptors; ` +
    `${now.ringcast_connections} connections, ${now.ringcast_accepts_total} accepted, ${now.ringcast_limit_hits_total} limits hit`);
  byKind.push(await memory());
  console.log(`  KiB: ${Object.entries(byKind.at(-1)).map(([kind, kib]) => `${kind} ${kib}`).join(', ')}`);
}
await talk;
const settled = await until(() => steady.every((client) => client.pending === 0) && counts.received === counts.published * steady.length);
finishing = true;
await Promise.all(everybody);
for (const socket of misbehaving) socket.destroy();
const quiet = await until(async () => (await metrics()).ringcast_connections === alone.ringcast_connections);
await until(() => descriptors() === alone.descriptors);
const after = {...await metrics(), descriptors: descriptors()};
const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const tenth = Math.max(1, Math.floor(byKind.length / 10));
const level = (samples) => Object.fromEntries(Object.keys(samples[0]).map((kind) => [kind, median(samples.map((sample) => sample[kind]))]));
const middle = Math.floor((byKind.length - tenth) / 2);
const [early, late] = [level(byKind.slice(middle, middle + tenth)), level(byKind.slice(-tenth))];
/** Memory without a limit of its own: sessions, settings, event loops, and free memory of the allocator. */
const unbounded = ({rest, stacks, tables}) => rest + stacks + tables;
const most = (kinds) => Math.max(...byKind.map((sample) => kinds.reduce((sum, kind) => sum + sample[kind], 0))) * 1024;

check('every call was answered and every publication arrived once, in order', settled && counts.wrong.length === 0 && counts.answers === counts.published,
  `${counts.published} calls and publications, ${counts.answers} answers, ${counts.received} deliveries; ${counts.wrong.slice(0, 5).join('; ') || 'none wrong'}`);
check('the neighbourhood was as bad as it should be', ['ringcast_limit_hits_total', 'ringcast_logins_total'].every((name) => after[name] > alone[name]) && after.ringcast_accepts_total - alone.ringcast_accepts_total > Number(args.minutes) * 60,
  `${after.ringcast_accepts_total} accepted, ${after.ringcast_limit_hits_total} limits hit, ${after.ringcast_logins_total} logins, ${after.ringcast_publications_total} publications`);
check('they have left nothing behind', quiet && after.ringcast_subscriptions === alone.ringcast_subscriptions && after.ringcast_outbox_bytes === 0,
  `${after.ringcast_connections} connections, ${after.ringcast_subscriptions} subscriptions, ${after.ringcast_outbox_bytes} bytes in outboxes`);
check('descriptors are as before', after.descriptors === alone.descriptors, `${after.descriptors} of ${alone.descriptors}`);
// Buffers and pages of the allocator rise to their highest peak, more and more rarely. A leak rises as much in the second
// half of the time as in the first (benches/soak.md).
console.log(`from the middle of the time to its end, in KiB: ${Object.keys(early).map((kind) => `${kind} ${early[kind]} → ${late[kind]}`).join(', ')}`);
check('memory without a bound of its own stays', unbounded(late) <= unbounded(early) * GROWTH_MAX,
  `${unbounded(early)} KiB in the middle of the time, ${unbounded(late)} KiB at its end`);
check('publications keep to ring_bytes_max', most(['ring', 'kept']) <= RING_BYTES_MAX, `${most(['ring', 'kept'])} bytes at most, of ${RING_BYTES_MAX}`);
check('the server lives', server.exited === null, server.exited ?? 'it does');
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
