// What a client of the shop does and sees, as lines of text. It knows nothing of the server it talks to.
// node client.mjs PORT
import socketClusterClient from 'socketcluster-client';

const PATIENCE_MS = 60000;

/** Runs the script against the server at this port of this machine, and returns the lines. */
export async function visit(port) {
  const lines = [], sockets = [];
  const say = (what, value) => lines.push(`${what}: ${JSON.stringify(value)}`);
  const errorOf = ({name, message}) => ({name, message});
  const attempt = async (what, promise) => say(what, await promise.then((answer) => ({answer}), (error) => ({error: errorOf(error)})));
  const connect = (app) => {
    const socket = socketClusterClient.create({hostname: '127.0.0.1', port, path: '/socketcluster/', query: {app}, ackTimeout: PATIENCE_MS, autoReconnect: false});
    (async () => { for await (const _ of socket.listener('error')); })();
    sockets.push(socket);
    return socket;
  };
  const subscribe = async (socket, name) => {
    const channel = socket.subscribe(name), publications = [];
    const ends = [channel.listener('subscribe').once(PATIENCE_MS), channel.listener('subscribeFail').once(PATIENCE_MS)];
    (async () => { for await (const data of channel) publications.push(data); })();
    const {error} = await Promise.race(ends);
    say(`subscribe to ${name}`, error ? errorOf(error) : 'subscribed');
    return publications;
  };
  const comes = async (what, publications, count) => {
    const end = Date.now() + PATIENCE_MS;
    while (publications.length < count && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 5));
    say(what, publications.splice(0));
  };

  // An old application is sent away, for good.
  const old = connect('old');
  const {code} = await old.listener('connectAbort').once(PATIENCE_MS);
  say('the old application', code);

  const bob = connect('new');
  await bob.listener('connect').once(PATIENCE_MS);
  await subscribe(bob, 'orders.bob');
  await attempt('an order without a login', bob.invoke('orders.create', {item: 'chair'}));
  await attempt('a wrong password', bob.invoke('login', {user: 'bob', password: 'lamp'}));
  const token = bob.listener('authenticate').once(PATIENCE_MS);
  await attempt('a login', bob.invoke('login', {user: 'bob', password: 'chair'}));
  await token;
  const {user, role} = bob.authToken;
  say('the token', {user, role});

  const orders = await subscribe(bob, 'orders.bob');
  await subscribe(bob, 'orders.ann');
  await attempt('an order', bob.invoke('orders.create', {item: 'chair'}));
  await comes('and its publication', orders, 1);
  await attempt('all orders', bob.invoke('orders.list'));
  await attempt('a false order', bob.invokePublish('orders.bob', {id: 99}));

  const chat = await subscribe(bob, 'chat.1');
  await attempt('a message', bob.invokePublish('chat.1', {from: 'ann', text: 'hello'}));
  await comes('has its sender', chat, 1);
  await attempt('a long message', bob.invokePublish('chat.1', {text: 'x'.repeat(101)}));
  const stranger = connect('new');
  await stranger.listener('connect').once(PATIENCE_MS);
  await attempt('a message without a login', stranger.invokePublish('chat.1', {text: 'hello'}));

  const seen = await subscribe(stranger, 'seen');
  await bob.transmit('seen', {order: 1});
  await comes('an event', seen, 1);

  const kicked = bob.channel('chat.1').listener('kickOut').once(PATIENCE_MS);
  await attempt('the end of a chat', bob.invoke('chat.leave', {channel: 'chat.1'}));
  say('the kick', await kicked);

  for (const socket of sockets) socket.disconnect();
  return lines;
}

if (process.argv[1] === (await import('node:url')).fileURLToPath(import.meta.url)) console.log((await visit(Number(process.argv[2]))).join('\n'));
