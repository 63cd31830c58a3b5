import {watchPackets} from './codec.js';

/** What a procedure answers with that throws anything but a `CallError`: the caller is told nothing of the program's own failures. */
const FAILED = {name: 'InternalError', message: 'The procedure has failed'};

/** Throw it in a procedure to answer with an error. Its name, its message and all members of `details` go to the caller. */
export class CallError extends Error {
  constructor(message, {name = 'Error', ...details} = {}) {
    super(message);
    Object.assign(this, details, {name});
  }
}

/**
 * Procedures that the server asks this client, on behalf of others. They are registered by pattern, again after each connect: a name, or
 * a beginning of names with `*` at its end. The server needs a rule that allows this client the action `serve`.
 */
export class Service {
  #socket;
  #patterns = new Map();
  /** The calls of the present connection whose procedures run, by call id. */
  #open = new Map();
  #waiting = [];
  #isStopping = false;

  /** The socket has not connected yet. */
  constructor(socket) {
    this.#socket = socket;
    // Sockets know procedures by whole names only: packets are routed by pattern.
    watchPackets(socket, () => {
      this.#abort();
      return {outgoing: (packet) => packet, incoming: (packet) => this.#routed(packet)};
    });
    const each = async (stream, act) => { for await (const value of stream) act(value); };
    each(socket.listener('connect'), () => { for (const [pattern, one] of this.#patterns) this.#register(pattern, one); });
    each(socket.listener('disconnect'), () => this.#abort());
    each(socket.receiver('$cancel'), (data) => this.#open.get(data?.rid)?.abort());
    each(socket.receiver('$unserved'), (data) => this.#unserved(data?.procedure));
  }

  /**
   * Answers calls by `handler({procedure, data, caller, signal})`: what it returns, or the `CallError` that it throws. The server has at
   * most `window` calls open here, and gives a share of the calls by `weight`. `signal` is aborted when the caller is gone, when the call has
   * timed out, and when the connection ends.
   */
  procedure(pattern, options, handler) {
    if (typeof options === 'function') [options, handler] = [{}, options];
    this.#on(pattern, {procedure: handler, options});
  }

  /** Gets one-way events by `handler({procedure, data, caller})`. Its result is dropped. */
  receiver(pattern, handler) {
    this.#on(pattern, {receiver: handler});
  }

  /** Resolves when the server has confirmed all patterns; rejects if it refuses one. */
  async ready() {
    for (;;) {
      const patterns = [...this.#patterns.values()];
      const refused = patterns.find(({error}) => error);
      if (refused) throw refused.error;
      if (patterns.every(({isRegistered}) => isRegistered)) return;
      await this.#change();
    }
  }

  /** Takes no more calls, and waits until the open ones are answered; those that take longer than `timeoutMs` are aborted. */
  async stop({timeoutMs = 30000} = {}) {
    this.#isStopping = true;
    await Promise.all([...this.#patterns].filter(([, {isRegistered}]) => isRegistered).map(async ([pattern, one]) => {
      one.isRegistered = false;
      // If the connection has ended, so has the registration.
      await this.#socket.invoke('$unserve', {procedure: pattern}).catch(() => {});
    }));
    let isLate = false;
    const timer = setTimeout(() => { isLate = true; this.#changed(); }, timeoutMs);
    while (this.#open.size > 0 && !isLate) await this.#change();
    clearTimeout(timer);
    this.#abort();
  }

  #on(pattern, {procedure, receiver, options}) {
    const known = this.#patterns.get(pattern);
    const one = known ?? {options: {}, isRegistered: false, error: null};
    Object.assign(one, procedure && {procedure}, receiver && {receiver}, options && {options});
    this.#patterns.set(pattern, one);
    if (!known) this.#follow(pattern, one);
    if (!known || procedure) this.#register(pattern, one);
  }

  #routed(packet) {
    const {event, data} = packet;
    if (typeof event !== 'string' || !data?.caller) return undefined;
    const covers = (pattern) => pattern === event || (pattern.endsWith('*') && event.startsWith(pattern.slice(0, -1)));
    const pattern = this.#patterns.has(event) ? event : [...this.#patterns.keys()].filter(covers).sort((a, b) => b.length - a.length)[0];
    return pattern === undefined ? undefined : {...packet, event: pattern, data: {...data, procedure: event}};
  }

  #follow(pattern, one) {
    (async () => { for await (const request of this.#socket.procedure(pattern)) this.#answer(request, one); })();
    (async () => { for await (const call of this.#socket.receiver(pattern)) this.#tell(call, one); })();
  }

  async #answer(request, {procedure: handler}) {
    const {procedure, data, caller} = request.data;
    const open = this.#open, controller = new AbortController();
    open.set(request.id, controller);
    let answer;
    try {
      if (!handler) throw new CallError(`This service has no procedure ${procedure}`, {name: 'UnknownProcedureError'});
      const result = await handler({procedure, data, caller, signal: controller.signal});
      answer = () => request.end(result);
    } catch (error) {
      if (!(error instanceof CallError) && !controller.signal.aborted) this.#socket.emit('error', {error});
      answer = () => request.error(error instanceof CallError ? error : Object.assign(new Error(FAILED.message), {name: FAILED.name}));
    }
    if (!controller.signal.aborted) answer();
    open.delete(request.id);
    this.#changed();
  }

  async #tell({procedure, data, caller}, {receiver}) {
    try {
      await receiver?.({procedure, data, caller});
    } catch (error) {
      this.#socket.emit('error', {error});
    }
  }

  async #register(pattern, one) {
    if (this.#isStopping || this.#socket.state !== 'open') return; // registered at the next connect
    const {weight, window} = one.options;
    one.isRegistered = false;
    try {
      await this.#socket.invoke('$serve', {procedure: pattern, weight, window});
      one.isRegistered = true;
      one.error = null;
    } catch (error) {
      if (error.name === 'BadConnectionError') return;
      one.error = error;
      this.#socket.emit('error', {error});
    }
    this.#changed();
  }

  /** The rules, or the claims of this client, have changed: it may not serve this any more. */
  #unserved(pattern) {
    const one = this.#patterns.get(pattern);
    if (!one) return;
    one.isRegistered = false;
    one.error = Object.assign(new Error(`The server does not allow this client to serve ${pattern} any more`), {name: 'UnservedError'});
    this.#socket.emit('error', {error: one.error});
    this.#changed();
  }

  /** The connection has ended, and with it the registrations and the calls. */
  #abort() {
    for (const controller of this.#open.values()) controller.abort();
    this.#open = new Map();
    for (const one of this.#patterns.values()) one.isRegistered = false;
    this.#changed();
  }

  #change() {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #changed() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
