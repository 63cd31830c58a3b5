// The MQTT client of npm against Ringcast: versions 3.1.1 and 5, over TCP, TLS, WebSocket and WebSocket with TLS, and in a headless
// Chromium; clients of SocketCluster on the same channels; and a client with a last will that is killed.
// node mqtt.mjs --binary BINARY [--cores N]    The last line is `N passed, N failed`; the exit status is 1 if any failed.
// node mqtt.mjs --urls mqtt://127.0.0.1:1883,ws://127.0.0.1:9001    another broker, without what only Ringcast has
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import {execFileSync, spawn} from 'node:child_process';
import {createHmac} from 'node:crypto';
import {createRequire} from 'node:module';
import {isDeepStrictEqual, parseArgs} from 'node:util';
import {AUTH_KEY, startTarget, stop} from './lib/servers.mjs';
import {launch} from './lib/browser.mjs';

const require = createRequire(import.meta.url);
const mqtt = require('mqtt');
const {values: args} = parseArgs({options: {binary: {type: 'string'}, cores: {type: 'string', default: '2'}, urls: {type: 'string'}}});
if (!args.binary && !args.urls) { console.error('usage: node mqtt.mjs --binary BINARY [--cores N] | --urls URL,...'); process.exit(2); }
/** The longest wait for anything, however busy the machine is. Only failing checks wait so long. */
const PATIENCE_MS = 20000;

let passed = 0, failed = 0;
function check(name, found, expected = true) {
  if (isDeepStrictEqual(found, expected)) { passed++; console.log(`PASS ${name}`); return; }
  failed++;
  console.log(`FAIL ${name}\n  found    ${JSON.stringify(found)}\n  expected ${JSON.stringify(expected)}`);
}
const until = async (condition) => { for (const end = Date.now() + PATIENCE_MS; !condition() && Date.now() < end;) await new Promise((resolve) => setTimeout(resolve, 5)); return condition(); };
let names = 0;
const fresh = (kind = 'topic') => `js/${process.pid}/${kind}${++names}`;

const clients = new Set();
/** A connected client. `received` has its messages as [topic, payload, QoS, retain], `packets` the packets with their properties. */
async function connect(url, options = {}) {
  const client = mqtt.connect(url, {reconnectPeriod: 0, connectTimeout: PATIENCE_MS, rejectUnauthorized: false, clean: true, ...options});
  clients.add(client);
  client.received = []; client.packets = []; client.ended = [];
  client.on('message', (topic, payload, packet) => { client.received.push([topic, payload.toString(), packet.qos, packet.retain]); client.packets.push(packet); });
  client.on('disconnect', (packet) => client.ended.push(packet.reasonCode));
  client.on('close', () => client.ended.push('close'));
  client.connack = await new Promise((resolve, reject) => { client.once('connect', resolve); client.once('error', reject); client.once('close', () => reject(new Error('closed'))); });
  client.on('error', () => {});
  return client;
}
const leave = (client) => client.endAsync(false);
const cut = (client) => client.stream.destroy();

async function roundTrips(label, url, protocolVersion) {
  const v5 = protocolVersion === 5;
  const [one, two] = [await connect(url, {protocolVersion}), await connect(url, {protocolVersion})];
  for (const qos of [0, 1, 2]) {
    const topic = fresh();
    const granted = await two.subscribeAsync(topic, {qos});
    check(`${label}: QoS ${qos} is granted`, granted.map((one) => one.qos), [qos]);
    for (let i = 0; i < 30; i++) one.publish(topic, `${i}`, {qos: i % 3});
    await until(() => two.received.length >= 30);
    // Publications of one topic arrive in order for each QoS.
    for (const sent of [0, 1, 2]) {
      const wanted = [...Array(30).keys()].filter((i) => i % 3 === sent);
      const at = two.received.filter(([, payload]) => Number(payload) % 3 === sent);
      check(`${label}: QoS ${sent} to QoS ${qos}, once each, in order`, [at.map(([, payload]) => Number(payload)), new Set(at.map(([,, q]) => q))], [wanted, new Set([Math.min(sent, qos)])]);
    }
    two.received.length = 0;
    await two.unsubscribeAsync(topic);
  }
  const root = fresh();
  await two.subscribeAsync([`${root}/+/x`, `${root}/deep/#`]);
  for (const name of ['a/x', 'a/y', 'deep', 'deep/er/x', 'b/x']) await one.publishAsync(`${root}/${name}`, 'w', {qos: 1});
  await until(() => two.received.length >= 4);
  check(`${label}: wildcards`, two.received.map(([topic]) => topic.slice(root.length + 1)), ['a/x', 'deep', 'deep/er/x', 'b/x']);
  two.received.length = 0; two.packets.length = 0;

  const kept = fresh('kept');
  await one.publishAsync(kept, 'first', {qos: 1, retain: true});
  await one.publishAsync(kept, 'last', {qos: 1, retain: true});
  await two.subscribeAsync(kept, {qos: 1});
  await until(() => two.received.length >= 1);
  check(`${label}: a new subscriber gets the retained message`, two.received, [[kept, 'last', 1, true]]);
  await one.publishAsync(kept, 'live', {qos: 1, retain: true});
  await until(() => two.received.length >= 2);
  check(`${label}: a live one has no retain flag`, two.received[1], [kept, 'live', 1, false]);
  await one.publishAsync(kept, '', {qos: 1, retain: true});
  await until(() => two.received.length >= 3);
  two.received.length = 0;
  await two.unsubscribeAsync(kept);
  await two.subscribeAsync(kept, {qos: 1});
  await two.publishAsync(kept, 'marker', {qos: 1});
  await until(() => two.received.length >= 1);
  check(`${label}: an empty one clears it`, two.received, [[kept, 'marker', 1, false]]);
  two.received.length = 0; two.packets.length = 0;

  const bytes = fresh('bytes'), big = Buffer.alloc(100_000, 0xc3);
  await two.subscribeAsync(bytes, {qos: 1});
  for (const payload of [Buffer.from([0, 255, 1, 128]), Buffer.alloc(0), big]) await one.publishAsync(bytes, payload, {qos: 1});
  await until(() => two.packets.length >= 3);
  check(`${label}: any bytes`, two.packets.map(({payload}) => payload.toString('base64')), [Buffer.from([0, 255, 1, 128]), Buffer.alloc(0), big].map((b) => b.toString('base64')));
  two.received.length = 0; two.packets.length = 0;

  // A session that outlives its connection.
  const clientId = `js${process.pid}s${++names}`, away = fresh('away');
  const lasting = {protocolVersion, clientId, clean: false, ...(v5 && {properties: {sessionExpiryInterval: 60}})};
  let sleeper = await connect(url, lasting);
  check(`${label}: a new session`, sleeper.connack.sessionPresent, false);
  await sleeper.subscribeAsync(away, {qos: 2});
  await leave(sleeper);
  for (let i = 0; i < 6; i++) await one.publishAsync(away, `${i}`, {qos: 1 + i % 2});
  sleeper = await connect(url, lasting);
  check(`${label}: the session is present`, sleeper.connack.sessionPresent, true);
  await until(() => sleeper.received.length >= 6);
  // The client delivers a message with QoS 2 when its PUBREL has come, so the order counts for each QoS.
  const of = (level) => sleeper.received.filter(([,, qos]) => qos === level).map(([, payload]) => payload);
  check(`${label}: and has what came meanwhile`, [of(1), of(2)], [['0', '2', '4'], ['1', '3', '5']]);
  const other = await connect(url, lasting);
  await until(() => sleeper.ended.includes('close'));
  check(`${label}: a second connection takes over`, [other.connack.sessionPresent, sleeper.ended], [true, v5 ? [0x8e, 'close'] : ['close']]);
  await leave(other);
  await leave(await connect(url, {protocolVersion, clientId, clean: true}));

  // A last will: the connection breaks without DISCONNECT.
  const will = fresh('will');
  await two.subscribeAsync(will, {qos: 1});
  const dying = await connect(url, {protocolVersion, will: {topic: will, payload: 'gone', qos: 1, retain: false}});
  cut(dying);
  await until(() => two.received.length >= 1);
  check(`${label}: the last will of a broken connection`, two.received, [[will, 'gone', 1, false]]);
  const polite = await connect(url, {protocolVersion, will: {topic: will, payload: 'never', qos: 1, retain: false}});
  await leave(polite);
  await one.publishAsync(will, 'marker', {qos: 1});
  await until(() => two.received.length >= 2);
  check(`${label}: none after DISCONNECT`, two.received.map(([, payload]) => payload), ['gone', 'marker']);
  await Promise.all([leave(one), leave(two)]);
}

async function versionFive(label, url) {
  const one = await connect(url, {protocolVersion: 5, properties: {topicAliasMaximum: 10}, autoAssignTopicAlias: true});
  const two = await connect(url, {protocolVersion: 5, properties: {topicAliasMaximum: 10, receiveMaximum: 2}, autoUseTopicAlias: true});
  const topic = fresh('v5');
  await two.subscribeAsync(`${topic}/#`, {qos: 1, properties: {subscriptionIdentifier: 77}});
  const properties = {payloadFormatIndicator: true, contentType: 'text/plain', responseTopic: `${topic}/back`, correlationData: Buffer.from('c1'), userProperties: {b: ['2', '1'], a: 'x'}};
  await one.publishAsync(topic, 'v', {qos: 1, properties: {...properties, messageExpiryInterval: 100}});
  await until(() => two.packets.length >= 1);
  const {messageExpiryInterval, subscriptionIdentifier, topicAlias, ...passedOn} = two.packets[0]?.properties ?? {};
  check(`${label}: properties are passed on`, JSON.parse(JSON.stringify({...passedOn, userProperties: {...passedOn.userProperties}})), JSON.parse(JSON.stringify(properties)));
  check(`${label}: expiry and subscription identifier`, [messageExpiryInterval > 0 && messageExpiryInterval <= 100, subscriptionIdentifier], [true, 77]);
  for (let i = 0; i < 20; i++) one.publish(`${topic}/n`, `${i}`, {qos: 1});
  await until(() => two.received.length >= 21);
  check(`${label}: topic aliases and a receive maximum of 2`, two.received.slice(1).map(([name, payload]) => [name, Number(payload)]), [...Array(20).keys()].map((i) => [`${topic}/n`, i]));
  const mine = fresh('own');
  await one.subscribeAsync(mine, {qos: 0, nl: true});
  await two.subscribeAsync(mine, {qos: 0});
  two.received.length = 0;
  await one.publishAsync(mine, 'from one', {qos: 1});
  await two.publishAsync(mine, 'from two', {qos: 1});
  await until(() => one.received.length >= 1 && two.received.length >= 2);
  check(`${label}: No Local`, [one.received.map(([, payload]) => payload), two.received.map(([, payload]) => payload)], [['from two'], ['from one', 'from two']]);
  const kept = fresh('handling');
  await one.publishAsync(kept, 'kept', {qos: 1, retain: true});
  two.received.length = 0;
  await two.subscribeAsync(kept, {qos: 1, rh: 2});
  await one.publishAsync(kept, 'live', {qos: 1, retain: false});
  await until(() => two.received.length >= 1);
  check(`${label}: Retain Handling 2`, two.received.map(([, payload]) => payload), ['live']);
  await one.publishAsync(kept, '', {qos: 1, retain: true});
  // Shared subscriptions: each message to one member.
  const members = [await connect(url, {protocolVersion: 5}), await connect(url, {protocolVersion: 5})], shared = fresh('shared');
  for (const member of members) await member.subscribeAsync(`$share/g${process.pid}/${shared}`, {qos: 1});
  for (let i = 0; i < 40; i++) await one.publishAsync(shared, `${i}`, {qos: 1});
  await until(() => members[0].received.length + members[1].received.length >= 40);
  const got = members.map((member) => member.received.map(([, payload]) => Number(payload)));
  check(`${label}: a shared subscription delivers each message to one member`, [[...got[0], ...got[1]].sort((a, b) => a - b), got.every((part) => part.length > 0)], [[...Array(40).keys()], true]);
  await Promise.all([one, two, ...members].map(leave));
}

/** The exercise of the seed: a client with a last will is killed, and a subscriber gets the will. */
async function killed(label, url) {
  const topic = fresh('killed');
  const watching = await connect(url);
  await watching.subscribeAsync(topic, {qos: 1});
  const script = `require('mqtt').connect(process.argv[1], {rejectUnauthorized: false, will: {topic: process.argv[2], payload: 'client has died', qos: 1, retain: false}}).on('connect', () => console.log('connected'))`;
  const child = spawn(process.execPath, ['-e', script, url, topic], {stdio: ['ignore', 'pipe', 'inherit'], cwd: new URL('.', import.meta.url).pathname, env: {...process.env, NODE_NO_WARNINGS: '1'}});
  const gone = new Promise((resolve) => child.on('exit', (code, signal) => resolve(signal)));
  await new Promise((resolve) => { child.stdout.once('data', resolve); child.once('exit', resolve); });
  check(`${label}: no will while the client lives`, watching.received, []);
  child.kill('SIGKILL');
  check(`${label}: the client is killed`, await gone, 'SIGKILL');
  await until(() => watching.received.length >= 1);
  check(`${label}: the subscriber gets the last will`, watching.received, [[topic, 'client has died', 1, false]]);
  await leave(watching);
}

/** The other protocol on the same channels. */
async function twoWorlds(label, url, port) {
  const {create} = require('client20');
  const socket = create({hostname: '127.0.0.1', port, autoReconnect: false});
  await socket.listener('connect').once();
  const topic = fresh('both'), seen = [];
  const channel = socket.subscribe(topic);
  await channel.listener('subscribe').once();
  (async () => { for await (const data of channel) seen.push(data); })();
  const device = await connect(url, {protocolVersion: 5});
  await device.subscribeAsync(topic, {qos: 1});
  await device.publishAsync(topic, '{"temperature":21.5}', {qos: 1});
  await device.publishAsync(topic, 'plain words', {qos: 1});
  await device.publishAsync(topic, Buffer.from([255, 0]), {qos: 1});
  await socket.invokePublish(topic, {from: 'browser'});
  await until(() => seen.length >= 4 && device.received.length >= 4);
  check(`${label}: a browser's client sees JSON as its value, text as a string, bytes as base64`, seen, [{temperature: 21.5}, 'plain words', {base64: true, data: '/wA='}, {from: 'browser'}]);
  check(`${label}: a device gets the bytes, and JSON of the browser's client`, device.packets.map(({payload}) => payload.toString('base64')),
    ['{"temperature":21.5}', 'plain words', Buffer.from([255, 0]), '{"from":"browser"}'].map((one) => Buffer.from(one).toString('base64')));

  // A publication that either retains comes first to the other.
  const lamp = fresh('lamp'), first = [];
  await device.publishAsync(lamp, 'on', {qos: 1, retain: true});
  const lights = socket.subscribe(lamp, {data: {last: 1}});
  (async () => { for await (const data of lights) first.push(data); })();
  await until(() => first.length >= 1);
  check(`${label}: a browser's client that asks gets what a device has retained`, first, ['on']);
  await socket.invoke('$retain', {channel: lamp, data: {on: true}});
  const late = await connect(url, {protocolVersion: 5});
  await late.subscribeAsync(lamp, {qos: 1});
  await until(() => late.received.length >= 1);
  check(`${label}: a device gets what a browser's client has retained`, late.received, [[lamp, '{"on":true}', 1, true]]);

  // Both call the same procedures.
  const replies = fresh('replies');
  await late.subscribeAsync(replies, {qos: 1});
  late.received.length = late.packets.length = 0;
  await late.publishAsync('$rpc/ping', '', {qos: 1, properties: {responseTopic: replies, correlationData: Buffer.from('7')}});
  await until(() => late.received.length >= 1);
  const [answer] = late.packets;
  check(`${label}: a device calls a procedure`, [answer.topic, Object.keys(JSON.parse(answer.payload)), answer.properties.correlationData.toString()], [replies, ['count'], '7']);
  const codes = [];
  late.on('packetreceive', ({cmd, reasonCode}) => { if (cmd === 'puback') codes.push(reasonCode); });
  await late.publishAsync('$rpc/unknown', '', {qos: 1, properties: {responseTopic: replies}});
  check(`${label}: PUBACK says that nobody answers a procedure that is not there`, codes, [0x10]);
  await leave(late);
  await leave(device);
  socket.disconnect();
}

/** The program of docs/services.md: a service that speaks MQTT, called by clients of both protocols. */
async function services(binary, cores) {
  const page = fs.readFileSync(new URL('../../docs/services.md', import.meta.url), 'utf8');
  const block = (section, kind) => new RegExp(`## ${section}\\n[^]*?\`\`\`${kind}\\n([^]*?)\`\`\``).exec(page)[1];
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-mqtt-services-'));
  const config = path.join(folder, 'ringcast.toml'), program = path.join(folder, 'service.js');
  fs.writeFileSync(config, `${block('Allow it', 'toml')}
[[rules]]
allow = ["subscribe", "publish"]
channels = ["replies"]
`);
  fs.writeFileSync(program, block('Serve over MQTT 5', 'js').replace("require('mqtt')", `require(${JSON.stringify(require.resolve('mqtt'))})`));
  const server = await startTarget(binary, {protocol: 'auto'}, cores, {RINGCAST_CONFIG: config, RINGCAST_CLIENT_PROTOCOLS: 'socketcluster,mqtt'});
  const url = `mqtt://127.0.0.1:${server.port}`;
  const part = (value) => Buffer.from(value).toString('base64url');
  const token = (claims) => {
    const head = `${part('{"alg":"HS256","typ":"JWT"}')}.${part(JSON.stringify(claims))}`;
    return `${head}.${createHmac('sha256', AUTH_KEY).update(head).digest('base64url')}`;
  };
  let printed = '';
  const service = spawn(process.execPath, [program], {env: {...process.env, MQTT_URL: url, TOKEN: token({sub: 'math', role: 'service'})}, stdio: ['ignore', 'pipe', 'inherit']});
  service.stdout.on('data', (data) => { printed += data; });
  const socket = require('client20').create({hostname: '127.0.0.1', port: server.port, path: '/socketcluster/', ackTimeout: 500});
  // Until the service is there, nobody answers.
  let sum;
  for (const end = Date.now() + PATIENCE_MS; sum === undefined && Date.now() < end;) sum = await socket.invoke('math.add', [1, 2]).catch(() => undefined);
  check(`a service over MQTT, ${cores} cores: a client of SocketCluster gets the answer`, sum, 3);
  const error = await socket.invoke('math.divide', [1, 0]).catch(({name, message}) => ({name, message}));
  check(`a service over MQTT, ${cores} cores: and the error`, error, {name: 'UnknownProcedureError', message: '$rpc/math.divide'});
  const device = await connect(url, {protocolVersion: 5, username: 'ann', password: token({sub: 'ann'})});
  await device.subscribeAsync('replies', {qos: 0});
  await device.publishAsync('$rpc/math.add', '[2,3]', {qos: 1, properties: {responseTopic: 'replies', correlationData: Buffer.from('1')}});
  await until(() => device.received.length >= 1);
  check(`a service over MQTT, ${cores} cores: a device gets the answer`, device.received, [['replies', '5', 0, false]]);
  await until(() => printed.includes('of ann'));
  check(`a service over MQTT, ${cores} cores: it knows the caller`, printed.includes('$rpc/math.add [2,3] of ann\n'));
  const refused = await device.subscribeAsync('$share/g/$rpc/math.add').catch((refusal) => refusal.code ?? refusal.message);
  check(`a service over MQTT, ${cores} cores: who may not serve is told so`, JSON.stringify(refused).includes('135') || String(refused).includes('Not authorized'), true);
  await leave(device);
  socket.disconnect();
  service.kill();
  await stop(server);
  fs.rmSync(folder, {recursive: true, force: true});
}

async function inBrowser(label, url, folder) {
  const script = fs.readFileSync(path.join(path.dirname(require.resolve('mqtt')), '..', 'dist', 'mqtt.min.js'));
  const listener = http.createServer((request, response) => {
    if (request.url === '/mqtt.js') response.setHeader('content-type', 'text/javascript').end(script);
    else response.setHeader('content-type', 'text/html').end('<!doctype html><script src="/mqtt.js"></script>');
  });
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const browser = launch(path.join(folder, 'profile'));
  check(`${label}: Chromium is installed`, browser !== null);
  if (browser) {
    const tab = await browser.tab(`http://127.0.0.1:${listener.address().port}/`);
    const topic = fresh('page'), device = await connect(url);
    await device.subscribeAsync(`${topic}/up`, {qos: 1});
    await tab.until('window.mqtt');
    await tab.evaluate(`window.seen = []; window.client = mqtt.connect(${JSON.stringify(url)}, {protocolVersion: 5});
      client.on('message', (name, payload, packet) => seen.push([payload.toString(), packet.qos]));
      client.on('connect', () => client.subscribe(${JSON.stringify(topic)}, {qos: 2}, () => { client.publish(${JSON.stringify(`${topic}/up`)}, 'from a page', {qos: 1}); })); true`);
    await until(() => device.received.length >= 1);
    check(`${label}: a page publishes`, device.received.map(([, payload]) => payload), ['from a page']);
    await device.publishAsync(topic, 'to a page', {qos: 2});
    check(`${label}: and receives`, [await tab.until('seen.length === 1'), await tab.evaluate('JSON.stringify(seen)')], [true, '[["to a page",2]]']);
    await leave(device);
    await browser.end();
  }
  listener.closeAllConnections();
  listener.close();
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-mqtt-'));
process.on('exit', () => fs.rmSync(folder, {recursive: true, force: true, maxRetries: 10}));
process.on('unhandledRejection', (error) => { failed++; console.log(`FAIL an error without a handler: ${error.stack}`); });
process.env.NODE_NO_WARNINGS = '1';
let server = null, urls = args.urls?.split(',');
if (args.binary) {
  const [key, certificate] = ['key.pem', 'certificate.pem'].map((name) => path.join(folder, name));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30', '-subj', '/CN=localhost', '-keyout', key, '-out', certificate], {stdio: 'ignore'});
  server = await startTarget(path.resolve(args.binary), {protocol: 'auto'}, Number(args.cores), {
    RINGCAST_MQTT_LISTEN: '127.0.0.1:0', RINGCAST_MQTT_TLS_LISTEN: '127.0.0.1:0', RINGCAST_CLIENT_PROTOCOLS: 'socketcluster,mqtt', RINGCAST_LISTEN_TLS: 'shared',
    RINGCAST_TLS_CERTIFICATE_FILES: certificate, RINGCAST_TLS_KEY_FILES: key,
  });
  const port = async (scheme) => { const at = new RegExp(`\\b${scheme}://127\\.0\\.0\\.1:(\\d+)`); await until(() => at.test(server.output)); return at.exec(server.output)?.[1]; };
  urls = [`mqtt://127.0.0.1:${await port('mqtt')}`, `mqtts://127.0.0.1:${await port('mqtts')}`, `ws://127.0.0.1:${server.port}/mqtt`, `wss://127.0.0.1:${server.port}/mqtt`, `mqtt://127.0.0.1:${server.port}`];
}
const step = async (name, run) => { try { await run(); } catch (error) { check(name, error.stack ?? String(error), 'no error'); } };
for (const [index, url] of urls.entries()) {
  const scheme = index === 4 ? 'mqtt at the port of all clients' : new URL(url).protocol.slice(0, -1);
  for (const version of [4, 5]) await step(`${scheme} ${version}`, () => roundTrips(`${scheme}, version ${version}`, url, version));
  await step(`${scheme} 5`, () => versionFive(`${scheme}, version 5`, url));
}
await step('killed', () => killed('a killed client', urls[0]));
const socketUrl = urls.find((url) => url.startsWith('ws:'));
if (socketUrl) await step('browser', () => inBrowser('a browser', socketUrl, folder));
if (server) {
  await step('both protocols', () => twoWorlds('both protocols', urls[0], server.port));
  await step('services', () => services(path.resolve(args.binary), Number(args.cores)));
  check('the server still runs', server.exited, null);
  if (server.exited) console.log(server.output);
  await stop(server);
}
for (const client of clients) client.end(true);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
