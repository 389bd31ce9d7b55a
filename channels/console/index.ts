import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { RequestContext } from '../../core/channel.ts'
import { channelOptions, defineChannel } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import { under } from '../../core/native.ts'
import { assetOf } from './assets.ts'

/**
 * A page for people: talk to a bot and see the numbered events of its answer arrive. It needs the channels `rest` and
 * `sse` at the same `path`. In a config it stands as `console`, and is there by default. Where the hub has `auth`, the
 * page asks for a key with `admin: true`.
 */
export const consolePage = defineChannel({
  name: 'consolePage',
  options: z.strictObject({ path: channelOptions.path }),
  create({ path }) {
    const at = (rest: string) => under(path, rest)
    const root = at('/console')
    const document = pageAt(path === '/' ? '' : path)
    return {
      door: `GET ${path}`,
      routes: [
        {
          method: 'GET',
          path,
          anonymous: true,
          describe: {
            summary: 'The console, a page for people',
            answers: { 200: { description: 'The page.', content: { 'text/html': z.string() } } },
          },
          handle(ctx) {
            protect(ctx, document.policy)
            ctx.type = 'html'
            ctx.body = document.html
          },
        },
        {
          method: 'GET',
          path: `${root}/session`,
          describe: {
            summary: 'Whether you may use the console',
            answers: {
              200: { description: 'You may.', content: { 'application/json': z.object({ key: z.string() }) } },
            },
          },
          handle(ctx) {
            if (!ctx.principal.admin) throw new HubError('forbidden')
            ctx.body = { key: ctx.principal.key }
          },
        },
        {
          method: 'GET',
          path: `${root}/:folder/:file`,
          anonymous: true,
          describe: {
            summary: 'What the console is made of',
            answers: { 200: { description: 'A script or a style sheet.' } },
          },
          async handle(ctx) {
            const asset = await assetOf(ctx.params['folder']!, ctx.params['file']!)
            if (!asset) throw new HubError('not_found')
            protect(ctx, policy(''))
            ctx.type = asset.type
            ctx.body = asset.body
          },
        },
      ],
    }
  },
})

/** No script, style or picture from elsewhere, and no text that becomes markup: a bot's words are only ever words. */
const policy = (importMapHash: string): string =>
  [
    "default-src 'none'",
    `script-src 'self'${importMapHash && ` 'sha256-${importMapHash}'`}`,
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join('; ')

function protect(ctx: RequestContext, contentSecurityPolicy: string): void {
  ctx.set({
    'cache-control': 'no-cache',
    'content-security-policy': contentSecurityPolicy,
    'cross-origin-opener-policy': 'same-origin',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
  })
}

/** The page with the addresses of its parts under `base`, and the policy that lets these in. */
function pageAt(base: string): { readonly html: string; readonly policy: string } {
  const parts = `${base}/console`
  const importMap = JSON.stringify({
    imports: { 'bothub/client': `${parts}/client/index.ts`, marked: `${parts}/marked/marked.esm.js` },
  })
  const html = `<!doctype html>
<html lang="en" data-base="${base}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>bothub</title>
<link rel="icon" href="${parts}/page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="${parts}/page/style.css">
<script type="importmap">${importMap}</script>
<script type="module" src="${parts}/page/main.ts"></script>
</head>
<body><main class="gate"><h1>bothub</h1><noscript>This page needs JavaScript.</noscript></main></body>
</html>
`
  return { html, policy: policy(createHash('sha256').update(importMap).digest('base64')) }
}
