// An application of socketcluster-server, for test_reference.py. Prints `listening PORT`.
import {createRequire} from 'node:module';

const require = createRequire(new URL('../../../tests/interop/', import.meta.url));
const {listen} = require('socketcluster-server');
const server = listen(0, {authKey: process.env.AUTH_KEY, pingInterval: 200, pingTimeout: 5000}, function () {
  console.log(`listening ${this.address().port}`);
});
server.setMiddleware(server.MIDDLEWARE_INBOUND, async (stream) => {
  for await (const action of stream) {
    if (action.type === action.SUBSCRIBE && action.channel === 'secret') action.block();
    else action.allow();
  }
});

const handlers = {
  echo: (socket, request) => request.end(request.data),
  fail: (socket, request) => request.error(Object.assign(new Error('not like this'), {name: 'NotLikeThisError', hint: 7})),
  login: (socket, request) => { socket.setAuthToken({sub: request.data.user}); request.end(); },
  loginSurely: async (socket, request) => { await socket.setAuthToken({sub: request.data.user}, {rejectOnFailedDelivery: true}); request.end(); },
  logout: (socket, request) => { socket.deauthenticate(); request.end(); },
  kick: (socket, request) => { socket.kickOut(request.data, 'no more'); request.end(); },
  askBack: async (socket, request) => {
    try { request.end({answer: await socket.invoke('question', request.data)}); }
    catch (error) { request.end({error: {...error, name: error.name, message: error.message}}); }
  },
  end: (socket, request) => socket.disconnect(request.data, 'as you wish'),
};
(async () => {
  for await (const {socket} of server.listener('connection')) {
    for (const [name, handle] of Object.entries(handlers)) {
      (async () => { for await (const request of socket.procedure(name)) handle(socket, request); })();
    }
    (async () => { for await (const data of socket.receiver('say')) socket.transmit('said', data); })();
  }
})();
