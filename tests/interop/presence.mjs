// Presence with real clients: each major subscribes to a channel and to its events, asks who is there, and sets its info.
// node presence.mjs --binary BINARY      The last line is `N passed, N failed`; the exit status is 1 if any failed.
import {createRequire} from 'node:module';
import {fileURLToPath} from 'node:url';
import {isDeepStrictEqual, parseArgs} from 'node:util';
import {AUTH_KEY, startTarget, stop} from './lib/servers.mjs';

const require = createRequire(import.meta.url);
const jwt = require('jsonwebtoken');
const {values: args} = parseArgs({options: {binary: {type: 'string'}}});
if (!args.binary) { console.error('usage: node presence.mjs --binary BINARY'); process.exit(2); }
const PATIENCE_MS = 60000;
process.on('unhandledRejection', () => {}); // when a connection ends, the client rejects its pending promises

let passed = 0, failed = 0;
function check(name, found, expected) {
  if (isDeepStrictEqual(found, expected)) { passed++; console.log(`PASS ${name}`); return; }
  failed++;
  console.log(`FAIL ${name}\n  found    ${JSON.stringify(found)}\n  expected ${JSON.stringify(expected)}`);
}
const within = (promise, what) => Promise.race([promise, new Promise((resolve) => setTimeout(() => resolve(`nothing: ${what}`), PATIENCE_MS).unref())]);

const server = await startTarget(args.binary, {protocol: 'auto'}, 2, {
  RINGCAST_CONFIG: fileURLToPath(new URL('presence.toml', import.meta.url)),
  RINGCAST_PRESENCE_GRACE_MS: '0', RINGCAST_PRESENCE_TICK_MS: '20',
});

/** A client of this major, with the same few methods for all of them. */
function client(major) {
  const socket = require(`client${major}`).create({hostname: '127.0.0.1', port: server.port, autoReconnect: false, multiplex: false});
  if (major === 14) {
    socket.on('error', () => {});
    return {
      socket,
      invoke: (event, data) => new Promise((resolve, reject) => socket.emit(event, data, (error, answer) => (error ? reject(error) : resolve(answer)))),
      authenticate: (token) => new Promise((resolve) => socket.authenticate(token, resolve)),
      subscribe: (name, take) => new Promise((resolve) => {
        const channel = socket.subscribe(name);
        channel.watch(take);
        channel.on('subscribe', resolve);
      }),
    };
  }
  return {
    socket,
    invoke: (event, data) => socket.invoke(event, data),
    authenticate: (token) => socket.authenticate(token),
    subscribe: async (name, take) => {
      const channel = socket.subscribe(name);
      (async () => { for await (const data of channel) take(data); })();
      await channel.listener('subscribe').once();
    },
  };
}

for (const major of [14, 15, 16, 19, 20]) {
  const room = `room.${major}`, watcher = client(major), ann = client(major), events = [];
  const next = async (what) => {
    for (const end = Date.now() + PATIENCE_MS; !events.length && Date.now() < end;) await new Promise((resolve) => setTimeout(resolve, 5));
    return events.shift() ?? `nothing: ${what}`;
  };
  await within(watcher.subscribe(`$presence/${room}`, (event) => events.push(event)), 'the subscription to events');
  await within(ann.authenticate(jwt.sign({sub: 'ann'}, AUTH_KEY)), 'the authentication');
  await within(ann.subscribe(room, () => {}), 'the subscription');
  let event = await next('joined');
  check(`client ${major} is told who joins`, [event.joined?.map(({user}) => user), event.left, event.count], [['ann'], [], 1]);
  const answer = await within(ann.invoke('$presence', {channel: room}), 'the members');
  check(`client ${major} is a member itself`, [answer.count, answer.members?.map(({user, connections}) => [user, connections])], [1, [['ann', [ann.socket.id]]]]);
  check(`client ${major} sets its info`, await within(ann.invoke('$presence_info', {channel: room, info: {name: 'Ann'}}), 'the info'), undefined);
  event = await next('changed');
  check(`client ${major} is told about the info`, event.changed?.map(({user, info}) => [user, info]), [['ann', {name: 'Ann'}]]);
  const error = await within(watcher.invoke('$presence', {channel: 'plain'}).catch(({name}) => name), 'the error');
  check(`client ${major} is told that a channel has no presence`, error, 'InvalidActionError');
  ann.socket.disconnect();
  event = await next('left');
  check(`client ${major} is told who leaves`, event, {joined: [], left: [{user: 'ann'}], count: 0});
  watcher.socket.disconnect();
}
await stop(server);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
