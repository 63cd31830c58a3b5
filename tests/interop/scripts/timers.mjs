// Section 4: pings, pongs and time-outs. Intervals are short, so that scripts end soon.
import {bytes, close, ended, frames, handshake, idle, open, ready, text} from './build.mjs';
import {closing, frame} from '../lib/wire.mjs';

export const scripts = [];
for (const [config, pong, other] of [['timers', '', '#2'], ['protocol 1 timers', '#2', '']]) {
  const add = (name, steps, more = {}) => scripts.push({name: `${config}: ${name}`, config, steps, ...more});
  // The reference may send pings before the handshake; they are not compared.
  add('no handshake: 4005', [open(), {do: 'closed'}, ended()], {ignorePings: true});
  add('an empty array does not count as a handshake: 4005', [open(), text('[]'), {do: 'closed'}, ended()], {ignorePings: true});
  add('WebSocket pings do not put off the handshake time-out', [open(), bytes(frame(9, 'x')), idle(250), bytes(frame(9, 'y')), {do: 'closed'}, ended()], {ignorePings: true});
  add('no pong: 4001', [...ready(), {do: 'closed'}, ended()], {ignorePings: true});
  add('the wrong pong counts as traffic only early: 4001 in the end', [...ready(), text(other), {do: 'closed'}, ended()], {ignorePings: true});
  add('pings come on schedule', [...ready(), frames(2), text(pong), frames(3), text(pong), frames(4), text(pong), close(closing(1000))]);
  add('pongs keep the connection open', [...ready(), ...[2, 3, 4, 5, 6].flatMap((n) => [frames(n), text(pong)]), close(closing(1000))]);
  add('other traffic keeps the connection open', [...ready(), ...[1, 2, 3, 4, 5, 6].flatMap(() => [idle(280), text('{"event":"nothing"}')]), {do: 'sync'}, close(closing(1000))], {ignorePings: true});
  add('WebSocket pings do not keep the connection open', [...ready(), ...[1, 2, 3].flatMap(() => [idle(250), bytes(frame(9, 'x'))]), {do: 'closed'}, ended()], {ignorePings: true, ignorePongs: true});
  add('after the handshake the handshake time-out is off', [open(), idle(200), handshake(null), frames(1), idle(350), {do: 'sync'}, close(closing(1000))], {ignorePings: true});
  add('pings for a client that publishes to itself', [...ready(), text('{"event":"#subscribe","data":{"channel":"$C"},"cid":2}'), text('{"event":"#publish","data":{"channel":"$C","data":1}}'), frames(4), text(pong), close(closing(1000))]);
}
