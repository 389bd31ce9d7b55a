import type { ConsentDecision, NumberedEvent, ToolOutput } from 'bothub/client'
import { card } from './cards.ts'
import { fold, h, pretty } from './dom.ts'
import { markdown } from './markdown.ts'
import { word } from './words.ts'
import type { Word } from './words.ts'

type Calls = Extract<NumberedEvent, { type: 'consent.requested' | 'tool.outputs_requested' }>['calls']

/** What somebody may do with a turn where it is shown. */
export interface TurnDeeds {
  readonly say: (text: string) => void
  readonly decide: (decisions: readonly ConsentDecision[]) => Promise<void>
  readonly giveOutputs: (outputs: readonly ToolOutput[]) => Promise<void>
  /** Shows its events. */
  readonly inspect: () => void
}

/** One exchange as it is shown: what the user said, and what its events have made of the answer so far. */
export class TurnView {
  readonly element: HTMLElement
  readonly #answer = h('div', { class: 'answer' })
  readonly #status = h('span', { class: 'status', 'data-status': 'queued' }, word('queued'))
  readonly #deeds: TurnDeeds
  readonly #texts = new Map<string, StreamedText>()
  readonly #tools = new Map<string, HTMLDetailsElement>()
  #question: HTMLElement | undefined
  #suggestions: HTMLElement | undefined

  constructor(text: string, deeds: TurnDeeds, files: readonly string[] = []) {
    this.#deeds = deeds
    this.element = h(
      'article',
      { class: 'exchange', 'aria-busy': 'true' },
      h(
        'div',
        { class: 'said' },
        h('span', { class: 'visually-hidden' }, `${word('you')}: `),
        text,
        ...files.map((name) => h('span', { class: 'file' }, name)),
      ),
      this.#answer,
      h(
        'footer',
        {},
        this.#status,
        h('button', { type: 'button', class: 'quiet small', onclick: () => deeds.inspect() }, word('showEvents')),
      ),
    )
  }

  /** Shows what an event adds; types it does not know change nothing. */
  add(event: NumberedEvent): void {
    if (this.#status.dataset['status'] === 'queued' && event.type !== 'turn.started') this.#setStatus('live')
    switch (event.type) {
      case 'message.delta':
        return this.#text(event.message, 'message').grow(event.text)
      case 'message.completed':
        return this.#complete(event)
      case 'reasoning.delta':
        return this.#text(event.message, 'thinking').grow(event.text)
      case 'reasoning.completed':
        return this.#text(event.message, 'thinking').set(event.text)
      case 'canvas.delta':
        return this.#text(event.message, 'draft').grow(event.text)
      case 'canvas.completed':
        return this.#text(event.message, 'draft').set(event.text)
      case 'tool.started':
        return this.#tool(event.call, event.tool, event.input)
      case 'tool.completed':
        return this.#toolDone(event.call, event.output, event.isError)
      case 'consent.requested':
        return this.#ask(consentCard(event.calls, this.#deeds))
      case 'tool.outputs_requested':
        return this.#ask(outputsCard(event.calls, this.#deeds))
      case 'consent.answered':
        return this.#answered()
      case 'suggestion':
        return this.#suggest(event.text)
      case 'usage':
        this.element
          .querySelector('footer')
          ?.append(h('span', { class: 'usage' }, `${event.totalTokens} ${word('usage')}`))
        return
      case 'attempt.failed':
        return this.#say('notice', word('retry', event.attempt, event.retryInMs))
      case 'turn.waiting':
        return this.#setStatus('waiting')
      case 'turn.completed':
        return this.#end('completed')
      case 'turn.cancelled':
        return this.#end('cancelled')
      case 'turn.failed':
      case 'turn.interrupted':
        this.fail(event.error.message)
        return this.#end(event.type === 'turn.failed' ? 'ended' : 'interrupted')
      default:
    }
  }

  /** Shows an answer of which only the words are known. */
  showText(text: string): void {
    this.#text('text', 'message').set(text)
    this.#end('completed')
  }

  /** Shows why there is no answer, or no more of it. */
  fail(message: string): void {
    this.#say('problem', message)
    this.#end('ended')
  }

  #end(status: Word): void {
    this.#answered()
    this.#setStatus(status)
    this.element.setAttribute('aria-busy', 'false')
    for (const text of this.#texts.values()) text.draw()
  }

  #setStatus(status: Word): void {
    this.#status.dataset['status'] = status
    this.#status.replaceChildren(word(status))
  }

  #say(kind: 'notice' | 'problem', text: string): void {
    this.#answer.append(h('p', { class: kind, ...(kind === 'problem' && { role: 'alert' }) }, text))
  }

  #text(message: string, kind: 'message' | 'thinking' | 'draft'): StreamedText {
    const key = `${kind} ${message}`
    const known = this.#texts.get(key)
    if (known) return known
    const text = new StreamedText()
    this.#texts.set(key, text)
    this.#answer.append(kind === 'message' ? text.element : fold([word(kind)], text.element))
    return text
  }

  #complete({ message, text, template }: Extract<NumberedEvent, { type: 'message.completed' }>): void {
    if (text || this.#texts.has(`message ${message}`)) this.#text(message, 'message').set(text)
    const isPlain = template?.['type'] === 'TEXT' && !template['quickReplies']
    if (template && !isPlain) this.#answer.append(card(withoutText(template, text), (said) => this.#deeds.say(said)))
  }

  #tool(call: string, tool: string, input: unknown): void {
    const details = fold(
      [`${word('tool')} `, h('code', {}, tool), h('span', { class: 'tool-state' }, word('running'))],
      h('pre', { tabindex: 0 }, pretty(input)),
    )
    details.classList.add('tool')
    this.#tools.set(call, details)
    this.#answer.append(details)
  }

  #toolDone(call: string, output: unknown, isError: boolean): void {
    const details = this.#tools.get(call)
    details?.querySelector('.tool-state')?.replaceChildren(isError ? word('failed') : '✓')
    details?.append(h('pre', { tabindex: 0, class: isError ? 'error' : '' }, pretty(output)))
  }

  #ask(question: HTMLElement): void {
    this.#question?.remove()
    this.#question = question
    this.#answer.append(question)
  }

  #answered(): void {
    this.#question?.remove()
    this.#question = undefined
    if (this.#status.dataset['status'] === 'waiting') this.#setStatus('live')
  }

  #suggest(text: string): void {
    if (!this.#suggestions) {
      this.#suggestions = h('div', { class: 'choices', role: 'group', 'aria-label': word('suggestions') })
      this.#answer.append(this.#suggestions)
    }
    this.#suggestions.append(h('button', { type: 'button', onclick: () => this.#deeds.say(text) }, text))
  }
}

/** Words that grow, drawn at most once a frame. */
class StreamedText {
  readonly element = h('div', { class: 'prose' })
  #text = ''
  #isDue = false

  grow(more: string): void {
    this.set(this.#text + more)
  }

  set(text: string): void {
    this.#text = text
    if (this.#isDue) return
    this.#isDue = true
    // A page in the background has no frames.
    if (document.hidden) this.draw()
    else requestAnimationFrame(() => this.draw())
  }

  draw(): void {
    if (!this.#isDue) return
    this.#isDue = false
    this.element.replaceChildren(...markdown(this.#text))
  }
}

const withoutText = (template: Readonly<Record<string, unknown>>, text: string) =>
  template['text'] === text ? { ...template, text: '' } : template

function consentCard(calls: Calls, { decide }: TurnDeeds): HTMLElement {
  const answer = (result: ConsentDecision['result']) => () => decide(calls.map(({ call }) => ({ call, result })))
  return questionCard(word('consent'), calls, [
    ['once', answer('allow_once'), 'primary'],
    ['always', answer('allow_always'), ''],
    ['deny', answer('deny_once'), 'danger'],
  ])
}

function outputsCard(calls: Calls, { giveOutputs }: TurnDeeds): HTMLElement {
  const fields = calls.map(({ call, tool }) => ({ call, input: h('input', { 'aria-label': tool, class: 'output' }) }))
  const give = () => giveOutputs(fields.map(({ call, input }) => ({ call, output: input.value })))
  return questionCard(
    word('outputs'),
    calls,
    [['give', give, 'primary']],
    fields.map(({ input }) => input),
  )
}

function questionCard(
  title: string,
  calls: Calls,
  choices: readonly (readonly [Word, () => Promise<void>, string])[],
  fields: readonly HTMLElement[] = [],
): HTMLElement {
  const problem = h('p', { class: 'problem', hidden: true, role: 'alert' })
  const buttons = choices.map(([label, act, kind]) =>
    h('button', { type: 'button', class: kind, 'data-choice': label, onclick: () => void choose(act) }, word(label)),
  )
  async function choose(act: () => Promise<void>): Promise<void> {
    for (const button of buttons) button.disabled = true
    try {
      await act()
    } catch (error) {
      problem.hidden = false
      problem.replaceChildren(error instanceof Error ? error.message : String(error))
      for (const button of buttons) button.disabled = false
    }
  }
  return h(
    'section',
    { class: 'card question', 'aria-label': title },
    h('strong', {}, title),
    ...calls.map(({ tool, input, reason }) =>
      h('div', {}, h('code', {}, tool), reason && h('p', {}, reason), h('pre', { tabindex: 0 }, pretty(input))),
    ),
    ...fields,
    h('div', { class: 'choices' }, ...buttons),
    problem,
  )
}
