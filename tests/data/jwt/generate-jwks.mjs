// Makes jwks.json: sets of keys and tokens as jose makes them, and what jsonwebtoken says about `iss`, `aud` and clocks.
//
//   npm install jose@6.2.17 jsonwebtoken@9.0.3 ag-auth@2.1.1 sc-errors@3.0.0
//   node PATH_TO_THIS/generate-jwks.mjs > PATH_TO_THIS/jwks.json
//
// The keys are made here, for these vectors alone.

import { createRequire } from 'node:module';
import crypto from 'node:crypto';
import { pathToFileURL } from 'node:url';

const require = createRequire(process.cwd() + '/');
const jose = await import(pathToFileURL(require.resolve('jose')).href);
const jwt = require('jsonwebtoken');
const AuthEngine = require('ag-auth');
const scErrors = require('sc-errors');

const NOW_MS = 1795359453000; // 2026-11-22T14:57:33.000Z
const NOW = NOW_MS / 1000;

// --- one key for each algorithm, with its id, as jose exports it, and a token by it

const pairs = [];
for (const alg of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA']) {
  const { publicKey, privateKey } = await jose.generateKeyPair(alg, { extractable: true, modulusLength: 2048 });
  const private_jwk = { ...(await jose.exportJWK(privateKey)), kid: `key-${alg}`, alg, use: 'sig' };
  const public_jwk = { ...(await jose.exportJWK(publicKey)), kid: `key-${alg}`, alg, use: 'sig' };
  const sign = (header) =>
    new jose.SignJWT({ sub: 'ann' }).setProtectedHeader({ alg, typ: 'JWT', ...header }).setIssuedAt(NOW).sign(privateKey);
  pairs.push({ alg, private_jwk, public_jwk, token: await sign({ kid: `key-${alg}` }), token_without_kid: await sign({}) });
}
for (const [alg, bytes] of [['HS256', 32], ['HS384', 48], ['HS512', 64]]) {
  const secret = crypto.randomBytes(bytes);
  const jwk = { kty: 'oct', k: secret.toString('base64url'), kid: `key-${alg}`, alg };
  const sign = (header) =>
    new jose.SignJWT({ sub: 'ann' }).setProtectedHeader({ alg, typ: 'JWT', ...header }).setIssuedAt(NOW).sign(secret);
  pairs.push({ alg, private_jwk: jwk, public_jwk: null, token: await sign({ kid: `key-${alg}` }), token_without_kid: await sign({}) });
}

// --- what jsonwebtoken says about claims that are demanded: as tests/data/jwt/generate.mjs words errors

function processTokenError(err) {
  const [Error, bad] =
    err.name === 'TokenExpiredError' ? [new scErrors.AuthTokenExpiredError(err.message, err.expiredAt), true]
    : err.name === 'JsonWebTokenError' ? [new scErrors.AuthTokenInvalidError(err.message), true]
    : err.name === 'NotBeforeError' ? [new scErrors.AuthTokenNotBeforeError(err.message, err.date), false]
    : [new scErrors.AuthTokenError(err.message), true];
  Error.isBadToken = bad;
  return JSON.stringify(scErrors.dehydrateError(Error));
}

const engine = new AuthEngine();
const secret = 'a secret of these vectors';
const realNow = Date.now;
const demands = [];
async function demand(claims, issuers, audiences, leeway) {
  const token = jwt.sign(JSON.stringify(claims), secret, { header: { alg: 'HS256', typ: 'JWT' } });
  const options = {};
  if (issuers.length > 0) options.issuer = issuers.length === 1 ? issuers[0] : issuers;
  if (audiences.length > 0) options.audience = audiences;
  if (leeway > 0) options.clockTolerance = leeway;
  Date.now = () => NOW_MS;
  let error = null;
  try {
    await engine.verifyToken(token, secret, options);
  } catch (cause) {
    error = processTokenError(cause);
  } finally {
    Date.now = realNow;
  }
  demands.push({ token, issuers, audiences, leeway, error });
}
const us = 'https://us.example/';
for (const iss of [undefined, null, us, 'https://us.example', us + ' ', '', 1, [us], { us }, 'other'])
  for (const issuers of [[], [us], ['other', us]]) await demand({ iss }, issuers, [], 0);
for (const aud of [undefined, null, 'chat', 'Chat', '', 1, [], ['chat'], ['x', 'chat'], [['chat']], [1, null, 'x'], { chat: 1 }, 'x'])
  for (const audiences of [[], ['chat'], ['game', 'chat']]) await demand({ aud }, [], audiences, 0);
await demand({ iss: 'x', aud: 'x' }, [us], ['chat'], 0);
await demand({ iss: 'x', aud: 'x', exp: NOW }, [us], ['chat'], 0);
await demand({ iss: us, aud: 'chat', exp: NOW + 1, nbf: NOW }, [us], ['chat'], 0);
for (const leeway of [0, 1, 60])
  for (const off of [-61, -60, -59, -2, -1, 0, 1, 2, 59, 60, 61]) {
    await demand({ exp: NOW + off }, [], [], leeway);
    await demand({ nbf: NOW + off }, [], [], leeway);
  }

process.stdout.write(JSON.stringify({ secret, pairs, demands }, null, 1) + '\n');
