/** One thing that was measured, in several rounds. */
export interface Figure {
  readonly workload: string
  /** What was measured: a contender, or a size of the hub's. */
  readonly subject: string
  readonly what: string
  readonly unit: string
  /** The median of the rounds, and how far they went. */
  readonly value: number
  readonly least: number
  readonly most: number
}

/** What every round of a subject gave, by what it is and its unit: `{ 'CPU a delta, µs': 70 }`. */
export type Round = Readonly<Record<string, number>>

/** The figures of a subject, from its rounds. */
export function figuresOf(workload: string, subject: string, rounds: readonly Round[]): Figure[] {
  return Object.keys(rounds[0] ?? {}).map((key) => {
    const values = rounds.map((round) => round[key]!).toSorted((a, b) => a - b)
    const [what, unit = ''] = key.split(/, (?=[^,]*$)/)
    return {
      workload,
      subject,
      what: what!,
      unit,
      value: values[Math.floor((values.length - 1) / 2)]!,
      least: values[0]!,
      most: values.at(-1)!,
    }
  })
}

/** Two or three digits that count. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return '–'
  return Math.abs(value) >= 100 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)))
}
