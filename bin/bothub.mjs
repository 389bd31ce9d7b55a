#!/usr/bin/env node
// Plain JavaScript for any Node: an old one is told what to do before anything of the hub is loaded.
import { fileURLToPath } from 'node:url'

const [major] = process.versions.node.split('.').map(Number)
if (major < 24) {
  process.stderr.write(
    `bothub needs Node.js 24 or newer, and this is ${process.version}.\n` +
      'In a clone of its repository: npm install && npm start\n' +
      'In a project of your own: npm install node@24 && npx bothub start\n' +
      'Or install a newer Node.js: https://nodejs.org\n',
  )
  process.exit(78)
}

// Compiled modules are kept from start to start; where nothing can be written the hub starts as before, only later.
const { enableCompileCache } = await import('node:module')
enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/bothub', import.meta.url)))

const { run } = await import('../cli/index.ts')
await run(process.argv)
