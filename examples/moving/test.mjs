// Runs the client against the application before and after, and compares what it sees.
// node test.mjs --binary BINARY      The last line is `N passed, N failed`; the exit status is 1 if any failed.
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {execFileSync, spawn} from 'node:child_process';
import {fileURLToPath} from 'node:url';
import {parseArgs} from 'node:util';
import {visit} from './client.mjs';

const {values: args} = parseArgs({options: {binary: {type: 'string'}, print: {type: 'boolean'}}});
if (!args.binary) { console.error('usage: node test.mjs --binary BINARY [--print]'); process.exit(2); }
const here = path.dirname(fileURLToPath(import.meta.url)), binary = path.resolve(args.binary);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-moving-'));
const children = [];
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  fs.rmSync(folder, {recursive: true, force: true, maxRetries: 10});
});
const PATIENCE_MS = 60000, KEY = 'moving-secret-moving-secret-32-b';

/** Starts a program, and resolves with what the patterns find in its output. */
function start(command, words, env, ...patterns) {
  const child = spawn(command, words, {env: {...process.env, ...env}, stdio: ['ignore', 'pipe', 'pipe']});
  children.push(child);
  let output = '';
  return new Promise((resolve, reject) => {
    const fail = () => reject(new Error(`${command} ${words.join(' ')} did not start:\n${output}`));
    setTimeout(fail, PATIENCE_MS).unref();
    child.on('exit', fail);
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (bytes) => {
        output += bytes;
        const found = patterns.map((pattern) => pattern.exec(output)?.[1]);
        if (!found.includes(undefined)) resolve(found);
      });
    }
  });
}
function freePort() {
  return new Promise((resolve) => {
    const probe = net.createServer().listen(0, '127.0.0.1', () => { const {port} = probe.address(); probe.close(() => resolve(port)); });
  });
}

async function before() {
  const [port] = await start(process.execPath, [path.join(here, 'before/server.mjs')], {SOCKETCLUSTER_PORT: '0', SOCKETCLUSTER_AUTH_KEY: KEY}, /listening (\d+)/);
  return visit(Number(port));
}

async function after() {
  const env = {RINGCAST_AUTH_KEY: KEY}, hookPort = await freePort();
  const [key, ...entry] = execFileSync(binary, ['api-key', 'shop', '--actions', 'unsubscribe', '--channels', 'chat.**'], {encoding: 'utf8'}).split('\n');
  const token = execFileSync(binary, ['token', '--claims', '{"service":true}', '--expires', '1h'], {encoding: 'utf8', env: {...process.env, ...env}}).trim();
  const config = fs.readFileSync(path.join(here, 'after/ringcast.toml'), 'utf8').replaceAll('8001', hookPort);
  const secret = 'hook-secret-hook-secret-hook-sec';
  fs.writeFileSync(path.join(folder, 'hook.secret'), secret, {mode: 0o600});
  fs.writeFileSync(path.join(folder, 'ringcast.toml'), config.replaceAll('"hook.secret"', JSON.stringify(path.join(folder, 'hook.secret'))) + entry.join('\n'));
  const [admin, port] = await start(binary, ['--config', path.join(folder, 'ringcast.toml')],
    {...env, RINGCAST_LISTEN: '127.0.0.1:0', RINGCAST_ADMIN: '127.0.0.1:0', RINGCAST_CORES: '2', RINGCAST_LOG: 'info'},
    /control plane on (http:\/\/127\.0\.0\.1:\d+)/, /\bws:\/\/127\.0\.0\.1:(\d+)\//);
  await start(process.execPath, [path.join(here, 'after/service.mjs')],
    {RINGCAST_PORT: port, RINGCAST_ADMIN: admin, RINGCAST_TOKEN: token, RINGCAST_API_KEY: key, HOOK_SECRET: secret, HOOK_PORT: String(hookPort)}, /(serving)/);
  return visit(Number(port));
}

let passed = 0, failed = 0;
try {
  const [expected, found] = [await before(), await after()];
  expected.forEach((line, index) => {
    if (line === found[index]) { passed++; console.log(`PASS ${args.print ? line : line.split(':')[0]}`); return; }
    failed++;
    console.log(`FAIL before ${line}\n     after  ${found[index]}`);
  });
  if (found.length !== expected.length) { failed++; console.log(`FAIL ${expected.length} lines before, ${found.length} after`); }
} catch (error) {
  failed++;
  console.log(`FAIL ${error.stack}`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
