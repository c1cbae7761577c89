-- Sessions, their messages, and the replies that are owed.
--
-- What the database itself guarantees: a number and a client id occur once in a session; a message
-- has at most one reply; a row never points at another tenant's; the role that writes for all tenants
-- cannot read a body.

CREATE TABLE sessions (
  tenant_id        uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
  id               uuid NOT NULL,
  bot_id           uuid NOT NULL,
  -- NULL: opened with an API key.
  visitor_id       uuid,
  created_at       timestamptz NOT NULL DEFAULT now(),
  -- Written behind, coalesced: indexed, so an update of it is never HOT.
  last_activity_at timestamptz NOT NULL DEFAULT now(),
  -- Rises with every change of handler.
  fence            int8 NOT NULL DEFAULT 0 CHECK (fence >= 0),
  PRIMARY KEY (tenant_id, id),
  CONSTRAINT sessions_bot_fkey FOREIGN KEY (tenant_id, bot_id) REFERENCES bots ON DELETE CASCADE,
  CONSTRAINT sessions_visitor_fkey FOREIGN KEY (tenant_id, visitor_id)
    REFERENCES visitors ON DELETE CASCADE
);
-- One for each way the list is filtered; they also serve the cascades.
CREATE INDEX sessions_activity_idx ON sessions (tenant_id, last_activity_at DESC, id DESC);
CREATE INDEX sessions_bot_idx ON sessions (tenant_id, bot_id, last_activity_at DESC, id DESC);
CREATE INDEX sessions_visitor_idx ON sessions (tenant_id, visitor_id, last_activity_at DESC, id DESC);
ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE sessions FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON sessions TO hubbub_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY writer_find ON sessions FOR SELECT TO hubbub_writer USING (true);
CREATE POLICY writer_touch ON sessions FOR UPDATE TO hubbub_writer USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, DELETE ON sessions TO hubbub_app;
-- Its place (ctid) too: rows that were found and locked are updated by it.
GRANT SELECT (ctid, tenant_id, id, fence, last_activity_at), UPDATE (last_activity_at) ON sessions
  TO hubbub_writer;

-- By range of session_id: ids are UUIDv7, so a partition holds the sessions born in one month, and
-- unique keys need no time in them. The default partition takes whatever has no partition of its own,
-- so a missing one never fails a batch.
CREATE TABLE messages (
  tenant_id     uuid NOT NULL,
  session_id    uuid NOT NULL,
  seq           int8 NOT NULL CHECK (seq > 0),
  -- The writer's own id; of an answer, its reply's.
  client_id     uuid NOT NULL,
  -- 0 visitor, 1 assistant, 2 operator, 3 system
  role          int2 NOT NULL CHECK (role BETWEEN 0 AND 3),
  author        text NOT NULL,
  body          text NOT NULL,
  -- Lets the writer tell a repeat from a conflict without reading the body.
  body_sha256   bytea NOT NULL CHECK (length(body_sha256) = 32),
  metadata      jsonb CHECK (jsonb_typeof(metadata) = 'object'),
  created_at    timestamptz NOT NULL DEFAULT now(),
  -- Set on answers only.
  reply_id      uuid,
  model         text,
  input_tokens  int8,
  output_tokens int8,
  latency_ms    int8,
  PRIMARY KEY (tenant_id, session_id, seq),
  CONSTRAINT messages_client_id_key UNIQUE (tenant_id, session_id, client_id),
  CONSTRAINT messages_session_fkey FOREIGN KEY (tenant_id, session_id)
    REFERENCES sessions ON DELETE CASCADE
) PARTITION BY RANGE (session_id);
CREATE TABLE messages_default PARTITION OF messages DEFAULT;
ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE messages FORCE ROW LEVEL SECURITY;
-- Nobody is granted a partition; these two lines hold even if somebody is.
ALTER TABLE messages_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE messages_default FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON messages TO hubbub_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY writer_insert ON messages FOR INSERT TO hubbub_writer WITH CHECK (true);
CREATE POLICY writer_find ON messages FOR SELECT TO hubbub_writer USING (true);
GRANT SELECT ON messages TO hubbub_app;
-- All but the body: what the answer to a repeated message needs.
GRANT INSERT, SELECT (tenant_id, session_id, seq, client_id, role, author, body_sha256, metadata,
  created_at, reply_id, model, input_tokens, output_tokens, latency_ms) ON messages TO hubbub_writer;

CREATE TABLE replies (
  tenant_id      uuid NOT NULL,
  id             uuid NOT NULL,
  session_id     uuid NOT NULL,
  -- The message it answers.
  to_seq         int8 NOT NULL CHECK (to_seq > 0),
  state          text NOT NULL CHECK (state IN ('pending', 'completed', 'failed', 'cancelled')),
  -- Who writes it, and under which fence: both must match for it to be ended.
  node_id        uuid NOT NULL,
  fence          int8 NOT NULL CHECK (fence >= 0),
  -- What was written before it failed or was cancelled; a completed one's text is its message.
  body           text NOT NULL DEFAULT '',
  model          text,
  input_tokens   int8,
  output_tokens  int8,
  error_code     text,
  error_message  text,
  first_token_ms int8,
  latency_ms     int8,
  created_at     timestamptz NOT NULL DEFAULT now(),
  ended_at       timestamptz,
  PRIMARY KEY (tenant_id, id),
  CONSTRAINT replies_to_seq_key UNIQUE (tenant_id, session_id, to_seq),
  CONSTRAINT replies_session_fkey FOREIGN KEY (tenant_id, session_id)
    REFERENCES sessions ON DELETE CASCADE,
  CHECK ((state = 'pending') = (ended_at IS NULL)),
  CHECK ((state = 'failed') = (error_code IS NOT NULL))
);
CREATE INDEX replies_pending_idx ON replies (created_at) WHERE state = 'pending';
ALTER TABLE replies ENABLE ROW LEVEL SECURITY;
ALTER TABLE replies FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON replies TO hubbub_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY writer_insert ON replies FOR INSERT TO hubbub_writer WITH CHECK (true);
CREATE POLICY writer_find ON replies FOR SELECT TO hubbub_writer USING (true);
CREATE POLICY writer_end ON replies FOR UPDATE TO hubbub_writer USING (true) WITH CHECK (true);
GRANT SELECT ON replies TO hubbub_app;
-- All but what was written.
GRANT INSERT,
  SELECT (ctid, tenant_id, id, session_id, to_seq, state, node_id, fence, created_at, ended_at),
  UPDATE (state, node_id, fence, body, model, input_tokens, output_tokens, error_code, error_message,
          first_token_ms, latency_ms, ended_at) ON replies TO hubbub_writer;

-- The smallest UUIDv7 of an instant.
CREATE FUNCTION uuid7_floor(instant timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog AS $$
  SELECT (lpad(to_hex((extract(epoch FROM instant) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the partitions of this month and of the next ones, and says how many are new. Runs as the
-- owner: the server's role may not create tables. A month whose sessions are already in the default
-- partition is left there.
CREATE FUNCTION create_message_partitions(months_ahead int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  first timestamptz;
  part text;
  made int := 0;
BEGIN
  IF months_ahead NOT BETWEEN 0 AND 120 THEN
    RAISE EXCEPTION 'months_ahead must be between 0 and 120';
  END IF;
  FOR i IN 0..months_ahead LOOP
    first := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i)) AT TIME ZONE 'UTC';
    part := 'messages_' || to_char(first AT TIME ZONE 'UTC', 'YYYYMM');
    CONTINUE WHEN to_regclass('public.' || part) IS NOT NULL;
    BEGIN
      EXECUTE format('CREATE TABLE public.%I PARTITION OF public.messages FOR VALUES FROM (%L) TO (%L)',
        part, public.uuid7_floor(first), public.uuid7_floor(
          (first AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC'));
      EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', part);
      EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', part);
      made := made + 1;
    -- check_violation: the default partition holds rows of the month. duplicate_table: another server
    -- made it at the same moment. lock_not_available: busy; the next start tries again.
    EXCEPTION WHEN check_violation OR duplicate_table OR lock_not_available THEN
      RAISE NOTICE 'no partition %: %', part, SQLERRM;
    END;
  END LOOP;
  RETURN made;
END $$;
REVOKE ALL ON FUNCTION create_message_partitions(int), uuid7_floor(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION create_message_partitions(int) TO hubbub_app;
