/** How much of everything a run does. Times in seconds. */
export interface Sizes {
  /** How long a round is measured. */
  readonly seconds: number
  readonly rounds: number
  /** Whether a round that does not count comes first. */
  readonly warmUp: boolean
  /** Whether memory is measured on servers that have done nothing yet. */
  readonly fresh: boolean
  readonly paced: { readonly clients: number; readonly everyMs: number }
  readonly burst: { readonly clients: number; readonly deltas: number }
  readonly fanOut: { readonly readers: number; readonly everyMs: number }
  readonly idle: { readonly clients: readonly number[]; readonly everyMs: number }
  readonly stalled: {
    readonly clients: number
    readonly deltas: number
    readonly live: number
    readonly everyMs: number
  }
  readonly accept: { readonly perSecond: number }
  readonly replay: { readonly events: number }
  /** Messages in the store, in the order they are measured; two to a turn. */
  readonly history: { readonly messages: readonly number[]; readonly samples: number }
  readonly start: { readonly turns: readonly number[] }
  readonly sockets: { readonly clients: number; readonly settleSeconds: number }
  readonly webhooks: { readonly messages: number }
  readonly layers: { readonly events: number }
}

/** What the figures of the repository are measured with. */
export const fullSizes: Sizes = {
  seconds: 3,
  rounds: 3,
  warmUp: true,
  fresh: true,
  paced: { clients: 200, everyMs: 50 },
  burst: { clients: 10, deltas: 2000 },
  fanOut: { readers: 200, everyMs: 50 },
  idle: { clients: [10, 100, 1000, 3000, 9000], everyMs: 1000 },
  stalled: { clients: 1000, deltas: 20_000, live: 100, everyMs: 50 },
  accept: { perSecond: 500 },
  replay: { events: 10_000 },
  history: { messages: [1000, 10_000, 100_000, 1_000_000], samples: 300 },
  start: { turns: [0, 100_000] },
  sockets: { clients: 5000, settleSeconds: 5 },
  webhooks: { messages: 1000 },
  layers: { events: 100_000 },
}

/** A moment of everything, for the test that the benchmark still runs. */
export const tinySizes: Sizes = {
  seconds: 0.05,
  rounds: 1,
  warmUp: false,
  fresh: false,
  paced: { clients: 2, everyMs: 5 },
  burst: { clients: 2, deltas: 20 },
  fanOut: { readers: 2, everyMs: 5 },
  idle: { clients: [2], everyMs: 10 },
  stalled: { clients: 2, deltas: 20, live: 2, everyMs: 5 },
  accept: { perSecond: 40 },
  replay: { events: 20 },
  history: { messages: [20], samples: 2 },
  start: { turns: [0] },
  sockets: { clients: 2, settleSeconds: 0 },
  webhooks: { messages: 2 },
  layers: { events: 10 },
}
