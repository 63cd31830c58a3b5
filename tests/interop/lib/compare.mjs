// Compares what two servers sent back: equal for a client, equal except for intended differences, or different.

/** Differences that every script may have, with their reasons. */
export const INTENDED = {
  format: 'Ringcast passes published data on as the publisher wrote it: equal after parsing, not always byte for byte',
  order: 'the order between publications, events, answers of the server and answers of the application is unspecified (section 12); `strict` scripts allow this only for publications',
  pings: 'Ringcast sends no pings before the handshake; in time-out scripts the number of pings depends on the clock',
  pongs: 'the number of pongs to WebSocket pings around a time-out depends on the clock',
  parser: 'a token error contains the text of the JSON parser, which depends on the engine',
  plain: 'headers of plain HTTP answers (date, framing of the body) depend on the engine: only status and body are compared',
};

/**
 * Every intended difference from socketcluster-server: the scripts that show it, a pattern that the lines of Ringcast must
 * match instead, and the reason. A script that agrees with the reference passes too.
 */
const DEPARTURES = [
  {script: /^frames: (16|64)-bit form of a small length$/, target: /close 1002 ""/,
    reason: 'RFC 6455 section 5.2 demands the shortest form of a length; the reference accepts any form'},
  {script: /^frames: continuation after the final fragment$/, target: /"rid":\d+,"data":\{"count":.*close 1002 ""/s,
    reason: 'Ringcast answers a call that arrived before a broken frame; the reference loses the answer'},
  {script: /^application: a handshake that is refused/, target: /"statusCode":(\d+)\},"data":\{"code":\1\}\}.*close \1 ""/s,
    reason: 'a refused handshake has its close code twice: clients up to 14 read data.code, later ones error.statusCode'},
  {script: /^application: typed 1e400$/, target: /"rid":2,"data":"null"/,
    reason: 'JSON has no infinity: a number over the largest double reaches a service as null. A procedure in the process of the reference sees Infinity'},
  {script: /^application: an error that is no error: false$/, target: /\{"rid":2\}/,
    reason: 'an answer with the error false is an answer without an error: clients take both as success'},
  {script: /^json: channel "\\"(constructor|__proto__|\\\\u005f_proto__)\\""$/, target: /"rid":5,"error":\{"message":"Failed to unsubscribe .* which it is not subscribed to","name":"BrokerError"\}/,
    reason: 'in Ringcast these names are ordinary channels; the reference acknowledges an unsubscribe although the client was never subscribed'},
  {script: /^auth: expiry, noticed at publish\?$/, target: /"#removeAuthToken".*"#publish".*"rid":3\}/s,
    reason: 'Ringcast always sends a publisher its own copy before the acknowledgement; the order is unspecified (section 12)'},
  {script: /^auth: .*, (crit|b64) header$/, target: /"crit and b64 in the jwt header are not supported"/,
    reason: 'Ringcast refuses a token whose header requires an extension (RFC 7515 section 4.1.11, RFC 7797); jsonwebtoken ignores this'},
  // One more difference shows only within one second, so no script tests it: in Ringcast `nbf` and `exp` count with their
  // fractions (RFC 7519 section 2). jsonwebtoken compares them with whole seconds of the clock: it refuses a token until the
  // second after its `nbf`, and accepts it until the second after its `exp`.
  {script: /^auth: expiry, with(out anonymous clients| rules), of a client that sends nothing$/, target: /"#removeAuthToken".*"#kickOut"/s,
    reason: 'if a token decides which channels a client may read, Ringcast ends the subscriptions with the token, even if the client sends nothing: with [[rules]] at the next ping, with allow_anonymous = off when the token expires. It sends #removeAuthToken and #kickOut. The reference waits for a packet or a pong, and does not end subscriptions'},
  {script: /^http: (Upgrade: |Connection: (undefined|$|keep-alive|close|upgraded|x-upgrade)|plain |two pipelined plain requests|many spaces and tabs)/, target: /HTTP\/1\.1 (501 Not Implemented|400 Bad Request|200 OK)\r\nConnection: close|101 Switching/,
    reason: 'Ringcast answers a plain request once, in few bytes, and closes the connection, because the client port is for WebSockets. The root and the paths of probes have answers of their own, and an offer of another protocol is ignored'},
  {script: /^http: plain request, then an upgrade/, target: /HTTP\/1\.1 200 OK\r\nConnection: close/,
    reason: 'Ringcast answers a plain request once and closes the connection'},
  {script: /^http: path (\/socketcluster(\?x)?|(http|ws):\/\/localhost\/socketcluster\/)$/, target: /101 Switching/,
    reason: 'Ringcast accepts the path with and without the slash at its end, and in a target of absolute form (RFC 9112 section 3.2.2)'},
  {script: /^http: (Host (undefined|a b|localhost:99999|exa\\mple)?$|two Host headers)/, target: /400 Bad Request/,
    reason: 'a request must have exactly one legal Host (RFC 9112 section 3.2); the reference ignores the Host'},
  {script: /^http: Transfer-Encoding: bogus$/, target: /501 Not Implemented/,
    reason: 'an upgrade has no body, and this transfer coding is unknown (RFC 9112 section 6.1)'},
  {script: /^http: upgrade with method "CONNECT"$/, target: /405 Method Not Allowed/,
    reason: 'Ringcast refuses CONNECT like every other method; Node closes the connection without an answer'},
  {script: /^http: version "HTTP\/(0\.9|2\.0)"$/, target: /400 Bad Request/,
    reason: 'only HTTP/1.0 and 1.1 can ask for an upgrade; Node accepts everything that has the form of a version'},
  {script: /^http: version header 0[xbo]/, target: /400 Bad Request.*Missing or invalid Sec-WebSocket-Version/s,
    reason: 'the version is decimal; the reference lets JavaScript convert it'},
];

/** Prints a JSON value so that values which are equal for a client give equal text: keys sorted, -0 as 0, infinities as null. */
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
      if (script.strict) return 'other'; // the order of everything except publications counts
      if (/^\w+: text \{"event":/.test(line)) return 'event';
      return (script.config === 'application' ? /^\w+: text \{"rid":/ : /^\w+: text \{"rid":[^,]*,"data":\{"count":/).test(line) ? 'application' : 'server';
    };
    for (const one of ['publication', ...(script.strict ? ['other'] : ['event', 'application', 'server'])]) {
      const [x, y] = [a, b].map((lines) => lines.filter((line) => kind(line) === one));
      if (!sameList(x, y, allowed)) return {difference: `connection ${i + 1}`, allowed};
    }
    allowed.add(INTENDED.order);
  }
  return {difference: null, allowed};
}
