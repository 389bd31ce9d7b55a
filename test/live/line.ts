import type { Fetch, Sent, Vendor } from './vendors.ts'

/** The line between the hub and the platform: it remembers what was asked, and can be cut. */
export class Line {
  /** How many messages were sent. */
  messages = 0
  /** How many streams were cut. */
  cuts = 0
  /** Statuses of the answers to deletions. */
  readonly deletions: number[] = []
  readonly #vendor: Vendor
  #cutting = false

  constructor(vendor: Vendor) {
    this.#vendor = vendor
  }

  readonly fetch: Fetch = async (input, init) => {
    const request = input instanceof Request ? input : undefined
    const sent: Sent = {
      method: init?.method ?? request?.method ?? 'GET',
      path: new URL(input instanceof Request ? input.url : input).pathname,
      headers: new Headers(init?.headers ?? request?.headers),
    }
    const isMessage = this.#vendor.isMessage(sent)
    if (isMessage) this.messages += 1
    const response = await fetch(input, init)
    if (this.#vendor.isDeletion(sent)) this.deletions.push(response.status)
    if (!isMessage || !this.#cutting || !response.body) return response
    this.#cutting = false
    const { status, headers } = response
    return new Response(response.body.pipeThrough(this.#scissors()), { status, headers })
  }

  /** Cuts the stream of the next message behind its first words. */
  cutNext(): void {
    this.#cutting = true
  }

  #scissors(): TransformStream<Uint8Array, Uint8Array> {
    const decoder = new TextDecoder()
    let text = ''
    return new TransformStream({
      transform: (chunk, out) => {
        text += decoder.decode(chunk, { stream: true })
        const end = /message\.delta[^]*?\r?\n\r?\n/.exec(text)
        if (!end) return
        this.cuts += 1
        out.enqueue(new TextEncoder().encode(text.slice(0, end.index + end[0].length)))
        // Not at once: an error would take with it what has not been read yet.
        setTimeout(() => out.error(new TypeError('cut')), 50)
        text = ''
      },
    })
  }
}
