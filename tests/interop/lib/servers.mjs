// Starts the reference server and Ringcast (the target) with equal configurations, and ends each by its process id.
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import {spawn} from 'node:child_process';
import {createRequire} from 'node:module';
import {fileURLToPath} from 'node:url';

const jwt = createRequire(import.meta.url)('jsonwebtoken');

export const AUTH_KEY = 'interop-secret-interop-secret-32';

/** The configurations, for both servers. If a value is absent, the server's default applies. Only the target gets `variables`. */
export const CONFIGURATIONS = {
  base: {messageBytes: 2000, channels: 3, handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
  names: {messageBytes: 2000, handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
  large: {messageBytes: 1048576, handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
  'no publish': {clientPublish: false, handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
  origins: {origins: 'example.com:* localhost:8000 *:9000 secure.test:443', handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
  timers: {handshakeMs: 400, pingIntervalMs: 300, pingTimeoutMs: 1000},
  'protocol 1': {protocol: 1, messageBytes: 2000, channels: 3, handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
  application: {messageBytes: 4000, handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000, application: true},
  'no anonymous': {handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000, variables: {RINGCAST_ALLOW_ANONYMOUS: 'off'}},
  rules: {handshakeMs: 6000, pingIntervalMs: 400, pingTimeoutMs: 120000, variables: {RINGCAST_CONFIG: fileURLToPath(new URL('../rules.toml', import.meta.url))}},
  'protocol 1 timers': {protocol: 1, handshakeMs: 400, pingIntervalMs: 300, pingTimeoutMs: 1000},
};

const FLAGS = {protocol: 'protocol', messageBytes: 'max-payload', channels: 'channel-limit', origins: 'origins',
  handshakeMs: 'handshake-timeout', pingIntervalMs: 'ping-interval', pingTimeoutMs: 'ping-timeout'};
const VARIABLES = {messageBytes: 'RINGCAST_MESSAGE_BYTES_MAX', channels: 'RINGCAST_CHANNELS_PER_CONNECTION_MAX', origins: 'RINGCAST_ORIGINS',
  handshakeMs: 'RINGCAST_HANDSHAKE_TIMEOUT_MS', pingIntervalMs: 'RINGCAST_PING_INTERVAL_MS', pingTimeoutMs: 'RINGCAST_PING_TIMEOUT_MS'};

const running = new Set();
process.on('exit', () => { for (const child of running) child.kill('SIGKILL'); });
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

export function freePort() {
  return new Promise((resolve, reject) => {
    const probe = net.createServer().on('error', reject).listen(0, '127.0.0.1', () => {
      const {port} = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** Starts a server on ports that the system chooses. `patterns` find the ports, by name, in the server's output. */
async function start(command, args, env, patterns, input = 'ignore') {
  const child = spawn(command, args, {env, stdio: [input, 'pipe', 'pipe']});
  const server = {child, output: '', exited: null};
  const names = Object.keys(patterns), isListening = () => names.every((name) => server[name]);
  running.add(child);
  const listens = new Promise((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (bytes) => {
        server.output = (server.output + bytes).slice(-4000);
        for (const name of names) server[name] ??= Number(patterns[name].exec(server.output)?.[1]) || undefined;
        if (isListening()) resolve();
      });
    }
    child.on('error', (error) => { server.exited = error.message; resolve(); });
    child.on('exit', (code, signal) => { server.exited ??= `exit ${code ?? signal}`; running.delete(child); resolve(); });
    setTimeout(resolve, PATIENCE_MS).unref();
  });
  await listens;
  if (isListening() && !server.exited) return server;
  throw new Error(`${command} did not start: ${server.exited ?? 'no answer'}\n${server.output}`);
}

/** The longest wait for anything, however busy the machine is. Only failing checks wait so long. */
const PATIENCE_MS = 60000;

export async function startReference(configuration = {}) {
  const args = [fileURLToPath(new URL('../reference.mjs', import.meta.url)), '--port', '0', '--auth-key', AUTH_KEY];
  for (const [word, flag] of Object.entries(FLAGS)) if (configuration[word] !== undefined) args.push(`--${flag}`, String(configuration[word]));
  if (configuration.clientPublish === false) args.push('--no-client-publish');
  if (configuration.application) args.push('--application');
  return start(process.execPath, args, process.env, {port: /listening (\d+)\n/});
}

/** Starts Ringcast with `variables` in its environment. With `RINGCAST_ADMIN` the result also has a port `admin`. */
export async function startTarget(binary, configuration = {}, cores = 2, variables = {}) {
  const env = {...process.env, RINGCAST_LISTEN: '127.0.0.1:0', RINGCAST_ADMIN: 'off', RINGCAST_AUTH_KEY: AUTH_KEY,
    RINGCAST_CORES: String(cores), RINGCAST_PROTOCOL: String(configuration.protocol ?? 2), RINGCAST_LOG: 'info', ...configuration.variables, ...variables};
  for (const [word, variable] of Object.entries(VARIABLES)) if (configuration[word] !== undefined) env[variable] = String(configuration[word]);
  if (configuration.clientPublish === false) env.RINGCAST_ALLOW_CLIENT_PUBLISH = 'false';
  const application = configuration.application && await startApplication(env);
  const patterns = {port: /\bwss?:\/\/127\.0\.0\.1:(\d+)\//};
  if (env.RINGCAST_ADMIN !== 'off') patterns.admin = /control plane on https?:\/\/127\.0\.0\.1:(\d+)/;
  const server = await start(binary, [], env, patterns);
  if (application) await application.serve(server.port);
  return server;
}

/** Starts the application of the scripts, and sets the configuration with its hooks. Then `serve` lets it register its procedures. */
async function startApplication(env) {
  const program = fileURLToPath(new URL('../application.mjs', import.meta.url)), token = jwt.sign({service: true}, AUTH_KEY);
  const application = await start(process.execPath, [program, token], process.env, {hooks: /hooks (\d+)\n/}, 'pipe');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-application-'));
  process.on('exit', () => fs.rmSync(folder, {recursive: true, force: true}));
  env.RINGCAST_CONFIG = path.join(folder, 'ringcast.toml');
  const config = fs.readFileSync(new URL('../application.toml', import.meta.url), 'utf8');
  fs.writeFileSync(env.RINGCAST_CONFIG, config.replaceAll('PORT', application.hooks));
  application.serve = async (port) => {
    application.child.stdin.write(`${port}\n`);
    const end = Date.now() + PATIENCE_MS;
    while (!application.output.includes('serving')) {
      if (application.exited || Date.now() > end) throw new Error(`the application does not serve:\n${application.output}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  return application;
}

export async function stop(server) {
  const gone = new Promise((resolve) => server.child.once('exit', resolve));
  if (server.exited) return;
  server.child.kill('SIGKILL');
  await gone;
}
