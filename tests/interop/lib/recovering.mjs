// A real client that asks for recovery each time it is back, or knows nothing of it. Node and browsers load this file.

/** What a client has seen, summed up. */
const TALLY = () => ({subscribes: 0, recovered: 0, received: 0, replayed: 0, begun: {}});

/**
 * A client of the library `library`. `isAware` makes it ask for recovery; the subscribe data is evaluated anew with each
 * subscribe, so that the library's own resubscription after a reconnect carries the last position. A codec sees each packet.
 */
export function arrive({library, name, major, isAware, port, channels}) {
  const wrong = [], tally = TALLY();
  const complain = (text) => { if (wrong.length < 20) wrong.push(`${name}: ${text}`); };
  const seen = new Map(channels.map((channel) => [channel, {next: null, position: null, packets: 0, handedOut: 0, last: -1}]));
  const subscribes = new Map();
  const each = (object, act) => (Array.isArray(object) ? object : [object]).forEach((packet) => packet && typeof packet === 'object' && act(packet));
  const answered = ({channel, data}, answer) => {
    const state = seen.get(channel);
    if (!isAware) { state.next = null; return; }
    if (!answer) { complain(`${channel}: an answer without data`); return; }
    if (data.recover && answer.recovered) tally.recovered++; else {
      const why = data.recover ? answer.reason : 'first';
      tally.begun[why] = (tally.begun[why] ?? 0) + 1;
      state.next = null;
    }
    if (!state.position || answer.publications === 0) state.position = answer.position;
  };
  const published = ({channel, data: number, position, replayed}) => {
    const state = seen.get(channel);
    tally.received++;
    state.packets++;
    if (replayed) tally.replayed++;
    if (!position) { complain(`${channel}: ${number} has no position`); return; }
    if (state.next !== null && number !== state.next) complain(`${channel}: ${number} instead of ${state.next}`);
    if (isAware && state.next !== null && position.offset <= state.position.offset) complain(`${channel}: offset ${position.offset} after ${state.position.offset}`);
    state.next = number + 1;
    state.last = number;
    state.position = position;
  };
  // Each transport gets a codec of its own: one that is over may still read what its socket has kept, and the library
  // throws that away.
  let transports = 0;
  const codec = (number) => ({
    encode(object) {
      each(object, ({event, data, cid}) => { if (event === '#subscribe') { tally.subscribes++; subscribes.set(cid, JSON.parse(JSON.stringify(data))); } });
      return JSON.stringify(object);
    },
    decode(text) {
      let object;
      try { object = JSON.parse(text); } catch { return text; }
      if (number !== transports) return object;
      each(object, (packet) => {
        if (subscribes.has(packet.rid) && !packet.error) { answered(subscribes.get(packet.rid), packet.data); subscribes.delete(packet.rid); }
        if (packet.event === '#publish') published(packet.data);
      });
      return object;
    },
  });
  const socket = library.create({
    hostname: '127.0.0.1', port, path: '/socketcluster/', multiplex: false, connectTimeout: 4000, ackTimeout: 20000, autoConnect: false,
    autoReconnectOptions: {initialDelay: 20, randomness: 200, multiplier: 1, maxDelay: 300},
  });
  Object.defineProperty(socket, 'codec', {get: () => codec(++transports)});
  if (major === 14) socket.on('error', () => {});
  for (const channel of channels) {
    const state = seen.get(channel);
    const options = isAware ? {data: {get recover() { return state.position; }}} : {};
    const subscribed = socket.subscribe(channel, options);
    const hand = (number) => { state.handedOut++; if (number !== state.last && major === 14) complain(`${channel}: the library handed out ${number} for ${state.last}`); };
    if (major === 14) subscribed.watch(hand); else (async () => { for await (const number of subscribed) hand(number); })();
  }
  socket.connect();
  return {name, socket, report: () => ({name, wrong, tally, seen: Object.fromEntries(seen)})};
}
