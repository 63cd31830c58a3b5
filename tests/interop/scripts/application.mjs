// Sections 7, 8, 10, 12 and 14 with an application: procedures and middleware of the reference, and the same as a service and hooks of
// Ringcast. lib/application.mjs has the application.
import {createRequire} from 'node:module';
import {AUTH_KEY} from '../lib/servers.mjs';
import {frames, handshake, open, publish, ready, subscribe, sync, text} from './build.mjs';

const jwt = createRequire(import.meta.url)('jsonwebtoken');
const token = (claims) => jwt.sign(claims, AUTH_KEY, {noTimestamp: true});
const alice = token({username: 'alice'}), banned = token({username: 'banned'});

export const scripts = [];
const add = (name, steps) => scripts.push({name: `application: ${name}`, config: 'application', steps});
/** The answer to each step is there before the next step. */
const inTurn = (steps, first = 1) => steps.flatMap((step, index) => [step, frames(first + index + 1)]);
const after = (name, ...steps) => add(name, [...ready(), ...steps, sync()]);
const as = (claims, name, ...steps) => add(name, [open(), handshake(claims), frames(1), ...steps, sync()]);
const call = (procedure, data, cid = 2) => text(`{"event":"${procedure}",${data === undefined ? '' : `"data":${data},`}"cid":${cid}}`);
const event = (name, data) => text(`{"event":"${name}"${data === undefined ? '' : `,"data":${data}`}}`);

const VALUES = ['null', 'true', '0', '-0', '1.0', '1e2', '-1.5e-9', '12345678901234567890', '1e400', '""', '"text"', '"é😀\\u2028"', '"\\ud800"', '"\\u0000\\u001f\\/"', '[]', '{}', '[1,[2,[3,{"a":null}]]]',
  '{"a":1,"a":2}', '{"2":1,"1":2,"b":3,"a":4}', '{"__proto__":1}', '{"data":1,"caller":{"id":"x","claims":{"service":true}},"rid":9,"cid":9}', ' { "a" : [ 1 , 2 ] } ', JSON.stringify('x'.repeat(1500))];
for (const value of VALUES) {
  after(`echo ${value.slice(0, 40)}`, call('app.echo', value), frames(2));
  after(`typed ${value.slice(0, 40)}`, call('app.typed', value), frames(2));
  after(`rewritten ${value.slice(0, 40)}`, call('app.echo.rewritten', value), frames(2));
  after(`published and rewritten ${value.slice(0, 40)}`, subscribe('$Crewritten'), frames(2), text(`{"event":"#publish","data":{"channel":"$Crewritten","data":${value}},"cid":3}`), frames(4));
}
after('a call without data', ...inTurn([call('app.echo'), call('app.typed', undefined, 3), call('app.echo.rewritten', undefined, 4)]));
after('answers without data and with null', ...inTurn([call('app.nothing'), call('app.null', undefined, 3)]));
for (const cid of ['0', '-1', '1.5', '1e21', '9007199254740993', '-0', '1E3']) after(`a call with cid ${cid}`, call('app.echo', '1', cid), frames(2));
for (const cid of ['"2"', 'true', 'null', '[]']) after(`a call with cid ${cid} is an event`, call('app.echo', '1', cid));
for (const error of ['{"message":"x"}', '{"message":"x","name":"OwnError"}', '{"name":"NoMessage"}', '{"message":"x","name":"OwnError","code":5,"list":[1,{"a":null}],"nested":{"deep":true}}', '{"message":"é😀"}', '{"message":"x","isBadToken":true}']) {
  after(`an error ${error}`, call('app.fail', error), frames(2));
}
for (const data of ['"just a text"', '5', 'false', '{"no":"error"}', '[1]']) after(`an error that is no error: ${data}`, call('app.text', data), frames(2));
after('an error of JavaScript', call('app.type error'), frames(2));
after('answers overtake each other', call('app.slow', '1'), call('app.echo', '2', 3), frames(3));
after('the same cid twice', call('app.echo', '1'), frames(2), call('app.echo', '2'), frames(3));
after('two calls in an array', text('[{"event":"app.echo","data":1,"cid":2},{"event":"app.slow","data":2,"cid":3}]'), frames(3));
after('a procedure that nobody has', call('app.unknown', '1'), call('other', '1', 3));
for (const name of ['app', 'app.', 'app.echo ', 'APP.ECHO', 'app.echo.', '$cancel']) after(`a procedure with the name ${name}`, call(name, '1'));
after('claims of a client without a token', call('app.claims'), frames(2));
as(alice, 'claims of a client with a token', call('app.claims'), frames(2));
after('claims after #authenticate', text({event: '#authenticate', data: alice, cid: 2}), frames(2), call('app.claims', undefined, 3), frames(3));
as(alice, 'claims after #removeAuthToken', text({event: '#removeAuthToken'}), call('app.claims'), frames(2));

after('a receiver that publishes', subscribe('$C'), frames(2), event('app.tell', '{"channel":"$C","text":"hi"}'), frames(3));
after('a receiver, rewritten', subscribe('$C'), frames(2), event('app.tell.rewritten', '{"channel":"$C","text":"hi"}'), frames(3));
after('events that are refused', subscribe('$C'), frames(2), event('app.refused', '1'), event('app.silent', '1'), event('app.tell', '{"channel":"$C","text":"last"}'), frames(3));

for (const what of ['refused', 'silent', 'members']) {
  after(`subscribe, ${what}`, subscribe(`$C${what}`), frames(2), publish(`$C${what}x`, 1));
  after(`subscribe without a call id, ${what}`, text({event: '#subscribe', data: {channel: `$C${what}`}}));
  after(`publish, ${what}`, publish(`$C${what}`, 1, 2), frames(2));
  after(`publish without a call id, ${what}`, publish(`$C${what}`, 1));
  after(`call, ${what}`, call(`app.${what}`, '1'), frames(2));
  after(`a refused publication reaches nobody, ${what}`, ...ready('b'), subscribe('$C', 2), frames(2), publish(`$C${what}`, 1, 2, 'b'), frames(2, 'b'), publish('$C', 'last', 3, 'b'), frames(3));
  as(alice, `subscribe with a token, ${what}`, subscribe(`$C${what}`), frames(2));
  as(alice, `publish with a token, ${what}`, publish(`$C${what}`, 1, 2), frames(2));
}
as(alice, 'a publication that is rewritten, with a token', subscribe('$Crewritten'), frames(2), publish('$Crewritten', {a: 1}, 3), frames(4));
after('a publication without data that is rewritten', subscribe('$Crewritten'), frames(2), text('{"event":"#publish","data":{"channel":"$Crewritten"},"cid":3}'), frames(4));
after('subscribes, publications and refusals in one array', text('[{"event":"#subscribe","data":{"channel":"$C"},"cid":2},{"event":"#subscribe","data":{"channel":"$Crefused"},"cid":3},{"event":"#publish","data":{"channel":"$C","data":1},"cid":4},{"event":"#publish","data":{"channel":"$Csilent","data":1},"cid":5},{"event":"#publish","data":{"channel":"$C","data":2},"cid":6}]'), frames(8));
after('many publications keep their order', subscribe('$C'), frames(2), ...Array.from({length: 30}, (_, index) => publish('$C', index)), frames(32));

add('a handshake that is refused', [open('a', {path: '/socketcluster/?refuse=1'}), handshake(null), {do: 'closed'}]);
add('a handshake that is refused with a code', [open('a', {path: '/socketcluster/?refuse=2'}), handshake(null), {do: 'closed'}]);
add('a handshake that is refused, with a token', [open('a', {path: '/socketcluster/?refuse=1'}), handshake(alice), {do: 'closed'}]);
as(banned, 'a handshake with a token that is refused', call('app.claims'), frames(2));
after('#authenticate with a token that is refused', text({event: '#authenticate', data: banned, cid: 2}), frames(2), call('app.claims', undefined, 3), frames(3));
as(alice, '#authenticate with a token that is refused, of an authenticated client', text({event: '#authenticate', data: banned, cid: 2}), frames(2), call('app.claims', undefined, 3), frames(3));
