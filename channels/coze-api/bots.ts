import type { BotItem } from '../../core/bot.ts'
import type { JsonObject } from '../../core/message.ts'

/** A bot as Coze lists it. The hub does not know when a bot of its config was made. */
export const toBotItem = ({ bot, name, description, avatar }: BotItem): JsonObject => ({
  id: bot,
  name: name ?? bot,
  description: description ?? '',
  icon_url: avatar ?? '',
  is_published: true,
  published_at: 0,
  updated_at: 0,
})

/** A bot as Coze shows it by itself, with what it says before anybody has said a word. */
export const toBot = ({ bot, name, description, avatar, welcome, starters }: BotItem): JsonObject => ({
  bot_id: bot,
  name: name ?? bot,
  description: description ?? '',
  icon_url: avatar ?? '',
  create_time: 0,
  update_time: 0,
  version: '',
  prompt_info: { prompt: '' },
  onboarding_info: { prologue: welcome ?? '', suggested_questions: starters ?? [] },
  bot_mode: 0,
  plugin_info_list: [],
  model_info: { model_id: '', model_name: '' },
})
