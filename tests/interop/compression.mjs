// permessage-deflate with real clients: SocketCluster's in Node.js, `ws` with every window, and a page in Chromium.
// node compression.mjs --binary BINARY      The last line is `N passed, N failed`; the exit status is 1 if any failed.
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import {spawn} from 'node:child_process';
import {createRequire} from 'node:module';
import {isDeepStrictEqual, parseArgs} from 'node:util';
import {startTarget, stop} from './lib/servers.mjs';

const require = createRequire(import.meta.url);
const WebSocket = require('ws');
const {values: args} = parseArgs({options: {binary: {type: 'string'}}});
if (!args.binary) { console.error('usage: node compression.mjs --binary BINARY'); process.exit(2); }
const PATIENCE_MS = 60000;
process.on('unhandledRejection', () => {}); // when a connection ends, the client rejects its pending promises

let passed = 0, failed = 0;
function check(name, found, expected) {
  if (isDeepStrictEqual(found, expected)) { passed++; console.log(`PASS ${name}`); return; }
  failed++;
  console.log(`FAIL ${name}\n  found    ${JSON.stringify(found)?.slice(0, 500)}\n  expected ${JSON.stringify(expected)?.slice(0, 500)}`);
}
const within = (promise, what) => Promise.race([promise, new Promise((resolve) => setTimeout(() => resolve(`nothing: ${what}`), PATIENCE_MS).unref())]);
const until = async (condition) => { for (const end = Date.now() + PATIENCE_MS; !condition() && Date.now() < end;) await new Promise((resolve) => setTimeout(resolve, 5)); };

const server = await startTarget(args.binary, {protocol: 'auto'}, 2, {RINGCAST_COMPRESSION: 'on', RINGCAST_ADMIN: '127.0.0.1:0'}), {admin} = server;
const metric = async (name) => {
  const text = await (await fetch(`http://127.0.0.1:${admin}/metrics`)).text();
  return [...text.matchAll(new RegExp(`^${name}\\{.*\\} (\\d+)$`, 'gm'))].reduce((sum, match) => sum + Number(match[1]), 0);
};

// Short, long, longer than 64 KiB, with characters of one to four bytes, and noise, which no compressor makes shorter.
const noise = Array.from({length: 3000}, (_, at) => String.fromCharCode(33 + ((at * at * 7919 + at * 104729) >>> 3) % 90)).join('');
const MESSAGES = ['short', 'a'.repeat(5000), {list: Array.from({length: 8000}, (_, id) => ({id, name: `sensor ${id % 7}`}))}, 'grüße €🙂'.repeat(700), noise];

const options = {hostname: '127.0.0.1', port: server.port, autoReconnect: false, multiplex: false};
const clients = [];
for (const [major, plain] of [[14], [15], [16], [19], [20], [20, true]]) {
  const socket = require(`client${major}`).create({...options, ...(plain && {wsOptions: {perMessageDeflate: false}})});
  const name = `client ${major}${plain ? ' without compression' : ''}`;
  const client = {name, socket, received: [], publish: null};
  const channel = socket.subscribe('news');
  if (major === 14) {
    socket.on('error', () => {});
    channel.watch((data) => client.received.push(data));
    await within(new Promise((resolve) => channel.on('subscribe', resolve)), 'subscribe');
    client.publish = (data) => new Promise((resolve) => socket.publish('news', data, resolve));
  } else {
    (async () => { for await (const data of channel) client.received.push(data); })();
    await within(channel.listener('subscribe').once(), 'subscribe');
    client.publish = (data) => socket.invokePublish('news', data);
  }
  check(`${name} negotiates`, socket.transport.socket.extensions, plain ? '' : 'permessage-deflate');
  clients.push(client);
}
for (const client of clients) for (const message of MESSAGES) await within(client.publish(message), 'publish');
const all = clients.flatMap(() => MESSAGES);
for (const client of clients) {
  await until(() => client.received.length >= all.length);
  check(`${client.name} gets all messages whole and in order`, client.received, all);
  client.socket.disconnect();
}
check('messages came compressed', (await metric('ringcast_inflated_messages_total')) >= 5 * 3, true);
check('messages were compressed, each once for each core', (await metric('ringcast_deflated_messages_total')) <= 6 * 4 * 2, true);
check('that made them shorter', (await metric('ringcast_deflate_after_bytes_total')) * 5 < (await metric('ringcast_deflate_before_bytes_total')), true);

// The engine `ws` itself, with every window that it may ask for. It inflates with exactly the window that was agreed on.
for (const serverMaxWindowBits of [undefined, 9, 10, 11, 12, 13, 14, 15]) {
  for (const clientMaxWindowBits of [undefined, 9]) {
    const perMessageDeflate = {serverMaxWindowBits, clientMaxWindowBits, threshold: 0};
    const socket = new WebSocket(`ws://127.0.0.1:${server.port}/socketcluster/`, {perMessageDeflate});
    const channel = `raw-${serverMaxWindowBits}-${clientMaxWindowBits}`, packets = [];
    socket.on('message', (data) => packets.push(String(data)));
    socket.on('error', () => {});
    await within(new Promise((resolve) => socket.on('open', resolve)), 'open');
    socket.send('{"event":"#handshake","data":{},"cid":1}');
    socket.send(JSON.stringify({event: '#subscribe', data: {channel}, cid: 2}));
    for (const data of MESSAGES) socket.send(JSON.stringify({event: '#publish', data: {channel, data}}));
    const publications = () => packets.filter((packet) => packet.startsWith('{"event":"#publish"')).map((packet) => JSON.parse(packet).data.data);
    await until(() => publications().length >= MESSAGES.length || socket.readyState > 1);
    check(`ws, ${serverMaxWindowBits ?? 'no'} window bits of the server and ${clientMaxWindowBits ?? 'any'} of the client`, [socket.extensions, publications()], ['permessage-deflate', MESSAGES]);
    socket.terminate();
  }
}

// A page in a browser.
const page = `<!doctype html><meta charset="utf-8"><script type="module">
const messages = ${JSON.stringify(MESSAGES)}, received = [];
const socket = new WebSocket('ws://127.0.0.1:${server.port}/socketcluster/');
const tell = (found) => fetch('/found', {method: 'POST', body: JSON.stringify(found)});
socket.onopen = () => {
  socket.send('{"event":"#handshake","data":{},"cid":1}');
  socket.send('{"event":"#subscribe","data":{"channel":"page"},"cid":2}');
  for (const data of messages) socket.send(JSON.stringify({event: '#publish', data: {channel: 'page', data}}));
};
socket.onclose = ({code}) => tell({code});
socket.onmessage = ({data}) => {
  if (!data.startsWith('{"event":"#publish"')) return;
  received.push(JSON.parse(data).data.data);
  if (received.length === messages.length) tell({extensions: socket.extensions.split(';')[0], received});
};
</script>`;
const CHROMIUM = ['chromium', 'chromium-browser', 'google-chrome'].find((name) => process.env.PATH.split(':').some((at) => fs.existsSync(path.join(at, name))));
if (CHROMIUM) {
  const before = await metric('ringcast_inflated_messages_total');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-compression-'));
  process.on('exit', () => fs.rmSync(folder, {recursive: true, force: true, maxRetries: 10}));
  let listener;
  const found = new Promise((resolve) => {
    listener = http.createServer((request, answer) => {
      if (request.url !== '/found') { answer.setHeader('Content-Type', 'text/html').end(page); return; }
      let text = '';
      request.on('data', (bytes) => { text += bytes; }).on('end', () => { answer.end(); resolve(JSON.parse(text)); });
    });
  });
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const browser = spawn(CHROMIUM, ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking',
    `--user-data-dir=${path.join(folder, 'profile')}`, `http://127.0.0.1:${listener.address().port}/`], {stdio: 'ignore', detached: true});
  const end = () => { try { process.kill(-browser.pid, 'SIGKILL'); } catch { /* it has ended */ } };
  process.on('exit', end);
  const gone = new Promise((resolve) => browser.on('exit', resolve));
  check('a page in Chromium gets its messages whole and in order', await within(found, 'the page'), {extensions: 'permessage-deflate', received: MESSAGES});
  check('and sends them compressed', (await metric('ringcast_inflated_messages_total')) > before, true);
  end();
  await within(gone, 'the end of the browser');
  listener.closeAllConnections();
  listener.close();
} else {
  check('Chromium is installed', 'it is not', 'it is');
}
await stop(server);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
