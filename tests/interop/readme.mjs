// Does what README.md says under "Start", word for word, with other ports: starts `ringcast` without settings, runs the program for Node.js
// with several majors of the client, creates a user, logs in with curl, and makes a token.
// node readme.mjs --binary BINARY      The last line is `N passed, N failed`; the exit status is 1 if any failed.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {spawn, execFileSync} from 'node:child_process';
import {createRequire} from 'node:module';
import {fileURLToPath} from 'node:url';
import {isDeepStrictEqual, parseArgs} from 'node:util';
import {freePort, startTarget, stop} from './lib/servers.mjs';

const {values: args} = parseArgs({options: {binary: {type: 'string'}}});
if (!args.binary) { console.error('usage: node readme.mjs --binary BINARY'); process.exit(2); }
const PATIENCE_MS = 60000;

let passed = 0, failed = 0;
function check(name, found, expected) {
  if (isDeepStrictEqual(found, expected)) { passed++; console.log(`PASS ${name}`); return; }
  failed++;
  console.log(`FAIL ${name}\n  found    ${JSON.stringify(found)}\n  expected ${JSON.stringify(expected)}`);
}

const [port, admin] = [await freePort(), await freePort()];
const readme = fs.readFileSync(new URL('../../README.md', import.meta.url), 'utf8').replaceAll('8000', port).replaceAll('9464', admin);
/** The blocks of a language, in order. */
const blocks = (language) => [...readme.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\``, 'gms'))].map(([, text]) => text);
const [log, printed] = blocks('text');
const [program] = blocks('js');
const [, withPassword, login] = blocks('sh');

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-readme-'));
process.on('exit', () => fs.rmSync(folder, {recursive: true, force: true}));
// The shell finds the binary as `ringcast`.
fs.symlinkSync(path.resolve(args.binary), path.join(folder, 'ringcast'));
const env = Object.fromEntries(Object.entries({...process.env, PATH: `${folder}:${process.env.PATH}`}).filter(([name]) => !name.startsWith('RINGCAST_')));
const shell = (command, more = {}) => execFileSync('bash', ['-c', command], {cwd: folder, env: {...env, ...more}, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe']});
/** Starts the server as README does: with nothing set but the addresses, and the variables in the line of the command. */
const start = (variables = {}) => startTarget(path.join(folder, 'ringcast'), {protocol: 'auto'}, 2,
  {RINGCAST_LISTEN: `127.0.0.1:${port}`, RINGCAST_ADMIN: `127.0.0.1:${admin}`, RINGCAST_AUTH_KEY: undefined, ...variables});

/** What a program prints until it has printed so many lines. Then it is ended. */
function lines(file, cwd, count) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [file], {cwd, env, stdio: ['ignore', 'pipe', 'pipe']});
    let text = '', errors = '';
    const end = () => child.kill('SIGKILL');
    const timer = setTimeout(end, PATIENCE_MS);
    child.stdout.on('data', (bytes) => { text += bytes; if (text.split('\n').length > count) end(); });
    child.stderr.on('data', (bytes) => { errors += bytes; });
    child.on('exit', () => { clearTimeout(timer); resolve(text + errors); });
  });
}

{
  const server = await start();
  const logged = server.output.split('\n');
  for (const line of log.trim().split('\n')) check(`the log has: ${line}`, logged.some((found) => found.endsWith(line)), true);
  check('the page in a browser', (await fetch(`http://127.0.0.1:${port}/`)).status, 200);
  check('the metrics', (await fetch(`http://127.0.0.1:${admin}/metrics`)).status, 200);
  for (const major of [15, 17, 19, 20]) {
    const place = path.join(folder, `client${major}`);
    fs.mkdirSync(path.join(place, 'node_modules'), {recursive: true});
    fs.symlinkSync(fileURLToPath(new URL(`node_modules/client${major}`, import.meta.url)), path.join(place, 'node_modules/socketcluster-client'));
    fs.writeFileSync(path.join(place, 'hall.js'), program);
    const found = await lines('hall.js', place, 2);
    // A core counts its pings; and the client may get its own publication before or after the answer to the ping is printed.
    const comparable = (text) => text.replace(/(by this core): \d+/, '$1: 1').trim().split('\n').sort();
    check(`hall.js with the major ${major}`, comparable(found), comparable(printed));
  }
  await stop(server);
}
{
  const [passwd, second] = withPassword.trim().split('\n');
  shell(passwd);
  const variable = /^(RINGCAST_\w+)=(\S+) ringcast$/.exec(second);
  const server = await start({[variable[1]]: path.join(folder, variable[2])});
  const [curl, whoami] = login.trim().split('\n').map((line) => shell(line));
  check('the login prints a token', curl.trim().replace(/^\W*|\W*$/g, '').split('.').length >= 3, true);
  check('the cookie is that of the user', JSON.stringify(JSON.parse(whoami)).includes('aaa@bbb.com'), true);
  await stop(server);
}
{
  const command = /`(ringcast token [^`]*)`/.exec(readme)[1], key = {RINGCAST_AUTH_KEY: 'a-key-of-thirty-two-bytes-or-more'};
  const server = await start(key), token = shell(command, key).trim();
  const socket = createRequire(import.meta.url)('client20').create({hostname: '127.0.0.1', port});
  await socket.authenticate(token);
  check('the token is accepted', socket.authToken?.user, 'ann');
  socket.disconnect();
  await stop(server);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
