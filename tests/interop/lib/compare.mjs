// Whether two records of what came back are the same to a client, and which intended differences were met on the way.

/** Every difference that is meant, with its reason. A script cannot pass by any other. */
export const INTENDED = {
  format: 'published data is passed on as the publisher wrote it: equal once parsed, not always byte for byte',
  order: 'the order among publications, events, answers of the server and answers of the application: unspecified (section 12); in `strict` scripts only that of publications',
  pings: 'no pings before the handshake; their number depends on the clock in time-out scripts',
  pongs: 'the pongs to WebSocket pings around a time-out depend on the clock',
  parser: 'the text of the JSON parser inside a token error is the engine\'s own',
  plain: 'headers of plain HTTP answers (date, framing of the body) are the engine\'s own: status and body are compared',
};

/**
 * Scripts whose outcome is meant to differ, each with what must come from the target instead (searched for in its lines)
 * and the reason. A script that begins to agree with the reference is no failure.
 */
const DEPARTURES = [
  {script: /^frames: (16|64)-bit form of a small length$/, target: /close 1002 ""/,
    reason: 'RFC 6455 section 5.2 demands the shortest form of a length; the reference takes any'},
  {script: /^frames: continuation after the final fragment$/, target: /"rid":\d+,"data":\{"count":.*close 1002 ""/s,
    reason: 'the answer to a call that came before a broken frame is sent; the reference loses it'},
  {script: /^json: channel "\\"(constructor|__proto__|\\\\u005f_proto__)\\""$/, target: /"rid":5,"error":\{"message":"Failed to unsubscribe .* which it is not subscribed to","name":"BrokerError"\}/,
    reason: 'these names are plain channels: the reference acknowledges to unsubscribe what was never subscribed'},
  {script: /^auth: expiry, noticed at publish\?$/, target: /"#removeAuthToken".*"#publish".*"rid":3\}/s,
    reason: 'a publisher\'s own copy comes before the acknowledgement, always: unspecified (section 12)'},
  {script: /^auth: .*, (crit|b64) header$/, target: /"crit and b64 in the jwt header are not supported"/,
    reason: 'a header that says that an extension must be understood is refused (RFC 7515 section 4.1.11, RFC 7797); jsonwebtoken does not look at it'},
  // In no script, since it shows only within one second: `nbf` and `exp` count with their fractions here (RFC 7519 section 2),
  // where jsonwebtoken compares them with the whole seconds of the clock: it refuses a token until the second after its `nbf`,
  // and takes one until the second after its `exp`.
  {script: /^auth: expiry, with(out anonymous clients| rules), of a client that sends nothing$/, target: /"#removeAuthToken".*"#kickOut"/s,
    reason: 'where a token decides what a client may read, it stops reading with its token: with [[rules]] at the next ping, with allow_anonymous = off when the token expires, though the client sends nothing; it is told both. The reference waits for a packet or a pong, and does not end subscriptions'},
  {script: /^http: (Upgrade: |Connection: (undefined|$|keep-alive|close|upgraded|x-upgrade)|plain |two pipelined plain requests|many spaces and tabs)/, target: /HTTP\/1\.1 (501 Not Implemented|400 Bad Request|200 OK)\r\nConnection: close|101 Switching/,
    reason: 'a plain request is answered once, in few bytes, and the connection closed: the client port is for WebSockets; the root and the paths of probes are there, and an offer of another protocol is ignored'},
  {script: /^http: plain request, then an upgrade/, target: /HTTP\/1\.1 200 OK\r\nConnection: close/,
    reason: 'a plain request is answered once, and the connection closed'},
  {script: /^http: path (\/socketcluster(\?x)?|(http|ws):\/\/localhost\/socketcluster\/)$/, target: /101 Switching/,
    reason: 'the path counts with and without the slash at its end, and in a target of absolute form (RFC 9112 section 3.2.2)'},
  {script: /^http: (Host (undefined|a b|localhost:99999|exa\\mple)?$|two Host headers)/, target: /400 Bad Request/,
    reason: 'a request names exactly one legal host (RFC 9112 section 3.2); the reference upgrades whatever host it is asked for'},
  {script: /^http: Transfer-Encoding: bogus$/, target: /501 Not Implemented/,
    reason: 'an upgrade has no body, and this coding is not known (RFC 9112 section 6.1)'},
  {script: /^http: upgrade with method "CONNECT"$/, target: /405 Method Not Allowed/,
    reason: 'CONNECT is refused like every other method; Node drops it without a word'},
  {script: /^http: version "HTTP\/(0\.9|2\.0)"$/, target: /400 Bad Request/,
    reason: 'only HTTP/1.0 and 1.1 can ask for an upgrade; Node takes whatever has the form of a version'},
  {script: /^http: version header 0[xbo]/, target: /400 Bad Request.*Missing or invalid Sec-WebSocket-Version/s,
    reason: 'the version is decimal; the reference lets JavaScript convert it'},
];

/** JSON values equal to a client print equally here: keys sorted, -0 as 0, infinities as null. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value !== null && typeof value === 'object') return `{${Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join(',')}}`;
  return JSON.stringify(value);
}

function sameLine(want, got, allowed) {
  if (want === got) return true;
  const publication = /^(\w+: text )(\{"event":"#publish",.*)$/s;
  const [a, b] = [publication.exec(want), publication.exec(got)];
  if (!a || !b || a[1] !== b[1]) return false;
  try {
    if (canonical(JSON.parse(a[2])) !== canonical(JSON.parse(b[2]))) return false;
  } catch { return false; }
  allowed.add(INTENDED.format);
  return true;
}

const sameList = (want, got, allowed) => want.length === got.length && want.every((line, i) => sameLine(line, got[i], allowed));

/** Status line and body of a plain HTTP answer. */
function essence(line) {
  const match = /^(\w+: http )(HTTP\/1\.1 \d+ [^\r]*)\r\n(.*?)\r\n\r\n(.*)$/s.exec(line);
  if (!match) return line;
  const [, start, status, headers, rest] = match;
  const open = rest.includes('(still open)') ? ' (still open)' : '';
  let body = rest.replace('(still open)', '');
  if (/transfer-encoding: chunked/i.test(headers)) body = body.replace(/^[0-9a-f]+\r\n(.*?)\r\n0\r\n\r\n/s, '$1');
  return `${start}${status} | ${body}${open}`;
}

export function compare(script, want, got) {
  const result = same(script, want, got);
  if (result.difference === null) return result;
  const departure = DEPARTURES.find((one) => one.script.test(script.name) && one.target.test(got.flat().join('\n')));
  return departure ? {difference: null, allowed: new Set([departure.reason])} : result;
}

function same(script, want, got) {
  const allowed = new Set();
  if (want.length !== got.length) return {difference: 'number of connections', allowed};
  const prepare = (log) => {
    let lines = log;
    if (script.ignorePings) { lines = lines.filter((line) => !/^\w+: text (#1)?$/.test(line)); }
    if (script.ignorePongs) lines = lines.filter((line) => !/^\w+: pong /.test(line));
    if (script.plain) lines = lines.map(essence);
    if (script.parserText) lines = lines.map((line) => line.replace(/"message":"(?!jwt|invalid)[^"]*(\\.[^"]*)*","name":"AuthTokenError"/, '"message":"TEXT","name":"AuthTokenError"'));
    return lines;
  };
  const loosened = [['ignorePings', 'pings'], ['ignorePongs', 'pongs'], ['plain', 'plain'], ['parserText', 'parser']].filter(([flag]) => script[flag]);
  for (let i = 0; i < want.length; i++) {
    if (sameList(want[i], got[i], allowed)) continue;
    for (const [, reason] of loosened) allowed.add(INTENDED[reason]);
    const [a, b] = [prepare(want[i]), prepare(got[i])];
    if (sameList(a, b, allowed)) continue;
    if (a.length !== b.length) return {difference: `connection ${i + 1}: ${a.length} against ${b.length} entries`, allowed};
    const kind = (line) => {
      if (/^\w+: text \{"event":"#publish"/.test(line)) return 'publication';
      if (script.strict) return 'other'; // the order of all but publications counts
      if (/^\w+: text \{"event":/.test(line)) return 'event';
      return /^\w+: text \{"rid":[^,]*,"data":\{"count":/.test(line) ? 'application' : 'server';
    };
    for (const one of ['publication', ...(script.strict ? ['other'] : ['event', 'application', 'server'])]) {
      const [x, y] = [a, b].map((lines) => lines.filter((line) => kind(line) === one));
      if (!sameList(x, y, allowed)) return {difference: `connection ${i + 1}`, allowed};
    }
    allowed.add(INTENDED.order);
  }
  return {difference: null, allowed};
}
