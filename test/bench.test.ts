import { expect, it } from 'vitest'
import { Lab } from '../bench/lab.ts'
import { reportOf } from '../bench/report.ts'
import { tinySizes } from '../bench/sizes.ts'
import { workloads } from '../bench/workloads/index.ts'

it('measures every workload for a moment, of the hub and of a bare pipe', async () => {
  await using lab = new Lab({ sizes: tinySizes, only: ['direct', 'pipe', 'hub'], say: () => {} })
  const figures = []
  for (const measure of Object.values(workloads)) figures.push(...(await measure(lab)))
  for (const figure of figures) expect(figure.value, JSON.stringify(figure)).toBeTypeOf('number')
  for (const figure of figures) expect(figure.value, JSON.stringify(figure)).not.toBeNaN()
  const measured = new Set(figures.map(({ workload, subject }) => `${workload}: ${subject.split(',')[0]}`))
  for (const name of Object.keys(workloads))
    expect([...measured].some((each) => each.startsWith(`${name}: `))).toBe(true)
  for (const name of ['paced', 'burst', 'idle']) expect(measured).toContain(`${name}: pipe`)
  expect(reportOf(figures)).toContain('× pipe')
})
