// Logins as users do them: real clients in Node.js with the cookie of a login, and web pages in a headless Chromium.
// node login.mjs --binary BINARY      The last line is `N passed, N failed`; the exit status is 1 if any failed.
//
// One browser opens three pages, each from a port of its own on 127.0.0.1. The first page comes from a proxy in front of
// Ringcast, so it has Ringcast's origin. The origin of the second page is listed in the configuration. The third page has
// another origin. For the browser all three are the same site, so it sends the cookie for each of them; only the server
// can prevent the third page from acting in the user's name. Each page reports its results to the port that it came from.
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {spawn} from 'node:child_process';
import {pbkdf2Sync} from 'node:crypto';
import {createRequire} from 'node:module';
import {isDeepStrictEqual, parseArgs} from 'node:util';
import {startTarget, stop, freePort} from './lib/servers.mjs';

const require = createRequire(import.meta.url);
const {values: args} = parseArgs({options: {binary: {type: 'string'}}});
if (!args.binary) { console.error('usage: node login.mjs --binary BINARY'); process.exit(2); }
const USER = {email: 'aaa@bbb.com', pw: 'cccc'};
const PATIENCE_MS = 60000;
process.on('unhandledRejection', () => {}); // when a connection ends, the client rejects its pending promises

let passed = 0, failed = 0;
function check(name, found, expected) {
  if (isDeepStrictEqual(found, expected)) { passed++; console.log(`PASS ${name}`); return; }
  failed++;
  console.log(`FAIL ${name}\n  found    ${JSON.stringify(found)}\n  expected ${JSON.stringify(expected)}`);
}
const within = (promise, what) => Promise.race([promise, new Promise((resolve) => setTimeout(() => resolve(`nothing: ${what}`), PATIENCE_MS).unref())]);

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-login-'));
process.on('exit', () => fs.rmSync(folder, {recursive: true, force: true, maxRetries: 10}));
const salt = Buffer.alloc(12, 7), iterations = 1000;
const hash = pbkdf2Sync(USER.pw, salt, iterations, 64, 'sha512');
const passwords = path.join(folder, 'passwords');
fs.writeFileSync(passwords, `${USER.email}:$7$${iterations}$${salt.toString('base64')}$${hash.toString('base64')}\n`, {mode: 0o600});

const ports = {own: await freePort(), listed: await freePort(), other: await freePort()};
const origin = (name) => `http://127.0.0.1:${ports[name]}`;
const server = await startTarget(args.binary, {protocol: 'auto'}, 2, {
  RINGCAST_PASSWORD_FILE: passwords, RINGCAST_ALLOW_ANONYMOUS: 'off',
  // The third page may connect, as every page may, but its origin is not listed by name.
  RINGCAST_ORIGINS: `*:* 127.0.0.1:${ports.listed}`,
});

// Clients in Node.js.
const token = await fetch(`http://127.0.0.1:${server.port}/login`, {method: 'POST', body: new URLSearchParams(USER)})
  .then((answer) => answer.json()).then((body) => body.token);
const options = {hostname: '127.0.0.1', port: server.port, autoReconnect: false, multiplex: false};
const headers = {Cookie: `ringcast=${token}`}; // for major 14, and for the other majors
for (const major of [14, 15, 16, 19, 20]) {
  const socket = require(`client${major}`).create({...options, headers, wsOptions: {headers}});
  const status = await within(new Promise((resolve) => {
    if (major === 14) socket.on('error', () => {}), socket.on('connect', resolve);
    else socket.listener('connect').once().then(resolve);
  }), 'connect');
  // Scripts cannot read the token, so the client is authenticated and has no token.
  check(`client ${major} with the cookie is authenticated`, [status.isAuthenticated, socket.authState, socket.authToken ?? null], [true, 'authenticated', null]);
  const count = await within(major === 14
    ? new Promise((resolve) => socket.emit('ping', null, (error, data) => resolve(error ?? data)))
    : socket.invoke('ping').catch((error) => error.name), 'ping');
  check(`client ${major} with the cookie is served`, typeof count.count, 'number');
  socket.disconnect();

  const plain = require(`client${major}`).create(options);
  const invoke = (event, data) => within(major === 14
    ? new Promise((resolve, reject) => plain.emit(event, data, (error, answer) => (error ? reject(error) : resolve(answer))))
    : plain.invoke(event, data), event).catch((error) => error.name);
  if (major === 14) plain.on('error', () => {});
  check(`client ${major} without it is refused`, await invoke('ping'), 'AuthError');
  check(`client ${major} with a wrong password is refused`, await invoke('login', {...USER, pw: 'dddd'}), 'InvalidCredentialsError');
  const given = new Promise((resolve) => { if (major === 14) plain.on('authenticate', resolve); else plain.listener('authenticate').once().then(resolve); });
  check(`client ${major} logs in by a call`, await invoke('login', {user: USER.email, password: USER.pw}), undefined);
  await within(given, 'authenticate');
  check(`client ${major} has its token then`, [plain.authState, plain.authToken?.sub], ['authenticated', USER.email]);
  plain.disconnect();
}

// Pages in a browser.
const NEXT = {own: 'listed', listed: 'other'};
const page = (name) => `<!doctype html><meta charset="utf-8"><title>${name}</title>
<script src="/client14.js"></script>
<script type="module">
import * as client20 from '/client20.js';
const name = ${JSON.stringify(name)}, user = ${JSON.stringify(USER)}, found = {};
const server = name === 'own' ? location.host : '127.0.0.1:${server.port}';
const [hostname, port] = server.split(':');
const patience = (promise) => Promise.race([promise, new Promise((resolve) => setTimeout(resolve, 60000, 'nothing'))]);
const attempt = async (key, run) => { try { found[key] = await patience(run()); } catch (error) { found[key] = String(error?.name ?? error); } };
const answered = (at, options) => fetch('http://' + server + at, {credentials: 'include', ...options});
const login = {method: 'POST', body: new URLSearchParams(user)};
if (name === 'own') {
  await attempt('stranger', async () => (await answered('/whoami')).status);
  await attempt('wrong', async () => (await answered('/login', {...login, body: JSON.stringify({...user, pw: 'dddd'}), headers: {'Content-Type': 'application/json'}})).status);
  await attempt('login', async () => Object.keys(await (await answered('/login', {...login, body: JSON.stringify(user), headers: {'Content-Type': 'application/json'}})).json()));
  await attempt('whoami', async () => (await (await answered('/whoami')).json()).sub);
} else {
  // The browser sends the request, but does not let a page of another origin read the answer.
  await attempt('readable', async () => (await answered('/whoami')).status);
  await attempt('sent', async () => (await answered('/login', {...login, mode: 'no-cors'})).type);
}
found.cookie = document.cookie;
await attempt('raw', () => new Promise((resolve) => {
  const socket = new WebSocket('ws://' + server + '/socketcluster/');
  socket.onopen = () => socket.send('{"event":"#handshake","data":{},"cid":1}');
  socket.onerror = () => resolve('error');
  socket.onmessage = ({data}) => { if (data.includes('"rid":1')) { resolve(JSON.parse(data).data.isAuthenticated); socket.close(); } };
}));
await attempt('client20', async () => {
  const socket = client20.create({hostname, port: Number(port), secure: false, autoReconnect: false});
  await socket.listener('connect').once();
  return [socket.authState, socket.authToken ?? null, await socket.invoke('ping').then((data) => typeof data.count, (error) => error.name)];
});
await attempt('client14', () => new Promise((resolve) => {
  const socket = socketCluster.create({hostname, port: Number(port), secure: false, autoReconnect: false});
  socket.on('error', () => {});
  socket.on('connect', () => resolve([socket.authState, socket.authToken ?? null]));
}));
if (name === 'own') {
  await attempt('logout', async () => (await answered('/logout', {method: 'POST'})).status);
  await attempt('gone', async () => (await answered('/whoami')).status);
  await answered('/login', login);
}
await fetch('/found', {method: 'POST', body: JSON.stringify(found)});
${NEXT[name] ? `location = ${JSON.stringify(origin(NEXT[name]))} + '/page';` : ''}
</script>`;

const found = {}, all = Promise.withResolvers ? Promise.withResolvers() : (() => { const own = {}; own.promise = new Promise((resolve) => { own.resolve = resolve; }); return own; })();
const files = {
  '/client14.js': fs.readFileSync(require.resolve('client14/socketcluster.min.js')),
  '/client20.js': fs.readFileSync(require.resolve('client20/socketcluster-client.min.js')),
};
const listeners = await Promise.all(Object.keys(ports).map((name) => new Promise((resolve) => {
  const listener = http.createServer((request, answer) => {
    if (request.url === '/page') { answer.setHeader('Content-Type', 'text/html').end(page(name)); return; }
    if (files[request.url]) { answer.setHeader('Content-Type', 'text/javascript').end(files[request.url]); return; }
    if (request.url === '/found') {
      let text = '';
      request.on('data', (bytes) => { text += bytes; }).on('end', () => {
        answer.end();
        found[name] = JSON.parse(text);
        if (!NEXT[name]) all.resolve();
      });
      return;
    }
    if (name !== 'own') { answer.writeHead(404).end(); return; }
    // Like a proxy: pass the request on unchanged, its Host included.
    const onward = http.request({host: '127.0.0.1', port: server.port, method: request.method, path: request.url, headers: request.headers}, (back) => {
      answer.writeHead(back.statusCode, back.headers);
      back.pipe(answer);
    }).on('error', () => answer.destroy());
    request.pipe(onward);
  });
  listener.on('upgrade', (request, socket) => {
    const onward = net.connect(server.port, '127.0.0.1');
    const lines = request.rawHeaders.map((word, at) => (at % 2 ? `${word}\r\n` : `${word}: `)).join('');
    onward.write(`${request.method} ${request.url} HTTP/1.1\r\n${lines}\r\n`);
    socket.pipe(onward).pipe(socket);
    for (const end of [socket, onward]) end.on('error', () => {}).on('close', () => { socket.destroy(); onward.destroy(); });
  });
  listener.listen(ports[name], '127.0.0.1', () => resolve(listener));
})));

const CHROMIUM = ['chromium', 'chromium-browser', 'google-chrome'].find((name) => process.env.PATH.split(':').some((at) => fs.existsSync(path.join(at, name))));
if (CHROMIUM) {
  const browser = spawn(CHROMIUM, ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking',
    `--user-data-dir=${path.join(folder, 'profile')}`, `${origin('own')}/page`], {stdio: 'ignore', detached: true});
  const end = () => { try { process.kill(-browser.pid, 'SIGKILL'); } catch { /* it has ended */ } };
  process.on('exit', end);
  const gone = new Promise((resolve) => browser.on('exit', resolve));
  await within(all.promise, 'pages');
  end();
  await within(gone, 'the end of the browser');
  const {client20, client14, ...own} = found.own ?? {};
  check('a page of the same origin logs in and out, and never sees the cookie', own, {stranger: 401, wrong: 401, login: ['token'], whoami: USER.email, cookie: '', raw: true, logout: 204, gone: 401});
  check('its sockets are authenticated', [client20, client14], [['authenticated', null, 'number'], ['authenticated', null]]);
  check('a page of an origin that is listed can log in and opens sockets as its user, and reads no answer', found.listed,
    {readable: 'TypeError', sent: 'opaque', cookie: '', raw: true, client20: ['authenticated', null, 'number'], client14: ['authenticated', null]});
  check('a page of another origin opens sockets as nobody, though its browser sends the cookie', found.other,
    {readable: 'TypeError', sent: 'opaque', cookie: '', raw: false, client20: ['unauthenticated', null, 'AuthError'], client14: ['unauthenticated', null]});
} else {
  check('Chromium is installed', 'it is not', 'it is');
}
for (const listener of listeners) { listener.closeAllConnections(); listener.close(); }
await stop(server);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
