// Sections 3, 5, 7, 9, 10, 11 and 12: packets, arrays, calls, channels, and their order.
import {binary, close, frames, handshake, idle, open, publish, ready, subscribe, sync, text} from './build.mjs';

export const scripts = [];
const add = (name, steps, more = {}) => scripts.push({name: `packets: ${name}`, config: 'base', steps, ...more});
const after = (name, ...steps) => add(name, [...ready(), ...steps, sync()]);
const first = (name, ...steps) => add(name, [open(), ...steps]);
const closed = {do: 'closed'};

// Before the handshake.
for (const packet of ['{"event":"ping","cid":1}', '{"event":"ping"}', '{"event":"#subscribe","data":{"channel":"x"},"cid":1}', '{"event":"#publish","data":{"channel":"x","data":1},"cid":1}', '{"event":"#unsubscribe","data":"x","cid":1}',
  '{"event":"#authenticate","data":"x","cid":1}', '{"event":"#authenticate","data":"x"}', '{"event":"#removeAuthToken"}', '{"event":"#disconnect","data":{}}', '{"event":"#Handshake","cid":1}', '{"event":"handshake","cid":1}', '{"event":"#handshake ","cid":1}', '{"rid":1}', '{"rid":1,"data":{}}',
  '#1', '#2', '', 'hello', '[null]', '[[]]', '[1]', '[{"event":"ping"},{"event":"#handshake","cid":1}]', '[{"event":"#handshake"}]', '[{"event":"#handshake","cid":"1"}]']) {
  first(`first packet ${packet}`, text(packet), closed);
  first(`first packet in a binary frame ${packet}`, binary(packet), closed);
}
first('a call behind a refused first packet', text('hello'), text('{"event":"#handshake","data":{},"cid":1}'), closed);
first('array with the handshake and packets after it', text('[{"event":"#handshake","data":{},"cid":1},{"event":"#subscribe","data":{"channel":"$C"},"cid":2},{"event":"#publish","data":{"channel":"$C","data":1},"cid":3},{"event":"ping","cid":4}]'), frames(5));
first('array with only the handshake', text('[{"event":"#handshake","data":{},"cid":1}]'), frames(1));
first('handshake in a binary frame', binary('{"event":"#handshake","data":{},"cid":1}'), frames(1));
first('handshake with extra keys', text('{"x":1,"event":"#handshake","y":[],"data":{"authToken":null,"z":1},"cid":1,"rid":7}'), frames(1));
first('handshake with keys in another order', text('{"cid":1,"data":{},"event":"#handshake"}'), frames(1));
first('handshake with an escaped event name', text('{"event":"\\u0023handshake","cid":1}'), frames(1));
first('handshake with a repeated event key, the last one counts', text('{"event":"x","event":"#handshake","cid":1}'), frames(1));
first('handshake with a repeated cid, the last one counts', text('{"event":"#handshake","cid":"x","cid":1}'), frames(1));
first('handshake twice', text('{"event":"#handshake","data":{},"cid":1}'), frames(1), text('{"event":"#handshake","data":{},"cid":2}'), frames(2));
first('handshake twice in one segment', text('{"event":"#handshake","data":{},"cid":1}'), text('{"event":"#handshake","data":{},"cid":2}'), frames(2));
first('handshake later without a call id: 4008', text('{"event":"#handshake","data":{},"cid":1}'), frames(1), text('{"event":"#handshake"}'), closed);
first('handshake later with a string call id: 4008', text('{"event":"#handshake","data":{},"cid":1}'), frames(1), text('{"event":"#handshake","cid":"2"}'), closed);
first('empty arrays, then the handshake', text('[]'), text('[]'), handshake(null), frames(1));
first('pipelined packets behind the handshake', handshake(null), subscribe('$C', 2), publish('$C', 1, 3), text('{"event":"ping","cid":4}'), frames(5));

// Calls.
for (const cid of ['0', '-1', '1.5', '1e21', '1e400', '-1e400', '9007199254740993', '0.1e1', '"2"', 'true', 'null', '[]', '{}', '1e-7', '-0', '123456789012345680000', '1E3']) {
  after(`call with cid ${cid}`, text(`{"event":"ping","cid":${cid}}`));
  after(`refused call with cid ${cid}`, text(`{"event":"#subscribe","data":null,"cid":${cid}}`));
  after(`authenticate with cid ${cid}`, text(`{"event":"#authenticate","data":"x","cid":${cid}}`));
  after(`unsubscribe with cid ${cid}`, text(`{"event":"#unsubscribe","data":"never","cid":${cid}}`));
  after(`subscribe with cid ${cid}, then publish`, text(`{"event":"#subscribe","data":{"channel":"$C"},"cid":${cid}}`), publish('$C', 1, 9));
  after(`publish with cid ${cid}`, text(`{"event":"#publish","data":{"channel":"$C","data":1},"cid":${cid}}`));
}
after('the same cid twice', text('{"event":"ping","cid":2}'), text('{"event":"ping","cid":2}'));
after('a hundred calls in one array', text(JSON.stringify(Array.from({length: 60}, (_, i) => ({event: 'ping', cid: i + 2})))));
after('a hundred calls in one segment', ...Array.from({length: 100}, (_, i) => text(`{"event":"ping","cid":${i + 2}}`)));
after('event and rid: the event wins', text('{"event":"ping","cid":2,"rid":1}'), text('{"rid":1,"event":"ping","cid":3}'));
after('extra keys are ignored', text('{"a":1,"event":"ping","b":{"event":"no","cid":9},"cid":2,"c":[1]}'));
after('repeated keys: the last one counts', text('{"event":"nothing","event":"ping","cid":1,"cid":2}'));
after('repeated cid, the last is not a number', text('{"event":"ping","cid":2,"cid":"x"}'));
after('escaped keys', text('{"\\u0065vent":"ping","\\u0063id":2}'));
after('white space everywhere', text(' \r\n\t{ "event" : "ping" , "cid" : 2 } \n'));
after('unknown rid', text('{"rid":99}'), text('{"rid":"x"}'), text('{"rid":1,"error":{"message":"x"}}'), text('{"rid":null}'));
after('a ping event brings a pong event', text('{"event":"ping"}'), frames(2));
after('a ping event with data', text('{"event":"ping","data":{"a":1}}'), frames(2));
after('a ping event with a cid that is no number', text('{"event":"ping","cid":"x"}'), frames(2));
after('ping events and calls in one array', text('[{"event":"ping"},{"event":"ping","cid":2},{"event":"ping"},{"event":"ping","cid":3}]'), frames(5));
for (const event of ['', 'nothing', 'PING', 'ping ', 'pong', '#ping', '#disconnect', '#fail', '#rawmessage', '#setAuthToken', '#kickOut', '#', '##', 'connect', 'disconnect', 'message', 'error', 'authStateChange', 'raw', 'subscribe', '#Publish', '#publish ', 'é', '😀', 'x'.repeat(1000), 'isPrototypeOf', 'propertyIsEnumerable', 'toLocaleString', '__defineGetter__', '__lookupSetter__', '\\u0000', '\\ud800']) {
  if (/^(isPrototypeOf|propertyIsEnumerable|toLocaleString|__defineGetter__|__lookupSetter__)$/.test(event)) continue; // the reference's process ends, see below
  after(`event ${event.slice(0, 20)}`, text(`{"event":"${event}","data":{"channel":"x"},"cid":2}`), text(`{"event":"${event}","data":{"channel":"x"}}`));
}
// A call of one of these names ends the reference's process. Ringcast must leave it unanswered, like any unknown procedure.
for (const event of ['__proto__', 'constructor', 'toString', 'valueOf', 'hasOwnProperty', 'isPrototypeOf', 'propertyIsEnumerable', 'toLocaleString', '__defineGetter__', '__defineSetter__', '__lookupGetter__', '__lookupSetter__']) {
  add(`event ${event} is only a name`, [...ready(), text(`{"event":"${event}","data":1,"cid":2}`), text(`{"event":"${event}","data":1}`), text(`[{"event":"${event}","cid":3},{"event":"ping","cid":4}]`), frames(2), sync()],
    {expect: ['text {"rid":1,"data":{"id":"ID","pingTimeout":120000,"isAuthenticated":false}}', 'text {"rid":4,"data":{"count":N}}', 'close 1000 ""', 'end']});
}
// Channels with these names work in the reference but damage its tables, so these scripts use a server of their own.
for (const channel of ['__proto__', 'constructor', 'toString', 'valueOf', 'hasOwnProperty', 'isPrototypeOf', '__defineGetter__']) {
  add(`channel ${channel}`, [...ready(), subscribe(channel), publish(channel, 'hi', 3), frames(4), text({event: '#unsubscribe', data: channel, cid: 5}), frames(5), sync()], {config: 'names'});
}

// Arrays.
for (const array of ['[]', '[[]]', '[[[]]]', '[null]', '[1,"x",true]', '[{}]', '["#1"]', '[""]', '[{"event":"ping","cid":2},null,{"event":"ping","cid":3}]', '[[{"event":"ping","cid":2}],{"event":"ping","cid":3}]', '[{"event":"ping","cid":2},5,"{\\"event\\":\\"ping\\",\\"cid\\":4}"]',
  '[{"event":"ping","cid":2},{"event":"ping","cid":3}', '[{"event":"ping","cid":2},{"event":"ping","cid":3},]', '[{"event":"ping","cid":2}{"event":"ping","cid":3}]', '[{"event":"ping","cid":2},{"event":}]', '[{"event":"ping","cid":2}] ', '\n[{"event":"ping","cid":2}]', '[{"event":"ping","cid":2}]x',
  '[{"rid":1},{"event":"ping","cid":2}]', '[{"event":"nothing","cid":2},{"event":"ping","cid":3}]', '[{"event":"#subscribe","data":{},"cid":2},{"event":"ping","cid":3}]', '[{"event":"#authenticate","data":"x","cid":2},{"event":"#subscribe","data":{"channel":"$C"},"cid":3}]',
  '[{"event":"#unsubscribe","data":"x","cid":2},{"event":"#unsubscribe","cid":3},{"event":"#publish","data":{},"cid":4}]']) {
  after(`array ${array}`, text(array));
  after(`array in a binary frame ${array}`, binary(array));
}
for (const n of [1, 2, 10, 200, 990]) after(`array of ${n} empty things`, text(`[${Array(n).fill('0').join(',')}]`));

// Not packets.
for (const value of ['', '#1', '#2', '#3', 'hello', '{', 'null', '\u0000', '\u{1F600}']) {
  after(`text ${JSON.stringify(value)}`, text(value));
  after(`binary ${JSON.stringify(value)}`, binary(value));
}
after('binary garbage', binary([0, 1, 2, 255, 254]));
after('binary call', binary('{"event":"ping","cid":2}'));
after('binary publish', subscribe('$C'), frames(2), binary('{"event":"#publish","data":{"channel":"$C","data":"é"},"cid":3}'));
after('binary with a BOM', binary('\ufeff{"event":"ping","cid":2}'));

// Subscribing.
after('subscribe twice, one copy', subscribe('$C', 2), subscribe('$C', 3), publish('$C', 1, 4));
after('subscribe twice, unsubscribe once', subscribe('$C', 2), subscribe('$C', 3), text({event: '#unsubscribe', data: '$C', cid: 4}), publish('$C', 1, 5));
after('subscribe without cid does not subscribe', text({event: '#subscribe', data: {channel: '$C'}}), publish('$C', 1, 3));
after('subscribe with waitForAuth and data', text({event: '#subscribe', data: {channel: '$C', waitForAuth: true, data: {x: 1}, batch: true, priority: 9}, cid: 2}), publish('$C', 1, 3));
after('subscribe with the keys in another order', text('{"cid":2,"data":{"x":1,"channel":"$C"},"event":"#subscribe"}'), publish('$C', 1, 3));
after('subscribe with the channel twice, the last counts', text('{"event":"#subscribe","data":{"channel":"no","channel":"$C"},"cid":2}'), publish('$C', 1, 3), publish('no', 1, 4));
after('subscribe with a bare string', text('{"event":"#subscribe","data":"x","cid":2}'));
after('unsubscribe with an object', text('{"event":"#unsubscribe","data":{"channel":"x"},"cid":2}'));
after('unsubscribe without cid', subscribe('$C', 2), text({event: '#unsubscribe', data: '$C'}), publish('$C', 1, 3));
after('unsubscribe never subscribed', text({event: '#unsubscribe', data: '$C', cid: 2}), text({event: '#unsubscribe', data: '$C'}));
after('unsubscribe twice', subscribe('$C', 2), text({event: '#unsubscribe', data: '$C', cid: 3}), text({event: '#unsubscribe', data: '$C', cid: 4}));
after('subscribe, unsubscribe, subscribe', subscribe('$C', 2), text({event: '#unsubscribe', data: '$C', cid: 3}), subscribe('$C', 4), publish('$C', 1, 5));
after('the empty channel', subscribe('', 2), publish('', 'e', 3), text({event: '#unsubscribe', data: '', cid: 4}));
scripts.at(-1).alone = true;
for (const channel of ['a b', 'a/b', 'é', '😀', '\u0000', '\n', '"', '\\', '"\\"', "'", '<b>', '\u2028', '\u007f', '\ufeff', 'a\u0301', 'á', '#publish', '*', '>', '+/#', 'null', '0', ' ', '  x  ', 'x'.repeat(500), '{"a":1}', '[]', '$ref', 'Ω'.repeat(200), '%00', 'x\u0000y']) {
  after(`channel ${JSON.stringify(channel).slice(0, 30)}`, subscribe(`$C${channel}`, 2), publish(`$C${channel}`, {c: channel.length}, 3), text({event: '#unsubscribe', data: `$C${channel}`, cid: 4}), text({event: '#unsubscribe', data: `$C${channel}`, cid: 5}));
}
for (const channel of ['\\ud800', '\\udfff', '\\ud83d\\ude00', '\\u0041', '\\/', '\\u0000', '\\u001f', '\\b']) {
  after(`channel with the escape ${channel}`, text(`{"event":"#subscribe","data":{"channel":"$C${channel}"},"cid":2}`), text(`{"event":"#publish","data":{"channel":"$C${channel}","data":1},"cid":3}`), text(`{"event":"#unsubscribe","data":"$C${channel}","cid":4}`), text(`{"event":"#unsubscribe","data":"$C${channel}","cid":5}`));
}
after('two spellings of one channel', subscribe('$CA', 2), text('{"event":"#publish","data":{"channel":"$C\\u0041","data":1},"cid":3}'), text('{"event":"#subscribe","data":{"channel":"$C\\u0041"},"cid":4}'), publish('$CA', 2, 5));
after('two lone surrogates are two channels', text('{"event":"#subscribe","data":{"channel":"$C\\ud800"},"cid":2}'), text('{"event":"#publish","data":{"channel":"$C\\ud801","data":1},"cid":3}'), text('{"event":"#publish","data":{"channel":"$C\\ufffd","data":2},"cid":4}'));

// The channel limit of 3.
after('a fourth channel is refused', subscribe('$C1', 2), subscribe('$C2', 3), subscribe('$C3', 4), subscribe('$C4', 5));
after('at the limit a channel already held is refused too', subscribe('$C1', 2), subscribe('$C2', 3), subscribe('$C3', 4), subscribe('$C1', 5));
after('below the limit after an unsubscribe', subscribe('$C1', 2), subscribe('$C2', 3), subscribe('$C3', 4), text({event: '#unsubscribe', data: '$C2', cid: 5}), subscribe('$C4', 6));
after('the limit and odd names', subscribe('$C1', 2), subscribe('$C2', 3), subscribe('$C3', 4), subscribe('a"b\\c\nd', 5), subscribe('', 6), text('{"event":"#subscribe","data":{"channel":"\\ud800"},"cid":7}'));
after('the limit, without cid', subscribe('$C1', 2), subscribe('$C2', 3), subscribe('$C3', 4), text({event: '#subscribe', data: {channel: '$C4'}}));
after('the limit in one array', text([1, 2, 3, 4, 5].map((i) => ({event: '#subscribe', data: {channel: `$C${i}`}, cid: i + 1}))));
after('a bad shape is named before the limit', subscribe('$C1', 2), subscribe('$C2', 3), subscribe('$C3', 4), text('{"event":"#subscribe","data":{"channel":5},"cid":5}'));

// Publishing.
after('publish without subscribers', publish('$C', 1, 2), publish('$C', 1));
after('publish without data', subscribe('$C', 2), text({event: '#publish', data: {channel: '$C'}, cid: 3}));
after('publish null', subscribe('$C', 2), publish('$C', null, 3));
after('extra keys of a publish are dropped', subscribe('$C', 2), text('{"event":"#publish","data":{"x":1,"channel":"$C","y":2,"data":3,"z":4},"cid":3}'));
after('data before channel', subscribe('$C', 2), text('{"event":"#publish","data":{"data":3,"channel":"$C"},"cid":3}'));
after('data twice, the last counts', subscribe('$C', 2), text('{"event":"#publish","data":{"channel":"$C","data":1,"data":2},"cid":3}'));
after('publish data twice at the top', subscribe('$C', 2), text('{"event":"#publish","data":{"channel":"$C","data":1},"data":{"channel":"$C","data":2},"cid":3}'));
after('escaped keys in a publish', subscribe('$C', 2), text('{"event":"#publish","data":{"\\u0063hannel":"$C","dat\\u0061":5},"cid":3}'));
after('publish with a bad shape', text('{"event":"#publish","cid":2}'), text('{"event":"#publish","data":null,"cid":3}'), text('{"event":"#publish","data":{},"cid":4}'), text('{"event":"#publish","data":{"channel":5},"cid":5}'), text('{"event":"#publish","data":"x","cid":6}'), text('{"event":"#publish","data":[],"cid":7}'), text('{"event":"#publish"}'));
after('base64 data', subscribe('$C', 2), publish('$C', {base64: true, data: 'AQID'}, 3));
after('a Buffer as JSON becomes base64', subscribe('$C', 2), publish('$C', {type: 'Buffer', data: [1, 2, 255]}, 3), publish('$C', [{a: {type: 'Buffer', data: []}}], 4));
after('data that is a packet', subscribe('$C', 2), publish('$C', {event: 'ping', cid: 5}, 3));
after('three publications', subscribe('$C', 2), publish('$C', 1, 3), publish('$C', 2), publish('$C', 3, 4));
after('twenty publications in one array', subscribe('$C', 2), text(Array.from({length: 20}, (_, i) => ({event: '#publish', data: {channel: '$C', data: i}}))), frames(22));
after('publish and unsubscribe in one array', subscribe('$C', 2), text([{event: '#publish', data: {channel: '$C', data: 1}, cid: 3}, {event: '#unsubscribe', data: '$C', cid: 4}, {event: '#publish', data: {channel: '$C', data: 2}, cid: 5}]));
after('unsubscribe and publish in one array', subscribe('$C', 2), text([{event: '#unsubscribe', data: '$C', cid: 3}, {event: '#publish', data: {channel: '$C', data: 1}, cid: 4}]));
after('subscribe and publish in one array', text([{event: '#subscribe', data: {channel: '$C'}, cid: 2}, {event: '#publish', data: {channel: '$C', data: 1}, cid: 3}, {event: '#publish', data: {channel: '$C', data: 2}}]));
after('subscribe, publish, unsubscribe, publish, in one segment', subscribe('$C', 2), publish('$C', 1, 3), publish('$C', 2), text({event: '#unsubscribe', data: '$C', cid: 4}), publish('$C', 3, 5));
after('publish, subscribe, publish, in one array', text([{event: '#publish', data: {channel: '$C', data: 0}}, {event: '#subscribe', data: {channel: '$C'}, cid: 2}, {event: '#publish', data: {channel: '$C', data: 1}}]), frames(3));

// Several connections.
const both = [...ready('a'), ...ready('b')];
add('two subscribers', [...both, subscribe('$C', 2, 'a'), frames(2, 'a'), subscribe('$C', 2, 'b'), frames(2, 'b'), publish('$C', {n: 1}, 3, 'a'), frames(4, 'a'), frames(3, 'b'), publish('$C', {n: 2}, undefined, 'b'), frames(5, 'a'), frames(4, 'b')]);
add('a publisher that is not subscribed', [...both, subscribe('$C', 2, 'b'), frames(2, 'b'), publish('$C', 'x', 2, 'a'), publish('$C', 'y', undefined, 'a'), frames(2, 'a'), frames(4, 'b')]);
add('two channels, two subscribers', [...both, subscribe('$C1', 2, 'a'), subscribe('$C2', 2, 'b'), frames(2, 'a'), frames(2, 'b'), publish('$C1', 1, undefined, 'b'), publish('$C2', 2, undefined, 'a'), frames(3, 'a'), frames(3, 'b')]);
add('fifty publications in order at another', [...both, subscribe('$C', 2, 'b'), frames(2, 'b'), ...Array.from({length: 50}, (_, i) => publish('$C', i, undefined, 'a')), frames(52, 'b')]);
add('after unsubscribing nothing more comes', [...both, subscribe('$C', 2, 'b'), subscribe('$Cend', 3, 'b'), frames(3, 'b'), publish('$C', 1, 2, 'a'), frames(4, 'b'), text({event: '#unsubscribe', data: '$C', cid: 4}, 'b'), frames(5, 'b'), publish('$C', 2, 3, 'a'), publish('$Cend', 3, 4, 'a'), frames(6, 'b')]);
add('a subscriber that left', [...both, subscribe('$C', 2, 'a'), subscribe('$C', 2, 'b'), frames(2, 'a'), frames(2, 'b'), close(undefined, 'b'), publish('$C', 1, 3, 'a'), frames(4, 'a')]);
add('three subscribers of one channel', [...both, ...ready('c'), ...['a', 'b', 'c'].flatMap((on) => [subscribe('$C', 2, on), frames(2, on)]), publish('$C', [1], undefined, 'c'), ...['a', 'b', 'c'].map((on) => frames(3, on))]);

// Client publishing off.
const off = (name, ...steps) => add(`no client publish: ${name}`, [...ready(), ...steps, sync()], {config: 'no publish'});
off('refused with cid', publish('$C', 1, 2));
off('silent without cid', subscribe('$C', 2), publish('$C', 1));
off('named before the shape', text('{"event":"#publish","data":{"channel":5},"cid":2}'), text('{"event":"#publish","cid":3}'));
off('subscribing works', subscribe('$C', 2), text({event: '#unsubscribe', data: '$C', cid: 3}));
off('ping works', text('{"event":"ping","cid":2}'), text('{"event":"ping"}'), frames(3));

// Protocol 1: only the pings differ.
const old = (name, ...steps) => add(`protocol 1: ${name}`, steps, {config: 'protocol 1'});
old('handshake and call', ...ready(), text('{"event":"ping","cid":2}'), sync());
for (const packet of ['#2', '#1', '', '#3', 'hello', '[]', 'null']) {
  old(`${JSON.stringify(packet)} after the handshake`, ...ready(), text(packet), sync());
  old(`${JSON.stringify(packet)} first`, open(), text(packet), ...(packet === '[]' ? [handshake(null), frames(1)] : [closed]));
  old(`binary ${JSON.stringify(packet)} after the handshake`, ...ready(), binary(packet), sync());
}
old('subscribe and publish', ...ready(), subscribe('$C', 2), publish('$C', 1, 3), frames(4));
old('array handshake', open(), text('[{"event":"#handshake","data":{},"cid":1},{"event":"ping","cid":2}]'), frames(2));
old('batch subscribe of major 14', ...ready(), text('[{"event":"#subscribe","data":{"channel":"$C1","batch":true},"cid":2},{"event":"#subscribe","data":{"channel":"$C2","batch":true},"cid":3}]'), frames(3));
old('#disconnect is an ordinary event', ...ready(), text('{"event":"#disconnect","data":{"code":4001}}'), sync());
add('no answer to nothing', [...ready(), idle(60), sync()]);
