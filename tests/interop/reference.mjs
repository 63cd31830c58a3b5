// Runs the reference server (socketcluster-server 20.0.1) with the one procedure and event of Ringcast's built-in application.
// node reference.mjs --port P --auth-key K [--protocol 1|2] [--max-payload BYTES] [--channel-limit N] [--no-client-publish]
//   [--origins STRING] [--handshake-timeout MS] [--ping-interval MS] [--ping-timeout MS] [--application]
// With --application it also has the procedures and the middleware of lib/application.mjs.
// Prints `listening PORT` when it accepts connections. With port 0 the system chooses a free port.
import {createRequire} from 'node:module';
import {parseArgs} from 'node:util';
import {install} from './lib/application.mjs';

const require = createRequire(import.meta.url);
const {listen} = require('socketcluster-server');

const {values} = parseArgs({options: {
  port: {type: 'string'}, 'auth-key': {type: 'string'}, protocol: {type: 'string'}, 'max-payload': {type: 'string'},
  'channel-limit': {type: 'string'}, 'no-client-publish': {type: 'boolean'}, origins: {type: 'string'},
  application: {type: 'boolean'}, 'handshake-timeout': {type: 'string'}, 'ping-interval': {type: 'string'}, 'ping-timeout': {type: 'string'},
}});
if (!values.port || !values['auth-key']) { console.error('usage: node reference.mjs --port P --auth-key K [options]'); process.exit(2); }

const options = {authKey: values['auth-key'], protocolVersion: Number(values.protocol ?? 2)};
const numbers = {'max-payload': 'maxPayload', 'channel-limit': 'socketChannelLimit', 'handshake-timeout': 'handshakeTimeout',
  'ping-interval': 'pingInterval', 'ping-timeout': 'pingTimeout'};
for (const [flag, option] of Object.entries(numbers)) if (values[flag] !== undefined) options[option] = Number(values[flag]);
if (values['no-client-publish']) options.allowClientPublish = false;
if (values.origins !== undefined) options.origins = values.origins;

const server = listen(Number(values.port), options, function () { console.log(`listening ${this.address().port}`); });
if (values.application) install(server);
let count = 0;

(async () => {
  for await (const {socket} of server.listener('connection')) {
    if (socket.answersPings) continue; // a second #handshake emits "connection" again
    socket.answersPings = true;
    (async () => { for await (const request of socket.procedure('ping')) request.end({count: ++count}); })();
    (async () => { for await (const data of socket.receiver('ping')) { void data; socket.transmit('pong', {count: ++count}); } })();
  }
})();
