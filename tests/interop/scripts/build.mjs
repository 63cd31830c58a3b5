// The steps of which scripts consist.
import {frame} from '../lib/wire.mjs';

export const open = (on = 'a', request) => ({do: 'open', on, request});
export const text = (value, on = 'a') => ({do: 'text', on, text: typeof value === 'string' ? value : JSON.stringify(value)});
export const binary = (bytes, on = 'a') => ({do: 'binary', on, bytes: Buffer.from(bytes)});
export const bytes = (...parts) => ({do: 'bytes', bytes: Buffer.concat(parts.map((p) => Buffer.from(p)))});
export const sync = (on = 'a') => ({do: 'sync', on});
export const frames = (count, on = 'a') => ({do: 'frames', on, count});
export const ended = (ms) => ({do: 'ended', ms});
export const idle = (ms) => ({do: 'idle', ms});
export const close = (payload, on = 'a') => ({do: 'close', on, payload});
export const handshake = (token, on = 'a') => text(`{"event":"#handshake","data":{"authToken":${JSON.stringify(token ?? null)}},"cid":1}`, on);

/** Opens a connection and completes its handshake. */
export const ready = (on = 'a') => [open(on), handshake(null, on), frames(1, on)];
export const subscribe = (channel, cid = 2, on = 'a') => text({event: '#subscribe', data: {channel}, cid}, on);
export const publish = (channel, data, cid, on = 'a') => text({event: '#publish', data: {channel, data}, cid}, on);
export const whole = (value) => frame(1, value);
