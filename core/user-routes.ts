import { Readable } from 'node:stream'
import { z } from 'zod'
import { check } from './body.ts'
import type { RequestContext, Route } from './channel.ts'
import { clientName } from './ids.ts'
import { admit } from './outbox-routes.ts'
import type { UserData, UserLine, UserOf } from './user-data.ts'

/** Where an operator has what is kept of a user, or has it deleted. */
export const userPath = '/api/v1/admin/users/:person'

/** What deleting a user is answered with. */
export const userErased = z
  .object({ conversations: z.number().describe('How many there were.') })
  .meta({ id: 'UserErased' })

const query = z.object({ key: clientName.optional().describe('Only what this key has of them.') })
const forAdmins = 'Where keys are needed, for one with `admin: true`; of the bots that it may use.'

/** The routes of what is kept of a user, for admins. */
export const userRoutes = (users: UserData): readonly Route[] => [
  {
    method: 'GET',
    path: userPath,
    describe: {
      summary: 'Have everything that is kept of a user',
      description: `${forAdmins} A line of JSON for each thing, under its \`type\`; what belongs to a conversation follows it.`,
      query,
      answers: { 200: { description: 'Lines of JSON.', content: { 'application/x-ndjson': z.string() } } },
    },
    handle(ctx) {
      const of = userOf(ctx)
      ctx.set({ 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' })
      ctx.body = Readable.from(textOf(users.export(of, ctx.principal.key)))
    },
  },
  {
    method: 'DELETE',
    path: userPath,
    describe: {
      summary: 'Delete everything that is kept of a user',
      description: `${forAdmins} Here, and upstream by the outbox. Live turns end with \`turn.cancelled\`. Audit entries stay.`,
      query,
      answers: { 200: { description: 'It is forgotten.', content: { 'application/json': userErased } } },
    },
    async handle(ctx) {
      const conversations = await users.erase(userOf(ctx), ctx.principal.key)
      ctx.body = { conversations }
    },
  },
]

/** @throws HubError `forbidden`, `invalid_request` */
function userOf(ctx: RequestContext): UserOf {
  admit(ctx)
  return {
    user: check(clientName, ctx.params['person'], 'The name of the user'),
    ...check(query, ctx.query),
    bots: ctx.principal.bots,
  }
}

/** Each as a line of JSON. */
export async function* textOf(lines: AsyncIterable<UserLine>): AsyncGenerator<string> {
  for await (const line of lines) yield `${JSON.stringify(line)}\n`
}
