// The page at `/` of the client port, used in a headless Chromium: with the screen of a phone and of a desktop, light and dark.
// node page.mjs --binary BINARY [--pictures FOLDER]      The last line is `N passed, N failed`; the exit status is 1 if any failed.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {pbkdf2Sync} from 'node:crypto';
import {createRequire} from 'node:module';
import {pathToFileURL, fileURLToPath} from 'node:url';
import {isDeepStrictEqual, parseArgs} from 'node:util';
import {startTarget, stop, freePort} from './lib/servers.mjs';
import {launch} from './lib/browser.mjs';

const {values: args} = parseArgs({options: {binary: {type: 'string'}, pictures: {type: 'string'}}});
if (!args.binary) { console.error('usage: node page.mjs --binary BINARY [--pictures FOLDER]'); process.exit(2); }

let passed = 0, failed = 0;
function check(name, found, expected = true) {
  if (isDeepStrictEqual(found, expected)) { passed++; console.log(`PASS ${name}`); return; }
  failed++;
  console.log(`FAIL ${name}\n  found    ${JSON.stringify(found)}\n  expected ${JSON.stringify(expected)}`);
}

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ringcast-page-'));
process.on('exit', () => fs.rmSync(folder, {recursive: true, force: true, maxRetries: 10}));
const salt = Buffer.alloc(12, 7);
const passwords = path.join(folder, 'passwords');
fs.writeFileSync(passwords, `ann:$7$1000$${salt.toString('base64')}$${pbkdf2Sync('pw', salt, 1000, 64, 'sha512').toString('base64')}\n`, {mode: 0o600});
const rules = path.join(folder, 'rules.toml');
fs.writeFileSync(rules, '[[rules]]\nallow = ["subscribe", "publish"]\nchannels = "lobby"\n');

const browser = launch(path.join(folder, 'profile'));
if (!browser) {
  check('Chromium is installed', 'it is not', 'it is');
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(1);
}
const picture = async (tab, name) => { if (args.pictures) await tab.picture(path.join(args.pictures, `${name}.png`)); };
const start = (variables = {}, port = 0) => startTarget(args.binary, {protocol: 'auto'}, 2, {RINGCAST_LISTEN: `127.0.0.1:${port}`, ...variables});
const at = (server) => `http://127.0.0.1:${server.port}/`;

// Reads what a page shows to its user.
const text = (id) => `document.getElementById('${id}').textContent`;
const shows = (id, part) => `${text(id)}.includes(${JSON.stringify(part)})`;
const lines = "[...document.querySelectorAll('#messages li')].map((line) => [line.className, line.innerText])";
const said = (tab, kind, part) => tab.until(`${lines}.some(([kind, words]) => kind === '${kind}' && words.includes(${JSON.stringify(part)}))`);
const joined = (tab, name) => tab.until(shows('channels', `#${name} joined`));
const focus = (tab, id) => tab.evaluate(`document.getElementById('${id}').focus()`);
/** Types into a field and presses Enter. */
async function enter(tab, id, words) {
  await focus(tab, id);
  await tab.type(words);
  await tab.enter();
}
const field = (tab, id) => tab.evaluate(`document.getElementById('${id}').value`);
const fits = (tab) => tab.evaluate('document.documentElement.scrollWidth <= innerWidth');

// Two users chat, one of them on a phone with a dark screen.
{
  const server = await start({RINGCAST_PASSWORD_FILE: passwords});
  const desktop = await browser.tab(at(server)), phone = await browser.tab(at(server), {width: 360, height: 740, scheme: 'dark'});
  for (const tab of [desktop, phone]) check('a page that is served connects and joins', [await tab.until(shows('state', 'connected')), await joined(tab, 'hall')], [true, true]);
  await enter(desktop, 'text', 'hello from the desktop');
  check('a message is shown as sent once the server has taken it', await said(desktop, 'own', 'sent'));
  check('and to others as another\'s', await said(phone, 'other', 'hello from the desktop'));
  const count = `${lines}.filter(([kind]) => kind !== 'event').length`;
  check('once', [await desktop.evaluate(count), await phone.evaluate(count)], [1, 1]);
  check('the field is empty then', await field(desktop, 'text'), '');
  await enter(phone, 'text', '<b>grüße & 🙂</b>');
  check('text is text', await said(desktop, 'other', '<b>grüße & 🙂</b>'));
  await enter(desktop, 'channel', 'news');
  check('another channel can be joined', await joined(desktop, 'news'));
  await enter(desktop, 'text', 'to those who follow');
  check('and is the one that is written to', await said(desktop, 'own', '#news'));
  await desktop.evaluate("document.getElementById('ping').click()");
  check('a ping is answered', await desktop.until(shows('pong', 'answered in')));
  await picture(desktop, 'connected-1280-light');
  await picture(phone, 'connected-360-dark');
  check('nothing is wider than a phone', await fits(phone));
  for (const [name, look] of [['connected-360-light', {width: 360, height: 740}], ['connected-1280-dark', {scheme: 'dark'}]]) {
    const tab = await browser.tab(at(server), look);
    await joined(tab, 'hall');
    await enter(tab, 'text', 'and from here');
    await said(tab, 'own', 'sent');
    await picture(tab, name);
    check('nothing is wider than the window', await fits(tab));
    await tab.close();
  }
  // Every element that the keyboard can reach has a name for screen readers.
  const {nodes} = await desktop.call('Accessibility.getFullAXTree');
  const nameless = nodes.filter((node) => !node.ignored && node.properties?.some(({name, value}) => name === 'focusable' && value.value) && !node.name?.value && node.role.value !== 'RootWebArea');
  check('all that has the focus has a name', nameless.map((node) => node.role.value), []);
  const reached = new Set();
  for (let count = 0; count < 30; count++) {
    await desktop.press('Tab', 'Tab', 9);
    reached.add(await desktop.evaluate('document.activeElement.id || document.activeElement.textContent.trim()'));
  }
  check('the keyboard reaches all controls', ['ping', 'messages', 'target', 'text', 'Send', 'channel', 'Join', 'Leave', 'Log in'].filter((id) => !reached.has(id)), []);

  // A login at a server that serves everybody.
  await desktop.evaluate("document.getElementById('account').open = true");
  await enter(desktop, 'user', 'ann');
  await focus(desktop, 'password');
  await desktop.type('wrong');
  await desktop.enter();
  check('a wrong password is named', await desktop.until(shows('account-note', 'InvalidCredentialsError')));
  await desktop.evaluate("document.getElementById('password').select()");
  await desktop.type('pw');
  await desktop.enter();
  check('the right one says who it is', [await desktop.until(shows('state', 'authenticated as ann')), await field(desktop, 'password')], [true, '']);
  await desktop.evaluate("document.getElementById('logout').click()");
  check('logging out says so', await desktop.until(`!${shows('state', 'authenticated')}`));

  // The server ends and starts again.
  await focus(desktop, 'text');
  await desktop.type('written in time, ');
  await stop(server);
  check('a page that has lost its server says so and tries again', [await desktop.until(shows('state', 'not connected, trying again')), await desktop.until(shows('identity', 'next attempt in')), await desktop.until(shows('why', '1006'))], [true, true, true]);
  await enter(desktop, 'text', 'sent too late');
  check('what cannot be sent stays where it was written', [await field(desktop, 'text'), await desktop.until(shows('hint', 'Not connected'))], ['written in time, sent too late', true]);
  await picture(desktop, 'offline-1280-light');
  const again = await start({}, server.port);
  check('it finds the server again', [await desktop.until(shows('state', 'connected')), await joined(desktop, 'hall')], [true, true]);
  await focus(desktop, 'text');
  await desktop.enter();
  check('and sends what was kept', [await said(desktop, 'own', 'written in time, sent too late'), await field(desktop, 'text')], [true, '']);
  again.child.kill('SIGTERM');
  check('a server that stops is not taken for a fault', await desktop.until(shows('why', 'closed with 1001: the server is stopping')));
  check('a page asks nobody but its server', [...new Set([...desktop.requests, ...phone.requests].map((url) => new URL(url).host).filter(Boolean))], [`127.0.0.1:${server.port}`]);
  check('and has nothing to complain of', [...desktop.complaints, ...phone.complaints], []);
  await desktop.close();
  await phone.close();
  await stop(again);
}

// Actions that the rules refuse.
{
  const server = await start({RINGCAST_CONFIG: rules});
  for (const [name, look] of [['refused-360-light', {width: 360, height: 740}], ['refused-1280-dark', {scheme: 'dark'}]]) {
    const tab = await browser.tab(at(server), look);
    check('a channel that the rules refuse is shown as refused', await tab.until(shows('channels', '#hall refused: SilentMiddlewareBlockedError')));
    check('in the messages as well', await said(tab, 'event', '#hall is refused'));
    check('while the connection stands', await tab.evaluate(shows('state', 'connected')));
    await enter(tab, 'text', 'may I?');
    check('a publication that they refuse is not sent', [await said(tab, 'own', 'not sent: SilentMiddlewareBlockedError'), await said(tab, 'own', 'may I?')], [true, true]);
    await picture(tab, name);
    check('and all fits', await fits(tab));
    await enter(tab, 'channel', 'lobby');
    check('what they allow is joined', await joined(tab, 'lobby'));
    check('nothing to complain of', tab.complaints, []);
    await tab.close();
  }
  await stop(server);
}

// A server that serves only users who have logged in.
{
  const server = await start({RINGCAST_PASSWORD_FILE: passwords, RINGCAST_ALLOW_ANONYMOUS: 'off'});
  const tab = await browser.tab(at(server), {width: 360, height: 740, scheme: 'dark'});
  check('a stranger is told that logging in is needed', [await tab.until(shows('channels', '#hall refused: AuthError')), await tab.until("document.getElementById('account').open"),
    await tab.until(shows('account-note', 'only those who are logged in'))], [true, true, true]);
  check('and is shown as nobody', await tab.evaluate(shows('identity', 'not authenticated')));
  await picture(tab, 'strangers-360-dark');
  await focus(tab, 'user');
  await tab.type('ann');
  await enter(tab, 'password', 'pw');
  check('whoever logs in joins by that', [await tab.until(shows('state', 'authenticated as ann')), await joined(tab, 'hall')], [true, true]);
  await tab.close();

  const token = await fetch(`${at(server)}login`, {method: 'POST', body: new URLSearchParams({user: 'ann', password: 'pw'})}).then((answer) => answer.json()).then((body) => body.token);
  const other = await browser.tab(at(server));
  await other.until(shows('channels', 'refused'));
  await picture(other, 'strangers-1280-light');
  const show = async (words) => {
    await other.evaluate("document.getElementById('token').select()");
    await other.type(words);
    await other.evaluate("document.querySelector('#show button').click()");
  };
  await focus(other, 'token');
  await show('a.b.c');
  check('a bad token is named', await other.until(shows('account-note', 'not accepted: AuthTokenInvalidError')));
  await show(token);
  check('a good one authenticates', [await other.until(shows('state', 'authenticated as ann')), await joined(other, 'hall')], [true, true]);
  check('nothing to complain of', [...tab.complaints, ...other.complaints], []);
  await other.close();
  await stop(server);
}

// The page opened as a file: the server refuses it.
const file = pathToFileURL(fileURLToPath(new URL('../../examples/browser.html', import.meta.url)));
{
  const open = (url, look) => browser.tab(`${file}?url=${encodeURIComponent(url)}`, look);
  const server = await start({RINGCAST_PATH: '/ws'});
  const right = await open(`ws://127.0.0.1:${server.port}/ws`);
  check('as a file it connects to the server that is named', [await right.until(shows('state', 'connected')), await joined(right, 'hall')], [true, true]);
  const served = await browser.tab(at(server));
  check('served at another path it knows the path', await joined(served, 'hall'));
  await enter(right, 'text', 'from a file');
  check('both hear each other', await said(served, 'other', 'from a file'));
  const wrong = await open(`ws://127.0.0.1:${server.port}/elsewhere`);
  check('a refused upgrade is no success', [await wrong.until(shows('why', 'no connection')), await wrong.until(shows('state', 'not connected'))], [true, true]);
  await wrong.evaluate(`document.getElementById('url').value = 'ws://127.0.0.1:${server.port}/ws/'; document.querySelector('#server button').click()`);
  check('another address can be typed in', await joined(wrong, 'hall'));
  await wrong.evaluate("document.getElementById('url').value = 'http:'; document.querySelector('#server button').click()");
  await picture(wrong, 'file-1280-light');
  await stop(server);
  const nowhere = await open(`ws://127.0.0.1:${await freePort()}/`, {width: 360, height: 740});
  check('nor is a server that is not there', await nowhere.until(shows('state', 'not connected, trying again')));
  await picture(nowhere, 'nowhere-360-light');
  check('and all fits', await fits(nowhere));
  const strict = await start({RINGCAST_ALLOWED_ORIGINS: 'https://app.example'});
  const foreign = await browser.tab(at(strict));
  check('nor is an origin that may not connect', [await foreign.until(shows('why', 'no connection')), await foreign.until(shows('state', 'not connected'))], [true, true]);
  check('nothing to complain of', [...right.complaints, ...served.complaints, ...foreign.complaints], []);
  await stop(strict);
}

// A server that refuses the handshake, and one that answers with other errors.
{
  const {Server: WebSocketServer} = createRequire(import.meta.url)('ws');
  const listener = new WebSocketServer({host: '127.0.0.1', port: 0});
  await new Promise((resolve) => listener.once('listening', resolve));
  listener.on('connection', (socket, request) => socket.on('message', (bytes) => {
    const {event, cid} = JSON.parse(bytes);
    if (event !== '#handshake') { socket.send(JSON.stringify({rid: cid})); return; }
    if (request.url === '/closed') {
      socket.send(JSON.stringify({rid: cid, error: {name: 'ClosedError', message: 'not today'}}));
      socket.close(4008);
      return;
    }
    socket.send(JSON.stringify({rid: cid, data: {id: 'x', pingTimeout: 20000, isAuthenticated: false}}));
    setTimeout(() => {
      for (const text of ['no JSON', '7', 'null', '[{"event":"#publish","data":{"channel":"hall","data":{"a":1}}},{"event":"#publish","data":{"channel":"hall","data":null}}]',
        '{"event":"#kickOut","data":{"channel":"hall","message":"enough"}}']) socket.send(text);
    }, 200);
  }));
  const at = (name) => browser.tab(`${file}?url=${encodeURIComponent(`ws://127.0.0.1:${listener.address().port}/${name}`)}`);
  const refused = await at('closed');
  check('a refused handshake is named with its error and its code', [await refused.until(shows('why', 'ClosedError: not today')), await refused.until(shows('why', '4008: the server has refused the handshake'))], [true, true]);
  const other = await at('open');
  check('whatever else a server says is shown or passed over', [await said(other, 'other', '{"a":1}'), await said(other, 'other', 'null'), await said(other, 'event', 'kicked out of #hall'),
    await other.until(shows('channels', '#hall refused: enough'))], [true, true, true, true]);
  check('nothing to complain of', [...refused.complaints, ...other.complaints], []);
  listener.close();
}
await browser.end();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
