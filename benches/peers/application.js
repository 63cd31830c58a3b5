// What both forms of the socketcluster-server peer do for a connection: answer the procedure `ping`.
import {readFileSync} from 'node:fs';
import {createRequire} from 'node:module';

const require = createRequire(import.meta.url);
export const {attach, listen} = require('socketcluster-server');
const {version} = JSON.parse(readFileSync(new URL('node_modules/socketcluster-server/package.json', import.meta.url)));

export const names = `${version}, Node ${process.versions.node}`;
export const options = {authKey: 'compared with its peers', protocolVersion: 2};

export async function answerPings(server) {
  let count = 0;
  for await (const {socket} of server.listener('connection')) {
    (async () => { for await (const request of socket.procedure('ping')) request.end({count: ++count}); })();
  }
}
