import type { Figure } from '../figures.ts'
import type { Lab } from '../lab.ts'
import { layers } from './layers.ts'
import { accept, replay, sockets, webhooks } from './requests.ts'
import { history, start } from './stored.ts'
import { burst, fanOut, idle, paced, stalled } from './streams.ts'

/** What can be measured, by the name it is chosen by, in the order of a whole run. */
export const workloads: Readonly<Record<string, (lab: Lab) => Promise<Figure[]>>> = {
  paced,
  burst,
  'fan-out': fanOut,
  stalled,
  accept,
  webhooks,
  replay,
  sockets,
  idle,
  start,
  history,
  layers,
}
