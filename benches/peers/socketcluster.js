// socketcluster-server in one process, as its defaults have it.
// PORT=0 node socketcluster.js; prints `listening PORT VERSION`.
import {answerPings, listen, names, options} from './application.js';

const server = listen(Number(process.env.PORT ?? 0), options, function () {
  console.log(`listening ${this.address().port} ${names}`);
});
answerPings(server);
