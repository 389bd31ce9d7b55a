import type { z } from 'zod'

/** A plugin with its options, as a factory call in the config leaves it; checked and built when the hub loads. */
export interface PluginSpec<Kind extends string, Context, Built> {
  readonly kind: Kind
  readonly name: string
  readonly options: unknown
  readonly schema: z.ZodType
  create(options: unknown, context: Context): Built | Promise<Built>
}

/** How a plugin is defined: the schema of its options, and what is made of them. */
export type Definition<Schema extends z.ZodType, Context, Built> = {
  readonly name: string
  /** Strict object schema; unknown keys are reported with what was probably meant. */
  readonly options: Schema
  create(options: z.output<Schema>, context: Context): Built | Promise<Built>
}

/** The factory users call in their config; its options may be left out when all of them have defaults. */
export type Factory<Schema extends z.ZodType, Spec> = (
  ...args: {} extends z.input<Schema> ? [options?: z.input<Schema>] : [options: z.input<Schema>]
) => Spec

/** The spec that a factory call leaves in the config. */
export const toSpec = <Kind extends string, Schema extends z.ZodType, Context, Built>(
  kind: Kind,
  definition: Definition<Schema, Context, Built>,
  options: unknown,
): PluginSpec<Kind, Context, Built> => ({
  kind,
  name: definition.name,
  options: options ?? {},
  schema: definition.options,
  // The options were parsed with this very schema, by the loader.
  create: (parsed, context) => definition.create(parsed as z.output<Schema>, context),
})

const factories = new WeakSet<object>()

/** Notes that a function leaves a spec in the config, so that one which was not called is taken for nothing else. */
export const noted = <Made extends (...args: never) => unknown>(factory: Made): Made => {
  factories.add(factory)
  return factory
}

/** Whether a function is a factory that was not called. */
export const isFactory = (value: object): boolean => factories.has(value)
