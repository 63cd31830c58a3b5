// Section 3, "JSON details": documents as a packet, as published data, as a call id, as a channel, as a token, as an event name.
import {frames, handshake, open, ready, subscribe, sync, text} from './build.mjs';

const deep = (n, a = '[', b = ']') => a.repeat(n) + b.repeat(n);
/** Text that is JSON. */
export const valid = [
  '0', '-0', '1', '-1', '1.5', '1.0', '-1.50', '1e2', '1E2', '1e+2', '1e-2', '1e21', '1e20', '123456789012345680000', '1e-7', '0.000001', '1e400', '-1e400', '5e-324', '4e-325', '1.7976931348623157e308', '9007199254740991', '9007199254740993',
  '12345678901234567890', '0.1', '0.30000000000000004', '100', '1e0', '0e0', '0.0', '2147483648', '-2147483649', '4294967296', '18446744073709551616', '3.141592653589793238462643383279', `1${'0'.repeat(300)}`, `0.${'0'.repeat(200)}1`, '9'.repeat(200),
  'null', 'true', 'false', '""', '"a"', '" "', '"\\u0000"', '"\\u001f"', '"\\b\\f\\n\\r\\t"', '"\\/"', '"/"', '"\\\\"', '"\\""', '"\\u0041"', '"\\u00e9"', '"é"', '"€"', '"😀"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\udc00"', '"\\udc00\\ud800"', '"\\ud800x"', '"\\uD800\\uD800\\uDC00"', '"\\u2028\\u2029"', '"\u2028"', '"\\u007f"', '"\x7f"', '"\\uFFFF"', '"\\ufeff"', '"\ufeff"', '"<script>"', '"\'"',
  '"#1"', '"#2"', '"constructor"', '"__proto__"', '"\\u005f_proto__"', `"${'x'.repeat(1000)}"`, '"2026-11-22T00:00:00.000Z"',
  '[]', '[1]', '[[]]', '[null,null]', '[ 1 , 2 ]', '[\n1\t,\r2 ]', '[1,"a",{"b":[true,false,null]}]', deep(20), deep(100), deep(127), deep(128), deep(300), deep(900), deep(50, '{"a":', '}').replace('{"a":}', '{}'), `[${Array(300).fill('0').join(',')}]`,
  '{}', '{"a":1}', '{ "a" : 1 }', '{"a":1,"a":2}', '{"a":1,"b":2,"a":3}', '{"":1}', '{"a":{"a":{"a":{}}}}', '{"2":1,"1":2,"b":3,"0":4}', '{"10":1,"9":2,"-1":3,"01":4}', '{"4294967295":1,"4294967294":2,"a":3}', '{"__proto__":1}', '{"__proto__":{"x":1}}', '{"constructor":{"prototype":{"x":1}}}', '{"toString":1}', '{"hasOwnProperty":null}', '{"toJSON":1}', '{"length":5}', '{"then":1}',
  '{"\\u0061":1,"a":2}', '{"é":1}', '{"\\ud800":1}', '{"\\n":1}', '{"a":-0}', '{"a":1e400}', '{"data":1}', '{"channel":"x"}', '{"event":"x"}', '{"cid":1}', '{"rid":1}', '{"rid":99}', '{"error":1}', '{"rid":1,"error":"x"}',
  '{"base64":true,"data":"AQI="}', '{"type":"Buffer"}', '{"type":"Buffer","data":"x"}', '{"type":"buffer","data":[1]}', '{"$ref":"$"}', '{"a":"b","c":["d",{"e":"f"}],"g":null,"h":true,"i":1.25}',
];
/** Text that looks like JSON but is not. */
export const invalid = [
  '', ' ', '{', '}', '[', ']', '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', '{,}', '{,"a":1}', '{"a" 1}', '{"a"::1}', '{"a":1 "b":2}', '{a:1}', "{'a':1}", '{"a":1}}', '{"a":1}x', '{"a":1}{"b":2}', '{"a":1},', '{"a":1}\u0000', '{1:1}', '{null:1}', '{"a":undefined}', '{"a":}', '{"a":1;"b":2}', '{"a"=1}', '{/**/}', '{"a":1}//c', '{"a":1/*c*/}', '#{}',
  '[1,]', '[,1]', '[1,,2]', '[1 2]', '[1', '1]', '[1]]', '[}', '{]', '["a]', '[1}', '[undefined]', '[NaN]', '[Infinity]', '[-Infinity]', '[True]', '[nul]', '[nulll]', '[tru]', '[truee]', '[fals]', '[falsey]', '[NULL]',
  '[+1]', '[-]', '[--1]', '[.5]', '[1.]', '[1.e1]', '[01]', '[-01]', '[00]', '[1e]', '[1e+]', '[1e-]', '[1E+-1]', '[0x10]', '[1_000]', '[1,000.]', '[1a]', '[0b1]', '[0o7]', '[1n]', '[- 1]', '[1 .5]', '[٣]', '[１]',
  '["\\x41"]', '["\\u12"]', '["\\u12G4"]', '["\\u"]', '["\\"]', '["\\a"]', '["\\v"]', '["\\0"]', '["\\\'"]', '["\\U0041"]', '["\t"]', '["\n"]', '["\r"]', '["\u0000"]', '["\u001f"]', '["a', '["a\\', '"', '"a', '\'a\'', '`a`', '["a""b"]', '["\\\n"]',
  'nul', 'nulL', 'True', 'tru', 'undefined', 'NaN', 'Infinity', '-', '+1', '01', '.5', '1.', 'abc', '\u00a0{}', '\u2028{}', '\ufeff{}', '\ufeff[]', '\v{}', '\f[]', '{}\v', '[]\ufeff', '[\u00a0]', '[1]\u00a0', '{\f}', deep(100).slice(0, -1), `${deep(100)}]`, '['.repeat(500), '{"a":'.repeat(200),
];
/** Legal white space around JSON. */
const spaced = [' {}', '\n{}', '\r\n\t {}', '{} ', '{}\n', '[] \t\r\n', '\t[]', '{\n}', '[ ]', ' \n [ \r { \t } ] '];

const short = (doc) => { const s = JSON.stringify(doc); return s.length > 60 ? `${s.slice(0, 50)}... ${doc.length}` : s; };
export const scripts = [];
const add = (name, ...steps) => scripts.push({name: `json: ${name}`, config: 'base', steps});
/** Scripts with channel names that other scripts use too run one at a time. */
const alone = (...script) => { add(...script); scripts.at(-1).alone = true; };

for (const doc of [...valid, ...invalid, ...spaced]) {
  add(`packet ${short(doc)}`, ...ready(), text(doc), sync());
  add(`first packet ${short(doc)}`, open(), text(doc), ...(/^[ \n\r\t]*\[[ \n\r\t]*\][ \n\r\t]*$/.test(doc) ? [handshake(null), frames(1)] : [{do: 'closed'}]));
}
for (const doc of [...valid, ...invalid]) {
  add(`published data ${short(doc)}`, ...ready(), subscribe('$C'), frames(2), text(`{"event":"#publish","data":{"channel":"$C","data":${doc}},"cid":3}`), sync());
  add(`call id ${short(doc)}`, ...ready(), text(`{"event":"ping","cid":${doc}}`), text(`{"event":"#subscribe","data":{},"cid":${doc}}`), sync());
}
for (const doc of [...valid.filter((d) => d.length < 400), ...invalid.slice(0, 40)]) {
  alone(`channel ${short(doc)}`, ...ready(), text(`{"event":"#subscribe","data":{"channel":${doc}},"cid":2}`), text(`{"event":"#publish","data":{"channel":${doc},"data":1},"cid":3}`),
    text(`{"event":"#unsubscribe","data":${doc},"cid":4}`), text(`{"event":"#unsubscribe","data":${doc},"cid":5}`), sync());
}
for (const doc of valid.filter((d) => d.length < 400)) {
  add(`handshake data ${short(doc)}`, open(), text(`{"event":"#handshake","data":${doc},"cid":1}`), frames(1));
  add(`handshake token ${short(doc)}`, open(), text(`{"event":"#handshake","data":{"authToken":${doc}},"cid":1}`), frames(1));
  add(`handshake call id ${short(doc)}`, open(), text(`{"event":"#handshake","data":{},"cid":${doc}}`), /^-?\d/.test(doc) ? frames(1) : {do: 'closed'});
  add(`authenticate with ${short(doc)}`, ...ready(), text(`{"event":"#authenticate","data":${doc},"cid":2}`), sync());
  alone(`subscribe data ${short(doc)}`, ...ready(), text(`{"event":"#subscribe","data":${doc},"cid":2}`), sync());
  alone(`publish data ${short(doc)}`, ...ready(), text(`{"event":"#publish","data":${doc},"cid":2}`), sync());
  add(`ping data ${short(doc)}`, ...ready(), text(`{"event":"ping","data":${doc},"cid":2}`), text(`{"event":"ping","data":${doc}}`), sync());
  add(`rid ${short(doc)}`, ...ready(), text(`{"rid":${doc},"data":1}`), sync());
  add(`error of a response ${short(doc)}`, ...ready(), text(`{"rid":1,"error":${doc}}`), sync());
}
// The names that end the reference's process are in packets.mjs.
for (const doc of valid.filter((d) => d.length < 400 && !/^"(constructor|__proto__|\\u005f_proto__)"$/.test(d))) {
  add(`event ${short(doc)}`, ...ready(), text(`{"event":${doc},"data":1,"cid":2}`), text(`{"event":${doc}}`), sync());
}
