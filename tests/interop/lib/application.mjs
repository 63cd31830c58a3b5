// The application of scripts/application.mjs: procedures, a receiver and middleware, once for both servers. With the reference it runs in the
// server; with Ringcast in a process of its own, application.mjs.

const refuse = (name, message, members) => ({error: {message, name, ...members}});
const asError = ({message, ...members}) => Object.assign(new Error(message), members);

/** Each answers a call: `request` has `data`, `end(data)` and `error(error)`. */
export const PROCEDURES = {
  'app.echo': (request) => request.end(request.data),
  'app.nothing': (request) => request.end(),
  'app.null': (request) => request.end(null),
  'app.typed': (request) => request.end(request.data === undefined ? 'undefined' : request.data === null ? 'null' : typeof request.data),
  'app.claims': (request, claims) => request.end(claims),
  'app.fail': (request) => request.error(asError(request.data)),
  'app.text': (request) => request.error(request.data),
  'app.type error': (request) => request.error(new TypeError('built in')),
  'app.slow': (request) => setTimeout(() => request.end(request.data), 30),
};

/** Each gets one-way events, and may publish. */
export const RECEIVERS = {'app.tell': (data, publish) => publish(data.channel, {told: data.text})};

/** What middleware does: `{}` allows, `{data}` allows other data, `{error}` refuses, `{silent: true}` refuses without an error of its own. */
export function decide({action, channel, procedure, data, claims, query}) {
  const name = channel ?? procedure ?? '';
  if (action === 'connect') {
    if (query.includes('refuse=1')) return refuse('NotToday', 'Another time');
    return query.includes('refuse=2') ? {...refuse('NeverError', 'Never'), code: 4501} : {};
  }
  if (action === 'authenticate') return claims.username === 'banned' ? refuse('BannedError', 'You are banned', {until: 5}) : {};
  if (name.includes('refused')) return refuse('RefusedError', `No ${action} here`, {why: {list: [1, null]}});
  if (name.includes('silent')) return {silent: true};
  if (name.includes('members') && !claims) return refuse('LoginError', 'Please log in');
  if (name.includes('rewritten') && action !== 'subscribe') return {data: {was: data === undefined ? 'absent' : data, by: claims?.username ?? null}};
  return {};
}

/** Gives a server of the reference the application. */
export function install(server) {
  const verdictOf = (action) => {
    const claims = action.authToken ?? action.socket?.authToken ?? null;
    const {type, channel, procedure, receiver, data} = action;
    if (type === action.HANDSHAKE_SC) return decide({action: 'connect', query: action.socket.request.url});
    if (type === action.SUBSCRIBE) return decide({action: 'subscribe', channel, claims});
    if (type === action.PUBLISH_IN) return decide({action: 'publish', channel, data, claims});
    if (type === action.INVOKE) return decide({action: 'invoke', procedure, data, claims});
    if (type === action.TRANSMIT) return decide({action: 'transmit', procedure: receiver, data, claims});
    if (type === action.AUTHENTICATE) return decide({action: 'authenticate', claims});
    return {};
  };
  for (const line of [server.MIDDLEWARE_HANDSHAKE, server.MIDDLEWARE_INBOUND]) {
    server.setMiddleware(line, async (stream) => {
      for await (const action of stream) {
        const {error, code, silent, ...more} = verdictOf(action);
        if (error) action.block(Object.assign(asError(error), code && {statusCode: code}));
        else if (silent) action.block();
        else action.allow(more);
      }
    });
  }
  (async () => {
    for await (const {socket} of server.listener('connection')) {
      for (const [name, answer] of Object.entries(PROCEDURES)) {
        (async () => { for await (const request of socket.procedure(name)) answer(request, socket.authToken ?? null); })();
        // A call that middleware has rewritten has another name, and the same answer.
        (async () => { for await (const request of socket.procedure(`${name}.rewritten`)) answer(request, socket.authToken ?? null); })();
      }
      for (const [name, receive] of Object.entries(RECEIVERS)) {
        for (const one of [name, `${name}.rewritten`]) {
          (async () => { for await (const data of socket.receiver(one)) receive(data.was ?? data, (...words) => server.exchange.transmitPublish(...words)); })();
        }
      }
    }
  })();
}
