// What Ringcast adds, for socketcluster-client 15 to 20: channels that remember (recovery, history, presence and last wills), and
// services. All of it is plain packets: docs/recovery.md, docs/presence.md, docs/wills.md and docs/services.md of Ringcast have them.
import {watchPackets} from './lib/codec.js';
import {Presence} from './lib/presence.js';
import {Room} from './lib/room.js';
import {CallError, Service} from './lib/service.js';

export {CallError};

/**
 * Connects by `socketClusterClient.create(options)`. The socket is an ordinary one; `memory` has what Ringcast remembers for it, and by
 * `service` it answers procedures that other clients call.
 */
export function connect(socketClusterClient, options = {}) {
  const socket = socketClusterClient.create({...options, autoConnect: false});
  const memory = new Memory(socket, options.channelPrefix ?? ''), service = new Service(socket);
  if (options.autoConnect !== false) socket.connect();
  return {socket, memory, service};
}

/** What a socket remembers of its channels. */
class Memory {
  #socket;
  #prefix;
  #rooms = new Map();
  #will = null;
  /** The infos that this client has set, by channel. */
  #infos = new Map();

  constructor(socket, prefix) {
    this.#socket = socket;
    this.#prefix = prefix;
    watchPackets(socket, () => this.#watcher());
    (async () => { for await (const _ of socket.listener('connect')) this.#leaveWill(); })();
    (async () => { for await (const {channel} of socket.listener('subscribe')) this.#renewInfo(channel); })();
  }

  #watcher() {
    const asked = new Map(); // the rooms of subscribes without an answer, by call id
    return {
      outgoing: (packet) => {
        const room = packet.event === '#subscribe' ? this.#room(packet.data.channel) : undefined;
        if (!room) return packet;
        asked.set(packet.cid, room);
        return {...packet, data: {...packet.data, data: room.subscribeData()}};
      },
      incoming: ({event, data, rid, error}) => {
        if (event === '#publish') this.#room(data?.channel)?.published(data);
        else if (event === '$position') this.#room(data?.channel)?.positioned(data.position);
        const room = asked.get(rid);
        if (!room) return;
        asked.delete(rid);
        if (error === undefined) room.subscribed(data);
      },
    };
  }

  #room(name) {
    return typeof name === 'string' && name.startsWith(this.#prefix) ? this.#rooms.get(name.slice(this.#prefix.length)) : undefined;
  }

  /**
   * Subscribes to a channel and keeps its position. The first subscribe asks for the `last` publications, for all `since` a time in Unix
   * milliseconds, or for what follows a `position` that an earlier visit has kept. `onGap` is called when something was missed that
   * the server can no longer give: fetch the state anew then.
   */
  subscribe(name, options = {}) {
    const known = this.#rooms.get(name);
    if (known) return known;
    const room = new Room(name, options);
    this.#rooms.set(name, room);
    const {waitForAuth, priority} = options;
    this.#socket.subscribe(name, {waitForAuth, priority});
    return room;
  }

  /** Ends a subscription and all iterations of its room. */
  unsubscribe(name) {
    this.#rooms.get(name)?.end();
    this.#rooms.delete(name);
    this.#socket.unsubscribe(name);
  }

  /** Past publications, oldest first: `{position, publications: [{offset, time, data}], …}`. Give `last`, `since` or `recover`. */
  history(name, ask = {recover: null}) {
    return this.#socket.invoke('$history', {channel: name, ...ask});
  }

  /**
   * Publishes data, which is the retained publication of the channel from now on: MQTT clients that subscribe get it first, and so does
   * `subscribe` with `last`, on a channel of which nothing else is kept. The server must speak MQTT.
   */
  retain(name, data) {
    return this.#socket.invoke('$retain', {channel: name, data: data === undefined ? null : data});
  }

  /** Publishes without data, and the channel has no retained publication any more. */
  clearRetained(name) {
    return this.#socket.invoke('$retain', {channel: name});
  }

  /** The members of a channel, kept up to date. The policy of the channel must have `presence_events`. */
  presence(name) {
    return new Presence(this.#socket, name);
  }

  /** Sets the info that others see of this client in a channel, and sets it again after each reconnect; `null` removes it. */
  async setInfo(name, info) {
    await this.#socket.invoke('$presence_info', {channel: name, info});
    if (info === null) this.#infos.delete(name);
    else this.#infos.set(name, info);
  }

  async #renewInfo(name) {
    if (!this.#infos.has(name)) return;
    try {
      await this.#socket.invoke('$presence_info', {channel: name, info: this.#infos.get(name)});
    } catch (error) {
      this.#socket.emit('error', {error}); // nobody waits for this call
    }
  }

  /** Leaves a will, and leaves it again after each reconnect. Resolves when the server has it. */
  async setWill({channel, data, delayMs, session, retain}) {
    this.#will = {
      channel,
      ...(data === undefined ? {} : {data}),
      ...(delayMs === undefined ? {} : {delay_ms: delayMs}),
      ...(session === undefined ? {} : {session}),
      ...(retain === undefined ? {} : {retain}),
    };
    await this.#socket.invoke('$will', this.#will);
  }

  /** Takes the will back. */
  async clearWill() {
    this.#will = null;
    await this.#socket.invoke('$will', null);
  }

  async #leaveWill() {
    if (!this.#will) return;
    try {
      await this.#socket.invoke('$will', this.#will);
    } catch (error) {
      this.#socket.emit('error', {error}); // nobody waits for this call
    }
  }
}
