import type { EncodedError } from '../../core/channel.ts'
import { HubError } from '../../core/errors.ts'
import type { FailureCode } from '../../core/errors.ts'
import { newId, toDecimal } from '../../core/ids.ts'

/**
 * Coze's code for each of the hub's; 5000, an internal error, for all others. What the hub's own key or account did wrong
 * at an upstream is nothing that a client's token could mend.
 */
const codes: Partial<Record<FailureCode, number>> = {
  bad_json: 4000,
  bad_cursor: 4000,
  bad_upload: 4000,
  not_found: 4000,
  method_not_allowed: 4000,
  not_acceptable: 4000,
  request_timeout: 4000,
  payload_too_large: 4000,
  unsupported_media_type: 4000,
  invalid_request: 4000,
  idempotency_mismatch: 4000,
  files_unsupported: 4000,
  already_decided: 4000,
  not_waiting: 4000,
  events_expired: 4000,
  unknown_turn: 4001,
  unknown_conversation: 4002,
  unknown_message: 4005,
  unknown_bot: 4006,
  queue_full: 4009,
  upstream_quota: 4008,
  upstream_rate_limited: 4009,
  bot_unavailable: 4013,
  upstream_unreachable: 4013,
  upstream_rejected: 4014,
  turn_waiting: 4016,
  turn_running: 4016,
  upstream_conflict: 4016,
  forbidden: 4101,
  forbidden_host: 4101,
  forbidden_origin: 4101,
  bypass_forbidden: 4101,
  turn_ended: 4104,
  upstream_refused_content: 4105,
  unknown_file: 4200,
  unauthorized: 700_012_006,
}

/** Coze's code for one of the hub's. */
export const cozeCode = (code: string): number => (Object.hasOwn(codes, code) ? codes[code as FailureCode]! : 5000)

/** A failure in front of a stream, in Coze's envelope, with the hub's own code beside Coze's. */
export function encodeFailure(error: HubError, path: string): EncodedError {
  const isChat = path.endsWith('/v3/chat')
  // Coze itself says of a wrong token something else here than anywhere else.
  const code = error.code === 'unauthorized' && isChat ? 4101 : cozeCode(error.code)
  const logid = error.turn === undefined ? newLogId() : toDecimal(error.turn)
  return {
    // What is wrong with a request has one status at Coze.
    status: error.code === 'invalid_request' ? 400 : error.failure.status,
    headers: { 'x-tt-logid': logid },
    body: { code, msg: error.public().message, detail: { logid, hub_code: error.code } },
  }
}

/** Something to name a request by. */
export const newLogId = (): string => toDecimal(newId('msg'))
