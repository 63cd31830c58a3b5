// Section 8: tokens at the handshake, by #authenticate, and tokens that expire while connected.
import {createHmac} from 'node:crypto';
import {createRequire} from 'node:module';
import {AUTH_KEY} from '../lib/servers.mjs';
import {close, frames, handshake, idle, open, publish, ready, subscribe, sync, text} from './build.mjs';

const jwt = createRequire(import.meta.url)('jsonwebtoken');
const now = Math.floor(Date.now() / 1000);
const b64 = (value) => Buffer.from(value).toString('base64url');
/** A correctly signed token with any text as header and payload. */
const signed = (header, payload, hash = 'sha256', key = AUTH_KEY) => {
  const head = `${b64(header)}.${b64(payload)}`;
  return `${head}.${createHmac(hash, key).update(head).digest('base64url')}`;
};
const HS256 = '{"alg":"HS256","typ":"JWT"}';
const sign = (claims, options) => jwt.sign(claims, AUTH_KEY, {noTimestamp: true, ...options});
const good = sign({username: 'alice', exp: now + 3600});
const [h, p, s] = good.split('.');

export const tokens = {
  good, 'HS256 without exp': sign({username: 'a'}), HS384: sign({username: 'a', exp: now + 3600}, {algorithm: 'HS384'}), HS512: sign({username: 'a', exp: now + 3600}, {algorithm: 'HS512'}),
  'empty claims': sign({}), 'claims of many kinds': sign({a: null, b: [1, {c: 2.5}], d: 'é😀', exp: now + 3600, iat: now, nbf: now - 10, aud: ['x'], iss: 'y', sub: 'z', jti: '1'}),
  expired: sign({username: 'a', exp: now - 60}), 'expired long ago': sign({exp: 0}), 'expired at a fraction': sign({exp: now - 10.5}), 'negative exp': sign({exp: -5}), 'huge exp': signed(HS256, '{"exp":1e300}'), 'exp in milliseconds': sign({exp: now * 1000}),
  'exp a string': signed(HS256, `{"exp":"${now + 3600}"}`), 'exp null': signed(HS256, '{"exp":null}'), 'exp true': signed(HS256, '{"exp":true}'), 'exp an object': signed(HS256, '{"exp":{}}'), 'exp overflowing': signed(HS256, '{"exp":1e400}'), 'fraction exp': signed(HS256, `{"exp":${now + 3600}.75}`),
  'not before an hour from now': sign({username: 'a', nbf: now + 3600}), 'not before, fraction': signed(HS256, `{"nbf":${now + 3600}.5}`), 'nbf long past': sign({nbf: 0}), 'nbf a string': signed(HS256, '{"nbf":"x"}'), 'nbf null': signed(HS256, '{"nbf":null}'), 'not before and expired': sign({nbf: now + 3600, exp: now - 3600}), 'bad nbf and expired': signed(HS256, `{"nbf":"x","exp":${now - 3600}}`),
  'iat in the future': sign({iat: now + 3600}), 'iat a string': signed(HS256, '{"iat":"x"}'),
  'wrong key': jwt.sign({username: 'a'}, 'another key'), 'wrong key and expired': jwt.sign({exp: now - 60}, 'another key'), 'signature cut': `${h}.${p}.${s.slice(0, -1)}`, 'signature longer': `${good}A`, 'signature of another token': `${h}.${p}.${sign({x: 1}).split('.')[2]}`,
  'last bits of the signature changed': `${h}.${p}.${s.slice(0, -1)}${String.fromCharCode(s.charCodeAt(s.length - 1) + 1)}`, 'payload changed': `${h}.${b64('{"username":"eve"}')}.${s}`, 'header changed': `${b64('{"typ":"JWT","alg":"HS256"}')}.${p}.${s}`,
  'padded parts': `${h}=.${p}==.${s}=`, 'padded signature': `${good}=`, 'standard base64 letters': good.replaceAll('-', '+').replaceAll('_', '/'),
  'no signature': `${h}.${p}.`, 'two parts': `${h}.${p}`, 'one part': h, 'four parts': `${good}.x`, 'five parts': 'a.b.c.d.e', dots: '..', 'one dot': '.', 'three dots': '...', garbage: 'garbage', space: ' ', 'a dot between': 'a.b.c', 'empty header': `.${p}.${s}`, 'empty payload': `${h}..${s}`, 'empty payload, signed': signed(HS256, ''),
  'space before': ` ${good}`, 'space behind': `${good} `, 'line end behind': `${good}\n`, 'Bearer before': `Bearer ${good}`, unicode: 'é.é.é', emoji: '😀', NUL: 'a\u0000b',
  'alg none, no signature': jwt.sign({username: 'a'}, null, {algorithm: 'none'}), 'alg none, signed': signed('{"alg":"none","typ":"JWT"}', '{"a":1}'), 'alg None': signed('{"alg":"None","typ":"JWT"}', '{"a":1}'), 'alg hs256': signed('{"alg":"hs256","typ":"JWT"}', '{"a":1}'), 'alg RS256': signed('{"alg":"RS256","typ":"JWT"}', '{"a":1}'), 'alg ES256': signed('{"alg":"ES256","typ":"JWT"}', '{"a":1}'), 'alg PS512': signed('{"alg":"PS512","typ":"JWT"}', '{"a":1}'), 'alg EdDSA': signed('{"alg":"EdDSA","typ":"JWT"}', '{"a":1}'),
  'alg HS1': signed('{"alg":"HS1","typ":"JWT"}', '{"a":1}'), 'no alg': signed('{"typ":"JWT"}', '{"a":1}'), 'alg a number': signed('{"alg":1,"typ":"JWT"}', '{"a":1}'), 'alg null': signed('{"alg":null,"typ":"JWT"}', '{"a":1}'), 'alg HS384 signed with 256': signed('{"alg":"HS384","typ":"JWT"}', '{"a":1}'), 'alg empty': signed('{"alg":"","typ":"JWT"}', '{"a":1}'),
  'alg constructor': signed('{"alg":"constructor","typ":"JWT"}', '{"a":1}'),
  'no typ': signed('{"alg":"HS256"}', '{"a":1}'), 'typ jwt': signed('{"alg":"HS256","typ":"jwt"}', '{"a":1}'), 'typ other': signed('{"alg":"HS256","typ":"x"}', '{"a":1}'), 'extra header keys': signed('{"alg":"HS256","typ":"JWT","kid":"1","x5u":"http://x"}', '{"a":1}'), 'crit header': signed('{"alg":"HS256","typ":"JWT","crit":["x"]}', '{"a":1}'), 'b64 header': signed('{"alg":"HS256","typ":"JWT","b64":false}', '{"a":1}'),
  'header with spaces': signed('{ "alg" : "HS256" }', '{"a":1}'), 'header an array': signed('[]', '{"a":1}'), 'header a string': signed('"x"', '{"a":1}'), 'header null': signed('null', '{"a":1}'), 'header a number': signed('5', '{"a":1}'), 'header not JSON': signed('{alg}', '{"a":1}'), 'header cut': signed('{"alg":"HS256"', '{"a":1}'), 'header with alg twice': signed('{"alg":"none","alg":"HS256"}', '{"a":1}'), 'header binary': signed(Buffer.from([255, 254]), '{"a":1}'), 'header with a BOM': signed('\ufeff{"alg":"HS256"}', '{"a":1}'),
  'payload a string': signed(HS256, '"text"'), 'payload a number': signed(HS256, '5'), 'payload null': signed(HS256, 'null'), 'payload true': signed(HS256, 'true'), 'payload an array': signed(HS256, '[1]'), 'payload with exp twice': signed(HS256, `{"exp":1,"exp":${now + 3600}}`), 'payload with __proto__': signed(HS256, '{"__proto__":{"exp":1}}'), 'payload with spaces': signed(HS256, ' { "a" : 1 } '),
  'payload text, no typ': signed('{"alg":"HS256"}', 'text'), 'payload text null, no typ': signed('{"alg":"HS256"}', 'null'), 'payload number, no typ': signed('{"alg":"HS256"}', '5'), 'payload empty, no typ': signed('{"alg":"HS256"}', ''),
  long: 'x'.repeat(1500), 'long with dots': `${'x'.repeat(500)}.${'y'.repeat(500)}.${'z'.repeat(300)}`,
};
/** The message comes from the JSON parser, so only the form of the error is compared. */
const parserText = {'payload not JSON': signed(HS256, 'text'), 'payload cut': signed(HS256, '{"a":1'), 'payload binary': signed(HS256, Buffer.from([255, 254])), 'payload with a trailing comma': signed(HS256, '{"a":1,}')};

export const scripts = [];
const add = (name, steps, more = {}) => scripts.push({name: `auth: ${name}`, config: 'base', strict: true, steps, ...more});
const authenticate = (token, cid = 2) => text({event: '#authenticate', data: token, cid});

for (const [kind, list, more] of [['', tokens, {}], [' (parser text)', parserText, {parserText: true}]]) {
  for (const [name, token] of Object.entries(list)) {
    add(`handshake, ${name}${kind}`, [open(), handshake(token), frames(1), sync()], more);
    add(`authenticate, ${name}${kind}`, [...ready(), authenticate(token), sync()], more);
    add(`authenticate when authenticated, ${name}${kind}`, [open(), handshake(good), frames(1), authenticate(token), sync(), authenticate(good, 3), sync()], more);
  }
}
add('handshake with a token in an array', [open(), text([{event: '#handshake', data: {authToken: good}, cid: 1}, {event: 'ping', cid: 2}]), frames(2), sync()]);
add('handshake with an expired token in an array', [open(), text([{event: '#handshake', data: {authToken: tokens.expired}, cid: 1}, {event: 'ping', cid: 2}]), frames(3), sync()]);
add('authenticate without a call id: 4008', [...ready(), text({event: '#authenticate', data: good}), {do: 'closed'}]);
add('authenticate with a string call id: 4008', [...ready(), text({event: '#authenticate', data: good, cid: '2'}), {do: 'closed'}]);
add('authenticate without a call id, a bad token: 4008', [...ready(), text({event: '#authenticate', data: 'x'}), {do: 'closed'}]);
add('authenticate without data', [...ready(), text({event: '#authenticate', cid: 2}), sync()]);
add('authenticate with an object', [...ready(), text({event: '#authenticate', data: {authToken: good}, cid: 2}), sync()]);
add('good, bad, good', [...ready(), authenticate(good, 2), authenticate('x', 3), authenticate(good, 4), sync()]);
add('good, bad, good in an array', [...ready(), text([good, 'x', good].map((data, i) => ({event: '#authenticate', data, cid: i + 2}))), sync()]);
add('soft refusal loses the authentication silently', [open(), handshake(good), frames(1), authenticate(tokens['not before an hour from now']), sync()]);
add('removeAuthToken with and without cid', [open(), handshake(good), frames(1), text('{"event":"#removeAuthToken","cid":2}'), text('{"event":"#removeAuthToken"}'), sync()]);
add('second handshake with a token', [...ready(), text({event: '#handshake', data: {authToken: good}, cid: 2}), frames(2), text({event: '#handshake', data: {}, cid: 3}), frames(3), text({event: '#handshake', data: {authToken: 'x'}, cid: 4}), frames(5), sync()]);
add('handshake token with an escape', [open(), text(`{"event":"#handshake","data":{"authToken":"${good.replace('e', '\\u0065')}"},"cid":1}`), frames(1), sync()]);
add('handshake token twice, the last one counts', [open(), text(`{"event":"#handshake","data":{"authToken":"x","authToken":"${good}"},"cid":1}`), frames(1), sync()]);
add('handshake data twice, the last one counts', [open(), text(`{"event":"#handshake","data":{"authToken":"x"},"data":{"authToken":"${good}"},"cid":1}`), frames(1), sync()]);
add('deauthentication keeps subscriptions', [open(), handshake(good), frames(1), subscribe('$C', 2), frames(2), text('{"event":"#removeAuthToken"}'), publish('$C', 1), frames(3), sync()]);

// Expiry while connected. `expires` is the lifetime of the token in seconds, from the moment when the script runs.
const expiring = (name, config, ...steps) => add(`expiry, ${name}`, steps, {config, expires: 2});
const token = '$TOKEN';
const lives = [open(), text(`{"event":"#handshake","data":{"authToken":"${token}"},"cid":1}`), frames(1), subscribe('$C', 2), frames(2), {do: 'idle', ms: 3300}];
for (const [name, packet] of [['call', '{"event":"ping","cid":3}'], ['unknown call', '{"event":"nothing","cid":3}'], ['event', '{"event":"ping"}'], ['unknown event', '{"event":"nothing"}'], ['publish', '{"event":"#publish","data":{"channel":"$C","data":1},"cid":3}'], ['publish without cid', '{"event":"#publish","data":{"channel":"$C","data":1}}'],
  ['publish of a bad shape', '{"event":"#publish","data":{},"cid":3}'], ['subscribe', '{"event":"#subscribe","data":{"channel":"$C2"},"cid":3}'], ['subscribe without cid', '{"event":"#subscribe","data":{"channel":"$C2"}}'], ['unsubscribe', '{"event":"#unsubscribe","data":"$C","cid":3}'], ['unsubscribe without cid', '{"event":"#unsubscribe","data":"$C"}'],
  ['pong', ''], ['wrong pong', '#2'], ['raw text', 'x'], ['response', '{"rid":5}'], ['authenticate with a bad token', '{"event":"#authenticate","data":"x","cid":3}'], ['authenticate with the expired token', `{"event":"#authenticate","data":"${token}","cid":3}`], ['removeAuthToken', '{"event":"#removeAuthToken"}'],
  ['an array of calls', '[{"event":"ping","cid":3},{"event":"ping","cid":4}]'], ['an empty array', '[]'], ['an event without cid in an array', '[{"event":"nothing"},{"event":"ping","cid":3}]']]) {
  expiring(`noticed at ${name}?`, 'base', ...lives, text(packet), idle(200), close());
}
expiring('noticed once', 'base', ...lives, text('{"event":"ping","cid":3}'), frames(4), text('{"event":"ping","cid":4}'), frames(5), sync());
expiring('not noticed by itself', 'base', ...lives, close());
// DEPARTURES says why Ringcast reports the expiry here.
expiring('with rules, of a client that sends nothing', 'rules', ...lives, close());
scripts.at(-1).ignorePings = true;
expiring('without anonymous clients, of a client that sends nothing', 'no anonymous', ...lives, close());
expiring('second handshake with the expired token', 'base', ...lives, text(`{"event":"#handshake","data":{"authToken":"${token}"},"cid":3}`), frames(4), sync());
expiring('good token again afterwards', 'base', ...lives, text('{"event":"ping","cid":3}'), frames(4), text({event: '#authenticate', data: good, cid: 4}), frames(5), sync());
expiring('protocol 1, at a pong', 'protocol 1', ...lives, text('#2'), idle(200), close());
expiring('protocol 1, not at the other pong', 'protocol 1', ...lives, text(''), idle(200), close());
expiring('subscriptions outlive it', 'base', ...lives, text('{"event":"ping","cid":3}'), frames(4), publish('$C', 1, 4), frames(6), sync());
