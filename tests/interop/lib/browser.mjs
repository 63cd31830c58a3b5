// Controls a headless Chromium by its own protocol (CDP), over a pair of pipes: tabs, scripts, keys and pictures.
import fs from 'node:fs';
import path from 'node:path';
import {spawn} from 'node:child_process';

const CHROMIUM = ['chromium', 'chromium-browser', 'google-chrome']
  .flatMap((name) => process.env.PATH.split(':').map((at) => path.join(at, name))).find((file) => fs.existsSync(file));

/** Starts Chromium; `null` if none is installed. `profile` is a folder that does not exist yet. */
export function launch(profile) {
  if (!CHROMIUM) return null;
  const child = spawn(CHROMIUM, ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--remote-debugging-pipe', `--user-data-dir=${profile}`, 'about:blank'],
  {stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'], detached: true});
  const kill = () => { try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it has ended */ } };
  process.on('exit', kill);
  const gone = new Promise((resolve) => child.on('exit', resolve));
  const pending = new Map(), listeners = new Map();
  let id = 0, rest = '';
  child.stdio[3].on('error', () => {});
  child.stdio[4].setEncoding('utf8').on('error', () => {}).on('data', (text) => {
    const messages = (rest + text).split('\0');
    rest = messages.pop();
    for (const message of messages.map((one) => JSON.parse(one))) {
      if (message.id === undefined) { listeners.get(message.sessionId)?.(message); continue; }
      const {resolve, reject} = pending.get(message.id);
      pending.delete(message.id);
      if (message.error) reject(new Error(message.error.message)); else resolve(message.result);
    }
  });
  const send = (method, params = {}, sessionId) => new Promise((resolve, reject) => {
    pending.set(++id, {resolve, reject});
    child.stdio[3].write(`${JSON.stringify({id, method, params, sessionId})}\0`);
  });
  return {
    tab: (url, look) => open(send, listeners, url, look),
    end: async () => { kill(); await gone; },
  };
}

/** `look`: width, height, scheme (`light` or `dark`). */
async function open(send, listeners, url, {width = 1280, height = 800, scheme = 'light'} = {}) {
  const {targetId} = await send('Target.createTarget', {url: 'about:blank'});
  const {sessionId} = await send('Target.attachToTarget', {targetId, flatten: true});
  const call = (method, params) => send(method, params, sessionId);
  /** Errors that the page has reported: exceptions, violations of its content security policy, failed requests. */
  const complaints = [], requests = [];
  listeners.set(sessionId, ({method, params}) => {
    if (method === 'Runtime.exceptionThrown') complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    if (method === 'Log.entryAdded' && params.entry.source === 'security') complaints.push(params.entry.text);
    if (method === 'Network.requestWillBeSent') requests.push(params.request.url);
  });
  for (const domain of ['Page', 'Runtime', 'Log', 'Network']) await call(`${domain}.enable`);
  await call('Emulation.setDeviceMetricsOverride', {width, height, deviceScaleFactor: 1, mobile: width < 500});
  await call('Emulation.setEmulatedMedia', {features: [{name: 'prefers-color-scheme', value: scheme}]});
  await call('Page.navigate', {url});
  const evaluate = async (expression) => {
    const {result, exceptionDetails} = await call('Runtime.evaluate', {expression, returnByValue: true, awaitPromise: true});
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  return {
    complaints, requests, evaluate, call,
    /** Waits until an expression is true; resolves to false if it does not become true in time. */
    async until(expression, patienceMs = 60000) {
      for (const end = Date.now() + patienceMs; Date.now() < end;) {
        if (await evaluate(`Boolean(${expression})`).catch(() => false)) return true;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      return false;
    },
    /** Types as a user does, into the element that has the focus. */
    type: (text) => call('Input.insertText', {text}),
    async press(key, code, windowsVirtualKeyCode, text) {
      for (const type of ['keyDown', 'keyUp']) await call('Input.dispatchKeyEvent', {type, key, code, windowsVirtualKeyCode, text: type === 'keyDown' ? text : undefined});
    },
    enter() { return this.press('Enter', 'Enter', 13, '\r'); },
    async picture(file) {
      const {data} = await call('Page.captureScreenshot', {format: 'png'});
      fs.writeFileSync(file, Buffer.from(data, 'base64'));
    },
    close: () => send('Target.closeTarget', {targetId}),
  };
}
