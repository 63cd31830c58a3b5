// Runs the two programs of docs/wills.md with client 20, with other ports: kills them, and checks which wills a subscriber gets.
// node wills.mjs --binary BINARY      The last line is `N passed, N failed`; the exit status is 1 if any failed.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {spawn} from 'node:child_process';
import {createRequire} from 'node:module';
import {fileURLToPath} from 'node:url';
import {isDeepStrictEqual, parseArgs} from 'node:util';
import {freePort, startTarget, stop} from './lib/servers.mjs';

const {values: args} = parseArgs({options: {binary: {type: 'string'}}});
if (!args.binary) { console.error('usage: node wills.mjs --binary BINARY'); process.exit(2); }
const PATIENCE_MS = 60000;
process.on('unhandledRejection', () => {}); // when a connection ends, the client rejects its pending promises

let passed = 0, failed = 0;
function check(name, found, expected) {
  if (isDeepStrictEqual(found, expected)) { passed++; console.log(`PASS ${name}`); return; }
  failed++;
  console.log(`FAIL ${name}\n  found    ${JSON.stringify(found)}\n  expected ${JSON.stringify(expected)}`);
}
/** Waits for a condition; returns whether it has come. */
async function until(condition) {
  for (const end = Date.now() + PATIENCE_MS; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 20))) {
    if (await condition()) return true;
  }
  return false;
}

const [port, admin] = [await freePort(), await freePort()];
const page = fs.readFileSync(new URL('../../docs/wills.md', import.meta.url), 'utf8').replaceAll('8000', port);
const [first, second] = [...page.matchAll(/^```js\n(.*?)^```/gms)].map(([, text]) => text);
const server = await startTarget(path.resolve(args.binary), {protocol: 'auto'}, 2, {
  RINGCAST_LISTEN: `127.0.0.1:${port}`, RINGCAST_ADMIN: `127.0.0.1:${admin}`, RINGCAST_AUTH_KEY: undefined,
});
/** The sum of a metric over the cores. */
async function metric(name) {
  const text = await (await fetch(`http://127.0.0.1:${admin}/metrics`)).text();
  return [...text.matchAll(new RegExp(`^${name}\\{[^}]*\\} (\\d+)`, 'gm'))].reduce((sum, [, value]) => sum + Number(value), 0);
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-wills-'));
const children = new Set();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  fs.rmSync(folder, {recursive: true, force: true});
});
fs.mkdirSync(path.join(folder, 'node_modules'));
fs.symlinkSync(fileURLToPath(new URL('node_modules/client20', import.meta.url)), path.join(folder, 'node_modules/socketcluster-client'));
/** Starts a program of the page, and returns it when its will is set. */
async function start(program) {
  fs.writeFileSync(path.join(folder, 'program.mjs'), `import socketClusterClient from 'socketcluster-client';\n${program}`);
  const before = await metric('ringcast_wills');
  const child = spawn(process.execPath, ['program.mjs'], {cwd: folder, stdio: ['pipe', 'inherit', 'inherit']});
  children.add(child);
  check('the program sets a will', await until(async () => (await metric('ringcast_wills')) === before + 1), true);
  return child;
}
/** Kills a program. It may have ended by itself: then there is no further event. */
async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = new Promise((resolve) => { child.on('exit', resolve); });
  child.kill('SIGKILL');
  await exit;
}

const watcher = createRequire(import.meta.url)('client20').create({hostname: '127.0.0.1', port});
const got = [];
const channel = watcher.subscribe('status');
(async () => { for await (const data of channel) got.push(data); })();
await channel.listener('subscribe').once();
const will = {user: 'ann', online: false};

await end(await start(first));
await until(() => got.length > 0);
check('a killed program: subscribers get its will', got.splice(0), [will]);

const polite = await start(`${first}\nprocess.stdin.once('data', () => socket.disconnect());`);
polite.stdin.end('disconnect\n');
check('disconnect() drops the will', await until(async () => (await metric('ringcast_wills')) === 0), true);
await watcher.invokePublish('status', 'mark');
await until(() => got.length > 0);
check('after disconnect() subscribers get nothing', got.splice(0), ['mark']);
await end(polite);

await end(await start(second));
check('the will waits for its delay', await until(async () => (await metric('ringcast_wills_waiting')) === 1), true);
const back = await start(second);
check('the session comes back: the will is dropped', await until(async () => (await metric('ringcast_wills_cancelled_total')) === 1), true);
await watcher.invokePublish('status', 'mark');
await end(back);
await until(() => got.length > 1);
check('the session stays away: subscribers get one will', got.splice(0), ['mark', will]);

watcher.disconnect();
await stop(server);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 ? 1 : 0);
