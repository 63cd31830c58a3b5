// Cuts the recorded traffic into scenarios that the default application can answer, and writes them beside this file.
// node select.mjs RECORDINGS        RECORDINGS is the folder of the original *.jsonl files; README.md says what is kept and why.
import {createHmac} from 'node:crypto';
import {readFileSync, writeFileSync} from 'node:fs';

const folder = process.argv[2];
if (!folder) { console.error('usage: node select.mjs RECORDINGS'); process.exit(2); }
const key = 'test-secret';
const raw = (protocol) => ({RINGCAST_PROTOCOL: protocol, RINGCAST_MESSAGE_BYTES_MAX: '2000', RINGCAST_CHANNELS_PER_CONNECTION_MAX: '3', RINGCAST_HANDSHAKE_TIMEOUT_MS: '400'});
const clients = (protocol) => ({RINGCAST_PROTOCOL: protocol, RINGCAST_PING_INTERVAL_MS: '2000', RINGCAST_PING_TIMEOUT_MS: '3000'});
const sources = {
  'raw-server20-p2': raw('2'), 'raw-server20-p1': raw('1'), 'http-server20': {RINGCAST_PROTOCOL: '2'}, 'misc-server20-p2': {RINGCAST_PROTOCOL: '2'},
  'timers-server20-p2': {RINGCAST_PROTOCOL: '2', RINGCAST_PING_INTERVAL_MS: '200', RINGCAST_PING_TIMEOUT_MS: '600'},
  'client14-server20-p1-auth-handshake': clients('1'), 'client20-server20-p1-auth-handshake': clients('1'),
  ...Object.fromEntries([15, 16, 19, 20].map((major) => [`client${major}-server20-p2-auth-handshake`, clients('2')])),
  'client20-server20-p2-lifecycle': clients('2'), 'client15-server20-p2-lifecycle': clients('2'), 'client14-server20-p1-lifecycle': clients('1'),
};
/** Scenarios by reason of being left out. A name that is in none of these is kept. */
const left = [
  [/^event name (__proto__|constructor|toString|hasOwnProperty|valueOf)/, 'the reference\'s process ends'],
  [/^(invalid UTF-8 in a text frame|unmasked client frame|reserved opcode|RSV1 set|client closes with (an invalid code 999|1005 on the wire)|message over maxPayload)/, 'the recording does not hold the client\'s bytes'],
  [/^deep nesting/, 'cut in the recording'],
  [/^(number formatting echo|string escapes echo|duplicate keys: last wins|__proto__ key inside data)/, 'about the data that `echo` returns'],
  [/blockedbad|blockedsoft|authAlgorithm|denied|deny|4100|default code|same tick|terminates|cannot be signed|server.invoke|answers an invoke|waits for its answer|kickOut|disconnect\(\) with|proto pollution|ack timeout|reconnect|attach\(\)|perMessageDeflate: true|does not ping|before the handshake and is answered|two invokes in one tick/, 'needs custom procedures, middleware, options or a server action'],
];

const summary = {kept: 0, left: {}};
for (const [source, environment] of Object.entries(sources)) {
  const entries = readFileSync(`${folder}/${source}.jsonl`, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  const recorded = issued(entries);
  const scenarios = [], owner = new Map();
  for (const entry of entries) {
    const comment = entry.dir === 'meta' && /^(server log|client (saw|errs|events|state)|SERVER PROCESS|\{|\[)/.test(entry.data);
    if (entry.dir === 'meta' && !comment) scenarios.push({name: entry.data, entries: []});
    else if (entry.dir === 'meta' && /SERVER PROCESS/.test(entry.data)) scenarios.at(-1).died = true;
    else if (entry.dir !== 'meta') {
      // The end of a connection may have been written down after the next scenario's heading.
      if (entry.dir === 'c2s' && entry.kind === 'http' || !owner.has(entry.conn)) owner.set(entry.conn, scenarios.at(-1));
      owner.get(entry.conn).entries.push(entry);
    }
  }
  const lines = [];
  for (const {name, entries: list, died} of scenarios) {
    if (!list.length) continue;
    const reason = died ? 'the reference\'s process ends' : list.some((e) => e.truncated) ? 'cut in the recording' : left.find(([pattern]) => pattern.test(name))?.[1];
    const timed = /^(raw client never answers|no middleware)/.test(name); // what happens depends on when the client sends
    const converted = reason ? null : convert(list, source.startsWith('misc') ? issued(list) : recorded, timed);
    if (!converted) { (summary.left[reason ?? 'needs custom procedures, middleware, options or a server action'] ??= []).push(`${source}: ${name}`); continue; }
    const own = {...environment, ...(name === 'allowClientPublish false' ? {RINGCAST_ALLOW_CLIENT_PUBLISH: 'false'} : {}), ...(/^origins "([^"]*)"/.test(name) ? {RINGCAST_ORIGINS: /^origins "([^"]*)"/.exec(name)[1]} : {})};
    lines.push(JSON.stringify({scenario: name, environment: own}), ...converted.map((entry) => JSON.stringify(entry)));
    summary.kept++;
  }
  writeFileSync(new URL(`${source}.jsonl`, import.meta.url), `${lines.join('\n')}\n`);
}
console.log(JSON.stringify(summary, null, 1));

/** When the youngest token among the entries was issued: about the time of the recording. */
function issued(entries) {
  const claims = (token) => { try { return JSON.parse(Buffer.from(token.split('.')[1], 'base64url')); } catch { return {}; } };
  return Math.max(0, ...(JSON.stringify(entries).match(/eyJ[\w-]+\.[\w-]+\.[\w-]*/g) ?? []).map((token) => claims(token).iat ?? 0));
}

/** The entries as they are replayed, or null if a procedure of the recording's application is called that `ping` cannot stand for. */
function convert(list, recorded, timed) {
  const renamed = new Map(), dropped = new Map(), result = [];
  const seen = (map, conn, id) => map.get(conn)?.has(id);
  const note = (map, conn, id) => { if (!map.has(conn)) map.set(conn, new Set()); map.get(conn).add(id); };
  let before = list[0].t;
  for (const {t, dir, kind, data, conn} of list) {
    const entry = {conn, dir, kind, data};
    if (timed && dir === 'c2s' && t - before >= 50) entry.wait_ms = t - before;
    if (kind === 'text' && data === '' || data === '#1' || data === '#2') {
      // Pings of the server come by the clock, and the client's answers with them.
      if (dir === 's2c' || result.some((e) => e.conn === conn && e.dir === 's2c' && e.kind === 'text') && list.some((e) => e.conn === conn && e.dir === 's2c' && (e.data === '' || e.data === '#1'))) continue;
    }
    if ((kind === 'text' || kind === 'binary') && dir === 'c2s') {
      const text = kind === 'text' ? data : Buffer.from(data, 'hex').toString('utf8');
      let packets = null;
      try { packets = [JSON.parse(text)].flat(); } catch { /* not JSON: sent as it is */ }
      for (const packet of packets ?? []) {
        if (packet?.event === 'stats' && typeof packet.cid === 'number') { note(dropped, conn, String(packet.cid)); entry.drop = true; }
        else if (/^(empty|echo)$/.test(packet?.event) && typeof packet.cid === 'number') {
          note(renamed, conn, Number.isFinite(packet.cid) ? String(packet.cid) : 'null');
          const ping = text.replace(/"event":"(empty|echo)"/g, '"event":"ping"');
          entry.data = kind === 'text' ? ping : Buffer.from(ping).toString('hex');
        } else if (typeof packet?.event === 'string' && /^(bin|fail.*|nil|login.*|logout|order|askMe|batchMe|denied.*|silent.*|mutate.*|note|say.*|close.*|kick.*)$/.test(packet.event) && packet.cid !== undefined) return null;
      }
      if (entry.drop) continue;
      entry.data = entry.data.replace(/eyJ[\w-]+\.[\w-]+\.[\w-]+/g, (token) => sign(token, entry, recorded));
    }
    if (kind === 'text' && dir === 's2c') {
      const rid = /^\{"rid":([^,}]+)/.exec(data)?.[1];
      if (rid !== undefined) {
        const id = rid === 'null' ? 'null' : String(Number(rid));
        if (seen(dropped, conn, id)) continue;
        if (seen(renamed, conn, id)) entry.data = `{"rid":${rid},"data":{"count":0}}`;
      }
      if (/^\[/.test(data)) return null;
    }
    // A token that lives for a second may be over before it arrives: two, and a longer wait for its end.
    for (const token of entry.tokens ?? []) if (token.relative.exp === 1) token.relative.exp = 2;
    if (entry.wait_ms >= 1000) entry.wait_ms = 3300;
    before = t;
    result.push(entry);
  }
  return result;
}

/** A token that `test-secret` signed becomes a place to put one signed now, with times as far from now as they were then. */
function sign(token, entry, recorded) {
  const [head, payload, signature] = token.split('.');
  const header = JSON.parse(Buffer.from(head, 'base64url'));
  const hash = {HS256: 'sha256', HS384: 'sha384', HS512: 'sha512'}[header.alg];
  if (!hash || createHmac(hash, key).update(`${head}.${payload}`).digest('base64url') !== signature) return token;
  const claims = JSON.parse(Buffer.from(payload, 'base64url'));
  const relative = {};
  for (const name of ['iat', 'exp', 'nbf']) if (typeof claims[name] === 'number') { relative[name] = claims[name] - recorded; delete claims[name]; }
  (entry.tokens ??= []).push({algorithm: header.alg, claims, relative});
  return `$TOKEN${entry.tokens.length - 1}`;
}
