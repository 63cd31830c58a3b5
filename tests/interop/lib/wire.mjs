// A WebSocket client that can break every rule: it sends given bytes and records everything that the server sends.
import net from 'node:net';
import {randomBytes} from 'node:crypto';

export const KEY = 'dGhlIHNhbXBsZSBub25jZQ==';
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The bytes of one frame. `form` and `length` can force the 16- or 64-bit form, or a length other than the payload's. */
export function frame(opcode, payload = '', {fin = true, rsv = 0, mask = true, form = 0, length} = {}) {
  const body = Buffer.isBuffer(payload) ? Buffer.from(payload) : Buffer.from(payload, 'utf8');
  const size = length ?? body.length;
  const first = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  const bit = mask ? 0x80 : 0;
  let head;
  if (form === 64 || (form === 0 && size > 0xffff)) {
    head = Buffer.alloc(10);
    head.writeUInt8(first, 0);
    head.writeUInt8(bit | 127, 1);
    head.writeBigUInt64BE(BigInt(size), 2);
  } else if (form === 16 || (form === 0 && size > 125)) {
    head = Buffer.alloc(4);
    head.writeUInt8(first, 0);
    head.writeUInt8(bit | 126, 1);
    head.writeUInt16BE(size, 2);
  } else {
    head = Buffer.from([first, bit | size]);
  }
  if (!mask) return Buffer.concat([head, body]);
  const key = randomBytes(4);
  for (let i = 0; i < body.length; i++) body[i] ^= key[i & 3];
  return Buffer.concat([head, key, body]);
}

/** The payload of a close frame. */
export function closing(code, reason = '') {
  const text = Buffer.isBuffer(reason) ? reason : Buffer.from(reason, 'utf8');
  const payload = Buffer.alloc(2 + text.length);
  payload.writeUInt16BE(code, 0);
  text.copy(payload, 2);
  return payload;
}

/** A request head. `headers` is a list of [name, value]. */
export function request({method = 'GET', path = '/socketcluster/', version = 'HTTP/1.1', headers, end = '\r\n'} = {}) {
  return [`${method} ${path} ${version}`, ...headers.map(([name, value]) => `${name}: ${value}`), '', ''].join(end);
}

/** The headers of an ordinary upgrade. Some can be replaced (by undefined: left out), and some added at the end. */
export function upgrade(replaced = {}, added = []) {
  const headers = {Host: 'localhost', Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Key': KEY, 'Sec-WebSocket-Version': '13', ...replaced};
  return [...Object.entries(headers).filter(([, value]) => value !== undefined), ...added];
}

export class Connection {
  constructor(port) {
    this.log = []; // everything received, in order, as text
    this.frames = 0; // number of messages received
    this.id = null; // the socket id in the answer to the handshake
    this.upgraded = false;
    this.ended = false;
    this.echo = true; // answer a close frame, then end
    this.closed = false; // true after a close frame was received
    this.closeSent = false;
    this.pending = Buffer.alloc(0);
    this.head = '';
    this.answered = new Set();
    this.waiters = new Set();
    this.socket = net.connect({port, host: '127.0.0.1', allowHalfOpen: true});
    this.socket.setNoDelay(true);
    this.socket.on('data', (bytes) => { this.receive(bytes); this.wake(); });
    this.socket.on('end', () => this.finish());
    this.socket.on('error', () => this.finish());
    this.socket.on('close', () => this.finish());
  }

  finish() {
    if (this.ended) return;
    this.ended = true;
    if (!this.upgraded && this.head) this.log.push(`http ${this.head}`);
    this.log.push('end');
    this.socket.end();
    this.wake();
  }

  wake() { for (const waiter of this.waiters) waiter(); }

  /** Resolves to true if `condition` becomes true in time. */
  async until(condition, ms = 8000) {
    if (condition()) return true;
    return new Promise((resolve) => {
      const done = (value) => { clearTimeout(timer); this.waiters.delete(check); resolve(value); };
      const check = () => { if (condition()) done(true); };
      const timer = setTimeout(() => done(condition()), ms);
      this.waiters.add(check);
    });
  }

  send(bytes) { if (!this.socket.destroyed && this.socket.writable) this.socket.write(bytes); }

  receive(bytes) {
    this.pending = this.pending.length ? Buffer.concat([this.pending, bytes]) : bytes;
    if (!this.upgraded) {
      const end = this.pending.indexOf('\r\n\r\n');
      const text = this.pending.toString('latin1');
      if (end < 0 || !text.startsWith('HTTP/1.1 101')) { this.head = text; return; }
      this.upgraded = true;
      this.log.push(`http ${text.slice(0, end + 4)}`);
      this.pending = this.pending.subarray(end + 4);
    }
    while (this.parse());
  }

  parse() {
    const b = this.pending;
    if (b.length < 2) return false;
    let size = b[1] & 0x7f, at = 2;
    if (size === 126) { if (b.length < 4) return false; size = b.readUInt16BE(2); at = 4; }
    else if (size === 127) { if (b.length < 10) return false; size = Number(b.readBigUInt64BE(2)); at = 10; }
    if (b.length < at + size) return false;
    const payload = b.subarray(at, at + size);
    this.pending = b.subarray(at + size);
    const [opcode, flags] = [b[0] & 0x0f, (b[0] & 0xf0) | (b[1] & 0x80 ? 1 : 0)];
    const odd = flags === 0x80 ? '' : ` (fin/rsv/mask bits ${flags.toString(16)})`;
    if (opcode === 1) this.message(payload.toString('utf8'), odd);
    else if (opcode === 8) this.close(payload, odd);
    else this.log.push(`${{2: 'binary', 9: 'ping', 10: 'pong'}[opcode] ?? `opcode ${opcode}`} ${payload.toString('hex')}${odd}`);
    return true;
  }

  message(text, odd) {
    this.frames++;
    this.log.push(`text ${text}${odd}`);
    if (this.id === null) this.id = /^\{"rid":[^,]+,"data":\{"id":"([^"]*)"/.exec(text)?.[1] ?? null;
    const probe = /^\{"rid":(7777\d{4}),/.exec(text)?.[1];
    if (probe) { this.answered.add(Number(probe)); this.log.pop(); this.frames--; }
  }

  close(payload, odd) {
    this.closed = true;
    this.log.push(payload.length < 2 ? `close without code${odd}` : `close ${payload.readUInt16BE(0)} ${JSON.stringify(payload.subarray(2).toString('utf8'))}${odd}`);
    if (!this.echo) return;
    if (!this.closeSent) this.send(frame(8, payload));
    this.closeSent = true;
    this.socket.end();
  }

  async open(head) {
    this.send(head);
    await this.until(() => this.upgraded || this.ended);
  }

  /** Waits until the server has handled everything sent before: it has answered a call, or the connection has ended. */
  async sync() {
    const cid = 77770000 + (this.probes = (this.probes ?? 0) + 1);
    this.send(frame(1, `{"event":"ping","cid":${cid}}`));
    if (!await this.until(() => this.answered.has(cid) || this.ended)) this.log.push('(no answer to a ping call)');
  }

  async endOfStream(ms = 8000) { if (!await this.until(() => this.ended, ms)) this.log.push('(still open)'); }

  /** Waits until a plain HTTP answer seems complete: the connection is upgraded, has ended, or is quiet. */
  async answer(quiet = 150, first = 1500) {
    await this.until(() => this.head || this.upgraded || this.ended, first);
    for (let seen = -1; seen !== this.head.length && !this.upgraded && !this.ended;) { seen = this.head.length; await sleep(quiet); }
    if (!this.upgraded && !this.ended) this.log.push(this.head ? `http ${this.head}(still open)` : '(no answer, still open)');
  }

  destroy() { this.destroyed = true; this.socket.destroy(); }
}

/** Runs one script against a port; returns one log per connection, with ids replaced. */
export async function perform(script, port) {
  const connections = new Map();
  const connection = (on) => {
    if (!connections.has(on)) connections.set(on, new Connection(port));
    return connections.get(on);
  };
  for (const step of script.steps) {
    const c = step.do === 'idle' ? null : connection(step.on ?? 'a');
    switch (step.do) {
      case 'open': await c.open(request({headers: upgrade(), ...step.request})); break;
      case 'bytes': c.send(step.bytes); break;
      case 'text': c.send(frame(1, step.text)); break;
      case 'binary': c.send(frame(2, step.bytes)); break;
      case 'sync': await c.sync(); break;
      case 'answer': await c.answer(step.quiet, step.first); break;
      case 'frames': if (!await c.until(() => c.frames >= step.count || c.ended)) c.log.push(`(fewer than ${step.count} messages)`); break;
      case 'close': c.closeSent = true; c.echo = false; c.send(frame(8, step.payload ?? closing(1000))); await c.endOfStream(); break;
      case 'no echo': c.echo = false; break;
      case 'closed': if (!await c.until(() => c.closed || c.ended, step.ms)) c.log.push('(no close frame)'); break;
      case 'ended': await c.endOfStream(step.ms); break;
      case 'fin': c.socket.end(); break;
      case 'idle': await sleep(step.ms); break;
      default: throw new Error(`unknown step ${step.do} in ${script.name}`);
    }
  }
  for (const c of connections.values()) {
    if (!c.ended && !c.closed && c.id !== null) await c.sync();
  }
  for (const c of connections.values()) {
    if (!c.ended && !c.closeSent && c.upgraded) { c.closeSent = true; c.echo = false; c.send(frame(8, closing(1000))); }
    if (c.upgraded) await c.endOfStream();
    c.destroy();
  }
  return [...connections].map(([on, c]) => c.log.map((line) => normalise(line, c.id)).map((line) => `${on}: ${line}`));
}

/** Replaces ids, counts and dates, which differ between servers. */
function normalise(line, id) {
  let text = id ? line.replaceAll(id, 'ID') : line;
  text = text.replace(/"count":\d+/g, '"count":N');
  if (text.startsWith('http ')) text = text.replace(/\r\nDate: [^\r]*/, '\r\nDate: D');
  return text;
}
