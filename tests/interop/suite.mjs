// Runs unmodified SocketCluster clients against a running server: the oldest major with this protocol (5), the last one with
// callbacks (14), and 15, 16, 17, 19 and 20. Other majors can be given with --only, if they are installed as `client` and
// the major. 6 to 11 and 13 pass; 12 was never published. 18 connects, calls, subscribes and receives, but by a bug of its
// own, a socket with more than one listener calls none of them.
// node suite.mjs --target ws://127.0.0.1:8000/socketcluster/ --auth-key KEY [--only 14,20] [--name TEXT] [--min-bin]
// With --min-bin the clients have the codec sc-codec-min-bin (codec = min-bin).
// With wss:// the server must also accept plain connections on the same port (listen_tls = shared), for checks with raw sockets.
//
// The application needs only `ping`, as a call and as an event, and every client must be allowed to subscribe and publish. The
// server must accept messages of 1 MiB, close a connection that sends a larger one, and ping every 5 to 10 s. To test a server
// with one protocol version, use --only: majors up to 14 use protocol 1, later ones protocol 2.
import net from 'node:net';
import {AsyncLocalStorage} from 'node:async_hooks';
import {createHmac} from 'node:crypto';
import {createRequire} from 'node:module';
import {isDeepStrictEqual, parseArgs} from 'node:util';

const require = createRequire(import.meta.url);
const jwt = require('jsonwebtoken');
const {values: args} = parseArgs({options: {target: {type: 'string'}, 'auth-key': {type: 'string'}, only: {type: 'string'}, name: {type: 'string'}, 'min-bin': {type: 'boolean'}}});
if (!args.target || !args['auth-key']) { console.error('usage: node suite.mjs --target URL --auth-key KEY [--only MAJOR,...] [--name TEXT] [--min-bin]'); process.exit(2); }
const key = args['auth-key'];
const url = new URL(args.target);
const server = {hostname: url.hostname, port: Number(url.port || 80), path: url.pathname, secure: url.protocol === 'wss:', ...(args['min-bin'] && {codecEngine: require('sc-codec-min-bin')})};
const minBin = args['min-bin'];
const MAJORS = args.only?.split(',').map(Number) ?? [5, 14, 15, 16, 17, 19, 20];
const MESSAGE_BYTES_MAX = 1024 * 1024;
/** The longest wait for anything, however busy the machine is. Only failing checks wait so long. */
const PATIENCE_MS = 60000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const until = async (condition, ms = PATIENCE_MS) => { for (const end = Date.now() + ms; !condition() && Date.now() < end;) await sleep(5); return condition(); };
let names = 0;
const channel = (tail = '') => `suite-${process.pid}-${++names}${tail}`;
const seconds = () => Math.floor(Date.now() / 1000);
process.on('unhandledRejection', () => {}); // when a connection is cut, the client rejects its pending promises

/** Majors 15 and later: promises and async streams. */
function streams(pkg, options) {
  const stored = {token: options.token ?? null};
  const socket = pkg.create({...server, ackTimeout: PATIENCE_MS, connectTimeout: PATIENCE_MS, autoReconnect: false, ...options, authEngine: {
    loadToken: async () => stored.token,
    saveToken: async (name, token) => (stored.token = token),
    removeToken: async () => { stored.token = null; },
  }});
  const client = {
    socket, stored, connects: [], pongs: [], ends: [], deauthentications: 0, subscribeFails: [],
    invoke: (event, data, more) => socket.invoke(event, data, more),
    transmit: (event, data) => socket.transmit(event, data),
    publish: (name, data) => socket.invokePublish(name, data),
    publishBlind: (name, data) => socket.transmitPublish(name, data),
    unsubscribe: (name) => socket.unsubscribe(name),
    begin(name, more) {
      const messages = [], ch = socket.subscribe(name, more);
      messages.channel = ch;
      (async () => { for await (const data of ch) messages.push(data); })();
      return messages;
    },
    authenticate: (token) => socket.authenticate(token).then((status) => [null, status.isAuthenticated, status.authError?.name ?? null], (e) => [e.name, false, null]),
    deauthenticate: () => socket.deauthenticate(),
    disconnect: (code, reason) => socket.disconnect(code, reason),
    close: () => socket.disconnect(),
  };
  const each = async (stream, run) => { for await (const event of stream) run(event); };
  each(socket.listener('connect'), (status) => client.connects.push(status));
  each(socket.listener('disconnect'), ({code, reason}) => client.ends.push([code, reason ?? '']));
  each(socket.listener('connectAbort'), ({code, reason}) => client.ends.push([code, reason ?? '']));
  each(socket.listener('deauthenticate'), () => client.deauthentications++);
  each(socket.listener('subscribeFail'), ({error, channel: name}) => client.subscribeFails.push([name, error?.name]));
  each(socket.receiver('pong'), (data) => client.pongs.push(data));
  return client;
}

/** Majors up to 14: callbacks, protocol 1. The first of them have `connect` instead of `create`, and cannot destroy a socket. */
function callbacks(pkg, options) {
  const stored = {token: options.token ?? null};
  const socket = (pkg.create ?? pkg.connect)({...server, ackTimeout: PATIENCE_MS, connectTimeout: PATIENCE_MS, autoReconnect: false, multiplex: false, ...options, authEngine: {
    loadToken: (name, done) => done(null, stored.token),
    saveToken: (name, token, more, done) => { stored.token = token; done?.(null, token); },
    removeToken: (name, done) => { stored.token = null; done?.(null); },
  }});
  const promise = (act) => new Promise((resolve, reject) => act((e, value) => (e ? reject(e) : resolve(value))));
  const client = {
    socket, stored, connects: [], pongs: [], ends: [], deauthentications: 0, subscribeFails: [],
    invoke: (event, data) => promise((done) => socket.emit(event, data, done)),
    transmit: async (event, data) => { socket.emit(event, data); },
    publish: (name, data) => promise((done) => socket.publish(name, data, done)),
    publishBlind: async (name, data) => { socket.publish(name, data); },
    unsubscribe: (name) => socket.unsubscribe(name),
    begin(name, more) {
      const messages = [], ch = socket.subscribe(name, more);
      messages.channel = ch;
      ch.watch((data) => messages.push(data));
      return messages;
    },
    authenticate: (token) => new Promise((resolve) => socket.authenticate(token, (e, status) => resolve(e ? [e.name, false, null] : [null, status.isAuthenticated, status.authError?.name ?? null]))),
    deauthenticate: () => promise((done) => socket.deauthenticate(done)),
    disconnect: (code, reason) => socket.disconnect(code, reason),
    close: () => {
      // Majors 6 to 8 throw when they disconnect after a call has timed out: they keep the call, without its callback.
      try { socket.destroy ? socket.destroy() : socket.disconnect(); } catch (error) { if (!(error instanceof TypeError)) throw error; }
    },
  };
  socket.on('error', () => {});
  socket.on('connect', (status) => client.connects.push(status));
  socket.on('disconnect', (code, reason) => client.ends.push([code, reason ?? '']));
  socket.on('connectAbort', (code, reason) => client.ends.push([code, reason ?? '']));
  socket.on('deauthenticate', () => client.deauthentications++);
  socket.on('subscribeFail', (error, name) => client.subscribeFails.push([name, error?.name]));
  socket.on('pong', (data) => client.pongs.push(data));
  return client;
}

/** A TCP relay on loopback that can cut its connections and refuse new ones for a while. */
async function relay() {
  const pairs = new Set();
  const self = {open: true, accepted: 0};
  const listener = net.createServer((from) => {
    self.accepted++;
    if (!self.open) { from.destroy(); return; }
    const to = net.connect(server.port, server.hostname);
    pairs.add(from).add(to);
    for (const s of [from, to]) s.on('error', () => {}).on('close', () => { from.destroy(); to.destroy(); pairs.delete(s); });
    from.pipe(to);
    to.pipe(from);
  });
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve));
  self.port = listener.address().port;
  self.cut = () => { for (const s of pairs) s.destroy(); };
  self.end = () => { self.cut(); listener.close(); };
  return self;
}

const b64 = (value) => Buffer.from(value).toString('base64url');
const sign = (claims, options) => jwt.sign(claims, key, {noTimestamp: true, ...options});
const signed = (head, payload) => { const text = `${b64(head)}.${b64(payload)}`; return `${text}.${createHmac('sha256', key).update(text).digest('base64url')}`; };
/** For each token: description, token, name of the error, and whether the client must drop the token. */
const badTokens = () => [
  ['expired', sign({username: 'a', exp: seconds() - 60}), 'AuthTokenExpiredError', true],
  ['signed with another key', jwt.sign({username: 'a'}, 'another'), 'AuthTokenInvalidError', true],
  ['with a changed payload', (() => { const p = sign({username: 'a'}).split('.'); return `${p[0]}.${b64('{"username":"eve"}')}.${p[2]}`; })(), 'AuthTokenInvalidError', true],
  ['malformed', 'not-a-token', 'AuthTokenInvalidError', true],
  ['of three empty parts', '..', 'AuthTokenInvalidError', true],
  ['unsigned', jwt.sign({username: 'a'}, null, {algorithm: 'none'}), 'AuthTokenInvalidError', true],
  ['without its signature', `${sign({username: 'a'}).split('.').slice(0, 2).join('.')}.`, 'AuthTokenInvalidError', true],
  ['with an unknown algorithm', signed('{"alg":"XX","typ":"JWT"}', '{"a":1}'), 'AuthTokenInvalidError', true],
  ['whose expiry is text', signed('{"alg":"HS256","typ":"JWT"}', '{"exp":"x"}'), 'AuthTokenInvalidError', true],
  ['not valid yet', sign({username: 'a', nbf: seconds() + 3600}), 'AuthTokenNotBeforeError', false],
];

const reachable = await new Promise((resolve) => {
  const socket = net.connect(server.port, server.hostname, () => { socket.destroy(); resolve(true); });
  socket.on('error', () => resolve(false));
});
if (!reachable) { console.log(`FAIL nothing listens at ${args.target}\n0 passed, 1 failed`); process.exit(1); }

let passed = 0, failed = 0;
/** Clients that the current check has opened. */
const opened = new AsyncLocalStorage();

async function suite(major) {
  const pkg = require(`client${major}`);
  const old = major <= 14;
  const waiting = [];
  const begin = (options = {}) => { const c = (old ? callbacks : streams)(pkg, options); opened.getStore().push(c); return c; };
  const client = async (options = {}) => {
    const c = begin(options);
    if (!await until(() => c.connects.length)) throw new Error(`the client did not connect ${JSON.stringify(c.ends)}`);
    return c;
  };
  const subscribe = async (c, name, more) => {
    const messages = c.begin(name, more);
    if (!await until(() => messages.channel.state === 'subscribed')) throw new Error(`no answer to subscribe (${JSON.stringify(name).slice(0, 60)})`);
    return messages;
  };
  const check = async (name, run) => {
    if (args.name && !name.includes(args.name)) return;
    const open = [];
    let difference;
    try {
      const [got, want] = await opened.run(open, run);
      if (!isDeepStrictEqual(got, want)) difference = `want ${JSON.stringify(want)?.slice(0, 400)}\n     got  ${JSON.stringify(got)?.slice(0, 400)}`;
    } catch (e) { difference = e.stack; }
    for (const c of open) c.close();
    if (difference) failed++; else passed++;
    console.log(`${difference ? 'FAIL' : 'PASS'} client ${major}: ${name}${difference ? `\n     ${difference}` : ''}`);
  };
  /** A check that mostly waits, and therefore runs beside the others. */
  const beside = (name, run) => { waiting.push(check(name, run)); };

  // --- connecting
  await check('connects without a token', async () => {
    const c = await client(), [s] = c.connects;
    return [[c.socket.state, typeof s.id, s.id.length > 0, typeof s.pingTimeout, s.isAuthenticated, s.authError, c.socket.id === s.id], ['open', 'string', true, 'number', false, undefined, true]];
  });
  await check('the announced ping timeout fits a timer', async () => {
    const {pingTimeout} = (await client()).connects[0];
    return [[pingTimeout > 0, pingTimeout < 2 ** 31], [true, true]];
  });
  for (const [name, options] of [['a query', {query: {a: '1', b: ['x', 'y'], 'odd key': 'ö&=?'}}], ['time stamps in the query', {timestampRequests: true}], ['a query with reserved names', {query: {__proto__x: '1', cid: '5', event: 'x'}}]]) {
    await check(`connects with ${name}`, async () => [[(await (await client(options)).invoke('ping')).count > 0], [true]]);
  }
  await check('another path ends with 1006', async () => {
    const c = begin({path: '/elsewhere/'});
    await until(() => c.ends.length);
    return [[c.connects.length, c.ends[0]?.[0]], [0, 1006]];
  });
  await check('connecting again after a disconnect brings a new id', async () => {
    const c = await client();
    c.disconnect();
    await until(() => c.socket.state === 'closed');
    c.socket.connect();
    await until(() => c.connects.length === 2);
    return [[c.connects.length, c.connects[0].id !== c.connects[1]?.id, (await c.invoke('ping')).count > 0], [2, true, true]];
  });
  await check('every client has its own id', async () => {
    const all = await Promise.all(Array.from({length: 20}, () => client()));
    return [[new Set(all.map((c) => c.connects[0].id)).size], [20]];
  });

  // --- calls and events
  await check('ping as a call and as an event; the count grows', async () => {
    const c = await client();
    const counts = [(await c.invoke('ping', {})).count, (await c.invoke('ping')).count];
    await c.transmit('ping', {});
    await until(() => c.pongs.length);
    counts.push(c.pongs[0]?.count);
    return [[counts.every(Number.isInteger), counts[0] >= 1, counts[1] > counts[0], counts[2] > counts[1], Object.keys(c.pongs[0])], [true, true, true, true, ['count']]];
  });
  await check('ping takes any data', async () => {
    const c = await client(), got = [];
    for (const data of [undefined, null, 0, 'x', true, [], {}, {a: {b: [1]}}, Buffer.from('x')]) got.push(Number.isInteger((await c.invoke('ping', data)).count));
    return [got, Array(9).fill(true)];
  });
  await check('a thousand calls in flight are all answered, in order', async () => {
    const c = await client(), order = [];
    const counts = await Promise.all(Array.from({length: 1000}, (_, i) => c.invoke('ping', {i}).then(({count}) => { order.push(i); return count; })));
    return [[new Set(counts).size, counts.every((n, i) => i === 0 || n > counts[i - 1]), order.every((n, i) => n === i)], [1000, true, true]];
  });
  await check('five hundred ping events bring five hundred pongs in order', async () => {
    const c = await client();
    for (let i = 0; i < 500; i++) c.transmit('ping', {i});
    await until(() => c.pongs.length >= 500);
    return [[c.pongs.length, c.pongs.every(({count}, i) => i === 0 || count > c.pongs[i - 1].count)], [500, true]];
  });
  for (const event of ['nothing', '', 'Ping', '#ping', 'ping ', 'ünknown']) {
    await check(`an unknown procedure ${JSON.stringify(event)} times out and harms nothing`, async () => {
      const c = await client({ackTimeout: 2000});
      const name = await c.invoke(event, {}).then(() => 'answered', (e) => e.name);
      return [[name, (await c.invoke('ping')).count > 0], ['TimeoutError', true]];
    });
  }

  // --- tokens
  const token = (claims = {}) => sign({username: 'alice', exp: seconds() + 600, ...claims});
  await check('a good token authenticates at the handshake', async () => {
    const c = await client({token: token()});
    return [[c.connects[0].isAuthenticated, c.connects[0].authError, c.socket.authState, c.socket.authToken?.username, c.stored.token !== null], [true, undefined, 'authenticated', 'alice', true]];
  });
  for (const algorithm of ['HS384', 'HS512']) {
    await check(`a token signed with ${algorithm} authenticates`, async () => [[(await client({token: sign({username: 'b'}, {algorithm})})).connects[0].isAuthenticated], [true]]);
  }
  await check('a token without expiry authenticates', async () => [[(await client({token: sign({username: 'b'})})).connects[0].isAuthenticated], [true]]);
  for (const [name, bad, error, dropped] of badTokens()) {
    await check(`a token ${name} at the handshake`, async () => {
      const c = await client({token: bad});
      await until(() => c.stored.token === null, dropped ? PATIENCE_MS : 200);
      return [[c.connects[0].isAuthenticated, c.connects[0].authError?.name, c.socket.authState, c.stored.token === null, (await c.invoke('ping')).count > 0], [false, error, 'unauthenticated', dropped, true]];
    });
    await check(`authenticate() with a token ${name}`, async () => {
      const c = await client();
      const [thrown, isAuthenticated, told] = await c.authenticate(bad);
      return [[thrown ?? told, isAuthenticated, c.socket.authState, (await c.invoke('ping')).count > 0], [error, false, 'unauthenticated', true]];
    });
    await check(`authenticate() with a token ${name} ends a former authentication`, async () => {
      const c = await client({token: token()});
      await c.authenticate(bad);
      await until(() => c.socket.authState === 'unauthenticated');
      return [[c.socket.authState], ['unauthenticated']];
    });
  }
  for (const value of [{}, 5, true, []]) {
    await check(`a token that is ${JSON.stringify(value)} at the handshake`, async () => {
      const c = await client({token: value});
      return [[c.connects[0].isAuthenticated, c.connects[0].authError?.name, c.connects[0].authError?.message], [false, 'AuthTokenError', 'Invalid token format - Token must be a string']];
    });
  }
  await check('authenticate() with a good token, then with another', async () => {
    const c = await client();
    const results = [await c.authenticate(token()), await c.authenticate(token({username: 'bob'}))];
    return [[results, c.socket.authState, c.socket.authToken?.username, c.stored.token !== null], [[[null, true, null], [null, true, null]], 'authenticated', 'bob', true]];
  });
  await check('deauthenticate() drops the token and keeps subscriptions', async () => {
    const name = channel(), c = await client({token: token()});
    const messages = await subscribe(c, name);
    await c.deauthenticate();
    await c.publish(name, 1);
    await until(() => messages.length);
    return [[c.socket.authState, c.stored.token, [...messages]], ['unauthenticated', null, [1]]];
  });
  beside('an expiry is noticed at the next packet, which is carried out', async () => {
    // Long enough to complete the handshake on a busy machine.
    const exp = seconds() + 6, c = await client({token: token({exp})});
    const before = c.socket.authState;
    await until(() => seconds() > exp);
    const {count} = await c.invoke('ping');
    await until(() => c.stored.token === null && c.deauthentications);
    return [[before, count > 0, c.socket.authState, c.stored.token, c.deauthentications], ['authenticated', true, 'unauthenticated', null, 1]];
  });
  beside('an expiry is noticed at the next pong', async () => {
    // Long enough to complete the handshake on a busy machine, and short enough to expire before the first pings.
    const c = await client({token: token({exp: seconds() + 6})});
    await until(() => c.stored.token === null);
    return [[c.connects[0].isAuthenticated, c.socket.authState, c.stored.token, c.socket.state], [true, 'unauthenticated', null, 'open']];
  });
  await check('a subscription that waits for authentication', async () => {
    const name = channel(), c = await client();
    const messages = c.begin(name, {waitForAuth: true});
    await c.invoke('ping');
    const before = messages.channel.state;
    await c.authenticate(token());
    await until(() => messages.channel.state === 'subscribed');
    await c.publish(name, 'x');
    await until(() => messages.length);
    return [[before, messages.channel.state, [...messages]], ['pending', 'subscribed', ['x']]];
  });

  // --- channels
  await check('subscribe, publish (own copy included), unsubscribe', async () => {
    const name = channel(), [a, b] = [await client(), await client()];
    const [atA, atB] = [await subscribe(a, name), await subscribe(b, name)];
    await a.publish(name, {hello: 'wörld'});
    await b.publish(name, [1, null]);
    await until(() => atA.length >= 2 && atB.length >= 2);
    b.unsubscribe(name);
    await b.invoke('ping');
    await a.publish(name, 'after');
    await until(() => atA.length >= 3);
    await b.invoke('ping');
    return [[[...atA], [...atB]], [[{hello: 'wörld'}, [1, null], 'after'], [{hello: 'wörld'}, [1, null]]]];
  });
  await check('unsubscribe, then subscribe again', async () => {
    const name = channel(), c = await client();
    const messages = await subscribe(c, name);
    await c.publish(name, 1);
    await until(() => messages.length === 1);
    c.unsubscribe(name);
    await c.invoke('ping');
    await c.publish(name, 2);
    const again = await subscribe(c, name);
    await c.publish(name, 3);
    await until(() => again.includes(3));
    return [[[...messages].includes(2), again.filter((m) => m === 3).length], [false, 1]];
  });
  await check('publish without a subscription, acknowledged and not', async () => {
    const name = channel(), [p, s] = [await client(), await client()];
    const messages = await subscribe(s, name);
    await p.publish(name, 'acknowledged');
    p.publishBlind(name, 'blind');
    await until(() => messages.length === 2);
    return [[[...messages]], [['acknowledged', 'blind']]];
  });
  await check('publish where nobody listens is acknowledged', async () => {
    const c = await client();
    await c.publish(channel(), 1);
    return [[true], [true]];
  });
  await check('a channel reaches its subscribers only', async () => {
    const [x, y] = [channel(), channel()], [a, b] = [await client(), await client()];
    const [atA, atB] = [await subscribe(a, x), await subscribe(b, y)];
    for (let i = 0; i < 20; i++) { a.publishBlind(y, i); b.publishBlind(x, -i - 1); }
    await until(() => atA.length >= 20 && atB.length >= 20);
    return [[[...atA], [...atB]], [Array.from({length: 20}, (_, i) => -i - 1), Array.from({length: 20}, (_, i) => i)]];
  });
  await check('three hundred channels of one client', async () => {
    const base = channel(), c = await client();
    const all = await Promise.all(Array.from({length: 300}, (_, i) => subscribe(c, `${base}-${i}`)));
    for (let i = 0; i < 300; i++) c.publishBlind(`${base}-${i}`, i);
    await until(() => all.every((messages) => messages.length));
    for (let i = 0; i < 300; i += 2) c.unsubscribe(`${base}-${i}`);
    await c.invoke('ping');
    for (let i = 0; i < 300; i++) await c.publishBlind(`${base}-${i}`, -1);
    await until(() => all.every((messages, i) => i % 2 === 0 || messages.length === 2));
    return [[all.every((messages, i) => isDeepStrictEqual([...messages], i % 2 ? [i, -1] : [i]))], [true]];
  });
  const odd = ['', ' ', 'with spaces', 'a/b/c', 'üñí', '频道', '😀', '\ud800', 'x\udfffy', '"quoted"', '\\back\\slash', 'new\nline', '\t', '\u0000', '\u2028', '\u007f', '#publish', '#', '*', '+/#', 'null', '0', '-1', '{"a":1}', '[]', 'a'.repeat(10000), 'é'.repeat(3000), "it's", '<&>', '%2F', 'then'];
  // MessagePack has no halves of surrogate pairs.
  for (const tail of odd.filter((name) => !minBin || name.isWellFormed())) {
    await check(`channel name ${JSON.stringify(tail).slice(0, 30)}${tail.length > 30 ? ` (${tail.length})` : ''}`, async () => {
      const name = channel(tail), [a, b] = [await client(), await client()];
      const messages = await subscribe(a, name);
      await b.publish(name, {name});
      await until(() => messages.length);
      a.unsubscribe(name);
      await a.invoke('ping');
      return [[[...messages], a.socket.subscriptions()], [[{name}], []]];
    });
  }
  await check('the empty channel name', async () => {
    const c = await client();
    const messages = await subscribe(c, '');
    await c.publish('', major);
    await until(() => messages.includes(major));
    return [[messages.includes(major)], [true]];
  });
  const later = (value) => (value === undefined ? undefined : JSON.parse(JSON.stringify(value)));
  const data = [minBin ? null : undefined, null, 0, -0.5, 1e21, 5e-324, Number.MAX_SAFE_INTEGER, '', 'text', `ü😀${minBin ? '' : '\ud800'}\u0000"\\\n\u2028`, true, false, [], {}, [[[[]]]], [1, 'a', null, {b: [true]}], {a: {b: {c: {d: [1, 2, {e: null}]}}}}, {event: '#publish', data: {channel: 'x'}, cid: 5}, {rid: 1, error: 'x'}, {'': 1, ' ': 2, 'ü': 3, '"': 4},
    {1: 'a', 0: 'b', z: 1}, minBin ? 0 : new Date(0), Array.from({length: 1000}, (_, i) => i), {...(!minBin && {toJSON: undefined}), x: 1}, '#1', '#2', 'x'.repeat(70000)];
  await check('data of every kind arrives as it was sent, in order', async () => {
    const name = channel(), [p, s] = [await client(), await client()];
    const messages = await subscribe(s, name);
    for (const value of data) await p.publish(name, value);
    await until(() => messages.length >= data.length);
    return [[...messages].map(later), data.map(later)];
  });
  // Another codec writes them in its own way: a Buffer as an object, an ArrayBuffer as bytes.
  if (minBin) await check('bytes arrive as bytes', async () => {
    const name = channel(), [p, s] = [await client(), await client()];
    const messages = await subscribe(s, name), bytes = Uint8Array.from({length: 256}, (_, i) => i);
    await p.publish(name, {deep: [bytes.buffer]});
    await until(() => messages.length);
    return [[[...new Uint8Array(messages[0].deep[0])]], [[...bytes]]];
  });
  else await check('binary data arrives as base64', async () => {
    const name = channel(), [p, s] = [await client(), await client()];
    const messages = await subscribe(s, name), bytes = Uint8Array.from({length: 256}, (_, i) => i);
    await p.publish(name, Buffer.from(bytes));
    await p.publish(name, bytes.buffer);
    await p.publish(name, {deep: [Buffer.from([255, 0])]});
    await until(() => messages.length >= 3);
    const base64 = Buffer.from(bytes).toString('base64');
    return [[...messages], [{base64: true, data: base64}, {base64: true, data: base64}, {deep: [{base64: true, data: '/wA='}]}]];
  });
  await check('publications of all sizes', async () => {
    const name = channel(), [p, s] = [await client(), await client()];
    const messages = await subscribe(s, name), sizes = [0, 1, 50, 60, 70, 80, 90, 100, 125, 126, 127, 128, 1000, 4096, 16384, 65500, 65535, 65536, 65537, 100000, 262144, 524288, 1000000, MESSAGE_BYTES_MAX - 200];
    for (const size of sizes) await p.publish(name, 'x'.repeat(size));
    await until(() => messages.length >= sizes.length);
    return [[...messages].map((m) => m.length), sizes];
  });
  await check('a message over 1 MiB ends the connection with 1009 or 1006', async () => {
    const c = await client();
    c.publishBlind(channel(), 'x'.repeat(MESSAGE_BYTES_MAX + 1));
    await until(() => c.ends.length);
    return [[[1009, 1006].includes(c.ends[0]?.[0]), c.connects.length], [true, 1]];
  });
  await check('five thousand publications of five publishers: one order for all subscribers', async () => {
    const name = channel(), publishers = await Promise.all(Array.from({length: 5}, () => client())), subscribers = await Promise.all(Array.from({length: 4}, () => client()));
    const lists = await Promise.all([...subscribers, publishers[0]].map((c) => subscribe(c, name)));
    for (let i = 0; i < 1000; i++) {
      publishers.forEach((p, n) => p.publishBlind(name, [n, i]));
      if (i % 50 === 0) await sleep(1);
    }
    await until(() => lists.every((l) => l.length >= 5000));
    const ordered = lists.map((l) => [0, 1, 2, 3, 4].every((n) => l.filter((m) => m[0] === n).every((m, i) => m[1] === i)));
    const text = JSON.stringify([...lists[0]]);
    return [[lists.map((l) => l.length), ordered, lists.every((l) => JSON.stringify([...l]) === text)], [Array(5).fill(5000), Array(5).fill(true), true]];
  });
  await check('acknowledged publications arrive in order too', async () => {
    const name = channel(), [p, s] = [await client(), await client()];
    const messages = await subscribe(s, name);
    await Promise.all(Array.from({length: 500}, (_, i) => p.publish(name, i)));
    await until(() => messages.length >= 500);
    return [[...messages], Array.from({length: 500}, (_, i) => i)];
  });
  await check('two hundred clients at once on one channel', async () => {
    const name = channel(), all = await Promise.all(Array.from({length: 200}, () => client()));
    const lists = await Promise.all(all.map((c) => subscribe(c, name)));
    await all[0].publish(name, 'all');
    await until(() => lists.every((l) => l.length));
    await Promise.all(all.map((c) => c.invoke('ping')));
    return [[lists.filter((l) => isDeepStrictEqual([...l], ['all'])).length], [200]];
  });
  await check('clients that come and go', async () => {
    const name = channel(), c = await client(), messages = await subscribe(c, name);
    for (let i = 0; i < 20; i++) {
      const guest = await client();
      await subscribe(guest, name);
      await guest.publish(name, i);
      guest.close();
    }
    await until(() => messages.length >= 20);
    return [[...messages], Array.from({length: 20}, (_, i) => i)];
  });

  // --- batching
  if (old) {
    await check('subscriptions in one batch', async () => {
      const base = channel(), c = begin();
      const lists = Array.from({length: 30}, (_, i) => c.begin(`${base}-${i}`, {batch: true}));
      await until(() => lists.every((l) => l.channel.state === 'subscribed'));
      for (let i = 0; i < 30; i++) c.publishBlind(`${base}-${i}`, i);
      await until(() => lists.every((l) => l.length));
      return [lists.map((l) => [...l]), lists.map((_, i) => [i])];
    });
  } else {
    await check('a client that batches after the handshake', async () => {
      const base = channel(), c = begin({batchOnHandshake: true, batchOnHandshakeDuration: 200, batchInterval: 20});
      const lists = Array.from({length: 30}, (_, i) => c.begin(`${base}-${i}`));
      const counts = Promise.all(Array.from({length: 30}, () => c.invoke('ping')));
      await until(() => lists.every((l) => l.channel.state === 'subscribed'));
      for (let i = 0; i < 30; i++) c.publishBlind(`${base}-${i}`, i);
      await until(() => lists.every((l) => l.length));
      return [[lists.map((l) => [...l]), (await counts).length], [lists.map((_, i) => [i]), 30]];
    });
    await check('batching by hand', async () => {
      const name = channel(), c = await client(), messages = await subscribe(c, name);
      c.socket.startBatching();
      for (let i = 0; i < 100; i++) c.publishBlind(name, i);
      const counts = await Promise.all(Array.from({length: 20}, () => c.invoke('ping')));
      c.socket.stopBatching();
      await until(() => messages.length >= 100);
      return [[[...messages], counts.length], [Array.from({length: 100}, (_, i) => i), 20]];
    });
  }
  await check('what was asked before the connection stands is carried out: subscriptions first', async () => {
    const name = channel(), c = begin();
    const messages = c.begin(name);
    for (let i = 0; i < 5; i++) c.publishBlind(name, i);
    const reply = c.invoke('ping');
    await until(() => messages.length >= 5);
    return [[[...messages], (await reply).count > 0], [[0, 1, 2, 3, 4], true]];
  });

  // --- disconnects and reconnects
  for (const [code, reason] of [[1000, ''], [1001, 'away'], [4000, ''], [4321, 'own reason'], [4999, 'ü']]) {
    await check(`disconnect with ${code} ${JSON.stringify(reason)}`, async () => {
      const name = channel(), [c, other] = [await client(), await client()];
      await subscribe(c, name);
      c.disconnect(code, reason);
      await until(() => c.ends.length && c.socket.state === 'closed');
      await other.publish(name, 1);
      return [[c.ends[0]?.[0], c.socket.state, (await other.invoke('ping')).count > 0], [code, 'closed', true]];
    });
  }
  await check('reconnects after a cut, is subscribed again, sends what waited, in order', async () => {
    const r = await relay(), name = channel(), p = await client();
    try {
      const c = await client({hostname: '127.0.0.1', port: r.port, autoReconnect: true, autoReconnectOptions: {initialDelay: 300, randomness: 50}, token: token()});
      const messages = await subscribe(c, name), other = await subscribe(c, `${name}-2`);
      await p.publish(name, 'before');
      await until(() => messages.length);
      r.cut();
      await until(() => c.socket.state !== 'open');
      for (const value of ['queued 1', 'queued 2', 'queued 3']) c.publishBlind(name, value);
      await until(() => c.connects.length === 2 && c.socket.subscriptions().length === 2);
      await p.publish(name, 'after');
      await p.publish(`${name}-2`, 'other');
      await until(() => messages.length >= 5 && other.length);
      return [[[...messages], [...other], c.connects.length, c.connects[0].id !== c.connects[1]?.id, c.connects[1]?.isAuthenticated, c.ends[0]?.[0]],
        [['before', 'queued 1', 'queued 2', 'queued 3', 'after'], ['other'], 2, true, true, 1006]];
    } finally { r.end(); }
  });
  await check('a call cut off in flight fails', async () => {
    const r = await relay();
    try {
      const c = await client({hostname: '127.0.0.1', port: r.port});
      const pending = c.invoke('nothing').then(() => 'answered', (e) => e.name);
      await c.invoke('ping');
      r.cut();
      // Major 5 does not end the call with the connection; the call times out.
      return [[await pending], [major === 5 ? 'TimeoutError' : 'BadConnectionError']];
    } finally { r.end(); }
  });
  await check('reconnects five times in a row', async () => {
    const r = await relay(), name = channel(), p = await client();
    try {
      const c = await client({hostname: '127.0.0.1', port: r.port, autoReconnect: true, autoReconnectOptions: {initialDelay: 20, randomness: 5, multiplier: 1}});
      const messages = await subscribe(c, name);
      for (let i = 0; i < 5; i++) {
        r.cut();
        await until(() => c.connects.length === i + 2 && c.socket.subscriptions().includes(name));
        await p.publish(name, i);
        await until(() => messages.length >= i + 1);
      }
      return [[[...messages], new Set(c.connects.map((s) => s.id)).size], [[0, 1, 2, 3, 4], 6]];
    } finally { r.end(); }
  });
  beside('stays connected over several pings', async () => {
    const c = await client();
    await sleep(9000);
    return [[c.socket.state, c.ends, c.connects.length, (await c.invoke('ping')).count > 0], ['open', [], 1, true]];
  });
  await Promise.all(waiting);
}

await Promise.all(MAJORS.map(suite));
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
