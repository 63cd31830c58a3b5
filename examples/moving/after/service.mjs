// The shop on Ringcast: the same middleware, procedures and receiver as in before/server.mjs. They run in this process, of which there
// may be several, and Ringcast has the connections of the clients.
// RINGCAST_PORT=8000 RINGCAST_TOKEN=… RINGCAST_ADMIN=http://127.0.0.1:9464 RINGCAST_API_KEY=… HOOK_SECRET=… node after/service.mjs
import http from 'node:http';
import {createHmac, timingSafeEqual} from 'node:crypto';
import socketClusterClient from 'socketcluster-client';
import {CallError, connect} from 'ringcast-client';
import {Shop} from '../shop.mjs';

const {RINGCAST_PORT = '8000', RINGCAST_TOKEN, RINGCAST_ADMIN, RINGCAST_API_KEY, HOOK_SECRET, HOOK_PORT = '8001'} = process.env;
const shop = new Shop();
const block = (name, message, more) => ({error: {name, message}, ...more});

// Middleware: Ringcast asks for it over HTTP, by the [[hooks]] of ringcast.toml.
const middleware = {
  // Clients say in the query which application they are.
  connect({client}) {
    const app = new URLSearchParams(client.query).get('app');
    return app === 'old' ? block('OldAppError', 'Please install the new application', {code: 4501}) : {allow: true};
  },
  subscribe({channel, client}) {
    const {user} = client.claims ?? {};
    if (channel.startsWith('orders.') && channel !== `orders.${user}`) return block('ForbiddenError', 'These are not your orders');
    return {allow: true};
  },
  publish({channel, data, client}) {
    const {user, service} = client.claims ?? {};
    if (service) return {allow: true};
    if (channel.startsWith('orders.')) return block('ForbiddenError', 'Orders come from the shop');
    if (!user) return block('LoginError', 'Please log in');
    if (data.text.length > 100) return block('TooLongError', 'At most 100 characters');
    return {allow: true, data: {from: user, text: data.text}};             // nobody speaks for another
  },
  // The procedure `login`: it is a hook, since a hook can give the client a token.
  invoke({data}) {
    const claims = shop.claimsOf(data.user, data.password);
    return claims ? {answer: {welcome: claims.user}, token: {claims}} : block('LoginError', 'Wrong user or password');
  },
};

http.createServer(async (request, response) => {
  let body = '';
  for await (const chunk of request) body += chunk;
  if (!isSigned(request.headers['ringcast-signature'], body)) {
    response.writeHead(401).end();
    return;
  }
  const question = JSON.parse(body);
  response.writeHead(200, {'content-type': 'application/json'}).end(JSON.stringify(middleware[question.action](question)));
}).listen(Number(HOOK_PORT), '127.0.0.1');

function isSigned(header = '', body) {
  const fields = header.split(',').map((field) => field.split('='));
  const time = fields.find(([name]) => name === 't')?.[1];
  if (!(Math.abs(Date.now() / 1000 - time) < 300)) return false;
  const right = createHmac('sha256', HOOK_SECRET).update(`${time}.${body}`).digest();
  return fields.some(([name, hex]) => name === 'v1' && hex.length === 64 && timingSafeEqual(Buffer.from(hex, 'hex'), right));
}

// Procedures and receivers: a service.
const {socket, service} = connect(socketClusterClient, {
  hostname: '127.0.0.1',
  port: Number(RINGCAST_PORT),
  authEngine: {loadToken: async () => RINGCAST_TOKEN, saveToken: async () => {}, removeToken: async () => {}},
  autoReconnectOptions: {initialDelay: 500, randomness: 1000},
});
(async () => { for await (const {error} of socket.listener('error')) console.error(error); })();

service.procedure('orders.create', ({data, caller}) => {
  if (!caller.claims) throw new CallError('Please log in', {name: 'LoginError'});
  const order = shop.order(caller.claims.user, data.item);
  socket.transmitPublish(`orders.${order.user}`, order);                   // agServer.exchange.transmitPublish
  return order;
});
service.procedure('orders.list', ({caller}) => {
  if (!caller.claims) throw new CallError('Please log in', {name: 'LoginError'});
  return shop.ordersOf(caller.claims.user);
});
// The staff closes a chat: whoever is in it is sent out. What was a method of the caller's socket is a request of the HTTP API.
service.procedure('chat.leave', async ({data, caller}) => {
  await api('unsubscribe', {connection: caller.id, channel: data.channel, message: 'The chat is closed'});   // socket.kickOut
});
service.receiver('seen', ({data, caller}) => {
  socket.transmitPublish('seen', {order: data.order, user: caller.claims?.user ?? null});
});

async function api(request, body) {
  const headers = {authorization: `Bearer ${RINGCAST_API_KEY}`, 'content-type': 'application/json'};
  const response = await fetch(`${RINGCAST_ADMIN}/api/v1/${request}`, {method: 'POST', headers, body: JSON.stringify(body)});
  if (!response.ok) throw new Error(`${request}: ${response.status} ${await response.text()}`);
}

await service.ready();
console.log('serving');
process.once('SIGTERM', async () => {
  await service.stop();
  socket.disconnect();
  process.exit();
});
