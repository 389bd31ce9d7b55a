/**
 * The schema, step by step: the database's `user_version` says how many steps it has taken. A released step is never
 * changed; a new one is added below it.
 */
export const migrations: readonly string[] = [
  `
  CREATE TABLE meta (boot INTEGER NOT NULL);
  INSERT INTO meta VALUES (0);

  CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    bot TEXT NOT NULL,
    key TEXT NOT NULL,
    user TEXT NOT NULL DEFAULT '',
    name TEXT NOT NULL,
    thread TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (bot, key, user, name)
  ) WITHOUT ROWID;
  CREATE INDEX conversations_by_time ON conversations (bot, key, user, updated_at, id);

  CREATE TABLE turns (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    message_id TEXT NOT NULL,
    message TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    channel TEXT NOT NULL,
    debug INTEGER NOT NULL,
    bypass INTEGER NOT NULL,
    status TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    cursor TEXT,
    expires_at INTEGER,
    result TEXT,
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    UNIQUE (conversation, message_id)
  );
  CREATE INDEX turns_alive ON turns (conversation, number) WHERE ended_at IS NULL;

  CREATE TABLE events (
    turn INTEGER NOT NULL REFERENCES turns (number) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (turn, seq)
  ) WITHOUT ROWID;

  CREATE TABLE records (
    number INTEGER PRIMARY KEY,
    conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    turn TEXT NOT NULL,
    turn_number INTEGER NOT NULL,
    role TEXT NOT NULL,
    text TEXT NOT NULL,
    messages TEXT,
    partial INTEGER NOT NULL DEFAULT 0,
    at INTEGER NOT NULL
  );
  CREATE INDEX records_by_conversation ON records (conversation, number);
  CREATE INDEX records_by_turn ON records (conversation, turn_number, number);

  CREATE TABLE files (
    id TEXT PRIMARY KEY,
    conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    mime TEXT NOT NULL,
    upstream TEXT NOT NULL,
    at INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX files_by_conversation ON files (conversation);
  `,
  `
  CREATE TABLE audit (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    what TEXT NOT NULL,
    by TEXT NOT NULL,
    bot TEXT,
    turn TEXT,
    details TEXT
  );
  `,
  `
  CREATE TABLE owed (
    turn INTEGER NOT NULL REFERENCES turns (number) ON DELETE CASCADE,
    channel TEXT NOT NULL,
    PRIMARY KEY (turn, channel)
  ) WITHOUT ROWID;

  CREATE TABLE outbox (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    channel TEXT NOT NULL,
    turn TEXT NOT NULL REFERENCES turns (id) ON DELETE CASCADE,
    type TEXT NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL
  );
  CREATE INDEX outbox_due ON outbox (next_at) WHERE state = 'pending';
  CREATE INDEX outbox_by_turn ON outbox (turn);
  `,
  `
  ALTER TABLE turns ADD COLUMN detached INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE turns ADD COLUMN compacted INTEGER NOT NULL DEFAULT 0;
  CREATE INDEX turns_ended ON turns (compacted, ended_at) WHERE ended_at IS NOT NULL;
  `,
  `
  ALTER TABLE owed RENAME COLUMN channel TO lane;
  UPDATE owed SET lane = 'channel:' || lane;

  CREATE TABLE deliveries (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    lane TEXT NOT NULL,
    type TEXT NOT NULL,
    turn TEXT REFERENCES turns (id) ON DELETE CASCADE,
    payload TEXT,
    at INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL
  );
  INSERT INTO deliveries (number, id, lane, type, turn, at, state, attempts, next_at)
    SELECT number, id, 'channel:' || channel, type, turn, at, state, attempts, next_at FROM outbox;
  DROP TABLE outbox;
  ALTER TABLE deliveries RENAME TO outbox;
  CREATE INDEX outbox_due ON outbox (next_at) WHERE state = 'pending';
  CREATE INDEX outbox_by_turn ON outbox (turn);
  `,
  `
  ALTER TABLE conversations ADD COLUMN title TEXT;
  ALTER TABLE conversations ADD COLUMN status TEXT;

  CREATE TABLE sandboxes (
    name TEXT NOT NULL,
    conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    blueprint TEXT NOT NULL,
    PRIMARY KEY (name, conversation)
  ) WITHOUT ROWID;
  CREATE INDEX sandboxes_by_conversation ON sandboxes (conversation);

  CREATE TABLE feedback (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    turn TEXT NOT NULL,
    message TEXT NOT NULL,
    speaker TEXT NOT NULL,
    verdict TEXT NOT NULL,
    comment TEXT,
    rating INTEGER,
    tags TEXT,
    at INTEGER NOT NULL,
    UNIQUE (turn, message, speaker)
  );
  CREATE INDEX feedback_by_conversation ON feedback (conversation, number);
  `,
  `
  ALTER TABLE conversations ADD COLUMN ephemeral INTEGER NOT NULL DEFAULT 0;
  DROP INDEX conversations_by_time;
  CREATE INDEX conversations_by_time ON conversations (bot, key, user, updated_at, id) WHERE ephemeral = 0;
  `,
  `
  ALTER TABLE conversations ADD COLUMN unclaimed INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE conversations ADD COLUMN metadata TEXT;
  ALTER TABLE conversations ADD COLUMN section INTEGER NOT NULL DEFAULT 0;
  CREATE INDEX conversations_of_key ON conversations (bot, key, updated_at, id) WHERE ephemeral = 0;
  `,
  `
  ALTER TABLE records ADD COLUMN record_id TEXT NOT NULL DEFAULT '';
  ALTER TABLE records ADD COLUMN reply TEXT;
  ALTER TABLE records ADD COLUMN fields TEXT NOT NULL DEFAULT '{}';
  ALTER TABLE records ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE records ADD COLUMN own INTEGER NOT NULL DEFAULT 1;
  UPDATE records SET record_id = turn || '_' || role, reply = turn || '_bot', updated_at = at;
  `,
  `
  CREATE TABLE closed_lanes (
    lane TEXT PRIMARY KEY
  ) WITHOUT ROWID;
  `,
  `
  ALTER TABLE conversations ADD COLUMN taken_by TEXT;
  `,
  `
  CREATE TABLE receipts (
    id TEXT PRIMARY KEY,
    names TEXT NOT NULL,
    turn TEXT NOT NULL,
    until INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX receipts_by_time ON receipts (until);
  `,
  `
  ALTER TABLE turns ADD COLUMN ran_ms INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE turns ADD COLUMN leg_at INTEGER;
  UPDATE turns SET leg_at = created_at WHERE ended_at IS NULL;
  `,
  `
  UPDATE conversations SET section = COALESCE(
    (SELECT MAX(number) FROM records WHERE conversation = conversations.id AND turn_number <= section), 0)
    WHERE section > 0;
  `,
  `
  ALTER TABLE owed ADD COLUMN progress TEXT;
  `,
  `
  ALTER TABLE events ADD COLUMN at INTEGER;
  ALTER TABLE turns ADD COLUMN started_at INTEGER;
  `,
  `
  ALTER TABLE outbox ADD COLUMN error TEXT;
  `,
  `
  CREATE TABLE journal (
    number INTEGER PRIMARY KEY,
    body TEXT NOT NULL
  );
  `,
  `
  -- A row of events may hold several deltas: hubs from before this would not understand it.
  `,
]
