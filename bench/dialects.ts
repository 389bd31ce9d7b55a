import * as asgard from '../plugins/asgard/wire.ts'
import * as coze from '../plugins/coze/wire.ts'
import * as openai from '../plugins/openai/wire.ts'

/** One answer in a vendor's words. What changes from delta to delta is put into frames that were encoded before. */
export interface Dialect {
  begin(): string
  delta(text: string): string
  end(): string
}

/** OpenAI's chat completions. */
export function openaiDialect(): Dialect {
  const head = { id: 'chatcmpl-bench', created: 1_760_000_000, model: 'bench' }
  const frame = (parts: openai.ChunkParts) => openai.encodeFrame(openai.chunkObject(head, parts))
  const delta = template(frame({ content: words }))
  return {
    begin: () => frame({ role: 'assistant', content: '' }),
    delta: (text) => delta(text, 0),
    end: () => frame({ finish: 'stop' }) + openai.doneFrame,
  }
}

/** Asgard's edge server: every frame has a cursor. */
export function asgardDialect(): Dialect {
  const run = { requestId: 'request-bench', namespace: 'bench', botProviderName: 'bench', customChannelId: 'bench' }
  let cursor = 0
  let idx = 0
  let said = ''
  const frame = <Type extends asgard.AsgardEventType>(type: Type, fact: asgard.AsgardFacts[Type]) => {
    const id = String(cursor++)
    return asgard.encodeFrame(asgard.asgardEvent(type, fact, { ...run, eventId: `event-${id}` }), id)
  }
  const message = (parts: object) => ({ message: asgard.asgardMessage({ messageId: 'answer', ...parts }) })
  const sample = asgard.asgardEvent('asgard.message.delta', message({ text: words, idx: place }), {
    ...run,
    eventId: `event-${place}`,
  })
  const delta = template(asgard.encodeFrame(sample))
  return {
    begin: () => frame('asgard.run.init', {}) + frame('asgard.message.start', message({})),
    delta(text) {
      said += text
      return `id: ${cursor++}\n${delta(text, idx++)}`
    },
    end: () => frame('asgard.message.complete', message({ text: said })) + frame('asgard.run.done', {}),
  }
}

/** Coze's v3 chat. */
export function cozeDialect(): Dialect {
  const at = 1_760_000_000
  const ids = { conversationId: '7500000000000000001', botId: '7500000000000000002' }
  const chat = (status: coze.CozeStatus) =>
    coze.encodeFrame(
      `conversation.chat.${status}`,
      coze.chatObject({ id: '7500000000000000003', ...ids, status, createdAt: at }),
    )
  const message = (event: string, content: string) =>
    coze.encodeFrame(
      `conversation.message.${event}`,
      coze.messageObject({
        id: '7500000000000000004',
        chatId: '7500000000000000003',
        ...ids,
        role: 'assistant',
        type: 'answer',
        contentType: 'text',
        content,
      }),
    )
  const delta = template(message('delta', words))
  let said = ''
  return {
    begin: () => chat('created') + chat('in_progress'),
    delta(text) {
      said += text
      return delta(text, 0)
    },
    end: () => message('completed', said) + chat('completed') + coze.doneFrame(),
  }
}

/** Stand in a sample for the words of a delta and for its place in the answer. */
const words = 'THE-WORDS'
const place = 987_654_321

function template(sample: string): (text: string, index: number) => string {
  const parts = sample.split(new RegExp(`(${words}|${place})`))
  return (text, index) => {
    let frame = ''
    for (const part of parts) frame += part === words ? text : part === String(place) ? index : part
    return frame
  }
}
