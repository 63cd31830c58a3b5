// Whether two records of what came back are the same to a client, and which intended differences were met on the way.

/** Every difference that is meant, with its reason. A script cannot pass by any other. */
export const INTENDED = {
  format: 'published data is passed on as the publisher wrote it: equal once parsed, not always byte for byte',
  order: 'the order among publications and events, answers of the server and answers of the application, outside `strict` scripts: unspecified (section 12)',
  pings: 'no pings before the handshake; their number depends on the clock in time-out scripts',
  pongs: 'the pongs to WebSocket pings around a time-out depend on the clock',
  parser: 'the text of the JSON parser inside a token error is the engine\'s own',
  plain: 'headers of plain HTTP answers (date, framing of the body) are the engine\'s own: status and body are compared',
};

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
    if (script.strict) return {difference: `connection ${i + 1}`, allowed};
    const kind = (line) => (/^\w+: text \{"event":/.test(line) ? 'event' : /^\w+: text \{"rid":[^,]*,"data":\{"count":/.test(line) ? 'application' : 'server');
    for (const one of ['event', 'application', 'server']) {
      const [x, y] = [a, b].map((lines) => lines.filter((line) => kind(line) === one));
      if (!sameList(x, y, allowed)) return {difference: `connection ${i + 1}`, allowed};
    }
    allowed.add(INTENDED.order);
  }
  return {difference: null, allowed};
}
