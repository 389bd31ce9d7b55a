import { describe, expect, it } from 'vitest'
import type { HubEvent } from '../../core/events.ts'
import { Transcript } from '../../core/transcript.ts'

const heard = (events: readonly Exclude<HubEvent, { type: 'upstream' }>[], debug = false) => {
  const transcript = new Transcript({ debug })
  return { transcript, logged: events.flatMap((event) => transcript.add(event)) }
}
const delta = (message: string, text: string) => ({ type: 'message.delta', message, text }) as const
const call = { call: 'c1', tool: 'mail', input: {}, alreadyAllowed: false }

describe('the grammar it mends', () => {
  it('starts a message with its first words and completes it once', () => {
    const { transcript, logged } = heard([delta('a', 'one '), delta('a', 'two')])
    expect([...logged, ...transcript.close()]).toEqual([
      { type: 'message.started', message: 'a' },
      delta('a', 'one '),
      delta('a', 'two'),
      { type: 'message.completed', message: 'a', text: 'one two' },
    ])
    expect(transcript.close()).toEqual([])
  })

  it('drops empty words, a started of its own and whatever follows the completed message', () => {
    const { logged } = heard([
      { type: 'message.started', message: 'a' },
      delta('a', ''),
      delta('a', 'x'),
      { type: 'message.completed', message: 'a', text: 'x' },
      delta('a', 'late'),
      { type: 'message.completed', message: 'a', text: 'later' },
    ])
    expect(logged.map((event) => event.type)).toEqual(['message.started', 'message.delta', 'message.completed'])
  })

  it('starts a message that comes whole', () => {
    const { logged } = heard([{ type: 'message.completed', message: 'card', text: '', template: { type: 'X' } }])
    expect(logged.map((event) => event.type)).toEqual(['message.started', 'message.completed'])
  })

  it('keeps raw events only in a turn that was accepted with debug', () => {
    const raw = { type: 'raw', source: 'vendor', name: 'odd', data: 1 } as const
    expect(heard([raw]).logged).toEqual([])
    expect(heard([raw], true).logged).toEqual([raw])
  })

  it('fails a turn that says more than 16 Mi characters, with what was shown kept', () => {
    const transcript = new Transcript({ debug: false })
    transcript.add(delta('a', 'kept'))
    expect(() => transcript.add(delta('a', 'x'.repeat(16 * 1_048_576)))).toThrow(/larger than the hub passes on/)
    expect(transcript.text.startsWith('kept')).toBe(true)
  })
})

describe('what it tells', () => {
  it('joins messages by a blank line, leaves empty ones out and adds usage up', () => {
    const { transcript } = heard([
      delta('a', 'one'),
      { type: 'message.completed', message: 'card', text: '', template: { type: 'X' } },
      delta('b', 'two'),
      { type: 'usage', inputTokens: 1, outputTokens: 2, totalTokens: 3, model: 'm' },
      { type: 'usage', inputTokens: 10, outputTokens: 20, totalTokens: 30 },
    ])
    expect(transcript.text).toBe('one\n\ntwo')
    expect(transcript.usage).toEqual({ inputTokens: 11, outputTokens: 22, totalTokens: 33, model: 'm' })
    expect(transcript.messages).toEqual([
      { id: 'a', text: 'one' },
      { id: 'card', text: '', template: { type: 'X' } },
      { id: 'b', text: 'two' },
    ])
  })

  it('waits for the calls that have no decision yet, and gives all of them when the last one came', () => {
    const { transcript } = heard([{ type: 'consent.requested', calls: [call, { ...call, call: 'c2' }] }])
    expect(transcript.pending?.calls.map((each) => each.call)).toEqual(['c1', 'c2'])
    transcript.replay([{ type: 'consent.answered', decisions: [{ call: 'c2', result: 'deny_once' }], by: 'policy' }])
    expect(transcript.pending?.calls.map((each) => each.call)).toEqual(['c1'])
    expect(transcript.isAnswered('c2')).toBe(true)
    transcript.replay([
      { type: 'turn.waiting', for: 'consent' },
      { type: 'consent.answered', decisions: [{ call: 'c1', result: 'allow_once' }], by: 'user' },
    ])
    expect(transcript.pending).toBeUndefined()
    expect(transcript.answers).toMatchObject({ type: 'consent', decisions: [{ call: 'c2' }, { call: 'c1' }] })
  })

  it('forgets the answers once the bot went on, so that a restart does not give them twice', () => {
    const { transcript } = heard([
      { type: 'consent.requested', calls: [call] },
      { type: 'consent.answered', decisions: [{ call: 'c1', result: 'allow_once' }], by: 'user' },
      delta('a', 'going on'),
    ])
    expect(transcript.answers).toBeUndefined()
    expect(transcript.isAnswered('c1')).toBe(true)
  })

  it('knows an answer also when the bot has asked for something else since', () => {
    const { transcript } = heard([
      { type: 'consent.requested', calls: [call] },
      { type: 'consent.answered', decisions: [{ call: 'c1', result: 'allow_once' }], by: 'user' },
      { type: 'consent.requested', calls: [{ ...call, call: 'c2' }] },
    ])
    expect(transcript.isAnswered('c1')).toBe(true)
    expect(transcript.isAnswered('c2')).toBe(false)
  })

  it('is the same whether it heard the bot or read the log', () => {
    const { transcript, logged } = heard([delta('a', 'x'), { type: 'tool.outputs_requested', calls: [call] }])
    const reread = new Transcript({ debug: false })
    reread.replay(logged)
    expect(reread.result).toEqual(transcript.result)
    expect(reread.pending).toEqual(transcript.pending)
    expect(reread.shown).toEqual([{ id: 'a', text: 'x', completed: false }])
  })
})
