import RepeatingBot, { SilentBot } from '../fakes/bots/repeating-bot.ts'
import { local } from '../../plugins/local/index.ts'
import { askedCall, clientCall, providerSuite } from '../suites/provider.ts'
import type { ProviderSubject } from '../suites/provider.ts'

const subject: ProviderSubject = {
  manifest: local(() => '').manifest,
  create: () =>
    local(async function* ({ message }) {
      yield* message.text.split(/(?<=\s)/)
    }),
  silent: () => local(() => new Promise(() => {})),
  asks: () =>
    local(async function* ({ answers }) {
      if (answers?.type !== 'consent')
        yield { type: 'consent.requested', calls: [{ ...askedCall, alreadyAllowed: false }] }
      else yield answers.decisions[0]?.result === 'allow_once' ? 'allow' : 'deny'
    }),
  calls: () =>
    local(async function* ({ answers }) {
      if (answers?.type !== 'tool_outputs') yield { type: 'tool.outputs_requested', calls: [clientCall] }
      else yield JSON.stringify(answers.outputs[0]?.output)
    }),
}

providerSuite('local', subject)

providerSuite('local, a class', {
  manifest: local(RepeatingBot).manifest,
  create: () => local(RepeatingBot),
  silent: () => local(SilentBot),
})

const module = new URL('../fakes/bots/repeating-bot.ts', import.meta.url)

providerSuite('local, isolated', {
  manifest: local(module, { isolate: true }).manifest,
  create: () => local(module, { isolate: true }),
  silent: () => local(module, { isolate: true, export: 'SilentBot' }),
})
