import {Stream} from './stream.js';

/** Members that one call asks for. */
const PAGE = 1000;

/**
 * The members of a channel. Iterating it gives the current members after each change: a `Map` from the user, or from the socket id of
 * a client without a user, to `{user, info, since, connections}`.
 */
export class Presence {
  #socket;
  #channel;
  #members = new Map();
  #changes = new Stream();
  /** Events that have come while the list is fetched; `null` otherwise. */
  #pending = [];
  #refreshes = 0;
  #hasEnded = false;

  constructor(socket, channel) {
    this.#socket = socket;
    this.#channel = channel;
    /** How many members there are. Exact even if the channel is so large that its events leave changes out. */
    this.count = 0;
    /** Whether `members` has all of them: the events of a large channel leave changes out. `refresh` fetches the list anew. */
    this.isComplete = false;
    /** Why the list could not be fetched or followed; `null` if it could. Iterations go on with the members known before. */
    this.error = null;
    const events = socket.subscribe(`$presence/${channel}`);
    // Readers begin before the list is fetched: no event may be lost in between.
    this.#follow(events[Symbol.asyncIterator](), events.listener('subscribe')[Symbol.asyncIterator]());
    (async () => { for await (const {error} of events.listener('subscribeFail')) this.#fail(error); })();
    if (events.state === 'subscribed') this.refresh();
  }

  /** A copy of the members as they are known now. */
  get members() {
    return new Map(this.#members);
  }

  #follow(events, subscribes) {
    (async () => { for await (const event of {[Symbol.asyncIterator]: () => events}) this.#change(event); })();
    (async () => {
      for await (const _ of {[Symbol.asyncIterator]: () => subscribes}) if (!this.#hasEnded) this.refresh();
    })();
  }

  /** Fetches the whole list anew. */
  async refresh() {
    // Of several that overlap, the last one counts: the others may have been answered before events that are known by now.
    const number = ++this.#refreshes;
    this.#pending = [];
    const members = new Map();
    let after, count;
    try {
      do {
        const page = await this.#socket.invoke('$presence', {channel: this.#channel, limit: PAGE, ...(after === undefined ? {} : {after})});
        for (const member of page.members) members.set(keyOf(member), member);
        ({count, next: after} = page);
      } while (after !== undefined);
    } catch (error) {
      if (number === this.#refreshes) this.#fail(error);
      return;
    }
    if (this.#hasEnded || number !== this.#refreshes) return;
    this.error = null;
    this.#members = members;
    this.count = count;
    this.isComplete = true;
    for (const event of this.#pending) this.#apply(event);
    this.#pending = null;
    this.#changes.push(this.members);
  }

  /** The list cannot be had now. After a reconnect, the next subscribe fetches it again. */
  #fail(error) {
    this.error = error;
    this.isComplete = false;
    this.#pending = null;
    this.#changes.push(this.members);
  }

  #change(event) {
    if (this.#pending) {
      this.#pending.push(event);
      return;
    }
    this.#apply(event);
    this.#changes.push(this.members);
  }

  #apply({joined = [], changed = [], left = [], count, sampled = false}) {
    for (const member of left) this.#members.delete(keyOf(member));
    for (const member of [...joined, ...changed]) {
      const known = this.#members.get(keyOf(member));
      this.#members.set(keyOf(member), {...(known && {connections: known.connections}), ...member});
    }
    this.count = count;
    if (sampled) this.isComplete = false;
  }

  /** Ends all iterations and the subscription. */
  end() {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#changes.end();
    this.#socket.unsubscribe(`$presence/${this.#channel}`);
  }

  [Symbol.asyncIterator]() {
    return this.#changes[Symbol.asyncIterator]();
  }
}

const keyOf = ({user, connections}) => user ?? connections?.[0];
