import { fourChannels } from './four-channels.ts'
import { killedHalfWay } from './killed-half-way.ts'
import { setStage } from './stage.ts'

/**
 * `npm run demo`: what the hub is for, in half a minute. It kills the hub with SIGKILL in the middle of an answer and
 * sends one message over four channels at once, and counts what was lost and what came twice. Exit code 0 when both
 * are none, else 1.
 */
await using stage = await setStage()
const hub = await stage.startHub()
stage.line(`A hub listens on ${hub.url}; a simulated platform, which does not die with it, is its only bot.`)
const { hub: next, ...long } = await killedHalfWay(stage, hub)
const four = await fourChannels(stage, next)

const lost = long.lost + four.lost
const doubled = long.doubled + four.doubled
const isWhole = lost === 0 && doubled === 0
stage.line(`\n${stage.paint(isWhole ? 'green' : 'red', `${lost} lost, ${doubled} doubled`)}`)
process.exitCode = isWhole ? 0 : 1
