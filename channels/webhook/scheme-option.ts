import { z } from 'zod'
import { didYouMean } from '../../core/config.ts'
import { issuesOf, issueWords } from '../../core/issue-words.ts'
import type { SchemeSpec } from './scheme.ts'

/** The option `scheme` of the channel, whose own options are checked with the rest of the config. */
export const schemeOption = () =>
  z
    .custom<SchemeSpec>(isScheme, 'must be a scheme: call its factory, for example `slack({ … })`')
    .transform((spec, context): SchemeSpec => {
      const result = spec.schema.safeParse(spec.options, { error: issueWords })
      if (result.success) return { ...spec, options: result.data }
      for (const issue of issuesOf(result.error)) {
        for (const message of problemsIn(issue, spec.schema)) {
          context.addIssue({ code: 'custom', path: [...issue.path], message: `${spec.name}(): ${message}` })
        }
      }
      return z.NEVER
    })

const isScheme = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'scheme'

function problemsIn(issue: z.core.$ZodIssue, schema: z.ZodType): string[] {
  if (issue.code !== 'unrecognized_keys') return [issue.message]
  const known = schema instanceof z.ZodObject ? Object.keys(schema.shape) : []
  return issue.keys.map((key) => `unknown option "${key}"${didYouMean(key, known)}`)
}
