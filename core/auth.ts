/**
 * Who is asking. The key owns what it creates; the user is the person a trusted key speaks for, and separates the
 * names that clients choose. Channels carry a principal, only the dispatcher decides what it may see.
 */
export interface Principal {
  /** An API key's name, a token's subject, or `local`. */
  readonly key: string
  readonly user?: string
  /** Somebody's server: its word for `user` and `debug` counts. */
  readonly trusted: boolean
  readonly admin: boolean
  readonly bypassConsent: boolean
}

/** The principal of a hub without `auth`: one trusted key on loopback. */
export const localPrincipal = (user?: string): Principal => ({
  key: 'local',
  trusted: true,
  admin: true,
  bypassConsent: true,
  ...(user ? { user } : {}),
})
