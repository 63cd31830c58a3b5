// Starts the reference and the target in equal configurations, and ends them again, each by its own process id.
import net from 'node:net';
import {spawn} from 'node:child_process';
import {fileURLToPath} from 'node:url';

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export const AUTH_KEY = 'interop-secret-interop-secret-32';

/** Every configuration once, in words both servers understand. Absent: the server's default. */
export const CONFIGURATIONS = {
  base: {messageBytes: 2000, channels: 3, handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
  names: {messageBytes: 2000, handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
  large: {messageBytes: 1048576, handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
  'no publish': {clientPublish: false, handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
  origins: {origins: 'example.com:* localhost:8000 *:9000 secure.test:443', handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
  timers: {handshakeMs: 400, pingIntervalMs: 300, pingTimeoutMs: 1000},
  'protocol 1': {protocol: 1, messageBytes: 2000, channels: 3, handshakeMs: 6000, pingIntervalMs: 60000, pingTimeoutMs: 120000},
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

async function accepts(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); });
    socket.on('error', () => resolve(false));
  });
}

async function start(command, args, env, port) {
  const child = spawn(command, args, {env, stdio: ['ignore', 'pipe', 'pipe']});
  const server = {port, child, output: '', exited: null};
  running.add(child);
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (bytes) => { server.output = (server.output + bytes).slice(-4000); });
  child.on('error', (error) => { server.exited = error.message; });
  child.on('exit', (code, signal) => { server.exited ??= `exit ${code ?? signal}`; running.delete(child); });
  for (const end = Date.now() + 15000; Date.now() < end && !server.exited;) {
    if (await accepts(port)) return server;
    await sleep(25);
  }
  throw new Error(`${command} did not start: ${server.exited ?? 'no answer'}\n${server.output}`);
}

export async function startReference(configuration = {}) {
  const port = await freePort();
  const args = [fileURLToPath(new URL('../reference.mjs', import.meta.url)), '--port', String(port), '--auth-key', AUTH_KEY];
  for (const [word, flag] of Object.entries(FLAGS)) if (configuration[word] !== undefined) args.push(`--${flag}`, String(configuration[word]));
  if (configuration.clientPublish === false) args.push('--no-client-publish');
  return start(process.execPath, args, process.env, port);
}

/** `variables` go to the environment as they are. */
export async function startTarget(binary, configuration = {}, cores = 2, variables = {}) {
  const port = await freePort();
  const env = {...process.env, RINGCAST_LISTEN: `127.0.0.1:${port}`, RINGCAST_ADMIN: 'off', RINGCAST_AUTH_KEY: AUTH_KEY,
    RINGCAST_CORES: String(cores), RINGCAST_PROTOCOL: String(configuration.protocol ?? 2), RINGCAST_LOG: 'warn', ...variables};
  for (const [word, variable] of Object.entries(VARIABLES)) if (configuration[word] !== undefined) env[variable] = String(configuration[word]);
  if (configuration.clientPublish === false) env.RINGCAST_ALLOW_CLIENT_PUBLISH = 'false';
  return start(binary, [], env, port);
}

export async function stop(server) {
  const gone = new Promise((resolve) => server.child.once('exit', resolve));
  if (server.exited) return;
  server.child.kill('SIGKILL');
  await gone;
}
