// Sections 3 and 11: frames, fragments, close frames and sizes (RFC 6455).
import {closing, frame} from '../lib/wire.mjs';
import {binary, bytes, close, ended, frames, idle, open, ready, subscribe, sync, text} from './build.mjs';

const after = (name, ...steps) => ({name: `frames: ${name}`, config: 'base', steps: [...ready(), ...steps]});
const ends = (name, ...steps) => after(name, ...steps, ended());
const ping = '{"event":"ping","cid":5}';
export const scripts = [];

// Opcodes and bits.
for (const opcode of [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) scripts.push(ends(`reserved opcode ${opcode}`, bytes(frame(opcode, 'x'))));
for (const rsv of [1, 2, 3, 4, 5, 6, 7]) scripts.push(ends(`reserved bits ${rsv}`, bytes(frame(1, ping, {rsv}))));
for (const rsv of [1, 2, 4]) scripts.push(ends(`reserved bits ${rsv} on a ping`, bytes(frame(9, '', {rsv}))));
for (const opcode of [0, 1, 2, 8, 9, 10]) scripts.push(ends(`unmasked frame, opcode ${opcode}`, bytes(frame(opcode, opcode === 8 ? closing(1000) : 'x', {mask: false}))));
scripts.push(ends('unmasked empty text', bytes(frame(1, '', {mask: false}))));
scripts.push({name: 'frames: unmasked frame before the handshake', config: 'base', steps: [open(), bytes(frame(1, 'x', {mask: false})), ended()]});

// Control frames.
for (const size of [0, 1, 125]) scripts.push(after(`ping with ${size} bytes`, bytes(frame(9, Buffer.alloc(size, 7))), sync()));
for (const opcode of [8, 9, 10]) {
  scripts.push(ends(`control frame ${opcode} of 126 bytes`, bytes(frame(opcode, opcode === 8 ? closing(1000, 'x'.repeat(124)) : Buffer.alloc(126)))));
  scripts.push(ends(`control frame ${opcode} without FIN`, bytes(frame(opcode, '', {fin: false}))));
  scripts.push(ends(`control frame ${opcode}, 64-bit length`, bytes(frame(opcode, Buffer.alloc(4), {form: 64}))));
}
scripts.push(ends('control frame, 16-bit form of a small length', bytes(frame(9, 'abc', {form: 16}))));
scripts.push(after('pong nobody asked for', bytes(frame(10, 'abc')), sync()));
scripts.push(after('three pings in one segment', bytes(frame(9, 'a'), frame(9, 'b'), frame(9, 'c')), sync()));
scripts.push({name: 'frames: ping before the handshake', config: 'base', steps: [open(), bytes(frame(9, 'early')), ...ready().slice(1), sync()]});
scripts.push({name: 'frames: pong before the handshake', config: 'base', steps: [open(), bytes(frame(10, 'early')), ...ready().slice(1), sync()]});

// Lengths in a longer form than needed are accepted by the reference.
scripts.push(after('16-bit form of a small length', bytes(frame(1, ping, {form: 16})), frames(2)));
scripts.push(after('64-bit form of a small length', bytes(frame(1, ping, {form: 64})), frames(2)));
scripts.push(ends('64-bit length over 2^53', bytes(frame(1, '', {form: 64, length: 2 ** 60}))));
scripts.push(ends('64-bit length of 2^31', bytes(frame(1, '', {form: 64, length: 2 ** 31}))));
scripts.push(ends('64-bit length with the highest bit', bytes(Buffer.from([0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5]))));

// Fragments.
const cut = (value, sizes, between = []) => {
  const body = Buffer.from(value), parts = [];
  let at = 0;
  sizes.concat(body.length).forEach((size, i, all) => {
    const end = i === all.length - 1 ? body.length : Math.min(body.length, at + size);
    parts.push(frame(i ? 0 : 1, body.subarray(at, end), {fin: i === all.length - 1}), ...(i < all.length - 1 ? between : []));
    at = end;
  });
  return parts;
};
for (const sizes of [[1], [0], [0, 0, 0], [5, 5], [1, 1, 1, 1], [ping.length], Array(ping.length).fill(1)]) {
  scripts.push(after(`text in fragments of ${JSON.stringify(sizes).slice(0, 30)}`, bytes(...cut(ping, sizes)), frames(2)));
}
scripts.push(after('ping between fragments', bytes(...cut(ping, [3, 3], [frame(9, 'mid')])), frames(2)));
scripts.push(after('pong between fragments', bytes(...cut(ping, [3, 3], [frame(10, 'mid')])), frames(2)));
scripts.push(ends('close between fragments', bytes(...cut(ping, [3], [frame(8, closing(1000))]))));
scripts.push(after('multi-byte character cut by a fragment', subscribe('cut-character'), bytes(...cut('{"event":"#publish","data":{"channel":"cut-character","data":"é€😀"},"cid":3}', [61, 1, 1, 1, 1, 1, 1, 1])), frames(4)));
scripts.push(after('binary message in fragments', bytes(frame(2, ping.slice(0, 4), {fin: false}), frame(0, ping.slice(4))), frames(2)));
scripts.push(after('fragments each in its own segment', ...cut(ping, [4, 4, 4]).flatMap((f) => [bytes(f), idle(5)]), frames(2)));
scripts.push(after('frame byte by byte', ...[...frame(1, ping)].map((b) => bytes([b])), frames(2)));
scripts.push(ends('continuation without a beginning', bytes(frame(0, 'x'))));
scripts.push(ends('continuation without a beginning, not final', bytes(frame(0, 'x', {fin: false}))));
scripts.push(ends('text inside a fragmented text', bytes(frame(1, 'a', {fin: false}), frame(1, 'b'))));
scripts.push(ends('binary inside a fragmented text', bytes(frame(1, 'a', {fin: false}), frame(2, 'b'))));
scripts.push(ends('continuation after the final fragment', bytes(...cut(ping, [3]), frame(0, 'x'))));
scripts.push(after('empty text in three fragments', bytes(frame(1, '', {fin: false}), frame(0, '', {fin: false}), frame(0, '')), sync()));
scripts.push(ends('reserved bit on a continuation', bytes(frame(1, 'a', {fin: false}), frame(0, 'b', {rsv: 4}))));

// UTF-8.
const invalid = {
  'lone continuation byte': [0x80], 'lone start byte': [0xc3], 'start without continuation': [0xc3, 0x28], 'overlong slash': [0xc0, 0xaf], 'overlong NUL': [0xc0, 0x80], 'overlong in three': [0xe0, 0x80, 0xaf],
  'overlong in four': [0xf0, 0x80, 0x80, 0xaf], 'high surrogate': [0xed, 0xa0, 0x80], 'low surrogate': [0xed, 0xbf, 0xbf], 'surrogate pair': [0xed, 0xa0, 0x81, 0xed, 0xb0, 0x80], 'above U+10FFFF': [0xf4, 0x90, 0x80, 0x80],
  'five bytes': [0xf8, 0x88, 0x80, 0x80, 0x80], 'byte fe': [0xfe], 'byte ff': [0xff], 'cut short at two of three': [0xe2, 0x82], 'cut short at three of four': [0xf0, 0x9f, 0x98],
};
for (const [name, tail] of Object.entries(invalid)) {
  scripts.push(ends(`invalid UTF-8 in text: ${name}`, bytes(frame(1, Buffer.concat([Buffer.from('{"event":"'), Buffer.from(tail)])))));
  scripts.push(ends(`invalid UTF-8 in the close reason: ${name}`, bytes(frame(8, closing(1000, Buffer.from(tail))))));
  scripts.push(after(`invalid UTF-8 in binary: ${name}`, subscribe('$C'), frames(2), binary(Buffer.concat([Buffer.from('{"event":"#publish","data":{"channel":"$C","data":"'), Buffer.from(tail), Buffer.from('"},"cid":3}')])), sync()));
}
scripts.push(ends('invalid UTF-8 across fragments', bytes(frame(1, Buffer.from([0x61, 0xe2, 0x82]), {fin: false}), frame(0, Buffer.from([0x28])))));
scripts.push(after('noncharacters are valid UTF-8', subscribe('$C'), text('{"event":"#publish","data":{"channel":"$C","data":"\uffff\ufdd0\u{1ffff}\u{10ffff}"},"cid":3}'), frames(4)));

// Close frames.
for (const code of [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4001, 4500, 4999]) {
  scripts.push(after(`close with ${code}`, close(closing(code))), after(`close with ${code} and a reason`, close(closing(code, 'bye – \u00e9'))));
}
for (const code of [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]) scripts.push(ends(`close with illegal ${code}`, bytes(frame(8, closing(code)))));
scripts.push(after('close without a code', close(Buffer.alloc(0))));
scripts.push(ends('close with one byte', bytes(frame(8, Buffer.from([3])))));
scripts.push(after('close with a reason of 123 bytes', close(closing(1000, 'r'.repeat(123)))));
scripts.push(ends('close twice', bytes(frame(8, closing(1000)), frame(8, closing(1001)))));
scripts.push(ends('a call behind the close frame is not answered', bytes(frame(8, closing(1000)), frame(1, ping))));
scripts.push(ends('a broken frame behind the close frame', bytes(frame(8, closing(1000)), frame(3, 'x'))));
scripts.push({name: 'frames: close before the handshake', config: 'base', steps: [open(), close(closing(1000))]});
scripts.push({name: 'frames: close without a code before the handshake', config: 'base', steps: [open(), close(Buffer.alloc(0))]});
scripts.push({name: 'frames: FIN instead of a close frame', config: 'base', steps: [...ready(), {do: 'fin'}, ended()]});
scripts.push({name: 'frames: FIN before the handshake', config: 'base', steps: [open(), {do: 'fin'}, ended()]});
scripts.push({name: 'frames: FIN in the middle of a frame', config: 'base', steps: [...ready(), bytes(frame(1, ping).subarray(0, 5)), idle(30), {do: 'fin'}, ended()]});

// Sizes around the limit of 2,000 bytes.
const packet = (size) => { const head = '{"event":"ping","cid":5,"x":"', tail = '"}'; return `${head}${'x'.repeat(size - head.length - tail.length)}${tail}`; };
for (const size of [1998, 1999, 2000]) {
  scripts.push(after(`message of ${size} bytes`, text(packet(size)), frames(2)));
  scripts.push(after(`message of ${size} bytes in fragments`, bytes(...cut(packet(size), [999, 700])), frames(2)));
  scripts.push(after(`binary message of ${size} bytes`, binary(packet(size)), frames(2)));
}
for (const size of [2001, 2100, 5000, 70000]) {
  scripts.push(ends(`message of ${size} bytes`, text(packet(size))));
  scripts.push(ends(`message of ${size} bytes in fragments`, bytes(...cut(packet(size), [999, 700]))));
  scripts.push(ends(`message of ${size} bytes, only its head sent`, bytes(frame(1, '', {length: size}))));
}
scripts.push(ends('fragments that exceed the limit before the last', bytes(frame(1, 'x'.repeat(1500), {fin: false}), frame(0, 'x'.repeat(501), {fin: false}))));
scripts.push({name: 'frames: message over the limit before the handshake', config: 'base', steps: [open(), text(packet(2001)), ended()]});
for (const size of [65535, 65536, 65537, 1048575, 1048576]) scripts.push({...after(`large message of ${size} bytes`, text(packet(size)), frames(2)), config: 'large'});
scripts.push({...ends('large message over the limit', text(packet(1048577))), config: 'large'});
for (const size of [100, 125, 126, 127, 1000, 65400, 65535, 65536, 200000]) {
  scripts.push({...after(`publication of ${size} bytes comes back`, subscribe('$C'), text(`{"event":"#publish","data":{"channel":"$C","data":"${'p'.repeat(size)}"},"cid":3}`), frames(4)), config: 'large'});
}
