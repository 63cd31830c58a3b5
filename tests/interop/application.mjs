// The application of scripts/application.mjs beside Ringcast: its procedures as a service, its middleware as hooks.
// node application.mjs TOKEN    Prints `hooks PORT`; takes a line with the port of the server; prints `serving`.
import http from 'node:http';
import readline from 'node:readline';
import {createRequire} from 'node:module';
import {PROCEDURES, RECEIVERS, decide} from './lib/application.mjs';

const require = createRequire(import.meta.url);
const hooks = http.createServer(async (request, response) => {
  let body = '';
  for await (const chunk of request) body += chunk;
  const {action, channel, procedure, data, client} = JSON.parse(body);
  const {error, code, silent, ...more} = client.claims?.service ? {} :
    decide({action, channel, procedure, data, claims: client.claims ?? null, query: client.query ?? ''});
  const answer = error ? {error, ...(code && {code})} : silent ? {allow: false} : {allow: true, ...more};
  response.writeHead(200, {'content-type': 'application/json'}).end(JSON.stringify(answer));
}).listen(0, '127.0.0.1', () => console.log(`hooks ${hooks.address().port}`));

// The program needs no kit: registering is a call, and the calls that come are those of the protocol.
for await (const line of readline.createInterface({input: process.stdin})) {
  const authEngine = {loadToken: async () => process.argv[2], saveToken: async () => {}, removeToken: async () => {}};
  const socket = require('client20').create({hostname: '127.0.0.1', port: Number(line), path: '/socketcluster/', authEngine, ackTimeout: 60000});
  const publish = (channel, data) => socket.transmitPublish(channel, data);
  for (const [name, answer] of Object.entries(PROCEDURES)) {
    for (const one of [name, `${name}.rewritten`]) {
      (async () => {
        for await (const request of socket.procedure(one)) {
          const {data, caller} = request.data;
          request.data = data;
          answer(request, caller.claims ?? null);
        }
      })();
      await socket.invoke('$serve', {procedure: one});
    }
  }
  for (const [name, receive] of Object.entries(RECEIVERS)) {
    for (const one of [name, `${name}.rewritten`]) {
      (async () => { for await (const {data} of socket.receiver(one)) receive(data.was ?? data, publish); })();
      await socket.invoke('$serve', {procedure: one});
    }
  }
  console.log('serving');
}
