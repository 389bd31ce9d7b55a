import 'reflect-metadata/lite'
import { container, instanceCachingFactory } from 'tsyringe'
import type { DependencyContainer } from 'tsyringe'

/** Names a shared service and carries its type. */
export interface Token<T> {
  readonly symbol: symbol
  /** For the compiler only. */
  readonly type?: T
}

/** Makes the token of a service; `name` is for error messages, and two tokens of one name are two services. */
export const token = <T>(name: string): Token<T> => ({ symbol: Symbol(name) })

/**
 * What is shared across plugins or replaced in tests: the clock, the log, `fetch`, the store. Everything else is an
 * argument. Services are made when first asked for, once, and disposed in reverse order.
 */
export class Services implements AsyncDisposable {
  readonly #container: DependencyContainer = container.createChildContainer()
  readonly #disposal = new AsyncDisposableStack()

  /** The first registration wins, so a test's own service stays in place. */
  provide<T>(name: Token<T>, make: (services: Services) => T): this {
    if (!this.#container.isRegistered(name.symbol)) {
      this.#container.register(name.symbol, { useFactory: instanceCachingFactory(() => make(this)) })
    }
    return this
  }

  /** @throws when nobody provided it, naming the token. */
  get<T>(name: Token<T>): T {
    return this.#container.resolve<T>(name.symbol)
  }

  /** Runs `close` when the services are disposed; what was deferred last is closed first. */
  defer(close: () => void | Promise<void>): void {
    this.#disposal.defer(close)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#disposal.disposeAsync()
    this.#container.clearInstances()
  }
}
