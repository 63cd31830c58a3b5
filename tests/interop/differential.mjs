// Sends the same bytes to the reference server and to Ringcast (the target), and compares what both send back.
// node differential.mjs --binary PATH [--cores N] [--only TEXT] [--parallel N]
// node differential.mjs --self-test      compares the reference with itself, to test the comparison
import {createRequire} from 'node:module';
import {parseArgs} from 'node:util';
import {perform} from './lib/wire.mjs';
import {AUTH_KEY, CONFIGURATIONS, startReference, startTarget, stop} from './lib/servers.mjs';
import {compare} from './lib/compare.mjs';
import {scripts as application} from './scripts/application.mjs';
import {scripts as auth} from './scripts/auth.mjs';
import {scripts as frames} from './scripts/frames.mjs';
import {scripts as http} from './scripts/http.mjs';
import {scripts as json} from './scripts/json.mjs';
import {scripts as packets} from './scripts/packets.mjs';
import {scripts as timers} from './scripts/timers.mjs';

const jwt = createRequire(import.meta.url)('jsonwebtoken');
const {values: args} = parseArgs({options: {binary: {type: 'string'}, cores: {type: 'string'}, only: {type: 'string'}, parallel: {type: 'string'}, 'self-test': {type: 'boolean'}, show: {type: 'boolean'}}});
if (!args.binary && !args['self-test']) { console.error('usage: node differential.mjs --binary PATH | --self-test [--cores N] [--only TEXT] [--parallel N] [--show]'); process.exit(2); }

// Scripts that wait begin first; the others run during their waits.
const all = [...application, ...auth, ...timers, ...packets, ...frames, ...http, ...json].filter((s) => !args.only || s.name.includes(args.only)).sort((a, b) => (b.expires ?? 0) - (a.expires ?? 0));
const names = new Set();
for (const script of all) { while (names.has(script.name)) script.name += ' (again)'; names.add(script.name); }

/** Channel names and tokens of one run. Each script has its own, equal for both servers. */
function fill(script, index) {
  const token = script.expires ? jwt.sign({username: 'alice', exp: Math.floor(Date.now() / 1000) + script.expires}, AUTH_KEY, {noTimestamp: true}) : '';
  const replace = (value) => value.replaceAll('$TOKEN', token).replaceAll('$C', `c${index}-`);
  return {...script, steps: script.steps.map((step) => {
    if (step.do === 'text') return {...step, text: replace(step.text)};
    if (step.do === 'binary') return {...step, bytes: Buffer.from(replace(step.bytes.toString('latin1')), 'latin1')};
    return step;
  })};
}

const servers = {};
for (const name of new Set(all.map((script) => script.config))) {
  servers[name] = await Promise.all([startReference(CONFIGURATIONS[name]), args['self-test'] ? startReference(CONFIGURATIONS[name]) : startTarget(args.binary, CONFIGURATIONS[name], Number(args.cores ?? 2))]);
}

let passed = 0, failed = 0, skipped = 0;
const accepted = {};
async function run(script, index) {
  const filled = fill(script, index);
  const [reference, target] = servers[script.config];
  if (script.expect && args['self-test']) { skipped++; return; } // this script ends the reference's process
  const died = [reference, target].find((server) => server.exited);
  if (died) throw new Error(`a server ended (${died === target ? 'target' : 'reference'}, ${script.config}): ${died.exited}\n${died.output}`);
  const [want, got] = await Promise.all([script.expect ? [['a: http', ...script.expect.map((line) => `a: ${line}`)]] : perform(filled, reference.port), perform(filled, target.port)]);
  if (script.expect) got[0][0] = 'a: http';
  const {difference, allowed} = compare(script, want, got);
  for (const reason of allowed) accepted[reason] = (accepted[reason] ?? 0) + 1;
  if (args.show) console.log(`     ${script.name}\n${want.flat().map((line) => `       ${line}`).join('\n')}`);
  if (difference === null) { passed++; return; }
  failed++;
  const lines = (logs) => logs.flat().map((line) => `       ${JSON.stringify(line).slice(1, -1).slice(0, 600)}`).join('\n');
  console.log(`FAIL ${script.name} [${script.config}]: ${difference}\n     reference\n${lines(want)}\n     target\n${lines(got)}`);
}

const began = Date.now();
let next = 0;
const indexed = all.map((script, index) => () => run(script, index));
const waiting = indexed.filter((_, i) => all[i].expires), alone = indexed.filter((_, i) => all[i].alone), rest = indexed.filter((_, i) => !all[i].expires && !all[i].alone);
const worker = async () => { while (next < rest.length) await rest[next++](); };
const oneByOne = async () => { for (const each of alone) await each(); };
try {
  await Promise.all([...waiting.map((each) => each()), oneByOne(), ...Array.from({length: Number(args.parallel ?? 24)}, worker)]);
} catch (error) {
  failed++;
  console.log(`FAIL ${error.message}`);
}
for (const [reason, count] of Object.entries(accepted)) console.log(`allowed difference, ${count} times: ${reason}`);
if (skipped) console.log(`${skipped} scripts that would end the reference were left out`);
console.log(`${all.length} scripts in ${((Date.now() - began) / 1000).toFixed(1)} s`);
await Promise.all(Object.values(servers).flat().map(stop));
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
