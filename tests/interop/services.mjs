// Does `service` of clients/js do what its README says? With every major that it supports, services that are cut and killed, and the
// programs of the README.
// node services.mjs --binary BINARY      The last line is `N passed, N failed`; the exit status is 1 if any failed.
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {spawn} from 'node:child_process';
import {createHmac} from 'node:crypto';
import {createRequire} from 'node:module';
import {fileURLToPath} from 'node:url';
import {parseArgs} from 'node:util';
import {CallError, connect} from '../../clients/js/index.js';
import {PATIENCE_MS, check, eventually, exitWithResults, within} from './lib/checks.mjs';
import {AUTH_KEY, startTarget, stop} from './lib/servers.mjs';

const {values: args} = parseArgs({options: {binary: {type: 'string'}}});
if (!args.binary) { console.error('usage: node services.mjs --binary BINARY'); process.exit(2); }
process.on('unhandledRejection', () => {}); // when a connection ends, the client rejects its pending promises
const require = createRequire(import.meta.url);
const MAJORS = [15, 16, 19, 20];
const errorOf = (promise) => promise.then(() => null, ({name, message}) => ({name, message}));
const part = (value) => Buffer.from(value).toString('base64url');
function token(claims) {
  const head = `${part('{"alg":"HS256","typ":"JWT"}')}.${part(JSON.stringify(claims))}`;
  return `${head}.${createHmac('sha256', AUTH_KEY).update(head).digest('base64url')}`;
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-services-'));
process.on('exit', () => fs.rmSync(folder, {recursive: true, force: true, maxRetries: 10}));
const config = path.join(folder, 'ringcast.toml');
const readme = fs.readFileSync(new URL('../../clients/js/README.md', import.meta.url), 'utf8');
const blockOf = (kind) => new RegExp(`## Services[^]*?\`\`\`${kind}\\n([^]*?)\`\`\``).exec(readme)[1];
fs.writeFileSync(config, blockOf('toml'));
const server = await startTarget(args.binary, {protocol: 'auto'}, 3, {RINGCAST_CONFIG: config});

const sockets = new Set();
const proxy = net.createServer((client) => {
  const upstream = net.connect(server.port, '127.0.0.1');
  for (const [from, to] of [[client, upstream], [upstream, client]]) {
    sockets.add(from);
    from.pipe(to);
    from.on('error', () => {}).on('close', () => { sockets.delete(from); to.destroy(); });
  }
});
await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
const cut = () => { for (const socket of sockets) socket.resetAndDestroy(); };

const at = (port, claims) => ({hostname: '127.0.0.1', port, path: '/socketcluster/', multiplex: false, ackTimeout: PATIENCE_MS,
  autoReconnectOptions: {initialDelay: 20, randomness: 20, maxDelay: 200},
  authEngine: {loadToken: async () => (claims ? token(claims) : null), saveToken: async (name, saved) => saved, removeToken: async () => null}});
const SERVICE = {service: true};
const newest = require('client20');
/** A service, and the errors of its socket. */
function serve(client, port = server.port, claims = SERVICE) {
  const made = connect(client, at(port, claims)), errors = [];
  (async () => { for await (const {error} of made.socket.listener('error')) errors.push(error.name); })();
  return {...made, errors};
}
const caller = newest.create(at(server.port, {sub: 'ann', role: 'x'}));

async function tryMajor(major) {
  const named = (what) => `major ${major}: ${what}`;
  const {socket, service, memory, errors} = serve(require(`client${major}`));
  const told = [];
  let open = 0, most = 0;
  service.procedure('math.*', {window: 3, weight: 2}, async ({procedure, data}) => {
    most = Math.max(most, ++open);
    await new Promise((resolve) => setTimeout(resolve, 5));
    open--;
    return [procedure, data];
  });
  service.procedure('math.who', ({caller}) => caller);
  service.procedure('math.refuse', () => { throw new CallError('not today', {name: 'NotTodayError', retry: 5}); });
  service.procedure('math.fail', () => { throw new TypeError('a secret of the program'); });
  service.receiver('math.*', ({procedure, data, caller}) => told.push([procedure, data, caller.user]));
  await within(service.ready(), 'ready');
  check(named('the longest pattern counts'), await caller.invoke('math.sub.x', [1, null]), ['math.sub.x', [1, null]]);
  check(named('calls come with their callers'), await caller.invoke('math.who'), {id: caller.id, user: 'ann', claims: {sub: 'ann', role: 'x'}});
  const refused = await caller.invoke('math.refuse').catch((error) => error);
  check(named('a CallError goes back unchanged'), [refused.name, refused.message, refused.retry], ['NotTodayError', 'not today', 5]);
  check(named('another failure stays here'), [await errorOf(caller.invoke('math.fail')), errors], [{name: 'InternalError', message: 'The procedure has failed'}, ['TypeError']]);
  await caller.transmit('math.log', 5);
  await eventually(() => told.length === 1, 'an event');
  check(named('one-way events come too'), told, [['math.log', 5, 'ann']]);
  const numbers = [...Array(30).keys()];
  const answers = await within(Promise.all(numbers.map((number) => caller.invoke('math.add', number))), 'many calls');
  check(named('the window is respected'), [answers.map(([, number]) => number), most], [numbers, 3]);

  // Cancellation.
  const states = [];
  service.procedure('math.slow', ({signal, data}) => new Promise((resolve) => {
    states.push(`began ${data}`);
    signal.addEventListener('abort', () => { states.push(`aborted ${data}`); resolve(); });
  }));
  await within(service.ready(), 'ready');
  const other = newest.create(at(server.port));
  const gone = errorOf(other.invoke('math.slow', 'by its caller'));
  await eventually(() => states.length === 1, 'the call');
  other.disconnect();
  await eventually(() => states.length === 2, 'the abort');
  check(named('a caller that goes aborts its call'), states.splice(0), ['began by its caller', 'aborted by its caller']);
  await gone;

  // A service without a connection registers again; the memory of the same socket works beside it.
  memory.subscribe(`room.${major}`);
  await within(socket.channel(`room.${major}`).listener('subscribe').once(), 'subscribe');
  const cutOff = serve(require(`client${major}`), proxy.address().port);
  cutOff.service.procedure('cut.*', ({signal, data}) => (data === 'never' ? new Promise((resolve) => signal.addEventListener('abort', resolve)) : 'here'));
  await within(cutOff.service.ready(), 'ready');
  for (let round = 0; round < 2; round++) {
    const lost = errorOf(caller.invoke('cut.x', 'never'));
    check(named('it answers'), await caller.invoke('cut.x'), 'here');
    const connected = cutOff.socket.listener('connect').once();
    cut();
    check(named('a service that vanishes fails its calls at once'), (await within(lost, 'the failure'))?.name, 'ServiceGoneError');
    await within(connected, 'the reconnect');
    await within(cutOff.service.ready(), 'ready again');
  }
  check(named('and is there again after a reconnect'), await caller.invoke('cut.x'), 'here');
  cutOff.socket.disconnect();

  // A graceful end.
  let finish;
  service.procedure('math.last', () => new Promise((resolve) => { finish = resolve; }));
  await within(service.ready(), 'ready');
  const last = caller.invoke('math.last');
  await eventually(() => finish, 'the last call');
  let hasStopped = false;
  const stopped = service.stop().then(() => { hasStopped = true; });
  await within(socket.invoke('ping'), 'the server has answered $unserve');
  check(named('a stop waits for open calls'), hasStopped, false);
  finish('done');
  check(named('which are answered'), await within(last, 'the answer'), 'done');
  await within(stopped, 'the stop');
  socket.disconnect();

  const stranger = serve(require(`client${major}`), server.port, null);
  stranger.service.procedure('math.*', () => 'false');
  check(named('without a rule, nothing is served'), (await errorOf(within(stranger.service.ready(), 'refusal')))?.name, 'SilentMiddlewareBlockedError');
  stranger.socket.disconnect();
}

for (const major of MAJORS) {
  try { await tryMajor(major); } catch (error) { check(`major ${major}`, error.message, 'no error'); }
}

// The service of the README, as a process that is killed and started again.
const program = path.join(folder, 'service.mjs');
fs.writeFileSync(program, blockOf('js').replace("'socketcluster-client'", JSON.stringify(require.resolve('client20')))
  .replace("'ringcast-client'", JSON.stringify(fileURLToPath(new URL('../../clients/js/index.js', import.meta.url)))));
async function start() {
  const child = spawn(process.execPath, [program], {env: {...process.env, PORT: String(server.port), SERVICE_TOKEN: token(SERVICE)}, stdio: ['ignore', 'pipe', 'inherit']});
  process.on('exit', () => child.kill('SIGKILL'));
  await within(new Promise((resolve) => child.stdout.once('data', resolve)), 'the program');
  return child;
}
const ended = (child) => new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));
try {
  const first = await start();
  check('the service of the README', await caller.invoke('math.add', [1, 2]), 3);
  check('and its error', await errorOf(caller.invoke('math.divide', [1, 0])), {name: 'RangeError', message: 'Nothing can be divided by zero'});
  const killed = ended(first);
  first.kill('SIGKILL');
  await killed;
  const second = await start();
  check('its successor answers', await caller.invoke('math.add', [3, 4]), 7);
  const stopped = ended(second);
  second.kill('SIGTERM');
  check('SIGTERM ends it in order', await within(stopped, 'its end'), 0);
} catch (error) { check('the service of the README', error.message, 'no error'); }

caller.disconnect();
proxy.close();
await stop(server);
exitWithResults();
