import { expect, it } from 'vitest'
import { Lab } from '../bench/lab.ts'
import { reportOf } from '../bench/report.ts'
import { tinySizes } from '../bench/sizes.ts'
import { workloads } from '../bench/workloads/index.ts'

/** They start hubs of their own, which takes most of the time, and go on beside the others. */
const apart = new Set(['start', 'history'])

it('measures every workload for a moment, of the hub and of a bare pipe', async () => {
  await using lab = new Lab({ sizes: tinySizes, only: ['direct', 'pipe', 'hub'], say: () => {} })
  const all = Object.keys(workloads)
  const measure = (names: readonly string[]) => Array.fromAsync(names, (name) => workloads[name]!(lab))
  const [beside, others] = await Promise.all([
    measure(all.filter((name) => apart.has(name))),
    measure(all.filter((name) => !apart.has(name))),
  ])
  const figures = [...beside, ...others].flat()
  for (const figure of figures) expect(figure.value, JSON.stringify(figure)).toSatisfy(Number.isFinite)
  for (const name of all) expect(figures.filter(({ workload }) => workload === name)).not.toEqual([])
  for (const name of ['paced', 'burst', 'idle']) {
    const pipe = figures.find(({ workload, subject }) => workload === name && subject.startsWith('pipe'))
    expect(pipe, name).toBeDefined()
  }
  expect(reportOf(figures)).toContain('× pipe')
})
