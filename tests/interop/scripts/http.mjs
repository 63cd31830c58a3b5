// Sections 2 and 11 of the wire reference: request heads, refusals and upgrades.
import {KEY, frame, request, upgrade} from '../lib/wire.mjs';
import {bytes, ended, frames, handshake, sync} from './build.mjs';

const answer = {do: 'answer'};
const raw = (name, head, more = {}) => ({name: `http: ${name}`, config: 'base', steps: [{do: 'bytes', bytes: Buffer.from(head, 'latin1')}, answer], ...more});
const up = (name, replaced, added, parts = {}, more) => raw(name, request({headers: upgrade(replaced, added), ...parts}), more);
/** Upgrades, then checks that the connection works. */
const works = (name, replaced, added, parts = {}, more = {}) => ({name: `http: ${name}`, config: 'base', ...more,
  steps: [{do: 'open', request: {headers: upgrade(replaced, added), ...parts}}, handshake(null), frames(1), sync()]});

export const scripts = [];

for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'PATCH', 'TRACE', 'PROPFIND', 'MKCOL', 'CONNECT', 'get', 'Get', 'FOO', 'QUERY', 'GE T', '']) {
  scripts.push(up(`upgrade with method ${JSON.stringify(method)}`, {}, [], {method}));
}
for (const path of ['/socketcluster/', '/socketcluster/?a=1', '/socketcluster/?', '/socketcluster/?a=/../&b=%00', '/socketcluster/??', '/socketcluster/?a=1#frag',
  '/socketcluster', '/socketcluster?x', '/socketcluster//', '//socketcluster/', '/SocketCluster/', '/SOCKETCLUSTER/', '/other', '/', '/?', '/socketcluster/x', '/socketcluster/#x',
  '/socketcluster%2F', '/%73ocketcluster/', '/./socketcluster/', '/x/../socketcluster/', '*', 'socketcluster/', '?', '#', 'http://localhost/socketcluster/', 'ws://localhost/socketcluster/',
  `/socketcluster/?q=${'a'.repeat(1000)}`, `/socketcluster/?q=${'a'.repeat(8000)}`, '/socketcluster/?\x7f', '/socketcluster/?\xe9', '/socketcluster/?"<>\\^`{|}', '/socketcluster/;a']) {
  scripts.push(up(`path ${path.slice(0, 40)}${path.length > 40 ? `... ${path.length}` : ''}`, {}, [], {path}));
}
for (const version of ['HTTP/1.1', 'HTTP/1.0', 'HTTP/0.9', 'HTTP/2.0', 'HTTP/1.2', 'HTTP/3', 'http/1.1', 'HTTP/1.', 'HTTP/11', 'HTTP', '', 'HTTP/1.1 x', 'HTCPCP/1.0']) {
  scripts.push(up(`version ${JSON.stringify(version)}`, {}, [], {version}));
}
for (const value of [undefined, '', 'websocket', 'WebSocket', 'WEBSOCKET', 'h2c', 'websocket, h2c', 'h2c, websocket', 'websocket/13', ' websocket ', 'websockets', 'web socket']) {
  scripts.push(up(`Upgrade: ${value}`, {Upgrade: value}));
}
for (const value of [undefined, '', 'Upgrade', 'upgrade', 'UPGRADE', 'keep-alive, Upgrade', 'Upgrade, keep-alive', 'upgrade,close', 'close', 'keep-alive', 'upgraded', 'x-upgrade', ' Upgrade ', ',Upgrade,', 'close, upgrade']) {
  scripts.push(up(`Connection: ${value}`, {Connection: value}));
}
scripts.push(up('two Connection headers, keep-alive then Upgrade', {Connection: 'keep-alive'}, [['Connection', 'Upgrade']]));
scripts.push(up('two Connection headers, Upgrade then keep-alive', {Connection: 'Upgrade'}, [['Connection', 'keep-alive']]));
scripts.push(up('two Connection headers, both Upgrade', {}, [['Connection', 'Upgrade']]));
scripts.push(up('two Connection headers, Upgrade then close', {}, [['Connection', 'close']]));
scripts.push(up('two Upgrade headers', {}, [['Upgrade', 'h2c']]));
scripts.push(up('two equal Upgrade headers', {}, [['Upgrade', 'websocket']]));
for (const value of [undefined, '', 'short', KEY.slice(0, -2), `${KEY}=`, KEY.slice(1), 'dGhlIHNhbXBsZSBub25jZQ=', 'dGhlIHNhbXBsZSBub25jZQ', 'dGhlIHNhbXBsZSBub25jZR==', '!!!!!!!!!!!!!!!!!!!!!!==',
  'AAAAAAAAAAAAAAAAAAAAAA==', '++++++++++++++++++++++==', '//////////////////////==', '----------------------==', `${KEY} `, ` ${KEY}`, KEY.toLowerCase(), `${KEY}, ${KEY}`, 'A'.repeat(24), 'A'.repeat(1000)]) {
  scripts.push(up(`key ${value?.slice(0, 30)}`, {'Sec-WebSocket-Key': value}));
}
scripts.push(up('two keys', {}, [['Sec-WebSocket-Key', KEY]]));
for (const value of [undefined, '', '13', '8', '12', '7', '0', '14', '013', '13.0', ' 13 ', '0xd', '1.3e1', '13, 8', '8, 13', '+13', '-13', 'x', '0b1101', '0o15', '00000000000008', '8.', 'Infinity', '1_3']) {
  scripts.push(up(`version header ${value}`, {'Sec-WebSocket-Version': value}));
}
scripts.push(up('two version headers', {}, [['Sec-WebSocket-Version', '13']]));
scripts.push(up('two version headers, 8 and 13', {'Sec-WebSocket-Version': '8'}, [['Sec-WebSocket-Version', '13']]));
for (const value of ['foo', 'foo, bar', 'foo,bar', ' foo ', 'foo ,bar', '', ',', 'foo,', ',foo', 'foo,,bar', 'foo, foo', 'foo bar', 'f@o', 'f(o', 'föo', '"foo"', 'chat.v1, x!#$%&\'*+-.^_`|~9', 'foo\tbar', 'foo\t,\tbar', 'x'.repeat(300)]) {
  scripts.push(up(`subprotocol ${JSON.stringify(value).slice(0, 40)}`, {}, [['Sec-WebSocket-Protocol', value]]));
}
scripts.push(up('two subprotocol headers', {}, [['Sec-WebSocket-Protocol', 'foo'], ['Sec-WebSocket-Protocol', 'bar']]));
scripts.push(up('two subprotocol headers, a name twice', {}, [['Sec-WebSocket-Protocol', 'foo'], ['Sec-WebSocket-Protocol', 'foo']]));
for (const value of ['permessage-deflate', 'permessage-deflate; client_max_window_bits', 'permessage-deflate; server_no_context_takeover', 'x', '', ';;;', 'permessage-deflate; x=y', 'permessage-deflate; client_max_window_bits=99', 'foo, bar; a="b"']) {
  scripts.push(up(`extensions ${value}`, {}, [['Sec-WebSocket-Extensions', value]]));
}
for (const host of [undefined, '', 'a b', 'localhost:99999', 'x'.repeat(500), 'exa\\mple', '[::1]:80']) scripts.push(up(`Host ${host?.slice(0, 20)}`, {Host: host}));
scripts.push(up('two Host headers', {}, [['Host', 'other']]));
for (const origin of ['http://evil.test', 'null', '', 'x']) scripts.push(up(`origin ${origin}, all allowed`, {}, [['Origin', origin]]));

// Requests with several errors: which one is reported?
scripts.push(up('POST, other path', {}, [], {method: 'POST', path: '/other'}));
scripts.push(up('POST, other Upgrade', {Upgrade: 'h2c'}, [], {method: 'POST'}));
scripts.push(up('other Upgrade, no key', {Upgrade: 'h2c', 'Sec-WebSocket-Key': undefined}));
scripts.push(up('no key, bad version', {'Sec-WebSocket-Key': undefined, 'Sec-WebSocket-Version': '1'}));
scripts.push(up('no key, other path', {'Sec-WebSocket-Key': undefined}, [], {path: '/other'}));
scripts.push(up('bad version, other path', {'Sec-WebSocket-Version': '1'}, [], {path: '/other'}));
scripts.push(up('bad subprotocol, other path', {}, [['Sec-WebSocket-Protocol', ',']], {path: '/other'}));
scripts.push(up('bad subprotocol, bad version', {'Sec-WebSocket-Version': '1'}, [['Sec-WebSocket-Protocol', ',']]));

// Header names and layout.
scripts.push(raw('lower-case header names', request({headers: upgrade().map(([n, v]) => [n.toLowerCase(), v])})));
scripts.push(raw('upper-case header names', request({headers: upgrade().map(([n, v]) => [n.toUpperCase(), v])})));
scripts.push(raw('headers in reverse order', request({headers: upgrade().reverse()})));
scripts.push(raw('no space behind the colon', request({headers: upgrade()}).replaceAll(': ', ':')));
scripts.push(raw('many spaces and tabs around values', request({headers: upgrade()}).replaceAll(': ', ': \t  ').replaceAll('\r\n', ' \t\r\n').replace(' \t\r\n', '\r\n').replace(/ \t\r\n$/, '\r\n')));
scripts.push(raw('space before the colon', request({headers: upgrade()}).replace('Upgrade: websocket', 'Upgrade : websocket')));
scripts.push(raw('folded header line', request({headers: upgrade({}, [['X-Fold', 'a\r\n b']])})));
scripts.push(raw('header without a colon', request({headers: upgrade()}).replace('Host: localhost', 'Host localhost')));
scripts.push(raw('header without a name', request({headers: upgrade()}).replace('Host: localhost', ': localhost')));
scripts.push(raw('header name with a space', request({headers: upgrade({}, [['X Y', 'z']])})));
scripts.push(raw('header name with a bracket', request({headers: upgrade({}, [['X(Y', 'z']])})));
scripts.push(raw('header value with a control character', request({headers: upgrade({}, [['X-Y', 'a\x01b']])})));
scripts.push(raw('header value with a NUL', request({headers: upgrade({}, [['X-Y', 'a\x00b']])})));
scripts.push(raw('header value with DEL', request({headers: upgrade({}, [['X-Y', 'a\x7fb']])})));
scripts.push(raw('header value with high bytes', request({headers: upgrade({}, [['X-Y', 'a\xffb\xc3\xa9']])})));
scripts.push(raw('bare LF line ends', request({headers: upgrade(), end: '\n'})));
scripts.push(raw('bare LF in one line', request({headers: upgrade()}).replace('localhost\r\n', 'localhost\n')));
scripts.push(raw('bare CR in a value', request({headers: upgrade({}, [['X-Y', 'a\rb']])})));
scripts.push(raw('an empty line before the request', `\r\n${request({headers: upgrade()})}`));
scripts.push(raw('three empty lines before the request', `\r\n\r\n\r\n${request({headers: upgrade()})}`));
scripts.push(raw('bare LF before the request', `\n${request({headers: upgrade()})}`));
scripts.push(raw('a space before the request', ` ${request({headers: upgrade()})}`));
scripts.push(raw('two spaces in the request line', request({headers: upgrade()}).replace('GET /', 'GET  /')));
scripts.push(raw('tab in the request line', request({headers: upgrade()}).replace('GET /', 'GET\t/')));
scripts.push(raw('garbage', 'hello world\r\n\r\n'));
scripts.push(raw('binary garbage', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'));
scripts.push(raw('NULs', '\x00'.repeat(64)));
scripts.push(raw('only CRLF', '\r\n\r\n'));
scripts.push(raw('a WebSocket frame instead of a request', frame(1, 'x').toString('latin1')));
scripts.push(raw('HTTP/2 preface', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'));
scripts.push(raw('fifty headers', request({headers: upgrade({}, Array.from({length: 50}, (_, i) => [`X-${i}`, 'v']))})));
scripts.push(raw('a cookie of 4,000 bytes', request({headers: upgrade({}, [['Cookie', 'c'.repeat(4000)]])})));
scripts.push(raw('a head of 12,000 bytes', request({headers: upgrade({}, [['X-Long', 'c'.repeat(12000)]])})));
scripts.push(raw('a head of 40,000 bytes', request({headers: upgrade({}, [['X-Long', 'c'.repeat(40000)]])})));
scripts.push(raw('a target of 40,000 bytes', request({path: `/socketcluster/?${'c'.repeat(40000)}`, headers: upgrade()})));
scripts.push(up('Content-Length 0', {}, [['Content-Length', '0']]));
scripts.push(up('bad Content-Length', {}, [['Content-Length', 'x']]));
scripts.push(up('two Content-Lengths', {}, [['Content-Length', '0'], ['Content-Length', '1']]));
scripts.push(up('Content-Length and Transfer-Encoding', {}, [['Content-Length', '3'], ['Transfer-Encoding', 'chunked']]));
scripts.push(up('Expect: 100-continue', {}, [['Expect', '100-continue']]));
scripts.push(up('Transfer-Encoding: bogus', {}, [['Transfer-Encoding', 'bogus']]));

// Plain HTTP on the client port: 501 on every path.
for (const [method, path] of [['GET', '/'], ['GET', '/socketcluster/'], ['GET', '/health-check'], ['POST', '/'], ['HEAD', '/'], ['OPTIONS', '*'], ['DELETE', '/x'], ['GET', '/metrics']]) {
  for (const connection of ['close', undefined, 'keep-alive']) {
    scripts.push(raw(`plain ${method} ${path}, Connection: ${connection}`, request({method, path, headers: [['Host', 'x'], ...(connection ? [['Connection', connection]] : []), ...(method === 'POST' ? [['Content-Length', '2']] : [])]}) + (method === 'POST' ? 'ab' : ''), {plain: true}));
  }
}
scripts.push(raw('plain HTTP/1.0', 'GET / HTTP/1.0\r\n\r\n', {plain: true}));
scripts.push(raw('plain HTTP/1.0 keep-alive', 'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n', {plain: true}));
scripts.push(raw('plain without Host', 'GET / HTTP/1.1\r\n\r\n', {plain: true}));
scripts.push(raw('two pipelined plain requests', 'GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', {plain: true}));
scripts.push(raw('plain request, then an upgrade on the same connection', `GET / HTTP/1.1\r\nHost: x\r\n\r\n${request({headers: upgrade()})}`, {plain: true}));

// Upgrades that work.
scripts.push(works('ordinary upgrade'));
scripts.push(works('version 8', {'Sec-WebSocket-Version': '8'}));
scripts.push(works('keep-alive, Upgrade', {Connection: 'keep-alive, Upgrade'}));
scripts.push(works('query', {}, [], {path: '/socketcluster/?t=1&a=b&a=c&__proto__=1'}));
scripts.push(works('browser headers', {Connection: 'keep-alive, Upgrade'}, [['Origin', 'https://app.example'], ['User-Agent', 'Mozilla/5.0'], ['Accept-Encoding', 'gzip, deflate, br'], ['Accept-Language', 'en'],
  ['Cache-Control', 'no-cache'], ['Pragma', 'no-cache'], ['Cookie', 'a=b'], ['Sec-WebSocket-Extensions', 'permessage-deflate; client_max_window_bits'], ['Sec-Fetch-Mode', 'websocket']]));
const whole = frame(1, '{"event":"#handshake","data":{},"cid":1}');
scripts.push({name: 'http: handshake in the same segment as the upgrade', config: 'base', steps: [bytes(Buffer.from(request({headers: upgrade()})), whole), frames(1), sync()]});
scripts.push({name: 'http: request head byte by byte', config: 'base', steps: [...request({headers: upgrade()})].map((c) => bytes(c)).concat(bytes(whole), frames(1), sync())});
scripts.push({name: 'http: request head in two parts', config: 'base', steps: [bytes(request({headers: upgrade()}).slice(0, 60)), {do: 'idle', ms: 100}, bytes(request({headers: upgrade()}).slice(60)), bytes(whole), frames(1), sync()]});
scripts.push({name: 'http: connection ended without a byte', config: 'base', steps: [{do: 'bytes', bytes: Buffer.alloc(0)}, {do: 'idle', ms: 50}, {do: 'fin'}, ended()]});
scripts.push({name: 'http: connection ended in the middle of the head', config: 'base', steps: [bytes('GET /socketcluster/ HTTP/1.1\r\nHost: x'), {do: 'idle', ms: 50}, {do: 'fin'}, ended()]});

// Origins.
for (const origin of [undefined, 'null', '', '*', 'http://example.com', 'https://example.com', 'https://example.com:9999', 'http://example.com:', 'http://EXAMPLE.com', 'http://user@example.com', 'http://sub.example.com',
  'http://notexample.com', 'http://example.com.evil.test', 'http://evil.test', 'http://localhost:8000', 'http://localhost:8001', 'http://localhost', 'http://xlocalhost:8000', 'https://secure.test', 'http://secure.test', 'http://secure.test:443', 'wss://secure.test',
  'http://evil.test:9000', 'http://evil.test:90000', 'http://evil.test:900', 'example.com', 'example.com:80', '//example.com', 'file://', 'http://', 'http://[::1]', 'chrome-extension://abc', 'http://example.com/path', 'http://exämple.com', 'com', 'http://com', 'http://e', 'garbage with spaces']) {
  scripts.push({...up(`origin ${origin}`, {}, origin === undefined ? [] : [['Origin', origin]]), config: 'origins'});
}
scripts.push({...up('two origins', {}, [['Origin', 'http://example.com'], ['Origin', 'http://evil.test']]), config: 'origins'});
scripts.push({...up('version 8 reads sec-websocket-origin: allowed', {'Sec-WebSocket-Version': '8'}, [['Sec-WebSocket-Origin', 'http://example.com']]), config: 'origins'});
scripts.push({...up('version 8 ignores Origin', {'Sec-WebSocket-Version': '8'}, [['Origin', 'http://example.com']]), config: 'origins'});
scripts.push({...up('version 13 ignores sec-websocket-origin', {}, [['Sec-WebSocket-Origin', 'http://example.com']]), config: 'origins'});
scripts.push({...up('bad origin and bad path: the path is named', {}, [['Origin', 'http://evil.test']], {path: '/x'}), config: 'origins'});
