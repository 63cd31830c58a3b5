// Does clients/js do what its README says? With every major that it supports, in Node and in a headless Chromium, through a proxy
// that cuts connections.
// node memory.mjs --binary BINARY      The last line is `N passed, N failed`; the exit status is 1 if any failed.
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {createRequire} from 'node:module';
import {fileURLToPath} from 'node:url';
import {parseArgs} from 'node:util';
import {connect} from '../../clients/js/index.js';
import {check, eventually, exitWithResults, within} from './lib/checks.mjs';
import {startTarget, stop} from './lib/servers.mjs';
import {launch} from './lib/browser.mjs';

const {values: args} = parseArgs({options: {binary: {type: 'string'}}});
if (!args.binary) { console.error('usage: node memory.mjs --binary BINARY'); process.exit(2); }
process.on('unhandledRejection', () => {}); // when a connection ends, the client rejects its pending promises
const require = createRequire(import.meta.url);
const MAJORS = [15, 16, 17, 19, 20];

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-memory-'));
process.on('exit', () => fs.rmSync(folder, {recursive: true, force: true, maxRetries: 10}));
const config = path.join(folder, 'ringcast.toml');
fs.writeFileSync(config, `
[[channels]]
names = ["room.**"]
history_entries = 100
history_bytes = 65536
presence = true
presence_events = true

[[channels]]
names = ["short.**"]
history_entries = 2
history_bytes = 65536

[[channels]]
names = ["bare.**"]
history_entries = 100
history_bytes = 65536
position = false

[[rules]]
allow = "*"
channels = "**"
procedures = "**"
to = "anyone"

[[rules]]
deny = "subscribe"
channels = "$presence/closed.**"
`);
const server = await startTarget(args.binary, {protocol: 'auto'}, 3, {RINGCAST_CONFIG: config, RINGCAST_MQTT_LISTEN: '127.0.0.1:0', RINGCAST_PRESENCE_GRACE_MS: '0', RINGCAST_PRESENCE_TICK_MS: '20'});

/** Passes bytes on; `cut()` resets all connections, and while `isDown` no new one is made. */
const sockets = new Set();
let isDown = false;
const proxy = net.createServer((client) => {
  if (isDown) { client.resetAndDestroy(); return; }
  const upstream = net.connect(server.port, '127.0.0.1');
  for (const [from, to] of [[client, upstream], [upstream, client]]) {
    sockets.add(from);
    from.pipe(to);
    from.on('error', () => {}).on('close', () => { sockets.delete(from); to.destroy(); });
  }
});
await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
const cut = () => { for (const socket of sockets) socket.resetAndDestroy(); };

const at = (port) => ({hostname: '127.0.0.1', port, path: '/socketcluster/', multiplex: false, autoReconnectOptions: {initialDelay: 20, randomness: 20, maxDelay: 200}});
const plain = require('client20').create(at(server.port));
const publish = (channel, data) => plain.invokePublish(channel, data);
/** Reads an iterable from now on. */
function read(iterable) {
  const values = [], iterator = iterable[Symbol.asyncIterator]();
  (async () => { for (;;) { const {done, value} = await iterator.next(); if (done) return; values.push(value); } })();
  return values;
}

async function tryMajor(major) {
  const named = (what) => `major ${major}: ${what}`, name = (channel) => `${channel}.${major}`;
  for (const number of [1, 2, 3]) await publish(name('room'), number);
  const {socket, memory} = connect(require(`client${major}`), at(proxy.address().port));
  const room = memory.subscribe(name('room'), {last: 2});
  const publications = read(room), recoveries = read(room.recoveries());
  await eventually(() => publications.length === 2, 'the last two');
  check(named('the first subscribe gets the last publications'), publications.map(({data, replayed}) => [data, replayed]), [[2, true], [3, true]]);
  await publish(name('room'), 4);
  await eventually(() => publications.length === 3, 'a live one');
  check(named('then it is live'), [publications[2].data, publications[2].replayed, room.position], [4, false, publications[2].position]);

  // What is published while the connection is cut is recovered.
  isDown = true;
  cut();
  await within(socket.listener('disconnect').once(), 'disconnect');
  for (const number of [5, 6]) await publish(name('room'), number);
  isDown = false;
  await eventually(() => publications.length >= 5, 'recovery');
  await publish(name('room'), 7);
  await eventually(() => publications.length >= 6, 'live again');
  check(named('nothing is missed and nothing comes twice'), publications.map(({data, replayed}) => [data, replayed]).slice(3), [[5, true], [6, true], [7, false]]);
  check(named('the answer says so'), [recoveries.length, recoveries[1].recovered, recoveries[1].publications], [2, true, 2]);

  // A gap is told.
  const gaps = [];
  const short = read(memory.subscribe(name('short'), {onGap: ({reason}) => gaps.push(reason)}));
  await eventually(() => socket.isSubscribed(name('short')), 'subscribed');
  await publish(name('short'), 0);
  await eventually(() => short.length === 1, 'a publication');
  isDown = true;
  cut();
  await within(socket.listener('disconnect').once(), 'disconnect');
  for (const number of [1, 2, 3, 4]) await publish(name('short'), number);
  isDown = false;
  await eventually(() => gaps.length === 1, 'the gap');
  check(named('a gap calls onGap with its reason'), gaps, ['evicted']);
  await publish(name('short'), 5);
  await eventually(() => short.length === 2, 'live');
  check(named('and the channel is live from there'), short.map(({data}) => data), [0, 5]);

  // So is one that cannot be excluded, because publications of the channel have no positions.
  const unknown = [];
  const bare = read(memory.subscribe(name('bare'), {onGap: ({reason}) => unknown.push(reason)}));
  await eventually(() => socket.isSubscribed(name('bare')), 'subscribed');
  await publish(name('bare'), 0);
  await eventually(() => bare.length === 1, 'a publication');
  cut();
  await eventually(() => unknown.length === 1, 'the gap');
  check(named('without positions each reconnect may be a gap'), unknown, ['no position']);
  await eventually(() => socket.isSubscribed(name('room')), 'subscribed');

  // What may not be followed says so.
  const closed = memory.presence(name('closed')), changes = read(closed);
  await eventually(() => changes.length > 0, 'the refusal');
  check(named('presence that the rules forbid has an error'), [Boolean(closed.error), closed.isComplete], [true, false]);
  closed.end();

  const past = await within(memory.history(name('room'), {last: 3}), 'history');
  check(named('history'), past.publications.map(({data}) => data), [5, 6, 7]);

  // Presence follows others.
  const presence = memory.presence(name('room'));
  await eventually(() => presence.count === 1, 'itself');
  check(named('a subscriber is present'), [...presence.members.keys()], [socket.id]);
  const other = connect(require(`client${major}`), at(proxy.address().port));
  other.memory.subscribe(name('room'));
  await eventually(() => presence.members.size === 2, 'another');
  await within(other.memory.setInfo(name('room'), {name: 'B'}), 'setInfo');
  await eventually(() => presence.members.get(other.socket.id)?.info?.name === 'B', 'its info');
  check(named('others come with their info'), [...presence.members.keys()].sort(), [socket.id, other.socket.id].sort());
  await within(other.memory.setWill({channel: name('will'), data: 'gone'}), 'setWill');
  const wills = read(plain.subscribe(name('will')));
  await within(plain.channel(name('will')).listener('subscribe').once(), 'subscribe');
  isDown = true;
  cut();
  await eventually(() => wills.length === 1, 'the will');
  check(named('a client that is cut off leaves its will'), wills, ['gone']);
  isDown = false;
  await within(Promise.all([socket, other.socket].map((one) => one.listener('connect').once())), 'connect');
  await eventually(() => presence.members.has(socket.id) && presence.members.has(other.socket.id), 'both again');
  check(named('after a reconnect the members are right'), [...presence.members.keys()].sort(), [socket.id, other.socket.id].sort());
  await eventually(() => presence.members.get(other.socket.id)?.info?.name === 'B', 'the info again');
  check(named('and have their infos again'), presence.members.get(other.socket.id).info, {name: 'B'});

  // The will was left again; a client that disconnects leaves none.
  await eventually(() => wills.length === 1, 'no other will');
  // An event has announced it before it leaves: a member that joins and leaves between two events is in none of them.
  await within(other.memory.setInfo(name('room'), {name: 'C'}), 'setInfo');
  await eventually(() => presence.members.get(other.socket.id)?.info?.name === 'C', 'its new info');
  other.socket.disconnect();
  await eventually(() => presence.members.size === 1, 'the other has left');
  await publish(name('will'), 'mark');
  await eventually(() => wills.length === 2, 'the mark');
  check(named('a client that disconnects leaves none'), wills, ['gone', 'mark']);

  // A retained publication comes first, and again after a reconnect.
  await within(memory.retain(name('lamp'), {on: true}), 'retain');
  const lamp = read(memory.subscribe(name('lamp'), {last: 1}));
  await eventually(() => lamp.length === 1, 'the retained publication');
  isDown = true;
  cut();
  await within(socket.listener('disconnect').once(), 'disconnect');
  await within(plain.invoke('$retain', {channel: name('lamp'), data: {on: false}}), 'another client retains');
  isDown = false;
  await eventually(() => lamp.length === 2, 'the newer one');
  check(named('what is retained comes with each subscribe'), lamp, [true, false].map((on) => ({data: {on}, position: null, replayed: true})));
  await within(memory.clearRetained(name('lamp')), 'clearRetained');
  await eventually(() => lamp.length === 3, 'a publication without data');
  check(named('which a publication without data ends'), lamp[2], {data: undefined, position: null, replayed: false});
  presence.end();
  memory.unsubscribe(name('room'));
  socket.disconnect();
}

for (const major of MAJORS) {
  try { await tryMajor(major); } catch (error) { check(`major ${major}`, error.message, 'no error'); }
}

// The same files in a browser, as they are.
const files = {
  '/': '<!doctype html><title>memory</title>',
  '/client.js': fs.readFileSync(require.resolve('client20/socketcluster-client.min.js')),
};
const root = fileURLToPath(new URL('../../clients/js/', import.meta.url));
for (const file of ['index.js', 'lib/codec.js', 'lib/presence.js', 'lib/room.js', 'lib/service.js', 'lib/stream.js']) files[`/js/${file}`] = fs.readFileSync(root + file);
const site = http.createServer((request, response) => {
  const body = files[request.url];
  response.writeHead(body ? 200 : 404, {'content-type': request.url.endsWith('.js') ? 'text/javascript' : 'text/html'});
  response.end(body);
});
await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
const browser = launch(path.join(folder, 'profile'));
if (browser) {
  for (const number of [1, 2]) await publish('room.browser', number);
  const tab = await browser.tab(`http://127.0.0.1:${site.address().port}/`);
  await tab.evaluate(`(async () => {
    const [{connect}, socketClusterClient] = await Promise.all([import('/js/index.js'), import('/client.js')]);
    window.seen = [];
    const {socket, memory} = connect(socketClusterClient, ${JSON.stringify(at(proxy.address().port))});
    window.socket = socket;
    const room = memory.subscribe('room.browser', {last: 1});
    (async () => { for await (const {data} of room) seen.push(data); })();
    return true;
  })()`);
  check('in a browser, the last publication comes first', await tab.until('seen.join() === "2"'));
  isDown = true;
  cut();
  await tab.until('socket.state !== "open"');
  await publish('room.browser', 3);
  isDown = false;
  check('and what was missed comes after a reconnect', await tab.until('seen.join() === "2,3"'));
  await browser.end();
} else {
  check('Chromium is installed', 'it is not', 'it is');
}

plain.disconnect();
site.close();
proxy.close();
await stop(server);
exitWithResults();
