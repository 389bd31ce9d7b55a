import type { Socket } from 'node:net'
import { serveTasks } from '../process.ts'
import { Crowd } from './crowd.ts'
import type { CrowdOptions, Heard } from './crowd.ts'
import { knock, times } from './requests.ts'
import type { Ask } from './requests.ts'
import { openSockets, stall } from './silent.ts'

// The clients, in a process of their own. They do little with what they get: marks are counted in the bytes.

let crowd: Crowd | undefined
const silent: Socket[] = []

const tasks = {
  async gather(options: CrowdOptions): Promise<void> {
    crowd = new Crowd(options)
    await crowd.gather()
  },
  hear: (): Heard => crowd!.hear(),
  dismiss: (upstream: string): Promise<Heard> => crowd!.dismiss(upstream),
  async stall(ask: Ask, clients: number): Promise<void> {
    silent.push(...(await stall(ask, clients)))
  },
  async openSockets(url: string, clients: number): Promise<void> {
    silent.push(...(await openSockets(url, clients)))
  },
  /** Ends the clients that were silent, and says how many of them were still there. */
  wake(): number {
    const there = silent.filter((socket) => !socket.closed).length
    for (const socket of silent.splice(0)) socket.destroy()
    return there
  },
  knock,
  times,
}
/** What the load generator does when it is asked. */
export type LoadTasks = typeof tasks

serveTasks(tasks)
