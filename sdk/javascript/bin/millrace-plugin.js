#!/usr/bin/env node
// Makes a component of a plugin's module: millrace-plugin build plugin.js -o plugin.wasm (or plugin.ts).
//
// The module's default export is what `transform` or `validator` made. The component imports nothing but the host's own
// interfaces; --with-wasi leaves WASI in, which the host links empty.

import { existsSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const sdk = resolve(dirname(fileURLToPath(import.meta.url)), '..');

/** The entry of a tool that is installed beside the plugin, beside the SDK, or where MILLRACE_NODE_MODULES says. */
async function tool(name, entry) {
  const folders = [process.env.MILLRACE_NODE_MODULES];
  for (let at = process.cwd(); ; at = dirname(at)) {
    folders.push(join(at, 'node_modules'));
    if (at === dirname(at)) break;
  }
  folders.push(join(sdk, 'node_modules'), join(sdk, '../..'));
  const found = folders.filter(Boolean).map((folder) => join(folder, name, entry)).find(existsSync);
  return found ? import(pathToFileURL(found)) : fail(`${name} is absent: npm install --save-dev ${name}`);
}

function fail(message) {
  console.error(`millrace-plugin: ${message}`);
  process.exit(1);
}

function entry(role, plugin) {
  const sdkModule = JSON.stringify(join(sdk, 'src/component.js'));
  return `import plugin from ${JSON.stringify(plugin)};
import { Slot, lifecycleOf, ${role}Of } from ${sdkModule};
const slot = new Slot(plugin);
export const lifecycle = lifecycleOf(plugin, slot);
export const ${role} = ${role}Of(slot);
`;
}

async function bundle(esbuild, source, outfile, more) {
  const alias = { '@millrace/sdk': join(sdk, 'src/index.js') };
  const external = ['millrace:*'];
  const stdin = { contents: source, resolveDir: process.cwd() };
  await esbuild.build({ stdin, outfile, bundle: true, format: 'esm', target: 'es2022', alias, external, logLevel: 'error', ...more });
}

async function build(module, output, withWasi) {
  const esbuild = (await tool('esbuild', 'lib/main.js')).default;
  const { componentize } = await tool('@bytecodealliance/componentize-js', 'src/componentize.js');
  const folder = mkdtempSync(join(tmpdir(), 'millrace-'));
  try {
    const plugin = resolve(module);
    const probe = join(folder, 'probe.mjs');
    await bundle(esbuild, `export { default } from ${JSON.stringify(plugin)};`, probe);
    const { role } = (await import(pathToFileURL(probe))).default ?? {};
    if (!['transform', 'validator'].includes(role)) fail(`${module}: its default export is neither transform({…}) nor validator({…})`);
    const script = join(folder, 'plugin.js');
    await bundle(esbuild, entry(role, plugin), script);
    const witPath = join(sdk, 'wit');
    // The network is not in the sandbox, whatever else is.
    const disableFeatures = ['http', 'fetch-event', ...(withWasi ? [] : ['random', 'stdio', 'clocks'])];
    const { component } = await componentize({ sourcePath: script, witPath, worldName: `sdk-${role}`, disableFeatures });
    // Beside the target first: a pipeline that watches it never sees half of it.
    writeFileSync(`${output}.new`, component);
    renameSync(`${output}.new`, output);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const options = { output: { type: 'string', short: 'o' }, 'with-wasi': { type: 'boolean', default: false } };
const { values, positionals } = parseArgs({ options, allowPositionals: true });
if (positionals[0] !== 'build' || positionals.length !== 2 || !values.output) {
  fail('usage: millrace-plugin build plugin.js -o plugin.wasm [--with-wasi]');
}
await build(positionals[1], values.output, values['with-wasi']);
console.log(`${values.output}: ${Math.round(statSync(values.output).size / 1000)} kB`);
