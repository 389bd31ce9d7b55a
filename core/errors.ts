import type { PublicError } from './events.ts'

/** The languages a bot can fail in. */
export type Language = 'en' | 'zh-Hant' | 'zh-Hans'

interface Failure {
  /** HTTP status when it happens before there is a turn. */
  readonly status: number
  /** Whether sending the message again, under a new id, may work. */
  readonly retryable: boolean
  /** How a turn ends by it; `interrupted` says that the outcome cannot be known. */
  readonly ends?: 'failed' | 'interrupted'
  readonly en: string
  /** Both Chinese sentences are there for every failure that can end a turn. */
  readonly 'zh-Hant'?: string
  readonly 'zh-Hans'?: string
}

/** Every failure the hub can name. `docs/errors.md` says what to do about each. */
export const failures = {
  // The request was not understood.
  bad_json: {
    status: 400,
    retryable: false,
    en: 'The body is not valid JSON. Send one JSON object, encoded as UTF-8.',
  },
  bad_cursor: {
    status: 400,
    retryable: false,
    en: 'The cursor is not one of this turn. Use the id of an event you received, `{turn}/{seq}`, or a number.',
  },
  bad_upload: {
    status: 400,
    retryable: false,
    en: 'The upload is not readable multipart/form-data with one file part.',
  },
  unauthorized: {
    status: 401,
    retryable: false,
    en: 'Send a key of this hub: `Authorization: Bearer KEY` or `X-API-Key: KEY`.',
  },
  bad_signature: { status: 401, retryable: false, en: 'The signature of this webhook cannot be trusted.' },
  forbidden: { status: 403, retryable: false, en: 'This key may not do that; it needs one with `admin: true`.' },
  forbidden_host: {
    status: 403,
    retryable: false,
    en: 'This hub has no auth and answers only under its own name or a loopback one. Check the Host header.',
  },
  forbidden_origin: {
    status: 403,
    retryable: false,
    en: "Pages of this origin may not connect. Add it to the channel's `origins`.",
  },
  bypass_forbidden: {
    status: 403,
    retryable: false,
    en: 'This key may not bypass consent. Leave out `bypassConsent`.',
  },
  not_found: { status: 404, retryable: false, en: 'There is nothing at this path.' },
  unknown_bot: { status: 404, retryable: false, en: 'There is no such bot. GET /api/v1/bots lists those you may use.' },
  unknown_turn: { status: 404, retryable: false, en: 'There is no such turn.' },
  unknown_conversation: { status: 404, retryable: false, en: 'There is no such conversation.' },
  unknown_message: { status: 404, retryable: false, en: 'There is no such message of the bot.' },
  unknown_sandbox: { status: 404, retryable: false, en: 'No sandbox of that name was started in your conversations.' },
  passthrough_unsupported: { status: 404, retryable: false, en: "This bot's platform has no such call." },
  unknown_file: { status: 404, retryable: false, en: 'There is no such file in this conversation.' },
  method_not_allowed: {
    status: 405,
    retryable: false,
    en: 'This path does not take that method; see the Allow header.',
  },
  not_acceptable: {
    status: 406,
    retryable: false,
    en: 'No channel of this hub answers in the form you accept: `rest()` gives application/json, `sse()` text/event-stream.',
  },
  request_timeout: { status: 408, retryable: true, en: 'The request took too long to arrive.' },
  turn_waiting: {
    status: 409,
    retryable: false,
    en: 'A turn of this conversation waits for an answer. Answer or cancel it first.',
  },
  turn_running: {
    status: 409,
    retryable: true,
    en: 'This conversation is busy with an earlier message. Wait for its answer, then send this one.',
    'zh-Hant': '這個對話正在處理上一則訊息，請等待回覆後再傳送。',
    'zh-Hans': '此对话正在处理上一条消息，请等待回复后再发送。',
  },
  not_handed_over: {
    status: 409,
    retryable: false,
    en: 'The bot has this conversation. Take it first: POST /api/v1/conversations/{conversation}/handover',
  },
  already_decided: { status: 409, retryable: false, en: 'This call already has its answer; the first one counts.' },
  turn_ended: { status: 409, retryable: false, en: 'This turn has ended already.' },
  not_waiting: { status: 409, retryable: false, en: 'This turn does not wait for that.' },
  events_expired: { status: 410, retryable: false, en: 'The events of this turn are no longer kept.' },
  payload_too_large: { status: 413, retryable: false, en: 'The body is too large.' },
  unsupported_media_type: { status: 415, retryable: false, en: 'Send the body as application/json.' },
  invalid_request: { status: 422, retryable: false, en: 'A field is missing or wrong.' },
  idempotency_mismatch: {
    status: 422,
    retryable: false,
    en: 'Another message was sent under this id. Use a new id for a new message.',
  },
  files_unsupported: { status: 422, retryable: false, en: 'This bot takes no files.' },
  queue_full: { status: 429, retryable: true, en: 'Too many messages wait in this conversation. Try again shortly.' },
  internal: {
    status: 500,
    retryable: true,
    ends: 'failed',
    en: 'Something went wrong inside the hub. Try again; if it stays, look into its log.',
    'zh-Hant': '系統發生內部錯誤，請稍後再試。',
    'zh-Hans': '系统发生内部错误，请稍后再试。',
  },
  auth_unavailable: {
    status: 503,
    retryable: true,
    en: 'The hub cannot check tokens right now. Try again shortly.',
  },
  shutting_down: { status: 503, retryable: true, en: 'The hub is shutting down. Try again in a few seconds.' },
  store_unavailable: {
    status: 503,
    retryable: true,
    en: 'The hub cannot store messages right now. Try again shortly.',
  },

  // The answer failed.
  bot_failed: {
    status: 502,
    retryable: true,
    ends: 'failed',
    en: 'The bot ran into an error. Please try again.',
    'zh-Hant': '機器人發生錯誤，請再試一次。',
    'zh-Hans': '机器人发生错误，请再试一次。',
  },
  bot_silent: {
    status: 504,
    retryable: true,
    ends: 'failed',
    en: 'The bot stopped answering. Please try again.',
    'zh-Hant': '機器人沒有回應，請再試一次。',
    'zh-Hans': '机器人没有回应，请再试一次。',
  },
  bot_blocked: {
    status: 504,
    retryable: true,
    ends: 'failed',
    en: 'The bot got stuck and was stopped. Please try again.',
    'zh-Hant': '機器人卡住了，已被中止，請再試一次。',
    'zh-Hans': '机器人卡住了，已被中止，请再试一次。',
  },
  unsupported: {
    status: 501,
    retryable: false,
    ends: 'failed',
    en: 'This bot cannot do that.',
    'zh-Hant': '這個機器人不支援這項功能。',
    'zh-Hans': '这个机器人不支持这项功能。',
  },
  bot_unavailable: {
    status: 503,
    retryable: true,
    ends: 'failed',
    en: 'The bot is not available right now. Please try again in a minute.',
    'zh-Hant': '機器人暫時無法使用，請稍後再試。',
    'zh-Hans': '机器人暂时无法使用，请稍后再试。',
  },
  upstream_unreachable: {
    status: 502,
    retryable: true,
    ends: 'failed',
    en: 'The bot could not be reached. Please try again later.',
    'zh-Hant': '無法連線到機器人，請稍後再試。',
    'zh-Hans': '无法连接到机器人，请稍后再试。',
  },
  upstream_rate_limited: {
    status: 429,
    retryable: true,
    ends: 'failed',
    en: 'The bot is answering too many people right now. Please try again in a moment.',
    'zh-Hant': '目前使用人數過多，請稍候片刻再試。',
    'zh-Hans': '当前使用人数过多，请稍候片刻再试。',
  },
  upstream_quota: {
    status: 402,
    retryable: false,
    ends: 'failed',
    en: "The bot's account has no quota left. Its operator has to renew it.",
    'zh-Hant': '機器人的額度已用完，請聯絡管理員。',
    'zh-Hans': '机器人的额度已用完，请联系管理员。',
  },
  upstream_auth: {
    status: 502,
    retryable: false,
    ends: 'failed',
    en: "The bot's platform refused the hub's key. Its operator has to check the key and the address.",
    'zh-Hant': '機器人平台拒絕了金鑰，請聯絡管理員。',
    'zh-Hans': '机器人平台拒绝了密钥，请联系管理员。',
  },
  upstream_rejected: {
    status: 502,
    retryable: false,
    ends: 'failed',
    en: "The bot's platform did not accept this message.",
    'zh-Hant': '機器人平台不接受這則訊息。',
    'zh-Hans': '机器人平台不接受这条消息。',
  },
  upstream_conflict: {
    status: 409,
    retryable: true,
    ends: 'failed',
    en: 'The bot is still busy with an earlier message. Please try again in a moment.',
    'zh-Hant': '機器人仍在處理上一則訊息，請稍候再試。',
    'zh-Hans': '机器人仍在处理上一条消息，请稍候再试。',
  },
  upstream_refused_content: {
    status: 422,
    retryable: false,
    ends: 'failed',
    en: 'The bot may not answer this message. Please put it in other words.',
    'zh-Hant': '機器人無法回答這則訊息，請換個說法。',
    'zh-Hans': '机器人无法回答这条消息，请换个说法。',
  },
  upstream_failed: {
    status: 502,
    retryable: true,
    ends: 'failed',
    en: 'The bot ran into an error. Please try again.',
    'zh-Hant': '機器人發生錯誤，請再試一次。',
    'zh-Hans': '机器人发生错误，请再试一次。',
  },
  upstream_cut: {
    status: 502,
    retryable: true,
    ends: 'interrupted',
    en: 'The connection to the bot broke off, and its answer may be incomplete.',
    'zh-Hant': '與機器人的連線中斷，回覆可能不完整。',
    'zh-Hans': '与机器人的连接中断，回复可能不完整。',
  },
  upstream_silent: {
    status: 504,
    retryable: true,
    ends: 'interrupted',
    en: 'The bot fell silent, and its answer may be incomplete.',
    'zh-Hant': '機器人停止回應，回覆可能不完整。',
    'zh-Hans': '机器人停止回应，回复可能不完整。',
  },
  interrupted: {
    status: 500,
    retryable: true,
    ends: 'interrupted',
    en: 'The hub was restarted while the bot answered, and its answer may be incomplete.',
    'zh-Hant': '系統在回覆途中重新啟動，回覆可能不完整。',
    'zh-Hans': '系统在回复途中重新启动，回复可能不完整。',
  },
  answer_too_large: {
    status: 502,
    retryable: false,
    ends: 'failed',
    en: 'The answer is larger than the hub passes on.',
    'zh-Hant': '回覆內容過長，已中止。',
    'zh-Hans': '回复内容过长，已中止。',
  },
  answer_cut_short: {
    status: 502,
    retryable: false,
    ends: 'failed',
    en: 'The answer reached the length that its platform allows, and is incomplete.',
    'zh-Hant': '回覆達到平台的長度上限，內容不完整。',
    'zh-Hans': '回复达到平台的长度上限，内容不完整。',
  },
  deadline_exceeded: {
    status: 504,
    retryable: true,
    ends: 'failed',
    en: 'The bot took too long to finish. Please try again.',
    'zh-Hant': '機器人回覆時間過長，請再試一次。',
    'zh-Hans': '机器人回复时间过长，请再试一次。',
  },
  consent_expired: {
    status: 410,
    retryable: true,
    ends: 'failed',
    en: 'Nobody answered in time whether the bot may use its tool.',
    'zh-Hant': '逾時未回覆工具使用授權，本次回覆已結束。',
    'zh-Hans': '超时未回复工具使用授权，本次回复已结束。',
  },

  /** Thrown into a turn that somebody stops; it ends as `turn.cancelled`, never as an error. */
  cancelled: { status: 499, retryable: false, ends: 'failed', en: 'The turn was cancelled.' },
  /** The config has problems; all of them are in the message. Exit code 78. */
  config_invalid: { status: 500, retryable: false, en: 'The config is not valid.' },
} as const satisfies Record<string, Failure>

/** A code of the table: what clients find in `error.code`, and tests may rely on. */
export type FailureCode = keyof typeof failures

/** Whether a word is a code of the table, as in an event that was read from the log. */
export const isFailureCode = (code: string): code is FailureCode => Object.hasOwn(failures, code)

/**
 * What is known of a failure beside its code. Only `message`, `retryAfterMs` and `upstream` reach clients; `cause`
 * stays in the log.
 */
export interface HubErrorOptions {
  /** Replaces the table's sentence. For clients: no secret and no vendor text in it. */
  readonly message?: string
  readonly cause?: unknown
  /** Provably nothing was started upstream, so trying again cannot do a thing twice. */
  readonly notStarted?: boolean
  readonly retryAfterMs?: number
  readonly upstream?: NonNullable<PublicError['upstream']>
  /** The turn this is about. */
  readonly turn?: string
}

/** The one kind of exception of the hub: a code of the table, and what a client may know of it. */
export class HubError extends Error {
  override readonly name = 'HubError'
  readonly code: FailureCode
  readonly notStarted: boolean
  readonly retryAfterMs: number | undefined
  readonly upstream: PublicError['upstream']
  readonly turn: string | undefined
  readonly #ownMessage: string | undefined

  constructor(code: FailureCode, options: HubErrorOptions = {}) {
    super(options.message ?? failures[code].en, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.notStarted = options.notStarted ?? false
    this.retryAfterMs = options.retryAfterMs
    this.upstream = options.upstream
    this.turn = options.turn
    this.#ownMessage = options.message
  }

  get failure(): Failure {
    return failures[this.code]
  }

  /** What clients get: a code and a sentence in their language, nothing of the cause. */
  public(language: Language = 'en'): PublicError {
    return {
      code: this.code,
      message: this.#ownMessage ?? this.failure[language] ?? this.failure.en,
      retryable: this.failure.retryable,
      ...(this.retryAfterMs === undefined ? {} : { retryAfterMs: this.retryAfterMs }),
      ...(this.upstream ? { upstream: this.upstream } : {}),
    }
  }
}

/** Any exception as a `HubError`: one stays itself, everything else gets `code` with the exception as its cause. */
export const asHubError = (error: unknown, code: FailureCode = 'internal'): HubError =>
  error instanceof HubError ? error : new HubError(code, { cause: error })
