import { describe, expect, it } from 'vitest'
import { consentArguments, readConsent } from '../../core/consent-call.ts'

describe('consent as the call of a function', () => {
  it.each([
    ['allow', { result: 'allow_once' }],
    [' Allow_Always\n', { result: 'allow_always' }],
    ['allow_once', { result: 'allow_once' }],
    ['deny', { result: 'deny_once' }],
    ['{"result":"deny_once","reason":"not today"}', { result: 'deny_once', reason: 'not today' }],
    ['{"result":"allow","reason":null}', { result: 'allow_once' }],
  ])('takes %j for a decision', (output, decision) => {
    expect(readConsent('c', output)).toEqual({ call: 'c', ...decision })
  })

  it.each(['', 'yes', 'allowed', 'constructor', 'null', '7', '"allow"', '{}', '{"result":"yes"}', '{"result":true}'])(
    'takes %j for neither a yes nor a no',
    (output) => {
      expect(readConsent('c', output)).toBeUndefined()
    },
  )

  it('shows the tool, what it is called with, and why', () => {
    const call = { call: 'c', tool: 'send_mail', input: { to: 'ada' } }
    expect(JSON.parse(consentArguments(call))).toEqual({ tool: 'send_mail', input: { to: 'ada' } })
    const more = { toolset: 'mail', reason: 'You asked for it.', alreadyAllowed: true }
    expect(JSON.parse(consentArguments({ ...call, ...more }))).toEqual({
      tool: 'send_mail',
      toolset: 'mail',
      input: { to: 'ada' },
      reason: 'You asked for it.',
      already_allowed: true,
    })
  })
})
