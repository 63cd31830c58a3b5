// Makes vectors.json: what the npm packages that the reference server uses do with tokens.
//
//   npm install jsonwebtoken@9.0.3 ag-auth@2.1.1 sc-errors@3.0.0     (jws 4.0.1, jwa 2.0.1 come with them)
//   node PATH_TO_THIS/generate.mjs > PATH_TO_THIS/vectors.json      (Node 20; its JSON parser's messages are in there)
//
// The keys are made here, for these vectors alone. Times are mocked: each vector says when it is. MUTATIONS=60000 in
// the environment makes more texts that are not JSON than are kept.

import { createRequire } from 'node:module';
import crypto from 'node:crypto';

const require = createRequire(process.cwd() + '/');
const jwt = require('jsonwebtoken');
const jws = require('jws');
const AuthEngine = require('ag-auth');
const scErrors = require('sc-errors');

const NOW_MS = 1795359453000; // 2026-11-22T14:57:33.000Z
const NOW = NOW_MS / 1000;
const engine = new AuthEngine();
const realNow = Date.now;
const secret = 'ringcast test secret ünï';

// --- keys

function pair(type, options, privateForms, publicForms) {
  const { privateKey, publicKey } = crypto.generateKeyPairSync(type, options);
  const pem = (key, form) => key.export({ type: form, format: 'pem' });
  return {
    private: privateForms.map((form) => pem(privateKey, form)),
    public: publicForms.map((form) => pem(publicKey, form)),
  };
}

const keys = {
  rsa: pair('rsa', { modulusLength: 2048 }, ['pkcs8', 'pkcs1'], ['spki', 'pkcs1']),
  other_rsa: pair('rsa', { modulusLength: 2048 }, ['pkcs8'], ['spki']),
  small_rsa: pair('rsa', { modulusLength: 1024 }, ['pkcs8'], ['spki']),
  p256: pair('ec', { namedCurve: 'P-256' }, ['pkcs8', 'sec1'], ['spki']),
  p384: pair('ec', { namedCurve: 'P-384' }, ['pkcs8', 'sec1'], ['spki']),
  p521: pair('ec', { namedCurve: 'P-521' }, ['pkcs8', 'sec1'], ['spki']),
  secp256k1: pair('ec', { namedCurve: 'secp256k1' }, ['pkcs8'], ['spki']),
  ed25519: pair('ed25519', {}, ['pkcs8'], ['spki']),
};
const encrypted = crypto
  .createPrivateKey(keys.p256.private[0])
  .export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'x' });

const family = { HS: () => null, RS: () => 'rsa', PS: () => 'rsa', ES: (bits) => ({ 256: 'p256', 384: 'p384', 512: 'p521' })[bits] };
const keyOf = (algorithm) => (algorithm === 'EdDSA' ? 'ed25519' : family[algorithm.slice(0, 2)](algorithm.slice(2)));
const signingKey = (key) => (key === null ? secret : keys[key].private[0]);
const verifyingKey = (key) => (key === null ? secret : keys[key].public[0]);

// --- what the reference does with a token: serversocket.js, _validateAuthToken and _processTokenError

function processTokenError(err) {
  let authError;
  if (err.name === 'TokenExpiredError') {
    authError = new scErrors.AuthTokenExpiredError(err.message, err.expiredAt);
    authError.isBadToken = true;
  } else if (err.name === 'JsonWebTokenError') {
    authError = new scErrors.AuthTokenInvalidError(err.message);
    authError.isBadToken = true;
  } else if (err.name === 'NotBeforeError') {
    authError = new scErrors.AuthTokenNotBeforeError(err.message, err.date);
    authError.isBadToken = false;
  } else {
    authError = new scErrors.AuthTokenError(err.message);
    authError.isBadToken = true;
  }
  return JSON.stringify(scErrors.dehydrateError(authError));
}

async function outcome(token, key, algorithm, now_ms) {
  Date.now = () => now_ms;
  const options = algorithm === null ? {} : { algorithms: [algorithm] };
  try {
    const claims = await engine.verifyToken(token, verifyingKey(key), options);
    return { claims: JSON.stringify(claims), truthy: !!claims };
  } catch (error) {
    return { error: processTokenError(error) };
  } finally {
    Date.now = realNow;
  }
}

const verify = [];
async function vector(name, token, { key = null, algorithm = null, now_ms = NOW_MS } = {}) {
  verify.push({ name, key, algorithm, now_ms, token, ...(await outcome(token, key, algorithm, now_ms)) });
}

// --- tokens of any header and payload bytes, honestly signed

const base64url = (bytes) => Buffer.from(bytes).toString('base64url');
const HEADER = '{"alg":"HS256","typ":"JWT"}';

function hs256(signed) {
  return `${signed}.${crypto.createHmac('sha256', secret).update(signed).digest('base64url')}`;
}
const forge = (header, payload) => hs256(`${base64url(header)}.${base64url(payload)}`);

// every algorithm, with the default rule and pinned
for (const algorithm of ['HS256', 'HS384', 'HS512', 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512']) {
  const key = keyOf(algorithm);
  const token = jwt.sign({ username: 'ünï', iat: NOW, exp: NOW + 60 }, signingKey(key), { algorithm });
  await vector(`${algorithm} good`, token, { key });
  await vector(`${algorithm} pinned`, token, { key, algorithm });
  const [header, payload, signature] = token.split('.');
  const flip = (text, at) => text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1);
  await vector(`${algorithm} other payload`, `${header}.${flip(payload, 5)}.${signature}`, { key });
  await vector(`${algorithm} flipped signature`, `${header}.${payload}.${flip(signature, 7)}`, { key });
  await vector(`${algorithm} cut signature`, `${header}.${payload}.${signature.slice(0, -4)}`, { key });
  await vector(`${algorithm} one character less`, `${header}.${payload}.${signature.slice(0, -1)}`, { key });
  await vector(`${algorithm} one character more`, `${header}.${payload}.${signature}A`, { key });
  await vector(`${algorithm} four characters more`, `${header}.${payload}.${signature}AAAA`, { key });
  await vector(`${algorithm} signature of zeros`, `${header}.${payload}.${'A'.repeat(signature.length)}`, { key });
  const last = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'.indexOf(signature.at(-1));
  const sibling = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'[last ^ 1];
  await vector(`${algorithm} last bit of the signature's text flipped`, `${header}.${payload}.${signature.slice(0, -1)}${sibling}`, { key });
  for (const [other, otherKey] of [['HS256', null], ['RS256', 'rsa'], ['PS512', 'rsa'], ['ES256', 'p256'], ['ES384', 'p384'], ['ES512', 'p521']]) {
    if (other !== algorithm) {
      await vector(`${algorithm} where ${other} is pinned`, token, { key: otherKey, algorithm: other });
      await vector(`${algorithm} with the key of ${other}`, token, { key: otherKey });
    }
  }
}
// the public key taken for a secret
{
  const signed = `${base64url(HEADER)}.${base64url('{"username":"mallory"}')}`;
  const signature = crypto.createHmac('sha256', keys.rsa.public[0]).update(signed).digest('base64url');
  await vector('HMAC with the public key as its secret', `${signed}.${signature}`, { key: 'rsa' });
}
await vector('another RSA key', jwt.sign({}, keys.other_rsa.private[0], { algorithm: 'RS256' }), { key: 'rsa' });
await vector('another secret', jwt.sign({}, 'other'), {});

// shapes
const good = jwt.sign({ username: 'alice', iat: NOW }, secret);
const shapes = ['', ' ', '.', '..', '...', 'a', 'a.b', 'a.b.', 'a.b.c', 'a.b.c.d', '.b.c', 'a..c', good + '.', '.' + good, ' ' + good, good + ' ',
  good + '\n', good + '=', good.replace('.', '..'), good.slice(0, good.lastIndexOf('.')), good.slice(0, good.lastIndexOf('.') + 1),
  good.replace('.', '=.'), good.replace('.', '+.'), good.replace('.', '/.'), good.replace('.', '\n.'), good.replace('.', 'é.'), 'null', 'undefined',
  'é.é.é', good.slice(0, good.lastIndexOf('.') + 1) + ' ', 'Bearer ' + good, '"' + good + '"', 'a.b.c\u0000', 'x'.repeat(5000), 'x.'.repeat(2000), 'a.b.' + 'c'.repeat(5000)];
for (const shape of shapes) await vector(`shape ${JSON.stringify(shape).slice(0, 60)}`, shape);
await vector('null', null);
await vector('padding that base64 may drop', hs256(`${base64url(HEADER)}.${base64url('{"a":1}')}A`.replace(/=/g, '')));

// headers
const headers = ['', ' ', '{}', '[]', 'null', 'true', 'false', '0', '1', '-0', '""', '"x"', '"JWT"', '[{"alg":"HS256"}]', '{"alg":"HS256"', 'é',
  '{"alg":"HS256","typ":"JWT"}', ' {"alg" : "HS256" , "typ" : "JWT"} ', '{"alg":"HS256"}', '{"alg":"HS256","typ":"jwt"}', '{"alg":"HS256","typ":["JWT"]}', '{"alg":"HS256","typ":null}',
  '{"typ":"JWT"}', '{"alg":"none"}', '{"alg":"none","typ":"JWT"}', '{"alg":"None"}', '{"alg":"hs256"}', '{"alg":"HS256 "}', '{"alg":null}', '{"alg":256}', '{"alg":["HS256"]}', '{"alg":{}}', '{"alg":""}',
  '{"alg":"RS256"}', '{"alg":"ES256"}', '{"alg":"EdDSA"}', '{"alg":"HS1"}', '{"alg":"toString"}', '{"alg":"HS256\\u0000"}', '{"alg":"\\u0048S256"}', '{"\\u0061lg":"HS256"}',
  '{"alg":"none","alg":"HS256"}', '{"alg":"HS256","alg":"none"}', '{"typ":"JWT","typ":"x","alg":"HS256"}', '{"alg":"HS256","typ":"\\u004aWT"}',
  '{"__proto__":{"alg":"HS256"}}', '{"alg":"HS256","crit":["exp"],"exp":1}', '{"alg":"HS256","b64":false,"crit":["b64"]}', '{"alg":"HS256","kid":"../x","jku":"http://127.0.0.1"}', '{"alg":"HS256","typ":"JWT","x":1e400}', '{"alg":"HS256","x":"\\ud800"}',
  '{"alg":"HS256","x":"é"}', '\ufeff{"alg":"HS256"}', '{"alg":"HS256","x":"\u0001"}', '{"alg":"HS256"}x'];
for (const header of headers) {
  if (header === '') continue;
  for (const payload of ['{"a":1}', 'text', '5', 'null']) await vector(`header ${header} payload ${payload}`, forge(header, payload));
  await vector(`header ${header} unsigned`, `${base64url(header)}.${base64url('{}')}.`);
  await vector(`header ${header} badly signed`, `${base64url(header)}.${base64url('{}')}.AAAA`);
}
await vector('header in UTF-8 of which each byte counts', forge(Buffer.from('{"alg":"HS256","x":"\u{1F600}"}'), '{}'));
await vector('header in invalid UTF-8', forge(Buffer.from([...Buffer.from('{"alg":"HS256","x":"'), 0xff, 0xc0, ...Buffer.from('"}')]), '{}'));

// payloads, declared as JSON and not
const payloads = ['{}', '[]', '[1,{"exp":1}]', '0', '-0', '1', 'true', 'false', 'null', '""', '"x"', '"exp"', ' {"a":1} ', '\n{"a":1}\t', ' null ', '{"a":1,"a":2}', '{"b":1,"1":2}', '{"a":1e400}', '{"a":1.0}',
  '{"a":"\\ud83d"}', '{"a":"\\u0041\\/"}', '{"a":"é\u{1F600}"}', '{"__proto__":{"exp":1}}', '{"constructor":1,"nbf2":1}', '1e-400', '12345678901234567890',
  '"\u{1F600}\\n"', 'text', 'te"xt\\', 'tab\there', ' ', 'x', '\u{1F600}', '\ufeff{"a":1}', '\ufeff'];
for (const payload of payloads) {
  await vector(`payload ${JSON.stringify(payload)}`, forge(HEADER, payload));
  await vector(`payload ${JSON.stringify(payload)} without typ`, forge('{"alg":"HS256"}', payload));
}
for (const bytes of [[0xff], [0x7b, 0x7d, 0xff], [0x22, 0xc3, 0x28, 0xe2, 0x82, 0xf0, 0x9f, 0x98, 0x22], [0x22, 0xed, 0xa0, 0xbd, 0x22]]) {
  await vector(`payload bytes ${bytes}`, forge(HEADER, Buffer.from(bytes)));
  await vector(`payload bytes ${bytes} without typ`, forge('{"alg":"HS256"}', Buffer.from(bytes)));
}
for (const lone of ['A', 'e', 'e30A', 'e31']) {
  await vector(`payload text ${lone}`, hs256(`${base64url(HEADER)}.${lone}`));
  await vector(`payload text ${lone} without typ`, hs256(`${base64url('{"alg":"HS256"}')}.${lone}`));
}

// times: both sides of each boundary, and values that are no times
for (const claim of ['exp', 'nbf']) {
  for (const value of [NOW - 1, NOW, NOW + 1, NOW - 0.5, NOW + 0.5, NOW + 0.999, 0, -0, -1, 1, 0.0005, -0.0005, 1e10, 253402300799, 253402300800, 8.64e12, 8640000000000.001, 8640000000001, -8.64e12, -8640000000001, 1e18, 1e300, -1e300]) {
    for (const now_ms of [NOW_MS, NOW_MS + 999, NOW_MS + 1000, NOW_MS - 1]) await vector(`${claim} ${value} at ${now_ms}`, forge(HEADER, JSON.stringify({ [claim]: value })), { now_ms });
  }
  for (const value of ['null', 'true', 'false', '""', '"0"', `"${NOW + 60}"`, '[]', '{}', '1e400', '-1e400', '-0', '1e-400', '1E+3', '123456789012345678901234567890'])
    await vector(`${claim} ${value}`, forge(HEADER, `{"${claim}":${value}}`));
  await vector(`${claim} twice, the last good`, forge(HEADER, `{"${claim}":"x","${claim}":${claim === 'exp' ? NOW + 9 : 1}}`));
  await vector(`${claim} twice, the first good`, forge(HEADER, `{"${claim}":${claim === 'exp' ? NOW + 9 : 1},"${claim}":null}`));
  await vector(`${claim} escaped`, forge(HEADER, `{"\\u00${claim.charCodeAt(0).toString(16)}${claim.slice(1)}":"x"}`));
  await vector(`${claim} without typ`, forge('{"alg":"HS256"}', `{"${claim}":"x"}`));
  await vector(`${claim} further in`, forge(HEADER, `{"a":{"${claim}":"x"},"b":[{"${claim}":"x"}],"c":"\\"${claim}\\":1"}`));
}
await vector('both nbf and exp bad: nbf first', forge(HEADER, '{"exp":"x","nbf":"x"}'));
await vector('not yet active and expired: nbf first', forge(HEADER, `{"exp":1,"nbf":${NOW + 1}}`));
await vector('iat in the future', forge(HEADER, `{"iat":${NOW + 1000}}`));
await vector('iat not a number', forge(HEADER, '{"iat":"x","aud":1,"iss":2,"sub":3}'));
await vector('expired and badly signed', forge(HEADER, '{"exp":1}').slice(0, -4));
await vector('not JSON and badly signed', `${base64url(HEADER)}.${base64url('nope')}.AAAA`);
await vector('not JSON and unsigned', `${base64url(HEADER)}.${base64url('nope')}.`);

// --- Ed25519, which jsonwebtoken does not know
const eddsa = [];
{
  const signed = `${base64url('{"alg":"EdDSA","typ":"JWT"}')}.${base64url(`{"username":"alice","exp":${NOW + 60}}`)}`;
  const signature = crypto.sign(null, Buffer.from(signed), keys.ed25519.private[0]);
  eddsa.push(`${signed}.${base64url(signature)}`);
}

// --- signing: serversocket.js, setAuthToken
const sign = [];
async function signed(claims, { key = null, algorithm = null, expires_in = 86400, now_ms = NOW_MS } = {}) {
  const token = JSON.parse(claims);
  const options = { mutatePayload: true };
  if (token && token.exp != null) delete options.expiresIn;
  else if (expires_in !== null) options.expiresIn = expires_in;
  if (algorithm !== null) options.algorithm = algorithm;
  Date.now = () => now_ms;
  let result;
  try {
    result = await engine.signToken(token, signingKey(key), options);
  } catch (error) {
    result = null;
  } finally {
    Date.now = realNow;
  }
  sign.push({ claims, key, algorithm, expires_in, now_ms, token: result });
}
for (const claims of ['{}', '{"username":"alice"}', ' { "username" : "alice" , "channels" : [ "a" , 1 , null , { } ] } ', '{"exp":1795359999}', '{"exp":1795359999.5,"a":1}', '{"exp":0}', '{"exp":null}', '{"exp":"1"}', '{"exp":true}',
  '{"iat":1}', '{"a":1,"iat":5,"b":2}', '{"iat":0,"z":1}', '{"iat":-5}', '{"iat":1.5}', '{"iat":null}', '{"iat":"1"}', '{"iat":1e400}', '{"nbf":1}', '{"nbf":null}', '{"nbf":"1"}', '{"exp":1e400}', '{"exp":2,"iat":1,"exp":3}',
  '{"b":1,"10":2,"9":3,"a":4,"b":5}', '{"x":1.0,"y":1e21,"z":-0,"w":1e400,"v":123456789012345678901234567890,"u":0.1,"t":1e-7}', '{"s":"\\u0041\\/\\u001f\\u007f\\u2028\\ud83d\\ude00 \\ud83d \\ude00é"}',
  '{"":0,"\\u0065xp":1795359999}', '{"aud":["a"],"sub":"x","jti":1}', 'null', '[]', '[1]', '"x"', '5', 'true', 'false', '0', '""']) {
  await signed(claims);
  if (claims.includes('{')) await signed(claims, { expires_in: null });
}
await signed('{"a":1}', { expires_in: 0 });
await signed('{"a":1}', { expires_in: 1, now_ms: NOW_MS + 999 });
await signed('{"a":1}', { expires_in: 9007199254740991 });
for (const algorithm of ['HS256', 'HS384', 'HS512', 'RS256', 'RS384', 'RS512']) await signed('{"username":"ünï"}', { key: keyOf(algorithm), algorithm });

// --- the words of JSON.parse
const faults = [];
function fault(text) {
  try {
    JSON.parse(text);
    faults.push({ text, said: null });
  } catch (error) {
    faults.push({ text, said: JSON.stringify(error.message) }); // as JSON: it may hold half a surrogate pair
  }
}
const hand = ['', ' ', '{', '{ ', '[', '"', '"abc', '"\\', '"\\u', '"\\u1', '"\\u12', '"\\u123', '"\\u123"', '"\\u123g"', '"\\x"', '"\\U0041"', "'a'", '"a\nb"', '"a\tb', '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', '{"a" 1}', '{a:1}', "{'a':1}", '{1:1}', '{,}', '{"a":,}', '{"a":1 "b":2}', '{"a":1]', '[1', '[1,', '[1,]', '[,]', '[1 2]', '[1}', ']', '}', ':', ',', '1 2', '1,', '1]', '{}{}', '{} x', '[] []', 'null null', '"a" "b"', '"a"b', '-', '--1', '-a', '+1', '.5', '1.', '1.a', '1.e5', '1e', '1e+', '1e+x', '1ex', '01', '00', '-01', '-', '0x10', '1_000', '1a', 'tru', 'true1', 'tr1e', 'tr"e', 'trUe', 't', 'nul', 'nulL', 'fals', 'False', 'None', 'NaN', 'Infinity', '-Infinity', 'undefined', ' undefined', '[object Object]', '[object Object', 'not json', 'hello world, this is a longer text that is not JSON', '{"a": hello world, this is a longer text}', '{"username":"alice","channels":[a]}', '[1,2,3,4,5,6,7,8,9,10,x]', '[1,2,3,4,5,6,7,8,9,10,11,x]', '[1,2,3,4,x,6,7,8,9,10,11]', '[1,2,3,4,5,x,7,8,9,10,11]', '[1,2,3,4,5,x,7,8,9]', '123456789 x', '1234567890x', '// x\n{}', '/* x */', '{"a":1}//', '\u00a0{}', '\ufeff{}', '\u{1F600}', '[\u{1F600}]', 'abcdefghi\u{1F600}klmnopqrstuv', 'x23456789\u{1F600}klmnopqrstuv', '[1,2,3,4,5,6,7,\u{1F600}, 1,2,3,4,5,6,7,8]', '"é" é', 'é', '\u0000', '\u0001', '"\u0000"', '"\u007f', '{"\u0001":1}', '{"a\\x":1}', '[[[[', '[[[[x', '{"a":{"b":{"c":[1,{"d":tru}]}}}', '{"a":[}', '{"a":"b', '{"a', '{"a":-}', '{"a":1.}', '{"a":1e}', '{"a":01}', '[01]', '[-01]', '{"a":"\\ud83d', 'ſ', 'tru\u{1F600}', 'nulé', '[tru]', '[trux]', '"\\u00e', '"\\u00é0"', '"\\\u{1F600}"', '"\\\u0001"', '-\u{1F600}', '1.\u{1F600}', '\ud83d', '{\ud83d', 'x\udc00', '{"a":1,"n"', '{"a":1,"n" 5', '{"a":1,"n".5', '{"a":1,"n""x"', '"\\é"', '"\\Ā"', '"\\é\u{1F600}"', '[23456789,x', '[2345678,x 345678901', '[2345678,x 3456789012', '[23456789,x 3456789012', '[234567890,x 3456789012', '[23456789,x 345678901', '[23456789,x 34567890', '[234567890,x 34567890'];
for (const text of hand) fault(text);
// mutations of good texts, by a fixed generator
let seed = 20261122;
const random = (n) => ((seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) >>> 8) % n;
const seeds = ['{"username":"alice","exp":1795359453,"channels":["a","b"],"ok":true,"no":null}', '[1,-2.5e+10,"\\u00e9\\n",{"a":{"b":false}},[]]', '{"é":"\u{1F600}","n":[0.5,true]}'];
const pieces = ['"', '\\', '{', '}', '[', ']', ':', ',', '1', '-', '.', 'e', 'x', 't', 'null', ' ', '\n', '\u0001', 'é', '\u{1F600}', '\\u12', '0'];
for (let i = 0; i < Number(process.env.MUTATIONS ?? 300); i++) {
  let text = seeds[random(seeds.length)];
  for (let edits = 1 + random(3); edits > 0; edits--) {
    const at = random(text.length + 1);
    const piece = pieces[random(pieces.length)];
    const kind = random(4);
    if (kind === 0) text = text.slice(0, at) + piece + text.slice(at);
    else if (kind === 1) text = text.slice(0, at) + text.slice(at + 1 + random(3));
    else if (kind === 2) text = text.slice(0, at) + piece + text.slice(at + 1);
    else text = text.slice(0, at);
  }
  fault(text.toWellFormed());
}
const wellFormed = faults.filter(({ text }) => text.isWellFormed());

process.stdout.write(
  JSON.stringify({ node: process.version, secret, keys, encrypted, verify, eddsa, sign, faults: wellFormed }, null, 1) + '\n',
);
