// Writes min-bin.txt: messages in the codec of the npm package sc-codec-min-bin 3.0.0, each as hex and as the JSON text of
// its packet. Some were recorded between a client and a server with this codec, the others are made here by that package.
// node min-bin.mjs RECORDINGS > min-bin.txt     (npm install sc-codec-min-bin@3.0.0 first)
import fs from 'node:fs';
import {createRequire} from 'node:module';

const codec = createRequire(import.meta.url)('sc-codec-min-bin');
const hex = (bytes) => Buffer.from(bytes).toString('hex');
const json = (packet) => JSON.stringify(packet, (key, value) => (value instanceof ArrayBuffer ? {base64: true, data: Buffer.from(value).toString('base64')} : value));

const lines = new Map();
const shapes = new Set();
const add = (bytes, text) => {
  // One of several that differ by a socket id or a token only; none that takes more than a few lines.
  const shape = text.replace(/"id":"[^"]+"/, '').replace(/"authToken":"[^"]+"/, '');
  if (shapes.has(shape) || bytes.length + text.length > 3000) return;
  shapes.add(shape);
  lines.set(bytes, text);
};

const [recordings] = process.argv.slice(2);
for (const file of fs.readdirSync(recordings).filter((name) => name.includes('minbin')).sort()) {
  for (const line of fs.readFileSync(`${recordings}/${file}`, 'utf8').trim().split('\n')) {
    const {kind, data} = JSON.parse(line);
    if (kind !== 'binary' || data.endsWith('...')) continue;
    let packet;
    try { packet = codec.decode(Buffer.from(data, 'hex')); } catch { continue; }
    if (packet === null || typeof packet !== 'object' || ArrayBuffer.isView(packet)) continue;
    const text = json(packet);
    // Not what JSON cannot say: NaN, for one.
    if (hex(codec.encode(packet)) === data && !text.includes('"nan"')) add(data, text);
  }
}

const bytes = (...list) => new Uint8Array(list).buffer;
const numbered = (count, value) => Object.fromEntries(Array.from({length: count}, (_, index) => [`k${index}`, value]));
const values = [
  0, 1, -1, 31, -32, -33, 127, 128, 255, 256, -128, -129, 32767, 32768, 65535, 65536, -32768, -32769, 2147483647, 2147483648,
  -2147483648, -2147483649, 4294967295, 4294967296, 1e15, 1732924800000, 1.5, -0.1, 1e300, 5e-324, true, false, null,
  '', 'a', 'ü✓😀', 'x'.repeat(31), 'x'.repeat(32), 'x'.repeat(255), 'x'.repeat(256), '"\\\n\u0000\u2028',
  [], {}, [[]], {a: {}}, [{}], Array(15).fill(0), Array(16).fill(0), numbered(15, 1), numbered(16, [1]), {'': 1, 'a b': [1, {c: [null]}]},
  bytes(1, 2, 255), bytes(), new ArrayBuffer(254), new ArrayBuffer(255), new ArrayBuffer(256), [bytes(7), {z: bytes(9)}],
];
const packets = [
  {event: '#publish'}, {event: '#publish', data: null, cid: 1}, {event: '#publish', data: {channel: 'c'}}, {event: '#handshake', data: {}, cid: 1},
  {rid: 1}, {x: 1, event: 'e', y: [2]}, {x: 1}, [{event: 'a'}, {rid: 1, data: 2}, {event: '#publish', data: {channel: 'c', data: 1}}], [], [{event: 'e', cid: 1.5}],
];
for (const value of values) {
  packets.push({event: 'e', data: value}, {event: 'e', data: value, cid: 7}, {event: '#publish', data: {channel: 'c', data: value}},
    {event: '#publish', data: {channel: 'c', data: value}, cid: 2}, {rid: 3, data: value}, {rid: 300000, error: value ?? {message: 'm', name: 'N'}});
}
for (const packet of packets) {
  const text = json(packet);
  add(hex(codec.encode(packet)), text);
}
process.stdout.write([...lines].map((line) => line.join(' ')).join('\n') + '\n');
