// A backend for Ringcast's hooks, with Fastify: who may be in which room, who has written what, and a login.
// PORT=8001 HOOK_SECRET=… node server.mjs
import {createHmac, timingSafeEqual} from 'node:crypto';
import Fastify from 'fastify';

const SECRET = process.env.HOOK_SECRET;
const MAX_AGE_SECONDS = 300;
const USERS = {ann: {password: 'lamp', rooms: ['room.1', 'room.2']}, bob: {password: 'chair', rooms: ['room.1']}};

const refuse = (name, message) => ({error: {name, message}});
const decide = {
  subscribe({channel, client}) {
    return client.claims?.rooms?.includes(channel) ? {allow: true} : refuse('NotInvitedError', `You are not invited to ${channel}`);
  },
  publish({channel, data, client}) {
    const refused = decide.subscribe({channel, client});
    return refused.error ? refused : {allow: true, data: {from: client.claims.sub, text: String(data?.text ?? '')}};
  },
  // The call `login` of a client.
  invoke({data}) {
    const user = Object.hasOwn(USERS, data?.user) ? USERS[data.user] : undefined;
    if (!user || user.password !== data.password) return refuse('LoginError', 'Wrong user or password');
    return {answer: {welcome: data.user}, token: {claims: {sub: data.user, rooms: user.rooms}, expires_in: 3600}};
  },
};

const server = Fastify({logger: false});
// The signature is over the bytes of the body, so they are not parsed before it is checked.
server.addContentTypeParser('application/json', {parseAs: 'buffer'}, (request, body, done) => done(null, body));
server.post('/ringcast', async (request, reply) => {
  if (!isSigned(request.headers['ringcast-signature'], request.body)) return reply.code(401).send({message: 'wrong signature'});
  const asked = JSON.parse(request.body);
  const answer = (question) => decide[question.action](question);
  // Several publications share a request: `batch_max` of ringcast.toml.
  return Array.isArray(asked) ? asked.map(answer) : answer(asked);
});

/** `t=UNIX_SECONDS,v1=HEX`; more than one `v1` while one secret replaces another. */
function isSigned(header = '', body) {
  const fields = header.split(',').map((field) => field.split('='));
  const time = fields.find(([name]) => name === 't')?.[1];
  if (!(Math.abs(Date.now() / 1000 - time) <= MAX_AGE_SECONDS)) return false;
  const right = createHmac('sha256', SECRET).update(`${time}.`).update(body).digest();
  return fields.some(([name, hex = '']) => name === 'v1' && hex.length === 64 && timingSafeEqual(Buffer.from(hex, 'hex'), right));
}

const address = await server.listen({port: Number(process.env.PORT ?? 8001), host: '127.0.0.1'});
console.log(`listening on ${address}`);
process.once('SIGTERM', () => server.close());
