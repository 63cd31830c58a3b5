// A shop on socketcluster-server: middleware, procedures, a receiver, tokens, publications of the server, and a kick.
// SOCKETCLUSTER_PORT=8000 SOCKETCLUSTER_AUTH_KEY=… node before/server.mjs
import http from 'node:http';
import socketClusterServer from 'socketcluster-server';
import {Shop, failure} from '../shop.mjs';

const shop = new Shop();
const httpServer = http.createServer();
const agServer = socketClusterServer.attach(httpServer, {authKey: process.env.SOCKETCLUSTER_AUTH_KEY});

// Clients say in the query which application they are.
agServer.setMiddleware(agServer.MIDDLEWARE_HANDSHAKE, async (stream) => {
  for await (const action of stream) {
    if (action.type === action.HANDSHAKE_SC) {
      const app = new URL(action.socket.request.url, 'http://shop').searchParams.get('app');
      if (app === 'old') {
        action.block(Object.assign(failure('OldAppError', 'Please install the new application'), {statusCode: 4501}));
        continue;
      }
    }
    action.allow();
  }
});

agServer.setMiddleware(agServer.MIDDLEWARE_INBOUND, async (stream) => {
  for await (const action of stream) {
    const {user} = action.socket.authToken ?? {};
    if (action.type === action.SUBSCRIBE && action.channel.startsWith('orders.') && action.channel !== `orders.${user}`) {
      action.block(failure('ForbiddenError', 'These are not your orders'));
    } else if (action.type === action.PUBLISH_IN && action.channel.startsWith('orders.')) {
      action.block(failure('ForbiddenError', 'Orders come from the shop'));
    } else if (action.type === action.PUBLISH_IN && action.channel.startsWith('chat.')) {
      if (!user) action.block(failure('LoginError', 'Please log in'));
      else if (action.data.text.length > 100) action.block(failure('TooLongError', 'At most 100 characters'));
      else action.allow({data: {from: user, text: action.data.text}});   // nobody speaks for another
    } else {
      action.allow();
    }
  }
});

const procedures = {
  login(socket, request) {
    const claims = shop.claimsOf(request.data.user, request.data.password);
    if (!claims) throw failure('LoginError', 'Wrong user or password');
    socket.setAuthToken(claims);
    return {welcome: claims.user};
  },
  'orders.create'(socket, request) {
    if (!socket.authToken) throw failure('LoginError', 'Please log in');
    const order = shop.order(socket.authToken.user, request.data.item);
    agServer.exchange.transmitPublish(`orders.${order.user}`, order);
    return order;
  },
  'orders.list'(socket, request) {
    if (!socket.authToken) throw failure('LoginError', 'Please log in');
    return shop.ordersOf(socket.authToken.user);
  },
  // The staff closes a chat: whoever is in it is sent out.
  'chat.leave'(socket, request) {
    socket.kickOut(request.data.channel, 'The chat is closed');
  },
};

(async () => {
  for await (const {socket} of agServer.listener('connection')) {
    for (const [name, procedure] of Object.entries(procedures)) {
      (async () => {
        for await (const request of socket.procedure(name)) {
          try { request.end(procedure(socket, request)); } catch (error) { request.error(error); }
        }
      })();
    }
    (async () => {
      for await (const data of socket.receiver('seen')) {
        agServer.exchange.transmitPublish('seen', {order: data.order, user: socket.authToken?.user ?? null});
      }
    })();
  }
})();

httpServer.listen(Number(process.env.SOCKETCLUSTER_PORT ?? 8000), '127.0.0.1', () => console.log(`listening ${httpServer.address().port}`));
